# SPDX-License-Identifier: Apache-2.0
"""The filmed crops: which are read, masks and figures of each, and what is wrong with them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from viewsynth import data
from viewsynth.data import Reading, images, layout
from viewsynth.match import measures
from viewsynth.reconstruct.parse import middle, parse
from viewsynth.records import Sample, seed_of

ENOUGH = 20  # crops, with fewer of which the widths of the estimate are shown
SMALLEST = 32  # pixels: height or width of a person, below which a crop is a thumbnail
LARGEST = 800  # pixels: longer side, above which an image without a box is a whole frame
SURE = 0.3  # presence of a person
GREY = 2.0  # mean chroma of a grey image, CIELAB
APART = 4.5  # distance of two groups in standard deviations, above which they are two cameras
LEVEL = 15.0  # degrees: elevation below which a camera stands on the ground
TESTS = ("query", "gallery")


class NotAerialError(ValueError):
    """The images are not those of a drone's training set."""


@dataclass(frozen=True, eq=False)
class Crop:
    """A filmed person.

    Args:
        name: Of the sample.
        image: sRGB.  uint8 [H, W, 3]
        mask: Alpha of the person, [0, 1].  [H, W]
        framing: See `measures.framing`.
        figures: See `measures.measure`.
        compression: See `measures.compression`.
        elevation: Of the camera, degrees above the horizon; None = unknown.
        lean: Elevation by the person's landmarks in depth, degrees; rough, for a median.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    framing: dict[str, float]
    figures: dict[str, float]
    compression: tuple[int, str] | None = None
    elevation: float | None = None
    lean: float = 45.0


# ---- which images --------------------------------------------------------------------------------


def samples(name: str, root: Path, reading: Reading) -> list[Sample]:
    """The aerial training samples of a data set, or the samples of a folder of crops.

    Args:
        name: Of the data set; "folder" = images of your own, aerial unless a table says otherwise.
        root: Its folder.
        reading: How to read a folder of your own.

    Returns:
        Samples of one image each, sorted by name.

    Raises:
        NotAerialError: If there is none, or images are for evaluation.
        FileNotFoundError: If there is no such folder.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"AERIAL must be a folder of aerial crops, there is no {root}")
    if name == "folder":
        _refuse_tests(root)
    found = data.load(name, root, reading).samples
    train = [one for one in found if one.split == "train"]
    if not train:
        raise NotAerialError(
            f"{root} holds {len(found)} images, none of the split train: a preset must not be "
            "matched to images of query or gallery; give training images"
        )
    aerial = [one for one in train if one.view == "aerial"]
    labelled = name != "folder" or any(one.platform != "unknown" for one in train)
    chosen = aerial if labelled else train
    if not chosen:
        raise NotAerialError(
            f"{root}: all {len(train)} training images are ground images by their platform or "
            "view; give images of the drone"
        )
    return sorted(chosen, key=lambda one: one.name)


def _refuse_tests(root: Path) -> None:
    """Refuse a part of a known data set that holds query or gallery images."""
    inside = root.resolve()
    for above in (inside, *inside.parents[:3]):
        for name in data.names():
            module = importlib.import_module(f"viewsynth.data.{name}")
            if not module.PARTS or not all((above / part).exists() for part in module.PARTS):
                continue
            try:
                every = data.load(name, above).samples
            except (ValueError, layout.LayoutError):
                continue
            tests = [
                one
                for one in every
                if one.split in TESTS and one.paths[0].resolve().is_relative_to(inside)
            ]
            if tests:
                raise NotAerialError(
                    f"{root} holds {len(tests)} query and gallery images of {name} ({above}): a "
                    f"preset must not be matched to them; give {above} with --data.name {name}, "
                    "of which the aerial training images are used"
                )


def choose(found: Sequence[Sample], most: int, seed: int) -> list[Sample]:
    """At most so many samples, by the hash of their names.

    Args:
        found: Samples with unique names.
        most: Largest number.
        seed: Of the choice.
    """
    by_hash = sorted(found, key=lambda one: seed_of(seed, "crop", one.name))
    return sorted(by_hash[:most], key=lambda one: one.name)


def by_camera(found: Sequence[Sample], root: Path) -> dict[str, list[Sample]]:
    """Samples by camera, or by sub-folder where no camera is known.

    Args:
        found: The samples.
        root: Folder that sub-folders are looked for in.
    """
    known = len({one.camid for one in found}) > 1
    groups: dict[str, list[Sample]] = {}
    for one in found:
        parts = one.paths[0].relative_to(Path(root).expanduser()).parts
        folder = parts[0] if len(parts) > 1 else "root"
        groups.setdefault(one.camid if known else folder, []).append(one)
    return dict(sorted(groups.items()))


# ---- reading -------------------------------------------------------------------------------------


