# SPDX-License-Identifier: Apache-2.0
"""Sheets of a person against rays that are cast through all triangles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from viewsynth import cameras
from viewsynth.world import LABELS, sheets, shots
from viewsynth.world.sheets import KINDS

SIZE = (64, 40)


def camera(elevation=10.0, azimuth=40.0, size=SIZE):
    angle = [torch.tensor([v]) for v in (elevation, azimuth, 6.0, 0.85)]
    focal = torch.tensor([size[0] / 2.1 * 6.0])
    return cameras.Cameras(cameras.orbit(*angle), cameras.pinhole(focal, size), size)


def person(number=3):
    shot = shots.SimpleShot(name="any", elevation=10, azimuth=40, moment="now")
    rendered = shots.render_one(number, 0, shot)
    return shots.dressed(0, number, rendered.shot)


def cast(one, view, row, column):
    """Depths of all triangles along the ray through a pixel's centre, and the triangles."""
    matrix = view.intrinsics[0].double().numpy()
    pose = view.world_to_camera[0].double().numpy()
    ray = np.linalg.inv(matrix) @ [column + 0.5, row + 0.5, 1.0]
    corner = (one.vertices @ pose[:3, :3].T + pose[:3, 3])[one.faces]
    a, ab, ac = corner[:, 0], corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    p = np.cross(ray, ac)
    determinant = (ab * p).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (-a * p).sum(1) / determinant
        q = np.cross(-a, ab)
        v, depth = (ray * q).sum(1) / determinant, (ac * q).sum(1) / determinant
    hit = np.flatnonzero((u >= 0) & (v >= 0) & (u + v <= 1))
    return depth[hit], hit


@pytest.fixture(scope="module")
def drawn():
    one, view = person(), camera()
    return one, view, sheets.draw(one, view)


def test_depths_are_those_of_cast_rays(drawn):
    one, view, found = drawn
    rng, misses = np.random.default_rng(0), 0
    for row, column in zip(rng.integers(0, 64, 150), rng.integers(0, 40, 150), strict=True):
        depth, _ = cast(one, view, row, column)
        own = found.depth[:, row, column]
        if np.isnan(own).all() != (len(depth) == 0):
            misses += 1  # a ray along an outline: vertices are snapped to 1/1024 pixel
        elif len(depth):
            misses += not np.allclose(own, [depth.min(), depth.max()], atol=2e-3)
    assert misses <= 2


def test_sheets_are_in_order_and_the_body_is_within_the_clothes(drawn):
    _, _, found = drawn
    for sheet in (found.depth, found.trunk, found.bare):
        known = np.isfinite(sheet[0])
        np.testing.assert_array_equal(known, np.isfinite(sheet[1]))
        assert (sheet[1] - sheet[0])[known].min() > -1e-4
    both = np.isfinite(found.depth[0]) & np.isfinite(found.trunk[0])
    assert (found.trunk - found.depth)[0][both].min() > -0.02
    both = np.isfinite(found.trunk[0]) & np.isfinite(found.bare[0])
    inside = (found.trunk[0] - found.bare[0])[both] < 0.02
    assert inside.mean() > 0.97
    assert (found.hidden >= 0).all() and found.hidden.max() < 0.6


def test_kinds_and_colours_are_those_of_the_triangle_that_is_hit(drawn):
    one, view, found = drawn
    known = np.isfinite(found.depth)
    assert (found.kind[known] > 0).mean() > 0.99 and not found.kind[~known].any()
    assert {KINDS[k] for k in np.unique(found.kind)} >= {"skin", "top", "shoe"}
    rows, columns = np.nonzero(known[0])
    agree = []
    for k in range(0, len(rows), 12):
        depth, hit = cast(one, view, rows[k], columns[k])
        if not len(hit):
            continue
        for side, at in enumerate((depth.argmin(), depth.argmax())):
            third = np.full((1, 3), 1 / 3, np.float32)
            colour, _, label = one.shade(hit[at : at + 1], third)
            near = np.abs(colour[0] - found.colour[side, rows[k], columns[k]] / 255).max() < 0.15
            kind = KINDS[found.kind[side, rows[k], columns[k]]]
            agree.append(near and (LABELS[label[0]] != "top" or kind in ("top", "coat", "skirt")))
    assert np.mean(agree) > 0.85


def test_what_is_behind_is_in_front_of_the_opposite_camera():
    one = person()
    here, there = (sheets.draw(one, camera(0.0, azimuth)) for azimuth in (20.0, 200.0))
    mirrored = there.kind[0][:, ::-1]
    both = (here.kind[1] > 0) & (mirrored > 0)
    assert both.sum() > 0.8 * (here.kind[1] > 0).sum()
    assert (here.kind[1] == mirrored)[both].mean() > 0.9


def test_same_bytes_and_no_light(drawn):
    one, view, found = drawn
    again = sheets.draw(person(), view)
    for name in ("depth", "trunk", "bare", "colour", "kind"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert one.bare.shape[1] == 3 and abs(one.bare[:, 1].min()) < 0.1


def test_a_skirt_is_told_from_a_top():
    kinds = set()
    for number in range(12):
        kinds |= {KINDS[k] for k in np.unique(sheets.draw(person(number), camera()).kind)}
        if {"skirt", "hair"} <= kinds:
            return
    pytest.fail(f"no skirt among twelve people, only {sorted(kinds)}")
