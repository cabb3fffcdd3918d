# SPDX-License-Identifier: Apache-2.0
"""Repair: what a view-aware diffusion makes of the drawn people, at the true cameras of drones.

methods (drawn bodies) -> `viewsynth.diffusion.refine`, as `generate` uses it -> pictures like those of the
other methods. Their outline is looked for in what was made, see `outline`, and never in the truth.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from viewsynth import cameras, metrics
from viewsynth.diffusion import refine
from viewsynth.diffusion.options import Refine
from viewsynth.diffusion.refine import Refiner
from viewsynth.evaluate.fidelity.methods import GREY, WHOLE, Body, Made, compose
from viewsynth.evaluate.fidelity.outline import outline, resized
from viewsynth.reconstruct import Tools
from viewsynth.records import Person, View, seed_of
from viewsynth.render import foreground
from viewsynth.render.options import Sensor
from viewsynth.render.sensor import expose
from viewsynth.world.truth import OCCLUDER, Picture

METHODS = {
    "repair": "ours, repaired by the diffusion",
    "source_only": "the diffusion from the photo and the camera alone, without any rendering",
    "repair_true": "true_pose, repaired by the diffusion",
}
BASE = {"repair": "ours", "source_only": "ours", "repair_true": "true_pose"}


class Repairer:
    """A model and how it is used.

    Args:
        refiner: See `refine.load`.
    """

    def __init__(self, refiner: Refiner):
        self.refiner = refiner
        # Without geometry nobody knows where the drawn ground would have to end.
        alone = dataclasses.replace(
            refiner.options, background="generated", keep_seen=0.0, strength=1.0
        )
        self.alone = Refiner(refiner.pipeline, alone)

    def make(
        self,
        drawn: dict[str, Body],
        person: Person,
        ground: list[Picture],
        drone: list[Picture],
        made: list[dict[str, Made]],
        tools: Tools,
        seed: int,
    ) -> list[dict[str, Made]]:
        """The pictures of `METHODS` of every drone view of one instant.

        Args:
            drawn: See `methods.bodies_of`.
            person: Reconstructed from the ground pictures.
            made: What the other methods made of each view.
            seed: Of everything random.
        Returns: method -> picture, one dict a drone view, in their order.
        """
        views, sensors, seeds = [], [], []
        for true, pictures in zip(drone, made, strict=True):
            own = seed_of(seed, true.row["file_name"])
            sensor = _sensor(true)
            grounds = compose([drawn[name] for name in WHOLE], true.camera, tools, own)
            for name, picture in zip(WHOLE, grounds, strict=True):
                noise = torch.Generator().manual_seed(own)
                shown = expose(picture, refine.optics(sensor), noise)
                views.append(_view(person.pid, true.row, shown, pictures[name]))
                sensors.append(sensor)
                seeds.append(seed_of(own, "repair"))
        given = self._conditions(drawn, person, ground, drone, views, tools)
        repaired = self.refiner.sample(given, views, seeds)
        first = list(range(0, len(views), len(WHOLE)))
        some = given.take(torch.tensor(first))
        free = self.alone.sample(
            some, [views[k] for k in first], [seeds[k] for k in first], ("source", "camera")
        )
        out = []
        for k, pictures in enumerate(made):
            found = {}
            for name, base in BASE.items():
                row = first[k] + WHOLE.index(base)
                if name == "source_only":
                    whole = self.alone.finish(free[k], views[row], sensors[row], seeds[row])
                else:
                    whole = self.refiner.finish(repaired[row], views[row], sensors[row], seeds[row])
                start = None if name == "source_only" else pictures[base].mask
                found[name] = alone(whole, start, pictures[base].seen)
            out.append(found)
        return out

    def _conditions(self, drawn, person: Person, ground, drone, views, tools: Tools):
        """What the model is told: of the person what the photos say, of the camera the truth."""
        by_name = {picture.row["file_name"]: picture.image for picture in ground}
        photos = [self.refiner.fitted(by_name[one["file"]]) for one in refine.used(person)]
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
            torch.stack([drawn[name].vertices for name in WHOLE]),
            tools.body,
            Sensor(),
            windows,
        )


def load(found: refine.Found, options: Refine, device: str) -> Repairer:
    """Load a model that `refine.find` found."""
    return Repairer(refine.load(found.folder, options, device))


def alone(whole: np.ndarray, start: np.ndarray | None, seen: np.ndarray | None = None) -> Made:
    """A made picture in the form of the other methods: the person on mid-grey.

    Args:
        whole: RGB.  uint8 [H, W, 3]
        start: Where the person was drawn; None = nobody knows.  bool [H, W]
        seen: Of the rendering.
    """
    mask = outline(whole, start)
    image = np.where(mask[..., None], whole, np.uint8(GREY))
    return Made(image, mask, seen, whole=whole)


def outlines(true: Picture, name: str, views: dict[str, Made]) -> dict[str, float]:
    """What the IoU of a method's outline is to be seen against.

    Returns:
        iou_possible: that of the same search in the true picture: as good as the search can be.
        iou_grown: that of the rendering's outline, plainly grown or shrunk to the area that was
            found: a drawn body is thinner than a dressed one, so that any growth helps. Not of
            source_only.
    """
    valid, base = true.labels != OCCLUDER, views[BASE[name]].mask
    start = None if name == "source_only" else base
    row = {"iou_possible": metrics.iou(outline(true.image, start) & valid, true.mask)}
    if start is not None and base.any():
        grown = resized(base, int(views[name].mask.sum()))
        row["iou_grown"] = metrics.iou(grown & valid, true.mask)
    return row


def _sensor(true: Picture) -> Sensor:
    """Our sensor with the lens of the true camera."""
    focal, vfov_rad = float(true.row["intrinsics"][0]), np.deg2rad(true.row["vfov"])
    height = round(float(2 * focal * np.tan(vfov_rad / 2)))
    return Sensor(vfov=true.row["vfov"], picture_height=height)


def _view(pid: str, row: dict, image: np.ndarray, drawn: Made) -> View:
    """A drawn picture at a true camera, as `generate` hands it to a refiner."""
    return View(
        pid=pid,
        image=image,
        mask=drawn.mask,
        seen=(drawn.seen * 255).round().astype(np.uint8),
        **{
            name: row[name]
            for name in ("elevation", "azimuth", "distance", "target_height", "vfov")
        },
        box=tuple(row["box"]),
    )
