# SPDX-License-Identifier: Apache-2.0
"""Linear probe: how well the source of an image can be predicted from its features.

features of training images -> `probe` -> balanced accuracy. A ReID model that uses "looks rendered"
as a shortcut for identity shows this in its features. Only the probe is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from viewsynth import metrics
from viewsynth.records import seed_of

FOLDS = 5
DECAY = 1e-3  # weight of the squared weights in the loss


@dataclass(frozen=True)
class Found:
    """Result of a probe.

    Args:
        accuracy: Balanced accuracy (both kinds have equal weight): mean over people and its 95 %
            interval.
        chance: Accuracy of guessing.
        people: Number of people with images of both kinds; only these are used.
        pictures: Number of their images.
    """

    accuracy: tuple[float, float, float]
    chance: float
    people: int
    pictures: int


def probe(
    features: np.ndarray, kinds: np.ndarray, pids: Sequence[str], seed: int = 0, folds: int = FOLDS
) -> Found:
    """Cross-validated accuracy of a logistic regression, with disjoint people in its folds.

    Source: linear probes of Alain and Bengio, 2016 (arXiv 1610.01644).

    Args:
        features: Features of the images.  float [N, D]
        kinds: Kind of each image, e.g. whether it is synthetic.  bool [N]
        pids: Identity in each image.  [N]
        seed: Seed of the division into folds.
        folds: Number of folds; people are assigned to folds, and each fold is tested once.

    Raises:
        ValueError: If fewer people than folds have images of both kinds.
    """
    kinds, names = np.asarray(kinds, bool), np.asarray(pids)
    both = np.intersect1d(names[kinds], names[~kinds])
    if len(both) < folds:
        raise ValueError(
            f"a probe needs {folds} people or more with images of both kinds, got {len(both)}"
        )
    used = np.isin(names, both)
    rows, kinds, names = np.asarray(features, np.float64)[used], kinds[used], names[used]
    order = sorted(both.tolist(), key=lambda pid: (seed_of(seed, "probe", pid), pid))
    part = {pid: number % folds for number, pid in enumerate(order)}
    fold = np.array([part[pid] for pid in names.tolist()])
    right = np.empty(len(rows), bool)
    for number in range(folds):
        held = fold == number
        mean, spread = rows[~held].mean(0), rows[~held].std(0) + 1e-8
        weights = _fit((rows[~held] - mean) / spread, kinds[~held])
        scores = (rows[held] - mean) / spread @ weights[:-1] + weights[-1]
        right[held] = (scores > 0) == kinds[held]
    each = [
        np.mean([right[kinds & (names == pid)].mean(), right[~kinds & (names == pid)].mean()])
        for pid in order
    ]
    return Found(metrics.interval(np.array(each)), 0.5, len(both), len(rows))


def _fit(rows: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Weights and bias, [D + 1], of a logistic regression with equal weight of both kinds."""
    signs = np.where(kinds, 1.0, -1.0)
    share = np.where(kinds, 0.5 / kinds.mean(), 0.5 / (1 - kinds.mean())) / len(rows)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (rows @ weights[:-1] + weights[-1])
        pull = -share * signs * expit(-margins)
        slopes = np.append(rows.T @ pull + DECAY * weights[:-1], pull.sum())
        value = share @ np.logaddexp(0, -margins) + DECAY / 2 * weights[:-1] @ weights[:-1]
        return float(value), slopes

    start = np.zeros(rows.shape[1] + 1)
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
