# SPDX-License-Identifier: Apache-2.0
"""Pose reconstructed people: the clothed meshes that are rendered or exported.

Needs no pose model and no image: rendering and exporting a saved person start here.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.bodies import poses
from viewsynth.reconstruct.canonical import Canonical
from viewsynth.reconstruct.volume import Clothier
from viewsynth.reconstruct.warp import move
from viewsynth.records import MESH, Person, Surface
from viewsynth.render.meshes import Mesh

MODES = ("fitted", "relaxed", "walk")


class Poser:
    """A body with its clothing, its bank of poses and its canonical pose, prepared once.

    Args:
        body: The body.
    """

    def __init__(self, body: bodies.Body):
        self.body = body
        self.clothier = Clothier(body)
        self.bank = poses.bank(body)
        self.canonical = Canonical(body, self.clothier)


def posed(people: list[Person], poser: Poser, mode: str = "relaxed") -> Tensor:
    """Pose people for rendering: clothed, standing on the ground, facing +z.

    Args:
        people: N people with this body.
        poser: The prepared body.
        mode: "fitted"; "walk" (the nearest pose of the bank); or "relaxed" (between these, nearer
            to the bank, the arms most). People whose fit failed always get "walk".

    Returns:
        Vertices, metres.  [N, V, 3]

    Raises:
        ValueError: If the mode is unknown.
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
    sound = torch.tensor([p.fallback in ("", "body") for p in people], device=device)[:, None, None]
    pose = nearest + share * sound * (fitted - nearest)
    hair = torch.tensor([0.0 if p.quality.get("bald") else 1.0 for p in people], device=device)
    offsets = torch.from_numpy(np.stack([person.offsets for person in people])).to(device)
    vertices = poser.clothier.dress(poser.body.vertices(shape, pose), offsets, hair)
    scale = torch.tensor([person.scale for person in people], device=device)
    return bodies.stand(vertices * scale[:, None, None])


def meshes(people: list[Person], poser: Poser | None, mode: str = "relaxed") -> list[Mesh]:
    """The textured surfaces of people, posed for rendering.

    Args:
        people: N people with this body, or with a mesh of their own, which has no pose.
        poser: The prepared body; None if all people have a mesh of their own.
        mode: See `posed`.

    Returns:
        One mesh per person, on the device of the body.

    Raises:
        ValueError: If the mode is unknown.
    """
    dressed, moved = iter(()), [person for person in people if person.body != MESH]
    if moved:
        dressed = iter(clothed(moved, poser, posed(moved, poser, mode).detach()))
    device = poser.bank.device if poser else torch.device("cpu")
    return [
        _own(person.surface, device) if person.body == MESH else _standing(next(dressed))
        for person in people
    ]


def _standing(mesh: Mesh) -> Mesh:
    return dataclasses.replace(mesh, vertices=bodies.stand(mesh.vertices[None])[0])


def _own(surface: Surface, device: torch.device) -> Mesh:
    """A surface as it is."""
    tensors = {key: torch.from_numpy(array).to(device) for key, array in vars(surface).items()}
    indices = {key: tensors[key].long() for key in ("faces", "face_uvs")}
    return Mesh(**tensors | indices)


@torch.no_grad()
def clothed(people: list[Person], poser: Poser, vertices: Tensor) -> list[Mesh]:
    """The textured surfaces of people whose bodies are posed already.

    Args:
        people: N people with this body.
        poser: The prepared body.
        vertices: Of their bodies, anywhere in the world, metres.  [N, V, 3]

    Returns:
        One mesh per person; the body itself for people without a surface.
    """
    canonical = poser.canonical
    scale = torch.tensor([person.scale for person in people], device=vertices.device)
    motions = canonical.nodes.motions(vertices / scale[:, None, None])
    found = []
    for person, body, motion in zip(people, vertices, motions, strict=True):
        if person.surface is None:
            arrays = (body, poser.body.faces, poser.body.uvs, poser.body.face_uvs)
            images = (person.texture, person.seen)
        else:
            own = person.surface
            binding = canonical.binding(own)
            moved = move(own.vertices, binding, motion) * person.scale
            rest = (own.faces.astype(np.int64), own.uvs, own.face_uvs.astype(np.int64))
            arrays = (moved, *(torch.from_numpy(array).to(body.device) for array in rest))
            images = (own.texture, own.seen)
        maps = (torch.from_numpy(image).to(body.device) for image in images)
        found.append(Mesh(*arrays, *maps))
    return found


def _share(body) -> Tensor:
    """Share of the fitted pose that each bone keeps in the mode "relaxed", [P, 1]."""
    arms = ("arm", "wrist")
    return torch.tensor([[0.25 if any(a in bone for a in arms) else 0.4] for bone in body.bones])


def _nearest(poser: Poser, pose: Tensor) -> Tensor:
    """Index of the pose of the bank whose legs are most like the fitted ones, [N]."""
    legs = [
        k
        for k, bone in enumerate(poser.body.bones)
        if "leg" in bone or "hip" in bone or "knee" in bone
    ]
    swing = (pose[:, None, legs, 0] - poser.bank[None, :, legs, 0]).square().sum(2)
    return swing.argmin(1)
