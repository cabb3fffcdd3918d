# SPDX-License-Identifier: Apache-2.0
"""Views of a simple person: framing, independence, seen maps, ground, shadow and sensor."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from figures import figure, people
from PIL import Image
from scipy import ndimage

from viewsynth import cameras
from viewsynth.render import grounds, lighting, scene, views
from viewsynth.render.options import CHIP, LENS, Scene, Sensor
from viewsynth.render.views import Shot, render_views

CLEAN = Sensor(pixels=96, margin=0.1, **LENS, **CHIP)


def one(shot=(30, 40), kit=CLEAN, seed=0, name="a"):
    return render_views(*people(1), [Shot(0, *map(float, shot), name)], kit, seed)[0]


def test_views_come_in_the_order_of_the_shots():
    shots = [Shot(p, float(e), 10.0 * p, f"{p}{e}") for e in (90, 0, 45) for p in (2, 0, 1)]
    taken = render_views(*people(3), shots, Sensor(pixels=48), 1)
    for shot, view in zip(shots, taken, strict=True):
        assert (view.pid, view.elevation, view.azimuth) == (
            f"p{shot.person}",
            shot.elevation,
            shot.azimuth,
        )
        width, height = view.box[2] - view.box[0], view.box[3] - view.box[1]
        assert view.image.shape == (height, width, 3) and view.image.dtype == np.uint8
        assert view.seen.shape == view.mask.shape == (height, width)
        assert view.seen.dtype == np.uint8 and view.mask.dtype == bool


def test_a_view_does_not_depend_on_the_others(monkeypatch):
    shots = [Shot(k % 4, 13.0 * (k % 7), 50.0 * k, str(k)) for k in range(12)]
    together = render_views(*people(4), shots, Sensor(pixels=80), 3)
    monkeypatch.setitem(views.BATCH, "cpu", 1)
    for shot, view in zip(shots, together, strict=True):
        alone = render_views(*people(4), [shot], Sensor(pixels=80), 3)[0]
        gap = np.abs(view.image.astype(int) - alone.image)
        assert gap.max() <= 1
        assert (view.mask == alone.mask).all() and view.box == alone.box
        assert np.abs(view.seen.astype(int) - alone.seen).max() <= 1


def test_the_same_call_gives_the_same_bytes_and_another_seed_others():
    first, again, other = one(kit=Sensor()), one(kit=Sensor()), one(kit=Sensor(), seed=1)
    assert (first.image == again.image).all() and first.box == again.box
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


@pytest.mark.parametrize("elevation", [0, 30, 60, 90])
def test_framing(elevation):
    """The whole person has its projected size and shape, with a margin on every side."""
    view = one((elevation, 20))
    pose = cameras.orbit(
        *(torch.tensor([v]) for v in (float(elevation), 20.0, view.distance, 0.85))
    )
    whole = cameras.Cameras(
        pose, cameras.pinhole(torch.tensor([CLEAN.focal]), CLEAN.size), CLEAN.size
    )
    pixels = whole.project(figure().vertices[None])[0][0].numpy() - view.box[:2]
    rows, columns = np.nonzero(view.mask)
    for found, along in ((columns, 0), (rows, 1)):
        assert abs(found.min() - pixels[:, along].min()) < 1.5
        assert abs(found.max() + 1 - pixels[:, along].max()) < 1.5
    assert rows.min() > 1 and columns.min() > 1
    assert rows.max() < view.mask.shape[0] - 2 and columns.max() < view.mask.shape[1] - 2


def test_the_pixel_budget():
    rows = np.nonzero(one((0, 0)).mask)[0]
    assert abs(np.ptp(rows) + 1 - CLEAN.pixels) < 2
    near = one((0, 0), dataclasses.replace(CLEAN, distance=20.0))
    assert near.distance == 20
    assert abs(np.ptp(np.nonzero(near.mask)[0]) + 1 - CLEAN.focal * 1.7 / 20) < 3


def test_aspect_runs_from_tall_to_wide():
    def shape(view):
        rows, columns = np.nonzero(view.mask)
        return np.ptp(rows) / np.ptp(columns)

    ratios = [shape(one((e, 0))) for e in (0, 30, 60, 90)]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 3 and ratios[-1] < 0.9


def test_seen_follows_the_texture_and_ends_with_the_person():
    [mesh], pids = people(1)
    half = torch.zeros((64, 64), dtype=torch.uint8)
    half[:, :32] = 200  # u < 0.5 is the person's left half
    shots = [Shot(0, 10.0, 90.0, "left"), Shot(0, 10.0, 270.0, "right"), Shot(0, 0.0, 0.0, "front")]
    mesh = dataclasses.replace(mesh, seen=half)
    left, right, front = render_views([mesh], pids, shots, CLEAN, 0)
    for view in (left, right, front):
        assert (view.seen[~view.mask] == 0).all()
    assert np.median(left.seen[left.mask]) == 200
    assert np.median(right.seen[right.mask]) == 0
    middle = front.mask.shape[1] // 2
    columns = np.nonzero(front.mask)[1]
    assert columns.min() < middle < columns.max()
    share = (front.seen[front.mask] > 100).mean()
    assert 0.4 < share < 0.6
    assert (
        front.seen[:, columns.max() - 8] > 100
    ).any()  # +x, the left hand, is at the right of the image


def test_colours_of_the_person_survive():
    [mesh], pids = people(1)
    red = np.tile(np.uint8([180, 40, 50]), (64, 64, 1))
    mesh = dataclasses.replace(mesh, texture=torch.from_numpy(red))
    shots = [Shot(0, float(e), float(a), f"{e}{a}") for e in (0, 45, 90) for a in (0, 120)]
    sensor = Sensor(haze=0.0, saturation=1.0, contrast=1.0, warmth=0.0, tint=0.0)
    for view in render_views([mesh], pids, shots, sensor, 0):
        inner = ndimage.binary_erosion(view.mask, iterations=3)
        mean = view.image[inner].mean(0)
        assert np.abs(mean / mean.sum() - red[0, 0] / red[0, 0].sum()).max() < 0.03
        assert 0.7 < mean.sum() / red[0, 0].sum() < 1.2


@pytest.mark.parametrize(
    ("shot", "message"),
    [
        (Shot(1, 0.0, 0.0, "x"), "names person 1"),
        (Shot(0, 91.0, 0.0, "x"), "elevation must be"),
        (Shot(0, -1.0, 0.0, "x"), "elevation must be"),
    ],
)
def test_impossible_shots(shot, message):
    with pytest.raises(ValueError, match=message):
        render_views(*people(1), [shot], CLEAN, 0)


def test_no_shots():
    assert render_views(*people(1), [], CLEAN, 0) == []


def test_batches_hold_every_shot_once_and_respect_the_limit():
    rng = np.random.default_rng(0)
    sizes = [tuple(map(int, rng.integers(20, 300, 2))) for _ in range(60)]
    groups = views._batches(sizes, 400_000)
    assert sorted(i for group in groups for i in group) == list(range(60))
    for group in groups:
        tall, wide = max(sizes[i][0] for i in group), max(sizes[i][1] for i in group)
        assert len(group) == 1 or len(group) * tall * wide * 4 <= 400_000


# ---- scene -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", scene.KINDS)
def test_paving_is_fixed_in_the_world(kind):
    """Two cameras see the same colour at the same world point."""
    where = dataclasses.replace(scene.place(4, kind), strength=0.0)
    light = torch.ones(lighting.MAP, lighting.MAP)
    spots = torch.rand(1, 400, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    spots[..., 1] = 0
    read = []
    for azimuth in (0.0, 137.0):
        angles = (60.0, azimuth, 20.0, 0.0)
        pose = cameras.orbit(*(torch.tensor([v]) for v in angles))
        size = (1200, 1200)
        view = cameras.Cameras(pose, cameras.pinhole(torch.tensor([6000.0]), size), size)
        picture = scene._ground(view, 0, where, light)
        assert picture.shape == (*size, 3) and picture.std() > 0.01
        pixels = view.project(spots)[0][0].floor().long().clamp(0, 1199)
        read.append(picture[pixels[:, 1], pixels[:, 0]])
    assert (read[0] - read[1]).abs().median() < 0.005
    assert (read[0] - read[1]).abs().mean() < 0.3 * (read[0] - read[0].roll(1, 0)).abs().mean()


def test_the_shadow_falls_away_from_the_sun():
    sun = (0.6, 0.64, 0.48)
    where = dataclasses.replace(scene.place(0), sun=sun, strength=1.0, softness=0.03)
    light = lighting.shadows([figure()], torch.tensor([0]), [where]).ground
    for distance in (0.5, 0.9, 1.3):  # the shadow of 1.7 m is 2.04 m long
        step = torch.tensor([[sun[0], sun[2]]]) / (sun[0] ** 2 + sun[2] ** 2) ** 0.5 * distance
        dark = lighting.lookup(light[0], -step[:, :1], -step[:, 1:], where)
        lit = lighting.lookup(light[0], step[:, :1], step[:, 1:], where)
        assert dark < 0.6 and lit > 0.85
    at_the_feet = lighting.lookup(light[0], torch.zeros(1, 1), torch.zeros(1, 1), where)
    assert at_the_feet < 0.5
    assert light.min() > 0 and light.max() <= 1


@pytest.mark.parametrize("elevation", [0.0, 1.0, 10.0, 90.0])
def test_ground_and_background_are_valid_colours(elevation):
    """Also at the horizon, where rays never meet the ground."""
    pose = cameras.orbit(*(torch.tensor([v]) for v in (elevation, 70.0, 30.0, 0.85)))
    view = cameras.Cameras(pose, cameras.pinhole(torch.tensor([600.0]), (80, 60)), (80, 60))
    picture = scene._ground(view, 0, scene.place(2), torch.ones(lighting.MAP, lighting.MAP))
    assert picture.isfinite().all() and picture.min() >= 0 and picture.max() <= 1
    above, below = picture[:30].mean((0, 1)), picture[-20:].mean((0, 1))
    if elevation < 2:
        assert (above - below).abs().max() > 0.02  # a wall behind the ground


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_shrink_is_the_mean(factor):
    image = torch.rand(2, 3, 6, 12)
    tiles = image.view(2, 3, 6 // factor, factor, 12 // factor, factor)
    assert torch.allclose(scene.shrink(image, factor), tiles.mean((3, 5)))


def test_unknown_paving():
    with pytest.raises(ValueError, match="kind must be one of"):
        scene.place(0, "lava")


# ---- grounds of a folder -------------------------------------------------------------------------


@pytest.fixture
def chessboard(tmp_path):
    """A texture of 2 x 2 squares, each 0.8 m wide, in a folder of its own."""
    squares = np.kron([[60, 200], [200, 60]], np.ones((32, 32)))
    image = Image.fromarray(np.repeat(squares[..., None], 3, 2).astype(np.uint8))
    image.save(tmp_path / "00.png", dpi=(40 * 0.0254, 40 * 0.0254))
    return Scene(grounds=tmp_path, overcast=1.0)


def test_a_texture_has_its_size_on_the_ground(chessboard):
    [texture] = grounds.load(chessboard)
    assert abs(texture.density - 40) < 0.5
    x, z = torch.meshgrid(torch.arange(0.1, 3.2, 0.2), torch.arange(0.1, 3.2, 0.2), indexing="ij")
    dark = grounds.colour(x, z, torch.full_like(x, 0.01), texture)[..., 0] < 0.5
    even = ((x / 0.8).floor() + (z / 0.8).floor()).long() % 2 == 0
    assert (dark == even).all()
    turned = dataclasses.replace(texture, turn=np.pi / 2, shift=(0.8, 0.0))
    dark = grounds.colour(x, z, torch.full_like(x, 0.01), turned)[..., 0] < 0.5
    assert (dark == even).all()  # a quarter turn exchanges the squares, and so does the shift
    far = grounds.colour(x, z, torch.full_like(x, 2.0), texture)
    assert far.std() < 0.05 and abs(float(far.mean()) - 130 / 255) < 0.02


def test_a_texture_takes_the_place_of_the_paving(chessboard):
    meshes, pids = people(1)
    shots = [Shot(0, 90.0, 0.0, str(k)) for k in range(6)]
    views = render_views(meshes, pids, shots, CLEAN, 0, chessboard)
    for view in views:
        far = ~ndimage.binary_dilation(view.mask, iterations=5)
        assert np.ptp(view.image[far].astype(int), axis=1).max() <= 1  # grey, as the texture
    assert len({view.image[:4, :4].tobytes() for view in views}) > 1


def test_a_scene_changes_shadows_alone():
    soft, hard = (scene.place(3, scene=Scene(softness=s, overcast=0)) for s in (0.3, 0.01))
    assert dataclasses.replace(soft, softness=0, grain=None) == dataclasses.replace(
        hard, softness=0, grain=None
    )
    dark = scene.place(3, scene=Scene(shadow=0.8, overcast=0))
    light = lighting.shadows([figure()], torch.tensor([0]), [dark]).ground
    assert light.min() < 0.21
    with pytest.raises(FileNotFoundError, match="viewsynth match"):
        Scene(grounds=Path("nowhere")).textures()
    with pytest.raises(ValueError, match=r"scene\.shadow must be in"):
        Scene(shadow=(0.5, 0.3))
