# SPDX-License-Identifier: Apache-2.0
"""Dressed people: geometry, clothes that cover the body in every pose, reproducibility."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from viewsynth import cameras
from viewsynth.bodies import poses
from viewsynth.render import zbuffer
from viewsynth.world import LABELS, character, gait, garments, hair, motions, people, shells
from viewsynth.world.mannequin import mannequin

CLOTHES = [LABELS.index(name) for name in ("top", "bottom", "shoes")]


def walking(phase: float = 60.0) -> torch.Tensor:
    return mannequin().body.from_angles(poses.walk(torch.tensor([phase]), 0.9))[0]


def seen(person: character.Dressed, elevation: float, azimuth: float, size=(160, 110)):
    """Triangle and barycentric coordinates of the pixels that show the person."""
    tall = float(person.vertices[:, 1].max())
    angle = [torch.tensor([float(v)]) for v in (elevation, azimuth, 6.0, tall / 2)]
    focal = torch.tensor([size[0] / 2.1 * 6.0])
    camera = cameras.Cameras(cameras.orbit(*angle), cameras.pinhole(focal, size), size)
    pixels, depth = camera.project(torch.from_numpy(person.vertices)[None])
    hit = zbuffer.rasterize(pixels, depth, torch.from_numpy(person.faces), size)
    face, bary = hit.face[0].numpy(), hit.bary[0].numpy()
    return face[face >= 0], bary[face >= 0]


def grid(side: int = 12) -> shells.Shell:
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    points = np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32)
    a = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.concatenate(
        [np.stack([a, a + 1, a + side], 1), np.stack([a + 1, a + side + 1, a + side], 1)]
    )
    return shells.Shell(points, points + 1, np.ones((side * side, 1), np.float32), faces)


def area(shell: shells.Shell) -> float:
    a, b, c = (shell.points[shell.faces[:, k]] for k in range(3))
    return float(np.cross(b - a, c - a)[:, 2].sum() / 2)


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2])
@pytest.mark.parametrize("offset", [0.1, 0.31, 0.5])
def test_cut_is_straight_and_both_parts_fill_the_whole(angle, offset):
    whole = grid()
    field = whole.points[:, 0] * np.cos(angle) + whole.points[:, 1] * np.sin(angle) - offset
    inside, outside = shells.cut(whole, field), shells.cut(whole, -field)
    assert area(inside) + area(outside) == pytest.approx(1, abs=1e-5)
    left = inside.points @ [np.cos(angle), np.sin(angle), 0] - offset
    assert left.min() > -1e-5
    assert np.allclose(inside.rest, inside.points + 1, atol=1e-5)  # all attributes are cut alike
    edges = np.sort(
        np.concatenate([inside.faces[:, [0, 1]], inside.faces[:, [1, 2]], inside.faces[:, [2, 0]]]),
        1,
    )
    border, times = np.unique(edges, axis=0, return_counts=True)
    assert times.max() == 2  # no edge is torn or doubled
    mid = inside.points[border[times == 1]].mean(1)
    on_cut = np.abs(mid @ [np.cos(angle), np.sin(angle), 0] - offset) < 1e-4
    on_rim = np.abs(mid[:, :2] - 0.5).max(1) > 0.4999
    assert (on_cut | on_rim).all()


def test_cloth_bridges_hollows_but_never_sinks():
    rng = np.random.default_rng(0)
    shell = grid(20)
    points = shell.points + np.float32([0, 0, 0.05]) * rng.random((400, 1), dtype=np.float32)
    normal = shells.normals(points, shell.faces)
    thick = np.full(400, 0.01, np.float32)
    mean = shells.averaging(shell.faces, 400)
    loose = shells.swell(points, normal, thick, np.full(400, 0.9), mean)
    assert (((loose - points) * normal).sum(1) > 0.0099).all()
    assert loose[:, 2].std() < 0.6 * points[:, 2].std()


def test_people_stand_on_the_ground():
    for number in range(4):
        person = character.Character(people.identity(0, number)).posed(walking(number * 70))
        low, high = person.vertices[:, 1].min(), person.vertices[:, 1].max()
        assert -0.03 < low < 1e-4 and 1.3 < high < 2.3
        long = np.linalg.norm(person.normals[np.unique(person.faces)], axis=1)
        assert (np.abs(long - 1) < 1e-3).mean() > 0.995


def test_a_pose_moves_the_body_as_the_body_model_does():
    """Without local changes, bare skin is where Anny puts it."""
    identity = people.identity(0, 1)
    identity = dataclasses.replace(identity, local=dict.fromkeys(identity.local, 0.0), scale=1.0)
    m, dressed = mannequin(), character.Character(identity)
    person = dressed.posed(walking())
    shape = torch.tensor([[identity.phenotype[name] for name in m.body.shapes]]).float()
    body = m.body.vertices(shape, walking()[None])[0].numpy()
    hands = np.flatnonzero(np.abs(person.rest[:, 0]) > 0.8)
    shift = person.keypoints[0] - (
        body[m.body.keypoint_vertices[0]] * m.body.keypoint_weights[0].numpy()[:, None]
    ).sum(0)
    every = [np.abs(body + shift - point).sum(1).min() for point in person.vertices[hands[::50]]]
    assert max(every) < 1e-4


def uncovered(number: int, pose: torch.Tensor) -> tuple[int, int]:
    """Visible pixels of skin that should be under a garment, and pixels of garments."""
    identity = people.identity(0, number)
    dressed, m = character.Character(identity), mannequin()
    person, bad, all_ = dressed.posed(pose), 0, 0
    on = garments.dress(m, identity.outfit, m.template(identity)[0])
    for elevation, azimuth in ((5, 0), (10, 120), (35, 210), (60, 300), (88, 0)):
        face, bary = seen(person, elevation, azimuth)
        _, _, label = person.shade(face, bary)
        skin = person.piece[face] == person.pieces.index(character.BODY)
        rest = (person.rest[person.faces[face]] * bary[..., None]).sum(1)
        at = shells.Shell(
            rest, rest, rest, rest
        )  # near enough: only openings depend on template points
        depth = np.max([field(at) for field in on.cover], axis=0)
        bad += int((skin & (depth > 0.002)).sum())
        all_ += int(np.isin(label, CLOTHES).sum())
    return bad, all_


def test_skin_stays_under_garments():
    """At most 0.5 % of the pixels of garments show skin, over people and poses."""
    rng, body = np.random.default_rng(5), mannequin().body
    counts = []
    for number in range(12):
        motion = motions.sample_motion(rng)
        counts.append(uncovered(number, gait.pose(motion, body)))
    bad, all_ = np.sum(counts, 0)
    assert all_ > 50_000
    assert bad / all_ <= 0.005, counts


def test_legs_do_not_pass_through_skirts():
    """In images of people who walk in skirts, no lining or skin shows above the hem."""
    skirts = [
        n for n in range(300) if (b := people.identity(0, n).outfit.bottom) and b.kind == "skirt"
    ][:3]
    assert skirts
    for number in skirts:
        dressed = character.Character(people.identity(0, number))
        for phase in (0, 90, 250):
            person = dressed.posed(walking(phase))
            tube = np.flatnonzero(person.piece == [p.name for p in person.pieces].index("skirt"))
            hem = person.vertices[person.faces[tube]][..., 1].min()
            for azimuth in (0, 90, 200):
                face, bary = seen(person, 5, azimuth)
                y = (person.vertices[person.faces[face]][..., 1] * bary).sum(1)
                name = np.array([p.name for p in person.pieces])[person.piece[face]]
                rest = (person.rest[person.faces[face]] * bary[..., None]).sum(1)
                legs = (name == "lining") | ((name == "body") & (rest[:, 1] < 0.9))
                legs &= np.abs(rest[:, 0]) < 0.3
                assert (legs & (y > hem + 0.06)).mean() < 0.002


def test_labels_match_what_is_worn():
    identity = next(
        one
        for one in (people.identity(0, n) for n in range(200))
        if one.outfit.headwear and one.outfit.carried and one.outfit.bottom
    )
    person, found = character.Character(identity).posed(walking()), set()
    for azimuth in (0, 90, 180, 270):
        found |= set(person.shade(*seen(person, 15, azimuth))[2].tolist())
    names = {LABELS[k] for k in found}
    assert {"face", "headwear", "top", "bottom", "shoes", "carried"} <= names
    assert "background" not in names and "occluder" not in names


def test_a_person_does_not_depend_on_other_people():
    a = character.Character(people.identity(0, 3)).posed(walking())
    character.Character(people.identity(0, 8))
    b = character.Character(people.identity(0, 3)).posed(walking())
    assert (a.vertices == b.vertices).all() and (a.faces == b.faces).all()
    face, bary = seen(a, 20, 30)
    both = [person.shade(face, bary) for person in (a, b)]
    assert all((x == y).all() for x, y in zip(*both, strict=True))
    part = a.shade(face[100:200], bary[100:200])
    assert np.allclose(part[0], both[0][0][100:200], atol=1e-6)


@pytest.mark.parametrize("kind", list(hair.THICK))
def test_hair_covers_the_crown_and_not_the_face(kind):
    identity = people.identity(0, 1)
    bare = dataclasses.replace(identity.outfit, headwear=None)
    identity = dataclasses.replace(
        identity, outfit=bare, hair=dataclasses.replace(identity.hair, kind=kind)
    )
    person = character.Character(identity).posed(walking())
    top = person.shade(*seen(person, 89, 0))[2]
    front = person.shade(*seen(person, 0, 0))[2]
    assert (top == LABELS.index("hair")).mean() > 0.1
    assert (front == LABELS.index("face")).sum() > 40


@pytest.mark.parametrize("kind", ["backpack", "shoulder_bag", "tote", "umbrella"])
def test_carried_things_are_where_they_belong(kind):
    identity = people.identity(0, 1)
    thing = dataclasses.replace(identity.outfit.top, kind=kind)
    dressed = character.Character(
        dataclasses.replace(identity, outfit=dataclasses.replace(identity.outfit, carried=(thing,)))
    )
    person = dressed.posed(walking())
    of = np.array([p.name == kind for p in person.pieces])[person.piece]
    points = person.vertices[np.unique(person.faces[of])]
    middle, tall = (points.min(0) + points.max(0)) / 2, person.vertices[:, 1].max()
    assert points[:, 1].min() > 0
    if kind == "backpack":
        assert points[:, 2].min() < -0.2 and 0.55 * tall < middle[1] < 0.85 * tall
    else:
        assert np.abs(points[:, 0]).max() > 0.18 and middle[1] < 0.75 * tall
