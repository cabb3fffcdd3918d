# SPDX-License-Identifier: Apache-2.0
"""One chunk of people, from files to files.

data -> reconstruct -> render -> refine, if asked for -> judge -> rows. A chunk is computed whole,
in one order and with one thread, so its bytes depend on nothing but its input. `viewsynth.generate.worker`
calls `load_tools` once per worker and `make_chunk` for every task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from viewsynth import __version__, manifest
from viewsynth.diffusion import refine
from viewsynth.generate import gather
from viewsynth.generate.options import camera
from viewsynth.generate.worker import Job, Made, relative
from viewsynth.records import Person, Reject, View, seed_of
from viewsynth.runtime.files import folder_of, sha256, stem_of
from viewsynth.runtime.images import COMPOSITE, jpeg, png, strip

if TYPE_CHECKING:
    from torch import Tensor

    from viewsynth import reconstruct

SLICE = 64  # views that are rendered before the first of them is written


@dataclass(frozen=True)
class Tools:
    """Everything that a worker loads once.

    Args:
        refiner: Without it views stay as they are drawn.
        alike: A ReID model that compares the crops of a person, see `reid.likeness`.
    """

    maker: reconstruct.Tools
    refiner: refine.Refiner | None = None
    alike: Callable | None = None


def load_tools(job: Job) -> Tools:
    """Load what a worker needs."""
    import torch

    torch.set_num_threads(1)  # sums depend on the number of threads
    from viewsynth import bodies, reconstruct

    body = bodies.load(job.config.body, job.device)
    maker = reconstruct.load(body, job.models["pose"], job.models["detector"])
    refiner = alike = None
    if "refine" in job.models:
        refiner = refine.load(job.models["refine"], job.config.refine, job.device)
    if "identity" in job.models:
        from viewsynth.reid import encoders, likeness

        alike = likeness.Likeness(encoders.load(job.models["identity"], device=job.device))
    return Tools(maker, refiner, alike)


@dataclass(frozen=True, eq=False)
class Subject:
    """A reconstructed person.

    Args:
        photos: As the refiner takes them, one for each source that is used; without it none.
    """

    person: Person
    outfit: str
    photos: list[Tensor] = field(default_factory=list)


def make_chunk(task: manifest.Task, job: Job, tools: Tools, put: Callable) -> Made:
    """The people and the pictures of one task."""
    if task.entries:
        subjects, rejects = _reconstruct(task, job, tools, put)
    else:
        subjects, rejects = _remade(task, job, tools)
    made, rows, kind = [], [], refine.source(job.config.refine) if tools.refiner else COMPOSITE
    for subject in subjects:
        person, outfit = subject.person, subject.outfit
        file = f"people/{stem_of(person.pid, outfit)}.safetensors"
        made.append({"pid": person.pid, "outfit": outfit, "file": file})
        if task.entries:
            put(file, person.to_bytes)
    for subject, name, view in _views(subjects, task.views, job, tools):
        row, reject = _row(subject.person, subject.outfit, name, view, job)
        if reject:
            rejects.append(reject)
            continue
        rows.append(row)
        put(row["file_name"], jpeg, view.image, kind)
        put(row["seen_file_name"], png, view.seen)
    return made, rows, rejects


def _remade(task: manifest.Task, job: Job, tools: Tools) -> tuple[list[Subject], list[Reject]]:
    """People who were made before; a refiner looks at their photos again."""
    subjects, rejects = [], []
    for made in task.made:
        person = Person.load(job.run / made["file"])
        try:
            photos = _photos(person, job, tools.refiner) if tools.refiner else []
        except gather.UnusableError as error:
            reason, source = error.args
            rejects.append(
                Reject(source=source, stage="refine", reason=reason, kind="fault", pid=made["pid"])
            )
            continue
        subjects.append(Subject(person, made["outfit"], photos))
    return subjects, rejects


def _photos(person: Person, job: Job, refiner: refine.Refiner) -> list[Tensor]:
    """The crops that a person was made from, read again.

    Raises: gather.UnusableError: (reason, file), if one of them is no longer what it was.
    """
    from viewsynth.data import frames

    photos = []
    for source in refine.used(person):
        path, box = job.root / source["file"], source["box"]
        try:
            if source["sha256"] and sha256(path) != source["sha256"]:
                raise frames.ImageError("it is gone, or has changed since the person was made")
            crop = frames.read(path, source.get("frame"), box and tuple(box))
        except frames.ImageError as error:
            what = f"the refiner needs this photo again: {error}; put it back as it was"
            raise gather.UnusableError(what, source["file"]) from error
        photos.append(refiner.fitted(crop))
    return photos


def _reconstruct(
    task: manifest.Task, job: Job, tools: Tools, put: Callable
) -> tuple[list[Subject], list[Reject]]:
    """Files to bodies; who is rejected on the way is told."""
    from viewsynth import judge, reconstruct

    groups, rejects = [], []
    for entry in task.entries:
        found, bad = gather.crops(entry, job, tools.maker)
        groups += found
        rejects += bad
    outcomes = reconstruct.reconstruct(
        [group.samples for group in groups],
        [group.images for group in groups],
        tools.maker,
        [group.sha256 for group in groups],
        tools.alike,
    )
    subjects = []
    for group, outcome in zip(groups, outcomes, strict=True):
        first, files = group.samples[0], {s.name: s for s in group.samples}
        for reject in outcome.rejects:
            source = gather.source_of(files[reject.source], job)
            rejects.append(dataclasses.replace(reject, source=source))
        if (person := outcome.person) is None:
            continue
        person.quality["found"] = group.found
        for source in person.sources:
            sample = files[source["file"]]
            source |= {"sample": sample.name, "box": sample.box and list(sample.box)}
            if sample.frame is not None:
                source["frame"] = sample.frame
            source["file"] = relative(sample.paths[0], job.root)
        verdict = judge.judge_person(person)
        if not verdict.keep:
            rejects.append(_judged(verdict, relative(first.paths[0], job.root), first.pid))
            continue
        for number, tiles in enumerate(outcome.overlays):
            put(f"report/fit/{stem_of(first.pid, first.outfit)}_{number}.jpg", strip, tiles)
        photos = []
        if tools.refiner:
            own = dict(zip(files, group.images, strict=True))
            photos = [tools.refiner.fitted(own[one["sample"]]) for one in refine.used(person)]
        subjects.append(Subject(person, first.outfit, photos))
    return subjects, rejects


def _views(subjects: list[Subject], names, job: Job, tools: Tools):
    """All pictures of all people of the task: (subject, view name, View)."""
    from viewsynth.reconstruct import posing
    from viewsynth.render import views as render_views

    if not subjects:
        return
    config, refiner = job.config, tools.refiner
    asked = [(index, name) for index in range(len(subjects)) for name in names]
    shots = []
    for index, name in asked:
        subject = subjects[index]
        angles = camera(name, config.seed, subject.person.pid, subject.outfit)
        shots.append(render_views.Shot(index, *angles, name))
    people = [subject.person for subject in subjects]
    vertices = posing.posed(people, tools.maker.poser, config.pose.mode)
    textures, seens = [p.texture for p in people], [p.seen for p in people]
    pids = [person.pid for person in people]
    sensor = refine.optics(config.sensor) if refiner else config.sensor
    # No view depends on another: slices bound the memory, and what is done is written meanwhile.
    for first in range(0, len(shots), SLICE):
        part = slice(first, first + SLICE)
        taken = render_views.take(
            vertices, tools.maker.body, textures, seens, pids, shots[part], sensor, config.seed
        )
        if refiner:
            seeds = [
                seed_of(config.seed, pids[k], subjects[k].outfit, name, "refine")
                for k, name in asked[part]
            ]
            taken = refiner(
                taken,
                [k for k, _ in asked[part]],
                seeds,
                people,
                [s.photos for s in subjects],
                vertices,
                tools.maker.body,
                config.sensor,
            )
        for (index, name), view in zip(asked[part], taken, strict=True):
            yield subjects[index], name, view


def _row(person: Person, outfit: str, name: str, view: View, job: Job):
    """(row, None) of a picture that is kept, (nothing, reject) of one that is not."""
    from viewsynth import judge

    stem = f"{folder_of(person.pid)}/{f'{folder_of(outfit, 60)}+' if outfit else ''}{name}"
    verdict, sources = judge.judge_view(view, person), refine.used(person)
    if not verdict.keep:
        return {}, _judged(verdict, f"{sources[0]['file']} {name}", person.pid)
    cameras = sorted({str(source.get("camid", "0")) for source in sources})
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
            {key: source[key] for key in ("file", "sha256", "frame") if key in source}
            for source in sources
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
