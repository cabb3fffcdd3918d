# SPDX-License-Identifier: Apache-2.0
"""Posing: a reconstructed person -> the clothed mesh that is rendered or exported.

Needs no pose model and no photo: other cameras and exports of a saved person start here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.bodies import poses
from viewsynth.reconstruct.volume import Clothier
from viewsynth.records import Person

MODES = ("fitted", "relaxed", "walk")


class Poser:
    """A body with its clothes and its bank of poses, prepared once."""

    def __init__(self, body: bodies.Body):
        self.body = body
        self.clothier = Clothier(body)
        self.bank = poses.bank(body)


def posed(people: list[Person], poser: Poser, mode: str = "relaxed") -> Tensor:
    """The people's meshes as they are rendered: clothed, on the ground, facing +z.

    Args:
        mode: "fitted", "walk" (the nearest pose of the bank), or "relaxed": between them,
            nearer to the bank, most so with the arms. A person whose fit failed always walks.
    Returns: vertices, metres.  [N, V, 3]
    Raises: ValueError: if the mode is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"pose.mode must be one of {', '.join(MODES)}; got {mode!r}")
    device = poser.bank.device
    shape = torch.from_numpy(np.stack([person.shape for person in people])).to(device)
    fitted = torch.from_numpy(np.stack([person.pose for person in people])).to(device)
    nearest = poser.bank[_nearest(poser, fitted)]
    share = (
        _share(poser.body).to(device) if mode == "relaxed" else {"fitted": 1.0, "walk": 0.0}[mode]
    )
    sound = torch.tensor([not person.fallback for person in people], device=device)[:, None, None]
    pose = nearest + share * sound * (fitted - nearest)
    hair = torch.tensor([0.0 if p.quality.get("bald") else 1.0 for p in people], device=device)
    offsets = torch.from_numpy(np.stack([person.offsets for person in people])).to(device)
    vertices = poser.clothier.dress(poser.body.vertices(shape, pose), offsets, hair)
    scale = torch.tensor([person.scale for person in people], device=device)
    return bodies.stand(vertices * scale[:, None, None])


def _share(body) -> Tensor:
    """How much of the fitted pose each bone keeps in relaxed mode.  [P, 1]"""
    arms = ("arm", "wrist")
    return torch.tensor([[0.25 if any(a in bone for a in arms) else 0.4] for bone in body.bones])


def _nearest(poser: Poser, pose: Tensor) -> Tensor:
    """The pose of the bank whose legs are most like the fitted ones.  [N]"""
    legs = [
        k
        for k, bone in enumerate(poser.body.bones)
        if "leg" in bone or "hip" in bone or "knee" in bone
    ]
    swing = (pose[:, None, legs, 0] - poser.bank[None, :, legs, 0]).square().sum(2)
    return swing.argmin(1)
