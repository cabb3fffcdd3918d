# SPDX-License-Identifier: Apache-2.0
"""Colour and folds of cloth."""

import numpy as np
import pytest

from viewsynth import bodies
from viewsynth.world import fabrics, prints
from viewsynth.world.fabrics import Fabric

RED, BLUE, WHITE, OCHRE = (0.6, 0.1, 0.1), (0.1, 0.2, 0.5), (0.9, 0.9, 0.9), (0.7, 0.5, 0.2)
TINTS = (RED, BLUE, WHITE, OCHRE)


@pytest.fixture(scope="module")
def at():
    """Approximate keypoints of the mean body with the arms held out."""
    spot = {
        "nose": (0, 1.70, 0.16),
        "eye": (0.03, 1.73, 0.14),
        "ear": (0.08, 1.71, 0.05),
        "shoulder": (0.17, 1.50, 0.02),
        "elbow": (0.46, 1.46, 0.03),
        "wrist": (0.72, 1.42, 0.05),
        "hip": (0.10, 0.96, 0.02),
        "knee": (0.11, 0.53, 0.01),
        "ankle": (0.09, 0.10, 0.02),
        "big_toe": (0.06, 0.02, 0.23),
        "heel": (0.09, 0.04, -0.02),
    }
    return {
        name: np.float32(spot[name.split("_", 1)[-1]])
        * (-1 if name.startswith("right") else 1, 1, 1)
        for name in bodies.KEYPOINTS
    }


def cloud(count=4000, seed=0):
    """Points over trunk, arms and legs."""
    rng = np.random.default_rng(seed)
    low, high = np.float32([-0.72, 0, -0.12]), np.float32([0.72, 1.6, 0.16])
    return (low + rng.random((count, 3)) * (high - low)).astype(np.float32)


@pytest.mark.parametrize("kind", fabrics.KINDS)
def test_colour_and_folds_depend_on_the_point_alone(kind, at):
    points = cloud()
    fabric = Fabric(
        kind=kind,
        colours=TINTS,
        seed=5,
        wear=0.8,
        front="print",
        back="number",
        closing="zip",
        drape=float(kind == "dots"),
        weave=0.6,
    )
    colour, fold = fabrics.paint(fabric, points, at), fabrics.folds(fabric, points)
    assert colour.dtype == fold.dtype == np.float32
    assert colour.shape == fold.shape == points.shape
    assert colour.min() >= 0 and colour.max() <= 1 and np.isfinite(fold).all()
    some = np.flatnonzero(np.arange(len(points)) % 7 == 3)
    assert (fabrics.paint(fabric, points[some], at) == colour[some]).mean() > 0.999
    np.testing.assert_allclose(fabrics.paint(fabric, points[some], at), colour[some], atol=2e-5)
    np.testing.assert_allclose(fabrics.folds(fabric, points[some]), fold[some], atol=2e-5)
    assert len(fabrics.paint(fabric, points[:0], at)) == len(fabrics.folds(fabric, points[:0])) == 0


@pytest.mark.parametrize("kind", ["plain", "heather", "knit", "denim"])
def test_mean_colour_is_the_main_colour(kind, at):
    colour = fabrics.paint(Fabric(kind=kind, colours=(BLUE,), wear=0.0), cloud(), at)
    np.testing.assert_allclose(colour.mean(0), BLUE, rtol=0.03)
    assert np.abs(colour - BLUE).max() < 0.1


def test_stripes_run_around_trunk_and_sleeves(at):
    fabric = Fabric(kind="stripes", colours=(RED, WHITE), scale=0.06)
    ring = np.float32([[x, 1.2, z] for x in (-0.15, 0, 0.1) for z in (-0.05, 0.1)])
    assert np.ptp(fabrics.paint(fabric, ring, at), axis=0).max() == 0
    sleeve = np.float32([[0.4, 1.44 + dy, 0.03 + dz] for dy in (0, 0.06) for dz in (0, 0.05)])
    assert np.ptp(fabrics.paint(fabric, sleeve, at), axis=0).max() == 0
    up = np.float32([[0, y, 0.15] for y in np.linspace(1.0, 1.3, 400)])
    white = fabrics.paint(fabric, up, at)[:, 1] > 0.5
    assert np.abs(np.diff(white.astype(int))).sum() in (9, 10, 11)  # five periods
    shifted = fabrics.paint(fabric, up + np.float32([0, 0.06, 0]), at)
    np.testing.assert_allclose(shifted, fabrics.paint(fabric, up, at), atol=0.01)


def test_pinstripes_run_up_the_trunk(at):
    fabric = Fabric(kind="vertical", colours=(BLUE, WHITE), scale=0.03)
    line = np.float32([[0.05, y, 0.14] for y in (1.0, 1.1, 1.2)])
    assert np.ptp(fabrics.paint(fabric, line, at), axis=0).max() == 0
    across = np.float32([[x, 1.1, 0.14] for x in np.linspace(-0.14, 0.14, 200)])
    assert np.ptp(fabrics.paint(fabric, across, at), axis=0).max() > 0.3


