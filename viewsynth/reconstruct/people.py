# SPDX-License-Identifier: Apache-2.0
"""Reconstruct people: crops in; clothed surfaces with seen maps and FitQuality out.

parse -> foreign -> facing -> fit -> texture (project, tones, fuse) -> fill -> clothing, for all
people of a chunk together. Measurements and flags go into the person; `viewsynth.judge` decides
what is kept. Only crops that show another person than the others are left out here, each with a
reject.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viewsynth import bodies
from viewsynth.reconstruct import (
    clothing,
    crop_flags,
    facing,
    fill,
    fit,
    foreign,
    mesh_photos,
    quality,
    targets,
    texture,
    tone,
)
from viewsynth.reconstruct.canonical import Volume
from viewsynth.reconstruct.own_mesh import OwnMesh
from viewsynth.reconstruct.parse import Parse, parse
from viewsynth.reconstruct.posing import Poser
from viewsynth.reconstruct.tflite import Model
from viewsynth.records import Person, Reject, Sample

MOST_CROPS = 8  # per person; more cost time and show hardly any further texels
TALLEST = 320  # pixels; the atlas has no room for the detail of taller crops, which are shrunk
STATURE = 1.68  # metres, of a mean adult; a crop does not say its scale
REVISION = 5  # part of the fingerprint; raise it when the same images would give another person


@dataclass(frozen=True)
class Tools:
    """The models that reconstruction loads once per process."""

    body: bodies.Body
    fitter: fit.Fitter
    poser: Poser
    atlas: texture.Atlas
    volume: Volume
    pose_model: Model
    detector: Model


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


def load(body: bodies.Body, pose_model, detector_model) -> Tools:
    """Load the pose models and prepare the body.

    Args:
        body: See `viewsynth.bodies.load`.
        pose_model: File of the landmark model, see `viewsynth.runtime.weights`.
        detector_model: File of the person detector, likewise.
    """
    poser = Poser(body)
    return Tools(
        body=body,
        fitter=fit.Fitter(body),
        poser=poser,
        atlas=texture.prepare(body),
        volume=Volume(poser.canonical, body.faces),
        pose_model=Model(pose_model),
        detector=Model(detector_model),
    )


@dataclass
class Crop:
    """A crop that shows the person `owner`; for `flags` and `pixels` see `crop_flags.flags`."""

    owner: int
    sample: Sample
    image: np.ndarray
    parse: Parse
    flags: list[str]
    pixels: float


@dataclass(frozen=True)
class Fitted:
    """N crops of P people with the bodies that were fitted to them.

    Args:
        crops: The crops that can be used.
        owners: Index of each person that has one; the order of the people of `fit`.
        fit: Bodies and cameras.
        vertices: Posed and clothed body of each crop, metres.  float32 [N, V, 3]
    """

    crops: list[Crop]
    owners: list[int]
    fit: fit.Fit
    vertices: Tensor

    def rows(self, owner: int) -> list[int]:
        """The crops of one person."""
        return [row for row, crop in enumerate(self.crops) if crop.owner == owner]


@torch.no_grad()
def fitted(
    people: list[list[Sample]],
    images: list[list[np.ndarray]],
    tools: Tools,
    outcomes: list[Outcome],
    alike: Callable[[list[np.ndarray], list[int]], np.ndarray] | None = None,
) -> Fitted | None:
    """Parse the crops of the people of a chunk and fit bodies to them.

    Args:
        people: See `reconstruct`.
        images: See `reconstruct`.
        tools: See `load`.
        outcomes: One per person; get the rejects.
        alike: See `reconstruct`.

    Returns:
        None if no crop can be used.
    """
    crops = _without_foreign(_parse_all(people, images, tools, outcomes), outcomes, alike)
    if not crops:
        return None
    facing.resolve(crops)
    owners = sorted({crop.owner for crop in crops})
    goal = targets.targets(
        [crop.parse for crop in crops],
        [owners.index(crop.owner) for crop in crops],
        [_elevation(crop.sample) for crop in crops],
        tools.body.faces.device,
    )
    with torch.enable_grad():
        found = fit.fit(tools.fitter, goal)
    bare = tools.body.vertices(found.shape[goal.person], found.pose)
    no_hair = bare.new_zeros(len(crops))
    dressed = tools.poser.clothier.dress(bare, found.offsets[goal.person], no_hair)
    return Fitted(crops, owners, found, dressed)


@torch.no_grad()
def reconstruct(
    people: list[list[Sample]],
    images: list[list[np.ndarray]],
    tools: Tools,
    digests: list[list[str]] | None = None,
    alike: Callable[[list[np.ndarray], list[int]], np.ndarray] | None = None,
    meshes: Sequence[OwnMesh | None] = (),
) -> list[Outcome]:
    """Reconstruct the people of a chunk.

    Args:
        people: The samples of each person; of one (pid, outfit) each.
        images: The crop of every sample.  uint8 [H, W, 3] each
        tools: See `load`.
        digests: SHA-256 of the file of every sample, for the record.
        alike: `alike(images, owners)` gives log odds [N, N] to add to those of `foreign`.
        meshes: Of each person the mesh that takes the place of the reconstruction, or None.

    Returns:
        One outcome per person, in their order.
    """
    outcomes = [Outcome(person=None) for _ in people]
    digests = digests or [[""] * len(samples) for samples in people]
    found = fitted(people, images, tools, outcomes, alike)
    if found is None:
        return outcomes
    shown = texture.project(
        tools.body,
        tools.atlas,
        found.fit,
        found.vertices,
        [crop.image for crop in found.crops],
        [crop.parse.mask for crop in found.crops],
    )
    scores = [
        quality.of_crop(crop, found.fit, row, shown[row].overlap)
        for row, crop in enumerate(found.crops)
    ]
    for owner in found.owners:
        rows = found.rows(owner)
        known = {id(s): d for s, d in zip(people[owner], digests[owner], strict=True)}
        files = [known[id(found.crops[row].sample)] for row in rows]
        mesh = meshes[owner] if meshes else None
        person = assemble(found, owner, rows, shown, scores, tools, files, bare=mesh is not None)
        covers = {row: shown[row].front.coverage for row in rows}
        if mesh is not None:
            person, masks = mesh_photos.observe(mesh, person, found, rows)
            covers |= masks
        outcomes[owner].person = person
        outcomes[owner].overlays = [_overlay(found.crops[row], covers[row]) for row in rows]
    return outcomes


def _parse_all(people, images, tools: Tools, outcomes: list[Outcome]) -> list[Crop]:
    """Parse the best crops of every person; unusable ones are rejected."""
    crops = []
    for owner, (samples, own) in enumerate(zip(people, images, strict=True)):
        order = sorted(range(len(samples)), key=lambda k: -_detail(own[k]))[:MOST_CROPS]
        for k in sorted(order):
            image = _shrunk(own[k])
            found = parse(image, tools.pose_model)
            if reason := quality.unusable(found, image, tools.pose_model):
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
            flags += ["elevation"] * (_elevation(samples[k]) != samples[k].elevation)
            crops.append(Crop(owner, samples[k], image, found, flags, pixels))
    return crops


def _elevation(sample: Sample) -> float | None:
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


def assemble(
    found: Fitted,
    owner: int,
    rows: list[int],
    shown: list[texture.Projection],
    scores: list[dict],
    tools: Tools,
    digests: list[str],
    bare: bool = False,
) -> Person:
    """Put one person together; crops with a bad fit are not used if there is a good one.

    Args:
        found: The fitted crops.
        owner: The person.
        rows: Crops of the person.
        shown: Of `texture.project`, for all crops.
        scores: Of `quality.of_crop`, for all crops; `drawn` is added.
        tools: See `load`.
        digests: SHA-256 of the file of each of `rows`.
        bare: Whether to leave out the clothed surface, because a mesh will replace it.
    """
    place = found.owners.index(owner)
    good = [row for row in rows if quality.misfits(scores[row]) < 2] or rows
    best = min(rows, key=lambda row: quality.rank(scores[row]))
    fallback = quality.fallback(scores[best])
    trust = [scores[row]["trust"] for row in good]
    paints = [shown[row].paint for row in good]
    tones = tone.tones(paints, [shown[row].image for row in good], tools.atlas, trust)
    fused = texture.fuse(paints, tones, tools.atlas)
    colours, seen, notes = fill.complete(fused, tools.atlas)
    clothed = None
    if not (fallback or bare):
        maps = clothing.Maps(colours, seen, tones)
        clothed, drawn = clothing.clothe(tools, found, shown, good, trust, maps)
        fallback = "" if clothed else "body"
        for row, overlap in zip(good, drawn, strict=True):
            quality.set_drawn(scores[row], overlap)
    shape = found.fit.shape[place]
    offsets = found.fit.offsets[place] + tools.poser.clothier.cloth
    if fallback == "mean":
        shape, offsets = tools.body.shape_mean, 0 * offsets
    standing = tools.body.vertices(shape[None], 0 * tools.body.pose_mean[None])[0, :, 1]
    sources = [
        _source(found, row, scores[row], row in good, sha256)
        for row, sha256 in zip(rows, digests, strict=True)
    ]
    used = [scores[row] for row in good]
    return Person(
        pid=found.crops[rows[0]].sample.pid,
        body=tools.body.name,
        shape=shape.cpu().numpy(),
        pose=found.fit.pose[best].cpu().numpy(),
        offsets=offsets.cpu().numpy(),
        scale=STATURE / float(standing.max() - standing.min()),
        texture=colours,
        seen=seen,
        quality={**scores[best], **notes, **quality.of_person(scores[best], used)},
        fallback=fallback,
        surface=clothed,
        sources=sources,
        fingerprint=hashlib.sha256(
            json.dumps([REVISION, tools.body.name, sources], sort_keys=True).encode()
        ).hexdigest(),
    )


def _source(found: Fitted, row: int, scores: dict, used: bool, sha256: str) -> dict:
    """The record of a crop in the person's file."""
    crop = found.crops[row]
    source = {
        "file": crop.sample.name,
        "sha256": sha256,
        "camid": crop.sample.camid,
        "platform": crop.sample.platform,
        "elevation": round(float(found.fit.elevation[row]), 2),
        "azimuth": round(float(found.fit.azimuth[row]), 2),
        "used": used,
        "quality": scores,
    }
    if "elevation" in crop.flags:
        source["elevation_given"] = crop.sample.elevation
    return source


def _overlay(crop: Crop, front: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The crop, the mask over it, and the fitted body over it."""
    image = crop.image.astype(np.float32)
    mask = crop.parse.mask[..., None]
    masked = image * mask + (1 - mask) * (0.25 * image + np.array([150, 40, 150]) * 0.75)
    body = front[..., None]
    fitted = image * (1 - 0.6 * body) + 0.6 * body * np.array([40, 190, 230])
    return crop.image, masked.astype(np.uint8), fitted.astype(np.uint8)
