# SPDX-License-Identifier: Apache-2.0
"""Flags of a crop that the fit cannot notice: a rider, a sitter, a person cut off, a small crop.

parse -> this module -> quality. However well the body fits such a crop, the body model does not
cover it: the fit assumes people who stand, walk or run and are entirely in the crop.

Source: ours. Limits and coefficients were set on crops of the world's people of seed 1 (people who
walk, stand, run, cycle, and the same people seated), not on those of seed 0, which
`benchmarks/inputs.py` reports.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from viewsynth.reconstruct.parse import INDEX, Parse, locate, middle

SMALL = 48  # effective pixels of height below which a person is flagged
# Log odds of a rider or sitter, by logistic regression; angles in degrees, drops in trunk lengths.
# All are relative to the trunk, because a camera that looks down tilts trunk and legs alike.
BIAS = 2.3
ODDS = {"hip_most": 0.073, "drop_least": -6.2, "drop_most": -6.8, "arm_least": 0.045}
SEATED = 40.0  # degrees of flexion; sitting if both hips exceed it, else riding
EDGE = 0.04  # heights by which the feet may lie below the crop
BOTTOM, TOP, SIDE = 0.14, 0.08, 0.45  # widths of the mask along the crop's edges, heights
UPRIGHT, LEANS = 0.8, 30.0  # least presence and most degrees of lean in a rotated image
SCALES = (0.15, 0.2, 0.25, 0.35, 0.5, 0.7, 1.0)
LOST = 0.065  # share of the contrast that may be lost at a scale that still keeps the detail


def flags(image: np.ndarray, found: Parse) -> tuple[list[str], float]:
    """The flags and the effective height of a crop.

    Args:
        image: The crop.  uint8 [H, W, 3]
        found: Its parse.

    Returns:
        Some of "cut", "riding", "sitting", "small"; and the person's height in effective pixels,
        which are those of the smallest image with the same detail.
    """
    pixels = found.height * sharpness(image)
    seated = posture(found)
    named = [seated] if seated else []
    if is_cut(found):
        named.append("cut")
    if pixels < SMALL:
        named.append("small")
    return named, pixels


def posture(found: Parse) -> str:
    """The flag of a rider or sitter ("riding" or "sitting"), or "" for other people.

    Args:
        found: Parse of the crop.
    """
    values = bends(found)
    if BIAS + sum(factor * values[name] for name, factor in ODDS.items()) <= 0:
        return ""
    return "sitting" if values["hip_least"] > SEATED else "riding"


def bends(found: Parse) -> dict[str, float]:
    """How far legs and arms are bent away from the direction of the trunk.

    Args:
        found: Parse of the crop.

    Returns:
        `hip_least`, `hip_most`: angle of thigh and trunk; `arm_least`: angle of trunk and shoulder
        to wrist, of the side where it is less; degrees, from the pose model's own metres.
        `drop_least`, `drop_most`: how far the knees lie below the hips in the image, trunk lengths.
    """
    space, flat = found.length.astype(np.float64), found.points.astype(np.float64)
    trunk = middle(space, "hip") - middle(space, "shoulder")
    length = float(np.linalg.norm(middle(flat, "hip") - middle(flat, "shoulder")))
    hips, arms, drops = [], [], []
    for side in ("left", "right"):
        hip, knee, shoulder, wrist = (
            INDEX[f"{side}_{name}"] for name in ("hip", "knee", "shoulder", "wrist")
        )
        hips.append(_angle(space[knee] - space[hip], trunk))
        arms.append(_angle(space[wrist] - space[shoulder], trunk))
        drops.append(float(flat[knee, 1] - flat[hip, 1]) / max(length, 1.0))
    return {
        "hip_least": min(hips),
        "hip_most": max(hips),
        "arm_least": min(arms),
        "drop_least": min(drops),
        "drop_most": max(drops),
    }


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle between two directions, degrees."""
    size = max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)
    return float(np.degrees(np.arccos(np.clip(a @ b / size, -1, 1))))


def is_turned(image: np.ndarray, model) -> bool:
    """Whether an upright person is found once the image is rotated by 90 degrees either way.

    Args:
        image: uint8 [H, W, 3].
        model: The pose model.
    """
    for times in (1, 3):
        turned = np.ascontiguousarray(np.rot90(image, times))
        centre, side = np.array(turned.shape[1::-1]) / 2, 1.25 * max(turned.shape[:2])
        points, presence = locate(turned, model, centre, side)
        ways = [
            middle(points, b) - middle(points, a)
            for a, b in (("shoulder", "hip"), ("hip", "ankle"))
        ]
        stands = all(_angle(way, np.array([0.0, 1.0])) < LEANS for way in ways)
        if presence > UPRIGHT and stands and np.ptp(points[:, 1]) > 0.5 * len(turned):
            return True
    return False


def is_cut(found: Parse) -> bool:
    """Whether the crop cuts the person off: feet below it, or a wide part of the mask on an edge.

    The pose model either continues legs beyond the crop or squeezes them into it; in the second
    case the thighs still touch the lower edge, along a greater width than two feet.

    Args:
        found: Parse of the crop.
    """
    rows, height = found.mask.shape[0], max(found.height, 1.0)
    mask = found.mask > 0.5
    feet = max(
        found.points[INDEX[f"{side}_{name}"], 1]
        for side in ("left", "right")
        for name in ("ankle", "heel", "big_toe")
    )
    if feet - rows > EDGE * height or _touching(mask[-2:]) > BOTTOM * height:
        return True
    head = found.points[: INDEX["left_shoulder"], 1].min()
    if head < 0.03 * rows and _touching(mask[:2]) > TOP * height:
        return True
    return max(_touching(mask[:, :2].T), _touching(mask[:, -2:].T)) > SIDE * height


def _touching(edge: np.ndarray) -> int:
    """Pixels of the person along an edge of the crop, bool [2, N]."""
    return int(edge.any(0).sum())


def sharpness(image: np.ndarray) -> float:
    """The smallest scale at which an image keeps its detail; 1 = it needs every pixel.

    Crops that were enlarged have the pixels of a large image and the detail of a small one.

    Args:
        image: uint8 [H, W, 3].

    Returns:
        A value in [0.15, 1], interpolated between `SCALES`.
    """
    grey = Image.fromarray(image).convert("L")
    values = np.asarray(grey, np.float32)
    contrast = max(float(values.std()), 1.0)
    before, worse = SCALES[0], np.inf
    for scale in SCALES[:-1]:
        size = [max(round(side * scale), 1) for side in grey.size]
        small = grey.resize(size, Image.Resampling.LANCZOS)
        back = np.asarray(small.resize(grey.size, Image.Resampling.BICUBIC), np.float32)
        lost = float(np.sqrt(np.square(back - values).mean())) / contrast
        if lost <= LOST:
            if not np.isfinite(worse) or lost >= worse:
                return scale
            return before + (scale - before) * (worse - LOST) / (worse - lost)
        before, worse = scale, lost
    return 1.0
