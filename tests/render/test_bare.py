# SPDX-License-Identifier: Apache-2.0
"""People drawn bare lie where a finished view has them, in its camera's axes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from figures import people
from PIL import Image

from viewsynth import cameras
from viewsynth.render import bare
from viewsynth.render.options import Sensor
from viewsynth.render.views import Shot, take

SIZE = (128, 64)
SHOTS = [
    Shot(k % 2, e, a, str(k))
    for k, (e, a) in enumerate([(0.0, 20.0), (35.0, 200.0), (60.0, 310.0), (90.0, 45.0)])
]


def drawn(vertices, body, textures, seens, _, taken, size=SIZE):
    windows = cameras.join([bare.window(view, size) for view in taken])
    mesh = torch.tensor([shot.person for shot in SHOTS])
    return bare.draw(vertices, body, textures, seens, mesh, windows)


def fitted(mask, size=SIZE):
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX)) > 127


@pytest.mark.parametrize("sensor", [Sensor(pixels=240), Sensor(vfov=70, distance=9)])
def test_the_person_lies_where_the_finished_view_has_it(sensor):
    some = people(2)
    taken = take(*some, SHOTS, sensor, 3)
    found = drawn(*some, taken)
    for view, share in zip(taken, found.coverage[:, 0].numpy(), strict=True):
        ours, theirs = share >= 0.5, fitted(view.mask)
        iou = (ours & theirs).sum() / (ours | theirs).sum()
        assert iou > 0.95, f"{view.elevation}: {iou}"


def test_a_row_of_the_manifest_has_the_same_camera_as_its_view():
    view = take(*people(1), [Shot(0, 40.0, 70.0, "a")], Sensor(), 0)[0]
    row = {key: getattr(view, key) for key in (*bare.NUMBERS, "vfov")} | {"box": list(view.box)}
    one, other = bare.window(view, SIZE), bare.window(row, SIZE)
    assert one.size == other.size == SIZE
    assert torch.equal(one.intrinsics, other.intrinsics)
    assert torch.equal(one.world_to_camera, other.world_to_camera)
    with pytest.raises(ValueError, match="vfov is not there"):
        bare.window({key: value for key, value in row.items() if key != "vfov"}, SIZE)


def test_another_picture_height_is_another_camera():
    sensor = Sensor(pixels=240, picture_height=1080)
    some = people(2)
    taken = take(*some, SHOTS, sensor, 0)
    mesh = torch.tensor([shot.person for shot in SHOTS])
    windows = cameras.join([bare.window(view, SIZE, sensor.picture_height) for view in taken])
    found = bare.draw(*some[:4], mesh, windows)
    for view, share in zip(taken, found.coverage[:, 0].numpy(), strict=True):
        ours, theirs = share >= 0.5, fitted(view.mask)
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


def test_ranges_grey_and_what_is_off_the_body():
    some = people(2)
    taken = take(*some, SHOTS, Sensor(), 3)
    found = drawn(*some, taken)
    count = len(SHOTS)
    assert found.render.shape == found.normals.shape == (count, 3, *SIZE)
    assert found.seen.shape == found.coverage.shape == (count, 1, *SIZE)
    off = found.coverage[:, 0] == 0
    assert off.any() and (found.coverage == 1).any()
    for k in range(3):
        assert torch.allclose(found.render[:, k][off], torch.tensor(128 / 255))
        assert (found.normals[:, k][off] == 0).all()
    assert (found.seen[:, 0][off] == 0).all()
    assert torch.allclose(found.seen, found.coverage, atol=1e-5), "all of the atlas was seen"
    assert float(found.render.min()) >= 0 and float(found.render.max()) <= 1
    length = found.normals.norm(dim=1)
    assert float(length.max()) <= 1 + 1e-5
    assert float(length[found.coverage[:, 0] == 1].mean()) > 0.9


def test_normals_are_in_camera_axes():
    """What is seen faces the camera; the upper edge points up, the right one to the right."""
    some = people(1)
    shots = [Shot(0, e, a, "x") for e, a in ((0.0, 0.0), (0.0, 137.0), (50.0, 260.0), (90.0, 10.0))]
    taken = take(*some, shots, Sensor(), 0)
    windows = cameras.join([bare.window(view, SIZE) for view in taken])
    found = bare.draw(*some[:4], torch.zeros(4, dtype=torch.int64), windows)
    for normal, share in zip(found.normals, found.coverage[:, 0], strict=True):
        inside = share == 1
        assert float(normal[2][inside].max()) < 0.15
        rows, columns = inside.nonzero().unbind(1)
        assert float(normal[1][rows.min(), columns[rows == rows.min()]].mean()) < -0.4
        assert float(normal[0][rows[columns == columns.max()], columns.max()].mean()) > 0.4


def test_slices_and_company_change_nothing(monkeypatch):
    some = people(2)
    taken = take(*some, SHOTS, Sensor(), 3)
    together = drawn(*some, taken)
    monkeypatch.setitem(bare.BATCH, "cpu", 1)
    apart = drawn(*some, taken)
    for field in dataclasses.fields(together):
        one, other = getattr(together, field.name), getattr(apart, field.name)
        assert torch.allclose(one, other, atol=1e-5), field.name


def test_a_lens_that_bends_is_bent_here_as_well():
    vertices, body, textures, seens, _ = people(1)
    pose = cameras.orbit(*(torch.tensor([v]) for v in (30.0, 0.0, 4.0, 0.85)))
    matrix = cameras.pinhole(torch.tensor([120.0]), (120, 80))
    straight = cameras.Cameras(pose, matrix, (120, 80))
    bent = dataclasses.replace(straight, k1=torch.tensor([-0.5]))
    windows = cameras.join([bare.stretched(one, SIZE) for one in (straight, bent)])
    assert windows.size == SIZE and windows.k1.tolist() == [0.0, -0.5]
    mesh = torch.zeros(2, dtype=torch.int64)
    share = bare.draw(vertices, body, textures, seens, mesh, windows).coverage.sum((1, 2, 3))
    assert float(share[1]) < 0.99 * float(share[0]), "a barrel makes things smaller"


def test_bad_input():
    vertices, body, textures, seens, _ = people(1)
    window = bare.window(take(*people(1), [Shot(0, 0.0, 0.0, "a")], Sensor(), 0)[0], SIZE)
    with pytest.raises(ValueError, match="one of 1 people"):
        bare.draw(vertices, body, textures, seens, torch.tensor([1]), window)
    with pytest.raises(ValueError, match="2 for 1 windows"):
        bare.draw(vertices, body, textures, seens, torch.tensor([0, 0]), window)
    with pytest.raises(ValueError, match="one canvas size"):
        cameras.join([window, dataclasses.replace(window, size=(8, 8))])
