# SPDX-License-Identifier: Apache-2.0
"""Meshes of other programs: what is read, mended and refused."""

from __future__ import annotations

import json

import numpy as np
import own_meshes
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from viewsynth.bodies import stand
from viewsynth.cameras import Cameras, focal_length, orbit, pinhole
from viewsynth.judge import judge_person
from viewsynth.reconstruct import mesh_files, own_mesh, posing
from viewsynth.reconstruct.mesh_files import MeshError
from viewsynth.records import MESH, Person
from viewsynth.render import shade
from viewsynth.report import glb

SIZE = (128, 96)


def saved(mesh, path):
    data = mesh.export(file_type=path.suffix[1:])
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def load(path) -> own_mesh.OwnMesh:
    return own_mesh.load(path, path.name, "0" * 64)


def drawn(mesh: own_mesh.OwnMesh, *angles) -> shade.Buffers:
    """The mesh from the given (elevation, azimuth), by default from four sides."""
    angles = torch.tensor(angles or [(20.0, 0.0), (20.0, 90.0), (20.0, 180.0), (70.0, 250.0)])
    count = len(angles)
    pose = orbit(*angles.T, torch.full((count,), 4.0), torch.full((count,), 0.85))
    matrix = pinhole(torch.full((count,), focal_length(30.0, SIZE[0])), SIZE)
    [one] = posing.meshes([own_mesh.person(mesh, "p")], None)
    return shade.render([one], Cameras(pose, matrix, SIZE), torch.zeros(count, dtype=torch.long))


def same(one: shade.Buffers, other: shade.Buffers, within: float = 1e-3) -> bool:
    off = (one.face >= 0) != (other.face >= 0)
    apart = (one.colour - other.colour).abs().amax(-1) > within
    turned = (one.normal - other.normal).abs().amax(-1) > 0.01
    return bool(((off | apart | turned).float().mean() < 1e-4).all())


@pytest.fixture(scope="module")
def textured(tmp_path_factory):
    return saved(own_meshes.textured(), tmp_path_factory.mktemp("mesh") / "p.glb")


@pytest.fixture(scope="module")
def expected(textured) -> shade.Buffers:
    return drawn(load(textured))


# ---- units, axes and forms -------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["glb", "obj", "gltf"])
@pytest.mark.parametrize(("scale", "unit"), [(1, "m"), (100, "cm"), (1000, "mm")])
@pytest.mark.parametrize("up", ["y", "z"])
def test_every_form_is_the_same_person(expected, tmp_path, suffix, scale, unit, up):
    mesh = own_meshes.textured()
    mesh.apply_scale(scale)
    mesh.apply_translation([3 * scale, -7 * scale, scale])
    if up == "z":
        mesh.apply_transform(own_meshes.Z_UP)
    files = mesh.export(file_type=suffix, return_texture=True) if suffix == "obj" else None
    if suffix == "obj":
        text, others = files
        (tmp_path / "p.obj").write_text(text)
    elif suffix == "gltf":
        others = trimesh.Scene(mesh).export(file_type="gltf")
        (tmp_path / "p.gltf").write_bytes(others.pop("model.gltf"))
    else:
        others = {}
        saved(mesh, tmp_path / "p.glb")
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    found = load(path := tmp_path / f"p.{suffix}")
    assert (found.facts["unit"], found.facts["up"]) == (unit, up)
    assert found.facts["colours"] == "texture" and "turned" not in found.facts
    assert same(drawn(found), expected)
    assert {one.name for one in mesh_files.files(path)} == {path.name, *others}


