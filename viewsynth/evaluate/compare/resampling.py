# SPDX-License-Identifier: Apache-2.0
"""Resampling: how far figures would move with other people in front of the cameras, other seeds.

runs -> `drawn` -> summary. All arms are drawn alike, so whatever is made of the draws of several
arms (a difference, a gap closure) is paired: by query and by seed.
"""

from __future__ import annotations

import numpy as np

from viewsynth.metrics.intervals import DRAWS, PART

BOUNDS = (2.5, 97.5)  # per cent


def drawn(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means over resampled seeds and resampled groups of queries.

    Source: percentile bootstrap of Efron, Annals of Statistics 1979, over both factors at once
    (Owen, Annals of Applied Statistics 2007). Few seeds make it somewhat too narrow: the spread of
    S of them comes out smaller by the factor sqrt((S - 1) / S).

    Args:
        values: One a query, in every arm and seed.  float64 [A, S, Q]
        groups: What is drawn as one, e.g. all queries of a person; numbers from 0 on, without
            gaps.  int64 [Q]
        seed: Of the draws: the same seed, seeds and groups are the same draws.
    Returns: float64 [DRAWS, A]
    """
    rng = np.random.default_rng(seed)
    seeds, count = values.shape[1], int(groups.max()) + 1
    found = []
    for _ in range(DRAWS // PART):
        each = rng.multinomial(count, np.full(count, 1 / count), PART).astype(np.float64)
        again = rng.multinomial(seeds, np.full(seeds, 1 / seeds), PART) / seeds
        weights = each[:, groups]
        means = np.einsum("asq,dq->das", values, weights) / weights.sum(1)[:, None, None]
        found.append(np.einsum("das,ds->da", means, again))
    return np.concatenate(found)


def interval(value: float, draws: np.ndarray) -> list[float]:
    """A figure with the 95 % interval of its draws: [value, low, high]."""
    return [float(value), *map(float, np.percentile(draws, BOUNDS))]


def half(found: list[float]) -> float:
    """Half the width of an interval."""
    return (found[2] - found[1]) / 2


def closure(plain: tuple[float, float, float], draws: np.ndarray) -> list[float]:
    """Which share of the way from the floor to the ceiling an arm goes: (x - floor) / (c - floor).

    Draws in which the ceiling is not above the floor have no such share and are left out; where the
    ceiling is well above the floor there are none.

    Args:
        plain: The means of floor, arm and ceiling.
        draws: Likewise.  float64 [D, 3]
    Returns: [value, low, high], 1 = the whole gap; can be negative, or more than 1.
    """
    floor, arm, ceiling = plain
    above = draws[draws[:, 2] > draws[:, 0]]
    shares = (above[:, 1] - above[:, 0]) / (above[:, 2] - above[:, 0])
    return interval((arm - floor) / (ceiling - floor), shares)
