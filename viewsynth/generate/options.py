# SPDX-License-Identifier: Apache-2.0
"""Options of view generation: cameras, pose, reconstruction, model files.

Importing this module needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from viewsynth.config import check_range
from viewsynth.records import seed_of

ELEVATIONS, AZIMUTHS = (30.0, 45.0, 60.0, 90.0), (0.0, 90.0, 180.0, 270.0)


@dataclass(frozen=True)
class Views:
    """Virtual cameras: a grid of elevations and azimuths, or random ones."""

    elevations: tuple[float, ...] | None = None
    """Elevations of the grid, degrees above the horizon (90 = nadir); None = 30 45 60 90."""
    azimuths: tuple[float, ...] | None = None
    """Azimuths of the grid, degrees (0 = front, 90 = the person's left); None = 0 90 180 270."""
    sample: int | None = None
    """Number of random cameras per person; replaces the grid."""
    range: tuple[float, float] = (25.0, 90.0)
    """Lowest and highest elevation of the random cameras, degrees."""

    def __post_init__(self):
        for key, values, low, high in (
            ("elevations", self.elevations, 0, 90),
            ("azimuths", self.azimuths, -360, 360),
            ("range", self.range, 0, 90),
        ):
            for value in values or ():
                check_range(f"views.{key}", value, low, high, "degrees")
            if values == ():
                raise ValueError(f"views.{key} must have at least one value, got none")
        check_range("views.sample", self.sample, 1, 10_000)
        if self.range[0] > self.range[1]:
            raise ValueError(f"views.range must go from low to high, got {self.range}")
        if self.sample is not None and (self.elevations or self.azimuths):
            raise ValueError(
                "views.sample replaces the grid: give either it or views.elevations and "
                f"views.azimuths, got sample {self.sample} and {self.elevations or self.azimuths}"
            )

    def names(self) -> tuple[str, ...]:
        """Names of the views, which `camera` reads."""
        if self.sample is not None:
            low, high = (f"{round(x, 2):g}" for x in self.range)
            return tuple(f"s{low}-{high}_{number:03d}" for number in range(self.sample))
        grid = [
            f"e{round(e, 2):g}_a{round(a, 2) % 360:g}"
            for e in self.elevations or ELEVATIONS
            for a in self.azimuths or AZIMUTHS
        ]
        return tuple(dict.fromkeys(grid))


def camera(name: str, seed: int, pid: str, outfit: str = "") -> tuple[float, float]:
    """Elevation and azimuth of a view by its name.

    `e60_a180` contains them; `s25-90_003` is the fourth random camera of this person, with an
    elevation between 25 and 90.

    Args:
        name: Name of the view, see `Views.names`.
        seed: Seed of the run.
        pid: The person.
        outfit: The person's outfit.

    Returns:
        Elevation and azimuth, degrees.
    """
    kind, first, second = name[0], *name[1:].split("_", 1)
    if kind == "e":
        return float(first), float(second[1:])
    low, high = map(float, first.split("-"))
    rng = np.random.default_rng(seed_of(seed, pid, outfit, "camera", name))
    return round(float(rng.uniform(low, high)), 2), round(float(rng.uniform(0, 360)), 2)


@dataclass(frozen=True)
class Pose:
    """Pose of the rendered people."""

    mode: Literal["fitted", "relaxed", "walk"] = "relaxed"
    """fitted = as in the image; relaxed = more than half way to a walking pose; or walk."""


@dataclass(frozen=True)
class Reconstruct:
    """How people are reconstructed."""

    complete: str = "learned"
    """What no image shows: learned (a network), rules, or FILE of train-completion."""


@dataclass(frozen=True)
class Weights:
    """Your own model files; None = downloaded once and cached."""

    pose: Path | None = None
    """Pose model, pose_landmark_full.tflite."""
    detector: Path | None = None
    """Person detector, pose_detection.tflite."""
    smplx: Path | None = None
    """Body model of --body smplx, SMPLX_NEUTRAL.npz (needs a licence)."""
    identity: str | None = None
    """ReID model (folder of train, or hub id) that helps to find crops of other people."""
