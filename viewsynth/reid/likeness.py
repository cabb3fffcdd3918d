# SPDX-License-Identifier: Apache-2.0
"""Same-person log odds of pairs of crops from the features of a ReID model.

generate.chunk passes it to reconstruct, which combines it with the colours of body parts to find
crops of other people. The scale of cosine similarities differs between models and cameras, so it is
calibrated on the crops of the chunk: on pairs of different people, and on pairs of one person, most
of which are labelled correctly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from viewsynth.reid.encoders import Encoder
from viewsynth.runtime.images import resized

FEW = 6  # smallest number of pairs of different people, and of one person, to calibrate on
LARGEST = 6.0  # bound of the log odds: a model can be confident and wrong


class Likeness:
    """Compares crops by the features of a model.

    Args:
        encoder: The model, from `encoders.load`.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder

    def __call__(self, images: Sequence[np.ndarray], owners: Sequence[int]) -> np.ndarray:
        """Log odds that two crops show one person, for every pair.

        Args:
            images: Crops, RGB.  uint8 [H, W, 3] each
            owners: Number of the person that each crop is labelled with.

        Returns:
            float64 [N, N]; all 0 if there are too few pairs to calibrate on.
        """
        pixels = np.stack([resized(image, self.encoder.size) for image in images])
        rows = self.encoder.encode(torch.from_numpy(pixels)).double().numpy()
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return odds(rows @ rows.T, np.asarray(owners))


def odds(cosines: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Log odds of the same person, from two normal distributions of cosines of equal variance.

    Mean and standard deviation are estimated from median and quartiles, which wrongly labelled
    crops hardly change. Both distributions get the larger deviation: crops of a person by one
    camera are so similar that a crop by another camera would not match them.

    Args:
        cosines: Cosine similarities of all pairs, symmetric.  [N, N]
        owners: Number of the person that each row is labelled with.  [N]

    Returns:
        [N, N] in [-LARGEST, LARGEST], the diagonal 0.
    """
    pair = ~np.eye(len(owners), dtype=bool)
    one = (owners[:, None] == owners) & pair
    two = (owners[:, None] != owners) & pair
    if one.sum() < 2 * FEW or two.sum() < 2 * FEW:
        return np.zeros(cosines.shape)
    (same, spread), (other, width) = (_centre(cosines[which]) for which in (one, two))
    if same <= other:  # the model does not separate identities
        return np.zeros(cosines.shape)
    found = (cosines - (same + other) / 2) * (same - other) / max(width, spread) ** 2
    return np.clip(found, -LARGEST, LARGEST) * pair


def _centre(values: np.ndarray) -> tuple[float, float]:
    """Median, and the standard deviation of a normal distribution with these quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), max(float(high - low) / 1.349, 1e-3)
