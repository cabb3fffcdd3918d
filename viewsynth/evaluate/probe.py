# SPDX-License-Identifier: Apache-2.0
"""Probe: can a linear model tell from the features where a picture comes from?

features of training pictures -> `probe` -> how often it is right. A ReID model that has learnt
"looks rendered" instead of who somebody is carries that in its features: the shortcut that
synthetic training data invites. Nothing is trained but the probe.
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
DECAY = 1e-3  # of the squared weights, beside the mean loss


@dataclass(frozen=True)
class Found:
    """What a probe found.

    Args:
        accuracy: Balanced: both kinds count half. Mean over people, and its 95 % interval.
        chance: What guessing gives.
        people: How many have pictures of both kinds; only they are used.
        pictures: Of them.
    """

    accuracy: tuple[float, float, float]
    chance: float
    people: int
    pictures: int


def probe(
    features: np.ndarray, kinds: np.ndarray, pids: Sequence[str], seed: int = 0, folds: int = FOLDS
) -> Found:
    """Cross-validated accuracy of a logistic regression; no person is in both halves.

    Source: linear probes of Alain and Bengio, 2016 (arXiv 1610.01644).

    Args:
        features: Frozen.  float [N, D]
        kinds: Which of two kinds each picture is.  bool [N]
        pids: Whose picture it is.  [N]
        seed: Of the folds.
        folds: Parts that the people are dealt to, each once for testing.
    Raises: ValueError: if fewer people than folds have pictures of both kinds.
    """
    kinds, names = np.asarray(kinds, bool), np.asarray(pids)
    both = np.intersect1d(names[kinds], names[~kinds])
    if len(both) < folds:
        raise ValueError(
            f"a probe needs {folds} people or more with pictures of both kinds, got {len(both)}"
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
    """Weights and offset of a logistic regression in which both kinds count alike.  [D + 1]"""
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
