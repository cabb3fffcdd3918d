# SPDX-License-Identifier: Apache-2.0
"""Likeness: whether crops show one person, by the features of a ReID model.

`synthesis` gives it to `reconstruct` as a second opinion beside the colours of body parts. What a
cosine means differs from model to model and from camera to camera, so the crops of a chunk are the
measure: those of different people on the one hand, those of one person on the other, most of which
are right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from viewsynth.reid.encoders import Encoder
from viewsynth.runtime.images import stretched

FEW = 6  # pairs of different people, and of one person, without which nothing is said
LARGEST = 6.0  # log odds that a pair can have: a model may be sure, and wrong


class Likeness:
    """Compares crops by a model.

    Args:
        encoder: See `encoders.load`.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def __call__(self, images: Sequence[np.ndarray], owners: Sequence[int]) -> np.ndarray:
        """Log odds that two crops show one person, for every pair.

        Args:
            images: uint8 [H, W, 3] each.
            owners: The person that each is said to show.
        Returns: float64 [N, N]; 0 where the chunk has too few crops to compare with.
        """
        pixels = np.stack([stretched(image, self.encoder.size) for image in images])
        rows = self.encoder.encode(torch.from_numpy(pixels)).double().numpy()
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return odds(rows @ rows.T, np.asarray(owners))


def odds(cosines: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Log odds of one person, from two normal distributions of cosines with one deviation.

    Medians and quartiles stand for mean and deviation, so that a foreign crop among those of a
    person does not move them. One deviation, the larger: crops of a person that were taken by one
    camera are so alike that another camera's would be no match.

    Args:
        cosines: Of all pairs, symmetric.  [N, N]
        owners: The person that each row is said to show.  [N]
    Returns: [N, N] in [-LARGEST, LARGEST], the diagonal 0.
    """
    pair = ~np.eye(len(owners), dtype=bool)
    one = (owners[:, None] == owners) & pair
    two = (owners[:, None] != owners) & pair
    if one.sum() < 2 * FEW or two.sum() < 2 * FEW:
        return np.zeros(cosines.shape)
    (same, spread), (other, width) = (_centre(cosines[which]) for which in (one, two))
    if same <= other:  # a model that tells nobody from another
        return np.zeros(cosines.shape)
    found = (cosines - (same + other) / 2) * (same - other) / max(width, spread) ** 2
    return np.clip(found, -LARGEST, LARGEST) * pair


def _centre(values: np.ndarray) -> tuple[float, float]:
    """Median, and the deviation that the quartiles tell."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), max(float(high - low) / 1.349, 1e-3)
