# SPDX-License-Identifier: Apache-2.0
"""Per-pixel normals, uv, colour and seen values of small meshes with known results."""

import dataclasses

import pytest
import torch
from figures import ball
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth.cameras import Cameras, focal_length, orbit, pinhole
from viewsynth.render import shade
from viewsynth.render.zbuffer import rasterize


def balls(count):
    """Spheres around (0, 0.9, 0), of radius 0.9 and less, with textures of different size."""
    made = []
    for k, scale in enumerate(torch.linspace(1, 0.8, count).tolist()):
        one = ball(24, (32 - 5 * k, 32 + 3 * k), k)
        points = (one.vertices * 0.9 + torch.tensor([0, 0.9, 0])) * scale
        made.append(dataclasses.replace(one, vertices=points))
    return made


def orbiting(angles, size=(64, 48), distance=6.0):
    e, a = (torch.tensor(v, dtype=torch.float32) for v in zip(*angles, strict=True))
    pose = orbit(e, a, torch.full_like(e, distance), torch.full_like(e, 0.9))
    focal = torch.full_like(e, focal_length(20, size[0]))
    return Cameras(pose, pinhole(focal, size), size)


def draw(meshes, cameras, mesh=None, **options):
    mesh = torch.arange(len(cameras)) % len(meshes) if mesh is None else mesh
    return shade.render(meshes, cameras, mesh, **options)


def test_winding_of_the_test_mesh_is_outward():
    mesh = ball()
    inner = mesh.vertices[:, 1].abs() < 0.95
    assert ((mesh.normals * mesh.vertices).sum(1)[inner] > 0.95).all()


def test_vertex_normals_against_a_plain_sum():
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(2, 20, 3, generator=generator)
    faces = torch.randint(0, 19, (50, 3), generator=generator)  # vertex 19 has no face
    total = torch.zeros_like(points)
    for a, b, c in faces.tolist():
        cross = torch.linalg.cross(points[:, b] - points[:, a], points[:, c] - points[:, a])
        for corner in (a, b, c):
            total[:, corner] += cross
    expected = torch.nn.functional.normalize(total, dim=-1)
    found = shade.vertex_normals(points, faces)
    assert torch.allclose(found, expected, atol=1e-5)
    assert (found[:, 19] == 0).all()


def test_every_output_of_a_sphere():
    """Normal, depth and uv have closed forms on a sphere."""
    cameras = orbiting([(0, 0), (40, 130), (90, 20)])
    out = draw(balls(1), cameras)
    for n in range(3):
        row, column = (out.face[n] >= 0).nonzero().unbind(1)
        assert len(row) > 300
        matrix, pose = cameras.intrinsics[n], cameras.world_to_camera[n]
        x = (column + 0.5 - matrix[0, 2]) / matrix[0, 0]
        y = (row + 0.5 - matrix[1, 2]) / matrix[1, 1]
        depth = out.depth[n, row, column]
        local = torch.stack([x, y, torch.ones_like(x)], 1) * depth[:, None]
        world = (local - pose[:3, 3]) @ pose[:3, :3]
        radial = world - torch.tensor([0, 0.9, 0])
        assert ((radial.norm(dim=1) - 0.9).abs() < 0.012).all()  # facets lie a little inside
        normal = out.normal[n, row, column]
        assert torch.allclose(normal.norm(dim=1), torch.ones(len(row)), atol=1e-5)
        assert ((normal * radial).sum(1) / radial.norm(dim=1) > 0.985).float().mean() > 0.98
        away = radial[:, 1].abs() < 0.75
        longitude = torch.atan2(radial[:, 0], radial[:, 2]) / (2 * torch.pi) % 1
        error = (out.uv[n, row, column, 0] - longitude + 0.5) % 1 - 0.5
        assert error[away].abs().max() < 0.01
        latitude = torch.acos((radial[:, 1] / 0.9).clamp(-1, 1)) / torch.pi
        assert (out.uv[n, row, column, 1] - 1 + latitude)[away].abs().max() < 0.01