def read(sample: Sample, model) -> Crop:
    """Read and measure one crop.

    Args:
        sample: Its sample; of several frames the middle one is taken.
        model: The pose model, see `viewsynth.reconstruct.tflite.Model`.

    Raises:
        images.ImageError: If the file cannot be read, is a whole frame, shows nobody, or shows a
            person of a few pixels.
    """
    path = sample.paths[len(sample.paths) // 2]
    image = images.read(path, sample.box)
    if sample.box is None and max(image.shape[:2]) > LARGEST:
        raise images.ImageError("a whole frame: give the box of each person, see the guide")
    found = parse(image, model)
    framing = measures.framing(found.mask)
    if found.presence < SURE or not framing:
        raise images.ImageError("no person found")
    if max(framing["tall"], framing["wide"]) < SMALLEST:
        raise images.ImageError(f"a thumbnail: the person has fewer than {SMALLEST} pixels")
    trunk = middle(found.length, "shoulder") - middle(found.length, "ankle")
    return Crop(
        sample.name,
        image,
        found.mask,
        framing,
        measures.measure(image, found.mask),
        measures.compression(path.read_bytes()),
        sample.elevation,
        float(np.degrees(np.arctan2(-trunk[2], -trunk[1]))),
    )


# ---- what is wrong -------------------------------------------------------------------------------


def is_grey(crop: Crop) -> bool:
    """Whether an image has no colour."""
    return crop.figures["look.chroma"] < GREY


def remarks(crops: Sequence[Crop]) -> list[str]:
    """What a user should know about the crops of one camera.

    Args:
        crops: At least one.

    Raises:
        NotAerialError: If the cameras are known to stand on the ground.
    """
    said, known = [], [one.elevation for one in crops if one.elevation is not None]
    if known and np.median(known) < LEVEL:
        raise NotAerialError(
            f"the median elevation of the cameras is {np.median(known):.0f} degrees, as of ground "
            f"cameras; give images from above ({LEVEL:g} degrees and more)"
        )
    if len(crops) < ENOUGH:
        said.append(
            f"only {len(crops)} usable images, {ENOUGH} or more are needed, 50 are enough: the "
            "ranges are as uncertain as the preset's comments say"
        )
    lean = float(np.median([one.lean for one in crops]))
    shape = float(np.median([one.framing["tall"] / one.framing["wide"] for one in crops]))
    if not known and lean < LEVEL - 3 and shape > 2.3:
        said.append(
            f"are these ground images? The people are {shape:.1f} times as high as wide, and by "
            f"their poses the cameras look down by {max(lean, 0):.0f} degrees only"
        )
    if grey := sum(map(is_grey, crops)):
        said.append(f"{grey} of {len(crops)} images are grey")
    for what in mixed(crops):
        said.append(
            f"the images seem to come from two cameras: {what}; --cameras makes a preset for each"
        )
    return said


def mixed(crops: Sequence[Crop]) -> list[str]:
    """Why crops seem to be of two cameras: two separate groups of a figure.

    Args:
        crops: Of one supposed camera.
    """
    tables = [one.compression for one in crops if one.compression]
    figures = {
        "heights of the crops in pixels": ([np.log(one.framing["height"]) for one in crops], 0.05),
        "JPEG qualities": ([quality for quality, _ in tables], 1.0),
        "lightness": ([one.figures["look.lightness"] for one in crops], 1.0),
        "chroma": ([one.figures["look.chroma"] for one in crops], 0.5),
    }
    said = []
    for what, (values, least) in figures.items():
        if groups := two_groups(np.array(values, float), least):
            ends = np.exp(groups) if what.startswith("heights") else groups
            said.append(f"{what} are around {ends[0]:.0f} and around {ends[1]:.0f}")
    return said


def two_groups(values: np.ndarray, least: float) -> tuple[float, float] | None:
    """Means of two clearly separate groups, or None.

    The groups are those of Otsu's split; their distance in units of their standard deviation is
    2.7 for a normal and 3.5 for an even distribution (Ashman, Bird and Zepf, Astronomical Journal
    108(6), 1994).

    Args:
        values: One per crop.
        least: Smallest standard deviation that counts.
    """
    values = np.sort(values)
    count = len(values)
    fewest = max(3, round(0.15 * count))
    if count < ENOUGH:
        return None
    best, split = -1.0, 0
    for k in range(fewest, count - fewest + 1):
        apart = k * (count - k) * (values[:k].mean() - values[k:].mean()) ** 2
        best, split = max((best, split), (float(apart), k))
    low, high = values[:split], values[split:]
    spread = np.hypot(max(low.std(), least), max(high.std(), least)) / np.sqrt(2)
    return (low.mean(), high.mean()) if high.mean() - low.mean() > APART * spread else None
