# SPDX-License-Identifier: Apache-2.0
"""SMPL-X (Max Planck Society), for users who have signed its licence; code and model are extras.

Source: Pavlakos et al., Expressive Body Capture, CVPR 2019; run by the `smplx` package.
Package and model are for non-commercial research only, and their terms exclude surveillance:
nothing of them is part of this project. Install `viewsynth[smplx]` and give the model file that you
got from smpl-x.is.tue.mpg.de.

Zero pose: standing, legs straight down, arms hanging. A pose is one rotation vector per bone, in
world axes, applied to the standing pose, as in `anny`. SMPL-X is y up and faces +z already.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from viewsynth.bodies import KEYPOINTS, PARTS, poses
from viewsynth.bodies.anny import mirrored
from viewsynth.runtime.licences import Passport

NOTICE = (
    "SMPL-X: model and code are licensed by the Max Planck Society for non-commercial scientific "
    "research only, and their terms exclude surveillance uses. What you make with it inherits "
    "these terms; the default body, anny, is free of them."
)
SHAPES = 10
POSED = 22  # joints of the body; jaw, eyes and fingers keep their rest pose
# bone: (part of the vertices that follow it, std of the prior about x, y, z, degrees)
_BONES = {
    "pelvis": ("torso", (4, 6, 3)),
    "spine1": ("torso", (4, 3, 3)),
    "spine2": ("torso", (3, 3, 3)),
    "spine3": ("torso", (3, 4, 3)),
    "neck": ("neck", (7, 10, 5)),
    "head": ("head", (8, 12, 6)),
}
_SIDED = {
    "hip": ("thigh", (18, 7, 5)),
    "knee": ("shank", (20, 3, 2)),
    "ankle": ("foot", (8, 5, 3)),
    "foot": ("foot", (3, 1, 1)),
    "collar": ("torso", (3, 5, 4)),
    "shoulder": ("upper_arm", (26, 14, 11)),
    "elbow": ("forearm", (30, 12, 6)),
    "wrist": ("hand", (6, 6, 6)),
}
_LIMITS = {  # (low, high) about x of joints that bend one way, degrees
    "elbow": (-125, 4),
    "knee": (-4, 110),
    "hip": (-75, 40),
    "shoulder": (-120, 45),
}
# The standing pose: directions of bones, x outwards.
_AIMS = (
    ("shoulder", "elbow", (0.10, -1.0, -0.04)),
    ("elbow", "wrist", (0.06, -1.0, 0.17)),
    ("hip", "knee", (0.02, -1.0, 0.0)),
    ("knee", "ankle", (0.0, -1.0, -0.02)),
)
# `KEYPOINTS` that are vertices, with their names in the smplx package; the others are joints.
_AT_VERTEX = {
    "nose": "nose",
    "left_eye": "leye",
    "right_eye": "reye",
    "left_ear": "lear",
    "right_ear": "rear",
    "left_big_toe": "LBigToe",
    "right_big_toe": "RBigToe",
    "left_heel": "LHeel",
    "right_heel": "RHeel",
}


def build(device: torch.device, path: str | Path | None = None) -> SmplxBody:
    """Load the SMPL-X body from a licensed file.

    Args:
        device: Of its tensors.
        path: An SMPLX_*.npz; None = the value of the environment variable VIEWSYNTH_SMPLX.

    Raises:
        ValueError: If no file is given, the extra is not installed, or the file is not SMPL-X.
        FileNotFoundError: If the file does not exist.
    """
    path = path or os.environ.get("VIEWSYNTH_SMPLX")
    if not path:
        raise ValueError(
            "body smplx needs the licensed model file (SMPLX_NEUTRAL.npz from "
            "smpl-x.is.tue.mpg.de): give it with --weights.smplx FILE or VIEWSYNTH_SMPLX=FILE. "
            + NOTICE
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"SMPL-X model file {path} does not exist")
    try:
        import smplx
        from smplx.joint_names import JOINT_NAMES
        from smplx.vertex_ids import vertex_ids
    except ImportError as error:
        raise ValueError(
            "body smplx needs its extra: pip install 'viewsynth[smplx]'. " + NOTICE
        ) from error
    warnings.warn(NOTICE, stacklevel=2)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model = smplx.SMPLXLayer(
                str(path),
                ext="npz",
                use_pca=False,
                flat_hand_mean=True,
                num_betas=SHAPES,
                num_expression_coeffs=10,
            )
        with np.load(path, allow_pickle=False) as file:
            atlas = [file[key] for key in ("vt", "ft") if key in file.files]
    except (KeyError, AttributeError, IndexError, RuntimeError, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is not an SMPL-X model in npz form (such as SMPLX_NEUTRAL.npz): {error}"
        ) from error
    return SmplxBody(model, list(JOINT_NAMES[:55]), vertex_ids["smplx"], atlas, device)


class SmplxBody:
    """`viewsynth.bodies.Body` on the smplx package; see there for the attributes.

    The skinning is the package's formula, but only for the requested vertices and the joints of
    the body, which makes a fit many times faster; a test compares it with the package's own.

    Args:
        model: Of the `smplx` package.
        joints: Names of its joints.
        marks: Index of each named vertex.
        atlas: Texture coordinates and their faces, if the file has them; else empty.
        device: Of the tensors.
    """

    name = "smplx"
    passport = Passport(
        name="SMPL-X",
        licence=(
            "non-commercial (SMPL-X model and code licence, Max Planck Society; no surveillance)"
        ),
        redistribute="no",
        citation="Pavlakos et al., Expressive Body Capture, CVPR 2019",
    )

    def __init__(self, model, joints: list[str], marks: dict, atlas: list, device: torch.device):
        self.device = device
        self._model = model.to(device).requires_grad_(False)
        self.bones = tuple(joints[:POSED])
        self.faces = model.faces_tensor.long().to(device)
        self._parents = model.parents[:POSED].tolist()
        template = model.v_template
        self.uvs, self.face_uvs = _atlas(atlas, self.faces)
        part = torch.tensor([PARTS.index(_part(joint)) for joint in joints], device=device)
        self.parts = part[model.lbs_weights.argmax(1)]
        self.mirror = mirrored(template)
        self._standing = _standing_rotations(self.bones, model.J_regressor @ template)
        self._above = self._standing[[max(parent, 0) for parent in self._parents]].clone()
        self._above[0] = torch.eye(3, device=device)
        self._joints = (model.J_regressor @ template)[:POSED]
        dirs = torch.einsum("jv,vcs->sjc", model.J_regressor, model.shapedirs[..., :SHAPES])
        self._joint_dirs = dirs[:, :POSED].flatten(1)
        self._skin = _carried(model.lbs_weights, model.parents.tolist())
        self._kept: tuple = (None, ())
        self._priors()
        self.keypoint_vertices, self.keypoint_weights = _keypoints(model, joints, marks)

    def _priors(self) -> None:
        """Set the priors and limits of pose and shape."""
        std = torch.tensor([_row(bone)[1] for bone in self.bones], device=self.device)
        self.pose_std = torch.deg2rad(std.float())
        self.pose_mean = torch.zeros_like(self.pose_std)
        self.pose_low, self.pose_high = -3.5 * self.pose_std, 3.5 * self.pose_std
        for row, bone in enumerate(self.bones):
            if (name := bone.rpartition("_")[2]) in _LIMITS:
                low, high = torch.deg2rad(torch.tensor(_LIMITS[name]).float())
                self.pose_low[row, 0], self.pose_high[row, 0] = low, high
        self.shapes = tuple(f"beta{k}" for k in range(SHAPES))
        self.shape_mean = torch.zeros(SHAPES, device=self.device)
        self.shape_std = torch.ones(SHAPES, device=self.device)
        self.shape_low, self.shape_high = self.shape_mean - 2.5, self.shape_mean + 2.5

    def vertices(self, shape: Tensor, pose: Tensor, subset: Tensor | None = None) -> Tensor:
        """See `Body.vertices`."""
        from smplx.lbs import batch_rigid_transform

        batch = max(len(shape), len(pose))
        local = (
            self._above.mT @ poses.rotation_matrix(pose).expand(batch, -1, -1, -1) @ self._standing
        )
        joints = self._joints + (shape.expand(batch, -1) @ self._joint_dirs).unflatten(1, (-1, 3))
        _, transforms = batch_rigid_transform(local, joints, self._model.parents[:POSED])
        rest, blend, correct, skin = self._part(subset)
        # Jaw, eyes and fingers never move: their pose corrections are zero and omitted.
        bent = (local[:, 1:] - torch.eye(3, device=self.device)).flatten(1)
        vertices = rest + (shape @ blend + bent @ correct).unflatten(1, (-1, 3))
        moved = (skin @ transforms.flatten(2)).unflatten(2, (4, 4))
        return (moved[..., :3, :3] @ vertices[..., None])[..., 0] + moved[..., :3, 3]

    def _part(self, subset: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Template [N, 3], blend shapes of shape [S, 3 N] and pose [189, 3 N], skin [N, P]."""
        if self._kept[0] is not subset or not self._kept[1]:
            index = slice(None) if subset is None else subset
            model = self._model
            blend = model.shapedirs[index, :, :SHAPES].flatten(0, 1).T.contiguous()
            correct = model.posedirs[: 9 * (POSED - 1)].unflatten(1, (-1, 3))[:, index].flatten(1)
            self._kept = (subset, (model.v_template[index], blend, correct, self._skin[index]))
        return self._kept[1]

    def from_angles(self, angles: dict[str, Tensor]) -> Tensor:
        """See `Body.from_angles`."""
        joints = ("hip", "knee", "ankle", "shoulder", "elbow")
        names = {f"{s}_{joint}": f"{s}_{joint}" for joint in joints for s in poses.SIDES}
        trunk = ("spine1", "spine2", "spine3")
        return poses.from_angles(angles, names, trunk, self.bones, self.device)


