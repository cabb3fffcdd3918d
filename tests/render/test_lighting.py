# SPDX-License-Identifier: Apache-2.0
"""Light: shadow maps against brute force, and the shading of a person by the drawn sun."""

import dataclasses

import numpy as np
import pytest
import torch
from figures import ball, figure, people

from viewsynth import cameras
from viewsynth.render import lighting, scene, shade
from viewsynth.render.options import CHIP, LENS, Scene, Sensor
from viewsynth.render.views import Shot, render_views

SUN = 0.6, 0.64, 0.48
PLACE = dataclasses.replace(scene.place(0), sun=SUN, strength=1.0, softness=0.02)


def joined(*meshes):
    """One mesh of several."""
    start = np.cumsum([0, *(len(one.vertices) for one in meshes)])
    faces = [one.faces + int(k) for one, k in zip(meshes, start, strict=False)]
    uvs = torch.cat([one.uvs for one in meshes])
    return dataclasses.replace(
        meshes[0],
        vertices=torch.cat([one.vertices for one in meshes]),
        faces=torch.cat(faces),
        uvs=uvs,
        face_uvs=torch.cat(faces),
    )


def moved(mesh, size, by):
    return dataclasses.replace(mesh, vertices=mesh.vertices * size + torch.tensor(by))


def test_tops_are_the_highest_points_towards_the_sun():
    mesh = figure()
    tops = lighting.shadows([mesh], torch.tensor([0]), [PLACE]).tops[0]
    corners = mesh.vertices[mesh.faces].double().numpy()
    middle = -0.5 * np.array(SUN)[[0, 2]] / SUN[1]
    rng, scale, hits = np.random.default_rng(0), lighting.MAP / (2 * lighting.REACH), 0
    inside = (tops[1:-1, 1:-1] > 0).nonzero().numpy() + 1
    rows = np.concatenate([rng.integers(0, lighting.MAP, (60, 2)), rng.choice(inside, 60)])
    for row, column in rows:
        x, z = (np.array([column, row]) + 0.5 - lighting.MAP / 2) / scale + middle
        highest = towards_sun(corners, np.array([x, 0.0, z]))
        around = tops[row - 1 : row + 2, column - 1 : column + 2]
        if (around > 0).any() and not (around > 0).all():
            continue  # on the outline a pixel decides
        assert float(tops[row, column]) == pytest.approx(highest, abs=0.05)
        hits += highest > 0
    assert hits > 30


def towards_sun(corners: np.ndarray, origin: np.ndarray) -> float:
    """Height of the last triangle that a ray to the sun meets (Moeller and Trumbore); 0 = none."""
    a, u, v = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(np.array(SUN), v)
    scale = (u * across).sum(1)
    flat = np.abs(scale) < 1e-12
    scale = np.where(flat, 1, scale)
    first = ((origin - a) * across).sum(1) / scale
    turned = np.cross(origin - a, u)
    second = (turned @ np.array(SUN)) / scale
    far = (v * turned).sum(1) / scale
    met = ~flat & (first >= 0) & (second >= 0) & (first + second <= 1) & (far > 0)
    return float((far[met] * SUN[1]).max()) if met.any() else 0.0


def shading(mesh, azimuth, elevation=50.0, place=PLACE):
    """Factors of the person's colour in one camera, NaN beside the person.  [H, W]"""
    angles = (torch.tensor([value]) for value in (elevation, azimuth, 12.0, 0.8))
    size = (160, 120)
    view = cameras.Cameras(
        cameras.orbit(*angles), cameras.pinhole(torch.tensor([800.0]), size), size
    )
    one = torch.tensor([0])
    buffers = shade.render([mesh], view, one)
    tops = lighting.shadows([mesh], one, [place]).tops[0]
    factor = lighting.on_person(buffers, view, 0, place, tops)
    return torch.where(buffers.face[0] >= 0, factor, torch.nan)


def test_the_side_towards_the_sun_is_bright():
    towards = np.degrees(np.arctan2(SUN[0], SUN[2]))
    lit, away = (shading(figure(), float(towards + turn)).nanmean() for turn in (0, 180))
    overcast = dataclasses.replace(PLACE, strength=0.0)
    plain = [
        shading(figure(), float(t), place=overcast).nanmean() for t in (towards, towards + 180)
    ]
    assert lit > plain[0] + 0.05 and away < plain[1] - 0.05
    assert abs(plain[0] - plain[1]) < 0.02


def test_a_hat_shades_what_is_below_it_and_nothing_else():
    body, hat = moved(ball(), 0.3, [0.0, 0.5, 0.0]), moved(ball(), 0.12, [0.55, 1.2, 0.44])
    alone, both = shading(body, 35.0), shading(joined(body, hat), 35.0)
    hidden = shading(hat, 35.0).isfinite()
    change = torch.where(hidden, 0.0, (both - alone).nan_to_num(0.0))
    assert change.min() < -0.2 and change.max() < 0.02
    assert 0.01 < (change < -0.1).sum() / alone.isfinite().sum() < 0.5


def test_feet_are_darker_than_the_trunk():
    place = dataclasses.replace(PLACE, strength=0.0)
    factor = shading(figure(), 0.0, 20.0, place)
    rows = factor.isfinite().any(1).nonzero()[:, 0]
    feet, trunk = factor[rows[-6:]].nanmean(), factor[rows[len(rows) // 2]].nanmean()
    assert feet < trunk - 0.04


def test_one_person_stands_on_many_grounds_and_many_people_on_the_same(tmp_path):
    from PIL import Image

    for k in range(4):
        grey = np.full((32, 32, 3), 60 + 40 * k, np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{k}.png", dpi=(40 * 0.0254, 40 * 0.0254))
    meshes, pids = people(6)
    shots = [Shot(p, 90.0, 0.0, str(k)) for p in range(6) for k in range(8)]
    kit = Sensor(pixels=40, margin=0.2, **LENS, **CHIP)
    used = {}
    for shot, view in zip(
        shots, render_views(meshes, pids, shots, kit, 0, Scene(grounds=tmp_path)), strict=True
    ):
        used.setdefault(shot.person, set()).add(round(int(view.image[0, 0, 0]) / 40))
    assert min(map(len, used.values())) >= 3 and set.intersection(*used.values())
