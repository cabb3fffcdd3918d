# SPDX-License-Identifier: Apache-2.0
"""Meshes: the textured surfaces that the renderer draws, each with its own topology and texture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from viewsynth.render.shade import vertex_normals

# Type and shape of the fields of a mesh; a letter is a size that is the same wherever it stands.
LAYOUT = {
    "vertices": (torch.float32, ("V", 3)),
    "faces": (torch.int64, ("F", 3)),
    "uvs": (torch.float32, ("U", 2)),
    "face_uvs": (torch.int64, ("F", 3)),
    "texture": (torch.uint8, ("H", "W", 3)),
    "seen": (torch.uint8, ("H", "W")),
}


@dataclass(frozen=True, eq=False)
class Mesh:
    """A textured surface. Its tensors are on one device and must not be changed in place.

    Args:
        vertices: World, metres.  float32 [V, 3]
        faces: Vertex indices, counter-clockwise seen from outside.  int64 [F, 3]
        uvs: Texture coordinates in [0, 1], v up, see `shade`.  float32 [U, 2]
        face_uvs: Indices into `uvs`.  int64 [F, 3]
        texture: Colour atlas.  uint8 [H, W, 3]
        seen: Seen map of the atlas, 255 = seen.  uint8 [H, W]

    Raises:
        ValueError: If a field has another type, shape or device, is empty, or an index is out of
            range.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    face_uvs: Tensor
    texture: Tensor
    seen: Tensor

    def __post_init__(self):
        sizes: dict = {2: 2, 3: 3}  # a number in `LAYOUT` is that size
        for name, (dtype, dims) in LAYOUT.items():
            if not isinstance(found := getattr(self, name), Tensor):
                raise ValueError(f"mesh: {name} must be a tensor, got {type(found).__name__}")
            shape, device = list(found.shape), self.vertices.device
            known = dict(zip(dims, shape, strict=False)) | sizes
            expected = (dtype, device, [known.get(size) for size in dims])
            if (found.dtype, found.device, shape) != expected or 0 in shape:
                text = ", ".join(str(sizes.get(size, size)) for size in dims)
                raise ValueError(
                    f"mesh: {name} must be {dtype} [{text}] on {device} and not empty, got "
                    f"{found.dtype} {shape} on {found.device}"
                )
            sizes = known
        for name, table in (("faces", "vertices"), ("face_uvs", "uvs")):
            index, count = getattr(self, name), len(getattr(self, table))
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= count:
                raise ValueError(
                    f"mesh: {name} must index the {count} {table}, from 0; got {low}..{high}"
                )

    @cached_property
    def points(self) -> Tensor:
        """The vertices of the faces, without those that no face refers to.  float32 [N, 3]."""
        used = torch.zeros(len(self.vertices), dtype=torch.bool, device=self.faces.device)
        used[self.faces.reshape(-1)] = True
        return self.vertices[used]

    @cached_property
    def normals(self) -> Tensor:
        """Outward unit normal of each vertex, see `shade.vertex_normals`.  float32 [V, 3]."""
        planes = vertex_normals(self.vertices[None], self.faces)[0].T.contiguous()
        return planes.T  # `shade` reads one coordinate after the other

    @cached_property
    def corners(self) -> tuple[Tensor, list[list[Tensor]]]:
        """Vertex of each corner of the faces, [3, F], and u and v of each corner, [F] each."""
        uvs = [[plane.index_select(0, k) for k in self.face_uvs.T] for plane in self.uvs.T]
        return self.faces.T.contiguous(), uvs

    @cached_property
    def texels(self) -> Tensor:
        """Colour and seen value of each texel, packed for `shade.sample`.  int32 [H, W]."""
        layers = torch.cat([self.texture, self.seen[..., None]], dim=-1)
        return layers.view(torch.int32)[..., 0]
