# SPDX-License-Identifier: Apache-2.0
"""Images of the identity benchmark: crops, cut-outs, people drawn at the camera of a crop, views.

`identity.py` calls this module. Nothing is written: cut-outs and drawn images stay in memory.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from identity_scores import InputError
from PIL import Image
from scipy import ndimage

from viewsynth.data import images
from viewsynth.reconstruct import Outcome, Tools, fitting, people, posing, quality, texture
from viewsynth.records import Person, Sample
from viewsynth.render import zbuffer
from viewsynth.runtime.messages import first_names

EXTENSIONS = (".png", ".jpg", ".jpeg")
FEWEST = 3  # people; a margin over fewer others says nothing
BACKDROPS = 6  # cut-outs of a crop, each before the background of another person
OVERSAMPLE = 4  # samples along a side of a pixel of a drawn person
AWAY = 10  # metres that are added to depths, which are negative before the origin

# ---- crops ---------------------------------------------------------------------------------------


def crop_files(air: Path, ground: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Find the crops of all people of AIR; other people of GROUND are not used.

    Args:
        air: Folder with one folder of aerial crops per person.
        ground: Likewise, of ground crops.

    Returns:
        The files of each person in both folders, in the order of their names.

    Raises:
        InputError: If a folder is missing or empty, or there are fewer than `FEWEST` people.
    """
    found = {"--air": {}, "--ground": {}}
    for option, root in (("--air", air), ("--ground", ground)):
        if not root.is_dir():
            raise InputError(
                f"{option} {root} is not a folder; expected one with a folder of .png or .jpg "
                "crops per person"
            )
        for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != "."):
            inside = sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS)
            found[option][folder.name] = inside
            if not inside:
                raise InputError(
                    f"{option}: {folder} has no .png or .jpg file; add crops or remove the folder"
                )
    aerial, other = found.values()
    if missing := sorted(set(aerial) - set(other)):
        raise InputError(
            f"--ground {ground} has no folder {missing[0]!r}, which --air has; every person of "
            "--air needs ground crops under the same name"
        )
    if len(aerial) < FEWEST:
        raise InputError(
            f"--air {air} has {len(aerial)} people, expected at least {FEWEST}: each is compared "
            "with the others"
        )
    return aerial, {pid: other[pid] for pid in aerial}


def read_all(files: dict[str, list[Path]]) -> dict[str, list[np.ndarray]]:
    """Read the files of each person.

    Args:
        files: Of each person.

    Raises:
        InputError: If a file cannot be read.
    """
    return {pid: [_read(path) for path in own] for pid, own in files.items()}


def _read(path: Path) -> np.ndarray:
    try:
        return images.read(path, least=1)
    except images.ImageError as error:
        raise InputError(f"{path}: {error}") from error


# ---- cut-outs ------------------------------------------------------------------------------------


