# SPDX-License-Identifier: Apache-2.0
"""Rendered views as a notebook shows them, and the cameras that it asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from viewsynth.cameras import Cameras
from viewsynth.generate.options import Views
from viewsynth.records import View
from viewsynth.render import foreground
from viewsynth.render.options import Sensor
from viewsynth.runtime.images import COMPOSITE, jpeg


@dataclass(frozen=True, eq=False)
class RenderedView:
    """One rendered aerial image of a person; a notebook displays it as its image.

    Args:
        image: RGB.
        seen: Seen map, grey: 255 = observed in a source image, between = inferred, 0 = invented or
            not the person.
        mask: Pixels of the person, black and white.
        camera: One camera, whose canvas is the image; see `viewsynth.cameras`.
        elevation, azimuth: Degrees.
        distance: Metres from the middle of the person.
        pid: Identity.
        source_type: What `save` writes as IPTC digital source type.
    """

    image: Image.Image
    seen: Image.Image
    mask: Image.Image
    camera: Cameras
    elevation: float
    azimuth: float
    distance: float
    pid: str
    source_type: str = COMPOSITE

    def save(self, path: str | os.PathLike) -> None:
        """Write the image as `generate` does: JPEG, quality 95, marked as synthetic.

        Args:
            path: Ends in .jpg or .jpeg. (`image.save` writes other formats, without the mark.)

        Raises:
            ValueError: If the path has another ending.
        """
        path = Path(path)
        if path.suffix.lower() not in (".jpg", ".jpeg"):
            raise ValueError(f"path must end in .jpg, got {path}; image.save writes other formats")
        path.write_bytes(jpeg(np.asarray(self.image), self.source_type))

    def _repr_png_(self) -> bytes | None:
        return self.image._repr_png_()


def camera_names(elevation: float | Sequence[float], azimuth: float | Sequence[float]) -> list[str]:
    """The names of cameras as `generate` gives them, one per pair of angles."""
    angles = [np.asarray(value, np.float64) for value in (elevation, azimuth)]
    sizes = {value.shape for value in angles} - {()}
    if len(sizes) > 1 or any(len(size) > 1 for size in sizes):
        shapes = " and ".join(str(list(value.shape)) for value in angles)
        raise ValueError(
            "elevation and azimuth must be numbers, or lists of the same length; got the shapes "
            f"{shapes} (for a grid, repeat the values: numpy.meshgrid, then .ravel())"
        )
    names = []
    for high, turn in zip(*(value.ravel() for value in np.broadcast_arrays(*angles)), strict=True):
        if not 0 <= high <= 90:
            raise ValueError(f"elevation must be in [0, 90] degrees above the horizon, got {high}")
        if not np.isfinite(turn):
            raise ValueError(f"azimuth must be a finite number of degrees, got {turn}")
        names += Views(elevations=(float(high),), azimuths=(float(turn) % 360,)).names()
    return names


def to_rendered_view(view: View, sensor: Sensor, source_type: str) -> RenderedView:
    """A view as a notebook shows it.

    Args:
        view: As rendered.
        sensor: The virtual camera that it was rendered with.
        source_type: See `RenderedView`.
    """
    return RenderedView(
        image=Image.fromarray(view.image),
        seen=Image.fromarray(view.seen),
        mask=Image.fromarray(view.mask),
        camera=foreground.crop_camera(view, view.image.shape[:2], sensor.picture_height),
        elevation=view.elevation,
        azimuth=view.azimuth,
        distance=view.distance,
        pid=view.pid,
        source_type=source_type,
    )
