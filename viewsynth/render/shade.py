# SPDX-License-Identifier: Apache-2.0
"""Shading: per-pixel normals, texture coordinates, colour and seen values of textured meshes.

Rendering = `rasterize` of a backend, which is found by its module name, and then this module.
Texture convention: the texel at row r and column c of an H x W atlas has its centre at
u = (c + 0.5) / W, v = 1 - (r + 0.5) / H.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from viewsynth.cameras import Cameras

if TYPE_CHECKING:  # `meshes` imports this module
    from viewsynth.render.meshes import Mesh
    from viewsynth.render.zbuffer import Fragments

GROUP = {"cpu": 1 << 19, "cuda": 1 << 24}  # pixels shaded at once; on a CPU they fit its cache


@dataclass(frozen=True)
class Buffers:
    """Per-pixel buffers of N cameras. Without a triangle, `face` is -1, `depth` inf, the rest 0.

    Args:
        face: Index of the triangle, -1 = none.  int32 [N, H, W]
        depth: Depth along the optical axis, metres, inf = none.  float32 [N, H, W]
        bary: Perspective-correct barycentric coordinates.  float32 [N, H, W, 3]
        normal: Interpolated unit normal in the world frame, outward.  float32 [N, H, W, 3]
        uv: Texture coordinates.  float32 [N, H, W, 2]
        colour: RGB of the texture in [0, 1], without lighting.  float32 [N, H, W, 3]
        seen: Seen map of the surface, [0, 1].  float32 [N, H, W]
    """

    face: Tensor
    depth: Tensor
    bary: Tensor
    normal: Tensor
    uv: Tensor
    colour: Tensor
    seen: Tensor


def render(
    meshes: Sequence[Mesh], cameras: Cameras, mesh: Tensor, backend: str = "zbuffer"
) -> Buffers:
    """Render P textured meshes, of any topology and texture size, into N cameras.

    Args:
        meshes: The meshes, on one device.
        cameras: N cameras with one canvas size.
        mesh: Index of the mesh that each camera sees.  int64 [N]
        backend: Rasterizer, "zbuffer" or "pytorch3d".

    Returns:
        Buffers on the device of the meshes.

    Raises:
        ValueError: If the backend is unknown, or there is not one index of a mesh per camera.
    """
    rasterize = _backend(backend)
    groups = by_mesh(meshes, mesh, len(cameras))
    drawn = []
    for one, rows in groups:
        part = cameras.take(rows)
        drawn.append((*part.project(one.vertices.expand(len(rows), -1, -1)), one.faces))
    fragments = rasterize(*map(list, zip(*drawn, strict=True)), cameras.size)
    place = torch.cat([rows for _, rows in groups]).argsort()
    if bool((place.diff() < 0).any()):  # the copies take time
        fragments = type(fragments)(*(t[place] for t in vars(fragments).values()))
    planes = _planes(fragments, groups)
    return Buffers(
        face=fragments.face,
        depth=fragments.depth,
        bary=fragments.bary,
        normal=planes[:3].movedim(0, -1),
        uv=planes[3:5].movedim(0, -1),
        colour=planes[5:8].movedim(0, -1),
        seen=planes[8],
    )


def by_mesh(meshes: Sequence[Mesh], mesh: Tensor, cameras: int) -> list[tuple[Mesh, Tensor]]:
    """Group cameras by the mesh that they see.

    Args:
        meshes: P meshes.
        mesh: Index of the mesh of each camera.  int64 [N]
        cameras: N.

    Returns:
        Each mesh that is seen, with its cameras in ascending order, int64 [n].

    Raises:
        ValueError: If there is not one index of a mesh per camera.
    """
    if not (0 < len(mesh) == cameras and 0 <= int(mesh.min()) <= int(mesh.max()) < len(meshes)):
        raise ValueError(
            f"expected the index of one of {len(meshes)} meshes for each of {cameras} cameras, at "
            f"least one; got {mesh.tolist()[:9]}"
        )
    return [(meshes[k], (mesh == k).nonzero()[:, 0]) for k in mesh.unique().tolist()]


def _planes(fragments: Fragments, groups: list[tuple[Mesh, Tensor]]) -> Tensor:
    """The 9 channels of `_shaded` for all pixels, 0 without a triangle.  [9, N, H, W]."""
    # Channels first: scattering into one plane after the other is several times faster.
    count, height, width = fragments.face.shape
    area = height * width
    planes = torch.zeros((9, count * area), device=fragments.face.device)
    step = max(1, GROUP[planes.device.type] // area)
    flat_face, flat_bary = fragments.face.view(count, area), fragments.bary.view(-1)
    for one, members in groups:
        for rows in members.split(step):
            covered = (flat_face.index_select(0, rows) >= 0).view(-1).nonzero()[:, 0]
            shift = (rows - torch.arange(len(rows), device=rows.device)) * area
            where = covered + shift.index_select(0, torch.div(covered, area, rounding_mode="floor"))
            face = flat_face.view(-1).index_select(0, where).long()
            bary = [flat_bary.index_select(0, 3 * where + k) for k in range(3)]
            for plane, value in zip(planes, _shaded(one, face, bary), strict=True):
                plane.scatter_(0, where, value)
    return planes.view(9, count, height, width)


def _shaded(mesh: Mesh, face: Tensor, bary: list[Tensor]) -> list[Tensor]:
    """Normal (3), uv (2), colour (3) and seen value (1) of K pixels of a mesh: [K] each."""
    corners, uvs = mesh.corners
    at = [corner.index_select(0, face) for corner in corners]
    normal = [_mix(bary, [plane.index_select(0, i) for i in at]) for plane in mesh.normals.T]
    length = (normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2).sqrt().clamp_min(1e-12)
    uv = [_mix(bary, [corner.index_select(0, face) for corner in plane]) for plane in uvs]
    tall, wide = mesh.texels.shape
    colour = sample(mesh.texels, (1 - uv[1]) * tall - 0.5, uv[0] * wide - 0.5)
    return [n / length for n in normal] + uv + colour


def _mix(weights: list[Tensor], values: list[Tensor]) -> Tensor:
    return weights[0] * values[0] + weights[1] * values[1] + weights[2] * values[2]


def atlas(uvs: Tensor, face_uvs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Triangle and barycentric coordinates of each texel centre of an atlas.

    Args:
        uvs: Texture coordinates in [0, 1], v up.  [U, 2]
        face_uvs: Indices into `uvs`.  int64 [F, 3]
        size: Side of the atlas, T texels.

    Returns:
        Face index, int32 [T, T], -1 = none; barycentric coordinates, float32 [T, T, 3].
    """
    from viewsynth.render.zbuffer import rasterize

    pixels = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1) * size
    flat = rasterize(pixels[None], torch.ones_like(uvs[None, :, 0]), face_uvs, (size, size))
    return flat.face[0], flat.bary[0]


