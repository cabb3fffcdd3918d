# SPDX-License-Identifier: Apache-2.0
"""Average query expansion: features averaged with those of their nearest images in the test set."""

from __future__ import annotations

import numpy as np

from viewsynth.metrics.distances import BLOCK, normalised_pair

POWER = 3.0  # an image counts as much as its cosine to this power


def expand(query, gallery, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of queries and gallery, each averaged with the nearest of all, itself included.

    Source: Chum et al., total recall, ICCV 2007, with the weights of Radenovic et al., TPAMI 2019
    (alpha-QE), on both sides, as in fast-reid. Like re-ranking, it uses all queries at once.

    Args:
        query: float [Q, D]
        gallery: float [G, D]
        count: How many nearest images are averaged.

    Returns:
        float32 [Q, D] and [G, D], not normalised
    """
    sides = [np.asarray(side) for side in normalised_pair(query, gallery)]
    every = np.concatenate(sides)
    found, count = np.empty_like(every), min(count, len(every))
    for start in range(0, len(every), BLOCK):
        cosines = every[start : start + BLOCK] @ every.T
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        weights = np.take_along_axis(cosines, nearest, 1).clip(0) ** POWER
        block = np.zeros((len(cosines), every.shape[1]), every.dtype)
        for column in range(count):
            block += weights[:, column, None] * every[nearest[:, column]]
        found[start : start + BLOCK] = block
    return found[: len(sides[0])], found[len(sides[0]) :]
