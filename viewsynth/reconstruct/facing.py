# SPDX-License-Identifier: Apache-2.0
"""Decide which side a doubtful crop shows, from the person's other crops.

The pose model takes some back views for front views. Fitting both ways and comparing the residuals
does not decide it, but clothes sometimes do: when the trunk of a doubtful crop (a backpack, say)
differs from that of a sure one, relative to the sleeves (which look alike from both sides), the two
crops show opposite sides. When they look alike nothing follows, and the vote stands.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import canvas
from viewsynth.reconstruct.complete import BODY, Completer, stack
from viewsynth.reconstruct.parse import SWAP, Parse

SURE = 0.9  # vote x presence
# Log odds of a front view per vote of the pose model, and per cosine that completion predicts: a
# logistic regression on 640 crops of 160 people of the world of seed 230500.
POSE, LEARNED = 3.8, 2.4
DIFFERENT = 0.4  # difference of log (trunk over sleeve lightness)


@torch.no_grad()
def vote(crops: list, model: Completer) -> None:
    """Turn crops that completion sees from the other side than the pose model, in place.

    Both votes are log odds; their weights are those of a logistic regression, see `POSE`.

    Args:
        crops: Objects with `image` and `parse`.
        model: The completion network, which sees the crops without a body.
    """
    device = next(model.parameters()).device
    placed = [canvas.rough(one.image, one.parse.mask, one.parse.points) for one in crops]
    given = stack({k: v.to(device) for k, v in canvas.tensors(placed).items()})
    given[:, BODY] = 0
    for crop, cosine in zip(crops, model(given).azimuth[:, 0].tolist(), strict=True):
        pose = (1 if crop.parse.front else -1) * crop.parse.vote * crop.parse.presence
        odds = POSE * pose + LEARNED * cosine
        if (odds > 0) != crop.parse.front:
            crop.parse = turned(crop.parse)


def resolve(crops: list) -> None:
    """Turn doubtful crops where sure crops of the same owner contradict them, in place.

    Args:
        crops: Objects with `owner`, `image` and `parse`.
    """
    for crop in crops:
        if crop.parse.vote * crop.parse.presence >= SURE:
            continue
        sure = [
            other
            for other in crops
            if other.owner == crop.owner and other.parse.vote * other.parse.presence >= SURE
        ]
        for other in sure:
            apart = abs(contrast(crop.image, crop.parse) - contrast(other.image, other.parse))
            if apart > DIFFERENT and crop.parse.front == other.parse.front:
                crop.parse = turned(crop.parse)
                break


def contrast(image: np.ndarray, found: Parse) -> float:
    """Logarithm of the trunk's lightness over that of the sleeves.

    Args:
        image: The crop.  uint8 [H, W, 3]
        found: Its parse.
    """
    index = {name: k for k, name in enumerate(KEYPOINTS)}
    p = found.points
    shoulders = (p[index["left_shoulder"]] + p[index["right_shoulder"]]) / 2
    hips = (p[index["left_hip"]] + p[index["right_hip"]]) / 2
    across = abs(p[index["left_shoulder"]] - p[index["right_shoulder"]])[0]
    trunk = _patch(image, found.mask, shoulders * 0.6 + hips * 0.4, max(across * 0.3, 2))
    sleeves = [
        _patch(image, found.mask, p[index[f"{s}_shoulder"]] * 0.7 + p[index[f"{s}_elbow"]] * 0.3, 2)
        for s in ("left", "right")
    ]
    return float(np.log(trunk + 8) - np.log(np.mean(sleeves) + 8))


def _patch(image: np.ndarray, mask: np.ndarray, centre: np.ndarray, radius: float) -> float:
    """Median lightness of the person's pixels around a point."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    near = (abs(columns - centre[0]) <= radius) & (abs(rows - centre[1]) <= radius) & (mask > 0.5)
    return float(np.median(image[near].mean(1))) if near.any() else float(image.mean())


def turned(found: Parse) -> Parse:
    """The parse as if seen from the other side (left and right, near and far swapped), and sure.

    Args:
        found: The parse.
    """
    swap = list(SWAP)
    return replace(
        found,
        points=found.points[swap],
        length=found.length[swap] * np.array([1, 1, -1], np.float32),
        spread=found.spread[swap],
        front=not found.front,
        vote=SURE,
    )
