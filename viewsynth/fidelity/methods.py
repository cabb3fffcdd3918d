# SPDX-License-Identifier: Apache-2.0
"""Methods: pictures of a reconstructed person at the true camera of a drone.

`METHODS` lists the rows of the table. Bodies are drawn here, baselines that only move pixels come
from `viewsynth.fidelity.baselines`. Every picture is the person alone on mid-grey: the true one
with the true mask, a method's with its own, so that neither background nor a leaked outline
decides. All are lit by an overcast sky (the true sun is nobody's to know) and finished by the same
sensor as in `generate`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.bodies import KEYPOINTS
from viewsynth.cameras import Cameras
from viewsynth.fidelity import baselines
from viewsynth.fidelity.truth import Instant, Picture
from viewsynth.reconstruct import Tools, fill, posing, texture
from viewsynth.records import Person, seed_of
from viewsynth.render import scene, shade
from viewsynth.render.sensor import Sensor, expose

METHODS = {
    "true": "the true picture itself: what the observer can tell at best",
    "ours": "what generate makes: relaxed pose",
    "fitted": "ours in the pose fitted to the photo",
    "true_pose": "ours in the true pose, where the person truly stands",
    "ceiling": "true body shape, size, pose, masks and cameras; our texture from the photos",
    "resized": "the ground crop that is nearest in azimuth, resized to the true box",
    "warped": "that crop on a board that faces the drone and leans back, true cameras and size",
    "mean_body": "mean body, walking, each part in its mean colour in the ground crops",
}
GREY = 128
SUPERSAMPLE = 2
MIDDLES = ("ear", "shoulder", "hip")  # joints whose middles the stature runs through
LEG = ("hip", "knee", "ankle")


@dataclass(frozen=True)
class Made:
    """A method's picture of one drone view.

    Args:
        image: On mid-grey.  uint8 [H, W, 3]
        mask: bool [H, W]
        seen: How much of each pixel was really seen, [0, 1].  float32 [H, W]; None = not known
        height_error: Of the body's size, per cent of the true one, signed; None = has no size
    """

    image: np.ndarray
    mask: np.ndarray
    seen: np.ndarray | None = None
    height_error: float | None = None


@dataclass(frozen=True)
class _Body:
    """One body to draw: where it stands, what is painted on it."""

    vertices: Tensor  # [V, 3]
    texture: np.ndarray
    seen: np.ndarray | None
    height_error: float


def make(
    moment: Instant,
    person: Person,
    ground: list[Picture],
    drone: list[Picture],
    tools: Tools,
    seed: int,
) -> list[dict[str, Made]]:
    """Every method's picture of every drone view of one instant.

    Args:
        person: Reconstructed from the ground pictures.
        seed: Of the sensor's noise, which is one for all methods.
    Returns: method -> picture, one dict a drone view, in their order.
    """
    parsed = baselines.parse_all(ground, tools)
    drawn = _bodies(moment, person, ground, parsed, tools)
    out = []
    for true in drone:
        layers = dict(zip(drawn, _draw(list(drawn.values()), true.camera, tools), strict=True))
        nearest = baselines.nearest(true, ground)
        layers["resized"] = baselines.resized(true, ground[nearest], parsed[nearest])
        layers["warped"] = baselines.warped(true, ground[nearest], parsed[nearest])
        mask = torch.from_numpy(true.mask).float()[None]
        layers["true"] = torch.cat([_floats(true.image) * mask, mask, mask])
        made = {}
        for name in METHODS:
            body = drawn.get(name)
            finish = None if name == "true" else seed_of(seed, true.row["file_name"])
            one = finished(layers[name], finish)
            made[name] = dataclasses.replace(
                one,
                seen=one.seen if body and body.seen is not None else None,
                height_error=body.height_error if body else None,
            )
        out.append(made)
    return out


def finished(layers: Tensor, seed: int | None) -> Made:
    """The person on mid-grey as a sensor stores him.

    Args:
        layers: RGB times coverage, coverage, seen times coverage, [0, 1].  float32 [5, H, W]
        seed: Of the noise; None = the picture went through a sensor already.
    """
    share = layers[3:4]
    image = layers[:3] + (1 - share) * GREY / 255
    mask = (share[0] >= 0.5).numpy()
    if seed is None:
        stored = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().copy()
    else:
        stored = expose(image, Sensor(), torch.Generator().manual_seed(seed))
    stored[~mask] = GREY
    seen = (layers[4] / share[0].clamp_min(1e-6)).numpy() * mask
    return Made(stored, mask, seen)


def _floats(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def _bodies(moment: Instant, person: Person, ground, parsed, tools: Tools) -> dict[str, _Body]:
    """The bodies that are drawn, by method."""
    row = moment.drone[0]
    pose = np.float32(row["pose_vector"]).reshape(-1, 3)
    true_pose = dataclasses.replace(person, pose=pose, fallback="")
    joints = torch.tensor(row["joints"]).float()[:, :3]
    size = 100 * (_stature(_joints_of(person, tools)) / _stature(joints) - 1)
    found = {}
    for name, one, mode in (
        ("ours", person, "relaxed"),
        ("fitted", person, "fitted"),
        ("true_pose", true_pose, "fitted"),
    ):
        vertices = posing.posed([one], tools.poser, mode)[0]
        if name == "true_pose":
            vertices = _placed(vertices, joints, row, tools)
        found[name] = _Body(vertices, person.texture, person.seen, size)
    found["ceiling"] = _ceiling(moment, person, pose, joints, ground, tools)
    mean = dataclasses.replace(
        person, shape=tools.body.shape_mean.cpu().numpy(), offsets=0 * person.offsets, scale=1.0,
        quality={**person.quality, "bald": False},
    )  # fmt: skip
    paint = baselines.painted(ground, parsed, tools.atlas)
    walking = posing.posed([mean], tools.poser, "walk")[0]
    size = 100 * (_stature(_joints_of(mean, tools)) / _stature(joints) - 1)
    found["mean_body"] = _Body(walking, paint, None, size)
    return found


def _joints_of(person: Person, tools: Tools) -> Tensor:
    """Keypoints of a person's bare body, metres.  [K, 3]"""
    shape, pose = (torch.from_numpy(a)[None] for a in (person.shape, person.pose))
    return bodies.keypoints(tools.body, tools.body.vertices(shape, pose))[0] * person.scale


