# SPDX-License-Identifier: Apache-2.0
"""Options of the renderer: the virtual camera. Importing them needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sensor:
    """A camera in the air."""

    pixels: float = 128.0
    """Standing height in pixels at the target's distance; the distance follows from it."""
    distance: float | None = None
    """Metres from the target; given, it replaces `pixels`."""
    picture_height: int = 2160
    """Height of the whole camera picture in pixels; its shape is 16:9."""
    vfov: float = 40.0
    """Vertical field of view in degrees."""
    margin: float = 0.1
    """Room around the person in a crop, as a share of the longer side; varies by half of itself."""
    blur: float = 0.6
    """Standard deviation of the optics' blur in pixels."""
    noise: float = 0.01
    """Standard deviation of the chip's noise, of full scale."""
    jpeg: int = 80
    """JPEG quality of the camera's own compression; 0 = none."""

    def __post_init__(self):
        for name, low, high, unit in (
            ("pixels", 8, 2048, " pixels"),
            ("picture_height", 240, 16384, " pixels"),
            ("vfov", 1, 120, " degrees"),
            ("margin", 0, 1, ""),
            ("blur", 0, 10, " pixels"),
            ("noise", 0, 0.5, ""),
            ("distance", 2, 10000, " metres"),
        ):
            value = getattr(self, name)
            if value is None and name == "distance":
                continue
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"sensor.{name} must be in [{low}, {high}]{unit}, got {value}")
        if self.jpeg != 0 and not 5 <= self.jpeg <= 100:
            raise ValueError(f"sensor.jpeg must be 0 (none) or in [5, 100], got {self.jpeg}")
        if self.distance is None and self.pixels > 0.8 * self.picture_height:
            raise ValueError(
                f"sensor.pixels must leave room in the picture: at most 0.8 x "
                f"sensor.picture_height = {0.8 * self.picture_height:g}, got {self.pixels:g}"
            )

    @property
    def focal(self) -> float:
        """Focal length, pixels."""
        from viewsynth.cameras import focal_length

        return focal_length(self.vfov, self.picture_height)

    @property
    def size(self) -> tuple[int, int]:
        """The whole picture, (height, width), pixels."""
        return self.picture_height, round(self.picture_height * 16 / 9)

    def distance_to(self, height: float) -> float:
        """Metres to the target at which a person of `height` metres gets the pixel budget.

        Raises: ValueError: if the camera would be inside the person.
        """
        metres = self.distance if self.distance is not None else self.focal * height / self.pixels
        if metres <= 1.2 * height:
            raise ValueError(
                f"the camera would be {metres:.2f} m from the middle of a person of "
                f"{height:.2f} m; lower sensor.pixels, or raise sensor.distance or "
                "sensor.picture_height"
            )
        return metres
