# SPDX-License-Identifier: Apache-2.0
"""The rasteriser of pytorch3d behind the call of `viewsynth.render.zbuffer`, for those who have it.

It snaps corners, leaves triangles out and draws both sides as `zbuffer` does, so the two agree on
triangle ids but for pixel centres that lie on an edge (pytorch3d has no rule for those) and for
depths that tie within float32.  Meant for a GPU: on a CPU it tests every pixel with every triangle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from viewsynth.render.zbuffer import SUBPIXEL, Fragments, check, snap


def rasterize(pixels: Tensor, depth: Tensor, faces: Tensor, size: tuple[int, int]) -> Fragments:
    """Draw N sets of vertices that share their triangles, each on its own canvas.

    Source: pytorch3d (Ravi et al., 2020, arXiv 2007.08501), `rasterize_meshes`.
    Args, Returns: as `zbuffer.rasterize`.

    Raises:
        ModuleNotFoundError: if pytorch3d is not installed.
        ValueError: as `zbuffer.rasterize`.
    """
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the pytorch3d backend needs pytorch3d, which cannot be imported ({error}); build it "
            "as its INSTALL.md says, or use the backend 'zbuffer', which needs nothing"
        ) from error
    check(pixels, depth, faces, size)
    steps, depth = snap(pixels.float(), depth.float())
    corners = torch.cat([to_ndc(steps / SUBPIXEL, size), depth[..., None]], dim=-1)
    triangles, kept = [], []
    for row in depth:
        kept.append((row[faces] > 0).all(1).nonzero()[:, 0])
        triangles.append(faces[kept[-1]])
    found, nearest, weights, _ = rasterize_meshes(
        Meshes(list(corners), triangles),
        image_size=size,
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=True,
        clip_barycentric_coords=False,
        cull_backfaces=False,
        bin_size=0,
    )
    found, hit = found[..., 0], found[..., 0] >= 0
    if not len(torch.cat(kept)):
        return _nothing(depth, size)
    # pytorch3d numbers the triangles of a whole batch; ours start anew with every mesh.
    face = torch.where(hit, torch.cat(kept)[found.clamp_min(0)], -1).int()
    return Fragments(
        face=face,
        bary=torch.where(hit[..., None], weights[..., 0, :], 0.0),
        depth=torch.where(hit, nearest[..., 0], torch.inf),
    )


def to_ndc(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Canvas pixels to pytorch3d's screen: x left, y up, the shorter side from -1 to 1. [..., 2]"""
    middle = torch.tensor([size[1] / 2, size[0] / 2], device=pixels.device)
    return (middle - pixels) * (2 / min(size))


def _nothing(depth: Tensor, size: tuple[int, int]) -> Fragments:
    shape = (len(depth), *size)
    return Fragments(
        face=torch.full(shape, -1, dtype=torch.int32, device=depth.device),
        bary=torch.zeros((*shape, 3), device=depth.device),
        depth=torch.full(shape, torch.inf, device=depth.device),
    )
