# SPDX-License-Identifier: Apache-2.0
"""Gather: one entry of the input list in, the crops of one person each out.

data -> here -> reconstruct. `synthesis` calls `crops` for everybody of a chunk. A picture that is
no tight crop is searched for people, a tracklet gives its best frames, and what cannot be used is
a reject with its reason.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from viewsynth import manifest
from viewsynth.data import frames
from viewsynth.generate.worker import Job, relative
from viewsynth.records import Reject, Sample
from viewsynth.runtime.files import sha256


@dataclass
class Group:
    """The usable pictures of one person, and the hashes of their files.

    Args:
        found: People that were found in the picture, if this is one of several.
    """

    found: int = 1
    samples: list[Sample] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)

    def add(self, sample: Sample, image: np.ndarray, digest: str) -> None:
        self.samples.append(sample)
        self.images.append(image)
        self.sha256.append(digest)


def crops(entry: manifest.Entry, job: Job, tools) -> tuple[list[Group], list[Reject]]:
    """The pictures of one entry of the input list, cut to one person each; of tracklets the best
    frames.

    Returns: one group a person: one, or more where a picture that stands alone shows several
        people; and rejects for pictures that cannot be used.
    """
    own, others, rejects = Group(), [], []
    files = [path for sample in entry.samples for path in sample.paths]
    expected = dict(zip(files, entry.sha256, strict=True))
    now = functools.cache(sha256)
    alone = len(entry.samples) == 1 and not frames.several(entry.samples[0])

    def reject(source: str, stage: str, reason: str, kind: str) -> None:
        rejects.append(Reject(source=source, stage=stage, reason=reason, kind=kind, pid=entry.pid))

    def bad(path: Path, error: frames.ImageError) -> None:
        fault = isinstance(error, frames.NotInstalled) or not now(path)
        reject(relative(path, job.root), "input", str(error), "fault" if fault else "quality")

    def cut(sample: Sample, picture: np.ndarray | None = None) -> list[tuple[Sample, np.ndarray]]:
        """The people of a picture, or of a frame that was read already; none if it is rejected."""
        path = sample.paths[0]
        try:
            if problem := _changed(now(path), expected[path]):
                raise UnusableError("input", problem, "fault")
            picture = frames.read(path, box=sample.box) if picture is None else picture
            return [_cut(sample, picture, box) for box in _find(sample, picture, alone, job, tools)]
        except frames.ImageError as error:
            bad(path, error)
        except UnusableError as error:
            reject(source_of(sample, job), *error.args)
        return []

    for sample in entry.samples:
        several = frames.several(sample)
        found = frames.chosen(sample, cut, bad) if several else cut(sample)
        for number, (part, image) in enumerate(found, 1):
            if several or len(found) == 1:
                own.add(part, image, now(part.paths[0]))
                continue
            part = dataclasses.replace(
                part, pid=f"{entry.pid}#{number}", name=f"{sample.name}#{number}"
            )
            others.append(Group(found=len(found)))
            others[-1].add(part, image, now(part.paths[0]))
    return ([own] if own.samples else []) + others, rejects


def source_of(sample: Sample, job: Job) -> str:
    """A picture as rejects name it; of a video with the number of the frame."""
    return relative(sample.paths[0], job.root) + f"#f{sample.frame}" * (sample.frame is not None)


class UnusableError(Exception):
    """A picture that cannot be used, and why."""


def _changed(now: str, before: str) -> str:
    """What is wrong with a file by its hash now, "" = it cannot be read, and when it was listed."""
    if not now:
        return "the file cannot be read"
    return "the file has changed since this run was started" if before and now != before else ""


def _find(sample: Sample, picture, alone: bool, job: Job, tools) -> list:
    """The boxes of the people in a picture; [None] = all of it is one person.

    Args:
        alone: Whether this is the only picture of its pid, so that every person in it may have one.
    """
    from viewsynth.reconstruct import crowd, find

    mode = job.config.data.crops
    if mode == "yes":
        return [None]
    if mode == "auto" and (sample.box or find.is_tight(picture)):
        if crowd.is_crowd(picture, tools.pose_model):
            raise UnusableError(
                "find",
                "two people side by side in one crop: crop it to one of them; "
                "--data.crops yes takes it as it is",
                "quality",
            )
        return [None]
    boxes = find.find(picture, tools.detector)
    if not boxes:
        raise UnusableError(
            "find",
            "no whole person found: crop the picture to one standing person, head to feet, "
            "1.5 to 4 times as high as wide; --data.crops yes takes it as it is",
            "quality",
        )
    if len(boxes) > 1 and not alone:
        raise UnusableError(
            "find",
            f"{len(boxes)} people in the picture, and nobody says which one is "
            f"{sample.pid!r}: crop it to that person",
            "quality",
        )
    return boxes


def _cut(sample: Sample, picture: np.ndarray, box) -> tuple[Sample, np.ndarray]:
    if box is None:
        return sample, picture
    left, top, right, bottom = map(int, box)
    # A box that begins outside the picture was cut to it.
    dx, dy = (max(x, 0) for x in sample.box[:2]) if sample.box else (0, 0)
    part = np.ascontiguousarray(picture[top:bottom, left:right])
    box = (left + dx, top + dy, right + dx, bottom + dy)
    return dataclasses.replace(sample, box=box), part
