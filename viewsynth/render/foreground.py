# SPDX-License-Identifier: Apache-2.0
"""Foreground: people rendered alone, without ground, shadow or sensor model.

meshes + cameras -> colour, seen map, normals and coverage on canvases of one
size: the conditions of the diffusion model. `crop_camera` gives the camera of a finished view's
crop, so that the rendered person is aligned with the view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from viewsynth.cameras import Cameras, orbit
from viewsynth.records import View
from viewsynth.render import lighting, scene, shade
from viewsynth.render.meshes import Mesh
from viewsynth.render.options import Sensor
from viewsynth.render.views import BATCH, SUPERSAMPLE, Frame, whole

GREY = 128 / 255  # colour of the background
ORBIT = ("elevation", "azimuth", "distance", "target_height")


@dataclass(frozen=True, eq=False)
class Foreground:
    """N images of people on mid-grey under an overcast sky.

    Args:
        render: RGB in [0, 1].  float32 [N, 3, H, W]
        seen: Seen map, [0, 1]; at the outline multiplied by the coverage.  float32 [N, 1, H, W]
        normals: Mean normal in camera axes (x right, y down, z forward, so surfaces that face the
            camera have z < 0), [-1, 1]; 0 off the person.  float32 [N, 3, H, W]
        coverage: Share of each pixel that the person covers.  float32 [N, 1, H, W]
    """

    render: Tensor
    seen: Tensor
    normals: Tensor
    coverage: Tensor


def render(meshes: Sequence[Mesh], person: Tensor, cameras: Cameras) -> Foreground:
    """Render P people into N cameras, supersampled, in batches of bounded memory.

    Args:
        meshes: The people, who may stand anywhere.
        person: Index of the person that each camera shows.  int64 [N]
        cameras: N cameras whose canvas has the wanted size, see `crop_camera`; on any device.

    Returns:
        N images, on the device of the meshes.

    Raises:
        ValueError: If there is not one index of a person per camera.
    """
    planes = layers(meshes, person, cameras)
    coverage = planes[:, 3:4]
    return Foreground(
        planes[:, :3] + (1 - coverage) * GREY, planes[:, 4:5], planes[:, 5:], coverage
    )


@torch.no_grad()
def layers(meshes: Sequence[Mesh], person: Tensor, cameras: Cameras) -> Tensor:
    """The layers that `render` composes: RGB, coverage, seen and normals, premultiplied.

    Args:
        meshes: See `render`.
        person: See `render`.
        cameras: See `render`.

    Returns:
        All channels are multiplied by the coverage.  float32 [N, 8, H, W]

    Raises:
        ValueError: See `render`.
    """
    shade.by_mesh(meshes, person, len(cameras))  # checks the indices
    device, (height, width) = meshes[0].vertices.device, cameras.size
    fine = resize_canvas(cameras, (height * SUPERSAMPLE, width * SUPERSAMPLE))
    step = max(1, BATCH[device.type] // (fine.size[0] * fine.size[1]))
    done = []
    for start in range(0, len(person), step):
        part = fine.take(rows := slice(start, start + step), device)
        buffers = shade.render(meshes, part, person[rows].to(device))
        done.append(scene.shrink(_premultiplied(buffers, part), SUPERSAMPLE))
    return torch.cat(done)


def _premultiplied(buffers: shade.Buffers, cameras: Cameras) -> Tensor:
    """The 8 channels of `layers` on the supersampled canvas.  float32 [N, 8, H, W]."""
    colour = (buffers.colour * lighting.sky(buffers.normal)[..., None]).clamp(0, 1)
    coverage = (buffers.face >= 0).float()[..., None]
    normals = torch.einsum("nij,nhwj->nhwi", cameras.world_to_camera[:, :3, :3], buffers.normal)
    planes = torch.cat([colour * coverage, coverage, buffers.seen[..., None], normals], dim=-1)
    return planes.movedim(-1, 1)


def crop_camera(
    view: View | Frame | Mapping,
    size: tuple[int, int],
    picture_height: int = Sensor.picture_height,
) -> Cameras:
    """The camera of a view's crop, with the crop stretched to a canvas of the given size.

    Args:
        view: A `View`, a `Frame`, or a row of a run's `metadata.jsonl`.
        size: Height and width of the canvas, pixels.
        picture_height: `sensor.picture_height` of the run that rendered the view, pixels.

    Returns:
        One camera; `cameras.join` concatenates several.

    Raises:
        ValueError: If the row has no camera.
    """
    fields = view if isinstance(view, Mapping) else vars(view)
    if missing := [key for key in (*ORBIT, "vfov", "box") if fields.get(key) is None]:
        raise ValueError(f"the view has no camera: {', '.join(missing)} is missing or null")
    pose = orbit(*(torch.tensor([float(fields[key])]) for key in ORBIT))
    box = torch.tensor([[float(value) for value in fields["box"]]])
    return whole(pose, [float(fields["vfov"])], picture_height).window(box, size)


def resize_canvas(cameras: Cameras, size: tuple[int, int]) -> Cameras:
    """The same cameras with their whole canvas stretched to another size.

    Args:
        cameras: N cameras.
        size: New height and width, pixels.
    """
    box = torch.tensor([[0.0, 0.0, cameras.size[1], cameras.size[0]]])
    boxes = box.to(cameras.intrinsics.device).repeat(len(cameras), 1)
    return cameras.window(boxes, size)
