# SPDX-License-Identifier: Apache-2.0
"""Bare: people alone, as the conditions of a generative model see them.

posed vertices + textures + windows -> colour, seen, normals and coverage at the model's own size,
without ground, shadow or sensor. `window` says what a finished crop's camera saw, so that what is
drawn here lies where the crop's person lies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth.cameras import Cameras, orbit
from viewsynth.records import View
from viewsynth.render import scene, shade
from viewsynth.render.options import Sensor
from viewsynth.render.views import BATCH, SUPERSAMPLE, Frame, whole

GREY = 128 / 255  # what is behind the person
NUMBERS = ("elevation", "azimuth", "distance", "target_height")


@dataclass(frozen=True, eq=False)
class Bare:
    """People on mid-grey under an overcast sky, N pictures of one size.

    Args:
        render: RGB in [0, 1].  float32 [N, 3, H, W]
        seen: How much of each pixel is a surface that was really seen, [0, 1]; a pixel on the
            outline is seen as far as it is covered.  float32 [N, 1, H, W]
        normals: Mean normal in camera axes (x right, y down, z forward: what faces the camera has
            z < 0), [-1, 1], zero off the body.  float32 [N, 3, H, W]
        coverage: Share of each pixel that is person.  float32 [N, 1, H, W]
    """

    render: Tensor
    seen: Tensor
    normals: Tensor
    coverage: Tensor


def draw(
    vertices: Tensor,
    body,
    textures: list[np.ndarray],
    seens: list[np.ndarray],
    mesh: Tensor,
    windows: Cameras,
) -> Bare:
    """Draw P people into N windows, supersampled, in slices that bound the memory.

    Args:
        vertices: World, metres; they need not stand at the origin.  [P, V, 3]
        body: Their `viewsynth.bodies.Body`: faces, uvs, face_uvs.
        textures: Colour atlas of each person, one size for all.  uint8 [T, T, 3]
        seens: Seen map of each atlas.  uint8 [T, T]
        mesh: Which person each window shows.  int64 [N]
        windows: N cameras whose canvas is the wanted size, see `window`; on any device.
    Returns: Bare, on the device of the vertices.
    Raises: ValueError: if shapes do not fit, or a window names no person.
    """
    plane = layers(vertices, body, textures, seens, mesh, windows)
    share = plane[:, 3:4]
    return Bare(plane[:, :3] + (1 - share) * GREY, plane[:, 4:5], plane[:, 5:], share)


@torch.no_grad()
def layers(
    vertices: Tensor,
    body,
    textures: list[np.ndarray],
    seens: list[np.ndarray],
    mesh: Tensor,
    windows: Cameras,
) -> Tensor:
    """What `draw` puts together: RGB, coverage, seen, normals, all times coverage.

    Returns: float32 [N, 8, H, W]
    """
    device, (height, width) = vertices.device, windows.size
    if not 0 < len(mesh) == len(windows):
        raise ValueError(
            f"mesh must name a person for each window, got {len(mesh)} for {len(windows)} windows"
        )
    fine = stretched(windows, (height * SUPERSAMPLE, width * SUPERSAMPLE))
    step = max(1, BATCH[device.type] // (fine.size[0] * fine.size[1]))
    overcast = dataclasses.replace(scene.place(0), strength=0.0)
    done = []
    for start in range(0, len(mesh), step):
        some = _part(fine, slice(start, start + step), device)
        people, which = torch.unique(mesh[start : start + step].to(device), return_inverse=True)
        rows = people.tolist()
        if not 0 <= rows[0] <= rows[-1] < len(vertices):
            raise ValueError(f"mesh must name one of {len(vertices)} people, got {rows}")
        buffers = shade.render(
            vertices.detach().float()[people],
            body.faces,
            some,
            which,
            body.uvs,
            body.face_uvs,
            torch.from_numpy(np.stack([textures[k] for k in rows])).to(device),
            torch.from_numpy(np.stack([seens[k] for k in rows])).to(device),
        )
        colour = (buffers.colour * scene.light(buffers.normal, overcast)[..., None]).clamp(0, 1)
        share = (buffers.face >= 0).float()[..., None]
        normals = torch.einsum("nij,nhwj->nhwi", some.world_to_camera[:, :3, :3], buffers.normal)
        plane = torch.cat([colour * share, share, buffers.seen[..., None], normals], dim=-1)
        done.append(scene.shrink(plane.movedim(-1, 1), SUPERSAMPLE))
    return torch.cat(done)


def _part(cameras: Cameras, part: slice, device: torch.device) -> Cameras:
    lens = None if cameras.k1 is None else cameras.k1[part].to(device)
    return Cameras(
        cameras.world_to_camera[part].to(device),
        cameras.intrinsics[part].to(device),
        cameras.size,
        lens,
    )


def window(
    view: View | Frame | Mapping,
    size: tuple[int, int],
    picture_height: int = Sensor.picture_height,
) -> Cameras:
    """The camera of a finished crop on a canvas of the model's size, the crop's box stretched.

    Args:
        view: A `View`, a `Frame`, or a row of a run's `metadata.jsonl`.
        size: Height and width of the canvas, pixels.
        picture_height: `sensor.picture_height` of the run that made the view.
    Returns: one camera; `cameras.join` makes many of many.
    Raises: ValueError: if the row has no camera.
    """
    told = view if isinstance(view, Mapping) else vars(view)
    if missing := [key for key in (*NUMBERS, "vfov", "box") if told.get(key) is None]:
        raise ValueError(f"expected a view with its camera; {', '.join(missing)} is not there")
    pose = orbit(*(torch.tensor([float(told[key])]) for key in NUMBERS))
    box = torch.tensor([[float(value) for value in told["box"]]])
    return whole(pose, [float(told["vfov"])], picture_height).window(box, size)


def stretched(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """The same pictures on a canvas of another size: that of a truth's camera, say."""
    box = torch.tensor([[0.0, 0.0, cameras.size[1], cameras.size[0]]])
    boxes = box.to(cameras.intrinsics.device).repeat(len(cameras), 1)
    return cameras.window(boxes, size)
