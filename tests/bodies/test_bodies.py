# SPDX-License-Identifier: Apache-2.0
"""Tests of every body: parametrised over all modules of `viewsynth.bodies`."""

import pytest
import torch

from viewsynth import bodies
from viewsynth.bodies import poses

AT = {name: row for row, name in enumerate(bodies.KEYPOINTS)}


@pytest.fixture(scope="module", params=bodies.names())
def body(request, tmp_path_factory):
    if request.param != "smplx":
        return bodies.load(request.param)
    pytest.importorskip("smplx")
    import smplx_file

    path = smplx_file.write(tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz")
    return smplx_file.body(path)


def points(body, angles=None, shape=None):
    """`KEYPOINTS` in a pose of anatomic angles, [K, 3]."""
    pose = torch.zeros(1, len(body.bones), 3)
    if angles:
        pose = body.from_angles({key: torch.tensor([float(v)]) for key, v in angles.items()})
    return bodies.keypoints(
        body, body.vertices((body.shape_mean if shape is None else shape)[None], pose)
    )[0]


def test_shapes_agree(body):
    vertices = body.vertices(body.shape_mean[None], body.pose_mean[None])
    count = vertices.shape[1]
    assert vertices.shape == (1, count, 3) and vertices.dtype == torch.float32
    assert body.parts.shape == body.mirror.shape == (count,)
    assert int(body.faces.max()) < count and body.face_uvs.shape == body.faces.shape
    assert int(body.face_uvs.max()) < len(body.uvs)
    assert body.uvs.min() >= 0 and body.uvs.max() <= 1
    assert set(body.parts.tolist()) == set(range(len(bodies.PARTS)))
    for name in ("pose_mean", "pose_std", "pose_low", "pose_high"):
        assert getattr(body, name).shape == (len(body.bones), 3), name
    for name in ("shape_mean", "shape_std", "shape_low", "shape_high"):
        assert getattr(body, name).shape == (len(body.shapes),), name
    assert ((body.pose_low <= body.pose_mean) & (body.pose_mean <= body.pose_high)).all()
    assert ((body.shape_low <= body.shape_mean) & (body.shape_mean <= body.shape_high)).all()
    assert body.keypoint_vertices.shape == body.keypoint_weights.shape
    assert len(body.keypoint_vertices) == len(bodies.KEYPOINTS)
    assert torch.allclose(
        body.keypoint_weights.sum(1), torch.ones(len(bodies.KEYPOINTS)), atol=1e-5
    )


def test_stands_upright_and_faces_z(body):
    vertices = bodies.stand(body.vertices(body.shape_mean[None], body.pose_mean[None]))
    low, high = vertices[0].amin(0), vertices[0].amax(0)
    assert low[1].abs() < 1e-6 and 1.4 < high[1] < 2.1
    assert (low + high)[[0, 2]].abs().max() < 1e-5
    at = bodies.keypoints(body, vertices)[0]
    assert (at > low - 0.02).all() and (at < high + 0.02).all()
    ankle, knee, hip, shoulder, nose = (
        float(at[AT[name], 1])
        for name in ("left_ankle", "left_knee", "left_hip", "left_shoulder", "nose")
    )
    assert ankle < knee < hip < shoulder < nose
    assert at[AT["left_wrist"], 1] < at[AT["left_elbow"], 1] < shoulder
    assert at[AT["nose"], 2] > at[AT["left_ear"], 2]  # faces +z
    for name in ("eye", "shoulder", "hip", "knee", "ankle"):
        assert at[AT[f"left_{name}"], 0] > 0 > at[AT[f"right_{name}"], 0], name


def test_faces_look_outward(body):
    corner = body.vertices(body.shape_mean[None], body.pose_mean[None])[0][body.faces]
    volume = torch.linalg.det(corner.double()).sum() / 6
    assert 0.02 < volume < 0.2


def test_left_and_right_are_mirrored(body):
    vertices = body.vertices(body.shape_mean[None], body.pose_mean[None])[0]
    used = body.faces.unique()
    reflected = vertices[body.mirror] * torch.tensor([-1.0, 1, 1])
    assert (vertices - reflected)[used].norm(dim=1).quantile(0.95) < 0.01
    pairs = {
        n: n.replace("left", "right") if "left" in n else n.replace("right", "left")
        for n in bodies.PARTS
    }
    other = torch.tensor([bodies.PARTS.index(pairs[name]) for name in bodies.PARTS])
    assert (body.parts[body.mirror] == other[body.parts])[used].float().mean() > 0.98


@pytest.mark.parametrize(
    "angle, point, axis, sign",
    [
        ("knee_flexion", "ankle", 2, -1),
        ("hip_flexion", "knee", 2, 1),
        ("hip_abduction", "ankle", 0, 1),
        ("ankle_flexion", "big_toe", 1, 1),
        ("shoulder_flexion", "wrist", 2, 1),
        ("shoulder_abduction", "wrist", 0, 1),
        ("elbow_flexion", "wrist", 2, 1),
    ],
)
def test_angles_move_limbs_in_the_anatomic_direction(body, angle, point, axis, sign):
    assert angle in bodies.ANGLES
    zero = points(body)
    for side, out in (("left", 1), ("right", -1)):
        moved = points(body, {f"{side}_{angle}": 30}) - zero
        way = sign * (out if axis == 0 else 1)
        assert way * moved[AT[f"{side}_{point}"], axis] > 0.02
        other = "right" if side == "left" else "left"
        assert moved[AT[f"{other}_{point}"]].norm() < 1e-4


def test_trunk_flexion_bends_forward(body):
    moved = points(body, {"trunk_flexion": 20}) - points(body)
    assert moved[AT["nose"], 2] > 0.05 and moved[AT["left_ankle"]].norm() < 1e-4


def test_unknown_angle_is_refused(body):
    with pytest.raises(ValueError, match="expected some of"):
        body.from_angles({"left_wing_flexion": torch.zeros(1)})


def test_subset_equals_full(body):
    generator = torch.Generator().manual_seed(0)
    pose = body.pose_std * torch.randn(3, *body.pose_std.shape, generator=generator)
    shape = body.shape_mean.expand(3, -1)
    full = body.vertices(shape, pose)
    subset = torch.randperm(full.shape[1], generator=generator)[:500]
    assert torch.allclose(body.vertices(shape, pose, subset), full[:, subset], atol=1e-5)
    assert torch.allclose(body.vertices(shape[:1], pose[1:2])[0], full[1], atol=1e-5)


def test_gradients_reach_shape_and_pose(body):
    pose = torch.zeros(1, len(body.bones), 3, requires_grad=True)
    shape = body.shape_mean[None].clone().requires_grad_()
    body.vertices(shape, pose)[..., 1].square().sum().backward()
    assert torch.isfinite(pose.grad).all() and torch.isfinite(shape.grad).all()
    assert (pose.grad.abs().sum(-1) > 0).float().mean() > 0.9 and shape.grad.abs().sum() > 0


def test_pose_bank_fits_every_body(body):
    bank = poses.bank(body)
    assert bank.shape[1:] == (len(body.bones), 3)
    vertices = body.vertices(body.shape_mean[None].expand(len(bank), -1), bank)
    assert torch.isfinite(vertices).all()
    ankles = bodies.keypoints(body, vertices)[:, [AT["left_ankle"], AT["right_ankle"]], 2]
    apart = (ankles[:, 0] - ankles[:, 1]).abs()
    assert apart[0] > 0.2 > apart[-1]  # mid stride, and standing


def test_an_unknown_body_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="anny"):
        bodies.load("mannequin")