def test_texture_orientation():
    """U grows to the right of the atlas, v upwards: the top of the sphere shows the first rows."""
    texture = torch.zeros(16, 24, 3, dtype=torch.uint8)
    texture[:8, :, 0] = 255  # upper rows red
    texture[:, :12, 1] = 255  # left columns, 0 < azimuth < 180, green
    mesh = dataclasses.replace(balls(1)[0], texture=texture, seen=texture[..., 0])
    out = draw([mesh], orbiting([(0, 90), (0, 270)]))
    assert (out.colour[0, 20, 24] - torch.tensor([1.0, 1, 0])).abs().max() < 0.01
    assert (out.colour[0, 44, 24] - torch.tensor([0.0, 1, 0])).abs().max() < 0.01
    assert (out.colour[1, 20, 24] - torch.tensor([1.0, 0, 0])).abs().max() < 0.01
    assert torch.allclose(out.seen, out.colour[..., 0])


def test_the_background_is_empty():
    out = draw(balls(1), orbiting([(30, 0)]))
    off = out.face[0] < 0
    for name in ("bary", "normal", "uv", "colour", "seen"):
        assert (getattr(out, name)[0][off] == 0).all()
    assert out.depth[0][off].isinf().all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_bilinear_look_up_against_the_formula(tall, wide, data):
    mesh = ball(2, (tall, wide), data.draw(st.integers(0, 99)))
    image = torch.cat([mesh.texture, mesh.seen[..., None]], -1)
    where = st.lists(st.tuples(*2 * [st.floats(-2, 8, width=32)]), min_size=1, max_size=20)
    row, column = torch.tensor(data.draw(where)).unbind(1)
    found = torch.stack(shade.sample(mesh.texels, row, column), 1)
    for k in range(len(row)):
        r, c = row[k].clamp(0, tall - 1), column[k].clamp(0, wide - 1)
        total = torch.zeros(4)
        for i in range(tall):
            for j in range(wide):
                weight = (1 - (r - i).abs()).clamp_min(0) * (1 - (c - j).abs()).clamp_min(0)
                total += weight * image[i, j] / 255
        assert torch.allclose(found[k], total, atol=1e-5)


def test_atlas_matches_the_texture_convention():
    """The uv of a texel, rebuilt from its triangle, is the uv of the texel's centre."""
    uvs, face_uvs = ball().uvs, ball().face_uvs
    face, bary = shade.atlas(uvs, face_uvs, 40)
    assert (face >= 0).all()
    uv = (uvs[face_uvs[face.long()]] * bary[..., None]).sum(2)
    row, column = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    assert (uv[..., 0] - (column + 0.5) / 40).abs().max() < 1e-4
    assert (uv[..., 1] - 1 + (row + 0.5) / 40).abs().max() < 1e-4


def test_a_person_in_a_batch_is_the_same_alone(monkeypatch):
    meshes = balls(3)
    angles = [(10 * k, 50 * k) for k in range(9)]
    monkeypatch.setitem(shade.GROUP, "cpu", 64 * 48 * 2)
    batch = draw(meshes, orbiting(angles))
    for k, angle in enumerate(angles):
        alone = draw(meshes, orbiting([angle]), mesh=torch.tensor([k % 3]))
        differs = batch.face[k] != alone.face[0]
        gap = (batch.depth[k] - alone.depth[0]).abs()
        assert not (differs & ~(gap < 1e-5)).any(), "only ties in depth may differ"
        same = ~differs
        for name in ("colour", "seen", "normal"):
            gap = (getattr(batch, name)[k] - getattr(alone, name)[0])[same].abs()
            assert gap.max() < 1 / 255


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "gl"}, "backend must be one of"),
        ({"mesh": torch.tensor([3])}, r"one of 1 meshes for each of 1 cameras.*got \[3\]"),
        ({"mesh": torch.tensor([-1])}, r"got \[-1\]"),
        ({"mesh": torch.tensor([0, 0])}, r"got \[0, 0\]"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        draw(balls(1), orbiting([(0, 0)]), **change)


def test_open_sheets_are_drawn_from_both_sides():
    triangle = torch.tensor([[[0.0, 0], [8, 0], [0, 8]]])
    for faces in ([[0, 1, 2]], [[0, 2, 1]]):
        assert (rasterize(triangle, torch.ones(1, 3), torch.tensor(faces), (8, 8)).face == 0).any()
