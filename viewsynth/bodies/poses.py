# SPDX-License-Identifier: Apache-2.0
"""A small bank of poses in anatomic angles, for every body (see `bodies.ANGLES`).

From above a natural walking pose looks truer than the depth of limbs that one photo lets us guess.
"""

from __future__ import annotations

import torch
from torch import Tensor

PHASES = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)


def walk(phase: Tensor, stride: float = 1.0) -> dict[str, Tensor]:
    """One moment of level walking.

    Source: the usual shape of the joint angles over the gait cycle (Winter, Biomechanics and Motor
    Control of Human Movement, 4th ed., ch. 4), as a few cosines; amplitudes of a comfortable speed.

    Args:
        phase: Degrees; 0 = the left heel strikes, 180 = the right heel strikes.  [B]
        stride: Amplitude relative to comfortable walking, 0 = standing.
    Returns: anatomic angles, degrees.  [B] each
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
    """The walking poses of a body, phases `PHASES`, then standing.  [9, P, 3] radians"""
    phase = torch.tensor(PHASES)
    standing = body.from_angles(walk(torch.zeros(1), stride=0.0))
    return torch.cat([body.from_angles(walk(phase, stride=0.8)), standing]).to(body.pose_std.device)
