# SPDX-License-Identifier: Apache-2.0
"""Features: whole pictures, background and all, as networks see them.

comparison -> here -> `sets` (KID) and `table` (identity). The spaces are the observer's, and that
of a ReID model which never saw the people who are measured, where one was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from viewsynth.evaluate.fidelity import observer
from viewsynth.runtime.images import stretched

BATCH = 32  # pictures at once
# Pictures of any sizes, uint8 [h, w, 3] each -> float [N, D]
Spaces = dict[str, Callable[[Sequence[np.ndarray]], np.ndarray]]


def load(path: Path, reid: Path | None = None, device: str = "cpu") -> Spaces:
    """The spaces by name: "observer" and, if there is a model, "reid".

    Args:
        path: File of the observer.
        reid: Folder of a model that `viewsynth train` saved.
        device: Of that model.
    """
    spaces = {"observer": of_observer(observer.load(path))}
    if reid is None:
        return spaces
    from viewsynth.reid import encoders

    encoder = encoders.load(str(reid), device=device)

    def encode(pictures: Sequence[np.ndarray]) -> np.ndarray:
        sized = np.stack([stretched(picture, encoder.size) for picture in pictures])
        return encoder.encode(torch.from_numpy(sized)).numpy()

    return spaces | {"reid": encode}


def of_observer(network: observer.Network) -> Callable:
    """The observer's pooled features of pictures that nothing was cut out of."""

    @torch.no_grad()
    def encode(pictures: Sequence[np.ndarray]) -> np.ndarray:
        whole = [observer.letterbox(one, np.ones(one.shape[:2], bool)) for one in pictures]
        return network(torch.from_numpy(np.stack(whole)))[0].numpy()

    return encode


def rows(pictures: Sequence[np.ndarray], spaces: Spaces) -> list[dict[str, list[float]]]:
    """The features of each picture by space, of five digits each."""
    found: list[dict] = [{} for _ in pictures]
    for name, encode in spaces.items():
        for first in range(0, len(pictures), BATCH):
            vectors = encode(pictures[first : first + BATCH])
            for row, vector in zip(found[first : first + BATCH], vectors, strict=True):
                row[name] = [float(f"{value:.5g}") for value in vector]
    return found
