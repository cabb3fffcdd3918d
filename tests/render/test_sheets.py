# SPDX-License-Identifier: Apache-2.0
"""Nearest and farthest surfaces against brute force, and holes that are closed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth.render import sheets, zbuffer

SIZE = (24, 20)


def soup(seed, count=40):
    """Random triangles in front of a camera."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.uniform(-4, 26, (1, 3 * count, 2)).astype(np.float32))
    depth = torch.from_numpy(rng.uniform(0.5, 9, (1, 3 * count)).astype(np.float32))
    return pixels, depth, torch.arange(3 * count).view(-1, 3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_farthest_is_the_deepest_of_all_triangles_drawn_alone(seed):
    pixels, depth, faces = soup(seed)
    alone = [zbuffer.rasterize(pixels, depth, face[None], SIZE) for face in faces]
    every = torch.cat([torch.where(one.face < 0, -1.0, one.depth) for one in alone])
    deepest, which = every.max(0)
    found = zbuffer.farthest(pixels, depth, faces, SIZE)
    hit = found.face[0] >= 0
    assert torch.equal(hit, deepest > 0) and bool(torch.isinf(found.depth[0][~hit]).all())
    torch.testing.assert_close(found.depth[0][hit], deepest[hit], rtol=1e-5, atol=0)
    clear = hit & (every.topk(2, 0).values.diff(dim=0)[0] < -1e-3)  # no tie
    assert torch.equal(found.face[0][clear].long(), which[clear])
    bary = torch.stack([one.bary[0] for one in alone])[which, *np.indices(SIZE)]
    torch.testing.assert_close(found.bary[0][clear], bary[clear], rtol=0, atol=2e-5)


def test_farthest_skips_what_is_behind_the_camera():
    pixels, depth, faces = soup(3)
    depth[0, :6] = torch.tensor([-1.0, 2, 2, 0.0, 3, torch.inf])
    rest = zbuffer.farthest(pixels, depth, faces[2:], SIZE)
    every = zbuffer.farthest(pixels, depth, faces, SIZE)
    assert torch.equal(rest.depth, every.depth)


def ball(without=None):
    """Vertices and outward triangles of a sphere of radius 8 at depth 20, less some faces."""
    rows, around = 24, 48
    latitude = np.linspace(0, np.pi, rows + 1)[:, None]
    longitude = np.arange(around)[None] * 2 * np.pi / around
    at = np.stack(
        [
            np.sin(latitude) * np.cos(longitude),
            -np.cos(latitude) + 0 * longitude,
            np.sin(latitude) * np.sin(longitude),
        ],
        -1,
    ).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rows), np.arange(around), indexing="ij")
    a, b = i * around + j, i * around + (j + 1) % around
    faces = np.concatenate(
        [np.stack(t, -1).reshape(-1, 3) for t in ((a, b, b + around), (a, b + around, a + around))]
    )
    out = np.cross(at[faces[:, 1]] - at[faces[:, 0]], at[faces[:, 2]] - at[faces[:, 0]])
    inward = (out * at[faces].mean(1)).sum(1) < 0
    faces[inward] = faces[inward][:, ::-1]
    if without is not None:
        faces = faces[~without(at[faces].mean(1))]
    scaled = torch.from_numpy(8 * at).float()
    return scaled[None, :, :2] + 12.0, scaled[None, :, 2] + 20, torch.from_numpy(faces.copy())


@pytest.mark.parametrize("both", [False, True], ids=["in front", "through"])
def test_holes_are_closed_smoothly(both):
    def inside(at):
        hole = np.hypot(at[:, 0], at[:, 1]) < 0.4
        return hole if both else hole & (at[:, 2] < 0)

    size, cover = (24, 24), np.ones((1, 24, 24), bool)
    whole, cut = ball(), ball(inside)
    true = sheets.depths(sheets.draw(*whole, size))
    pair = sheets.draw(*cut, size)
    opened = sheets.depths(pair)
    found = sheets.closed(pair, cut[0], cut[2], cover)
    middle = np.hypot(*(np.indices(size) - 11.5)) < 2.5
    gap = np.abs(opened - true)[0, :, middle]
    assert np.isnan(gap).any() or gap.max() > 10  # there is a hole
    np.testing.assert_array_equal(np.isnan(found), np.isnan(true))
    assert np.nanmax(np.abs(found - true)) < 1.2  # flat over the cap of the sphere
    outside = np.hypot(*(np.indices(size) - 11.5)) > 5
    np.testing.assert_array_equal(found[..., outside], true[..., outside])


def test_gaps_that_nothing_covers_stay_open():
    cut = ball(lambda at: np.hypot(at[:, 0], at[:, 1]) < 0.4)
    pair = sheets.draw(*cut, (24, 24))
    found = sheets.closed(pair, cut[0], cut[2], np.zeros((1, 24, 24), bool))
    assert np.isnan(found[0, :, 11:13, 11:13]).all()


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_a_pixel_has_both_sheets_or_none(seed, count):
    pixels, depth, faces = soup(seed, count)  # some face away alone: nothing surrounds their hole
    found = sheets.closed(
        sheets.draw(pixels, depth, faces, SIZE), pixels, faces, np.ones((1, *SIZE), bool)
    )
    assert not np.isinf(found).any()
    np.testing.assert_array_equal(*np.isnan(found).transpose(1, 0, 2, 3))
