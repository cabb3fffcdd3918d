# SPDX-License-Identifier: Apache-2.0
"""Guesses: distances from the guessed sheets, light of the back, the surface and what is behind."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from viewsynth import reconstruct
from viewsynth.metrics.colours import linear, srgb
from viewsynth.reconstruct import canvas, complete, drawing, exposure, guess, relief, surface
from viewsynth.reconstruct.canvas import SIZE
from viewsynth.reconstruct.complete import KINDS
from viewsynth.reconstruct.fit import Fit
from viewsynth.reconstruct.warp import move
from viewsynth.records import Sample
from viewsynth.runtime import weights
from viewsynth.world import shots

HEIGHT, WIDTH, SCALE = 200, 110, 100.0  # of the crop, pixels; pixels per metre
TOP, BAG = KINDS.index("top"), KINDS.index("bag")


@pytest.fixture(scope="module")
def walker(tools):
    """A clothed body in a walking pose, standing on the ground.  [V, 3]"""
    body, clothier = tools.body, tools.poser.clothier
    bare = body.vertices(body.shape_mean[None], tools.poser.bank[:1])
    dressed = clothier.dress(bare, clothier.cloth[None], bare.new_zeros(1))[0]
    return dressed - dressed.new_tensor([0, dressed[:, 1].min(), 0])


@pytest.fixture(scope="module")
def level():
    """A level camera in front."""
    some = {name: torch.zeros(1) for name in ("elevation", "azimuth", "error", "silhouette")}
    return Fit(
        shape=torch.zeros(1, 1),
        offsets=torch.zeros(1, 1),
        pose=torch.zeros(1, 1, 3),
        scale=torch.full((1,), SCALE),
        aspect=torch.ones(1),
        shift=torch.tensor([[WIDTH / 2, 190.0]]),
        **some,
    )


@pytest.fixture(scope="module")
def placed(tools, walker, level):
    """The canvas of a crop that shows noise."""
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    mask = np.ones((HEIGHT, WIDTH), np.float32)
    [one] = canvas.canvases(tools.body, level, [0], walker[None], [image], [mask])
    return one


def completion(one: canvas.Canvas, **values) -> complete.Completion:
    """A completion that says nothing new, with some values changed."""
    ones = torch.ones(1, *SIZE)
    kind = torch.zeros(1, 2, len(KINDS), *SIZE)
    kind[:, :, TOP] = 1
    known = {
        "half": torch.from_numpy(one.half)[None],
        "middle": 0 * ones,
        "depth_scale": 0 * ones,
        "colour": torch.full((1, 2, 3, *SIZE), 0.5),
        "colour_scale": torch.zeros(1, 2, *SIZE),
        "kind": kind,
        "azimuth": torch.tensor([[1.0, 0.0]]),
        "rider": torch.zeros(1),
        "light": torch.zeros(1, 3),
    }
    return complete.Completion(**known | values)


def made(tools, one, **values) -> guess.Guess:
    return guess._guess(tools.body, tools.poser.canonical, one, completion(one, **values), 0)


def test_distances_are_those_from_the_sheets(tools, placed, walker, level):
    """Brute force at the vertices of the trunk, which lie on the drawn sheets or between them."""
    one = made(tools, placed)
    pixels, depth = level.project(walker[None], torch.tensor([0]))
    canonical = tools.poser.canonical.vertices.cpu().numpy()
    found, sure = one.distance(canonical, pixels[0], depth[0].numpy())
    at = one.places(pixels[0]).numpy()
    expected = np.full(len(at), np.nan)
    for k, (x, y) in enumerate(np.floor(at).astype(int)):
        if placed.half[y, x] > 0:
            expected[k] = abs(float(depth[0, k]) - placed.middle[y, x]) - placed.half[y, x]
    known = np.isfinite(expected)
    assert known.mean() > 0.5 and (sure > 0).mean() > 0.6
    assert np.median(np.abs(found - expected)[known]) < 0.01, "metres"
    deep, _ = one.distance(canonical, pixels[0], depth[0].numpy() + 1)
    assert (deep > 0.4).all(), "a metre further away is outside"
    _, above = one.distance(
        canonical, pixels[0] - torch.tensor([0, 4.0 * HEIGHT]), depth[0].numpy()
    )
    assert not above.any(), "nothing is said of what lies beside the canvas"


def test_a_row_of_a_batch_is_the_row_alone(tools, placed):
    torch.manual_seed(0)
    model = complete.Completer().eval()
    torch.nn.init.normal_(model.last[-1].weight, 0, 0.05)
    other = dataclasses.replace(placed, image=255 - placed.image)
    both = guess.guesses(model, tools.body, tools.poser.canonical, [other, placed])
    [alone] = guess.guesses(model, tools.body, tools.poser.canonical, [placed])
    for field in dataclasses.fields(alone):
        first, second = (getattr(x, field.name).astype(float) for x in (both[1], alone))
        assert np.abs(first - second).mean() < 1e-3, field.name


@given(st.floats(0.4, 2.5), st.floats(0.4, 2.5))
def test_the_back_gets_the_light_of_the_crop_kind_by_kind(upper, lower):
    """Two kinds whose light differs; the guess of the front is the crop without that light."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(60, 190, (2, *SIZE, 3)).astype(np.float32)
    kinds = np.full((2, *SIZE), TOP, np.uint8)
    kinds[:, SIZE[0] // 2 :] = BAG
    gain = np.where(kinds[0] == TOP, upper, lower)[..., None]
    crop = srgb(linear(colours[0]) * gain)
    one = guess.Guess(
        box=np.array([0.0, 0, *SIZE[::-1]]),
        maps=np.zeros((4, *SIZE), np.float32),
        anchors=np.zeros((2, 3, *SIZE), np.float32),
        colours=colours,
        certainty=np.ones(SIZE, np.float32),
        kinds=kinds,
        mask=np.ones(SIZE, np.float32),
        exposure=0.0,
    )
    expected = srgb(linear(colours[1]) * gain)
    apart = np.abs(one.toned(crop) - expected)
    assert apart[(expected < 250).all(-1)].mean() < 4, "of 255; clipped pixels and logs of sums"


def shell_with(tools, walker, level, said):
    canonical = tools.poser.canonical
    motions = canonical.nodes.motions(walker[None])
    at = level.project(walker[None], torch.tensor([0]))
    front = drawing.draw(*at, tools.body.faces, (HEIGHT, WIDTH))
    mask = front.coverage
    one = relief.relief(
        tools.body, canonical, tools.volume, level, 0, front, motions[0], mask > 0.5
    )
    shell = surface.fuse(tools.volume, level, [0], [one], motions, [1.0], [said])
    binding = canonical.nodes.bind(shell.vertices)
    return shell, binding, motions[0]


def test_a_guessed_rucksack_is_on_the_surface(tools, walker, level, placed):
    """25 cm behind the upper back, nothing elsewhere."""
    rows, columns = np.nonzero(placed.parts % canvas.ARM_BEFORE == canvas.TORSO)
    low, high = np.quantile(rows, [0.1, 0.7]).astype(int)
    side = slice(*np.quantile(columns, [0.25, 0.75]).astype(int))
    deeper = np.zeros(SIZE, np.float32)
    deeper[low:high, side] = 0.25
    half = torch.from_numpy(placed.half + deeper / 2)[None]
    middle = torch.from_numpy(deeper / 2)[None]
    depths = []
    for said in (made(tools, placed), made(tools, placed, half=half, middle=middle)):
        shell, binding, motion = shell_with(tools, walker, level, said)
        vertices = move(shell.vertices, binding, motion).numpy()
        assert trimesh.Trimesh(vertices, shell.faces, process=False).is_watertight
        pixels = level.project(torch.from_numpy(vertices)[None], torch.tensor([0]))[0][0]
        at = np.clip(said.places(pixels).numpy().astype(int), 0, np.subtract(SIZE[::-1], 1))
        inner = deeper[at[:, 1], at[:, 0]] > 0
        depths.append((-vertices[inner, 2].min(), -vertices[~inner, 2].min()))
    (flat, legs), (behind, same) = depths
    assert behind > flat + 0.15 and abs(same - legs) < 0.1, "metres"


def test_what_is_behind_agrees_with_rays(tools, walker, level, placed):
    """The vertices that a guess colours are those that a ray from behind meets first."""
    one = made(tools, placed)
    shell, binding, motion = shell_with(tools, walker, level, None)
    found = exposure.from_behind(shell, binding, level, 0, motion, one, 1.0)
    vertices = move(shell.vertices, binding, motion).numpy()
    mesh = trimesh.Trimesh(vertices, shell.faces, process=False)
    rng = np.random.default_rng(0)
    shown = rng.choice(np.flatnonzero(found.weight > 0.05), 100, replace=False)
    away = np.flatnonzero((found.weight == 0) & (mesh.vertex_normals[:, 2] < -0.3))
    hidden = rng.choice(away, min(len(away), 100), replace=False)
    blocked = [_blocked(vertices, shell.faces, vertices[some]) for some in (shown, hidden)]
    assert blocked[0].mean() < 0.05
    assert len(hidden) < 20 or blocked[1].mean() > 0.7
    assert (found.weight[mesh.vertex_normals[:, 2] > 0.3] == 0).all(), "fronts"


def _blocked(vertices, faces, points) -> np.ndarray:
    """Whether something lies more than `HIDDEN` behind each point, by brute force."""
    corners = vertices[faces]
    x, y, z = (corners[..., axis] for axis in range(3))
    found = []
    for px, py, pz in points:
        sides = [
            (x[:, b] - x[:, a]) * (py - y[:, a]) - (y[:, b] - y[:, a]) * (px - x[:, a])
            for a, b in ((0, 1), (1, 2), (2, 0))
        ]
        sides = np.stack(sides, 1)
        hit = (sides > 0).all(1) | (sides < 0).all(1)
        share = sides[hit][:, [1, 2, 0]] / sides[hit].sum(1, keepdims=True)
        found.append(((share * z[hit]).sum(1) < pz - exposure.HIDDEN).any())
    return np.array(found)


def test_a_network_is_used_and_recorded(tools, tmp_path):
    """Through `reconstruct`: another person, another fingerprint, and no guess counts as seen."""
    torch.manual_seed(0)
    model = complete.Completer()
    torch.nn.init.normal_(model.last[-1].weight, 0, 0.02)
    complete.save(model, tmp_path / "net.safetensors", {})
    files = weights.reconstruction(tmp_path / "net.safetensors")
    rules = dataclasses.replace(tools, completer=None, learned="")
    learned = dataclasses.replace(
        tools,
        completer=complete.load(files["completion"]),
        learned=weights.sha256(files["completion"]),
    )
    one = shots.render(1)[0]
    sample = Sample(paths=(), pid=one.pid, name=one.shot.name)
    people = [
        reconstruct.reconstruct([[sample]], [[one.image]], some)[0].person
        for some in (rules, learned, learned)
    ]
    assert people[1].fingerprint == people[2].fingerprint != people[0].fingerprint
    assert np.array_equal(people[1].surface.texture, people[2].surface.texture)
    assert people[1].surface.texture.shape[1] > people[0].surface.texture.shape[1], "a chart more"
    back = people[1].surface.seen[:, people[0].surface.texture.shape[1] :]
    assert (back > 0).mean() > 0 and np.median(back[(back > 0) & (back < 250)]) <= 127
    with pytest.raises(FileNotFoundError, match="rules or a file"):
        weights.reconstruction(tmp_path / "none")
    (tmp_path / "other").write_bytes(b"no network")
    with pytest.raises(ValueError, match="no completion network"):
        reconstruct.load(tools.body, files | {"completion": tmp_path / "other"})
