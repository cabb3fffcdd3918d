# SPDX-License-Identifier: Apache-2.0
"""Clothed surfaces of a walking body with a known skirt, seen by cameras that are known exactly."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree

from viewsynth.reconstruct import (
    charts,
    clothing,
    drawing,
    exposure,
    people,
    posing,
    relief,
    surface,
    texture,
)
from viewsynth.reconstruct.fit import Fit
from viewsynth.reconstruct.parse import Parse
from viewsynth.reconstruct.warp import move
from viewsynth.records import Person, Sample
from viewsynth.render import zbuffer

HEIGHT, WIDTH, SCALE = 200, 110, 100.0  # of the crops, pixels; pixels per metre
TOP, HEM, WAIST, WIDE = 1.02, 0.35, 0.17, 0.34  # of the skirt, metres


def camera(azimuths) -> Fit:
    """Level cameras, one crop each; the body stands in the middle."""
    count = len(azimuths)
    some = {name: torch.zeros(count) for name in ("elevation", "error", "silhouette")}
    return Fit(
        shape=torch.zeros(1, 1),
        offsets=torch.zeros(1, 1),
        pose=torch.zeros(count, 1, 3),
        azimuth=torch.tensor(azimuths, dtype=torch.float32),
        scale=torch.full((count,), SCALE),
        aspect=torch.ones(count),
        shift=torch.tensor([[WIDTH / 2, 190.0]]).repeat(count, 1),
        **some,
    )


@pytest.fixture(scope="module")
def walker(tools):
    """A clothed body in a walking pose, standing on the ground.  [V, 3]"""
    body = tools.body
    bare = body.vertices(body.shape_mean[None], tools.poser.bank[:1])
    clothier = tools.poser.clothier
    return people.bodies.stand(clothier.dress(bare, clothier.cloth[None], bare.new_zeros(1)))[0]


def skirt() -> trimesh.Trimesh:
    """A round skirt about the hips, open below."""
    cone = trimesh.creation.revolve([[0, TOP], [WAIST, TOP], [WIDE, HEM], [0, HEM]], sections=64)
    cone.apply_transform([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    return cone


def drawn(fit: Fit, row: int, parts) -> np.ndarray:
    """Nearest depth of the parts (vertices, faces) at every pixel, inf where there is none."""
    depths = []
    for vertices, faces in parts:
        vertices = torch.as_tensor(np.asarray(vertices), dtype=torch.float32)
        pixels, depth = fit.project(vertices[None], torch.tensor([row]))
        faces = torch.as_tensor(np.asarray(faces), dtype=torch.int64)
        depths.append(zbuffer.rasterize(pixels, depth + 10, faces, (HEIGHT, WIDTH)).depth[0])
    return torch.stack(depths).amin(0).numpy() - 10


def front(tools, fit, row, vertices):
    drawn = fit.project(vertices[None], torch.tensor([row]))
    return drawing.draw(*drawn, tools.body.faces, (HEIGHT, WIDTH))


def shell_of(tools, fit: Fit, vertices, masks, trust=None):
    canonical, rows = tools.poser.canonical, range(len(masks))
    motions = canonical.nodes.motions(vertices[None].repeat(len(masks), 1, 1))
    fronts = [front(tools, fit, row, vertices) for row in rows]
    reliefs = [
        relief.relief(tools.body, canonical, tools.volume, fit, row, fronts[row], motion, mask)
        for row, motion, mask in zip(rows, motions, masks, strict=True)
    ]
    some = trust or [1.0] * len(masks), [None] * len(masks)
    shell = surface.fuse(tools.volume, fit, rows, reliefs, motions, *some)
    return shell, motions


def in_pose(tools, shell, motion) -> np.ndarray:
    binding = tools.poser.canonical.nodes.bind(shell.vertices)
    return move(shell.vertices, binding, motion).numpy()


@pytest.fixture(scope="module")
def dressed(tools, walker):
    """Cameras, masks and depths of the walker in the skirt; the shell and its vertices there."""
    fit = camera([0.0, 90.0])
    cone = skirt()
    parts = [(walker, tools.body.faces), (cone.vertices, cone.faces)]
    depths = [drawn(fit, row, parts) for row in range(2)]
    masks = [np.isfinite(depth).astype(np.float32) for depth in depths]
    shell, motions = shell_of(tools, fit, walker, masks)
    return fit, masks, depths, shell, in_pose(tools, shell, motions[0])


def iou(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


def test_the_surface_has_the_outlines_of_the_masks(tools, walker, dressed):
    fit, masks, _, shell, vertices = dressed
    for row, mask in enumerate(masks):
        bare = np.isfinite(drawn(fit, row, [(walker, tools.body.faces)]))
        made = np.isfinite(drawn(fit, row, [(vertices, shell.faces)]))
        assert iou(made, mask > 0.5) > 0.95 > iou(bare, mask > 0.5) + 0.05


def test_the_surface_is_closed_and_faces_outwards(dressed):
    *_, shell, vertices = dressed
    for points in (shell.vertices, vertices):
        mesh = trimesh.Trimesh(points, shell.faces, process=False)
        assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0.05


def test_a_skirt_is_as_round_as_the_true_one(dressed):
    fit, masks, depths, shell, vertices = dressed
    rows = slice(round(190 - SCALE * (TOP - 0.1)), round(190 - SCALE * (HEM + 0.1)))
    for row in range(2):
        made, true = drawn(fit, row, [(vertices, shell.faces)])[rows], depths[row][rows]
        both = np.isfinite(made) & np.isfinite(true)
        assert np.abs(made[both] - true[both]).mean() < 0.1, "metres; 0.15 around each leg"


def test_a_single_crop_gives_no_fins(tools, walker, dressed):
    fit, masks, _, _, _ = dressed
    shell, motions = shell_of(tools, fit, walker, masks[:1])
    vertices = in_pose(tools, shell, motions[0])
    near = drawn(fit, 0, [(vertices, shell.faces)])
    far = -drawn(camera([180.0]), 0, [(vertices, shell.faces)])[:, ::-1]
    person = np.isfinite(near) & np.isfinite(far)
    inside = ndimage.distance_transform_edt(person)
    thickness = far - near
    hem = np.zeros_like(person)
    hem[round(190 - SCALE * 0.6) : round(190 - SCALE * HEM)] = True
    rim, middle = thickness[person & hem & (inside <= 2)], thickness[hem & (inside > 8)]
    assert np.median(rim) < 0.6 * np.median(middle), "round at the outline"
    assert np.percentile(rim, 10) > 0.01 and np.median(middle) > 0.1, "but not a sheet"


def test_outlines_that_contradict_each_other_are_averaged(tools, walker, dressed):
    fit, masks, *_ = dressed
    fit = camera([0.0, 180.0])
    bare = np.isfinite(drawn(fit, 1, [(walker, tools.body.faces)])).astype(np.float32)
    alone, _ = shell_of(tools, camera([0.0]), walker, masks[:1])
    both, motions = shell_of(tools, fit, walker, [masks[0], bare])
    none, _ = shell_of(tools, fit, walker, [bare, bare])
    sizes = [
        trimesh.Trimesh(one.vertices, one.faces, process=False).volume
        for one in (none, both, alone)
    ]
    assert sizes == sorted(sizes) and sizes[2] > 1.05 * sizes[0]
    made = np.isfinite(drawn(fit, 0, [(in_pose(tools, both, motions[0]), both.faces)]))
    cloth = (masks[0] > 0.5) & (bare < 0.5)
    assert 0.1 < made[cloth].mean() < 0.9, "between the coat and no coat"


def test_bricks_skip_nothing_that_matters(tools, walker, dressed, monkeypatch):
    fit, masks, _, shell, _ = dressed
    monkeypatch.setattr(surface, "REACH", 10.0)  # metres: no brick is skipped
    full, _ = shell_of(tools, fit, walker, masks)
    apart = cKDTree(shell.vertices).query(full.vertices)[0]
    assert np.quantile(apart, 0.98) < 1e-3 and apart.max() < 0.05, "metres"


def painted(tools, fit, vertices, masks, images):
    """The clothed person, from given fits."""
    count = len(masks)
    blank = np.zeros((21, 2), np.float32)
    crops = [
        people.Crop(
            0,
            Sample(pid="a", name=str(k), paths=()),
            image,
            Parse(
                points=blank,
                length=blank,
                spread=blank[:, 0],
                mask=mask,
                soft=mask,
                presence=1.0,
                vote=1.0,
                front=True,
                height=150.0,
            ),
            [],
            150.0,
        )
        for k, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]
    found = people.Fitted(crops, [0], fit, vertices[None].repeat(count, 1, 1))
    grey = np.full((texture.SIZE, texture.SIZE, 3), 128, np.uint8)
    maps = clothing.Maps(grey, grey[..., 0] * 0, [lambda colour, part: colour] * count)
    shown = [
        texture.Projection(None, front(tools, fit, row, vertices), 1.0, images[row])
        for row in range(count)
    ]
    return clothing.clothe(tools, found, shown, range(count), [1.0] * count, maps, [None] * count)


def test_the_surface_shows_the_crop_itself(tools, walker, dressed):
    fit, masks, *_ = dressed
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (HEIGHT // 5, WIDTH // 5, 3), np.uint8)
    image = np.kron(coarse, np.ones((5, 5, 1), np.uint8))
    one = Fit(**{k: v[:1] for k, v in vars(camera([0.0])).items()})
    made, overlaps = painted(tools, one, walker, masks[:1], [image])
    assert overlaps[0] > 0.95
    person = Person(
        pid="a",
        body=tools.body.name,
        shape=np.zeros(1),
        pose=np.zeros((1, 3)),
        offsets=np.zeros(1),
        scale=1.0,
        texture=made.texture,
        seen=made.seen,
        surface=made,
    )
    [mesh] = posing.clothed([person], tools.poser, walker[None])
    pixels, depth = one.project(mesh.vertices[None], torch.tensor([0]))
    hit = zbuffer.rasterize(pixels, depth + 10, mesh.faces, (HEIGHT, WIDTH))
    face, bary = hit.face[0].numpy(), hit.bary[0].numpy()
    shown = ndimage.binary_erosion(face >= 0, iterations=3)
    corners = made.uvs[made.face_uvs[face[shown]]]
    u, v = (corners * bary[shown][..., None]).sum(1).T
    at = np.floor((1 - v) * len(made.texture)).astype(int), np.floor(u * made.texture.shape[1])
    found = made.texture[at[0], at[1].astype(int)].astype(int)
    apart = np.abs(found - image[shown]).max(1)
    assert (apart <= 2).mean() > 0.95 and (made.seen[at[0], at[1].astype(int)] == 255).mean() > 0.95
    behind = made.uvs[made.face_uvs[hidden(made, tools, walker)]].reshape(-1, 2)
    values = made.seen[
        np.clip(((1 - behind[:, 1]) * len(made.seen)).astype(int), 0, len(made.seen) - 1),
        np.clip((behind[:, 0] * made.seen.shape[1]).astype(int), 0, made.seen.shape[1] - 1),
    ]
    assert (values < 128).mean() > 0.9, "what no crop shows is not seen"


def hidden(made, tools, walker) -> np.ndarray:
    """Triangles that face away from a camera in front."""
    motion = tools.poser.canonical.nodes.motions(walker[None])[0]
    vertices = in_pose(tools, surface.Shell(made.vertices, made.faces), motion)
    a, b, c = vertices[made.faces].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    return np.flatnonzero(normal[:, 2] < -0.3 * np.linalg.norm(normal, axis=1))


BAD = {
    "empty": np.zeros((HEIGHT, WIDTH)),
    "full": np.ones((HEIGHT, WIDTH)),
    "torn": (np.arange(HEIGHT)[:, None] // 8 % 2) * np.ones((1, WIDTH)),
    "two people": np.repeat([[1.0] * 40 + [0.0] * 30 + [1.0] * 40], HEIGHT, 0),
    "a line": (np.arange(WIDTH)[None] == 55) * np.ones((HEIGHT, 1)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_masks_give_a_closed_surface_or_none(tools, walker, dressed, name):
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    good = dressed[1][0]
    for masks in ([BAD[name].astype(np.float32)], [good, BAD[name].astype(np.float32)]):
        fit = camera([0.0, 180.0][: len(masks)])
        made, overlaps = painted(tools, fit, walker, masks, [image] * len(masks))
        assert len(overlaps) == len(masks)
        if made is not None:
            assert trimesh.Trimesh(made.vertices, made.faces, process=False).is_watertight
            assert made.texture.shape[:2] == made.seen.shape


def test_blending_is_the_weighted_mean_of_the_crops():
    faces = np.array([[0, 1, 2]])
    face = np.zeros((1, 1), int)
    bary = np.full((1, 1, 3), 1 / 3)
    pixels = np.full((3, 2), 0.5, np.float32)
    weights = np.array([[0.9, 0.9, 0.9], [0.6, 0.6, 0.6]], np.float32)
    seen = [exposure.Exposure(pixels, weight, face, bary) for weight in weights]
    images = [np.full((1, 1, 3), value, np.float32) for value in (200, 100)]
    fill, guess = np.zeros((3, 3)), np.zeros(3)
    under = charts._Under([], faces, fill, guess)
    [[pixel]] = charts._chart(seen[0], list(zip(seen, images, strict=True)), under)
    share = weights[:, 0] ** charts.SHARP
    assert np.abs(pixel[:3] - share @ [200, 100] / share.sum()).max() <= 1 and pixel[3] == 255


def test_triangles_that_face_away_are_hidden_anyway(tools, walker, dressed):
    """Leaving them out of the drawing changes nothing, because the mesh is closed."""
    fit, masks, _, shell, _ = dressed
    canonical, faces = tools.poser.canonical, torch.from_numpy(shell.faces)
    binding = canonical.nodes.bind(shell.vertices)
    for row, mask in enumerate(masks):
        motion = canonical.nodes.motions(walker[None])[0]
        shown = exposure.expose(shell, binding, fit, row, motion, mask, 1.0)
        at = fit.project(move(shell.vertices, binding, motion)[None], torch.tensor([row]))
        whole = drawing.draw(*at, faces, mask.shape)
        middle = slice(whole.factor // 2, None, whole.factor)
        face = whole.fragments.face[0, middle, middle].numpy()
        assert (face >= 0).any() and np.array_equal(shown.face >= 0, face >= 0)
        assert (shown.face == face).mean() > 0.995, "the warp folds few triangles over"


def test_a_crop_that_shows_nothing_of_the_surface_changes_nothing(tools, walker, dressed):
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    fit = camera([0.0, 180.0])
    fit.shift[1] += 10_000  # pixels
    alone, _ = painted(tools, camera([0.0]), walker, dressed[1][:1], [image])
    both, overlaps = painted(tools, fit, walker, [dressed[1][0]] * 2, [image] * 2)
    assert overlaps[1] == 0 and np.array_equal(both.vertices, alone.vertices)
    width = alone.texture.shape[1]
    assert np.array_equal(both.texture[: len(alone.texture), :width], alone.texture)


def test_a_person_with_a_surface_survives_its_file(tools, walker, dressed, tmp_path):
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    made, _ = painted(tools, camera([0.0]), walker, dressed[1][:1], [image])
    body = tools.body
    person = Person(
        pid="a",
        body=body.name,
        shape=body.shape_mean.numpy(),
        pose=tools.poser.bank[0].numpy(),
        offsets=np.zeros(len(body.parts), np.float32),
        scale=1.1,
        texture=np.zeros((8, 8, 3), np.uint8),
        seen=np.zeros((8, 8), np.uint8),
        surface=made,
    )
    person.save(tmp_path / "a.safetensors")
    again = Person.load(tmp_path / "a.safetensors")
    for name, array in vars(made).items():
        assert np.array_equal(getattr(again.surface, name), array)
    for mode in posing.MODES:
        [one], [other] = (posing.meshes([p], tools.poser, mode) for p in (person, again))
        assert torch.equal(one.vertices, other.vertices)
        assert abs(float(one.vertices[:, 1].min())) < 1e-6
        assert 1.5 < float(one.vertices[:, 1].max()) < 2.1
    old = dataclasses.replace(person, surface=None)  # as files of bodies are
    old.save(tmp_path / "b.safetensors")
    assert Person.load(tmp_path / "b.safetensors").surface is None
    pair = posing.meshes([person, old], tools.poser)
    assert torch.equal(pair[0].vertices, posing.meshes([person], tools.poser)[0].vertices)
    assert torch.equal(pair[1].faces, body.faces)
