# SPDX-License-Identifier: Apache-2.0
"""Examples: crops of the world's people with their fitted bodies, and the truth on the same grid.

world (images, sheets) and reconstruct (fit, canvas) -> this module -> making. The bodies are fitted
as in `generate`, errors included. The truth is relative to the true body without clothes, so that
the network learns what clothes, hair and bags add, not how a pose was misjudged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from viewsynth.cameras import Cameras
from viewsynth.reconstruct import Tools, canvas, fitting
from viewsynth.reconstruct.canvas import METRE, SIZE, Canvas
from viewsynth.reconstruct.crops import Outcome
from viewsynth.records import Sample
from viewsynth.world import rig, sheets, shots
from viewsynth.world.people import identity

OVERLAP = 0.6  # smallest IoU of the mask and the person; below it, the mask shows something else
PLANNED = 4  # shots of a plan per wanted image, enough to find as many on the ground


@dataclass
class Examples:
    """Examples of some people.

    Args:
        arrays: Name -> one entry per example, see `stored`.
        rows: One per example.
        rejects: Crops without an example, with the reason.
    """

    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    rejects: list[dict] = field(default_factory=list)

    def add(self, row: dict, arrays: dict[str, np.ndarray]) -> None:
        """Append an example."""
        self.rows.append(row)
        for name, value in arrays.items():
            self.arrays.setdefault(name, []).append(value)


def make(seed: int, numbers: range, images: int, tools: Tools) -> Examples:
    """Make the examples of some people.

    Args:
        seed: Seed of the world; of people who are neither trained on elsewhere nor reported on.
        numbers: Numbers of the people.
        images: Ground images of each person.
        tools: See `reconstruct.load`.
    """
    found = Examples()
    rendered = {}
    for number in numbers:
        for shot in ground_shots(seed, number, images):
            rendered[f"{number}/{shot.name}"] = shots.render_shot(seed, number, shot)
    owners = [[name for name in rendered if name.startswith(f"{k}/")] for k in numbers]
    outcomes = [Outcome(person=None) for _ in owners]
    fitted = fitting.fitted(
        [[_sample(name, rendered[name]) for name in names] for names in owners],
        [[rendered[name].image for name in names] for names in owners],
        tools,
        outcomes,
    )
    for reject in (reject for one in outcomes for reject in one.rejects):
        found.rejects.append({"name": reject.source, "reason": reject.reason})
    if fitted is None:
        return found
    crops = fitted.crops
    placed = canvas.canvases(
        tools.body,
        fitted.fit,
        range(len(crops)),
        fitted.vertices,
        [crop.image for crop in crops],
        [crop.parse.mask for crop in crops],
    )
    for crop, place in zip(crops, placed, strict=True):
        name = crop.sample.name
        _add(found, name, rendered[name], place, crop.image.shape[:2], seed)
    return found


def ground_shots(seed: int, number: int, count: int) -> list[shots.Shot]:
    """The first ground shots of a person, from as many cameras as possible."""
    plan = rig.plan(seed, number, PLANNED * count)
    return [shot for shot in plan if shot.platform != "drone"][:count]


def _sample(name: str, one: shots.RenderedShot) -> Sample:
    return Sample(paths=(), pid=one.pid, name=name, platform=one.shot.platform)


def _add(
    found: Examples,
    name: str,
    one: shots.RenderedShot,
    place: Canvas,
    size: tuple[int, int],
    seed: int,
) -> None:
    """Append one crop with its truth, or the reason why there is none."""
    true = _truth(one, place, size, seed)
    person, mask = true["kind"][0] > 0, place.mask > 0.5
    overlap = float((person & mask).sum() / max((person | mask).sum(), 1))
    if overlap < OVERLAP:
        reason = f"mask and person have an IoU of {overlap:.2f}, below {OVERLAP}"
        found.rejects.append({"name": name, "reason": reason})
        return
    row = {
        "pid": one.pid,
        "name": name,
        "female": identity(seed, int(one.pid), one.shot.revision).female,
        "motion": one.motion.kind,
        "angles": [one.station.elevation, one.station.azimuth],
        "fitted": place.angles,
        "detail": place.detail,
        "overlap": overlap,
    }
    known = {
        "image": place.image,
        "mask": (255 * place.mask).round().astype(np.uint8),
        "inside": (255 * place.inside).round().astype(np.uint8),
        "body": np.stack([place.middle, place.half]).astype(np.float16),
        "parts": place.parts,
    }
    found.add(row, known | true)


def _truth(
    one: shots.RenderedShot, place: Canvas, size: tuple[int, int], seed: int
) -> dict[str, np.ndarray]:
    """The true sheets on a canvas, depths in metres of the fit, see `stored`."""
    photo = one.photo
    camera = Cameras(
        torch.from_numpy(photo.world_to_camera)[None],
        torch.from_numpy(photo.intrinsics)[None],
        photo.image.shape[:2],
        torch.tensor([photo.k1]),
    )
    shrunk = np.tile(np.divide(photo.image.shape[:2], size)[::-1], 2)  # tall crops are fitted small
    camera = camera.window(torch.from_numpy(place.box * shrunk).float()[None], SIZE)
    person = shots.dressed(seed, int(one.pid), one.shot)
    true = sheets.draw(person, camera)
    distance = float(np.nanmedian(true.depth)) if np.isfinite(true.depth).any() else 1.0
    metre = float(camera.intrinsics[0, 1, 1]) / distance / METRE  # of the fit, per true metre
    middle = metre * (true.trunk.mean(0) - canvas.reference(true.bare))
    half = metre * (true.trunk[1] - true.trunk[0]) / 2
    known = np.where(true.apart, np.nan, np.nan_to_num(np.stack([middle, half])))
    return {
        "sheets": known.astype(np.float16),
        "colour": true.colour,
        "kind": true.kind,
    }
