# SPDX-License-Identifier: Apache-2.0
"""How a ReID network that knows real people sees the crops of a world: the end of `realism.py`.

- Retrieval: each aerial image is a query, the gallery has one vector per person, the mean of the
  person's ground images. A world's galleries have as many people and as many ground images per
  person as the filmed one, because both make retrieval easier or harder: means over draws.
- Probe: how well a linear classifier tells filmed from rendered crops of people that it was not
  trained on. Each draw has one image of each filmed person and of as many people of the world.
  `viewsynth.evaluate.probe` needs people with images of both kinds, which there are none of here.
- Kernel distance: KID of the features, times 1000.

Features are the sum of those of an image and its mirror image, of unit length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from identity_scores import centre, scores, unit
from scipy.stats import rankdata

from viewsynth import metrics
from viewsynth.runtime.images import resized

BATCH = 16
DRAWS = 20  # of a probe
GALLERIES = 100  # draws of a world's people and ground images
FOLDS = 5
NONE = (float("nan"),) * 3  # of the filmed crops themselves
RIDGE = 0.1  # weight of the squared weights, relative to the mean squared length of a feature
RETRIEVAL = (  # words, factor, digits
    ("rank-1, %", 100, 1),
    ("mAP, %", 100, 1),
    ("margin", 1, 3),
    ("cosine with the own person", 1, 3),
    ("cosine with the others", 1, 3),
)


def encoder(folders: Sequence[Path]) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """The features of backbones: images, uint8 [H, W, 3] each -> float64 [N, D] of unit length.

    Args:
        folders: Backbones, see `viewsynth convert`; features of unit length are concatenated.
    """
    from viewsynth.reid import encoders

    networks = [encoders.load(str(folder)) for folder in folders]

    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        parts = []
        for network in networks:
            rows = []
            for first in range(0, len(images), BATCH):
                some = [resized(image, network.size) for image in images[first : first + BATCH]]
                pixels = torch.from_numpy(np.stack(some))
                rows.append((network.encode(pixels) + network.encode(pixels.flip(2))).numpy())
            parts.append(unit(np.concatenate(rows).astype(np.float64)))
        return unit(np.concatenate(parts, 1))

    return encode


# ---- retrieval -----------------------------------------------------------------------------------


def retrieval(
    queries: Sequence[np.ndarray],
    ground: Sequence[np.ndarray],
    sizes: Sequence[int] = (),
    seed: int = 0,
) -> np.ndarray:
    """Rank-1, mAP, margin, and cosines of each person, in galleries like the filmed one.

    Args:
        queries: Features of each person's aerial images, of unit length; may be none.  [n, D] each
        ground: Of each person's ground images, at least one.  [n, D] each
        sizes: Ground images of each person of a gallery, at least two; a draw has as many people,
            and of each at most as many images. Empty = one gallery of everything.
        seed: Of the draws.

    Returns:
        In the order of `RETRIEVAL`; NaN for a person without a query.  float64 [P, 5]
    """
    rng = np.random.default_rng(seed)
    sums, drawn = np.zeros((len(ground), len(RETRIEVAL))), np.zeros((len(ground), 1))
    for _ in range(GALLERIES if sizes else 1):
        some = rng.permutation(len(ground))[: len(sizes) or None]
        most = rng.permutation(sizes) if sizes else [None] * len(some)
        own = [rng.permutation(ground[k])[:n] for k, n in zip(some, most, strict=False)]
        gallery, asked = np.stack([centre(one) for one in own]), [queries[k] for k in some]
        ap, rank1, margin = scores(asked, gallery).T
        near = [(q @ g).mean() if len(q) else np.nan for q, g in zip(asked, gallery, strict=True)]
        sums[some] += np.column_stack([rank1, ap, margin, near, near - margin])
        drawn[some] += 1
    return sums / np.where(drawn > 0, drawn, np.nan)


# ---- probe ---------------------------------------------------------------------------------------


def probe(real: Sequence[np.ndarray], made: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Accuracy and area under the ROC curve of a linear classifier, real or made, of each draw.

    Ridge regression on +1 and -1, cross-validated with other people in training and test.

    Args:
        real: Features of each person, at least `FOLDS` people.  [n, D] each
        made: Likewise.
        seed: Of the draws.

    Returns:
        Both are 0.5 by chance.  float64 [DRAWS, 2]
    """
    rng = np.random.default_rng(seed)
    count = min(len(real), len(made))
    kinds = np.repeat([1.0, -1.0], count)
    found = []
    for _ in range(DRAWS):
        rows = []
        for people in (real, made):
            for k in rng.permutation(len(people))[:count]:
                rows.append(people[k][rng.integers(len(people[k]))])
        fold = np.tile(np.arange(count) % FOLDS, 2)
        guesses = _guesses(np.stack(rows), kinds, fold)
        right = (guesses > 0) == (kinds > 0)
        found.append([right.mean(), _area(guesses, kinds > 0)])
    return np.array(found)


