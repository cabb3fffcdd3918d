# SPDX-License-Identifier: Apache-2.0
"""Crops: which images of a person are used, parsed and without those of other people.

parse, foreign -> this module -> people. Every image that is not used becomes a reject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from viewsynth.reconstruct import crop_flags, fit, foreign, quality
from viewsynth.reconstruct.parse import Parse, parse
from viewsynth.reconstruct.tflite import Model
from viewsynth.records import Person, Reject, Sample

MOST_CROPS = 8  # per person; more cost time and show hardly any further texels
TALLEST = 320  # pixels; the atlas has no room for the detail of taller crops, which are shrunk


@dataclass
class Outcome:
    """The result for one person.

    Args:
        person: None if no crop could be used.
        rejects: The crops that were not used, with reasons.
        overlays: Of each used crop the crop, mask and fit over it, for the report, uint8 [H, W, 3].
    """

    person: Person | None
    rejects: list[Reject] = field(default_factory=list)
    overlays: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)


@dataclass
class Crop:
    """A crop that shows the person `owner`; for `flags` and `pixels` see `crop_flags.flags`."""

    owner: int
    sample: Sample
    image: np.ndarray
    parse: Parse
    flags: list[str]
    pixels: float


def usable(
    people: list[list[Sample]],
    images: list[list[np.ndarray]],
    pose_model: Model,
    outcomes: list[Outcome],
    alike: Callable | None,
) -> list[Crop]:
    """The crops of the people of a chunk that can be used.

    Args:
        people: See `people.reconstruct`.
        images: See `people.reconstruct`.
        pose_model: The landmark model.
        outcomes: One per person; get the rejects.
        alike: See `people.reconstruct`.
    """
    return _without_foreign(_parse_all(people, images, pose_model, outcomes), outcomes, alike)


def _parse_all(people, images, pose_model: Model, outcomes: list[Outcome]) -> list[Crop]:
    """Parse the best crops of every person; unusable ones are rejected."""
    crops = []
    for owner, (samples, own) in enumerate(zip(people, images, strict=True)):
        order = sorted(range(len(samples)), key=lambda k: -_detail(own[k]))[:MOST_CROPS]
        for k in sorted(order):
            image = _shrunk(own[k])
            found = parse(image, pose_model)
            if reason := quality.unusable(found, image, pose_model):
                outcomes[owner].rejects.append(
                    Reject(
                        source=samples[k].name,
                        pid=samples[k].pid,
                        stage="parse",
                        reason=reason,
                        scores={"presence": round(found.presence, 3)},
                    )
                )
                continue
            flags, pixels = crop_flags.flags(image, found)
            flags += ["elevation"] * (elevation(samples[k]) != samples[k].elevation)
            crops.append(Crop(owner, samples[k], image, found, flags, pixels))
    return crops


def elevation(sample: Sample) -> float | None:
    """The elevation that the data gives, degrees, if it is in the range of the fit."""
    given, (low, high) = sample.elevation, fit.ELEVATIONS
    return given if given is not None and low <= given <= high else None


def _without_foreign(
    crops: list[Crop], outcomes: list[Outcome], alike: Callable | None
) -> list[Crop]:
    """The crops without those that do not show the person of their owner's other crops."""
    owners = np.array([crop.owner for crop in crops], int)
    more = np.zeros((len(crops), len(crops)))
    if alike and len(crops) > 1:
        more = alike([crop.image for crop in crops], owners.tolist())
    kept = []
    for owner in np.unique(owners):
        rows = np.flatnonzero(owners == owner)
        own = [crops[row] for row in rows]
        looks = [foreign.appearance(crop.image, crop.parse) for crop in own]
        odds = foreign.log_odds(looks) + more[np.ix_(rows, rows)]
        choice = foreign.decide(odds, [crop.pixels for crop in own])
        for k in choice.out:
            reject = _foreign(own[k], own[choice.kept[0]], choice.undecided)
            outcomes[owner].rejects.append(reject)
        for k in choice.kept:
            own[k].flags += ["mixed"] * choice.undecided
            kept.append(own[k])
    return kept


def _foreign(crop: Crop, other: Crop, undecided: bool) -> Reject:
    """The reject of a crop that does not look like `other`, which is kept."""
    pid = crop.sample.pid
    if undecided:
        reason = (
            f"the crops of {pid!r} do not look like one person, and no majority tells which are "
            f"right: {other.sample.name} was used and the person is flagged as mixed"
        )
    else:
        reason = f"the crop does not look like the person in most crops of {pid!r}"
    what = "; give another person a pid of its own, and other clothes an outfit of their own"
    return Reject(source=crop.sample.name, pid=pid, stage="compare", reason=reason + what)


def _shrunk(image: np.ndarray) -> np.ndarray:
    """The crop, at most `TALLEST` pixels high or wide."""
    factor = max(image.shape[:2]) / TALLEST
    if factor <= 1:
        return image
    size = [max(round(side / factor), 1) for side in image.shape[1::-1]]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _detail(image: np.ndarray) -> float:
    """Amount of detail in a crop: its height times its sharpness."""
    grey = image.mean(2)
    return image.shape[0] * float(np.abs(np.diff(grey, axis=0)).mean() + 1)
