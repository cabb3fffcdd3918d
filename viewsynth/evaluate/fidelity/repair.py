# SPDX-License-Identifier: Apache-2.0
"""Views repaired by a view-aware diffusion model, at the true cameras of drones.

methods (rendered bodies) -> `viewsynth.diffusion.refine`, used as in `generate` -> predictions like
those of the other methods. Their masks are estimated from the repaired view, see `outline`.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from viewsynth import cameras, metrics
from viewsynth.diffusion import refine
from viewsynth.diffusion.options import Refine
from viewsynth.diffusion.refine import Refiner
from viewsynth.evaluate.fidelity.methods import GREY, WHOLE, Body, Prediction, compose
from viewsynth.evaluate.fidelity.outline import grown_to, outline
from viewsynth.records import Person, View, seed_of
from viewsynth.render import foreground
from viewsynth.render.options import Scene, Sensor
from viewsynth.render.sensor import expose
from viewsynth.world.truth import OCCLUDER, TrueImage

METHODS = {
    "repair": "ours, repaired by the diffusion",
    "source_only": "the diffusion from the photo and the camera alone, without any rendering",
    "repair_true": "true_pose, repaired by the diffusion",
}
BASE = {"repair": "ours", "source_only": "ours", "repair_true": "true_pose"}


class Repairer:
    """Predicts drone views with a diffusion model.

    Args:
        refiner: See `refine.load`.
        sensor: Sensor model; the camera is the true one.
        around: Ground and light.
    """

    def __init__(self, refiner: Refiner, sensor: Sensor, around: Scene):
        self.refiner, self.sensor, self.around = refiner, sensor, around
        # Without geometry the border between person and rendered ground is unknown.
        options = dataclasses.replace(
            refiner.options, background="generated", keep_seen=0.0, strength=1.0
        )
        self.source_only = Refiner(refiner.pipeline, options)

    def predict(
        self,
        bodies: dict[str, Body],
        person: Person,
        ground: list[TrueImage],
        drone: list[TrueImage],
        others: list[dict[str, Prediction]],
        seed: int,
    ) -> list[dict[str, Prediction]]:
        """Predict every drone view of one instant with each of `METHODS`.

        Args:
            bodies: See `methods.posed_bodies`.
            person: Person reconstructed from the ground images.
            ground: Ground images.
            drone: True images of the drones.
            others: Predictions of the other methods for each view.
            seed: Seed of all random draws.

        Returns:
            Method -> prediction, one dict per drone view, in their order.
        """
        views, sensors, seeds = self._renderings(bodies, person.pid, drone, others, seed)
        conditions = self._conditions(bodies, person, ground, drone, views)
        repaired = self.refiner.sample(conditions, views, seeds)
        first = list(range(0, len(views), len(WHOLE)))
        without_render = self.source_only.sample(
            conditions.take(torch.tensor(first)),
            [views[k] for k in first],
            [seeds[k] for k in first],
            ("source", "camera"),
        )
        out = []
        for k, predictions in enumerate(others):
            found = {}
            for name, base in BASE.items():
                row = first[k] + WHOLE.index(base)
                if name == "source_only":
                    refiner, sample, start = self.source_only, without_render[k], None
                else:
                    refiner, sample, start = self.refiner, repaired[row], predictions[base].mask
                whole = refiner.finish(sample, views[row], sensors[row], seeds[row])
                found[name] = person_only(whole, start, predictions[base].seen)
            out.append(found)
        return out

    def _conditions(self, bodies, person: Person, ground, drone, views):
        """Conditions of the model: the person from the photos, the true camera."""
        by_name = {picture.row["file_name"]: picture.image for picture in ground}
        photos = [self.refiner.fitted(by_name[one["file"]]) for one in refine.used_sources(person)]
        windows = cameras.join(
            [
                foreground.resize_canvas(true.camera, self.refiner.pipeline.size)
                for true in drone
                for _ in WHOLE
            ]
        )
        return self.refiner.conditions(
            views,
            list(range(len(WHOLE))) * len(drone),
            [person] * len(WHOLE),
            [photos] * len(WHOLE),
            [bodies[name].mesh for name in WHOLE],
            Sensor(),
            windows,
        )

    def _renderings(
        self, bodies: dict[str, Body], pid: str, drone: list[TrueImage], others: list, seed: int
    ) -> tuple[list[View], list[Sensor], list[int]]:
        """`WHOLE` views of each drone view, which are repaired, with their sensors and seeds."""
        views, sensors, seeds = [], [], []
        for true, predictions in zip(drone, others, strict=True):
            view_seed = seed_of(seed, true.row["file_name"])
            sensor = _at(true, self.sensor)
            meshes = [bodies[name].mesh for name in WHOLE]
            images = compose(meshes, true.camera, view_seed, self.around)
            for name, image in zip(WHOLE, images, strict=True):
                exposed = expose(image, sensor.without_chip(), view_seed)
                views.append(_view(pid, true.row, exposed, predictions[name]))
                sensors.append(sensor)
                seeds.append(seed_of(view_seed, "repair"))
        return views, sensors, seeds


def load(
    found: refine.Found, options: Refine, device: str, sensor: Sensor, around: Scene
) -> Repairer:
    """Load a diffusion model.

    Args:
        found: Result of `refine.find`.
        options: How the model is used.
        device: Device of the model.
        sensor: See `Repairer`.
        around: See `Repairer`.
    """
    return Repairer(refine.load(found.folder, options, device), sensor, around)


def person_only(
    whole: np.ndarray, start: np.ndarray | None, seen: np.ndarray | None = None
) -> Prediction:
    """Segment the person in a repaired view and put it on mid-grey.

    Args:
        whole: RGB.  uint8 [H, W, 3]
        start: Mask of the rendered person; None = unknown.  bool [H, W]
        seen: Seen map of the rendering.
    """
    mask = outline(whole, start)
    image = np.where(mask[..., None], whole, np.uint8(GREY))
    return Prediction(image, mask, seen, whole=whole)


def reference_ious(true: TrueImage, name: str, views: dict[str, Prediction]) -> dict[str, float]:
    """Reference values for the IoU of a repaired view.

    Args:
        true: True image of the drone.
        name: One of `METHODS`.
        views: Predictions of all methods for the view.

    Returns:
        iou_possible: IoU of the same segmentation applied to the true image, an upper limit.
        iou_grown: IoU of the rendering's mask, grown or shrunk evenly to the area of the repaired
            person. A rendered body is thinner than a clothed one, so that any growth increases the
            IoU. Missing for source_only.
    """
    valid, base = true.labels != OCCLUDER, views[BASE[name]].mask
    start = None if name == "source_only" else base
    row = {"iou_possible": metrics.iou(outline(true.image, start) & valid, true.mask)}
    if start is not None and base.any():
        grown = grown_to(base, int(views[name].mask.sum()))
        row["iou_grown"] = metrics.iou(grown & valid, true.mask)
    return row


def _at(true: TrueImage, sensor: Sensor) -> Sensor:
    """The sensor model with the focal length of the true camera."""
    focal, vfov_rad = float(true.row["intrinsics"][0]), np.deg2rad(true.row["vfov"])
    height = round(float(2 * focal * np.tan(vfov_rad / 2)))
    camera = {"vfov": true.row["vfov"], "picture_height": height, "pixels": Sensor.pixels}
    return dataclasses.replace(sensor, **camera)


def _view(pid: str, row: dict, image: np.ndarray, rendered: Prediction) -> View:
    """A rendering at a true camera as a view, the input of a refiner."""
    return View(
        pid=pid,
        image=image,
        mask=rendered.mask,
        seen=(rendered.seen * 255).round().astype(np.uint8),
        **{
            name: row[name]
            for name in ("elevation", "azimuth", "distance", "target_height", "vfov")
        },
        box=tuple(row["box"]),
    )
