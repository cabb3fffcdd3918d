# SPDX-License-Identifier: Apache-2.0
"""Methods: pictures of a reconstructed person at the true camera of a drone.

`METHODS` lists the rows of the table. Bodies are drawn here, baselines that only move pixels come
from `viewsynth.evaluate.fidelity.baselines`. Every picture is the person alone on mid-grey: the true one
with the true mask, a method's with its own, so that neither background nor a leaked outline
decides. All are lit by an overcast sky (the true sun is nobody's to know) and finished by the same
sensor as in `generate`. What `generate` would write, ground, sun and all, stands beside it for the
measures of whole pictures.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth import cameras
from viewsynth.cameras import Cameras
from viewsynth.diffusion.pairs.true_pose import in_true_pose, joints_of, stature, true_joints
from viewsynth.evaluate.fidelity import baselines
from viewsynth.reconstruct import Tools, fill, posing, texture
from viewsynth.reconstruct.parse import Parse
from viewsynth.records import Person, seed_of
from viewsynth.render import foreground, scene, shade
from viewsynth.render.options import Sensor
from viewsynth.render.sensor import expose
from viewsynth.render.views import SUPERSAMPLE
from viewsynth.world.truth import Instant, Picture

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
WHOLE = ("ours", "true_pose")  # those that are drawn with a background, too
GREY = 128


@dataclass(frozen=True)
class Made:
    """A method's picture of one drone view.

    Args:
        image: On mid-grey.  uint8 [H, W, 3]
        mask: bool [H, W]
        seen: How much of each pixel was really seen, [0, 1].  float32 [H, W]; None = not known
        height_error: Of the body's size, per cent of the true one, signed; None = has no size
        whole: With its background, as `generate` would write it.  uint8 [H, W, 3]; None = the
            method makes none
    """

    image: np.ndarray
    mask: np.ndarray
    seen: np.ndarray | None = None
    height_error: float | None = None
    whole: np.ndarray | None = None


@dataclass(frozen=True)
class Body:
    """One body to draw: where it stands, what is painted on it."""

    vertices: Tensor  # [V, 3]
    texture: np.ndarray
    seen: np.ndarray | None
    height_error: float


def make(
    drawn: dict[str, Body],
    ground: list[Picture],
    parsed: list[Parse],
    drone: list[Picture],
    tools: Tools,
    seed: int,
) -> list[dict[str, Made]]:
    """Every method's picture of every drone view of one instant.

    Args:
        drawn: See `bodies_of`.
        parsed: Of the ground pictures, see `baselines.parse_all`.
        seed: Of the ground and of the sensor's noise, which are one for all methods.
    Returns: method -> picture, one dict a drone view, in their order.
    """
    out = []
    for true in drone:
        layers = dict(zip(drawn, _draw(list(drawn.values()), true.camera, tools), strict=True))
        nearest = baselines.nearest(true, ground)
        layers["resized"] = baselines.resized(true, ground[nearest], parsed[nearest])
        layers["warped"] = baselines.warped(true, ground[nearest], parsed[nearest])
        mask = torch.from_numpy(true.mask).float()[None]
        layers["true"] = torch.cat([_floats(true.image) * mask, mask, mask])
        finish = seed_of(seed, true.row["file_name"])
        composed = compose([drawn[name] for name in WHOLE], true.camera, tools, finish)
        wholes = {
            name: expose(picture, Sensor(), torch.Generator().manual_seed(finish))
            for name, picture in zip(WHOLE, composed, strict=True)
        } | {"true": true.image}
        made = {}
        for name in METHODS:
            body = drawn.get(name)
            one = finished(layers[name], None if name == "true" else finish)
            made[name] = dataclasses.replace(
                one,
                seen=one.seen if body and body.seen is not None else None,
                height_error=body.height_error if body else None,
                whole=wholes.get(name),
            )
        out.append(made)
    return out


@torch.no_grad()
def compose(drawn: list[Body], camera: Cameras, tools: Tools, seed: int) -> Tensor:
    """People on a ground and in a light of their own, as `generate` draws them, before the sensor.

    Args:
        seed: Of ground and light, one for all.
    Returns: RGB in [0, 1].  float32 [N, 3, H, W]
    """
    height, width = camera.size
    vertices = torch.stack([body.vertices for body in drawn])
    textures, seens = _painted(drawn)
    fine = foreground.resize_canvas(
        cameras.join([camera] * len(drawn)), (height * SUPERSAMPLE, width * SUPERSAMPLE)
    )
    buffers = shade.render(
        vertices,
        tools.body.faces,
        fine,
        torch.arange(len(drawn)),
        tools.body.uvs,
        tools.body.face_uvs,
        *(torch.from_numpy(np.stack(maps)) for maps in (textures, seens)),
    )
    places = [scene.place(seed)] * len(drawn)
    return scene.compose(buffers, fine, vertices, tools.body.faces, places, SUPERSAMPLE)


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


def bodies_of(
    moment: Instant, person: Person, ground: list[Picture], parsed: list[Parse], tools: Tools
) -> dict[str, Body]:
    """The bodies that are drawn, by method.

    Args:
        person: Reconstructed from the ground pictures.
    """
    row = moment.drone[0]
    joints = true_joints(row)
    size = 100 * (stature(joints_of(person, tools)) / stature(joints) - 1)
    found = {}
    for name, mode in (("ours", "relaxed"), ("fitted", "fitted")):
        vertices = posing.posed([person], tools.poser, mode)[0]
        found[name] = Body(vertices, person.texture, person.seen, size)
    vertices = in_true_pose([person], [row], tools)[0]
    found["true_pose"] = Body(vertices, person.texture, person.seen, size)
    found["ceiling"] = _ceiling(row, person, ground, tools)
    mean = dataclasses.replace(
        person,
        shape=tools.body.shape_mean.cpu().numpy(),
        offsets=0 * person.offsets,
        scale=1.0,
        quality={**person.quality, "bald": False},
    )
    paint = baselines.painted(ground, parsed, tools.atlas)
    walking = posing.posed([mean], tools.poser, "walk")[0]
    size = 100 * (stature(joints_of(mean, tools)) / stature(joints) - 1)
    found["mean_body"] = Body(walking, paint, None, size)
    return found


@dataclass(frozen=True)
class _TrueView:
    """The true ground cameras in the form that `texture.project` asks for."""

    cameras: list[Cameras]
    elevation: Tensor
    azimuth: Tensor

    def project(self, vertices: Tensor, crops: Tensor) -> tuple[Tensor, Tensor]:
        pixels, depth = self.cameras[int(crops[0])].project(vertices)
        return pixels, depth - 10  # `texture` takes depths about the person


def _ceiling(row: dict, person: Person, ground, tools: Tools) -> Body:
    """Body and projection from the truth, clothing offsets and texture as ever."""
    shape = np.float32([row["phenotype"][name] for name in tools.body.shapes])
    true = dataclasses.replace(person, shape=shape, scale=1.0)
    vertices = in_true_pose([true], [row], tools, true_size=True)[0]
    view = _TrueView(
        [picture.camera for picture in ground],
        *(torch.tensor([float(p.row[k]) for p in ground]) for k in ("elevation", "azimuth")),
    )
    paints, _, _ = texture.project(
        tools.body,
        tools.atlas,
        view,
        vertices[None].repeat(len(ground), 1, 1),
        [picture.image for picture in ground],
        [picture.mask.astype(np.float32) for picture in ground],
    )
    toned = texture.harmonise(paints, tools.atlas, [1.0] * len(paints))
    colours, seen, _ = fill.complete(texture.fuse(toned), tools.atlas)
    return Body(vertices, colours, seen, 0.0)


def _draw(drawn: list[Body], camera: Cameras, tools: Tools) -> list[Tensor]:
    """Layers of every body at one camera: RGB, coverage, seen, all times coverage. [5, H, W]"""
    layers = foreground.layers(
        torch.stack([body.vertices for body in drawn]),
        tools.body,
        *_painted(drawn),
        torch.arange(len(drawn)),
        cameras.join([camera] * len(drawn)),
    )
    return list(layers[:, :5])


def _painted(drawn: list[Body]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Textures and seen maps; nothing was seen of a body that has none."""
    empty = np.zeros(drawn[0].texture.shape[:2], np.uint8)
    return (
        [body.texture for body in drawn],
        [empty if body.seen is None else body.seen for body in drawn],
    )
