# SPDX-License-Identifier: Apache-2.0
"""Read the source images of one person and cut them to crops of that person.

data -> this module -> reconstruct. Images that are not tight crops are searched for people, the
best frames of a tracklet are chosen, and what cannot be used becomes a reject with its reason.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from viewsynth import manifest
from viewsynth.data import frames
from viewsynth.generate.worker import Job, relative
from viewsynth.records import MESH, Person, Reject, Sample
from viewsynth.runtime.files import sha256

if TYPE_CHECKING:
    from viewsynth import reconstruct
    from viewsynth.reconstruct.own_mesh import OwnMesh

Box = tuple[int, int, int, int]
CROPS = ("auto", "yes", "no")


@dataclass
class PersonCrops:
    """The usable crops of one person.

    Args:
        mesh: The mesh that takes the place of the reconstruction.
        mesh_sample: Its sample.
        found: Number of people in the source image, if it shows several.
        samples: One per crop.
        images: The crops.  uint8 [H, W, 3] each
        sha256: Hash of the file of each crop, in hex.
    """

    mesh: OwnMesh | None = None
    mesh_sample: Sample | None = None
    found: int = 1
    samples: list[Sample] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)

    def add(self, sample: Sample, image: np.ndarray, digest: str) -> None:
        """Append one crop."""
        self.samples.append(sample)
        self.images.append(image)
        self.sha256.append(digest)

    @property
    def first(self) -> Sample:
        """The first sample; of a person without crops that of the mesh."""
        return self.samples[0] if self.samples else self.mesh_sample


class UnusableError(Exception):
    """An image that cannot be used.

    Args:
        reason: One sentence that says what to do.
        stage, kind: As of a `Reject`.
        source: The file, if the caller does not know it.
    """

    def __init__(self, reason: str, stage: str = "find", kind: str = "quality", source: str = ""):
        super().__init__(reason)
        self.stage, self.kind, self.source = stage, kind, source


def crops(
    entry: manifest.Entry, job: Job, tools: reconstruct.Tools
) -> tuple[list[PersonCrops], list[Reject]]:
    """Read the images of one entry of the input list and cut them to one person each.

    Returns:
        One group per person: one, or several where a single image shows several people; and a
        reject for every image or frame that cannot be used. None if the mesh of the person cannot
        be used.
    """
    own, others, rejects = PersonCrops(), [], []
    files = [path for sample in entry.samples for path in sample.paths]
    expected = dict(zip(files, entry.sha256, strict=True))
    hashed = functools.cache(sha256)
    single = len(entry.samples) == 1 and not frames.has_frames(entry.samples[0])

    def reject(source: str, stage: str, reason: str, kind: str) -> None:
        rejects.append(Reject(source=source, stage=stage, reason=reason, kind=kind, pid=entry.pid))

    def unreadable(path: Path, error: frames.ImageError) -> None:
        fault = isinstance(error, frames.NotInstalledError) or not hashed(path)
        reject(relative(path, job.root), "input", str(error), "fault" if fault else "quality")

    def people(sample: Sample, image: np.ndarray | None = None) -> list[tuple[Sample, np.ndarray]]:
        """The people of an image, or of a frame that was read before; none if it is rejected."""
        path = sample.paths[0]
        try:
            if problem := _changed(hashed(path), expected[path]):
                raise UnusableError(problem, "input", "fault")
            image = frames.read(path, box=sample.box) if image is None else image
            return cut(sample, image, tools, job.config.data.crops, single)
        except frames.ImageError as error:
            unreadable(path, error)
        except UnusableError as error:
            reject(source_of(sample, job), error.stage, str(error), error.kind)
        return []

    for sample in (sample for sample in entry.samples if sample.modality == MESH):
        try:
            own.mesh, own.mesh_sample = _mesh(sample, hashed, expected), sample
        except UnusableError as error:
            reject(source_of(sample, job), error.stage, str(error), error.kind)
            return [], rejects
    for sample in (sample for sample in entry.samples if sample.modality != MESH):
        tracklet = frames.has_frames(sample)
        found = frames.best_frames(sample, people, unreadable) if tracklet else people(sample)
        for number, (part, image) in enumerate(found, 1):
            if tracklet or len(found) == 1:
                own.add(part, image, hashed(part.paths[0]))
                continue
            part = dataclasses.replace(
                part, pid=f"{entry.pid}#{number}", name=f"{sample.name}#{number}"
            )
            others.append(PersonCrops(found=len(found)))
            others[-1].add(part, image, hashed(part.paths[0]))
    return ([own] if own.samples or own.mesh else []) + others, rejects


def _mesh(sample: Sample, hashed: Callable, expected: dict) -> OwnMesh:
    """Read the mesh of a sample, if none of its files has changed."""
    from viewsynth.reconstruct import own_mesh

    for path in sample.paths:
        if problem := _changed(hashed(path), expected[path]):
            raise UnusableError(f"{path.name}: {problem}", "input", "fault")
    try:
        return own_mesh.load(sample.paths[0], sample.name, hashed(sample.paths[0]))
    except own_mesh.MeshError as error:
        raise UnusableError(f"the mesh cannot be used: {error}", "input") from error


def source_of(sample: Sample, job: Job) -> str:
    """The source of a reject: the file, and of a video the number of the frame."""
    return relative(sample.paths[0], job.root) + f"#f{sample.frame}" * (sample.frame is not None)


def _changed(now: str, before: str) -> str:
    """What is wrong with a file, from its hashes now ("" = not readable) and at the start."""
    if not now:
        return "the file cannot be read"
    return "the file has changed since this run was started" if before and now != before else ""


def cut(
    sample: Sample,
    image: np.ndarray,
    tools: reconstruct.Tools,
    mode: str = "auto",
    single: bool = False,
    option: str = "--data.crops yes",
) -> list[tuple[Sample, np.ndarray]]:
    """Cut an image to the people in it.

    Args:
        sample: Of the image; a box of it was applied already.
        image: Upright sRGB.  uint8 [H, W, 3]
        tools: For their pose model and detector.
        mode: Whether the image is a tight crop of one person: "yes"; "no" (search it for people);
            or "auto" (decide by its size and shape).
        single: Whether it is the only image of its pid, so that it may show several people.
        option: How messages spell the option that uses an image unchanged.

    Returns:
        A sample, whose box is the person's, and a crop per person.

    Raises:
        UnusableError: If it shows no whole person, or several of whom one is meant.
    """
    from viewsynth.reconstruct import crowd, find

    if mode == "yes":
        return [(sample, image)]
    if mode == "auto" and (sample.box or find.is_tight(image)):
        if crowd.is_crowd(image, tools.pose_model):
            raise UnusableError(
                "two people side by side in one crop: crop it to one of them; "
                f"{option} uses it unchanged"
            )
        return [(sample, image)]
    boxes = find.find(image, tools.detector)
    if not boxes:
        raise UnusableError(
            "no whole person found: crop the image to one standing person, head to feet, "
            f"1.5 to 4 times as high as wide; {option} uses it unchanged"
        )
    if len(boxes) > 1 and not single:
        raise UnusableError(
            f"{len(boxes)} people in the image, and it is not known which of them is "
            f"{sample.pid!r}: crop it to that person"
        )
    return [_part(sample, image, tuple(map(int, box))) for box in boxes]


def _part(sample: Sample, image: np.ndarray, box: Box) -> tuple[Sample, np.ndarray]:
    """The sample and the crop of one box, which is relative to the sample's own box."""
    left, top, right, bottom = box
    # A box of the sample that begins outside the image was clipped to it.
    dx, dy = (max(x, 0) for x in sample.box[:2]) if sample.box else (0, 0)
    crop = np.ascontiguousarray(image[top:bottom, left:right])
    return dataclasses.replace(sample, box=(left + dx, top + dy, right + dx, bottom + dy)), crop


def source_crops(person: Person, root: Path) -> list[np.ndarray]:
    """Read the crops again that a person was reconstructed from.

    Args:
        person: With `sources`, of which those that were used are read.
        root: Folder that the files of the sources are relative to.

    Returns:
        uint8 [H, W, 3] each.

    Raises:
        UnusableError: If a file is missing or has changed.
    """
    images = []
    for source in person.sources:
        if not source.get("used", True) or "mesh" in source:
            continue
        path, box = root / source["file"], source["box"]
        try:
            if source["sha256"] and sha256(path) != source["sha256"]:
                raise frames.ImageError("it is gone, or has changed since the person was made")
            images.append(frames.read(path, source.get("frame"), box and tuple(box)))
        except frames.ImageError as error:
            raise UnusableError(
                f"the refiner needs this source image again: {error}; put the original back",
                "refine",
                "fault",
                source["file"],
            ) from error
    if not images:
        raise no_photo(person)
    return images


def no_photo(person: Person) -> UnusableError:
    """The error of a person without a photo, whom a refiner cannot repair."""
    return UnusableError(
        "the refiner needs a photo of the person, and this mesh has none: give photos with "
        "--data.root, or leave --refine.engine out",
        "refine",
        source=person.sources[0]["file"],
    )
