# SPDX-License-Identifier: Apache-2.0
"""Kernel inception distance (KID) between two sets of images, by the features of a network.

`viewsynth.evaluate.fidelity` decides which images and which features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SUBSETS, DEGREE = 200, 3
BLOCK = 512  # rows of a kernel matrix at a time


def kid(
    real: np.ndarray,
    made: np.ndarray,
    people: Sequence[str] | None = None,
    others: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Kernel inception distance: the unbiased squared MMD with a cubic kernel, and its interval.

    Source: Binkowski et al., ICLR 2018 (arXiv 1801.01401), equation 4, k(x, y) = (x y / D + 1)^3.
    They average over random subsets. We use the whole sets, whose estimate is unbiased as well and
    varies less, and take the interval from the spread of subsets: subsets of half of the people
    vary as much as whole sets of other people would (Politis and Romano, Annals of Statistics
    1994). Pairs of images of one person are left out everywhere, because they are not independent;
    the estimate is unbiased over samples of people.

    Args:
        real: Features of the reference images.  [N, D]
        made: Features of the generated images, from the same network.  [M, D]
        people: Person in each reference image; None = a different one in every image.  [N]
        others: Person in each generated image, None likewise.  [M]
        seed: Seed of the subsets.

    Returns:
        Estimate, lower and upper end of its 95 % interval. Values around or below 0 mean that the
        sets cannot be distinguished.

    Raises:
        ValueError: if shapes do not fit, a feature is not finite, or a set has fewer than two
            people.
    """
    terms = _terms(real, made, people, others)
    return _interval(_distance(terms, _everyone(terms)), _distance(terms, _halves(terms, seed)))


def kid_difference(
    real: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    people: Sequence[str],
    seed: int = 0,
) -> tuple[float, float, float]:
    """How much nearer `one` is to the real images than `other`, with the same views in each row.

    Args:
        real: Features of the reference images.  [N, D]
        one: Features of one method's images.  [N, D]
        other: Features of the other method's images.  [N, D]
        people: Person in the images of each row.  [N]
        seed: Seed of the subsets.

    Returns:
        KID of `other` minus KID of `one`, and its 95 % interval over the same subsets.
    """
    found = []
    for made in (other, one):
        terms = _terms(real, made, people, people)
        found.append(
            [_distance(terms, which) for which in (_everyone(terms), _halves(terms, seed))]
        )
    (whole, parts), (less, fewer) = found
    return _interval(whole - less, parts - fewer)


def kid_floor(real: np.ndarray, people: Sequence[str], seed: int = 0) -> tuple[float, float, float]:
    """KID between two random halves of the people of one set: the effect of chance alone.

    Args:
        real: Features.  [N, D]
        people: Person in each image.  [N]
        seed: Seed of the halves.

    Returns:
        Mean and 95 % interval over random halves; the mean is about 0.
    """
    terms = _terms(real, real, people, people)[:1] * 3
    half = _halves(terms, seed)
    found = _distance(terms, half, 1 - half)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(found.mean()), float(low), float(high)


# ---- sums over pairs of people -------------------------------------------------------------------


def _terms(real, made, people, others) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sums of the kernel and numbers of pairs by pair of people: in real, in made, across."""
    if (people is None) != (others is None):
        raise ValueError("kid: say who is in the images of both sets, or of neither")
    if people is None:
        people = [f"real {n}" for n in range(len(real))]
        others = [f"made {n}" for n in range(len(made))]
    for name, features, who in (("real", real, people), ("made", made, others)):
        shape = np.shape(features)
        if len(shape) != 2 or shape[0] != len(who) or len(set(who)) < 2:
            raise ValueError(
                f"kid: {name} must be features [pictures, values] of at least two people, one "
                f"name an image; got shape {list(shape)} and {len(who)} names of {len(set(who))}"
            )
    if np.shape(real)[1] != np.shape(made)[1]:
        raise ValueError(
            f"kid: both sets need features of one network, got {np.shape(real)[1]} and "
            f"{np.shape(made)[1]} values"
        )
    one, other = _codes(people, others)
    found = []
    for x, y, rows, columns in (
        (real, real, one, one),
        (made, made, other, other),
        (real, made, one, other),
    ):
        sums, counts = _gather(x, y, rows, columns)
        size = max(int(one.max()), int(other.max())) + 1
        whole = [np.zeros((size, size)), np.zeros((size, size))]
        for into, part in zip(whole, (sums, counts), strict=True):
            into[: part.shape[0], : part.shape[1]] = part
            np.fill_diagonal(into, 0)
        found.append(tuple(whole))
    return found


def _codes(people, others) -> tuple[np.ndarray, np.ndarray]:
    names, codes = np.unique(np.array([*people, *others], dtype=str), return_inverse=True)
    return codes[: len(people)], codes[len(people) :]


def _gather(x, y, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the kernel and number of pairs over the images of each pair of people."""
    x, y = (np.asarray(value, np.float64) for value in (x, y))
    for value in (x, y):
        if not np.isfinite(value).all():
            bad = int(np.flatnonzero(~np.isfinite(value).all(1))[0])
            raise ValueError(f"kid: row {bad} of the features is not finite; extract it again")
    order = np.argsort(columns, kind="stable")
    y, columns = y[order], columns[order]
    starts = np.flatnonzero(np.r_[True, np.diff(columns) > 0])
    sums = np.zeros((rows.max() + 1, columns.max() + 1))
    for first in range(0, len(x), BLOCK):
        kernel = (x[first : first + BLOCK] @ y.T / x.shape[1] + 1) ** DEGREE
        by_person = np.add.reduceat(kernel, starts, axis=1)
        part = np.zeros((len(by_person), sums.shape[1]))
        part[:, columns[starts]] = by_person
        np.add.at(sums, rows[first : first + BLOCK], part)
    return sums, np.outer(*(np.bincount(which).astype(np.float64) for which in (rows, columns)))


def _everyone(terms) -> np.ndarray:
    return np.ones((1, len(terms[0][0])))


def _halves(terms, seed: int) -> np.ndarray:
    """Random halves of the people, 1 = selected: float64 [SUBSETS, people]."""
    count = len(terms[0][0])
    rng = np.random.default_rng(seed)
    chosen = np.zeros((SUBSETS, count))
    for row in chosen:
        row[rng.permutation(count)[: count // 2]] = 1
    return chosen


def _distance(terms, one: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """Squared MMD between the images of selected people; one selection per row.

    Args:
        terms: See `_terms`.
        one: People of the real images, 1 = selected.  [S, people]
        other: People of the generated images; None = the same as `one`.  [S, people]
    """
    other = one if other is None else other
    pairs = ((one, one), (other, other), (one, other))
    real, made, across = (_mean(*term, *pair) for term, pair in zip(terms, pairs, strict=True))
    return real + made - 2 * across


def _mean(sums, counts, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mean of the kernel over pairs of selected people."""
    total, pairs = (((rows @ matrix) * columns).sum(1) for matrix in (sums, counts))
    return total / np.where(pairs > 0, pairs, np.nan)


def _interval(whole: np.ndarray, parts: np.ndarray) -> tuple[float, float, float]:
    estimate = float(whole[0])
    if np.isnan(parts).all():
        return estimate, float("nan"), float("nan")
    low, high = np.nanpercentile(parts - parts[~np.isnan(parts)].mean(), [2.5, 97.5])
    return estimate, estimate - float(high), estimate - float(low)
