# SPDX-License-Identifier: Apache-2.0
"""One chunk of people, from files to files: data -> reconstruct -> render -> judge -> rows.

A chunk is computed whole, in one order and with one thread, so its bytes depend on nothing but its
input. `viewsynth.chunks` calls `load_tools` once per worker and `make_chunk` for every task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from viewsynth import __version__, manifest
from viewsynth.chunks import Job, Made, relative
from viewsynth.files import folder_of, sha256, stem_of
from viewsynth.pictures import jpeg, png, strip
from viewsynth.records import Person, Reject, Sample, View, seed_of

SLICE = 64  # views that are rendered before the first of them is written


def load_tools(job: Job):
    """Everything that a worker loads once."""
    import torch

    torch.set_num_threads(1)  # sums depend on the number of threads
    from viewsynth import bodies, reconstruct

    body = bodies.load(job.config.body, job.device)
    return reconstruct.load(body, job.models["pose"], job.models["detector"])


def make_chunk(task: manifest.Task, job: Job, tools, put: Callable) -> Made:
    """The people and the pictures of one task."""
    if task.entries:
        people, outfits, rejects = _reconstruct(task, job, tools, put)
    else:
        people = [Person.load(job.run / made["file"]) for made in task.made]
        outfits, rejects = [made["outfit"] for made in task.made], []
    made, rows = [], []
    for person, outfit in zip(people, outfits, strict=True):
        file = f"people/{stem_of(person.pid, outfit)}.safetensors"
        made.append({"pid": person.pid, "outfit": outfit, "file": file})
        if task.entries:
            put(file, person.to_bytes)
    for person, outfit, name, view in _views(people, outfits, task.views, job, tools):
        row, reject = _row(person, outfit, name, view, job)
        if reject:
            rejects.append(reject)
            continue
        rows.append(row)
        put(row["file_name"], jpeg, view.image)
        put(row["seen_file_name"], png, view.seen)
    return made, rows, rejects


def _reconstruct(task: manifest.Task, job: Job, tools, put) -> tuple[list[Person], list[str], list]:
    """Files to bodies; who is rejected on the way is told."""
    from viewsynth import judge, reconstruct

    groups, rejects = [], []
    for entry in task.entries:
        found, bad = crops(entry, job, tools)
        groups += found
        rejects += bad
    outcomes = reconstruct.reconstruct(
        [group.samples for group in groups],
        [group.images for group in groups],
        tools,
        [group.sha256 for group in groups],
    )
    people, outfits = [], []
    for group, outcome in zip(groups, outcomes, strict=True):
        first, files = group.samples[0], {s.name: s for s in group.samples}
        for reject in outcome.rejects:
            source = relative(files[reject.source].paths[0], job.root)
            rejects.append(dataclasses.replace(reject, source=source))
        if (person := outcome.person) is None:
            continue
        for source in person.sources:
            sample = files[source["file"]]
            source |= {"sample": sample.name, "box": sample.box and list(sample.box)}
            source["file"] = relative(sample.paths[0], job.root)
        verdict = judge.judge_person(person)
        if not verdict.keep:
            rejects.append(_judged(verdict, relative(first.paths[0], job.root), first.pid))
            continue
        for number, tiles in enumerate(outcome.overlays):
            put(f"report/fit/{stem_of(first.pid, first.outfit)}_{number}.jpg", strip, tiles)
        people.append(person)
        outfits.append(first.outfit)
    return people, outfits, rejects


@dataclass
class Group:
    """The usable pictures of one person, and the hashes of their files."""

    samples: list[Sample] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)

    def add(self, sample: Sample, image: np.ndarray, digest: str) -> None:
        self.samples.append(sample)
        self.images.append(image)
        self.sha256.append(digest)


def crops(entry: manifest.Entry, job: Job, tools) -> tuple[list[Group], list[Reject]]:
    """The pictures of one entry of the input list, cut to one person each.

    Returns: one group a person: one, or more where a picture that stands alone shows several
        people; and rejects for pictures that cannot be used.
    """
    from viewsynth.data import images

    own, others, rejects = Group(), [], []
    hashes = iter(entry.sha256)
    for sample in entry.samples:
        expected = [next(hashes) for _ in sample.paths]
        source = relative(sample.paths[0], job.root)
        try:
            if problem := _changed(sample, expected):
                raise _Unusable("input", problem, "fault")
            picture = images.read(sample.paths[0], sample.box)
            boxes = _find(sample, picture, len(entry.samples) == 1, job, tools)
        except images.BadImage as error:
            rejects.append(Reject(source=source, stage="input", reason=str(error), pid=entry.pid))
        except _Unusable as error:
            stage, reason, kind = error.args
            rejects.append(
                Reject(source=source, stage=stage, reason=reason, kind=kind, pid=entry.pid)
            )
        else:
            digest = expected[0] or sha256(sample.paths[0])
            if len(boxes) == 1:
                own.add(*_cut(sample, picture, boxes[0]), digest)
                continue
            for number, box in enumerate(boxes, 1):
                cut, image = _cut(sample, picture, box)
                name, pid = f"{sample.name}#{number}", f"{entry.pid}#{number}"
                others.append(Group())
                others[-1].add(dataclasses.replace(cut, pid=pid, name=name), image, digest)
    return ([own] if own.samples else []) + others, rejects


class _Unusable(Exception):
    """A picture that cannot be used: stage, reason, kind."""


def _changed(sample: Sample, expected: list[str]) -> str:
    for path, before in zip(sample.paths, expected, strict=True):
        now = sha256(path)
        if not now:
            return "the file cannot be read"
        if before and now != before:
            return "the file has changed since this run was started"
    return ""


def _find(sample: Sample, picture, alone: bool, job: Job, tools) -> list:
    """The boxes of the people in a picture; [None] = all of it is one person.

    Args:
        alone: Whether this is the only picture of its pid, so that every person in it may have one.
    """
    from viewsynth.reconstruct import find

    mode = job.config.data.crops
    if mode == "yes" or (sample.box and mode == "auto"):
        return [None]
    if mode == "auto" and find.is_tight(picture):
        if find.crowded(picture, tools.detector):
            raise _Unusable(
                "find", "two people side by side in one crop: crop it to one of them; "
                "--data.crops yes takes it as it is", "quality",
            )  # fmt: skip
        return [None]
    boxes = find.find(picture, tools.detector)
    if not boxes:
        raise _Unusable(
            "find", "no whole person found: crop the picture to one standing person, head to feet, "
            "1.5 to 4 times as high as wide; --data.crops yes takes it as it is", "quality",
        )  # fmt: skip
    if len(boxes) > 1 and not alone:
        raise _Unusable(
            "find", f"{len(boxes)} people in the picture, and nobody says which one is "
            f"{sample.pid!r}: crop it to that person", "quality",
        )  # fmt: skip
    return boxes


def _cut(sample: Sample, picture: np.ndarray, box) -> tuple[Sample, np.ndarray]:
    if box is None:
        return sample, picture
    left, top, right, bottom = map(int, box)
    dx, dy = sample.box[:2] if sample.box else (0, 0)
    part = np.ascontiguousarray(picture[top:bottom, left:right])
    box = (left + dx, top + dy, right + dx, bottom + dy)
    return dataclasses.replace(sample, box=box), part


def _views(people, outfits, names, job: Job, tools):
    """All pictures of all people of the task: (person, outfit, view name, View)."""
    from viewsynth.reconstruct import posing
    from viewsynth.render import views as render_views

    if not people:
        return
    config = job.config
    shots, asked = [], []
    for index, (person, outfit) in enumerate(zip(people, outfits, strict=True)):
        for name in names:
            elevation, azimuth = camera(name, config.seed, person.pid, outfit)
            shots.append(render_views.Shot(index, elevation, azimuth, name))
            asked.append((person, outfit, name))
    vertices = posing.posed(people, tools.poser, config.pose.mode)
    textures, seens = [p.texture for p in people], [p.seen for p in people]
    pids = [person.pid for person in people]
    # No view depends on another: slices bound the memory, and what is done is written meanwhile.
    for first in range(0, len(shots), SLICE):
        part = slice(first, first + SLICE)
        taken = render_views.take(
            vertices, tools.body, textures, seens, pids, shots[part], config.sensor, config.seed
        )
        for (person, outfit, name), view in zip(asked[part], taken, strict=True):
            yield person, outfit, name, view


def camera(name: str, seed: int, pid: str, outfit: str = "") -> tuple[float, float]:
    """Elevation and azimuth, degrees, of a view by its name.

    `e60_a180` says it; `s25-90_003` is the third random camera of this person in that range.
    """
    kind, first, second = name[0], *name[1:].split("_", 1)
    if kind == "e":
        return float(first), float(second[1:])
    low, high = map(float, first.split("-"))
    rng = np.random.default_rng(seed_of(seed, pid, outfit, "camera", name))
    return round(float(rng.uniform(low, high)), 2), round(float(rng.uniform(0, 360)), 2)


def _row(person: Person, outfit: str, name: str, view: View, job: Job):
    """(row, None) of a picture that is kept, (nothing, reject) of one that is not."""
    from viewsynth import judge

    stem = f"{folder_of(person.pid)}/{f'{folder_of(outfit, 60)}+' if outfit else ''}{name}"
    verdict = judge.judge_view(view, person)
    if not verdict.keep:
        return {}, _judged(verdict, f"{person.sources[0]['file']} {name}", person.pid)
    cameras = sorted({str(source.get("camid", "0")) for source in person.sources})
    height, width = view.image.shape[:2]
    off = not view.mask.any()
    return {
        "file_name": f"images/{stem}.jpg",
        "pid": person.pid,
        "camid": f"{'+'.join(cameras)}:e{int(view.elevation // 15 * 15)}",
        "platform": "drone",
        "view": "aerial",
        "split": "train",
        "source": "synthetic",
        "outfit": outfit,
        "elevation": float(view.elevation),
        "azimuth": float(view.azimuth),
        "distance": float(view.distance),
        "target_height": float(view.target_height),
        "vfov": float(view.vfov),
        "box": [float(x) for x in view.box],
        "width": width,
        "height": height,
        "seen_ratio": 0.0 if off else round(float(view.seen[view.mask].mean()) / 255, 4),
        "seen_file_name": f"seen/{stem}.png",
        "person": f"people/{stem_of(person.pid, outfit)}.safetensors",
        "sources": [
            {"file": s["file"], "sha256": s["sha256"]}
            for s in person.sources
            if s.get("used", True)
        ],
        "seed": job.config.seed,
        "engine": {"viewsynth": __version__, "body": person.body, **job.revisions},
        "pose_mode": job.config.pose.mode,
        "fallback": person.fallback,
        "scores": verdict.scores,
        "weight": float(verdict.weight),
        "licences": job.licences,
    }, None


def _judged(verdict, source: str, pid: str) -> Reject:
    reason = "; ".join(verdict.reasons) or "not kept"
    return Reject(source=source, stage="judge", reason=reason, pid=pid, scores=verdict.scores)
