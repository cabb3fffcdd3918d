# SPDX-License-Identifier: Apache-2.0
"""Views of a reconstructed person at the true camera of a drone, by all methods.

`METHODS` lists the methods, i.e. the rows of the table. This module renders bodies; baselines that
only transform pixels come from `baselines`. Every view shows the person alone on mid-grey: the true
image with the true mask, a prediction with its own, so that neither the background nor a true mask
affects the measures. All are rendered under an overcast sky, because the true sun is unknown, and
with the sensor model of `generate`. Measures of whole images use the view that `generate` would
write, with ground and sun.
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
from viewsynth.reconstruct import Tools, fill, posing, texture, tone
from viewsynth.reconstruct.parse import Parse
from viewsynth.records import Person, seed_of
from viewsynth.render import foreground, scene, shade
from viewsynth.render.meshes import Mesh
from viewsynth.render.options import Scene, Sensor
from viewsynth.render.sensor import expose
from viewsynth.render.views import SUPERSAMPLE
from viewsynth.world.truth import Instant, TrueImage

METHODS = {
    "true": "the true image itself: what the observer can tell at best",
    "ours": "what generate makes: relaxed pose",
    "fitted": "ours in the pose fitted to the photo",
    "true_pose": "ours in the true pose, where the person truly stands",
    "ceiling": "true body shape, size, pose, masks and cameras; our texture from the photos",
    "resized": "the ground crop that is nearest in azimuth, resized to the true box",
    "warped": "that crop on a board that faces the drone and leans back, true cameras and size",
    "mean_body": "mean body, walking, each part in its mean colour in the ground crops",
}
WHOLE = ("ours", "true_pose")  # methods that are also rendered with a background
GREY = 128


@dataclass(frozen=True)
class Prediction:
    """A method's prediction of one drone view.

    Args:
        image: The person on mid-grey.  uint8 [H, W, 3]
        mask: Mask of the person.  bool [H, W]
        seen: Seen map, in [0, 1].  float32 [H, W]; None = unknown.
        height_error: Error of the body size, per cent of the true size, signed; None = unknown.
        whole: The view with its background, as `generate` would write it.  uint8 [H, W, 3]; None =
            the method renders none.
    """

    image: np.ndarray
    mask: np.ndarray
    seen: np.ndarray | None = None
    height_error: float | None = None
    whole: np.ndarray | None = None


@dataclass(frozen=True)
class Body:
    """A body to render, the error of its size, and whether its seen map is known."""

    mesh: Mesh
    height_error: float
    has_seen: bool = True


def predict(
    bodies: dict[str, Body],
    ground: list[TrueImage],
    parsed: list[Parse],
    drone: list[TrueImage],
    seed: int,
    sensor: Sensor,
    around: Scene,
) -> list[dict[str, Prediction]]:
    """Predict every drone view of one instant with every method.

    Args:
        bodies: See `posed_bodies`.
        ground: Ground images.
        parsed: Results of the pose model for the ground images, see `baselines.parse_all`.
        drone: True images of the drones.
        seed: Seed of ground and sensor noise, which are the same for all methods.
        sensor: Sensor model, the same for all methods; the camera is the true one.
        around: Ground and light.

    Returns:
        Method -> prediction, one dict per drone view, in their order.
    """
    out = []
    for true in drone:
        rendered = _render([body.mesh for body in bodies.values()], true.camera)
        layers = dict(zip(bodies, rendered, strict=True))
        nearest = baselines.nearest(true, ground)
        layers["resized"] = baselines.pasted_crop(true, ground[nearest], parsed[nearest])
        layers["warped"] = baselines.warped(true, ground[nearest], parsed[nearest])
        mask = torch.from_numpy(true.mask).float()[None]
        layers["true"] = torch.cat([_floats(true.image) * mask, mask, mask])
        view_seed = seed_of(seed, true.row["file_name"])
        composed = compose([bodies[name].mesh for name in WHOLE], true.camera, view_seed, around)
        wholes = {
            name: expose(image, sensor, view_seed)
            for name, image in zip(WHOLE, composed, strict=True)
        } | {"true": true.image}
        predictions = {}
        for name in METHODS:
            body = bodies.get(name)
            one = on_grey(layers[name], None if name == "true" else sensor, view_seed)
            predictions[name] = dataclasses.replace(
                one,
                seen=one.seen if body and body.has_seen else None,
                height_error=body.height_error if body else None,
                whole=wholes.get(name),
            )
        out.append(predictions)
    return out


@torch.no_grad()
def compose(meshes: list[Mesh], camera: Cameras, seed: int, around: Scene) -> Tensor:
    """Render people with ground and light like `generate`, without the sensor model.

    Args:
        meshes: People, each rendered in its own image.
        camera: One camera for all images.
        seed: Seed of ground and light, the same for all images.
        around: Their options.

    Returns:
        RGB in [0, 1].  float32 [N, 3, H, W]
    """
    height, width = camera.size
    fine = foreground.resize_canvas(
        cameras.join([camera] * len(meshes)), (height * SUPERSAMPLE, width * SUPERSAMPLE)
    )
    each, places = torch.arange(len(meshes)), [scene.place(seed, scene=around)] * len(meshes)
    buffers = shade.render(meshes, fine, each)
    return scene.compose(buffers, fine, meshes, each, places, SUPERSAMPLE)


def on_grey(layers: Tensor, sensor: Sensor | None, seed: int) -> Prediction:
    """Compose the person on mid-grey and apply the sensor model.

    Args:
        layers: RGB times coverage, coverage, seen map times coverage, [0, 1].  float32 [5, H, W]
        sensor: Sensor model; None = do not apply it.
        seed: Seed of its noise.
    """
    share = layers[3:4]
    image = layers[:3] + (1 - share) * GREY / 255
    mask = (share[0] >= 0.5).numpy()
    if sensor is None:
        stored = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy().copy()
    else:
        stored = expose(image, sensor, seed)
    stored[~mask] = GREY
    seen = (layers[4] / share[0].clamp_min(1e-6)).numpy() * mask
    return Prediction(stored, mask, seen)


def _floats(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def posed_bodies(
    moment: Instant, person: Person, ground: list[TrueImage], parsed: list[Parse], tools: Tools
) -> dict[str, Body]:
    """Bodies of the methods that render one.

    Args:
        moment: The instant, with the true pose.
        person: Person reconstructed from the ground images.
        ground: Ground images.
        parsed: Results of the pose model for the ground images.
        tools: See `reconstruct.load`.

    Returns:
        Method -> body.
    """
    row = moment.drone[0]
    joints = true_joints(row)
    size = 100 * (stature(joints_of(person, tools)) / stature(joints) - 1)
    found = {}
    for name, mode in (("ours", "relaxed"), ("fitted", "fitted")):
        found[name] = Body(posing.meshes([person], tools.poser, mode)[0], size)
    found["true_pose"] = Body(in_true_pose([person], [row], tools)[0], size)
    found["ceiling"] = _ceiling(row, person, ground, tools)
    colours = baselines.mean_colours(ground, parsed, tools.atlas)
    mean = dataclasses.replace(
        person,
        texture=colours,
        seen=np.zeros(colours.shape[:2], np.uint8),
        shape=tools.body.shape_mean.cpu().numpy(),
        offsets=0 * person.offsets,
        surface=None,
        scale=1.0,
        quality={**person.quality, "bald": False},
    )
    size = 100 * (stature(joints_of(mean, tools)) / stature(joints) - 1)
    found["mean_body"] = Body(posing.meshes([mean], tools.poser, "walk")[0], size, has_seen=False)
    return found


@dataclass(frozen=True)
class _TrueView:
    """Adapter of the true ground cameras for `texture.project`."""

    cameras: list[Cameras]
    elevation: Tensor
    azimuth: Tensor

    def project(self, vertices: Tensor, crops: Tensor) -> tuple[Tensor, Tensor]:
        pixels, depth = self.cameras[int(crops[0])].project(vertices)
        return pixels, depth - 10  # `texture` expects depths relative to the person


def _ceiling(row: dict, person: Person, ground, tools: Tools) -> Body:
    """Body with the true shape, pose and cameras, but our clothing offsets and texture."""
    shape = np.float32([row["phenotype"][name] for name in tools.body.shapes])
    true = dataclasses.replace(person, shape=shape, scale=1.0, surface=None)
    [mesh] = in_true_pose([true], [row], tools, true_size=True)
    view = _TrueView(
        [picture.camera for picture in ground],
        *(torch.tensor([float(p.row[k]) for p in ground]) for k in ("elevation", "azimuth")),
    )
    images = [picture.image for picture in ground]
    shown = texture.project(
        tools.body,
        tools.atlas,
        view,
        mesh.vertices[None].repeat(len(ground), 1, 1),
        images,
        [picture.mask.astype(np.float32) for picture in ground],
    )
    projected = [one.paint for one in shown]
    known = {source["file"]: source.get("exposure", 0.0) for source in person.sources}
    exposures = [known.get(picture.row["file_name"], 0.0) for picture in ground]
    tones = tone.tones(projected, images, tools.atlas, [1.0] * len(ground), exposures)
    fused = texture.fuse(projected, tones, tools.atlas)
    colours, seen, _ = fill.complete(fused, tools.atlas)
    maps = {"texture": torch.from_numpy(colours), "seen": torch.from_numpy(seen)}
    return Body(dataclasses.replace(mesh, **maps), 0.0)


def _render(meshes: list[Mesh], camera: Cameras) -> list[Tensor]:
    """Layers of every mesh at one camera, [5, H, W]: RGB and seen map times coverage, coverage."""
    every = cameras.join([camera] * len(meshes))
    return list(foreground.layers(meshes, torch.arange(len(meshes)), every)[:, :5])
