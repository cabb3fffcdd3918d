# SPDX-License-Identifier: Apache-2.0
"""Detect crops that show another person among those of one person.

parse -> this module -> facing. Crops of one (pid, outfit) are compared by the colours of body parts
before they are fused. Cameras differ in exposure and white balance, and a bag or an open jacket
looks different from the other side: how much such differences mean was fitted by logistic
regression to pairs of crops of the same and of different people of the world.

Source: ours; colours of body parts as in Cheng et al., Custom Pictorial Structures, BMVC 2011;
differences as features of a verification as in Koestinger et al., CVPR 2012. `benchmarks/inputs.py`
fits the coefficients on people of seeds 1 and 2 and reports results on those of seed 0.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from viewsynth.metrics.colours import linear
from viewsynth.reconstruct.parse import INDEX, Parse, middle

COEFFICIENTS = Path(__file__).with_name("foreign.json")
DARK, DARKER = 0.005, 0.01  # added to linear values before the logarithm: medians, histograms
BINS, REACH = 12, 1.5  # of the histograms of log R/G and log B/G, which lie in [-REACH, REACH]
LEAST = 6  # pixels of a part, below which its colour is unknown
# Regions whose colours are compared, as capsules around limbs and trunk, see `_capsules`.
PARTS = ("hair", "chest", "belly", "sleeve", "forearm", "thigh", "shank", "foot")
REGIONS = (("chest", "belly", "sleeve"), ("thigh", "shank"), ("hair",), ("chest", "belly"))


@dataclass(frozen=True, eq=False)
class Appearance:
    """The colours of the person in a crop.

    Args:
        colours: Per part the median of (log lightness, log R/G, log B/G) of linear sRGB; NaN where
            the part is not visible.  float64 [8, 3]
        spread: Histograms of the last two over `REGIONS`, each with sum 1 or 0.  float64 [4, 144]
        front: Whether the person faces the camera.
        sure: Presence, vote and log height in pixels.  [3]
    """

    colours: np.ndarray
    spread: np.ndarray
    front: bool
    sure: tuple[float, float, float]


def appearance(image: np.ndarray, found: Parse) -> Appearance:
    """Measure the colours of a crop.

    Args:
        image: uint8 [H, W, 3].
        found: Its parse.
    """
    mask = found.mask > 0.5
    regions = {name: _near(lines, mask.shape) & mask for name, lines in _capsules(found).items()}
    colours = np.full((len(PARTS), 3), np.nan)
    for row, name in enumerate(PARTS):
        if regions[name].sum() >= LEAST:
            colours[row] = _tones(linear(np.median(image[regions[name]], 0)), DARK)
    tones = _tones(linear(np.arange(256))[image], DARKER)[..., 1:]
    spread = np.stack(
        [
            _histogram(tones[np.logical_or.reduce([regions[name] for name in names])])
            for names in REGIONS
        ]
    )
    sure = (found.presence, found.vote, float(np.log(max(found.height, 1.0))))
    return Appearance(colours, spread, found.front, sure)


def _tones(light: np.ndarray, dark: float) -> np.ndarray:
    """(log lightness, log R/G, log B/G) of linear RGB in [0, 1], [..., 3]."""
    log = np.log(light + dark)
    red, green, blue = np.moveaxis(log, -1, 0)
    return np.stack([log.mean(-1), red - green, blue - green], -1)


def _histogram(tones: np.ndarray) -> np.ndarray:
    """Smoothed histogram of (log R/G, log B/G), [144]."""
    counts = np.zeros((BINS, BINS))
    if len(tones) >= LEAST:
        at = np.clip((tones + REACH) / (2 * REACH) * BINS, 0, BINS - 0.001).astype(int)
        np.add.at(counts, (at[:, 0], at[:, 1]), 1.0)
        counts = ndimage.gaussian_filter(counts, 0.8, mode="nearest")
    return counts.ravel() / max(counts.sum(), 1e-9)


def _capsules(found: Parse) -> dict[str, list[tuple[np.ndarray, np.ndarray, float]]]:
    """Capsules (from, to, radius) of every part, pixels."""
    points = found.points.astype(np.float64)

    def at(name: str) -> np.ndarray:
        return points[INDEX[name]]

    def limbs(upper: str, lower: str, start: float, end: float, radius: float) -> list:
        ends = [(at(f"{side}_{upper}"), at(f"{side}_{lower}")) for side in ("left", "right")]
        return [(a + start * (b - a), a + end * (b - a), radius) for a, b in ends]

    shoulders, hips, ears = (middle(points, name) for name in ("shoulder", "hip", "ear"))
    down, crown = hips - shoulders, ears + 0.35 * (ears - shoulders)
    lines = {
        "hair": [(crown, crown + 0.3 * (ears - crown), 0.035)],
        "chest": [(shoulders + 0.15 * down, shoulders + 0.5 * down, 0.06)],
        "belly": [(shoulders + 0.55 * down, shoulders + 0.9 * down, 0.06)],
        "sleeve": limbs("shoulder", "elbow", 0.15, 1.0, 0.025),
        "forearm": limbs("elbow", "wrist", 0.2, 1.0, 0.02),
        "thigh": limbs("hip", "knee", 0.3, 0.9, 0.035),
        "shank": limbs("knee", "ankle", 0.2, 1.0, 0.025),
        "foot": limbs("ankle", "big_toe", 0.0, 1.0, 0.025),
    }
    height = found.height
    return {
        name: [(a, b, max(r * height, 1.2)) for a, b, r in some] for name, some in lines.items()
    }


def _near(lines: list[tuple[np.ndarray, np.ndarray, float]], shape: tuple) -> np.ndarray:
    """Pixels whose centre lies in one of the capsules, bool [H, W]."""
    near = np.zeros(shape, bool)
    for start, end, radius in lines:
        low = np.floor(np.minimum(start, end) - radius).astype(int)
        high = np.ceil(np.maximum(start, end) + radius).astype(int) + 1
        (left, top), (right, bottom) = np.maximum(low, 0), np.minimum(high, shape[::-1])
        if left >= right or top >= bottom:
            continue
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        way = end - start
        along = (x - start[0]) * way[0] + (y - start[1]) * way[1]
        along = np.clip(along / max(way @ way, 1e-6), 0, 1)
        off = np.hypot(x - start[0] - along * way[0], y - start[1] - along * way[1])
        near[top:bottom, left:right] |= off <= radius
    return near


# ---- comparing -------------------------------------------------------------------------------


def features(a: Appearance, b: Appearance) -> np.ndarray:
    """Symmetric similarities and differences of two crops, float64 [87].

    Args:
        a: One look.
        b: The other.
    """
    known = ~(np.isnan(a.colours).any(1) | np.isnan(b.colours).any(1))
    one, two = np.nan_to_num(a.colours), np.nan_to_num(b.colours)
    apart = (one - two) * known[:, None]
    shift = np.median(apart, 0)  # attributed to the cameras, not to the person
    rest = (apart - shift) * known[:, None]
    chroma = np.sort([np.hypot(*one[:, 1:].T), np.hypot(*two[:, 1:].T)], 0)
    common = np.sqrt(a.spread * b.spread).sum(1)  # Bhattacharyya
    return np.concatenate(
        [
            np.abs(apart).ravel(),
            np.abs(rest).ravel(),
            np.abs(shift),
            *chroma,
            known,
            [a.front == b.front],
            np.minimum(a.sure, b.sure),
            common,
            np.log(common + 0.02),
        ]
    )


@functools.cache
def _coefficients() -> tuple[np.ndarray, float, dict[str, float]]:
    values = json.loads(COEFFICIENTS.read_text(encoding="utf-8"))
    return np.array(values["weights"]), values["bias"], values["limits"]


def log_odds(looks: Sequence[Appearance]) -> np.ndarray:
    """Log odds that two crops show one person, for every pair; the diagonal is 0, [N, N].

    Args:
        looks: Of N crops.
    """
    weights, bias, _ = _coefficients()
    odds = np.zeros((len(looks), len(looks)))
    for i in range(len(looks)):
        for j in range(i):
            odds[i, j] = odds[j, i] = features(looks[i], looks[j]) @ weights + bias
    return odds


@dataclass(frozen=True)
class Choice:
    """Which crops show the person, and which do not.

    Args:
        kept: Indices of the crops that are used.
        out: Indices of the others.
        undecided: Whether the others could equally well be the right ones.
    """

    kept: list[int]
    out: list[int]
    undecided: bool


def decide(odds: np.ndarray, worth: Sequence[float]) -> Choice:
    """Keep the largest group of crops that look alike; of equally large ones the best.

    Args:
        odds: Of `log_odds`.  [N, N]
        worth: Quality of each crop; the best group is the one with the best crop.
    """
    found = groups(odds)
    undecided = len(found) > 1 and len(found[0]) == len(found[1])
    found.sort(key=lambda group: (-len(group), -max(worth[k] for k in group)))
    return Choice(found[0], [k for group in found[1:] for k in group], undecided)


def groups(odds: np.ndarray) -> list[list[int]]:
    """Groups of crops that look like one person, the largest first.

    A crop belongs to a group if it looks like one of its crops. The limit is set so that 2 % of the
    correct crops end up alone; it is lower for two crops, which have one comparison only.

    Args:
        odds: Of `log_odds`.  [N, N]
    """
    count = len(odds)
    limit = _coefficients()[2]["two" if count == 2 else "more"]
    _, label = connected_components((odds > limit) | np.eye(count, dtype=bool), directed=False)
    found = [np.flatnonzero(label == one).tolist() for one in range(label.max() + 1)]
    return sorted(found, key=lambda group: (-len(group), group[0]))
