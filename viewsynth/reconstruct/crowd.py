# SPDX-License-Identifier: Apache-2.0
"""Two people in one crop: whether anybody can say whose crop it is.

gather -> here -> parse. The pose model looks for one person about the middle of its square and
settles on whoever is nearest. Started at the left and at the right of a crop of one person it ends
in the same place; where two people stand side by side, it ends at two. Toolkits that squeeze crops
to one shape make people narrow: unless one person is plain to see, the crop is looked at once more,
widened.

Source: ours. Limits come from composed pairs of the world's people of seed 1, but for the distance
in `PLAIN`, one of four tried on seed 0; figures on those of seed 0: `benchmarks/inputs.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from viewsynth.reconstruct.parse import look, middle

STARTS = ((0.2, 0.3), (0.8, 0.7))  # of the crop's width; the second if nobody is found
# Widening -> least distance of two people, heights, and their least share of the crop's height.
APART = {1.0: (0.06, 0.0), 1.6: (0.2, 0.65)}
ALIKE = 0.8  # least ratio of the two heights: a passer-by far behind makes no crowd
INSIDE = 0.1  # heights between a person's middle and the crop's edge: nor does one who is cut off
PRESENCE = 0.5
PLAIN = (0.02, 0.85, 0.65)  # one person: most distance, heights; least presence, share of the crop
WHERE = ("shoulder", "hip", "ear")


@dataclass(frozen=True)
class Place:
    """Where the pose model has settled; pixels.

    Args:
        across: Middles of shoulders, hips and ears, from the left.  [3]
        height: Of the skeleton.
        foot: Lowest point, from the top.
        presence: Of a person, in [0, 1].
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
        picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        places = [
            next(filter(None, (_settle(picture, model, start) for start in side)), None)
            for side in STARTS
        ]
        if None in places:
            continue
        if _are_two(*places, apart, size[0]) and min(p.height for p in places) > share * size[1]:
            return True
        if _are_one(*places, size[1]):
            return False
    return False


def _settle(picture: np.ndarray, model, start: float) -> Place | None:
    """The person on whom the model settles from a place in the picture; None = nobody."""
    height, width = picture.shape[:2]
    points, _ = look(picture, model, np.array([width * start, height / 2]), 1.15 * height)
    low, high = points.min(0), points.max(0)
    side = 1.25 * max(high[1] - low[1], 0.4 * height)
    points, presence = look(picture, model, (low + high) / 2, side)
    if presence <= PRESENCE:
        return None
    across = [middle(points, name)[0] for name in WHERE]
    tall = max(float(np.ptp(points[:, 1])), 0.3 * height)
    return Place(np.array(across), tall, float(points[:, 1].max()), presence)


def _are_two(a: Place, b: Place, apart: float, width: int) -> bool:
    height = (a.height + b.height) / 2
    return (
        np.abs(a.across - b.across).min() > apart * height
        and min(a.height, b.height) > ALIKE * max(a.height, b.height)
        and abs(a.foot - b.foot) < 0.25 * height
        and all(INSIDE * height < x < width - INSIDE * height for x in (a.across[1], b.across[1]))
    )


def _are_one(a: Place, b: Place, rows: int) -> bool:
    apart, presence, share = PLAIN
    height = (a.height + b.height) / 2
    return (
        np.abs(a.across - b.across).max() < apart * height
        and min(a.presence, b.presence) > presence
        and min(a.height, b.height) > share * rows
    )