def test_a_height_that_is_no_height_is_scaled(tmp_path):
    mesh = own_meshes.textured()
    mesh.apply_scale(2 / own_meshes.HEIGHT)  # as of a program that scales to [-1, 1]
    found = load(saved(mesh, tmp_path / "p.glb"))
    low, high = found.surface.vertices.min(0), found.surface.vertices.max(0)
    assert low[1] == 0 and abs(high[1] - own_mesh.STATURE) < 1e-5
    assert np.allclose((low + high)[[0, 2]], 0, atol=1e-6)
    assert "1.68 m" in found.facts["unit"] and found.facts["height"] == pytest.approx(2)
    scaled = own_mesh.turned(found, 0, 1.5).surface.vertices
    assert scaled[:, 1].max() == pytest.approx(1.5) and scaled[:, 1].min() == 0


def test_parts_of_a_scene_are_placed_and_keep_their_images(expected, tmp_path):
    """Cut into pieces with an image each, a node transform each, one mirrored; one is no mesh."""
    whole, scene = own_meshes.textured(), trimesh.Scene()
    for number in range(3):
        piece = whole.submesh([np.arange(number, len(whole.faces), 3)], append=True)
        place = trimesh.transformations.rotation_matrix(0.3 * number, [1, 2, 3], [number, 0, 1])
        if number == 2:
            place = place @ np.diag([-1.0, 1, 1, 1])
        piece.apply_transform(np.linalg.inv(place))
        if number == 2:
            piece.invert()  # the mirror turns them again
        scene.add_geometry(piece, transform=place)
    scene.add_geometry(trimesh.PointCloud([[5.0, 5, 5]]))
    found = load(saved(scene, tmp_path / "p.glb"))
    assert found.facts["triangles"] == len(whole.faces)
    assert found.surface.texture.shape[1] == 3 * 256
    now = drawn(found)
    assert ((now.colour - expected.colour).abs().amax(-1) > 0.02).float().mean() < 2e-3


@pytest.mark.parametrize("suffix", ["ply", "glb", "obj"])
def test_vertex_colours_are_interpolated_as_the_triangle_does(tmp_path, suffix):
    mesh = own_meshes.coloured()
    found = load(saved(mesh, tmp_path / f"p.{suffix}"))
    assert found.facts["colours"] == "vertex"
    surface, buffers = found.surface, drawn(found)
    shown = buffers.face >= 0
    corner = surface.vertices[surface.faces[buffers.face[shown]]]
    place = (corner * buffers.bary[shown].numpy()[..., None]).sum(1)
    nearest = trimesh.proximity.ProximityQuery(mesh).vertex  # corners are vertices of the file
    _, index = nearest(corner.reshape(-1, 3) + [*(mesh.bounds.mean(0) * [1, 0, 1])])
    own = own_meshes.colours(mesh.vertices)[index].reshape(-1, 3, 3)
    exact = (own * buffers.bary[shown].numpy()[..., None]).sum(1) / 255
    error = np.abs(buffers.colour[shown].numpy() - exact).max(1)
    assert len(place) > 5000 and np.percentile(error, 99) < 0.01


def test_one_colour_a_triangle(tmp_path):
    mesh = own_meshes.figure()
    mesh.visual.face_colors = own_meshes.colours(mesh.triangles_center)
    (tmp_path / "p.ply").write_bytes(trimesh.exchange.ply.export_ply(mesh))
    blocks = mesh_files._blocks(np.repeat(own_meshes.colours(mesh.triangles_center)[:, None], 3, 1))
    for k in (0, 7, len(mesh.faces) - 1):
        assert len(np.unique(blocks.image[blocks.owner == k], axis=0)) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=9, max_size=9), min_size=1, max_size=9))
def test_blocks_hold_the_corners_colours(values):
    corners = np.array(values).reshape(-1, 3, 3)
    made = mesh_files._blocks(corners)
    at = np.floor(made.places).astype(int)
    assert np.array_equal(made.image[at[..., 1], at[..., 0]], corners)
    assert np.allclose(made.places % 1, 0.5)
    assert (np.bincount(made.owner[made.owner >= 0]) == 4).all()


