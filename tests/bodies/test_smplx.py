# SPDX-License-Identifier: Apache-2.0
"""The SMPL-X body, with a synthetic model file (see smplx_file.py)."""

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("smplx")
import smplx_file

from viewsynth import bodies
from viewsynth.bodies.poses import rotation_matrix
from viewsynth.bodies.smplx import NOTICE


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return smplx_file.write(tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz")


def test_t_pose_is_the_template(path):
    """Undoing the standing pose gives the package's own zero pose: checks order and convention."""
    body = smplx_file.body(path)
    undo = torch.zeros(1, 22, 3)
    for side, sign in (("left", 1), ("right", -1)):
        angles = {f"{side}_shoulder_abduction": torch.tensor([90.0])}
        undo += body.from_angles(angles)
        assert sign * undo[0, body.bones.index(f"{side}_shoulder"), 2] > 0
    raised = bodies.keypoints(body, body.vertices(body.shape_mean[None], undo))[0]
    wrist, shoulder = (bodies.KEYPOINTS.index(f"left_{name}") for name in ("wrist", "shoulder"))
    reach = raised[wrist] - raised[shoulder]
    assert reach[0] > 0.45 and reach[1].abs() < 0.12


def test_skinning_equals_the_package(path):
    body = smplx_file.body(path)
    generator = torch.Generator().manual_seed(0)
    body._model.posedirs.copy_(torch.randn(body._model.posedirs.shape, generator=generator) * 0.01)
    pose = torch.randn(2, 22, 3, generator=generator) * 0.3
    shape = torch.randn(2, 10, generator=generator)
    local = body._above.mT @ rotation_matrix(pose) @ body._standing
    expected = body._model(betas=shape, global_orient=local[:, :1], body_pose=local[:, 1:])
    assert torch.allclose(body.vertices(shape, pose), expected.vertices, atol=1e-5)


def test_a_pose_turns_bones_about_world_axes(path):
    """The convention of rotations, written out joint by joint."""
    body = smplx_file.body(path)
    pose = torch.randn(1, 22, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    ours = body.vertices(body.shape_mean[None], pose)[0]
    model, standing = body._model, body._standing
    joints = model.J_regressor @ model.v_template
    turn, origin = [], []
    for bone, parent in enumerate(body._parents):
        own = rotation_matrix(pose[0, bone])
        turn.append(turn[parent] @ own if parent >= 0 else own)
        if parent < 0:
            origin.append(joints[0])
        else:
            swing = turn[parent] @ standing[parent] @ (joints[bone] - joints[parent])
            origin.append(origin[parent] + swing)
    for bone in range(22):
        own = (model.lbs_weights[:, bone] == 1).nonzero()[:, 0]
        rest = model.v_template[own] - joints[bone]
        expected = rest @ (turn[bone] @ standing[bone]).T + origin[bone]
        assert torch.allclose(ours[own], expected, atol=1e-5), body.bones[bone]


def test_atlas_of_the_file_is_used(tmp_path, path):
    with_atlas = smplx_file.body(smplx_file.write(tmp_path / "SMPLX_NEUTRAL.npz", atlas=True))
    file = np.load(tmp_path / "SMPLX_NEUTRAL.npz")
    assert np.allclose(with_atlas.uvs.numpy(), file["vt"], atol=1e-6)
    charts = smplx_file.body(path)
    corner = charts.uvs[charts.face_uvs]
    assert corner.min() > 0 and corner.max() < 1 and len(corner) == len(charts.faces)
    a, b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area = 0.5 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    assert (area > 0).all() and area.sum() < 1


def test_notice_and_errors(tmp_path, path, monkeypatch):
    with pytest.warns(UserWarning, match="non-commercial"):
        body = bodies.load("smplx", path=path)
    assert "non-commercial" in body.passport.licence and "surveillance" in NOTICE
    monkeypatch.delenv("VIEWSYNTH_SMPLX", raising=False)
    with pytest.raises(ValueError, match="VIEWSYNTH_SMPLX"):
        bodies.load("smplx")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        bodies.load("smplx", path=tmp_path / "none.npz")
    np.savez(tmp_path / "bad.npz", f=np.zeros((1, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match="not an SMPL-X model"):
            bodies.load("smplx", path=tmp_path / "bad.npz")
