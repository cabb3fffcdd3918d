# SPDX-License-Identifier: Apache-2.0
"""A pair before it is rendered and stored, and the pairs of one chunk of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from viewsynth.cameras import Cameras
from viewsynth.diffusion.conditions import camera_row, relative_azimuth
from viewsynth.render.meshes import Mesh


@dataclass(frozen=True)
class Pair:
    """One pair.

    Args:
        mesh: The person that is rendered.
        window: One camera whose canvas has the model's size.
        photo: Index of the source image in `ChunkPairs.photos`.
        target: True image at its own size.  uint8 [h, w, 3]
        mask: Pixels of the person in the target.  bool [h, w]; None = unknown
        row: Fields of the row in `rows.jsonl`, except the location of the stored data.
    """

    mesh: Mesh
    window: Cameras
    photo: int
    target: np.ndarray
    mask: np.ndarray | None
    row: dict


@dataclass
class ChunkPairs:
    """Pairs and rejects of a chunk of people.

    Args:
        photos: Source images.  uint8 [h, w, 3]
        pairs: Pairs.
        rejects: Records of what gave no pair: pid, name (of the image, or "" = the person), reason,
            and kind, "fault" or "quality".
    """

    photos: list[np.ndarray] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    rejects: list[dict] = field(default_factory=list)

    def reject(self, pid: str, name: str, reason: str, kind: str = "quality") -> None:
        """Record why an image or a person gives no pair.

        Args:
            pid: Identity.
            name: Name of the image; "" = the person.
            reason: Reason, in words.
            kind: "fault" or "quality".
        """
        self.rejects.append({"pid": pid, "name": name, "reason": reason, "kind": kind})


def camera(
    elevation: float,
    azimuth: float,
    distance: float,
    target: np.ndarray,
    source: tuple[float, float],
) -> list[float]:
    """The camera parameters of a pair, see `conditions.CAMERA`, rounded for storage.

    Args:
        elevation: Elevation of the target camera, degrees above the horizon.
        azimuth: Azimuth of the target camera, degrees.
        distance: Distance of the target camera, metres.
        target: True image, for its aspect.  [h, w, 3]
        source: Elevation and azimuth of the source camera, degrees.
    """
    height, width = target.shape[:2]
    row = camera_row(elevation, azimuth, distance, width / height, source)
    return [round(float(number), 4) for number in row]


def nearest(azimuth: float, azimuths: Sequence[float]) -> int:
    """Index of the azimuth that is nearest to the given one, degrees."""
    return int(np.argmin([abs(relative_azimuth(azimuth, other)) for other in azimuths]))
