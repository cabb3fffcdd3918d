# SPDX-License-Identifier: Apache-2.0
"""The people that we draw: deterministic, true to their truth, and clothed."""

import dataclasses

import numpy as np
import pytest
import torch

from viewsynth import bodies
from viewsynth.data import folder
from viewsynth.world import garments, people

FRONT = people.Shot(name="front", elevation=0, azimuth=0, height=160)


@pytest.fixture(scope="module")
def pictures():
    return people.draw(2, seed=3)


def test_a_person_does_not_depend_on_who_else_is_drawn(pictures):
    again = people.draw(1, seed=3, shots=people.SHOTS[1:], first=1)[0]
    assert (again.image == pictures[3].image).all()
    assert (people.draw(1, seed=4)[0].image.shape != pictures[0].image.shape) or (
        people.draw(1, seed=4)[0].image != pictures[0].image
    ).any()


def test_truth_lies_on_the_person(pictures):
    for picture in pictures:
        column, row = np.floor(picture.keypoints).astype(int).T
        grown = np.pad(picture.mask, 4)
        touched = np.stack([grown[row + dy, column + dx] for dy in (0, 4, 8) for dx in (0, 4, 8)])
        assert touched.any(0).mean() > 0.9, picture.name
        assert picture.mask[:2].sum() == 0  # the crop has a margin


@pytest.mark.parametrize("azimuth, right_in_picture", [(0, "left"), (180, "right")])
def test_azimuth_says_which_side_is_seen(azimuth, right_in_picture):
    picture = people.one(0, 0, dataclasses.replace(FRONT, azimuth=azimuth))
    at = dict(zip(bodies.KEYPOINTS, picture.keypoints, strict=True))
    other = {"left": "right", "right": "left"}[right_in_picture]
    assert at[f"{right_in_picture}_shoulder"][0] > at[f"{other}_shoulder"][0] + 10


def test_elevation_moves_the_head_down_in_the_picture():
    spans = []
    for elevation in (0, 60):
        at = people.one(0, 0, dataclasses.replace(FRONT, elevation=elevation, moment="m")).keypoints
        spans.append(np.ptp(at[:, 1]) / np.ptp(at[:, 0]))
    assert spans[1] < 0.75 * spans[0]


def test_shots_of_one_moment_share_the_pose():
    shots = [dataclasses.replace(FRONT, name=name, moment="m") for name in ("a", "b")]
    a, b = people.draw(1, shots=tuple(shots))
    assert (a.joints == b.joints).all()
    c = people.one(0, 0, dataclasses.replace(FRONT, name="c"))
    assert not np.allclose(a.joints, c.joints)


def test_everyone_is_clothed_and_stands_on_the_ground():
    m = people.mannequin()
    torso = [bodies.PARTS.index("torso")]
    trunk = m.body.base_index[torch.isin(m.body.parts, torch.tensor(torso))].numpy()
    hip, shoulder = m.line("hip"), m.line("shoulder")
    low, high = hip[1] - 0.1, shoulder[1] - 0.1
    trunk = trunk[(m.rest[trunk, 1] > low) & (m.rest[trunk, 1] < high)]
    trunk = trunk[abs(m.rest[trunk, 0]) < shoulder[0] - 0.05]
    for number in range(40):
        outfit, shape = people.identity(0, number)
        worn = np.maximum(
            garments.top_depth(m.rest[trunk], outfit, m),
            garments.bottom_depth(m.rest[trunk], outfit, m),
        )
        assert worn.min() > 0, number
        assert float(shape[m.body.shapes.index("age")]) >= 0.6
    person = garments.dress(m, outfit, shape, people.moment(0, number, "m"))
    assert abs(person.vertices[np.unique(person.faces), 1].min()) < 1e-5


def test_folder_reads_what_is_written(tmp_path):
    shots = tuple(dataclasses.replace(shot, height=80) for shot in people.SHOTS)
    people.write(tmp_path / "people", 2, shots=shots)
    samples, rejects = folder.load(tmp_path / "people")
    assert not rejects and len(samples) == 4
    assert len({sample.pid for sample in samples}) == 2
    assert {(s.platform, s.elevation) for s in samples} == {("wearable", 5.0), ("cctv", 12.0)}
