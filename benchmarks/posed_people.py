# SPDX-License-Identifier: Apache-2.0
"""People of the world in postures that its pictures seldom or never show; for `inputs.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from viewsynth.records import seed_of
from viewsynth.world import gait, shots
from viewsynth.world.mannequin import mannequin

KINDS = {"cycle": ("cycle",), "sit": ("stand", "phone"), "calm": ("walk", "stand"), "run": ("run",)}


def posed(seed: int, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Kind (of `KINDS`) and ground picture of `count` people in each posture.

    Who sits is somebody who stands, with hips and knees bent by about a right angle.
    """
    motion, body_of = shots._motion, shots._posed
    try:
        for kind in KINDS:
            shots._motion = lambda s, who, moment, calm=False, kind=kind: _motion(s, who, kind)
            shots._posed = _seated if kind == "sit" else body_of
            for number in range(count):
                rng = np.random.default_rng(seed_of(seed, "posed", kind, number))
                shot = shots.Simple(
                    name=kind, height=int(rng.integers(90, 260)),
                    elevation=float(rng.uniform(0, 25)), azimuth=float(rng.uniform(0, 360)),
                    distance=float(rng.uniform(4, 12)),
                    platform=("cctv", "wearable")[number % 2], camid=f"c{number % 7}",
                )  # fmt: skip
                try:
                    yield kind, shots.one(number, seed, shot).image
                except ValueError:  # always hidden by something: another person will do
                    continue
    finally:
        shots._motion, shots._posed = motion, body_of


def _motion(seed: int, character, kind: str) -> gait.Motion:
    rng = np.random.default_rng(seed_of(seed, "motion", character.who.number, kind))
    while (motion := gait.motion(rng)).kind not in KINDS[kind]:
        pass
    return motion


def _seated(character, motion: gait.Motion) -> tuple:
    """As `shots._posed`, on a chair that is not there."""
    body = mannequin().body
    pose, zero = gait.pose(motion, body).clone(), np.zeros(1)
    rng = np.random.default_rng(seed_of(0, "seat", character.who.number))
    hip, knee, wide = rng.uniform(70, 95), rng.uniform(70, 100), rng.uniform(0, 15)
    for side, out in (("L", 1), ("R", -1)):
        turns = {
            "upperleg01": gait.turn(zero - hip, zero, zero + out * wide),
            "lowerleg01": gait.turn(zero + knee, zero, zero), "foot": gait.turn(zero, zero, zero),
        }  # fmt: skip
        for bone, turn in turns.items():
            row = body.bones.index(f"{bone}.{side}")
            pose[row] = torch.from_numpy(gait.vector(turn)[0].astype(np.float32))
    return character.posed(pose, 0.0, ""), pose.numpy(), 0.0
