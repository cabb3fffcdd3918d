# SPDX-License-Identifier: Apache-2.0
"""Options of the renderer: the virtual camera. Importing this module needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sensor:
    """The virtual camera and its sensor model."""

    pixels: float = 128.0
    """Height of a standing person in pixels, from which the camera's distance follows."""
    distance: float | None = None
    """Distance from the target in metres; overrides `pixels`."""
    picture_height: int = 2160
    """Height of the whole camera image in pixels; its aspect ratio is 16:9."""
    vfov: float = 40.0
    """Vertical field of view of the camera, degrees."""
    margin: float = 0.1
    """Room around the person in a crop, as a share of the longer side; varied by +- 50 %."""
    blur: float = 0.6
    """Standard deviation of the lens blur in pixels."""
    noise: float = 0.01
    """Standard deviation of the sensor noise, as a share of full scale."""
    jpeg: int = 80
    """JPEG quality of the camera's compression, 5 to 100; 0 = no compression."""

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
                "sensor.pixels must be at most 0.8 x sensor.picture_height = "
                f"{0.8 * self.picture_height:g}, got {self.pixels:g}"
            )

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        from viewsynth.cameras import focal_length

        return focal_length(self.vfov, self.picture_height)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole camera image, pixels."""
        return self.picture_height, round(self.picture_height * 16 / 9)

    def distance_to(self, height: float) -> float:
        """Distance from the target at which a person has the wanted height in pixels.

        Args:
            height: Standing height of the person, metres.

        Returns:
            The distance in metres.

        Raises:
            ValueError: if the camera would be inside the person.
        """
        metres = self.distance if self.distance is not None else self.focal * height / self.pixels
        if metres <= 1.2 * height:
            raise ValueError(
                f"the camera would be {metres:.2f} m from the middle of a person of "
                f"{height:.2f} m; lower sensor.pixels, or raise sensor.distance or "
                "sensor.picture_height"
            )
        return metres
