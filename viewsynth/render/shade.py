# SPDX-License-Identifier: Apache-2.0
"""Shading: per-pixel normals, texture coordinates, colour and seen values of textured meshes.

Rendering = `rasterize` of a backend, which is found by its module name, and then this module.
Texture convention: the texel at row r and column c of a T x T atlas has its centre at
u = (c + 0.5) / T, v = 1 - (r + 0.5) / T.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from viewsynth.cameras import Cameras

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
    vertices: Tensor,
    faces: Tensor,
    cameras: Cameras,
    mesh: Tensor,
    uvs: Tensor,
    face_uvs: Tensor,
    texture: Tensor,
    seen: Tensor,
    backend: str = "zbuffer",
) -> Buffers:
    """Render P textured meshes of one topology into N cameras.

    Args:
        vertices: World, metres.  [P, V, 3]
        faces: Vertex indices, counter-clockwise seen from outside.  int64 [F, 3]
        cameras: N cameras with one canvas size.
        mesh: Index of the mesh that each camera sees.  int64 [N]
        uvs: Texture coordinates in [0, 1], v up.  [U, 2]
        face_uvs: Indices into `uvs`.  int64 [F, 3]
        texture: Colour atlas of each mesh.  uint8 [P, T, T, 3]
        seen: Seen map of each atlas, 255 = seen.  uint8 [P, T, T]
        backend: Rasterizer, "zbuffer" or "pytorch3d".

    Returns:
        Buffers on the device of the vertices.

    Raises:
        ValueError: If the backend is unknown or shapes do not match.
    """
    rasterize = _backend(backend)
    _check(vertices, faces, cameras, mesh, face_uvs, texture, seen)
    vertices, faces = _used(vertices, faces)
    pixels, depth = cameras.project(vertices.index_select(0, mesh))
    fragments = rasterize(pixels, depth, faces, cameras.size)
    source = _Source(vertices, faces, uvs, face_uvs, texture, seen)
    planes = _planes(fragments, mesh, source)
    return Buffers(
        face=fragments.face,
        depth=fragments.depth,
        bary=fragments.bary,
        normal=planes[:3].movedim(0, -1),
        uv=planes[3:5].movedim(0, -1),
        colour=planes[5:8].movedim(0, -1),
        seen=planes[8],
    )


def _planes(fragments, mesh: Tensor, source: _Source) -> Tensor:
    """The 9 channels of `_Source.shade` for all pixels, 0 without a triangle.  [9, N, H, W]."""
    # Channels first: scattering into one plane after the other is several times faster.
    count, height, width = fragments.face.shape
    area = height * width
    planes = torch.zeros((9, count * area), device=fragments.face.device)
    step = area * max(1, GROUP[planes.device.type] // area)
    flat_face, flat_bary = fragments.face.view(-1), fragments.bary.view(-1)
    for start in range(0, count * area, step):
        where = (flat_face[start : start + step] >= 0).nonzero()[:, 0] + start
        face = flat_face.index_select(0, where).long()
        bary = [flat_bary.index_select(0, 3 * where + k) for k in range(3)]
        person = mesh.index_select(0, torch.div(where, area, rounding_mode="floor"))
        for plane, value in zip(planes, source.shade(face, bary, person), strict=True):
            plane.scatter_(0, where, value)
    return planes.view(9, count, height, width)


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


def sample(image: Tensor, row: Tensor, column: Tensor, which: Tensor) -> list[Tensor]:
    """Bilinear look-up in uint8 images of four channels, with the border replicated.

    Args:
        image: P images.  uint8 [P, T, S, 4]
        row: Row in texels, 0 = the centre of the first.  float32 [K]
        column: Column in texels, 0 = the centre of the first.  float32 [K]
        which: Index of the image.  int64 [K]

    Returns:
        The four channels in [0, 1].  float32 [K] each
    """
    tall, wide = image.shape[1:3]
    packed = image.contiguous().view(torch.int32).view(-1)  # one look-up reads four channels
    row, column = row.clamp(0, tall - 1), column.clamp(0, wide - 1)
    top, left = row.floor(), column.floor()
    down, right = row - top, column - left
    first = (which * tall + top.long()) * wide + left.long()
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
    normal = torch.cat([normal.view(len(faces), -1), torch.zeros_like(rows[:1])])
    total = torch.zeros_like(rows)
    for around in _faces_around(faces, number):
        total += normal.index_select(0, around)
    x, y, z = total.view(number, 3, count).unbind(1)
    length = (x * x + y * y + z * z).sqrt().clamp_min(1e-12)
    return (total.view(number, 3, count) / length[:, None]).permute(2, 0, 1)


def _faces_around(faces: Tensor, number: int) -> Tensor:
    """The faces around each vertex, padded with F.

    Returns:
        int64 [largest number of faces around a vertex, V].
    """
    vertex, order = faces.reshape(-1).sort(stable=True)
    count = torch.bincount(vertex, minlength=number)
    first = count.cumsum(0) - count
    place = torch.arange(len(vertex), device=faces.device) - first[vertex]
    most = int(count.max()) if len(vertex) else 0
    table = torch.full((most, number), len(faces), dtype=torch.int64, device=faces.device)
    table[place, vertex] = torch.div(order, 3, rounding_mode="floor")
    return table


def _used(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The vertices that faces refer to, and the faces with renumbered indices."""
    used = torch.zeros(vertices.shape[1], dtype=torch.bool, device=faces.device)
    used[faces.reshape(-1)] = True
    return vertices[:, used], (used.long().cumsum(0) - 1)[faces]