def test_materials_without_an_image(tmp_path):
    scene = trimesh.Scene()
    for part, colour in zip(
        own_meshes.parts(), ("red", "green", "blue", "blue", "red"), strict=True
    ):
        factor = [255 * (colour == c) for c in ("red", "green", "blue")] + [255]
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=factor)
        part.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(part)
    found = load(saved(scene, tmp_path / "p.glb"))
    assert found.facts["colours"] == "material"
    assert set(map(tuple, found.surface.texture[found.owner >= 0])) == {
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
    }


def test_fine_and_repeated_images(expected, tmp_path, monkeypatch):
    monkeypatch.setattr(mesh_files, "DETAIL", 200)
    fine = own_meshes.textured(side=768)
    found = load(saved(fine, tmp_path / "fine.glb"))
    assert found.surface.texture.shape[0] < 400
    inner = expected.face >= 0
    assert (
        (drawn(found).colour - expected.colour)[inner].abs().amax(-1) < 0.03
    ).float().mean() > 0.98
    repeated = own_meshes.textured()
    repeated.visual.uv += [2, -1]
    assert same(drawn(load(saved(repeated, tmp_path / "repeated.glb"))), expected)


# ---- mending ---------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.01, 0.3, 0.5, 0.7, 1.0]))
def test_triangles_are_turned_outwards(seed, share):
    mesh = own_meshes.figure(8)
    rng = np.random.default_rng(seed)
    faces, places = np.asarray(mesh.faces), rng.random((len(mesh.faces), 3, 2))
    flip = rng.random(len(faces)) < share
    mixed, moved = faces.copy(), places.copy()
    mixed[flip], moved[flip] = faces[flip, ::-1], places[flip, ::-1]
    back, again, count = own_mesh.outward(np.asarray(mesh.vertices), mixed, moved)
    assert count == flip.sum()
    assert np.array_equal(back, faces) and np.array_equal(again, places)


def test_flipped_triangles_look_the_same(expected, tmp_path):
    mesh = own_meshes.textured()
    mesh.faces[::3] = mesh.faces[::3, ::-1]
    found = load(saved(mesh, tmp_path / "p.glb"))
    assert found.facts["turned"] == len(mesh.faces[::3])
    assert same(drawn(found), expected)


def test_holes_are_told_and_both_sides_are_drawn(expected, tmp_path):
    mesh = own_meshes.textured()
    mesh.update_faces(mesh.triangles_center[:, 2] > -0.02)  # without its back
    found = load(saved(mesh, tmp_path / "p.glb"))
    assert found.facts["open_edges"] > 50
    behind = drawn(found, (10.0, 180.0)).face[0] >= 0
    before = drawn(load(saved(own_meshes.textured(), tmp_path / "q.glb")), (10.0, 180.0)).face >= 0
    assert behind.sum() > 0.9 * before.sum()


def test_many_triangles(tmp_path):
    mesh = own_meshes.coloured(144)
    assert len(mesh.faces) > 200_000
    found = load(saved(mesh, tmp_path / "p.glb"))
    assert found.facts["triangles"] == len(mesh.faces)
    few = load(saved(own_meshes.coloured(48), tmp_path / "few.glb"))
    apart = (drawn(found).colour - drawn(few).colour).abs().amax(-1) > 0.1
    assert apart.float().mean() < 0.01


# ---- refusals --------------------------------------------------------------------------------


def _cut(path):
    saved(own_meshes.textured(), path)
    path.write_bytes(path.read_bytes()[:5000])


def _lying(path):
    mesh = own_meshes.textured()
    mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1]))
    saved(mesh, path)


def _not_finite(path):
    mesh = own_meshes.coloured()
    mesh.vertices[5] = np.nan
    saved(mesh, path)


def _one_colour(path):
    mesh = own_meshes.figure()
    mesh.visual.vertex_colors = np.full((len(mesh.vertices), 4), 200, np.uint8)
    saved(mesh, path)


def _flat(path):
    mesh = own_meshes.coloured()
    mesh.vertices[:] = mesh.vertices[0]
    saved(mesh, path)


