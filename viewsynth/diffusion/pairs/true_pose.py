# SPDX-License-Identifier: Apache-2.0
"""Put reconstructed people into the pose and position that the truth of a world states."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import Tools, posing
from viewsynth.records import Person
from viewsynth.render.meshes import Mesh

MIDDLES = ("ear", "shoulder", "hip")  # joints whose midpoints are on the line of the stature
LEG = ("hip", "knee", "ankle")


def in_true_pose(
    people: list[Person], rows: list[dict], tools: Tools, true_size: bool = False
) -> list[Mesh]:
    """Reconstructed people in their true pose and position.

    Args:
        people: One person per row.
        rows: Rows of `truth.jsonl`.
        tools: Reconstruction tools.
        true_size: Whether to scale them to the true stature, which photos do not determine.

    Returns:
        One mesh per person.
    """
    posed = []
    for person, row in zip(people, rows, strict=True):
        pose = np.float32(row["pose_vector"]).reshape(-1, 3)
        one = dataclasses.replace(person, pose=pose, fallback="")
        if true_size:
            one.scale *= stature(true_joints(row)) / stature(joints_of(one, tools))
        posed.append(one)
    standing = posing.posed(posed, tools.poser, "fitted")
    vertices = [
        placed(one, true_joints(row), row, tools) for one, row in zip(standing, rows, strict=True)
    ]
    return posing.clothed(posed, tools.poser, torch.stack(vertices))


def true_joints(row: dict) -> Tensor:
    """True joints of a row of `truth.jsonl`, world, metres: [K, 3]."""
    return torch.tensor(row["joints"]).float()[:, :3]


def joints_of(person: Person, tools: Tools) -> Tensor:
    """Keypoints of a person's body without clothing, metres: [K, 3]."""
    shape, pose = (torch.from_numpy(a)[None] for a in (person.shape, person.pose))
    return bodies.keypoints(tools.body, tools.body.vertices(shape, pose))[0] * person.scale


def stature(joints: Tensor) -> float:
    """Length from the ears over shoulders and hips to the ankles, metres, the same in any pose."""
    at = {name: joints[k] for k, name in enumerate(KEYPOINTS)}
    middle = [(at[f"left_{name}"] + at[f"right_{name}"]) / 2 for name in MIDDLES]
    lines = [middle, *([at[f"{side}_{name}"] for name in LEG] for side in ("left", "right"))]
    trunk, *legs = (
        sum(float((a - b).norm()) for a, b in zip(line, line[1:], strict=False)) for line in lines
    )
    return trunk + sum(legs) / 2


def placed(vertices: Tensor, joints: Tensor, row: dict, tools: Tools) -> Tensor:
    """Move a standing body [V, 3] to the true joints, at the true height above the ground."""
    own = bodies.keypoints(tools.body, vertices[None])[0]
    shift = (joints - own).mean(0)
    shift[1] = float(row.get("lift") or 0.0)
    return vertices + shift
