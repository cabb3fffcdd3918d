# SPDX-License-Identifier: Apache-2.0
"""What photos say of a mesh; the photos are drawn from the mesh itself, orthographically."""

from __future__ import annotations

import dataclasses

import numpy as np
import own_meshes
import pytest
import torch

from viewsynth.judge import judge_person
from viewsynth.reconstruct import mesh_photos, own_mesh
from viewsynth.reconstruct.fit import view_rotation
from viewsynth.reconstruct.mesh_photos import Look
from viewsynth.records import Person
from viewsynth.render import zbuffer

SCALE, SIZE = 90.0, (190, 130)  # pixels per metre; of the crops


@pytest.fixture(scope="module", params=["textured", "coloured"])
def mesh(request, tmp_path_factory) -> own_mesh.OwnMesh:
    path = tmp_path_factory.mktemp("mesh") / "p.ply"
    if request.param == "textured":
        path = path.with_suffix(".glb")
    made = getattr(own_meshes, request.param)(32)
    path.write_bytes(made.export(file_type=path.suffix[1:]))
    return own_mesh.load(path, path.name, "a" * 64)


def look(mesh: own_mesh.OwnMesh, azimuth: float, elevation: float = 8.0) -> Look:
    """A crop of the mesh by a camera at this azimuth."""
    surface = mesh.surface
    angles = torch.tensor([elevation]), torch.tensor([azimuth])
    local = torch.from_numpy(surface.vertices) @ view_rotation(*angles)[0].float().T
    pixels = local[:, :2] * SCALE + torch.tensor([65.0, 175.0])
    faces = torch.from_numpy(surface.faces.astype(np.int64))
    found = zbuffer.rasterize(pixels[None], local[None, :, 2] + 10, faces, SIZE)
    face, bary = found.face[0].numpy(), found.bary[0].numpy()
    shown = face >= 0
    uv = (surface.uvs[surface.face_uvs[face[shown]]] * bary[shown][..., None]).sum(1)
    tall, wide = surface.texture.shape[:2]
    row = ((1 - uv[:, 1]) * tall).astype(int).clip(0, tall - 1)
    column = (uv[:, 0] * wide).astype(int).clip(0, wide - 1)
    image = np.full((*SIZE, 3), 128, np.uint8)
    image[shown] = surface.texture[row, column]
    rows = np.flatnonzero(shown.any(1))
    return Look(
        image=image,
        mask=shown.astype(np.float32),
        elevation=elevation,
        azimuth=azimuth,
        aspect=1.0,
        top=float(rows[0]),
        bottom=float(rows[-1] + 1),
        height=1.7,
        trust=1.0,
    )


def reconstructed(flags: tuple[str, ...] = ()) -> Person:
    """The part of a reconstruction that a mesh keeps."""
    empty = np.zeros((1, 3), np.float32)
    return Person(
        pid="p",
        body="anny",
        shape=empty[0],
        pose=empty,
        offsets=empty[0],
        scale=1.0,
        texture=np.zeros((1, 1, 3), np.uint8),
        seen=np.zeros((1, 1), np.uint8),
        quality={"error": 0.01, "silhouette": 0.2, "pixels": 150.0, "flags": list(flags)},
        sources=[{"file": "a.jpg", "sha256": "b", "used": True, "azimuth": 0.0}],
    )


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, 45, 300])
def test_the_front_is_found(mesh, degrees):
    looks = [look(mesh, 5.0), look(mesh, 190.0)]
    given = own_mesh.turned(mesh, -degrees, 1.7)
    given = dataclasses.replace(given, facts=mesh.facts)
    for taken in (looks, looks[:1]):
        person, fronts = mesh_photos.observed(given, reconstructed(), taken)
        assert person.sources[0]["mesh"].get("turn", 0) == degrees
        assert person.quality["overlap"] > 0.9 and judge_person(person).keep
        assert np.allclose(person.surface.vertices, mesh.surface.vertices, atol=0.01)
        assert len(fronts) == len(taken) and fronts[0].shape == SIZE