def _carried(weights: Tensor, parents: list[int]) -> Tensor:
    """Skinning weights on the posed bones; those of fingers, jaw and eyes go to their parents."""
    carried = weights.clone()
    for joint in range(weights.shape[1] - 1, POSED - 1, -1):
        carried[:, parents[joint]] += carried[:, joint]
    return carried[:, :POSED]


def _row(bone: str) -> tuple[str, tuple[int, int, int]]:
    return (_BONES | _SIDED)[bone.rpartition("_")[2]]


def _part(joint: str) -> str:
    """The part of `PARTS` that a joint moves; fingers count as hands, jaw and eyes as head."""
    side, _, name = joint.rpartition("_")
    if name in _BONES or name in _SIDED:
        part = _row(joint)[0]
        return f"{side}_{part}" if side and part != "torso" else part
    if joint == "jaw" or "eye" in joint:
        return "head"
    return f"{joint.partition('_')[0]}_hand"


def _standing_rotations(bones: tuple[str, ...], joints: Tensor) -> Tensor:
    """Rotation of every bone from the T-pose to standing with hanging arms, [P, 3, 3]."""
    total = torch.eye(3, device=joints.device).repeat(len(bones), 1, 1)
    for side, out in (("left", 1.0), ("right", -1.0)):
        for bone, child, aim in _AIMS:
            row = bones.index(f"{side}_{bone}")
            direction = joints[bones.index(f"{side}_{child}")] - joints[row]
            aim = torch.tensor(aim, device=joints.device) * torch.tensor([out, 1.0, 1.0]).to(joints)
            total[row] = poses.align(direction, aim)
        total[bones.index(f"{side}_wrist")] = total[bones.index(f"{side}_elbow")]
    return total


