# SPDX-License-Identifier: Apache-2.0
"""Conditions of the diffusion model: all inputs that a batch of views is generated from.

`refine` and `photo` build them for generation, `pairs.stored` for training; `pipeline.encode`
encodes them. Source images and renderings are stretched to the size of the model, as ReID trainers
do; the aspect of the crop is one of the camera parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Columns of `Conditions.camera`: elevation of the target camera and of the source camera, degrees
# above the horizon; azimuth of the target minus that of the source, degrees; metres from the
# target; width over height of the finished crop.
CAMERA = ("elevation", "source_elevation", "azimuth", "distance", "aspect")
# Groups of conditions that can be dropped, in training and for guidance: latent and identity
# features of the source image; rendering, seen map and normals; camera parameters.
CONDITION_GROUPS = ("source", "geometry", "camera")

DARK = 8 / 255  # an image whose values are all below this is refused as black
CLOSE = 1e-3  # tolerance at the ends of a value range, because resampling overshoots


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions of B views, generated from P source images.

    Args:
        source: Source images, which several views may share.  float [P, 3, H, W] in [0, 1]
        person: Index of the source image of each view.  long [B]
        render: The reconstructed person at the target camera, under an overcast sky and on
            mid-grey (128/255), see `render.foreground`.  float [B, 3, H, W] in [0, 1]
        seen: Seen map of the rendering, 0 off the person.  float [B, 1, H, W] in [0, 1]
        normals: Normals in camera axes, 0 off the person.  float [B, 3, H, W] in [-1, 1]
        camera: Camera parameters, see `CAMERA`.  float32 [B, 5]
    """

    source: Tensor
    person: Tensor
    render: Tensor
    seen: Tensor
    normals: Tensor
    camera: Tensor

    def __len__(self) -> int:
        """Number of views."""
        return len(self.person)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditions:
        """Move to a device, and cast the images.

        Args:
            device: Device of all tensors.
            dtype: Type of the images; None = unchanged. The camera stays float32.
        """
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
        """Select views; the source images are unchanged.

        Args:
            rows: Indices of the views.  long [N]
        """
        names = ("person", "render", "seen", "normals", "camera")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def check(self, size: tuple[int, int] | None = None) -> None:
        """Check shapes and value ranges.

        Args:
            size: Height and width of the model's images, pixels; None = those of `source`.

        Raises:
            ValueError: If a value cannot be used; the message names the source image or the row.
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
                    f"{name} must be {list(shape)}, got {list(got)}; a row is one view, and images "
                    f"are stretched to {size[0]} x {size[1]} (height x width)"
                )
        for name, low, high in (
            ("source", 0, 1),
            ("render", 0, 1),
            ("seen", 0, 1),
            ("normals", -1, 1),
            ("camera", -torch.inf, torch.inf),
        ):
            _check_range(name, getattr(self, name), low, high)
        _check_person(self.person, len(self.source))
        dark = (self.source.flatten(1).amax(1) < DARK).nonzero()
        if len(dark):
            raise ValueError(
                f"source image {int(dark[0])} is black (no value reaches {DARK:.3f}); leave it out "
                "or give another one"
            )
        self._check_camera()

    def _check_camera(self) -> None:
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
    """Encoded `Conditions` of B views, generated from P source images.

    Args:
        source: Latents of the source images.  [P, C, h, w]
        identity: Identity features of the source images.  [P, D]
        person: Index of the source image of each view.  long [B]
        render: Latents of the renderings.  [B, C, h, w]
        seen: Seen map at the size of the latents.  [B, 1, h, w]
        normals: Normals at the size of the latents.  [B, 3, h, w]
        camera: Camera parameters, see `CAMERA`.  float32 [B, 5]
    """

    source: Tensor
    identity: Tensor
    person: Tensor
    render: Tensor
    seen: Tensor
    normals: Tensor
    camera: Tensor

    def take(self, rows: Tensor) -> Encoded:
        """Select views; the source images are unchanged.

        Args:
            rows: Indices of the views; an index may occur several times.  long [N]
        """
        names = ("person", "render", "seen", "normals", "camera")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def _check_range(name: str, values: Tensor, low: float, high: float) -> None:
    flat = values.flatten(1).float()
    if flat.shape[1] == 0 or len(flat) == 0:
        raise ValueError(f"{name} is empty, shape {list(values.shape)}; give at least one view")
    what = "image" if name == "source" else "row"
    bad = (~flat.isfinite().all(1)).nonzero()
    if len(bad):
        raise ValueError(
            f"{name} of {what} {int(bad[0])} contains NaN or infinity; correct the step that "
            "computed it, or leave the row out"
        )
    if float(flat.min()) < low - CLOSE or float(flat.max()) > high + CLOSE:
        bad = ((flat.amin(1) < low - CLOSE) | (flat.amax(1) > high + CLOSE)).nonzero()
        row = int(bad[0])
        raise ValueError(
            f"{name} must be in [{low}, {high}]; {what} {row} spans "
            f"[{float(flat[row].min()):.3g}, {float(flat[row].max()):.3g}]"
        )


def _check_person(person: Tensor, images: int) -> None:
    if person.dtype != torch.int64 or int(person.min()) < 0 or int(person.max()) >= images:
        raise ValueError(
            f"person must hold the index of each view's source image, int64 in [0, {images - 1}]; "
            f"got {person.dtype} in [{int(person.min())}, {int(person.max())}]"
        )


def relative_azimuth(target: float, source: float) -> float:
    """Degrees from the source's azimuth to the target's, in [-180, 180)."""
    return (target - source + 180) % 360 - 180


def camera_row(
    elevation: float, azimuth: float, distance: float, aspect: float, source: tuple[float, float]
) -> tuple[float, ...]:
    """A row of `Conditions.camera`, see `CAMERA`.

    Args:
        elevation: Elevation of the target camera, degrees above the horizon.
        azimuth: Azimuth of the target camera, degrees.
        distance: Distance of the target camera, metres.
        aspect: Width over height of the crop.
        source: Elevation and azimuth of the source camera, degrees.
    """
    return elevation, source[0], relative_azimuth(azimuth, source[1]), distance, aspect