def test_prints_are_on_their_side_and_not_mirrored(at):
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, 81), np.linspace(1.05, 1.5, 91))
    sides = {
        side: np.float32(np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], 1))
        for side, z in (("front", 0.14), ("back", -0.06))
    }
    for side, other in (("front", "back"), ("back", "front")):
        fabric = Fabric(colours=(BLUE,), ink=WHITE, seed=3, **{side: "number"})
        inked = fabrics.paint(fabric, sides[side], at)[:, 0].reshape(x.shape) > 0.5
        assert 0.02 < inked.mean() < 0.3
        assert not (fabrics.paint(fabric, sides[other], at)[:, 0] > 0.5).any()
        assert abs(x[inked].mean()) < 0.04 and 1.2 < y[inked].mean() < 1.45
    # Seen from behind, right is the person's right: the same number, not mirrored.
    both = Fabric(colours=(BLUE,), ink=WHITE, seed=3, front="number", back="number")
    digits = prints._bitmap("number", "front", 3) > 0
    assert (digits != digits[:, ::-1]).any()
    for side, sign in (("front", 1), ("back", -1)):
        x0, y0, half, tall = prints.PLACES["number", side]
        row, column = (np.mgrid[: prints.SIDE, : prints.SIDE] + 0.5) / prints.SIDE
        right, up = x0 + (2 * column - 1) * half, y0 + (1 - 2 * row) * tall
        z = np.full(right.size, 0.14 if sign > 0 else -0.06)
        points = np.float32(np.stack([sign * right.ravel(), up.ravel(), z], 1))
        shown = fabrics.paint(both, points, at)[:, 0].reshape(digits.shape) > 0.4
        assert (shown == digits).mean() > 0.97


def test_front_and_back_prints_differ(at):
    a, b = (prints._bitmap("print", side, 11) for side in ("front", "back"))
    assert (a != b).mean() > 0.05
    assert (prints._bitmap("number", "front", 4) == prints._bitmap("number", "back", 4)).all()


def test_prints_of_different_seeds_differ_and_have_ink():
    maps = [prints._bitmap("print", "front", seed) for seed in range(60)]
    assert all(0.03 < (m > 0).mean() < 1 for m in maps)
    assert len({m.tobytes() for m in maps}) > 50


def test_wear_fades_knees_but_not_ankles(at):
    knee, ankle = np.float32([[0.11, 0.53, 0.1]]), np.float32([[0.09, 0.2, 0.05]])
    worn = Fabric(kind="denim", colours=(BLUE,), wear=1.0)
    fresh = Fabric(kind="denim", colours=(BLUE,), wear=0.0)
    gain = [
        (fabrics.paint(worn, p, at) - fabrics.paint(fresh, p, at)).mean() for p in (knee, ankle)
    ]
    assert gain[0] > 0.05 > 0.01 > abs(gain[1])


def test_folds_are_stronger_at_elbows_and_knees_and_grow_with_weave():
    rng = np.random.default_rng(1)

    def strength(centre, weave=0.6, **more):
        points = np.float32(centre) + rng.normal(0, 0.03, (3000, 3)).astype(np.float32)
        totals = [
            np.linalg.norm(
                fabrics.folds(Fabric(colours=(BLUE,), weave=weave, seed=s, **more), points), axis=1
            )
            for s in range(6)
        ]
        return np.mean(totals)

    assert strength((0.46, 1.46, 0.03)) > 1.4 * strength((0.34, 1.47, 0.03))
    assert strength((0.11, 0.5, 0.02)) > 1.4 * strength((0.11, 0.72, 0.02))
    assert strength((0.1, 1.1, 0.1), 0.8) > 2 * strength((0.1, 1.1, 0.1), 0.3)
    assert strength((0.1, 0.6, 0.15), drape=1.0) > strength((0.1, 1.2, 0.1), drape=1.0)
    none = fabrics.folds(Fabric(colours=(BLUE,), weave=0.0), cloud())
    assert not none.any()
    worst = max(
        np.linalg.norm(
            fabrics.folds(Fabric(colours=(BLUE,), weave=1.0, seed=s), cloud()), axis=1
        ).max()
        for s in range(10)
    )
    assert 0.2 < worst < 1.0


def test_gradient_runs_from_one_colour_to_the_other(at):
    fabric = Fabric(kind="gradient", colours=(WHITE, RED))
    ends = fabrics.paint(fabric, np.float32([[0, 1.48, 0.1], [0, 0.96, 0.1]]), at)
    np.testing.assert_allclose(ends, [WHITE, RED], atol=0.02)
