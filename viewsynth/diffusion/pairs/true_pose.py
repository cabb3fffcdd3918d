# SPDX-License-Identifier: Apache-2.0
"""Reconstructed people in the pose and at the place that a world's truth states."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import Tools, posing
from viewsynth.records import Person

MIDDLES = ("ear", "shoulder", "hip")  # joints whose middles the stature runs through
LEG = ("hip", "knee", "ankle")


def in_true_pose(
    people: list[Person], rows: list[dict], tools: Tools, true_size: bool = False
) -> Tensor:
    """Reconstructed people in the pose and the place that the truth tells.

    Args:
        people: One a row.
        rows: Of `truth.jsonl`.
        true_size: Whether they are as tall as in truth, too; no photo tells that.
    Returns: vertices, world, metres.  [N, V, 3]
    """
    posed = []
    for person, row in zip(people, rows, strict=True):
        pose = np.float32(row["pose_vector"]).reshape(-1, 3)
        one = dataclasses.replace(person, pose=pose, fallback="")
        if true_size:
            one.scale *= stature(true_joints(row)) / stature(joints_of(one, tools))
        posed.append(one)
    vertices = posing.posed(posed, tools.poser, "fitted")
    return torch.stack(
        [placed(one, true_joints(row), row, tools) for one, row in zip(vertices, rows, strict=True)]
    )


def true_joints(row: dict) -> Tensor:
    return torch.tensor(row["joints"]).float()[:, :3]


def joints_of(person: Person, tools: Tools) -> Tensor:
    """Keypoints of a person's bare body, metres.  [K, 3]"""
    shape, pose = (torch.from_numpy(a)[None] for a in (person.shape, person.pose))
    return bodies.keypoints(tools.body, tools.body.vertices(shape, pose))[0] * person.scale


def stature(joints: Tensor) -> float:
    """Length from the ears over shoulders and hips to the ankles, metres: the same in any pose."""
    at = {name: joints[k] for k, name in enumerate(KEYPOINTS)}
    middle = [(at[f"left_{name}"] + at[f"right_{name}"]) / 2 for name in MIDDLES]
    lines = [middle, *([at[f"{side}_{name}"] for name in LEG] for side in ("left", "right"))]
    trunk, *legs = (
        sum(float((a - b).norm()) for a, b in zip(line, line[1:], strict=False)) for line in lines
    )
    return trunk + sum(legs) / 2


def placed(vertices: Tensor, joints: Tensor, row: dict, tools: Tools) -> Tensor:
    """A standing body moved over the true joints, at the true height above the ground.  [V, 3]"""
    own = bodies.keypoints(tools.body, vertices[None])[0]
    shift = (joints - own).mean(0)
    shift[1] = float(row.get("lift") or 0.0)
    return vertices + shift
