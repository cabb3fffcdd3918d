# SPDX-License-Identifier: Apache-2.0
"""The z-buffer against a slow and simple reference implementation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth.render import zbuffer
from viewsynth.render.zbuffer import NEAR, SUBPIXEL, rasterize


def slow(pixels, depth, faces, size):
    """One mesh, one pixel and one triangle at a time, in integers."""
    face = np.full(size, -1, np.int32)
    bary = np.zeros((*size, 3), np.float32)
    nearest = np.full(size, np.inf, np.float32)
    grid = np.rint(np.float32(pixels) * np.float32(SUBPIXEL))
    for row in range(size[0]):
        for column in range(size[1]):
            px, py = (2 * column + 1) * SUBPIXEL // 2, (2 * row + 1) * SUBPIXEL // 2
            for number, corners in enumerate(faces):
                z = [float(depth[c]) for c in corners]
                if not all(np.isfinite(v) and v > np.float32(NEAR) for v in z):
                    continue
                (ax, ay), (bx, by), (cx, cy) = ((int(grid[c][0]), int(grid[c][1])) for c in corners)
                edges = [(bx, by, cx, cy), (cx, cy, ax, ay), (ax, ay, bx, by)]
                area = (cx - bx) * (ay - cy) - (cy - by) * (ax - cx)
                sign = (area > 0) - (area < 0)
                share = []
                for x0, y0, x1, y1 in edges:
                    dx, dy = sign * (x1 - x0), sign * (y1 - y0)
                    value = dx * (py - y0) - dy * (px - x0)
                    owned = dy < 0 or (dy == 0 and dx > 0)
                    share.append(value if value > 0 or (value == 0 and owned) else None)
                if not area or None in share:
                    continue
                share = [s / v for s, v in zip(share, z, strict=True)]
                total = share[0] + share[1] + share[2]
                here = np.float32(abs(area) / total)
                if here < nearest[row, column]:
                    nearest[row, column], face[row, column] = here, number
                    bary[row, column] = [s / total for s in share]
    return face, bary, nearest


def agree(pixels, depth, faces, size):
    pixels, depth = torch.as_tensor(pixels), torch.as_tensor(depth)
    fast = rasterize(pixels[None], depth[None], torch.as_tensor(faces).view(-1, 3), size)
    face, bary, nearest = slow(
        pixels.numpy(), depth.numpy(), np.asarray(faces).reshape(-1, 3), size
    )
    np.testing.assert_array_equal(fast.face[0].numpy(), face)
    np.testing.assert_array_equal(fast.depth[0].numpy(), nearest)
    np.testing.assert_array_equal(fast.bary[0].numpy(), bary)
    return fast


def soup(count, vertices, size, seed=0, spread=1.3):
    rng = np.random.default_rng(seed)
    pixels = (rng.random((vertices, 2)) * spread - (spread - 1) / 2) * [size[1], size[0]]
    depth = rng.uniform(0.5, 3, vertices)
    return (
        pixels.astype(np.float32),
        depth.astype(np.float32),
        rng.integers(0, vertices, (count, 3)),
    )


@pytest.mark.parametrize("size", [(9, 14), (14, 9), (1, 1), (16, 3)])
def test_soup_of_triangles(size):
    agree(*soup(40, 30, size), size)


def test_small_triangles_of_every_bucket():
    rng = np.random.default_rng(1)
    centre = rng.uniform(-1, 20, (150, 1, 2))
    corners = centre + rng.normal(0, 1, (150, 3, 2)) * rng.uniform(0.1, 5, (150, 1, 1))
    depth = rng.uniform(1, 2, 450).astype(np.float32)
    pixels = corners.reshape(-1, 2).astype(np.float32)
    agree(pixels, depth, np.arange(450).reshape(-1, 3), (18, 20))


grid = st.integers(-8, 40).map(
    lambda v: v / 4
)  # quarters: pixel centres on edges and vertices occur
free = st.floats(-3, 12, width=32)
metres = st.sampled_from([1.0, 1.0, 2.0, 3.5, 0.0, -1.0, float("nan"), float("inf")])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(grid | free, grid | free, metres), min_size=3, max_size=8), st.data())
def test_any_triangles(points, data):
    index = st.integers(0, len(points) - 1)
    faces = data.draw(st.lists(st.tuples(index, index, index), min_size=1, max_size=6))
    table = np.float32(points)
    agree(table[:, :2].copy(), table[:, 2].copy(), faces, (8, 9))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(grid, grid), min_size=4, max_size=4))
def test_neighbours_share_no_pixel_and_leave_no_gap(corners):
    """Two triangles on the two sides of an edge cover each pixel between them once."""
    pixels = torch.tensor(corners)[None]
    depth = torch.ones(1, 4)
    a = rasterize(pixels, depth, torch.tensor([[0, 1, 2]]), (9, 9)).face[0] >= 0
    b = rasterize(pixels, depth, torch.tensor([[0, 2, 3]]), (9, 9)).face[0] >= 0

    def side(p):  # of the shared edge 0-2
        x, y = pixels[0, 2] - pixels[0, 0]
        return torch.sign(x * (p[1] - pixels[0, 0, 1]) - y * (p[0] - pixels[0, 0, 0]))

    if side(pixels[0, 1]) * side(pixels[0, 3]) < 0:
        assert not (a & b).any()
        for row, column in (~a & ~b).nonzero().tolist():
            centre = torch.tensor([column + 0.5, row + 0.5])
            inside = side(centre) == 0 and (pixels[0, 0] - centre).dot(pixels[0, 2] - centre) < 0
            assert not inside, "a pixel centre on the shared edge is covered by neither triangle"


def test_at_equal_depth_the_lower_face_index_wins():
    pixels = torch.tensor([[[0.0, 0], [8, 0], [0, 8]]]).repeat(1, 2, 1)
    faces = torch.tensor([[3, 4, 5], [0, 1, 2]])
    assert set(rasterize(pixels, torch.ones(1, 6), faces, (8, 8)).face.unique().tolist()) == {-1, 0}


def test_nearest_wins_where_planes_cross():
    pixels = torch.tensor(
        [[[0.0, 0], [16, 0], [0, 16], [16, 16], [0, 0], [16, 0], [0, 16], [16, 16]]]
    )
    depth = torch.tensor([[1.0, 3, 1, 3, 3, 1, 3, 1]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [4, 5, 6], [5, 7, 6]])
    face = rasterize(pixels, depth, faces, (16, 16)).face[0]
    assert (face[:, :7] < 2).all() and (face[:, 9:] >= 2).all()


def test_weights_are_perspective_correct():
    """Interpolated world points project back onto their pixel centres."""
    points = torch.tensor([[-1.0, -1, 2], [2, -0.5, 6], [-0.5, 1.5, 3]])
    pixels = points[:, :2] / points[:, 2:] * 30 + 20
    out = rasterize(pixels[None], points[None, :, 2], torch.tensor([[0, 1, 2]]), (40, 40))
    row, column = (out.face[0] >= 0).nonzero().unbind(1)
    hit = out.bary[0, row, column] @ points
    back = hit[:, :2] / hit[:, 2:] * 30 + 20
    centre = torch.stack([column, row], 1) + 0.5
    assert len(row) > 50
    assert (back - centre).abs().max() < 5e-3
    assert (hit[:, 2] - out.depth[0, row, column]).abs().max() < 1e-4


def test_a_row_of_a_batch_is_the_same_alone(monkeypatch):
    size = (32, 24)
    rows = [soup(300, 200, size, seed) for seed in range(7)]
    pixels = torch.stack([torch.from_numpy(r[0]) for r in rows])
    depth = torch.stack([torch.from_numpy(r[1]) for r in rows])
    faces = torch.from_numpy(rows[0][2])
    batch = rasterize(pixels, depth, faces, size)
    monkeypatch.setitem(zbuffer.CHUNK, "cpu", 700)
    monkeypatch.setitem(zbuffer.TILE, "cpu", 90)
    chunked = rasterize(pixels, depth, faces, size)
    for i in range(len(rows)):
        alone = rasterize(pixels[i : i + 1], depth[i : i + 1], faces, size)
        for name in ("face", "bary", "depth"):
            assert torch.equal(getattr(batch, name)[i], getattr(alone, name)[0])
            assert torch.equal(getattr(batch, name)[i], getattr(chunked, name)[i])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=5),
    st.sampled_from([1, 60, 1 << 19]),
)
def test_meshes_of_any_topology_together_are_the_same_alone(counts, chunk):
    """Each mesh with a number of views and of triangles, in one call or one after the other."""
    size, meshes = (14, 11), []
    for seed, (views, triangles) in enumerate(counts):
        tables = [soup(triangles, 5 + seed, size, 10 * seed + k) for k in range(max(1, views))]
        pixels, depth = (np.stack([t[i] for t in tables])[:views] for i in (0, 1))
        meshes.append([torch.from_numpy(t) for t in (pixels, depth, tables[0][2])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zbuffer.CHUNK, "cpu", chunk)
        together = rasterize(*map(list, zip(*meshes, strict=True)), size)
    alone = [rasterize(*mesh, size) for mesh in meshes]
    for name in ("face", "bary", "depth"):
        expected = torch.cat([getattr(one, name) for one in alone])
        assert torch.equal(getattr(together, name), expected)


def test_triangles_with_a_near_or_far_vertex_are_skipped():
    pixels = torch.tensor([[[0.0, 0], [8, 0], [0, 8]]])
    faces = torch.tensor([[0, 1, 2]])
    for corner in (0.0, NEAR, -1.0, float("nan"), float("inf")):
        out = rasterize(pixels, torch.tensor([[1.0, corner, 1.0]]), faces, (8, 8))
        assert (out.face == -1).all() and out.depth.isinf().all() and (out.bary == 0).all()
    away = pixels.clone()
    away[0, 1, 0] = 1e9
    assert (rasterize(away, torch.ones(1, 3), faces, (8, 8)).face == -1).all()


def test_no_triangles_and_no_views():
    empty = torch.zeros((0, 3), dtype=torch.int64)
    assert (rasterize(torch.zeros(2, 3, 2), torch.ones(2, 3), empty, (4, 5)).face == -1).all()
    none = rasterize(torch.zeros(0, 3, 2), torch.ones(0, 3), torch.tensor([[0, 1, 2]]), (4, 5))
    assert none.face.shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("faces", "size", "message"),
    [
        ([[0, 1, 3]], (4, 4), "faces must index"),
        ([[0, 1, 2]], (0, 4), "canvas"),
        ([[0, 1, 2]], (4, 9000), "canvas"),
    ],
)
def test_bad_input(faces, size, message):
    with pytest.raises(ValueError, match=message):
        rasterize(torch.zeros(1, 3, 2), torch.ones(1, 3), torch.tensor(faces), size)


def test_lists_must_match():
    pixels, depth, faces = torch.zeros(1, 3, 2), torch.ones(1, 3), torch.tensor([[0, 1, 2]])
    with pytest.raises(ValueError, match="one entry per mesh, at least one; got 2, 2 and 1"):
        rasterize([pixels] * 2, [depth] * 2, [faces], (4, 4))
    with pytest.raises(ValueError, match="at least one; got 0, 0 and 0"):
        rasterize([], [], [], (4, 4))
    with pytest.raises(ValueError, match=r"got \[1, 3, 2\] and \[1, 4\]"):
        rasterize([pixels] * 2, [depth, torch.ones(1, 4)], [faces] * 2, (4, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_agrees():
    size = (64, 48)
    pixels, depth, faces = (torch.from_numpy(t) for t in soup(500, 300, size))
    here = rasterize(pixels[None], depth[None], faces, size)
    there = rasterize(pixels[None].cuda(), depth[None].cuda(), faces.cuda(), size)
    assert torch.equal(here.face, there.face.cpu())
    assert torch.equal(here.depth, there.depth.cpu())
