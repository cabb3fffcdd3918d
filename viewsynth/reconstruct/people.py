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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from viewsynth import bodies
from viewsynth.reconstruct import (
    canvas,
    clothing,
    complete,
    fill,
    fit,
    guess,
    mesh_photos,
    quality,
    texture,
    tone,
)
from viewsynth.reconstruct.canonical import Volume
from viewsynth.reconstruct.crops import Crop, Outcome
from viewsynth.reconstruct.fitting import Fitted, fitted
from viewsynth.reconstruct.own_mesh import OwnMesh
from viewsynth.reconstruct.posing import Poser
from viewsynth.reconstruct.tflite import Model
from viewsynth.records import Person, Sample
from viewsynth.runtime.weights import sha256

STATURE = 1.68  # metres, of a mean adult; a crop does not say its scale
REVISION = 6  # part of the fingerprint; raise it when the same images would give another person


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
    completer: complete.Completer | None = None
    learned: str = ""  # SHA-256 of the file of the completer


def load(body: bodies.Body, files: Mapping[str, Path]) -> Tools:
    """Load the models and prepare the body.

    Args:
        body: See `viewsynth.bodies.load`.
        files: Of `viewsynth.runtime.weights.reconstruction`; without "completion", rules complete
            what no crop shows.
    """
    poser, learned = Poser(body), files.get("completion")
    return Tools(
        body=body,
        fitter=fit.Fitter(body),
        poser=poser,
        atlas=texture.prepare(body),
        volume=Volume(poser.canonical, body.faces, body.parts),
        pose_model=Model(files["pose"]),
        detector=Model(files["detector"]),
        completer=complete.load(learned, body.faces.device) if learned else None,
        learned=sha256(learned) if learned else "",
    )


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
    guessed = guesses(found, tools)
    for owner in found.owners:
        rows = found.rows(owner)
        known = {id(s): d for s, d in zip(people[owner], digests[owner], strict=True)}
        files = [known[id(found.crops[row].sample)] for row in rows]
        mesh = meshes[owner] if meshes else None
        person = assemble(
            found, owner, rows, shown, scores, tools, files, guessed, bare=mesh is not None
        )
        covers = {row: shown[row].front.coverage for row in rows}
        if mesh is not None:
            person, masks = mesh_photos.observe(mesh, person, found, rows)
            covers |= masks
        outcomes[owner].person = person
        outcomes[owner].overlays = [_overlay(found.crops[row], covers[row]) for row in rows]
    return outcomes


def guesses(found: Fitted, tools: Tools) -> list[guess.Guess | None]:
    """What completion says of each crop; None without a network."""
    if tools.completer is None:
        return [None] * len(found.crops)
    images = [crop.image for crop in found.crops]
    masks = [crop.parse.mask for crop in found.crops]
    rows = range(len(images))
    placed = canvas.canvases(tools.body, found.fit, rows, found.vertices, images, masks)
    return guess.guesses(tools.completer, tools.body, tools.poser.canonical, placed)


def assemble(
    found: Fitted,
    owner: int,
    rows: list[int],
    shown: list[texture.Projection],
    scores: list[dict],
    tools: Tools,
    digests: list[str],
    guessed: Sequence[guess.Guess | None],
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
        guessed: Of `guesses`, for all crops.
        bare: Whether to leave out the clothed surface, because a mesh will replace it.
    """
    place = found.owners.index(owner)
    good = [row for row in rows if quality.misfits(scores[row]) < 2] or rows
    best = min(rows, key=lambda row: quality.rank(scores[row]))
    fallback = quality.fallback(scores[best])
    trust = [scores[row]["trust"] for row in good]
    paints = [shown[row].paint for row in good]
    own = [guessed[row] for row in good]
    exposures = [guess.exposure if guess else 0.0 for guess in own]
    images = [shown[row].image for row in good]
    tones = tone.tones(paints, images, tools.atlas, trust, exposures)
    fused = texture.fuse(paints, tones, tools.atlas)
    colours, seen, notes = fill.complete(fused, tools.atlas)
    clothed = None
    if not (fallback or bare):
        maps = clothing.Maps(colours, seen, tones)
        clothed, drawn = clothing.clothe(tools, found, shown, good, trust, maps, own)
        fallback = "" if clothed else "body"
        for row, overlap in zip(good, drawn, strict=True):
            quality.set_drawn(scores[row], overlap)
    shape = found.fit.shape[place]
    offsets = found.fit.offsets[place] + tools.poser.clothier.cloth
    if fallback == "mean":
        shape, offsets = tools.body.shape_mean, 0 * offsets
    standing = tools.body.vertices(shape[None], 0 * tools.body.pose_mean[None])[0, :, 1]
    sources = [
        _source(found, row, scores[row], row in good, sha256, guessed[row])
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
            json.dumps([REVISION, tools.body.name, tools.learned, sources], sort_keys=True).encode()
        ).hexdigest(),
    )


def _source(
    found: Fitted, row: int, scores: dict, used: bool, sha256: str, guessed: guess.Guess | None
) -> dict:
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
    if guessed is not None:
        source["exposure"] = round(guessed.exposure, 3)
    return source


def _overlay(crop: Crop, front: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The crop, the mask over it, and the fitted body over it."""
    image = crop.image.astype(np.float32)
    mask = crop.parse.mask[..., None]
    masked = image * mask + (1 - mask) * (0.25 * image + np.array([150, 40, 150]) * 0.75)
    body = front[..., None]
    fitted = image * (1 - 0.6 * body) + 0.6 * body * np.array([40, 190, 230])
    return crop.image, masked.astype(np.uint8), fitted.astype(np.uint8)
