# SPDX-License-Identifier: Apache-2.0
"""Options of the renderer: virtual camera and scene. Importing this module needs no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from viewsynth.records import seed_of
from viewsynth.runtime.files import sha256

LIMITS = {
    "pixels": (8, 2048, " pixels"),
    "picture_height": (240, 16384, " pixels"),
    "vfov": (1, 120, " degrees"),
    "margin": (-0.4, 1, ""),
    "distance": (2, 10000, " metres"),
    "exposure": (-4, 4, " stops"),
    "haze": (0, 0.9, ""),
    "blur": (0, 10, " pixels"),
    "noise": (0, 0.5, ""),
    "chroma_noise": (0, 0.5, ""),
    "denoising": (0, 0.5, ""),
    "sharpening": (0, 10, ""),
    "halo": (0.3, 5, " pixels"),
    "contrast": (0.2, 3, ""),
    "saturation": (0, 4, ""),
    "warmth": (-0.5, 0.5, ""),
    "tint": (-0.5, 0.5, ""),
    "jpeg": (0, 100, ""),
}
Range = float | tuple[float, float]
CHROMA = ("4:4:4", "4:2:2", "4:2:0")
# Values that switch the steps off.
LENS = {"exposure": 0.0, "haze": 0.0, "warmth": 0.0, "tint": 0.0, "blur": 0.0}
CHIP = {
    **{"noise": 0.0, "chroma_noise": 0.0, "denoising": 0.0},
    **{"sharpening": 0.0, "contrast": 1.0, "saturation": 1.0, "jpeg": 0.0},
}


@dataclass(frozen=True)
class Sensor:
    """The virtual camera and its sensor model.

    Two numbers are a range, from which each view draws its own value. The defaults of light, lens
    and chip lie between an ideal camera and what `viewsynth match` found in aerial crops of public
    figures, see docs/guides/options.md.
    """

    pixels: Range = 128.0
    """Height of a standing person in pixels, from which the camera's distance follows."""
    distance: float | None = None
    """Distance from the target in metres; overrides `pixels`."""
    picture_height: int = 2160
    """Height of the whole camera image in pixels; its aspect ratio is 16:9."""
    vfov: float = 40.0
    """Vertical field of view of the camera, degrees."""
    margin: Range = (0.05, 0.15)
    """Room around the person in a crop, as a share of the longer side, drawn for each side of the
    crop; below 0 the person is cut."""
    exposure: Range = (-0.2, 0.2)
    """Brightness of the light, stops; 0 = unchanged."""
    haze: Range = (0.0, 0.04)
    """Share of the light that is scattered over the image; 0 = none."""
    blur: Range = (0.5, 1.0)
    """Standard deviation of the lens blur in pixels; 0 = none."""
    noise: Range = (0.003, 0.009)
    """Standard deviation of the brightness noise at middle grey, as a share of full scale."""
    chroma_noise: Range = (0.003, 0.012)
    """Standard deviation of the colour noise at middle grey, as a share of full scale."""
    denoising: Range = (0.0, 0.015)
    """Detail that is weaker than this share of full scale is smoothed away; 0 = none."""
    sharpening: Range = (0.8, 1.6)
    """Amount of the camera's unsharp mask; 0 = none."""
    halo: Range = (1.2, 1.8)
    """Radius of denoising and of the unsharp mask, standard deviation in pixels."""
    contrast: Range = (1.0, 1.4)
    """Slope of the tone curve at middle grey; 1 = unchanged."""
    saturation: Range = (1.0, 1.35)
    """Factor of the distance of colours from grey; 1 = unchanged."""
    warmth: Range = (-0.03, 0.03)
    """White balance: share by which red is raised and blue lowered; 0 = unchanged."""
    tint: Range = (-0.015, 0.015)
    """White balance: share by which green is raised; 0 = unchanged."""
    jpeg: Range = (55.0, 90.0)
    """JPEG quality of the camera's compression, 5 to 100; 0 = no compression."""
    chroma: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"
    """Subsampling of the colours in that compression."""

    def __post_init__(self):
        for name, (low, high, unit) in LIMITS.items():
            value = getattr(self, name)
            if value is None and name == "distance":
                continue
            ends = span(value)
            if not all(math.isfinite(end) and low <= end <= high for end in ends):
                raise ValueError(f"sensor.{name} must be in [{low}, {high}]{unit}, got {value}")
            if ends[0] > ends[1]:
                raise ValueError(f"sensor.{name} must go from low to high, got {value}")
        least = span(self.jpeg)[0]
        if self.jpeg != 0 and least < 5:
            raise ValueError(f"sensor.jpeg must be 0 (none) or in [5, 100], got {self.jpeg}")
        if self.chroma not in CHROMA:
            raise ValueError(f"sensor.chroma must be one of {', '.join(CHROMA)}; got {self.chroma}")
        if self.distance is None and span(self.pixels)[1] > 0.8 * self.picture_height:
            raise ValueError(
                "sensor.pixels must be at most 0.8 x sensor.picture_height = "
                f"{0.8 * self.picture_height:g}, got {self.pixels}"
            )

    def draw(self, seed: int) -> Sensor:
        """The sensor of one view: every range replaced by a value from it.

        Args:
            seed: Seed of the view. Each value depends on it and on its own range alone.
        """
        drawn = {
            name: float(np.random.default_rng(seed_of(seed, name)).uniform(*value))
            for name, value in vars(self).items()
            if isinstance(value, tuple) and name != "margin"
        }
        return dataclasses.replace(self, **drawn)

    def without_chip(self) -> Sensor:
        """Light and lens alone, as if the sensor model ended there."""
        return dataclasses.replace(self, **CHIP)

    def chip(self) -> Sensor:
        """The rest of the sensor model, for images that light and lens were applied to."""
        return dataclasses.replace(self, **LENS)

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


@dataclass(frozen=True)
class Scene:
    """Ground and light around the person."""

    grounds: Path | None = None
    """Folder of square PNG textures of the ground, see `viewsynth match`; None = drawn pavings."""
    shadow: Range = (0.37, 0.62)
    """Share of the ground's sRGB value that the sun's shadow takes away."""
    softness: Range = (0.02, 0.05)
    """Softness of the sun's shadow: standard deviation of its edge in metres."""
    overcast: float = 0.45
    """Share of the views without direct sun, whose shadows are soft and light."""

    def __post_init__(self):
        for name, high in (("shadow", 0.9), ("softness", 0.5), ("overcast", 1.0)):
            ends = span(getattr(self, name))
            if not all(0 <= end <= high for end in ends) or ends[0] > ends[1]:
                raise ValueError(
                    f"scene.{name} must be in [0, {high:g}], from low to high; got "
                    f"{getattr(self, name)}"
                )

    def textures(self) -> list[Path]:
        """Files of the textures, in the order of their names; none without a folder.

        Raises:
            FileNotFoundError: If the folder has none.
        """
        if self.grounds is None:
            return []
        if found := sorted(self.grounds.expanduser().glob("*.png")):
            return found
        raise FileNotFoundError(
            f"scene.grounds must be a folder of square PNG textures; {self.grounds} has none: give "
            "the folder that `viewsynth match` wrote beside its preset"
        )

    def settings(self) -> dict:
        """The options as a run stores them, with the content of the textures for their folder."""
        texts = "".join(map(sha256, self.textures()))
        mark = hashlib.sha256(texts.encode()).hexdigest() if texts else None
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}
        return values | {"grounds": mark}


def span(value: Range) -> tuple[float, float]:
    """Both ends of a range."""
    return value if isinstance(value, tuple) else (value, value)
