# SPDX-License-Identifier: Apache-2.0
"""Rasterizer backend that calls pytorch3d, with the interface of `viewsynth.render.zbuffer`.

Vertices are snapped and triangles are skipped as in `zbuffer`, and both sides are drawn. The two
backends therefore agree on triangle ids, except at pixel centres that lie on an edge (pytorch3d
has no rule for those) and where depths are equal within float32. Meant for a GPU: on a CPU,
pytorch3d tests every pixel against every triangle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from viewsynth.render.zbuffer import SUBPIXEL, Fragments, check, snap


def rasterize(pixels, depth, faces, size: tuple[int, int]) -> Fragments:
    """Rasterize N sets of vertices of one or several meshes, each onto its own canvas.

    Source: pytorch3d (Ravi et al., 2020, arXiv 2007.08501), `rasterize_meshes`.

    Args:
        pixels: See `zbuffer.rasterize`.
        depth: See `zbuffer.rasterize`.
        faces: See `zbuffer.rasterize`.
        size: See `zbuffer.rasterize`.

    Returns:
        See `zbuffer.rasterize`.

    Raises:
        ModuleNotFoundError: If pytorch3d is not installed.
        ValueError: See `zbuffer.rasterize`.
    """
    try:
        from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the pytorch3d backend cannot import pytorch3d ({error}); build it as its INSTALL.md "
            "says, or use the backend 'zbuffer', which has no further dependency"
        ) from error
    corners, drawn, kept = [], [], []
    for points, z, triangles in check(pixels, depth, faces, size):
        steps, z = snap(points.float(), z.float())
        corners += torch.cat([to_ndc(steps / SUBPIXEL, size), z[..., None]], dim=-1)
        some = [(row[triangles] > 0).all(1).nonzero()[:, 0] for row in z]
        kept, drawn = kept + some, drawn + [triangles[k] for k in some]
    found, nearest, weights, _ = rasterize_meshes(
        Meshes(corners, drawn),
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
        return _empty((len(corners), *size), found.device)
    # pytorch3d numbers the triangles of the whole batch; `Fragments` numbers those of each mesh.
    face = torch.where(hit, torch.cat(kept)[found.clamp_min(0)], -1).int()
    return Fragments(
        face=face,
        bary=torch.where(hit[..., None], weights[..., 0, :], 0.0),
        depth=torch.where(hit, nearest[..., 0], torch.inf),
    )


def to_ndc(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Canvas pixels to pytorch3d's screen: x left, y up, the shorter side spans [-1, 1].

    Args:
        pixels: [..., 2].
        size: Canvas (height, width), pixels.
    """
    middle = torch.tensor([size[1] / 2, size[0] / 2], device=pixels.device)
    return (middle - pixels) * (2 / min(size))


def _empty(shape: tuple[int, ...], device: torch.device) -> Fragments:
    return Fragments(
        face=torch.full(shape, -1, dtype=torch.int32, device=device),
        bary=torch.zeros((*shape, 3), device=device),
        depth=torch.full(shape, torch.inf, device=device),
    )
