# SPDX-License-Identifier: Apache-2.0
"""Detect crops that show two people side by side.

gather -> this module -> parse. The pose model looks for one person near the middle of its square
and settles on the nearest one. Started at the left and at the right of a crop of one person, it
ends at the same place; where two people stand side by side, it ends at two. Tools that squeeze
crops to one shape make people narrow: unless a single person is clear, the crop is examined once
more, widened.

Source: ours. Limits were set on composed pairs of the world's people of seed 1, but for the
distance in `PLAIN`, one of four values tried on seed 0; `benchmarks/inputs.py` reports results on
seed 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from viewsynth.reconstruct.parse import locate, middle

STARTS = ((0.2, 0.3), (0.8, 0.7))  # shares of the crop's width; the second if the first fails
# Widening -> least distance of two people, heights, and their least share of the crop's height.
APART = {1.0: (0.06, 0.0), 1.6: (0.2, 0.65)}
ALIKE = 0.8  # least ratio of the two heights; a passer-by in the background is ignored
INSIDE = 0.1  # least heights from a person's middle to the edge; people cut off are ignored
PRESENCE = 0.5
PLAIN = (0.02, 0.85, 0.65)  # one person: most distance, heights; least presence; least share
WHERE = ("shoulder", "hip", "ear")


@dataclass(frozen=True)
class Place:
    """The person that the pose model has settled on; lengths in pixels.

    Args:
        across: Middles of shoulders, hips and ears, from the left.  [3]
        height: Height of the skeleton.
        foot: Lowest point of the skeleton, from the top.
        presence: Confidence that there is a person, [0, 1].
    """

    across: np.ndarray
    height: float
    foot: float
    presence: float


def is_crowd(image: np.ndarray, model) -> bool:
    """Whether a crop shows two people of about one size side by side.

    Args:
        image: RGB.  uint8 [H, W, 3]
        model: The pose model, see `viewsynth.reconstruct.tflite.Model`.
    """
    for wider, (apart, share) in APART.items():
        size = (round(image.shape[1] * wider), image.shape[0])
        widened = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        places = [
            next(filter(None, (_settle(widened, model, start) for start in side)), None)
            for side in STARTS
        ]
        if None in places:
            continue
        if _are_two(*places, apart, size[0]) and min(p.height for p in places) > share * size[1]:
            return True
        if _are_one(*places, size[1]):
            return False
    return False


def _settle(image: np.ndarray, model, start: float) -> Place | None:
    """The person that the model settles on from a start (share of the width); None = no person."""
    height, width = image.shape[:2]
    points, _ = locate(image, model, np.array([width * start, height / 2]), 1.15 * height)
    low, high = points.min(0), points.max(0)
    side = 1.25 * max(high[1] - low[1], 0.4 * height)
    points, presence = locate(image, model, (low + high) / 2, side)
    if presence <= PRESENCE:
        return None
    across = [middle(points, name)[0] for name in WHERE]
    tall = max(float(np.ptp(points[:, 1])), 0.3 * height)
    return Place(np.array(across), tall, float(points[:, 1].max()), presence)


def _are_two(a: Place, b: Place, apart: float, width: int) -> bool:
    """Whether two places are clearly two people of one size, both entirely in the crop."""
    height = (a.height + b.height) / 2
    return (
        np.abs(a.across - b.across).min() > apart * height
        and min(a.height, b.height) > ALIKE * max(a.height, b.height)
        and abs(a.foot - b.foot) < 0.25 * height
        and all(INSIDE * height < x < width - INSIDE * height for x in (a.across[1], b.across[1]))
    )


def _are_one(a: Place, b: Place, rows: int) -> bool:
    """Whether two places are clearly one person who fills the crop."""
    apart, presence, share = PLAIN
    height = (a.height + b.height) / 2
    return (
        np.abs(a.across - b.across).max() < apart * height
        and min(a.presence, b.presence) > presence
        and min(a.height, b.height) > share * rows
    )
