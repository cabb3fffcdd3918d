# SPDX-License-Identifier: Apache-2.0
"""What the makers of pairs hand to `viewsynth.diffusion.pairs.making`, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from viewsynth.cameras import Cameras
from viewsynth.records import Person


@dataclass(frozen=True)
class Pair:
    """One pair before it is drawn.

    Args:
        vertices: The person as he is drawn, world, metres.  [V, 3]
        person: Whose texture and seen map he wears.
        window: One camera on a canvas of the model's size.
        photo: Which of `Made.photos` is the source.
        target: The true picture at its own size.  uint8 [h, w, 3]
        mask: The person in it.  bool [h, w]; None = nobody knows
        row: What `rows.jsonl` says of it, but for where it lies.
    """

    vertices: Tensor
    person: Person
    window: Cameras
    photo: int
    target: np.ndarray
    mask: np.ndarray | None
    row: dict


@dataclass
class Made:
    """What a chunk of people came to.

    Args:
        photos: The sources, each once.  uint8 [h, w, 3]
        rejects: What gave no pair: pid, name (of the picture or "" = the person), reason, and kind,
            "fault" or "quality".
    """

    photos: list[np.ndarray] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    rejects: list[dict] = field(default_factory=list)

    def reject(self, pid: str, name: str, reason: str, kind: str = "quality") -> None:
        """Say why something gives no pair."""
        self.rejects.append({"pid": pid, "name": name, "reason": reason, "kind": kind})


def turn(to: float, start: float) -> float:
    """Degrees from one azimuth to another, in [-180, 180)."""
    return (to - start + 180) % 360 - 180


def camera(elevation: float, azimuth: float, distance: float, target, source) -> list[float]:
    """The numbers of `conditions.CAMERA`.

    Args:
        target: The true picture.  [h, w, 3]
        source: Elevation and azimuth of the photo, degrees.
    """
    numbers = (
        elevation,
        source[0],
        turn(azimuth, source[1]),
        distance,
        target.shape[1] / target.shape[0],
    )
    return [round(float(number), 4) for number in numbers]


def nearest(azimuth: float, azimuths: Sequence[float]) -> int:
    """Which of some azimuths is nearest to one."""
    return int(np.argmin([abs(turn(azimuth, other)) for other in azimuths]))