def _keypoints(model, joints: list[str], marks: dict, count: int = 64) -> tuple[Tensor, Tensor]:
    """`KEYPOINTS` from named vertices and from the strongest vertices of joint regressors."""
    vertices, weights = [], []
    for name in KEYPOINTS:
        if name in _AT_VERTEX:
            row = torch.zeros_like(model.J_regressor[0])
            row[marks[_AT_VERTEX[name]]] = 1
        else:
            row = model.J_regressor[joints.index(name)]
        strongest, vertex = row.topk(count)
        vertices.append(vertex)
        weights.append(strongest / strongest.sum())
    return torch.stack(vertices), torch.stack(weights)


def _atlas(given: list[np.ndarray], faces: Tensor) -> tuple[Tensor, Tensor]:
    """The texture coordinates of the file; else one small chart per face, two per grid cell."""
    device = faces.device
    if len(given) == 2 and given[1].shape == tuple(faces.shape):
        uvs, corners = torch.from_numpy(given[0]), torch.from_numpy(given[1].astype(np.int64))
        return uvs.float().to(device), corners.to(device)
    side = int(np.ceil(np.sqrt(len(faces) / 2)))
    number = torch.arange(len(faces), device=device)
    cell, upper = number // 2, number % 2
    corner = torch.stack([cell % side, cell // side], -1)[:, None]
    low = torch.tensor([[0.1, 0.1], [0.75, 0.1], [0.1, 0.75]], device=device)
    chart = torch.where(upper[:, None, None] == 0, low, 1 - low)
    return ((corner + chart) / side).view(-1, 2), torch.arange(3 * len(faces), device=device).view(
        -1, 3
    )
