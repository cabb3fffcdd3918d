# SPDX-License-Identifier: Apache-2.0
"""Bootstrap confidence intervals of means over queries or people."""

from __future__ import annotations

import numpy as np

DRAWS = 2000  # resamples of a bootstrap
PART = 100  # resamples at a time: all at once would take 300 MB for 10,000 queries


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % interval: percentile bootstrap over queries or people.

    Source: Efron, Annals of Statistics 1979.

    Args:
        values: One value for each query (its AP, or whether its rank is 1) or person; NaN = no
            value. Images of one person are not independent: an interval over many queries of a
            person is too narrow, so give the person's mean instead.  [N]
        seed: Seed of the resamples.

    Returns:
        Mean, lower and upper end, in the unit of the values; NaN if there are no values.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    count = len(values)
    if count == 0:
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, count, (PART, count)) for _ in range(DRAWS // PART))
    means = np.concatenate([values[some].mean(1) for some in draws])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of one - other and its 95 % interval: paired bootstrap over pairs without NaN.

    Args:
        one: One value for each query or person.  [N]
        other: Values of the same queries or people, in the same order.  [N]
        seed: Seed of the resamples.

    Returns:
        Mean, lower and upper end, see `interval`.

    Raises:
        ValueError: if the lengths differ.
    """
    one, other = (np.asarray(values, np.float64) for values in (one, other))
    if one.shape != other.shape:
        raise ValueError(f"paired values need the same shape, got {one.shape} and {other.shape}")
    return interval(one - other, seed)
