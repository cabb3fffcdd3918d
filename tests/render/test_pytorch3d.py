# SPDX-License-Identifier: Apache-2.0
"""The pytorch3d backend agrees with the z-buffer, where pytorch3d is installed."""

import sys

import pytest
import torch

from viewsynth.render import pytorch3d as backend
from viewsynth.render import zbuffer


def ball(count=24):
    """A bumpy closed surface: pixels [2, V, 2], depth [2, V], faces [F, 3]."""
    a = torch.arange(count) / count * 2 * torch.pi
    b = (torch.arange(count) + 0.5) / count * torch.pi
    a, b = torch.meshgrid(a, b, indexing="ij")
    radius = 1 + 0.1 * torch.sin(5 * a) * torch.sin(3 * b)
    points = torch.stack([b.sin() * a.cos(), b.cos(), b.sin() * a.sin()], -1) * radius[..., None]
    points = points.view(1, -1, 3).repeat(2, 1, 1)
    points[1] = points[1, :, [2, 0, 1]] * 0.7
    depth = points[..., 2] + 4
    row = torch.arange(count)[:, None] * count
    after = (torch.arange(count)[:, None] + 1) % count * count
    column = torch.arange(count - 1)
    quads = [row + column, row + column + 1, after + column + 1, after + column]
    one, two, three, four = (q.reshape(-1) for q in quads)
    faces = torch.cat([torch.stack([one, two, three], 1), torch.stack([one, three, four], 1)])
    pixels = points[..., :2] / depth[..., None] * 90 + torch.tensor([21.3, 30.7])
    return pixels, depth, faces


@pytest.mark.parametrize("size", [(64, 40), (40, 64), (48, 48)])
def test_ids_and_depth_agree(size):
    pytest.importorskip("pytorch3d.renderer")
    pixels, depth, faces = ball()
    depth[1, :40] = -1  # skipped by both
    several = [pixels, pixels[:1] + 5], [depth, depth[:1]], [faces, faces.flip(0)[:300]]
    ours = zbuffer.rasterize(*several, size)
    theirs = backend.rasterize(*several, size)
    assert (ours.face >= 0).float().mean() > 0.2
    same = ours.face == theirs.face
    on_edge = (ours.face >= 0) & (ours.bary.amin(-1) < 1e-5)
    assert (same | on_edge).all() and on_edge.float().mean() < 0.01
    both = same & (ours.face >= 0)
    assert (ours.depth[both] - theirs.depth[both]).abs().max() < 1e-4
    assert (ours.bary[both] - theirs.bary[both]).abs().max() < 1e-2


def test_without_pytorch3d_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer.mesh.rasterize_meshes", None)
    pixels, depth, faces = ball(6)
    with pytest.raises(ModuleNotFoundError, match="use the backend 'zbuffer'"):
        backend.rasterize(pixels, depth, faces, (8, 8))
