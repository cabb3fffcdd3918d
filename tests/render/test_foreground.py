# SPDX-License-Identifier: Apache-2.0
"""Foreground: people rendered alone lie where the finished view shows them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from figures import people
from PIL import Image

from viewsynth import cameras
from viewsynth.render import foreground
from viewsynth.render.options import Sensor
from viewsynth.render.views import Shot, render_views

SIZE = (128, 64)
SHOTS = [
    Shot(k % 2, e, a, str(k))
    for k, (e, a) in enumerate([(0.0, 20.0), (35.0, 200.0), (60.0, 310.0), (90.0, 45.0)])
]


def rendered(meshes, taken, size=SIZE):
    crops = cameras.join([foreground.crop_camera(view, size) for view in taken])
    person = torch.tensor([shot.person for shot in SHOTS])
    return foreground.render(meshes, person, crops)


def fitted(mask, size=SIZE):
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX)) > 127


@pytest.mark.parametrize("sensor", [Sensor(pixels=240), Sensor(vfov=70, distance=9)])
def test_the_person_lies_where_the_finished_view_shows_it(sensor):
    some = people(2)
    taken = render_views(*some, SHOTS, sensor, 3)
    found = rendered(some[0], taken)
    for view, share in zip(taken, found.coverage[:, 0].numpy(), strict=True):
        ours, theirs = share >= 0.5, fitted(view.mask)
        iou = (ours & theirs).sum() / (ours | theirs).sum()
        assert iou > 0.95, f"{view.elevation}: {iou}"


def test_a_row_of_the_manifest_has_the_same_camera_as_its_view():
    view = render_views(*people(1), [Shot(0, 40.0, 70.0, "a")], Sensor(), 0)[0]
    row = {key: getattr(view, key) for key in (*foreground.ORBIT, "vfov")} | {"box": list(view.box)}
    one, other = foreground.crop_camera(view, SIZE), foreground.crop_camera(row, SIZE)
    assert one.size == other.size == SIZE
    assert torch.equal(one.intrinsics, other.intrinsics)
    assert torch.equal(one.world_to_camera, other.world_to_camera)
    with pytest.raises(ValueError, match="vfov is missing"):
        foreground.crop_camera({key: value for key, value in row.items() if key != "vfov"}, SIZE)


def test_another_picture_height_is_another_camera():
    sensor = Sensor(pixels=240, picture_height=1080)
    some = people(2)
    taken = render_views(*some, SHOTS, sensor, 0)
    person = torch.tensor([shot.person for shot in SHOTS])
    crops = cameras.join(
        [foreground.crop_camera(view, SIZE, sensor.picture_height) for view in taken]
    )
    found = foreground.render(some[0], person, crops)
    for view, share in zip(taken, found.coverage[:, 0].numpy(), strict=True):
        ours, theirs = share >= 0.5, fitted(view.mask)
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


def test_value_ranges_and_the_background():
    some = people(2)
    taken = render_views(*some, SHOTS, Sensor(), 3)
    found = rendered(some[0], taken)
    count = len(SHOTS)
    assert found.render.shape == found.normals.shape == (count, 3, *SIZE)
    assert found.seen.shape == found.coverage.shape == (count, 1, *SIZE)
    off = found.coverage[:, 0] == 0
    assert off.any() and (found.coverage == 1).any()
    for k in range(3):
        assert torch.allclose(found.render[:, k][off], torch.tensor(128 / 255))
        assert (found.normals[:, k][off] == 0).all()
    assert (found.seen[:, 0][off] == 0).all()
    assert torch.allclose(found.seen, found.coverage, atol=1e-5), "the whole atlas is seen"
    assert float(found.render.min()) >= 0 and float(found.render.max()) <= 1
    length = found.normals.norm(dim=1)
    assert float(length.max()) <= 1 + 1e-5
    assert float(length[found.coverage[:, 0] == 1].mean()) > 0.9


def test_normals_are_in_camera_axes():
    """Visible surfaces face the camera; the upper outline points up, the right one to the right."""
    some = people(1)
    shots = [Shot(0, e, a, "x") for e, a in ((0.0, 0.0), (0.0, 137.0), (50.0, 260.0), (90.0, 10.0))]
    taken = render_views(*some, shots, Sensor(), 0)
    crops = cameras.join([foreground.crop_camera(view, SIZE) for view in taken])
    found = foreground.render(some[0], torch.zeros(4, dtype=torch.int64), crops)
    for normal, share in zip(found.normals, found.coverage[:, 0], strict=True):
        inside = share == 1
        assert float(normal[2][inside].max()) < 0.15
        rows, columns = inside.nonzero().unbind(1)
        assert float(normal[1][rows.min(), columns[rows == rows.min()]].mean()) < -0.4
        assert float(normal[0][rows[columns == columns.max()], columns.max()].mean()) > 0.4


def test_the_result_is_independent_of_the_batch_size(monkeypatch):
    some = people(2)
    taken = render_views(*some, SHOTS, Sensor(), 3)
    together = rendered(some[0], taken)
    monkeypatch.setitem(foreground.BATCH, "cpu", 1)
    apart = rendered(some[0], taken)
    for field in dataclasses.fields(together):
        one, other = getattr(together, field.name), getattr(apart, field.name)
        assert torch.allclose(one, other, atol=1e-5), field.name


def test_lens_distortion_is_applied():
    meshes, _ = people(1)
    pose = cameras.orbit(*(torch.tensor([v]) for v in (30.0, 0.0, 4.0, 0.85)))
    matrix = cameras.pinhole(torch.tensor([120.0]), (120, 80))
    straight = cameras.Cameras(pose, matrix, (120, 80))
    bent = dataclasses.replace(straight, k1=torch.tensor([-0.5]))
    both = cameras.join([foreground.resize_canvas(one, SIZE) for one in (straight, bent)])
    assert both.size == SIZE and both.k1.tolist() == [0.0, -0.5]
    person = torch.zeros(2, dtype=torch.int64)
    found = foreground.render(meshes, person, both)
    share = found.coverage.sum((1, 2, 3))
    assert float(share[1]) < 0.99 * float(share[0]), "barrel distortion shrinks the person"


def test_bad_input():
    meshes, _ = people(1)
    view = render_views(*people(1), [Shot(0, 0.0, 0.0, "a")], Sensor(), 0)[0]
    camera = foreground.crop_camera(view, SIZE)
    with pytest.raises(
        ValueError, match=r"of 1 meshes for each of 1 cameras, at least one; got \[1\]"
    ):
        foreground.render(meshes, torch.tensor([1]), camera)
    with pytest.raises(ValueError, match=r"for each of 1 cameras, at least one; got \[0, 0\]"):
        foreground.render(meshes, torch.tensor([0, 0]), camera)
    with pytest.raises(ValueError, match="one canvas size"):
        cameras.join([camera, dataclasses.replace(camera, size=(8, 8))])
