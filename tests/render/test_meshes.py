# SPDX-License-Identifier: Apache-2.0
"""Meshes of different topology and texture size in one call; checks of a mesh; large meshes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from figures import ball, figure
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth import cameras
from viewsynth.render import Sensor, Shot, lighting, render, render_views, scene

SIZE = (22, 18)


def moved(mesh, scale, shift):
    return dataclasses.replace(mesh, vertices=mesh.vertices * scale + torch.tensor(shift))


def mixed():
    """A sphere and a person, with 98 and 162 triangles and textures of different shape."""
    return [
        moved(ball(7, (5, 12), 1), 0.7, [0.1, 0.8, 0.0]),
        dataclasses.replace(figure(9), **vars_of(ball(9, (40, 17), 2), "texture", "seen")),
    ]


def vars_of(mesh, *names):
    return {name: getattr(mesh, name) for name in names}


def looking(angles, size=SIZE):
    elevation, azimuth = torch.tensor(angles, dtype=torch.float32).unbind(1)
    pose = cameras.orbit(
        elevation, azimuth, torch.full_like(azimuth, 5.0), torch.full_like(azimuth, 0.85)
    )
    matrix = cameras.pinhole(torch.full_like(azimuth, 2.4 * size[0]), size)
    return cameras.Cameras(pose, matrix, size)


ANGLES = [(10.0, 20.0), (50.0, 200.0), (90.0, 0.0), (0.0, 300.0), (30.0, 75.0)]
MESH = torch.tensor([1, 0, 1, 1, 0])


def traced(mesh, pose, matrix):
    """One pixel at a time: the ray's nearest triangle, and what the surface shows there."""
    points, faces = mesh.vertices.numpy().astype(float), mesh.faces.numpy()
    uvs, texels = mesh.uvs.numpy().astype(float), torch.cat([mesh.texture, mesh.seen[..., None]], 2)
    cross = np.cross(*(points[faces[:, k]] - points[faces[:, 0]] for k in (1, 2)))
    normals = np.zeros_like(points)
    for triangle, normal in zip(faces, cross, strict=True):
        normals[triangle] += normal
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    eye = -pose[:3, :3].T @ pose[:3, 3]
    face = np.full(SIZE, -1)
    values = np.zeros((*SIZE, 9))  # normal, uv, colour, seen
    for row, column in np.ndindex(SIZE):
        ray = np.linalg.inv(matrix) @ [column + 0.5, row + 0.5, 1] @ pose[:3, :3]
        a, b, c = points[faces].transpose(1, 0, 2)
        systems = np.stack([b - a, c - a, np.broadcast_to(-ray, a.shape)], 2)
        solid = np.abs(np.linalg.det(systems)) > 1e-12
        v, w, t = np.full((3, len(faces)), -1.0)
        v[solid], w[solid], t[solid] = np.linalg.solve(
            systems[solid], (eye - a[solid])[..., None]
        ).T[0]
        hit = (np.minimum(np.minimum(v, w), 1 - v - w) >= 0) & (t > 0)
        if not hit.any():
            continue
        number = face[row, column] = np.where(hit, t, np.inf).argmin()
        weights = np.array([1 - v[number] - w[number], v[number], w[number]])
        normal, uv = weights @ normals[faces[number]], weights @ uvs[mesh.face_uvs[number]]
        shown = bilinear(texels.numpy() / 255, uv)
        values[row, column] = [*(normal / np.linalg.norm(normal)), *uv, *shown]
    return face, values


def bilinear(image, uv):
    tall, wide = image.shape[:2]
    row = np.clip((1 - uv[1]) * tall - 0.5, 0, tall - 1)
    column = np.clip(uv[0] * wide - 0.5, 0, wide - 1)
    return sum(
        max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j)) * image[i, j]
        for i in range(tall)
        for j in range(wide)
    )


def test_against_a_ray_tracer():
    meshes, views = mixed(), looking(ANGLES)
    out = render(meshes, views, MESH)
    planes = torch.cat([out.normal, out.uv, out.colour, out.seen[..., None]], -1).numpy()
    for k in range(len(ANGLES)):
        pose, matrix = (t[k].double().numpy() for t in (views.world_to_camera, views.intrinsics))
        face, values = traced(meshes[MESH[k]], pose, matrix)
        same = face == out.face[k].numpy()
        assert same.mean() > 0.99 and (face >= 0).sum() > 10  # vertices are snapped
        assert np.abs(planes[k] - values)[same].max() < 0.01


def test_a_view_of_mixed_meshes_is_the_same_alone():
    meshes, views = mixed(), looking(ANGLES)
    batch = render(meshes, views, MESH)
    for k in range(len(ANGLES)):
        alone = render([meshes[MESH[k]]], views.take(slice(k, k + 1)), torch.tensor([0]))
        same = batch.face[k] == alone.face[0]
        # The projection of a batch may differ in the last bit.
        assert same.float().mean() > 0.99
        for name in ("depth", "bary", "normal", "uv", "colour", "seen"):
            one, other = getattr(batch, name)[k][same], getattr(alone, name)[0][same]
            assert torch.allclose(one, other, atol=1e-3), name


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_vertices_and_faces_does_not_matter(seed):
    """Another topology, in the same call, shows the same surface."""
    draw, mesh = torch.Generator().manual_seed(seed), figure(15)
    sizes = (len(mesh.vertices), len(mesh.uvs), len(mesh.faces))
    points, uvs, faces = (torch.randperm(size, generator=draw) for size in sizes)
    other = dataclasses.replace(
        mesh,
        vertices=mesh.vertices[points],
        uvs=mesh.uvs[uvs],
        faces=points.argsort()[mesh.faces[faces]],
        face_uvs=uvs.argsort()[mesh.face_uvs[faces]],
    )
    out = render([mesh, other], looking(ANGLES[:2] * 2, (60, 40)), torch.tensor([0, 1, 1, 0]))
    for one, shuffled in ((0, 2), (3, 1)):
        hit = out.face[shuffled] >= 0
        assert (hit == (out.face[one] >= 0)).all() and hit.sum() > 300
        same = hit & (faces[out.face[shuffled].long()] == out.face[one])
        assert same.sum() > 0.99 * hit.sum()  # neighbours may tie in depth
        assert torch.allclose(out.colour[one][same], out.colour[shuffled][same], atol=1e-4)
        assert torch.allclose(out.normal[one][same], out.normal[shuffled][same], atol=1e-4)