def background(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The crop without its person: the nearest pixels of the background, slightly blurred.

    Args:
        image: uint8 [H, W, 3]
        mask: Person probability.  [H, W]

    Returns:
        uint8 [H, W, 3]
    """
    _, (rows, columns) = ndimage.distance_transform_edt(mask > 0.15, return_indices=True)
    smooth = ndimage.gaussian_filter(image[rows, columns].astype(np.float32), (2, 2, 0))
    return smooth.clip(0, 255).astype(np.uint8)


def whole(mask: np.ndarray) -> np.ndarray:
    """Share of the person in each pixel, wide enough for the whole outline, float32 [H, W].

    Args:
        mask: Person probability.  [H, W]
    """
    wide = ndimage.binary_dilation(mask > 0.5, iterations=2)
    return ndimage.gaussian_filter(wide.astype(np.float32), 0.7)


def soft(mask: np.ndarray) -> np.ndarray:
    """Share of the person in each pixel as the mask says, float32 [H, W].

    Args:
        mask: Person probability.  [H, W]
    """
    return np.clip((mask - 0.35) / 0.3, 0, 1)


def before(colour: np.ndarray, coverage: np.ndarray, backdrop: np.ndarray) -> np.ndarray:
    """Put something before a background that is stretched to its size.

    Args:
        colour: RGB in [0, 255], times the coverage.  [H, W, 3]
        coverage: Share of each pixel, in [0, 1].  [H, W]
        backdrop: uint8 [h, w, 3]

    Returns:
        uint8 [H, W, 3]
    """
    place = np.asarray(Image.fromarray(backdrop).resize(coverage.shape[::-1]), np.float32)
    joined = colour + place * (1 - coverage[..., None])
    return joined.clip(0, 255).round().astype(np.uint8)


def cut_outs(
    crops: dict[str, list[np.ndarray]], masks: dict[str, list[np.ndarray]]
) -> dict[str, list[np.ndarray]]:
    """Each crop's person before the backgrounds of up to `BACKDROPS` other people.

    Args:
        crops: Of each person.  uint8 [H, W, 3] each
        masks: Person probability of each crop.  [H, W] each
    """
    pids = list(crops)
    places = {pid: background(crops[pid][0], masks[pid][0]) for pid in pids}
    made = {}
    for number, pid in enumerate(pids):
        others = [pids[(number + 1 + k) % len(pids)] for k in range(min(BACKDROPS, len(pids) - 1))]
        shares = [whole(mask) for mask in masks[pid]]
        made[pid] = [
            before(image * share[..., None], share, places[other])
            for image, share in zip(crops[pid], shares, strict=True)
            for other in others
        ]
    return made


# ---- people drawn at the camera of a crop --------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """A reconstructed person drawn at the camera of a crop.

    Args:
        colour: RGB in [0, 255], times the coverage.  float32 [H, W, 3]
        coverage: Share of each pixel that the person covers.  float32 [H, W]
    """

    colour: np.ndarray
    coverage: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """A crop as reconstruction used it, and its person drawn at its camera.

    Args:
        image: The crop.  uint8 [H, W, 3]
        mask: Person probability.  [H, W]
        alone: Drawn from this crop alone.
        fused: Drawn from all crops of the person.
    """

    image: np.ndarray
    mask: np.ndarray
    alone: Drawing
    fused: Drawing


@torch.no_grad()
def reconstructed(crops: Sequence[np.ndarray], tools: Tools) -> list[Drawn]:
    """Reconstruct one person, and draw it at the camera of each crop.

    Args:
        crops: Of the person.  uint8 [H, W, 3] each
        tools: See `reconstruct.load`.

    Returns:
        The crops that were used; none if no crop could be.
    """
    samples = [Sample(pid="person", name=str(k), paths=(Path(str(k)),)) for k in range(len(crops))]
    outcomes = [Outcome(person=None)]
    found = fitting.fitted([samples], [list(crops)], tools, outcomes)
    if found is None:
        return []
    pixels = [crop.image for crop in found.crops], [crop.parse.mask for crop in found.crops]
    shown = texture.project(tools.body, tools.atlas, found.fit, found.vertices, *pixels)
    guessed = people.guesses(found, tools)

    def person(rows: list[int]) -> Person:
        scores = [
            quality.of_crop(crop, found.fit, k, shown[k].overlap)
            for k, crop in enumerate(found.crops)
        ]
        return people.assemble(found, 0, rows, shown, scores, tools, [""] * len(rows), guessed)

    every = list(range(len(found.crops)))
    fused = person(every)
    return [
        Drawn(
            crop.image,
            crop.parse.mask,
            draw(person([k]), found, k, tools),
            draw(fused, found, k, tools),
        )
        for k, crop in enumerate(found.crops)
    ]


def draw(person: Person, found: fitting.Fitted, row: int, tools: Tools) -> Drawing:
    """Draw a person at the camera of one of its crops.

    Args:
        person: The person.
        found: The crops of the person with their fit.
        row: The crop.
        tools: See `reconstruct.load`.
    """
    size = found.crops[row].image.shape[:2]
    canvas = (size[0] * OVERSAMPLE, size[1] * OVERSAMPLE)
    standard = dataclasses.replace(person, scale=1.0)  # the cameras are those of the body model
    [mesh] = posing.clothed([standard], tools.poser, found.vertices[row : row + 1])
    pixels, depth = found.fit.project(mesh.vertices[None], torch.tensor([row]))
    front = zbuffer.rasterize(pixels * OVERSAMPLE, depth + AWAY, mesh.faces, canvas)
    where = (front.face.view(-1) >= 0).nonzero()[:, 0]
    corners = mesh.uvs[mesh.face_uvs[front.face.view(-1)[where].long()]]
    u, v = (corners * front.bary.view(-1, 3)[where][..., None]).sum(1).unbind(1)
    height, width = mesh.seen.shape
    place = [((1 - v) * height - 0.5).numpy(), (u * width - 0.5).numpy()]
    layer = np.zeros((canvas[0] * canvas[1], 4), np.float32)
    for channel in range(3):
        plane = mesh.texture[..., channel].numpy().astype(np.float32)
        layer[where, channel] = ndimage.map_coordinates(plane, place, order=1, mode="nearest")
    layer[where, 3] = 1
    layer = layer.reshape(size[0], OVERSAMPLE, size[1], OVERSAMPLE, 4).mean((1, 3))
    return Drawing(layer[..., :3], layer[..., 3])


def overlap(drawing: Drawing, mask: np.ndarray) -> float:
    """Intersection over union of a drawn person and the mask.

    Args:
        drawing: The person.
        mask: Person probability.  [H, W]
    """
    person = (mask > 0.5).astype(np.float32)
    both = np.minimum(drawing.coverage, person).sum()
    return float(both / max(np.maximum(drawing.coverage, person).sum(), 1))


# ---- views ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """A view of a run of `generate`.

    Args:
        image: uint8 [H, W, 3]
        elevation: Degrees above the horizon.
        turn: Angle between its azimuth and that of the nearest crop of the person, degrees in
            [0, 180].
    """

    image: np.ndarray
    elevation: float
    turn: float


def read_views(run: Path, pids: Sequence[str]) -> dict[str, list[View]]:
    """Read the views of some people.

    Args:
        run: Output folder of `generate`.
        pids: Whose views to read.

    Returns:
        Of each person, in the order of `metadata.jsonl`; may be none.

    Raises:
        InputError: If it is not a run, or has no view of any of the people.
    """
    table = run / "metadata.jsonl"
    if not table.is_file():
        raise InputError(
            f"--run {run} has no metadata.jsonl; give the output folder of a finished `viewsynth "
            "generate` on the folder of --ground"
        )
    rows = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    found: dict[str, list[View]] = {pid: [] for pid in pids}
    azimuths: dict[str, list[float]] = {}
    for row in (row for row in rows if row["pid"] in found):
        if row["person"] not in azimuths:
            sources = Person.load(run / row["person"]).sources
            azimuths[row["person"]] = [one["azimuth"] for one in sources if one["used"]]
        turn = nearest_turn(row["azimuth"], azimuths[row["person"]])
        view = View(_read(run / row["file_name"]), row["elevation"], turn)
        found[row["pid"]].append(view)
    if not any(found.values()):
        others = sorted({row["pid"] for row in rows})
        raise InputError(
            f"--run {run} has no view of the people of --air; it has "
            f"{first_names(others) or 'no view at all'}: run `viewsynth generate` on the folder of "
            "--ground"
        )
    return found


def nearest_turn(azimuth: float, sources: Sequence[float]) -> float:
    """Smallest angle between an azimuth and others, degrees in [0, 180].

    Args:
        azimuth: Degrees.
        sources: Degrees, at least one.
    """
    return min(abs((azimuth - source + 180) % 360 - 180) for source in sources)