def _guesses(rows: np.ndarray, kinds: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The output for each row of a ridge regression that was fitted to the other folds."""
    found = np.empty(len(rows))
    for number in range(FOLDS):
        held = fold == number
        mean = rows[~held].mean(0)
        known = rows[~held] - mean
        kernel = known @ known.T  # the dual: there are fewer rows than values
        kernel += RIDGE * np.trace(kernel) / len(known) * np.eye(len(known))
        weights = known.T @ np.linalg.solve(kernel, kinds[~held])
        found[held] = (rows[held] - mean) @ weights
    return found


def _area(guesses: np.ndarray, kinds: np.ndarray) -> float:
    """Area under the ROC curve, by the ranks."""
    positive = kinds.sum()
    ranks = rankdata(guesses)[kinds].sum() - positive * (positive + 1) / 2
    return float(ranks / (positive * (len(kinds) - positive)))


# ---- table ---------------------------------------------------------------------------------------


def features(crops, encode: Callable) -> dict[str, dict[str, np.ndarray]]:
    """Features of the images in each view of each person, {view: {pid: [n, D]}}.

    Args:
        crops: See `realism.Crop`.
        encode: See `encoder`.
    """
    rows, found = encode([crop.image for crop in crops]), {"ground": {}, "aerial": {}}
    for crop, vector in zip(crops, rows, strict=True):
        found[crop.shot.view].setdefault(crop.shot.pid, []).append(vector)
    return {
        view: {pid: np.stack(own) for pid, own in people.items()} for view, people in found.items()
    }


def table(sets: Sequence[list], encode: Callable) -> list[tuple[str, list, int]]:
    """Words, values with intervals of each set, and digits of each row.

    Args:
        sets: Crops, see `realism.Crop`; the first are filmed.
        encode: See `encoder`.
    """
    every = [features(crops, encode) for crops in sets]
    found = []
    people = [list(one["ground"]) for one in every]
    none = np.zeros((0, 1))
    sizes = [len(own) for own in every[0]["ground"].values()]
    for what, limits in (("like the filmed", sizes), ("of all", ())):
        values = [
            retrieval(
                [one["aerial"].get(pid, none) for pid in pids],
                [one["ground"][pid] for pid in pids],
                limits if one is not every[0] else (),
            )
            for one, pids in zip(every, people, strict=True)
        ]
        for column, (words, factor, digits) in enumerate(RETRIEVAL):
            cells = [metrics.interval(factor * one[:, column]) for one in values]
            found.append((f"aerial -> ground, gallery {what}: {words}", cells, digits))
    for view in ("ground", "aerial"):
        real, *made = [list(one[view].values()) for one in every]
        probes = [probe(real, one) for one in made]
        for column, words in enumerate(("accuracy, %", "area under the ROC curve, %")):
            cells = [_of_draws(100 * one[:, column]) for one in probes]
            found.append((f"{view}, probe filmed or rendered: {words}", [NONE, *cells], 0))
    for view in ("ground", "aerial"):
        real, *made = [_joined(one[view]) for one in every]
        cells = [metrics.kid(real[0], one[0], real[1], one[1]) for one in made]
        cells = [tuple(1000 * value for value in cell) for cell in cells]
        found.append((f"{view}, kernel distance x 1000", [NONE, *cells], 0))
    return found


def _of_draws(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and the range that holds 95 % of the draws."""
    return float(values.mean()), *map(float, np.percentile(values, (2.5, 97.5)))


def _joined(people: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Features scaled so that the mean of squares is 1, and whose they are."""
    rows = np.concatenate(list(people.values()))
    return rows * np.sqrt(rows.shape[1]), [pid for pid, own in people.items() for _ in own]