def sample(texels: Tensor, row: Tensor, column: Tensor) -> list[Tensor]:
    """Bilinear look-up in a uint8 image of four channels, with the border replicated.

    Args:
        texels: `Mesh.texels`, the four channels of a texel in one integer.  int32 [H, W]
        row: Row in texels, 0 = the centre of the first.  float32 [K]
        column: Column in texels, 0 = the centre of the first.  float32 [K]

    Returns:
        The four channels in [0, 1].  float32 [K] each
    """
    tall, wide = texels.shape
    packed = texels.reshape(-1)  # one look-up reads four channels
    row, column = row.clamp(0, tall - 1), column.clamp(0, wide - 1)
    top, left = row.floor(), column.floor()
    down, right = row - top, column - left
    first = top.long() * wide + left.long()
    under, beside = (top < tall - 1).long() * wide, (left < wide - 1).long()
    total: list[Tensor] = []
    for at, weight in (
        (first, (1 - down) * (1 - right)),
        (first + beside, (1 - down) * right),
        (first + under, down * (1 - right)),
        (first + under + beside, down * right),
    ):
        texel, weight = packed.index_select(0, at), weight / 255
        value = [((texel >> 8 * k) & 255) * weight for k in range(4)]
        total = [t + v for t, v in zip(total, value, strict=True)] if total else value
    return total


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted outward unit normals, summed in the same order on every device.

    Args:
        vertices: [P, V, 3].
        faces: int64 [F, 3].

    Returns:
        [P, V, 3]; zero for a vertex without a face.
    """
    count, number = vertices.shape[:2]
    rows = vertices.permute(1, 2, 0).reshape(number, -1)  # [V, 3P]: whole rows are gathered
    a, b, c = (rows.index_select(0, faces[:, k]).view(-1, 3, count) for k in range(3))
    u, w = b - a, c - a
    normal = torch.stack(
        [u[:, i] * w[:, j] - u[:, j] * w[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], dim=1
    )
    normal = normal.view(len(faces), -1)
    total = torch.zeros_like(rows)
    # The k-th face of all vertices at once, those with most faces first.
    vertex, order = faces.reshape(-1).int().sort(stable=True)
    around = vertex.bincount(minlength=number)
    most = around.argsort(descending=True, stable=True)
    first, face = (around.cumsum(0) - around)[most], torch.div(order, 3, rounding_mode="floor")
    for k, some in enumerate((number - around.bincount().cumsum(0)).tolist()):
        total[:some] += normal.index_select(0, face.index_select(0, first[:some] + k))
    total = total[most.argsort()].view(number, 3, count)
    x, y, z = total.unbind(1)
    length = (x * x + y * y + z * z).sqrt().clamp_min(1e-12)
    return (total / length[:, None]).permute(2, 0, 1)


def backends() -> list[str]:
    """Names of the rasterizer backends: the modules of `viewsynth.render` with a `rasterize`."""
    here = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in here if "\ndef rasterize(" in path.read_text("utf-8"))


def _backend(name: str):
    if name not in backends():
        raise ValueError(f"backend must be one of {', '.join(backends())}; got {name!r}")
    return importlib.import_module(f"viewsynth.render.{name}").rasterize