def test_shadows_of_mixed_meshes_are_the_same_alone():
    meshes = [figure(20), ball(15)]
    meshes[1] = moved(meshes[1], 0.3, [0.2, 0.3, 0.0])
    mesh, places = torch.tensor([1, 0, 1]), [scene.place(k) for k in (3, 8, 9)]
    together = lighting.shadows(meshes, mesh, places).ground
    for k, place in enumerate(places):
        alone = lighting.shadows([meshes[mesh[k]]], torch.tensor([0]), [place]).ground
        assert torch.equal(together[k], alone[0])
    assert (together[0] - together[1]).abs().max() > 0.2


def test_finished_views_of_mixed_meshes_are_the_same_alone():
    meshes, pids, sensor = mixed(), ["ball", "person"], Sensor(pixels=60)
    shots = [
        Shot(int(p), *angle, f"{k}") for k, (p, angle) in enumerate(zip(MESH, ANGLES, strict=True))
    ]
    together = render_views(meshes, pids, shots, sensor, 0)
    for shot, view in zip(shots, together, strict=True):
        assert view.pid == pids[shot.person]
        alone = render_views(
            [meshes[shot.person]], [view.pid], [dataclasses.replace(shot, person=0)], sensor, 0
        )[0]
        assert view.box == alone.box and (view.mask == alone.mask).mean() > 0.999
        assert np.abs(view.image.astype(int) - alone.image).mean() < 0.1
        assert np.abs(view.seen.astype(int) - alone.seen).mean() < 0.1


def test_a_mesh_of_200_000_triangles():
    """Its poles have hundreds of triangles each, and most of its triangles have no pixel."""
    fine, coarse = (moved(ball(count), 0.85, [0.0, 0.85, 0.0]) for count in (317, 40))
    assert len(fine.faces) > 200_000
    outward = torch.nn.functional.normalize(fine.vertices - torch.tensor([0, 0.85, 0]), dim=1)
    alike = (fine.normals * outward).sum(1)
    assert alike[outward[:, 1].abs() < 0.99].min() > 0.999
    out = render([fine, coarse], looking(ANGLES[:2] * 2, (90, 70)), torch.tensor([0, 0, 1, 1]))
    assert ((out.face[:2] >= 0) == (out.face[2:] >= 0)).float().mean() > 0.98
    both = (out.face[:2] >= 0) & (out.face[2:] >= 0)
    assert (out.uv[:2] - out.uv[2:])[both].abs().median() < 1e-3
    assert int(out.face.max()) > 100_000


def test_unused_vertices_are_no_points_of_the_mesh():
    mesh = ball(6)
    far = torch.full((1, 3), 99.0)
    more = dataclasses.replace(mesh, vertices=torch.cat([mesh.vertices, far]))
    assert torch.equal(more.points, mesh.vertices[torch.unique(mesh.faces)])
    shot = Shot(0, 20.0, 30.0, "a")
    one, other = (render_views([m], ["p"], [shot], Sensor(distance=60), 0)[0] for m in (mesh, more))
    assert one.box == other.box and (one.image == other.image).all()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("vertices", lambda t: t.double(), r"vertices must be torch.float32 \[V, 3\]"),
        ("vertices", lambda t: t[None], r"got torch.float32 \[1, 25, 3\] on cpu"),
        ("vertices", lambda t: t[:0], r"not empty, got torch.float32 \[0, 3\]"),
        ("vertices", lambda t: t[:24], r"faces must index the 24 vertices, from 0; got 0..24"),
        ("vertices", lambda t: t.to("meta"), "faces must be torch.int64 .* on meta"),
        ("faces", lambda t: t.int(), r"faces must be torch.int64 \[F, 3\]"),
        ("faces", lambda t: t - 1, "got -1..23"),
        ("uvs", lambda t: t[:9], "face_uvs must index the 9 uvs"),
        ("face_uvs", lambda t: t[:5], r"face_uvs must be torch.int64 \[32, 3\]"),
        ("texture", lambda t: t.float(), r"texture must be torch.uint8 \[H, W, 3\]"),
        ("texture", lambda t: t.numpy(), "texture must be a tensor, got ndarray"),
        ("texture", lambda t: t[..., :2], r"got torch.uint8 \[6, 8, 2\]"),
        ("seen", lambda t: t[:3], r"seen must be torch.uint8 \[6, 8\]"),
        ("seen", lambda _: None, "seen must be a tensor, got NoneType"),
    ],
)
def test_a_mesh_is_checked(name, make, message):
    mesh = ball(4, (6, 8))
    with pytest.raises(ValueError, match=f"mesh: .*{message}"):
        dataclasses.replace(mesh, **{name: make(getattr(mesh, name))})
