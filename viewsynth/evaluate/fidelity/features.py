# SPDX-License-Identifier: Apache-2.0
"""Features of whole images, including the background, from the observer and a ReID model.

comparison -> this module -> `sets` (KID) and `table` (identity). The ReID model is optional and
must not have been trained on the people who are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from viewsynth.evaluate.fidelity import observer
from viewsynth.runtime.images import resized

BATCH = 32  # images per call
# Feature space: images of any sizes, uint8 [h, w, 3] each -> float [N, D]
Spaces = dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]]


def load(path: Path, reid: Path | None = None, device: str = "cpu") -> Spaces:
    """Load the feature spaces "observer" and, if a model is given, "reid".

    Args:
        path: File of the observer.
        reid: Folder of a ReID model of `viewsynth train`; None = none.
        device: Device of the ReID model.
    """
    spaces = {"observer": of_observer(observer.load(path))}
    if reid is None:
        return spaces
    from viewsynth.reid import encoders

    encoder = encoders.load(str(reid), device=device)
    if encoder.told:
        raise ValueError(
            f"reid: {reid} must be told the view of every image, so its features of a view and of "
            "a photo differ by more than what they show; give another model"
        )

    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        stacked = np.stack([resized(image, encoder.size) for image in images])
        return encoder.encode(torch.from_numpy(stacked)).numpy()

    return spaces | {"reid": encode}


def of_observer(network: observer.Network) -> Callable:
    """The observer's pooled features of whole images."""

    @torch.no_grad()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        whole = [observer.letterbox(image, np.ones(image.shape[:2], bool)) for image in images]
        return network(torch.from_numpy(np.stack(whole)))[0].numpy()

    return encode


def rows(images: Sequence[np.ndarray], spaces: Spaces) -> list[dict[str, list[float]]]:
    """Features of each image by space, rounded to five digits.

    Args:
        images: Images of any sizes.  uint8 [h, w, 3] each
        spaces: Feature spaces.
    """
    found: list[dict] = [{} for _ in images]
    for name, encode in spaces.items():
        for first in range(0, len(images), BATCH):
            vectors = encode(images[first : first + BATCH])
            for row, vector in zip(found[first : first + BATCH], vectors, strict=True):
                row[name] = [float(f"{value:.5g}") for value in vector]
    return found