def facing(mesh, person: Person, azimuth: float) -> np.ndarray:
    """Share of the observed texels among those that face an azimuth, unhidden by other parts."""
    corner = mesh.surface.vertices[mesh.surface.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    azimuth_rad = np.deg2rad(azimuth)
    towards = normal @ [np.sin(azimuth_rad), 0, np.cos(azimuth_rad)]
    trunk = (corner.mean(1)[:, 1] > 0.97) & (corner.mean(1)[:, 1] < 1.17)  # no limb is near
    chosen = np.isin(mesh.owner, np.flatnonzero((towards > 0.5) & trunk))
    return person.surface.seen[chosen].mean() / 255


def test_what_a_crop_sees_is_observed_and_nothing_else(mesh):
    front, back = look(mesh, 0.0), look(mesh, 180.0)
    one, _ = mesh_photos.observed(mesh, reconstructed(), [front])
    both, _ = mesh_photos.observed(mesh, reconstructed(), [front, back])
    assert facing(mesh, one, 0) > 0.97 and facing(mesh, one, 180) < 0.03
    assert facing(mesh, both, 0) > 0.97 and facing(mesh, both, 180) > 0.97
    assert (both.surface.seen >= one.surface.seen).all()
    assert 0.25 < one.quality["seen_texels"] < 0.55 < both.quality["seen_texels"]
    assert np.array_equal(both.surface.texture, mesh.surface.texture)


def test_a_hole_of_the_mask_and_a_cut_are_not_observed(mesh):
    front = look(mesh, 0.0)
    whole, _ = mesh_photos.observed(mesh, reconstructed(), [front])
    mask = front.mask.copy()
    mask[:, :64] = 0  # something stands before the person's right half
    hidden, _ = mesh_photos.observed(mesh, reconstructed(), [dataclasses.replace(front, mask=mask)])
    assert hidden.quality["seen_texels"] < 0.8 * whole.quality["seen_texels"]
    cut = dataclasses.replace(front, mask=front.mask[:100], image=front.image[:100])
    upper, _ = mesh_photos.observed(mesh, reconstructed(("cut",)), [cut])
    assert upper.quality["flags"] == ["cut"]
    assert facing(mesh, upper, 0) > 0.9  # the trunk lies where the whole person puts it
    corner = mesh.surface.vertices[mesh.surface.faces].mean(1)
    legs = np.isin(mesh.owner, np.flatnonzero(corner[:, 1] < 0.6))
    assert upper.surface.seen[legs].mean() < 5 < whole.surface.seen[legs].mean()


def test_a_mesh_of_somebody_else_is_rejected(mesh):
    """As wide as high: no outline of a person."""
    wide = dataclasses.replace(
        mesh.surface, vertices=mesh.surface.vertices * np.array([6, 1, 6], np.float32)
    )
    other = dataclasses.replace(mesh, surface=wide)
    person, _ = mesh_photos.observed(other, reconstructed(), [look(mesh, 0.0)])
    verdict = judge_person(person)
    assert not verdict.keep and "does not match the photos" in verdict.reasons[0]


def test_flags_of_the_fitted_body_are_dropped(mesh):
    flags = ("error", "silhouette", "doubt", "riding", "mixed")
    person, _ = mesh_photos.observed(mesh, reconstructed(flags), [look(mesh, 0.0)])
    assert person.quality["flags"] == ["doubt", "mixed"]
    assert "error" not in person.quality and person.fallback == ""


def test_the_same_photos_give_the_same_bytes(mesh):
    looks = [look(mesh, 20.0), look(mesh, 200.0)]
    one, two = (mesh_photos.observed(mesh, reconstructed(), looks)[0] for _ in range(2))
    assert one.to_bytes() == two.to_bytes()


def test_a_height_that_the_file_does_not_say_is_that_of_the_fit(mesh):
    facts = {**mesh.facts, "unit": "none: scaled to 1.70 m"}
    given = dataclasses.replace(mesh, facts=facts)
    taken = [dataclasses.replace(look(mesh, 0.0), height=1.8)]
    person, _ = mesh_photos.observed(given, reconstructed(), taken)
    assert person.surface.vertices[:, 1].max() == pytest.approx(1.8)
    assert "1.80 m" in person.sources[0]["mesh"]["unit"]
