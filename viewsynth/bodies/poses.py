# SPDX-License-Identifier: Apache-2.0
"""Poses that do not depend on the body: rotations, anatomic angles, and a small bank of poses.

The bank is written in anatomic angles (see `bodies.ANGLES`). From above, a natural walking pose
looks truer than the limb depth estimated from one image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SIDES = {"left": 1.0, "right": -1.0}  # and the sign of x outwards
# Axis and sign of the rotation of each angle of `bodies.ANGLES`; abduction turns outwards.
AXES = {
    "hip_flexion": (0, -1.0),
    "hip_abduction": (2, 1.0),
    "knee_flexion": (0, 1.0),
    "ankle_flexion": (0, -1.0),
    "shoulder_flexion": (0, -1.0),
    "shoulder_abduction": (2, 1.0),
    "elbow_flexion": (0, -1.0),
}
PHASES = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


def walk(phase: Tensor, stride: float = 1.0) -> dict[str, Tensor]:
    """Joint angles of level walking at given phases.

    Source: the usual curves of the joint angles over the gait cycle (Winter, Biomechanics and Motor
    Control of Human Movement, 4th ed., ch. 4) as a few cosines, at a comfortable speed.

    Args:
        phase: Degrees; 0 = left heel strike, 180 = right heel strike.  [B]
        stride: Amplitude relative to comfortable walking, 0 = standing.

    Returns:
        Anatomic angles, degrees.  [B] each
    """
    angles: dict[str, Tensor] = {"trunk_flexion": torch.full_like(phase, 3.0)}
    for side, shift in (("left", 0.0), ("right", 180.0)):
        at_rad = torch.deg2rad(phase + shift)
        swing = torch.exp(3.0 * (torch.cos(at_rad - torch.deg2rad(torch.tensor(262.0))) - 1))
        loading = torch.exp(6.0 * (torch.cos(at_rad - torch.deg2rad(torch.tensor(50.0))) - 1))
        angles[f"{side}_hip_flexion"] = stride * (7 + 19 * at_rad.cos())
        angles[f"{side}_hip_abduction"] = torch.full_like(phase, 1.0)
        angles[f"{side}_knee_flexion"] = 4 + stride * (10 * loading + 48 * swing)
        angles[f"{side}_ankle_flexion"] = stride * (4 * loading - 6 * swing)
        angles[f"{side}_shoulder_flexion"] = stride * (2 - 15 * at_rad.cos())
        angles[f"{side}_shoulder_abduction"] = torch.full_like(phase, 4.0)
        angles[f"{side}_elbow_flexion"] = 8 + stride * (6 - 6 * at_rad.cos())
    return angles


def bank(body) -> Tensor:
    """The bank of a body: walking at the phases `PHASES`, then standing, radians, [9, P, 3].

    Args:
        body: The body.
    """
    phase = torch.tensor(PHASES)
    standing = body.from_angles(walk(torch.zeros(1), stride=0.0))
    return torch.cat([body.from_angles(walk(phase, stride=0.8)), standing]).to(body.pose_std.device)


def from_angles(
    angles: dict[str, Tensor],
    bones_of: dict[str, str],
    trunk: Sequence[str],
    bones: Sequence[str],
    device: torch.device,
) -> Tensor:
    """A pose from anatomic angles, for bodies whose rotation vectors are in world axes.

    Args:
        angles: See `Body.from_angles`.
        bones_of: The bone that turns at each joint, e.g. at "left_hip".
        trunk: Bones that share the flexion of the trunk equally.
        bones: All bones of the pose.
        device: Of the pose.

    Returns:
        Rotation vectors, radians.  [B, P, 3]

    Raises:
        ValueError: If an angle is unknown.
    """
    rules = [(bone, 0, 1 / len(trunk), "trunk_flexion") for bone in trunk]
    for side, out in SIDES.items():
        for angle, (axis, sign) in AXES.items():
            bone = bones_of[f"{side}_{angle.partition('_')[0]}"]
            outwards = out if axis == 2 else 1.0
            rules.append((bone, axis, sign * outwards, f"{side}_{angle}"))
    known = {key for *_, key in rules}
    if unknown := set(angles) - known:
        raise ValueError(f"unknown angles {sorted(unknown)}; expected some of {sorted(known)}")
    pose = torch.zeros(len(next(iter(angles.values()))), len(bones), 3, device=device)
    for bone, axis, sign, key in rules:
        if key in angles:
            turn = sign * torch.deg2rad(angles[key].float())
            pose[:, bones.index(bone), axis] += turn.to(device)
    return pose


def rotation_matrix(vector: Tensor) -> Tensor:
    """Rotation matrices by Rodrigues' formula, [..., 3, 3].

    Args:
        vector: Rotation vectors, radians.  [..., 3]
    """
    angle = (vector.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    x, y, z = (vector / angle).unbind(-1)
    sin, cos = angle.sin()[..., 0], angle.cos()[..., 0]
    t = 1 - cos
    rows = (
        (t * x * x + cos, t * x * y - sin * z, t * x * z + sin * y),
        (t * x * y + sin * z, t * y * y + cos, t * y * z - sin * x),
        (t * x * z - sin * y, t * y * z + sin * x, t * z * z + cos),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def align(a: Tensor, b: Tensor) -> Tensor:
    """The smallest rotation that turns direction a into direction b, [3, 3].

    Args:
        a: [3].
        b: [3].
    """
    a, b = torch.nn.functional.normalize(torch.stack([a, b]), dim=1)
    axis = torch.nn.functional.normalize(torch.linalg.cross(a, b), dim=0)
    return rotation_matrix(axis * torch.acos((a @ b).clamp(-1, 1)))
