# SPDX-License-Identifier: Apache-2.0
"""Intervals: a mean, and how far it would move with other queries or people."""

from __future__ import annotations

import numpy as np

DRAWS = 2000  # resamples of a bootstrap
PART = 100  # of them at a time: all at once of 10,000 queries would be 300 MB


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % interval: percentile bootstrap over queries or people.

    Source: Efron, Annals of Statistics 1979.

    Args:
        values: One a query (its AP, or whether its rank is 1) or a person. Pictures of one person
            are not independent: where a person has many, the mean of them is the better value, and
            an interval over his queries is too narrow.  NaN = has none.  [N]
    Returns: mean, low, high, in the unit of the values; NaN where nobody has a value.
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
    """Mean of one - other and its 95 % interval: paired bootstrap over those who have both.

    Args:
        one, other: One value a query or a person, in one order.  [N]
    Raises: ValueError: if they are not of one length.
    """
    one, other = (np.asarray(values, np.float64) for values in (one, other))
    if one.shape != other.shape:
        raise ValueError(f"values are paired, so one shape is needed: {one.shape}, {other.shape}")
    return interval(one - other, seed)
