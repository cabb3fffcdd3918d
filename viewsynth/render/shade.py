# SPDX-License-Identifier: Apache-2.0
"""Shade: from triangles, cameras and textures to per-pixel normals, uv, colour and seen values.

The second half of rendering; the first (`rasterize`) is a backend, found by its module name.
Texture convention: the texel (row r, column c) of a T x T atlas has its centre at
u = (c + 0.5) / T, v = 1 - (r + 0.5) / T.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from viewsynth.cameras import Cameras

GROUP = {"cpu": 1 << 19, "cuda": 1 << 24}  # pixels that are shaded at once, for the CPU's cache


@dataclass(frozen=True)
class Buffers:
    """What N cameras see, pixel by pixel. Channels come last; off the meshes all but depth are 0.

    Args:
        face: Index of the triangle, -1 = none.  int32 [N, H, W]
        depth: Along the optical axis, metres, inf = none.  float32 [N, H, W]
        bary: Perspective correct weights of the triangle's corners.  float32 [N, H, W, 3]
        normal: Smooth unit normal in the world frame, outward.  float32 [N, H, W, 3]
        uv: Texture coordinates.  float32 [N, H, W, 2]
        colour: RGB of the texture in [0, 1], no light added.  float32 [N, H, W, 3]
        seen: How much of the surface was really seen, [0, 1].  float32 [N, H, W]
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
    """Draw P textured meshes of one topology into N cameras.

    Args:
        vertices: World, metres.  [P, V, 3]
        faces: Vertex indices, counter-clockwise seen from outside.  int64 [F, 3]
        cameras: N cameras on one canvas size.
        mesh: Which of the P meshes each camera sees.  int64 [N]
        uvs: Texture coordinates in [0, 1], v up.  [U, 2]
        face_uvs: Indices into `uvs`.  int64 [F, 3]
        texture: Colour atlas of each mesh.  uint8 [P, T, T, 3]
        seen: Seen map of each atlas, 255 = seen.  uint8 [P, T, T]
        backend: "zbuffer" or "pytorch3d".
    Returns: Buffers on the device of the vertices.
    Raises: ValueError: if the backend is unknown or shapes do not fit.
    """
    rasterize = _backend(backend)
    _check(vertices, faces, cameras, mesh, uvs, face_uvs, texture, seen)
    vertices, faces = _used(vertices, faces)
    pixels, depth = cameras.project(vertices.index_select(0, mesh))
    found = rasterize(pixels, depth, faces, cameras.size)
    source = _Source(vertices, faces, uvs, face_uvs, texture, seen)
    # Planes in memory, channels last to the eye: scattering single values is several times faster.
    area = cameras.size[0] * cameras.size[1]
    planes = torch.zeros((9, len(cameras) * area), device=vertices.device)
    step = area * max(1, GROUP[vertices.device.type] // area)
    flat_face, flat_bary = found.face.view(-1), found.bary.view(-1)
    for start in range(0, planes.shape[1], step):
        where = (flat_face[start : start + step] >= 0).nonzero()[:, 0] + start
        face = flat_face.index_select(0, where).long()
        bary = [flat_bary.index_select(0, 3 * where + k) for k in range(3)]
        person = mesh.index_select(0, torch.div(where, area, rounding_mode="floor"))
        for plane, value in zip(planes, source.shade(face, bary, person), strict=True):
            plane.scatter_(0, where, value)
    planes = planes.view(9, *found.face.shape)
    return Buffers(
        face=found.face,
        depth=found.depth,
        bary=found.bary,
        normal=planes[:3].movedim(0, -1),
        uv=planes[3:5].movedim(0, -1),
        colour=planes[5:8].movedim(0, -1),
        seen=planes[8],
    )


def atlas(uvs: Tensor, face_uvs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which triangle covers each texel centre of an atlas, and where in it.

    Args:
        uvs: Texture coordinates in [0, 1], v up.  [U, 2]
        face_uvs: Indices into `uvs`.  int64 [F, 3]
        size: Texels along a side, T.
    Returns: face int32 [T, T] (-1 = none), weights of its corners float32 [T, T, 3].
    """
    from viewsynth.render.zbuffer import rasterize

    pixels = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=1) * size
    flat = rasterize(pixels[None], torch.ones_like(uvs[None, :, 0]), face_uvs, (size, size))
    return flat.face[0], flat.bary[0]


def sample(image: Tensor, row: Tensor, column: Tensor, which: Tensor) -> list[Tensor]:
    """Bilinear look-up in uint8 images of four channels; beyond the border the border goes on.

    Args:
        image: uint8 [P, T, S, 4]
        row, column: Position in texels, 0 = the centre of the first.  float32 [K]
        which: Which of the P images.  int64 [K]
    Returns: the four channels in [0, 1].  float32 [K] each
    """
    tall, wide = image.shape[1:3]
    packed = image.contiguous().view(torch.int32).view(-1)  # one look-up brings four channels
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
    """Outward unit normals, area weighted, summed in one order on every device.

    Args:
        vertices: [P, V, 3].
        faces: int64 [F, 3].
    Returns: [P, V, 3]; zero where a vertex has no face.
    """
    count, number = vertices.shape[:2]
    rows = vertices.permute(1, 2, 0).reshape(number, -1)  # [V, 3P]: whole rows move at once
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
    """The faces at each vertex, padded with F.  int64 [most faces at a vertex, V]"""
    vertex, order = faces.reshape(-1).sort(stable=True)
    count = torch.bincount(vertex, minlength=number)
    first = count.cumsum(0) - count
    place = torch.arange(len(vertex), device=faces.device) - first[vertex]
    most = int(count.max()) if len(vertex) else 0
    table = torch.full((most, number), len(faces), dtype=torch.int64, device=faces.device)
    table[place, vertex] = torch.div(order, 3, rounding_mode="floor")
    return table


def _used(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The vertices that some face uses, and the faces renumbered to them."""
    used = torch.zeros(vertices.shape[1], dtype=torch.bool, device=faces.device)
    used[faces.reshape(-1)] = True
    return vertices[:, used], (used.long().cumsum(0) - 1)[faces]


class _Source:
    """Meshes and textures laid out so that every look-up is one flat gather."""

    def __init__(self, vertices, faces, uvs, face_uvs, texture, seen):
        self.vertices = vertices.shape[1]
        self.normals = vertex_normals(vertices, faces).permute(2, 0, 1).reshape(3, -1)
        self.corners = faces.T.contiguous()
        self.uv = uvs.T[:, face_uvs].permute(2, 0, 1).contiguous()  # [3, 2, F]
        self.texture = torch.cat([texture, seen[..., None]], dim=-1)

    def shade(self, face: Tensor, bary: list[Tensor], person: Tensor) -> list[Tensor]:
        """Normal (3), uv (2), colour (3) and seen of K pixels.  [K] each"""
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
    """The rasterisers that there are: the modules of `viewsynth.render` that define `rasterize`."""
    here = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in here if "\ndef rasterize(" in path.read_text("utf-8"))


def _backend(name: str):
    if name not in backends():
        raise ValueError(f"backend must be one of {', '.join(backends())}; got {name!r}")
    return importlib.import_module(f"viewsynth.render.{name}").rasterize


def _check(vertices, faces, cameras, mesh, uvs, face_uvs, texture, seen) -> None:
    people = len(vertices)
    if (
        texture.shape[0] != people
        or seen.shape != texture.shape[:3]
        or texture.dtype != torch.uint8
    ):
        raise ValueError(
            f"textures must be uint8 [{people}, T, T, 3] with seen [{people}, T, T], "
            f"got {texture.dtype} {list(texture.shape)} and {list(seen.shape)}"
        )
    if faces.shape != face_uvs.shape:
        raise ValueError(
            f"faces and face_uvs must match, got {list(faces.shape)} and {list(face_uvs.shape)}"
        )
    if mesh.shape != (len(cameras),) or (
        len(mesh) and not 0 <= int(mesh.min()) <= int(mesh.max()) < people
    ):
        raise ValueError(
            f"mesh must name one of {people} meshes for each of {len(cameras)} cameras"
        )
