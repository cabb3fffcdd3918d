# SPDX-License-Identifier: Apache-2.0
"""Compute one chunk of people: images in; people, views and rows out.

data -> reconstruct -> render -> refine (optional) -> judge -> rows. A chunk is computed as a whole,
in one order and with one thread, so that its bytes depend on its input alone.
`viewsynth.generate.worker` calls `load_tools` once per worker and `make_chunk` for every task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viewsynth import __version__, manifest
from viewsynth.generate import gather
from viewsynth.generate.options import camera
from viewsynth.generate.worker import ChunkResult, Job, relative
from viewsynth.records import MESH, Person, Reject, Verdict, View
from viewsynth.runtime.files import folder_of, stem_of
from viewsynth.runtime.images import COMPOSITE, filmstrip, jpeg, png

if TYPE_CHECKING:  # torch takes seconds to import
    from viewsynth.generate.synthesizer import Subject, Synthesizer


@dataclass(frozen=True)
class Tools:
    """Everything that a worker loads once.

    Args:
        synthesizer: Computes people and views.
        alike: A ReID model that compares the crops of a person, see `viewsynth.reid.likeness`.
    """

    synthesizer: Synthesizer
    alike: Callable | None = None


def load_tools(job: Job) -> Tools:
    """Load the models that a worker needs.

    Args:
        job: The run.
    """
    import torch

    torch.set_num_threads(1)  # sums depend on the number of threads
    from viewsynth import bodies, reconstruct
    from viewsynth.diffusion import refine
    from viewsynth.generate.synthesizer import Synthesizer

    body = bodies.load(job.config.body, job.device)
    tools = reconstruct.load(body, job.models)
    refiner = alike = None
    if "refine" in job.models:
        refiner = refine.load(job.models["refine"], job.config.refine, job.device)
    synthesizer = Synthesizer.from_models(tools, refiner)
    if "identity" in job.models:
        from viewsynth.reid import encoders, likeness

        alike = likeness.Likeness(encoders.load(job.models["identity"], device=job.device))
    return Tools(synthesizer, alike)


def make_chunk(task: manifest.Task, job: Job, tools: Tools, put: Callable) -> ChunkResult:
    """Compute the people, views and rows of one task.

    Args:
        task: People to reconstruct, or people of an earlier session, and the names of the views.
        job: The run.
        tools: See `load_tools`.
        put: `put(name, encode, *args)` writes the file `name` of the run, see `worker.start`.
    """
    from viewsynth.diffusion import refine

    if task.entries:
        subjects, rejects = _reconstruct(task, job, tools, put)
    else:
        subjects, rejects = _loaded(task, job, tools.synthesizer)
    refiner = tools.synthesizer.refiner
    made, rows, earlier = [], [], {one["file"]: one for one in task.made}
    kind = refine.digital_source_type(job.config.refine) if refiner else COMPOSITE
    for subject in subjects:
        person, outfit = subject.person, subject.outfit
        file = f"people/{stem_of(person.pid, outfit)}.safetensors"
        made.append({"pid": person.pid, "outfit": outfit, "file": file} | earlier.get(file, {}))
        if task.entries:
            put(file, person.to_bytes)
    for subject, name, view in _views(subjects, task.views, job, tools.synthesizer):
        row, reject = _row(subject.person, subject.outfit, name, view, job)
        if reject:
            rejects.append(reject)
            continue
        rows.append(row)
        put(row["file_name"], jpeg, view.image, kind)
        put(row["seen_file_name"], png, view.seen)
    return made, rows, rejects


def _loaded(
    task: manifest.Task, job: Job, synthesizer: Synthesizer
) -> tuple[list[Subject], list[Reject]]:
    """People of an earlier session, loaded; a refiner needs their source images again."""
    from viewsynth.generate.synthesizer import Subject

    subjects, rejects = [], []
    for made in task.made:
        person = Person.load(job.run / made["file"])
        try:
            photos = synthesizer.photos_of(person, job.root)
        except gather.UnusableError as error:
            rejects.append(_unusable(error, made["pid"]))
            continue
        subjects.append(Subject(person, made["outfit"], photos))
    return subjects, rejects


def _reconstruct(
    task: manifest.Task, job: Job, tools: Tools, put: Callable
) -> tuple[list[Subject], list[Reject]]:
    """The people of a task, reconstructed, and what was rejected on the way."""
    from viewsynth import judge
    from viewsynth.generate.synthesizer import Subject

    synthesizer = tools.synthesizer
    groups, rejects = [], []
    for entry in task.entries:
        found, unusable = gather.crops(entry, job, synthesizer.tools)
        groups += found
        rejects += unusable
    subjects = []
    outcomes = synthesizer.outcomes(groups, job.root, tools.alike)
    for group, outcome in zip(groups, outcomes, strict=True):
        first, samples = group.first, {sample.name: sample for sample in group.samples}
        for reject in outcome.rejects:
            source = gather.source_of(samples[reject.source], job)
            rejects.append(dataclasses.replace(reject, source=source))
        if (person := outcome.person) is None:
            continue
        verdict = judge.judge_person(person)
        if not verdict.keep:
            rejects.append(_judged(verdict, relative(first.paths[0], job.root), first.pid))
            continue
        for number, tiles in enumerate(outcome.overlays):
            put(f"report/fit/{stem_of(first.pid, first.outfit)}_{number}.jpg", filmstrip, tiles)
        try:
            subjects.append(Subject(person, first.outfit, synthesizer.photos(person, group)))
        except gather.UnusableError as error:
            rejects.append(_unusable(error, person.pid))
    return subjects, rejects


def _unusable(error: gather.UnusableError, pid: str) -> Reject:
    return Reject(
        source=error.source, stage=error.stage, reason=str(error), kind=error.kind, pid=pid
    )


def _views(
    subjects: list[Subject], names: tuple[str, ...], job: Job, synthesizer: Synthesizer
) -> Iterator[tuple[Subject, str, View]]:
    """All views of all people of a task, with their names."""
    from viewsynth.render.views import Shot

    config = job.config
    shots = [
        Shot(k, *camera(name, config.seed, one.person.pid, one.outfit), name)
        for k, one in enumerate(subjects)
        for name in names
    ]
    options = config.pose.mode, config.sensor, config.seed, config.scene
    views = synthesizer.views(subjects, shots, *options)
    for shot, view in zip(shots, views, strict=True):
        yield subjects[shot.person], shot.name, view


def _row(
    person: Person, outfit: str, name: str, view: View, job: Job
) -> tuple[dict, Reject | None]:
    """The row of a view and None; or, if it is not kept, an empty row and the reject."""
    from viewsynth import judge
    from viewsynth.diffusion import refine

    stem = f"{folder_of(person.pid)}/{f'{folder_of(outfit, 60)}+' if outfit else ''}{name}"
    verdict = judge.judge_view(view, person)
    sources = [source for source in person.sources if source.get("used", True)]
    if not verdict.keep:
        return {}, _judged(verdict, f"{sources[0]['file']} {name}", person.pid)
    photos = refine.used_sources(person)
    cameras = sorted({str(source.get("camid", "0")) for source in photos}) or [MESH]
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
            {key: source[key] for key in ("file", "sha256", "frame", "mesh") if key in source}
            for source in sources
        ],
        "seed": job.config.seed,
        "engine": {"viewsynth": __version__, "body": person.body, **job.revisions},
        "pose_mode": MESH if person.body == MESH else job.config.pose.mode,
        "fallback": person.fallback,
        "scores": verdict.scores,
        "weight": float(verdict.weight),
        "licences": job.licences,
    }, None


def _judged(verdict: Verdict, source: str, pid: str) -> Reject:
    reason = "; ".join(verdict.reasons) or "not kept"
    return Reject(source=source, stage="judge", reason=reason, pid=pid, scores=verdict.scores)
