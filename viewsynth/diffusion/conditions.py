# SPDX-License-Identifier: Apache-2.0
"""Conditions: everything that a batch of views is made from, on the way into the pipeline.

`render.foreground` and `photo` make them for generation, `pairs` for training; `pipeline.encode` takes
them. Sources and renderings are stretched to the one size of the model, whatever their own aspect,
as every ReID trainer does; the crop's true aspect is one of the camera's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# The numbers of `Conditions.camera`: degrees above the horizon of the wished-for camera and of the
# photo's; azimuth of the first minus that of the second, degrees; metres from the target; width
# over height of the finished crop.
CAMERA = ("elevation", "source_elevation", "azimuth", "distance", "aspect")
# What may be held back from the model, in training and for guidance: the photo's latent and the
# identity; the rendering, seen and normals; the camera's numbers.
KEPT = ("source", "geometry", "camera")

DARK = 8 / 255  # a photo without one brighter value shows nothing
CLOSE = 1e-3  # by which values may leave their range: resampling rounds


@dataclass(frozen=True, eq=False)
class Conditions:
    """B views of P photos.

    Args:
        source: The photos, each once: views share them.  float [P, 3, H, W] in [0, 1]
        person: Which photo each view is made from.  long [B]
        render: The reconstructed person at the wished-for camera under an overcast sky, on mid-grey
            (128/255).  float [B, 3, H, W] in [0, 1]
        seen: How much of each pixel was really seen, 0 off the person.  float [B, 1, H, W] in
            [0, 1]
        normals: In the camera's axes, 0 off the person.  float [B, 3, H, W] in [-1, 1]
        camera: See `CAMERA`.  float32 [B, 5]
    """

    source: Tensor
    person: Tensor
    render: Tensor
    seen: Tensor
    normals: Tensor
    camera: Tensor

    def __len__(self) -> int:
        """How many views."""
        return len(self.person)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditions:
        """The same on another device; `dtype` is of the pictures, the camera stays float32."""
        moved = {
            name: getattr(self, name).to(device, dtype)
            for name in ("source", "render", "seen", "normals")
        }
        return replace(
            self,
            **moved,
            person=self.person.to(device),
            camera=self.camera.to(device, torch.float32),
        )

    def take(self, rows: Tensor) -> Conditions:
        """Some of the views; the photos stay as they are.  long [N]"""
        names = ("person", "render", "seen", "normals", "camera")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def check(self, size: tuple[int, int] | None = None) -> None:
        """Refuse what no picture can be made of.

        Args:
            size: Height and width of the model, pixels; None = any, one for all.
        Raises: ValueError: it names the photo or the row, and says what to do.
        """
        size = size or tuple(self.source.shape[-2:])
        count = len(self.person)
        for name, shape in (
            ("source", (len(self.source), 3, *size)),
            ("person", (count,)),
            ("render", (count, 3, *size)),
            ("seen", (count, 1, *size)),
            ("normals", (count, 3, *size)),
            ("camera", (count, len(CAMERA))),
        ):
            if (got := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(
                    f"{name} must be {list(shape)}, got {list(got)}; a row is one view, and "
                    f"pictures are stretched to {size[0]} x {size[1]} (height x width)"
                )
        for name, low, high in (
            ("source", 0, 1),
            ("render", 0, 1),
            ("seen", 0, 1),
            ("normals", -1, 1),
            ("camera", -torch.inf, torch.inf),
        ):
            _within(name, getattr(self, name), low, high)
        _known(self.person, len(self.source))
        dark = (self.source.flatten(1).amax(1) < DARK).nonzero()
        if len(dark):
            raise ValueError(
                f"photo {int(dark[0])} is black (no value reaches {DARK:.3f}): nothing of the "
                "person can be seen; leave it out or give another one"
            )
        for column, low, high, unit in (
            (0, 0, 90, "degrees above the horizon"),
            (1, -90, 90, "degrees above the horizon"),
            (3, 1e-3, 1e6, "metres"),
            (4, 0.01, 100, "width / height"),
        ):
            wrong = ((self.camera[:, column] < low) | (self.camera[:, column] > high)).nonzero()
            if len(wrong):
                row = int(wrong[0])
                raise ValueError(
                    f"{CAMERA[column]} must be in [{low:g}, {high:g}] {unit}; row {row} has "
                    f"{float(self.camera[row, column]):g}"
                )


@dataclass(frozen=True, eq=False)
class Encoded:
    """`Conditions` as the networks take them. P photos, B views.

    Args:
        source: Latents of the photos.  [P, C, h, w]
        identity: Features of the photos.  [P, D]
        person: Which photo each view is made from.  long [B]
        render: Latents of the renderings.  [B, C, h, w]
        seen: At the latents' grid.  [B, 1, h, w]
        normals: At the latents' grid.  [B, 3, h, w]
        camera: See `CAMERA`.  float32 [B, 5]
    """

    source: Tensor
    identity: Tensor
    person: Tensor
    render: Tensor
    seen: Tensor
    normals: Tensor
    camera: Tensor

    def take(self, rows: Tensor) -> Encoded:
        """Some of the views, also more than once; the photos stay.  long [N]"""
        names = ("person", "render", "seen", "normals", "camera")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def _within(name: str, values: Tensor, low: float, high: float) -> None:
    flat = values.flatten(1).float()
    if flat.shape[1] == 0 or len(flat) == 0:
        raise ValueError(f"{name} is empty, shape {list(values.shape)}; give at least one view")
    what = "photo" if name == "source" else "row"
    bad = (~flat.isfinite().all(1)).nonzero()
    if len(bad):
        raise ValueError(
            f"{name} of {what} {int(bad[0])} holds NaN or infinity; it was made by something that "
            "failed: look there, or leave it out"
        )
    if float(flat.min()) < low - CLOSE or float(flat.max()) > high + CLOSE:
        bad = ((flat.amin(1) < low - CLOSE) | (flat.amax(1) > high + CLOSE)).nonzero()
        row = int(bad[0])
        raise ValueError(
            f"{name} must be in [{low}, {high}]; {what} {row} spans "
            f"[{float(flat[row].min()):.3g}, {float(flat[row].max()):.3g}]"
        )


def _known(person: Tensor, photos: int) -> None:
    if person.dtype != torch.int64 or int(person.min()) < 0 or int(person.max()) >= photos:
        raise ValueError(
            f"person must name one of the {photos} photos of each view, int64 in "
            f"[0, {photos - 1}]; got {person.dtype} in [{int(person.min())}, {int(person.max())}]"
        )