class _Source:
    """Meshes and textures in a layout in which every look-up is one flat gather."""

    def __init__(self, vertices, faces, uvs, face_uvs, texture, seen):
        self.vertices = vertices.shape[1]
        self.normals = vertex_normals(vertices, faces).permute(2, 0, 1).reshape(3, -1)
        self.corners = faces.T.contiguous()
        self.uv = uvs.T[:, face_uvs].permute(2, 0, 1).contiguous()  # [3, 2, F]
        self.texture = torch.cat([texture, seen[..., None]], dim=-1)

    def shade(self, face: Tensor, bary: list[Tensor], person: Tensor) -> list[Tensor]:
        """Normal (3), uv (2), colour (3) and seen value (1) of K pixels: [K] each."""
        at = [c.index_select(0, face) + person * self.vertices for c in self.corners]
        normal = [_mix(bary, [plane.index_select(0, i) for i in at]) for plane in self.normals]
        length = (normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2).sqrt().clamp_min(1e-12)
        uv = [_mix(bary, [self.uv[k, i].index_select(0, face) for k in range(3)]) for i in (0, 1)]
        tall, wide = self.texture.shape[1:3]
        texels = sample(self.texture, (1 - uv[1]) * tall - 0.5, uv[0] * wide - 0.5, person)
        return [n / length for n in normal] + uv + texels


def _mix(weights: list[Tensor], values: list[Tensor]) -> Tensor:
    return weights[0] * values[0] + weights[1] * values[1] + weights[2] * values[2]


def backends() -> list[str]:
    """Names of the rasterizer backends: the modules of `viewsynth.render` with a `rasterize`."""
    here = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in here if "\ndef rasterize(" in path.read_text("utf-8"))


def _backend(name: str):
    if name not in backends():
        raise ValueError(f"backend must be one of {', '.join(backends())}; got {name!r}")
    return importlib.import_module(f"viewsynth.render.{name}").rasterize


def _check(vertices, faces, cameras, mesh, face_uvs, texture, seen) -> None:
    people = len(vertices)
    shapes = texture.shape[0] == people and seen.shape == texture.shape[:3]
    if not shapes or texture.dtype != torch.uint8:
        raise ValueError(
            f"textures must be uint8 [{people}, T, T, 3] with seen [{people}, T, T], "
            f"got {texture.dtype} {list(texture.shape)} and {list(seen.shape)}"
        )
    if faces.shape != face_uvs.shape:
        raise ValueError(
            f"faces and face_uvs must match, got {list(faces.shape)} and {list(face_uvs.shape)}"
        )
    known = not len(mesh) or 0 <= int(mesh.min()) <= int(mesh.max()) < people
    if mesh.shape != (len(cameras),) or not known:
        raise ValueError(
            f"mesh must hold an index in [0, {people - 1}] for each of {len(cameras)} cameras, "
            f"got {mesh.tolist()[:9]}"
        )
