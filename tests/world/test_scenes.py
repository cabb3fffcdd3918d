# SPDX-License-Identifier: Apache-2.0
"""Places: grounds and backdrops depend on position alone and are antialiased; one light for all."""

import numpy as np
import pytest

from viewsynth.world import backdrops, background, grounds, scenes
from viewsynth.world.noise import cell, line, noise


def rng(*numbers):
    return np.random.default_rng(numbers)


def points(count, seed=0, reach=6.0):
    return rng(seed).uniform(-reach, reach, (count, 2)).astype(np.float32).T


@pytest.mark.parametrize("kind", ["grain", "rough", "cloud"])
def test_noise_has_unit_variance_is_periodic_and_fades(kind):
    u, v = points(4000)
    fine = noise(kind, u, v, 1e-4, 4.0)
    assert abs(fine.mean()) < 0.15 and 0.6 < fine.std() < 1.1
    assert np.allclose(fine, noise(kind, u + 4, v - 8, 1e-4, 4.0), atol=2e-2)
    spread = [noise(kind, u, v, span, 4.0).std() for span in (1e-3, 0.1, 1.0, 50.0)]
    assert all(a >= b for a, b in zip(spread, spread[1:], strict=False)), spread
    assert spread[-1] < 0.5 * spread[0]


def test_cells_are_uniform_and_do_not_repeat():
    i, j = np.meshgrid(np.arange(-50, 50), np.arange(-50, 50))
    values = cell(i.ravel(), j.ravel(), 7)
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.01
    assert len(np.unique(values)) > 9980
    assert np.array_equal(
        cell(np.float32([-0.5]), np.float32([0.5]), 7), cell(*np.array([[-1], [0]]), 7)
    )


def test_a_line_keeps_its_area():
    """For any pixel size, the shares of a line sum to its width."""
    for span in (0.01, 0.1, 0.7):
        centres = np.arange(-3, 3, span, dtype=np.float32)
        total = line(centres, 0.05, np.full(len(centres), span, np.float32)).sum() * span
        assert abs(total - 0.1) < 1e-3


@pytest.mark.parametrize("kind", grounds.GROUNDS)
def test_grounds(kind):
    ground = grounds.sample_ground(rng(3), kind)
    x, z = points(3000)
    span = np.full(len(x), 0.01, np.float32)
    colour = grounds.paint(ground, x, z, span)
    assert colour.dtype == np.float32 and colour.min() > 0 and colour.max() < 1
    assert colour.std(0).max() > 0.004
    # The colour of a point does not depend on the other points.
    some = np.flatnonzero(rng(1).random(len(x)) < 0.2)
    assert np.array_equal(colour[some], grounds.paint(ground, x[some], z[some], span[some]))


@pytest.mark.parametrize("kind", grounds.GROUNDS)
def test_grounds_are_antialiased(kind):
    """A coarse pixel is about the mean of the fine pixels that it covers."""
    ground = grounds.sample_ground(rng(4), kind)
    n, side = 24, 0.25
    at = ((np.arange(n) + 0.5) / n - 0.5).astype(np.float32) * side
    fine, coarse = [], []
    for cx, cz in rng(5).uniform(-4, 4, (80, 2)).astype(np.float32):
        x, z = (t.ravel() for t in np.meshgrid(cx + at, cz + at))
        fine.append(grounds.paint(ground, x, z, np.full(x.shape, side / n, np.float32)).mean(0))
        one = np.float32([cx]), np.float32([cz]), np.float32([side])
        coarse.append(grounds.paint(ground, *one)[0])
    fine, coarse = np.stack(fine), np.stack(coarse)
    assert np.abs(fine.mean(0) / coarse.mean(0) - 1).max() < 0.15
    assert coarse.std() < 1.6 * fine.std() + 0.02


@pytest.mark.parametrize("border", grounds.BORDERS)
def test_borders(border):
    """A border does not change the ground before it; another ground lies beyond it."""
    plain = grounds.sample_ground(rng(1), "concrete")
    other = grounds.sample_ground(rng(2), "grass")
    both = grounds.Ground(
        **{
            **plain.__dict__,
            "border": border,
            "border_heading": 90.0,
            "border_at": 1.0,
            "beyond": other,
        }
    )
    x, z = points(2000)
    span = np.full(len(x), 0.01, np.float32)
    here = x < 0.9
    bare, ended = grounds.paint(plain, x, z, span), grounds.paint(both, x, z, span)
    assert np.array_equal(bare[here], ended[here])
    assert (border == "none") == np.array_equal(bare, ended)


def test_unknown_names():
    with pytest.raises(ValueError, match="ground must be one of"):
        scenes.sample_place(rng(0), ground="lava")
    with pytest.raises(ValueError, match="weather must be one of"):
        scenes.sample_place(rng(0), weather="snow")


