# SPDX-License-Identifier: Apache-2.0
"""Bootstrap over people and seeds: confidence intervals of means, differences and gap closures.

runs -> `resample` -> summary. All arms use the same resamples, so a difference or gap closure that
is computed from the resampled means of several arms is paired by query and by seed.
"""

from __future__ import annotations

import numpy as np

from viewsynth.metrics.intervals import DRAWS, PART

BOUNDS = (2.5, 97.5)  # per cent


def resample(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means over resampled seeds and resampled groups of queries.

    Source: percentile bootstrap of Efron, Annals of Statistics 1979, over both factors at once
    (Owen, Annals of Applied Statistics 2007). With few seeds the intervals are somewhat too narrow:
    the standard deviation over S seeds is underestimated by the factor sqrt((S - 1) / S).

    Args:
        values: Value of each query, in every arm and seed.  float64 [A, S, Q]
        groups: Group of each query, e.g. its person, numbered from 0 without gaps; queries of a
            group are resampled together.  int64 [Q]
        seed: Seed of the bootstrap; equal seeds, numbers of seeds and groups give equal resamples.

    Returns:
        float64 [DRAWS, A]
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
    """Combine a value with the 95 % interval of its resamples: [value, low, high]."""
    return [float(value), *map(float, np.percentile(draws, BOUNDS))]


def half_width(found: list[float]) -> float:
    """Half the width of an interval [value, low, high]."""
    return (found[2] - found[1]) / 2


def gap_closure(means: tuple[float, float, float], draws: np.ndarray) -> list[float]:
    """Share of the gap between floor and ceiling that an arm closes: (x - floor) / (c - floor).

    Resamples in which the ceiling is not above the floor are left out; there are none if the gap is
    clear.

    Args:
        means: Means of floor, arm and ceiling.
        draws: Resampled means of floor, arm and ceiling.  float64 [D, 3]

    Returns:
        [value, low, high], 1 = the whole gap; can be negative or more than 1.
    """
    floor, arm, ceiling = means
    above = draws[draws[:, 2] > draws[:, 0]]
    shares = (above[:, 1] - above[:, 0]) / (above[:, 2] - above[:, 0])
    return interval((arm - floor) / (ceiling - floor), shares)
