# SPDX-License-Identifier: Apache-2.0
"""Light of a scene: the sun's shadow on the ground, and the shading of the person by the same sun.

A shadow map lies on the ground, along the sun: its value at a ground point is both whether the
person's shadow falls there, and how high up the ray towards the sun the person's surface is, which
tells what of the body the body itself shades. Factors act on sRGB values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from viewsynth.cameras import Cameras
from viewsynth.render.meshes import Mesh
from viewsynth.render.sensor import gaussian
from viewsynth.render.shade import Buffers, by_mesh
from viewsynth.render.zbuffer import rasterize

if TYPE_CHECKING:  # `scene` imports this module
    from viewsynth.render.scene import Place

MAP, REACH = 176, 2.8  # shadow map: side in pixels, metres from its centre to its border
CONTACT = 0.08  # metres of height over which a sole darkens the ground
AMBIENT, DIRECT = 0.12, 0.5  # darkness of a cast shadow without sun, and more of it by the sun
# Full sun: gain of what faces it, and loss of what it does not reach. Textures contain the light
# of their photos, and the colours of the clothes identify the person: weaker than on the ground.
BRIGHT, SHADED = 0.22, 0.14
EDGE = 0.3  # cosine to the sun below which a surface begins to turn away from it
# Metres by which a surface towards the sun is higher when it begins to shade, and more until fully.
ABOVE = 0.05, 0.06
FEET, FEET_HEIGHT = 0.15, 0.1  # darkness of a sole by the ground, metres of height where it fades
TALL = 4.0  # metres: more than a person's height


@dataclass(frozen=True)
class Shadows:
    """Shadow maps of N people. They span `REACH` metres around `_middle`, +x right, +z down.

    Args:
        ground: Brightness of the ground, 1 = unshaded.  float32 [N, MAP, MAP]
        tops: Height of the surface that is highest on the ray from a ground point to the sun,
            metres; 0 = none.  float32 [N, MAP, MAP]
    """

    ground: Tensor
    tops: Tensor


def on_person(buffers: Buffers, cameras: Cameras, n: int, site: Place, tops: Tensor) -> Tensor:
    """Brightness of the person's surface in camera `n`: sky, ground, sun and its own shadow.

    Args:
        buffers: Of the people in N cameras.
        cameras: Those cameras.
        n: Index of a camera.
        site: Direction and strength of the sun.
        tops: Of `Shadows`, for this camera.

    Returns:
        Factors of the colour.  [H, W]
    """
    normal = buffers.normal[n]
    x, y, z = _points(buffers.depth[n], cameras, n)
    factor = sky(normal) * (1 - FEET * torch.exp(-y.clamp_min(0) / FEET_HEIGHT))
    slope = site.sun[0] / site.sun[1], site.sun[2] / site.sun[1]
    top = _read(tops, x - y * slope[0], z - y * slope[1], site)
    reached = 1 - ((top - y - ABOVE[0]) / ABOVE[1]).clamp(0, 1)
    facing = sum(normal[..., k] * site.sun[k] for k in range(3)).clamp_min(0)
    lit = reached * (facing / EDGE).clamp(max=1)
    return factor * (1 + site.strength * (BRIGHT * lit * facing - SHADED * (1 - lit)))


def sky(normal: Tensor) -> Tensor:
    """Brightness of a surface under an overcast sky.

    Args:
        normal: Unit normals, world.  [..., 3]

    Returns:
        Factors of the colour.  [...]
    """
    return 0.92 + 0.10 * normal[..., 1]


def _points(depth: Tensor, cameras: Cameras, n: int) -> list[Tensor]:
    """World coordinates of what the pixels of camera `n` show, [H, W] each; 0 = nothing."""
    pose, matrix, (height, width) = cameras.world_to_camera[n], cameras.intrinsics[n], depth.shape
    hit = depth.isfinite()
    depth = torch.where(hit, depth, 0.0)
    across = (torch.arange(width, device=depth.device) + 0.5 - matrix[0, 2]) / matrix[0, 0]
    down = (torch.arange(height, device=depth.device) + 0.5 - matrix[1, 2]) / matrix[1, 1]
    local = across[None, :] * depth - pose[0, 3], down[:, None] * depth - pose[1, 3]
    local = (*local, depth - pose[2, 3])
    return [
        torch.where(hit, sum(pose[row, axis] * local[row] for row in range(3)), 0.0)
        for axis in range(3)
    ]


def shadows(meshes: Sequence[Mesh], mesh: Tensor, places: Sequence[Place]) -> Shadows:
    """Shadow maps of each person.

    The body is projected onto the ground twice: along the sun for its cast shadow, and straight
    down for contact shadow and ambient occlusion.

    Args:
        meshes: People standing on y = 0.
        mesh: Index of the person at each place.  int64 [N]
        places: Light of each place.
    """
    sun = torch.tensor([site.sun for site in places], device=mesh.device)
    slope, middle = sun[:, None, [0, 2]] / sun[:, None, 1:2], _middle(sun)[:, None]
    groups, scale = by_mesh(meshes, mesh, len(places)), MAP / (2 * REACH)
    drawn = []
    for one, rows in groups:
        straight, height = one.vertices[:, [0, 2]], one.vertices[:, 1]
        foot = straight - height[:, None] * slope[rows]
        both = torch.cat([foot - middle[rows], straight - middle[rows]])
        # Drawn is what is nearest: the highest along the sun, the lowest straight down.
        near = torch.stack([TALL - height.clamp(0, TALL - 1), height.clamp_min(0) + 1])
        drawn.append((both * scale + MAP / 2, near.repeat_interleave(len(rows), 0), one.faces))
    fragments = rasterize(*map(list, zip(*drawn, strict=True)), (MAP, MAP))
    maps = torch.empty((2, len(places), MAP, MAP), device=mesh.device)
    depths = fragments.depth.split([2 * len(rows) for _, rows in groups])
    for (_, rows), depth in zip(groups, depths, strict=True):
        for n, cast, under in zip(rows.tolist(), *depth.chunk(2), strict=True):
            maps[0, n] = _brightness(cast, under - 1, places[n])
            maps[1, n] = (TALL - cast).clamp_min(0)
    return Shadows(*maps)


def _brightness(cast: Tensor, under: Tensor, site: Place) -> Tensor:
    """Brightness of the ground [MAP, MAP] from what is above it, along the sun and straight."""
    scale = MAP / (2 * REACH)
    shade = cast.isfinite().float()[None, None]
    shade = gaussian(shade, site.softness * scale)[0, 0]
    sole = gaussian(torch.exp(-under / CONTACT)[None, None], 0.03 * scale)[0, 0]
    sky = gaussian(torch.exp(-under / 0.9)[None, None], 0.22 * scale)[0, 0]
    return (1 - (AMBIENT + DIRECT * site.strength) * shade) * (1 - 0.5 * sole) * (1 - 0.4 * sky)


def _middle(sun: Tensor) -> Tensor:
    """Centre (x, z) of the shadow map on the ground, metres: [N, 3] -> [N, 2]."""
    return -0.5 * sun[:, [0, 2]] / sun[:, 1:2]


def lookup(ground: Tensor, x: Tensor, z: Tensor, site: Place) -> Tensor:
    """Brightness of ground points, 1 outside the map.

    Args:
        ground: Of `Shadows`.  [MAP, MAP]
        x: World x, metres.  [H, W]
        z: World z, metres.  [H, W]
        site: The place whose map it is.
    """
    return 1 - _read(1 - ground, x, z, site)


def _read(values: Tensor, x: Tensor, z: Tensor, site: Place) -> Tensor:
    """Values of a map at ground points, 0 outside."""
    middle = _middle(torch.tensor([site.sun]))[0].tolist()
    at = torch.stack([(x - middle[0]) / REACH, (z - middle[1]) / REACH], dim=-1)[None]
    return torch.nn.functional.grid_sample(values[None, None], at, align_corners=False)[0, 0]