def _too_many(path):
    count = mesh_files.MOST_TRIANGLES + 1
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\n"
        f"property float y\nproperty float z\nelement face {count}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    row = np.zeros(1, [("n", "u1"), ("v", "<i4", 3)])
    row["n"], row["v"] = 3, (0, 1, 2)
    points = np.array([[0, 0, 0], [0, 1.7, 0], [0.3, 0, 0]], "<f4").tobytes()
    path.write_bytes(header.encode() + points + np.repeat(row, count).tobytes())


REFUSED = [
    ("p.glb", lambda path: path.touch(), "the file is empty"),
    ("p.glb", lambda path: path.write_bytes(b"no mesh" * 99), "cannot be read as GLB"),
    ("p.gltf", lambda path: path.write_bytes(b"{no json"), "cannot be read as GLTF"),
    ("p.ply", lambda path: path.write_bytes(b"no mesh" * 99), "cannot be read as PLY"),
    ("p.obj", lambda path: path.write_bytes(b"no mesh\n" * 99), "holds no triangles"),
    ("p.glb", _cut, "cannot be read as GLB"),
    ("p.ply", lambda p: saved(trimesh.PointCloud(np.eye(3)), p), "a point cloud"),
    ("p.glb", lambda p: saved(own_meshes.figure(), p), "has no colours"),
    ("p.obj", lambda p: saved(own_meshes.figure(), p), "has no colours"),
    ("p.obj", lambda p: saved(own_meshes.textured(), p), "colour"),  # without its material
    ("p.ply", _one_colour, "has one colour"),
    ("p.glb", _lying, "does not stand: it measures 1.7 x"),
    ("p.ply", _not_finite, "not finite"),
    ("p.ply", _flat, "in one point"),
    ("p.ply", _too_many, "2,000,001 triangles, at most 2,000,000"),
]


@pytest.mark.parametrize(("name", "make", "reason"), REFUSED)
def test_unusable_files(tmp_path, name, make, reason):
    make(tmp_path / name)
    with pytest.raises(MeshError, match=reason):
        load(tmp_path / name)


# ---- persons ---------------------------------------------------------------------------------


def test_a_person_is_saved_drawn_and_exported(textured, expected, tmp_path):
    mesh = load(textured)
    person = own_mesh.person(mesh, "cargo/7")
    person.save(tmp_path / "p.safetensors")
    again = Person.load(tmp_path / "p.safetensors")
    assert again.to_bytes() == person.to_bytes()
    assert again.body == MESH and again.sources[0]["mesh"] == mesh.facts
    data = glb.write(again, None)
    assert "that of the mesh" in json.dumps(data.decode("latin-1"))
    (tmp_path / "again.glb").write_bytes(data)
    assert same(drawn(load(tmp_path / "again.glb")), expected)
    [one] = posing.meshes([again], None, "walk")  # has no effect
    assert torch.equal(one.vertices, torch.from_numpy(mesh.surface.vertices))
    assert torch.allclose(stand(one.vertices[None])[0], one.vertices, atol=1e-6)


def test_the_fingerprint_is_of_the_file(textured):
    one, two = (own_mesh.load(textured, "p.glb", digest) for digest in ("a", "b"))
    prints = {own_mesh.person(mesh, "p").fingerprint for mesh in (one, two, one)}
    assert len(prints) == 2


def test_a_mesh_without_photos_is_kept_with_half_the_weight(textured):
    person = own_mesh.person(load(textured), "p")
    verdict = judge_person(person)
    assert verdict.keep and verdict.scores["flags"] == ["unobserved"]
    assert not person.surface.seen.any()


def test_the_image_of_an_untouched_texture_is_that_of_the_file(textured):
    image = Image.fromarray(load(textured).surface.texture)
    original = own_meshes.textured().visual.material.baseColorTexture
    assert image.tobytes() == original.tobytes()