def _stature(joints: Tensor) -> float:
    """Length from the ears over shoulders and hips to the ankles, metres: the same in any pose."""
    at = {name: joints[k] for k, name in enumerate(KEYPOINTS)}
    middle = [(at[f"left_{name}"] + at[f"right_{name}"]) / 2 for name in MIDDLES]
    lines = [middle, *([at[f"{side}_{name}"] for name in LEG] for side in ("left", "right"))]
    trunk, *legs = (
        sum(float((a - b).norm()) for a, b in zip(line, line[1:], strict=False)) for line in lines
    )
    return trunk + sum(legs) / 2


def _placed(vertices: Tensor, joints: Tensor, row: dict, tools: Tools) -> Tensor:
    """A standing body moved over the true joints, at the true height above the ground.  [V, 3]"""
    own = bodies.keypoints(tools.body, vertices[None])[0]
    shift = (joints - own).mean(0)
    shift[1] = float(row.get("lift") or 0.0)
    return vertices + shift


@dataclass(frozen=True)
class _TrueView:
    """The true ground cameras in the form that `texture.project` asks for."""

    cameras: list[Cameras]
    elevation: Tensor
    azimuth: Tensor

    def project(self, vertices: Tensor, crops: Tensor) -> tuple[Tensor, Tensor]:
        pixels, depth = self.cameras[int(crops[0])].project(vertices)
        return pixels, depth - 10  # `texture` takes depths about the person


def _ceiling(moment, person: Person, pose, joints: Tensor, ground, tools: Tools) -> _Body:
    """Body and projection from the truth, clothing offsets and texture as ever."""
    row = moment.drone[0]
    shape = np.float32([row["phenotype"][name] for name in tools.body.shapes])
    true = dataclasses.replace(person, shape=shape, pose=pose, fallback="", scale=1.0)
    true.scale = _stature(joints) / _stature(_joints_of(true, tools))
    vertices = _placed(posing.posed([true], tools.poser, "fitted")[0], joints, row, tools)
    view = _TrueView(
        [picture.camera for picture in ground],
        *(torch.tensor([float(p.row[k]) for p in ground]) for k in ("elevation", "azimuth")),
    )
    paints, _, _ = texture.project(
        tools.body, tools.atlas, view, vertices[None].repeat(len(ground), 1, 1),
        [picture.image for picture in ground],
        [picture.mask.astype(np.float32) for picture in ground],
    )  # fmt: skip
    toned = texture.harmonise(paints, tools.atlas, [1.0] * len(paints))
    colours, seen, _ = fill.complete(texture.fuse(toned), tools.atlas)
    return _Body(vertices, colours, seen, 0.0)


@torch.no_grad()
def _draw(drawn: list[_Body], camera: Cameras, tools: Tools) -> list[Tensor]:
    """Layers of every body at one camera: RGB, coverage, seen, all times coverage. [5, H, W]"""
    height, width = camera.size
    box = torch.tensor([[0.0, 0.0, width, height]])
    fine = camera.window(box, (height * SUPERSAMPLE, width * SUPERSAMPLE))
    count = len(drawn)
    many = Cameras(
        fine.world_to_camera.repeat(count, 1, 1), fine.intrinsics.repeat(count, 1, 1), fine.size,
        None if fine.k1 is None else fine.k1.repeat(count),
    )  # fmt: skip
    empty = np.zeros(drawn[0].texture.shape[:2], np.uint8)
    buffers = shade.render(
        torch.stack([body.vertices for body in drawn]), tools.body.faces, many, torch.arange(count),
        tools.body.uvs, tools.body.face_uvs,
        torch.from_numpy(np.stack([body.texture for body in drawn])),
        torch.from_numpy(np.stack([empty if b.seen is None else b.seen for b in drawn])),
    )  # fmt: skip
    overcast = dataclasses.replace(scene.place(0), strength=0.0)
    colour = (buffers.colour * scene.light(buffers.normal, overcast)[..., None]).clamp(0, 1)
    share = (buffers.face >= 0).float()[..., None]
    layers = torch.cat([colour * share, share, buffers.seen[..., None]], -1).movedim(-1, 1)
    return list(scene.shrink(layers, SUPERSAMPLE))