def test_places_are_reproducible_and_differ():
    first, second = scenes.sample_place(rng(8)), scenes.sample_place(rng(8))
    assert first.ground.kind == second.ground.kind and np.array_equal(first.sun, second.sun)
    places = [scenes.sample_place(rng(n)) for n in range(150)]
    assert {p.weather for p in places} == set(scenes.WEATHERS)
    for revision in (1, 2):
        places = [scenes.sample_place(rng(n), revision=revision) for n in range(150)]
        assert {p.ground.kind for p in places} == set(scenes.USUAL[revision])
    assert set(scenes.USUAL_1) == set(grounds.GROUNDS)
    assert {w.kind for p in places for w in p.walls} == set(backdrops.WALLS)


@pytest.mark.parametrize("weather", scenes.WEATHERS)
def test_light_on_level_ground_is_one(weather):
    for n in range(20):
        place = scenes.sample_place(rng(n), weather=weather)
        total = place.sky_light + place.sun_light * max(place.sun[1], 0.35)
        assert np.allclose(total.mean(), 1, atol=0.08), (weather, total)


def test_standing_moves_the_person_not_the_place():
    """Points of a moved and turned person map to the expected points of the place."""
    place = scenes.sample_place(rng(5), ground="slabs")
    moved = scenes.standing(place, (1.5, -0.7), 120.0)
    own = np.float32([[0.2, 0.0, 1.0]])
    rad = np.deg2rad(120)
    ahead = np.array([np.sin(rad), np.cos(rad)])
    left = np.array([np.cos(rad), -np.sin(rad)])
    expected = np.array([1.5, -0.7]) + 1.0 * ahead + 0.2 * left
    assert np.allclose(moved.inward(own)[0, [0, 2]], expected, atol=1e-5)
    assert np.allclose(moved.turn() @ moved.own_sun(), place.sun, atol=1e-6)


def evenly_lit(points):
    return np.ones((len(points), 3), np.float32)


def look(place, origin, target, count=41):
    """Background of a small camera that looks from one point at another, and its rays."""
    ahead = np.subtract(target, origin)
    ahead = ahead / np.linalg.norm(ahead)
    right = np.cross(ahead, [0, 1, 0]) / np.linalg.norm(np.cross(ahead, [0, 1, 0]))
    down = np.cross(ahead, right)
    at = np.linspace(-0.3, 0.3, count)
    rays = ahead + at[None, :, None] * right + at[:, None, None] * down
    rays = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)).reshape(-1, 3).astype(np.float32)
    return background.render(place, np.float32(origin), rays, 0.6 / count, evenly_lit), rays


def test_background_is_complete_and_meets_the_ground():
    open_ground = []
    for n in range(12):
        place = scenes.sample_place(rng(n))
        (light, distance), rays = look(place, (0.0, 3.0, 9.0), (0.0, 0.9, 0.0))
        assert np.isfinite(light).all() and (light > 0).all() and light.max() < 2.5
        down = rays[:, 1] < -0.25  # too close for most walls
        steep = -3.0 / rays[down, 1]
        on_ground = np.isclose(distance[down], steep, rtol=1e-4)
        assert (on_ground | ((distance[down] > 0.5) & (distance[down] < steep))).all()
        open_ground.append(on_ground.mean())
        (_, distance), rays = look(place, (0.0, 40.0, 5.0), (0.0, 0.0, 0.0))
        points = np.float32([0, 40, 5]) - 40 * rays / rays[:, 1:2]
        near = np.hypot(points[:, 0], points[:, 2]) < 3.5  # walls are farther away
        assert near.sum() > 50
        assert np.allclose(distance[near], -40.0 / rays[near, 1], rtol=1e-4)
    assert np.mean(open_ground) > 0.8


def test_rays_do_not_depend_on_each_other():
    place = scenes.sample_place(rng(31))
    place = scenes.standing(place, (0.4, 0.2), 75.0)
    origin, n = np.float32([0.5, 2.8, 8.0]), 900
    rays = rng(2).normal(0, 0.25, (n, 3)).astype(np.float32) + np.float32([0, -0.2, -1])
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    every, _ = background.render(place, origin, rays, 0.002, evenly_lit)
    half, _ = background.render(place, origin, rays[::2], 0.002, evenly_lit)
    assert np.allclose(every[::2], half, atol=1e-5)


def test_rays_hit_a_car():
    """Rays hit a car straight ahead at its bumper and side; a ray over its roof misses it."""
    parked = backdrops.Car(
        at=(0.0, 0.0), heading=0.0, size=(4.0, 1.8, 1.5), tone=np.float32([0.5, 0.1, 0.1])
    )
    one = np.ones(3, np.float32)
    rays = np.float32([[0, 0, -1], [-1, 0, 0]])
    for origin, ray, metres in (((0, 0.6, 10.0), 0, 8.0), ((10.0, 0.6, 0), 1, 9.1)):
        share, reach, light = backdrops.meet_car(
            parked, np.float32(origin), rays[ray][None], 0.001, one, one
        )
        assert share[0] == 1 and abs(reach[0] - metres) < 1e-3 and light.max() < 0.6
    share, _, _ = backdrops.meet_car(parked, np.float32([0, 1.8, 10]), rays[:1], 0.001, one, one)
    assert share[0] == 0
