# SPDX-License-Identifier: Apache-2.0
"""Rendered images of people: reproducible, consistent with their ground truth, readable."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from viewsynth import bodies, cameras
from viewsynth.data import folder
from viewsynth.world import capture, rig, rows, shots

FRONT = shots.SimpleShot(name="front", elevation=0, azimuth=0, height=120)
AT = {name: row for row, name in enumerate(bodies.KEYPOINTS)}


@pytest.fixture(scope="module")
def people():
    return shots.render(2, seed=3)


@pytest.fixture(scope="module")
def planned():
    plan = [*rig.plan(3, 0, 4), *rig.instant(3, 0, 0)]
    return plan, shots.take(3, 0, plan)


def same(a: shots.RenderedShot, b: shots.RenderedShot) -> bool:
    return np.array_equal(a.image, b.image) and np.array_equal(a.photo.labels, b.photo.labels)


def test_an_image_does_not_depend_on_other_images(people, planned):
    plan, renderings = planned
    assert same(shots.render_shot(3, 0, plan[3]), renderings[3])
    again = shots.render(1, seed=3, shots=shots.SHOTS[1:], first=1)[0]
    assert same(again, people[3])
    assert not same(shots.render_one(1, 4, shots.SHOTS[1]), again)
    assert same(shots.take(3, 0, plan[:1])[0], renderings[0])


def test_keypoints_are_the_projected_joints(people, planned):
    for rendered in [*people, *planned[1]]:
        photo = rendered.photo
        crop = cameras.Cameras(
            torch.as_tensor(photo.world_to_camera)[None].float(),
            torch.as_tensor(photo.intrinsics)[None].float(),
            photo.image.shape[:2],
            k1=torch.tensor([float(photo.k1)]),
        )
        pixels, _ = crop.project(torch.as_tensor(rendered.joints)[None])
        assert np.allclose(pixels[0].numpy(), photo.keypoints[:, :2], atol=0.05)
        centre = -photo.world_to_camera[:3, :3].T @ photo.world_to_camera[:3, 3]
        assert centre[1] == pytest.approx(rendered.altitude, abs=1e-3 * rendered.altitude)


def test_visible_keypoints_lie_on_the_person(people, planned):
    for rendered in [*people, *planned[1]]:
        x, y, seen = rendered.photo.keypoints.T
        column, row = np.floor([x[seen > 0], y[seen > 0]]).astype(int)
        grown = np.pad(rendered.mask, 3)
        touched = np.stack([grown[row + a, column + b] for a in (0, 3, 6) for b in (0, 3, 6)])
        assert touched.any(0).mean() > 0.9, rendered.shot.name
        assert rendered.mask.any() and rendered.image.shape[:2] == rendered.photo.labels.shape


@pytest.mark.parametrize("azimuth, right_in_image", [(0, "left"), (180, "right")])
def test_azimuth_decides_which_side_is_seen(azimuth, right_in_image):
    points = shots.render_one(0, 0, dataclasses.replace(FRONT, azimuth=azimuth)).photo.keypoints
    other = {"left": "right", "right": "left"}[right_in_image]
    assert points[AT[f"{right_in_image}_shoulder"], 0] > points[AT[f"{other}_shoulder"], 0] + 5


def test_shots_of_one_moment_share_the_pose_and_elevation_foreshortens():
    low, high, own = (
        shots.render_one(
            0, 0, dataclasses.replace(FRONT, name=name, elevation=elevation, moment=moment)
        )
        for name, elevation, moment in (("a", 0, "m"), ("b", 60, "m"), ("c", 0, ""))
    )
    assert np.array_equal(low.joints, high.joints) and not np.allclose(low.joints, own.joints)
    spans = [np.ptp(p.photo.keypoints[:, 1]) / np.ptp(p.photo.keypoints[:, 0]) for p in (low, high)]
    assert spans[1] < 0.8 * spans[0]
    assert 90 < low.image.shape[0] < 150


def test_an_instant_shows_one_pose_and_one_light(planned):
    plan, renderings = planned
    joints = [rendered.joints for rendered in renderings[4:]]
    assert all(np.array_equal(joints[0], other) for other in joints[1:])
    assert len({rendered.photo.target_height for rendered in renderings[4:]}) == 1
    places = [rows.image_row(one, "a.jpg", "paired", 3)["place"] for one in renderings[4:]]
    assert all(place == places[0] for place in places)


def test_a_walk_passes_a_fixed_camera():
    station = capture.Station(elevation=10.0, azimuth=30.0, distance=8.0)

    def centre(one):
        e, a = math.radians(one.elevation), math.radians(one.azimuth)
        return one.distance * np.array(
            [math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)]
        )

    moved = centre(capture.passed(station, 1.5)) - centre(station)
    assert np.allclose(moved, [0, 0, -1.5], atol=1e-9)
    assert np.allclose(centre(capture.passed(station, 0.0)), centre(station))


def test_images_of_one_walk_share_motion_and_light_but_not_phase():
    walk = [shot for shot in rig.plan(0, 2, 30) if shot.camera == rig.cameras_of(0, 2)[1]][:2]
    one, two = shots.take(0, 2, walk)
    assert one.motion.kind == two.motion.kind and one.motion.speed == two.motion.speed
    assert one.motion.phase != two.motion.phase
    assert np.array_equal(one.shot.place.sun, two.shot.place.sun)
    assert abs((one.station.azimuth - two.station.azimuth + 180) % 360 - 180) < 60


def test_folder_reads_the_written_images(tmp_path):
    simple = tuple(dataclasses.replace(shot, height=80) for shot in shots.SHOTS)
    shots.write_folder(tmp_path / "people", 2, shots=simple)
    found = folder.load(tmp_path / "people")
    samples, rejects = found.samples, found.rejects
    assert not rejects and len(samples) == 4
    assert len({sample.pid for sample in samples}) == 2
    assert {(s.platform, s.elevation) for s in samples} == {("wearable", 5.0), ("cctv", 12.0)}
