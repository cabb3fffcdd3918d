# SPDX-License-Identifier: Apache-2.0
"""The rig: which cameras see a person and from where; longer plans keep their first images."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from viewsynth.world import rig

PEOPLE = range(24)


@pytest.fixture(scope="module")
def plans():
    return {number: rig.plan(3, number, 20) for number in PEOPLE}


def text(shot) -> str:
    """A shot as text, for comparison (places contain arrays)."""
    return repr(dataclasses.asdict(shot))


def test_a_longer_plan_starts_with_the_shorter_one(plans):
    for number in (0, 1, 5):
        for count in (1, 4, 13):
            short = rig.plan(3, number, count)
            assert [text(s) for s in short] == [text(s) for s in plans[number][:count]]


def test_names_are_unique(plans):
    for shots in plans.values():
        names = [(shot.camera, shot.index) for shot in shots]
        assert len(set(names)) == len({shot.name for shot in shots}) == 20
        for camera, count in Counter(camera for camera, _ in names).items():
            assert {index for c, index in names if c == camera} == set(range(count))


def test_each_person_has_aerial_and_ground_cameras_and_all_cameras_are_used_equally():
    counts = Counter()
    for number in range(2000):
        chosen = rig.cameras_of(0, number)
        assert len(set(chosen)) == len(chosen) >= 5
        assert sum(camera in rig.AERIAL for camera in chosen[:4]) == 2
        counts.update(chosen)
    assert set(counts) == set(range(1, 14))
    assert max(counts.values()) < 1.15 * min(counts.values())


def test_cameras_stay_within_their_ranges(plans):
    for shots in plans.values():
        for shot in shots:
            camera, station = rig.CAMERAS[shot.camera - 1], shot.station
            up = station.distance * math.sin(math.radians(station.elevation)) + rig.MIDDLE
            along = station.distance * math.cos(math.radians(station.elevation))
            assert (shot.platform == "drone") == (shot.camera <= 5)
            if shot.camera <= 5:
                assert camera.elevation[0] <= station.elevation <= camera.elevation[1]
                assert 8 < up < 126
                assert (station.elevation >= 85) == (shot.camera == 1)
            else:
                assert up == pytest.approx(camera.altitude[0])
                assert camera.distance[0] - 1e-6 <= along <= camera.distance[1] + 1e-6
            assert abs(shot.time) < rig.WALK * 0.4 and max(map(abs, station.offset)) <= 0.36


def test_a_camera_keeps_its_lens_and_street_but_not_its_light():
    taken = [shot for number in range(40) for shot in rig.plan(0, number, 8) if shot.camera == 7]
    assert len(taken) > 10 and len({repr(shot.lens) for shot in taken}) == 1
    assert len({repr(shot.place.ground) for shot in taken}) == 1
    assert len({repr(shot.place.sun) for shot in taken}) > 10
    spots = []
    for shot in taken:  # position of the camera from position, heading and azimuth of the person
        rad = math.radians(shot.place.heading + shot.station.azimuth)
        along = shot.station.distance * math.cos(math.radians(shot.station.elevation))
        spots.append(np.add(shot.place.at, (along * math.sin(rad), along * math.cos(rad))))
    assert np.ptp(spots, axis=0).max() < 1e-6


def test_an_instant_is_one_moment_seen_by_five_cameras():
    elevations = []
    for number in PEOPLE:
        fixed, worn, *drones = rig.instant(1, number, 0)
        assert (fixed.platform, worn.platform) == ("cctv", "wearable")
        apart = abs((fixed.station.azimuth - worn.station.azimuth + 180) % 360 - 180)
        assert apart > 140
        front = [math.cos(math.radians(shot.station.azimuth)) for shot in (fixed, worn)]
        assert max(front) > 0.7
        assert all(shot.platform == "drone" for shot in drones)
        for shot, (low, high) in zip(drones, rig.BINS, strict=True):
            assert low <= shot.station.elevation <= high
        shots = (fixed, worn, *drones)
        assert len({shot.camera for shot in shots}) == 5
        assert len({id(shot.place) for shot in shots}) == 1
        assert {(shot.moment, shot.time, shot.instant) for shot in shots} == {("instant-0", 0, "0")}
        elevations += [shot.station.elevation for shot in drones]
    counts, _ = np.histogram(elevations, [25, 35, 47, 58, 68, 79, 90])
    assert counts.min() >= 4
    assert text(rig.instant(1, 0, 1)[0]) != text(rig.instant(1, 0, 0)[0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20])
def test_every_query_has_a_match_of_another_camera_in_the_gallery(count):
    total = 0
    for number in range(80):
        chosen = rig.cameras_of(0, number)
        found = [(rig.split(number, k), chosen[k % len(chosen)]) for k in range(count)]
        splits = {split for split, _ in found}
        assert splits <= ({"query", "gallery"} if number % 2 else {"train"})
        queries = [camera for split, camera in found if split == "query"]
        gallery = {camera for split, camera in found if split == "gallery"}
        assert all(gallery - {camera} for camera in queries)
        if len(queries) == 2:
            assert sum(camera in rig.AERIAL for camera in queries) == 1
        total += len(queries)
    assert (total > 0) == (count > 2)
