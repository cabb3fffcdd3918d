# SPDX-License-Identifier: Apache-2.0
"""Make aerial views of the people in ground pictures.

    accelerate launch generate.py                                a few people that we draw
    accelerate launch generate.py --data.root DIR                your own pictures
    accelerate launch generate.py preset.yaml --views.sample 8   a preset, one thing different

Run the same command again to go on after a stop; more people or more views extend the run.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viewsynth import manifest
from viewsynth.config import dump, to_dict, within
from viewsynth.data import Reading, Source, reading
from viewsynth.diffusion.options import Refine
from viewsynth.generate import worker
from viewsynth.generate.options import Pose, Views
from viewsynth.records import to_dict as to_json
from viewsynth.render.options import Sensor
from viewsynth.runtime.files import claim, clean, lines, write
from viewsynth.runtime.licences import require_commercial
from viewsynth.runtime.provenance import facts
from viewsynth.runtime.workers import Progress, hired, launched, spread

if TYPE_CHECKING:
    from viewsynth.diffusion import refine

FAULTS = 0.01  # share of people that may be lost to faults before the run counts as failed
OURS = set(
    [
        "images",
        "seen",
        "people",
        "parts",
        "report",
        "ranks",
        "run.json",
        "config.yaml",
        "metadata.jsonl",
        "rejects.jsonl",
        "contact_sheet.png",
        ".gitkeep",
    ]
)


@dataclass(frozen=True)
class Data(Reading, Source):
    """Where the ground pictures come from."""

    root: Path | None = None
    """Folder: <person>/*.jpg, or *.jpg (a person each), or metadata.csv; None draws people."""
    people: int = 6
    """How many people to draw when there is no root."""
    per_person: int | None = None
    """At most so many pictures of each person, chosen at random: less to fuse; None = all."""
    crops: Literal["auto", "yes", "no"] = "auto"
    """Whether each picture is a tight crop of one person already; auto tells by size and shape."""
    licence: str = "unknown"
    """Licence of the pictures, an SPDX identifier; the output inherits it."""

    def __post_init__(self):
        within("data.people", self.people, 1, 1_000_000)
        within("data.per_person", self.per_person, 1, 1_000_000)


@dataclass(frozen=True)
class Weights:
    """Model files of your own; None = fetched once and cached."""

    pose: Path | None = None
    """pose_landmark_full.tflite."""
    detector: Path | None = None
    """pose_detection.tflite."""
    smplx: Path | None = None
    """SMPLX_NEUTRAL.npz, which you have a licence for; with --body smplx."""
    identity: str | None = None
    """A ReID model (of train, or a hub id): its features, too, compare the crops of a person, by
    those of the other people of a chunk."""


@dataclass(frozen=True)
class Config:
    """Ground pictures of people in, aerial views of the same people out."""

    data: Data = field(default_factory=Data)
    views: Views = field(default_factory=Views)
    pose: Pose = field(default_factory=Pose)
    sensor: Sensor = field(default_factory=Sensor)
    refine: Refine = field(default_factory=Refine)
    weights: Weights = field(default_factory=Weights)
    body: str = "anny"
    """Body model, a module of viewsynth.bodies."""
    output: Path | None = None
    """Folder of the run; None = outputs/<name of data.root>, or outputs/demo."""
    seed: int = 0
    """Every random draw hangs on it."""
    chunk: int = 8
    """People that are computed together; part of what decides the bytes."""
    workers: int = 0
    """Processes per rank; 0 = all cores. On a GPU always one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where tensors live."""
    report: Literal["yes", "no"] = "yes"
    """Whether to make the contact sheet and the report."""
    retry_failed: bool = False
    """Do chunks again in which something broke (not those who were rejected for quality)."""
    commercial: bool = False
    """Fail unless every part, the pictures too, allows commercial use."""

    def __post_init__(self):
        within("seed", self.seed, 0, 2**63 - 1)
        within("chunk", self.chunk, 1, 10_000)
        within("workers", self.workers, 0, 1024)
        if self.weights.identity and self.chunk < 4:
            raise ValueError(
                "weights.identity compares the crops of a person with those of the other people of "
                f"a chunk: --chunk must be at least 4 with it, got {self.chunk}"
            )

    @property
    def folder(self) -> Path:
        """Where the run goes."""
        name = self.data.root.expanduser().resolve().name if self.data.root else "demo"
        return (self.output or Path("outputs") / (name or "root")).expanduser().resolve()


def run(
    config: Config,
    prepare: Callable | None = None,
    load: Callable | None = None,
    make: Callable | None = None,
) -> int:
    """Make the data set; what is finished already is kept.

    Args:
        prepare: `prepare(config) -> (models, revisions, licences)`: has everything that the
            workers load in its place; None = ours.
        load, make: What a worker does, see `worker.start`.
    Returns: 0, or 1 if nobody was made or more than 1 % of the people were lost to faults.
    """
    from viewsynth.generate import chunk

    started = time.perf_counter()
    folder = config.folder
    check(config)
    accelerator = launched(config.device)
    first = accelerator.is_main_process
    with accelerator.main_process_first():
        if first:
            settings = settings_of(config, accelerator.device.type)
            _claim(folder, settings)
            root, samples, rejects = _input(config)
            people = manifest.entries(samples)
        models, revisions, licences = (prepare or _prepare)(config)
        if first:
            settings["models"] = revisions
            manifest.freeze(folder, settings, root, people, rejects, config.chunk)
            write(folder / "config.yaml", dump(config).encode())
    frozen = manifest.read(folder)
    todo = manifest.tasks(folder, frozen, config.views.names(), config.retry_failed)
    accelerator.wait_for_everyone()  # everyone has seen the same state; from here on only files
    rank, ranks = accelerator.process_index, accelerator.num_processes
    device = str(accelerator.device)
    job = worker.Job(folder, frozen.root, config, device, models, revisions, licences)
    load, make = load or chunk.load_tools, make or chunk.make_chunk
    lost = _work(todo, job, load, make, rank, ranks)
    if first:
        lost += _gather(folder, ranks)
        status = _finish(config, frozen, todo, lost, licences, time.perf_counter() - started)
    else:
        write(folder / "ranks" / f"{rank}.json", lines(lost))
        status = 0
    accelerator.end_training()
    return status


# ---- before anything is computed -------------------------------------------------------------


def check(config: Config) -> None:
    """Everything that can be told to be wrong before a model is loaded.

    Raises: ValueError, FileNotFoundError: with what to do.
    """
    from viewsynth import bodies, data
    from viewsynth.diffusion import refine
    from viewsynth.runtime import weights

    if config.data.name not in data.names():
        raise ValueError(f"data.name: expected {', '.join(data.names())}; got {config.data.name!r}")
    if config.body not in bodies.names():
        raise ValueError(f"body must be one of {', '.join(bodies.names())}; got {config.body!r}")
    for given, known in (
        (config.weights.pose, weights.pose_model),
        (config.weights.detector, weights.detector_model),
    ):
        if given:
            known(given)
    if config.weights.smplx:
        smplx = weights.smplx_model(config.weights.smplx)
        # The workers inherit it; exports of the run later need it set by hand.
        os.environ["VIEWSYNTH_SMPLX"] = str(smplx)
    if config.data.root is not None:
        root = config.data.root.expanduser().resolve()
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise FileNotFoundError(
                f"data.root must be a folder of pictures; {config.data.root} {what}: give the path "
                "of the folder, or leave data.root out to draw people"
            )
        if config.folder.resolve().is_relative_to(root):
            raise ValueError(
                f"output must not lie in data.root, or the next run would read it; got "
                f"{config.folder} in {root}"
            )
    found = refine.find(config.refine, whole=False)
    if config.commercial:
        require_commercial(_licences(config, found))


def _licences(config: Config, found: refine.Found | None) -> dict[str, str]:
    """Of what the user gave; whoever draws the pictures (we) gives them the project's licence."""
    data = {"data": config.data.licence if config.data.root else "Apache-2.0"}
    return data | ({"refiner": found.licence} if found else {})


def settings_of(config: Config, device: str) -> dict:
    """The configuration as far as it changes pixels or rows; views and people may be added."""
    from viewsynth.diffusion import refine

    tree = to_dict(config)
    for key in ("views", "weights", "output", "workers", "report", "retry_failed", "commercial"):
        del tree[key]
    tree["data"] = reading.told(tree["data"])
    del tree["data"]["people"]
    if config.data.root:
        tree["data"]["root"] = config.data.root.expanduser().resolve().as_posix()
    return tree | {"refine": refine.settings(config.refine), "device": device}


def _claim(folder: Path, settings: dict) -> None:
    """Take the folder of the run, if it is empty or holds this run, and tidy up after a kill."""
    if claim(folder, OURS, "run.json"):
        old = manifest.read(folder).settings
        manifest.refuse_other_settings(folder, old, settings | {"models": old.get("models")})
    clean(folder)
    shutil.rmtree(folder / "ranks", ignore_errors=True)


def _input(config: Config) -> tuple[Path, list, list]:
    """The samples, and what is no sample; the demo draws them first."""
    from viewsynth import data
    from viewsynth.data import layout

    root = config.data.root
    if root is None:
        from viewsynth.world import shots

        # Beside the run, not in it: tools that read the run would take the photos for its pictures.
        root, done = config.folder.with_name(f"{config.folder.name}_photos"), set()
        if (root / "metadata.jsonl").exists():  # written last
            done = {sample.pid for sample in data.load("folder", root).samples}
        if len(done) < config.data.people:
            _say(f"drawing {config.data.people} people into {root}")
            shots.write(root, config.data.people, config.seed)
    dataset = data.load(config.data.name, root, config.data)
    samples = [sample for sample in dataset.train if sample.view == "ground"]
    if others := len(dataset.samples) - len(samples):
        what = "pictures that are for evaluation or from above are not used"
        dataset.rejects.append(layout.skip(".", what, others))
        if not samples:
            raise ValueError(
                f"data.root: {root} has no ground picture of the split train: all {others} are "
                "from above (view; platform drone) or for evaluation (split): correct these columns"
            )
    if config.data.per_person:
        samples = manifest.few(samples, config.data.per_person, config.seed)
    return dataset.root, samples, dataset.rejects


def _prepare(config: Config) -> tuple[dict, dict, dict]:
    """Fetch and build, once and in the main process, what the workers load."""
    from viewsynth import bodies
    from viewsynth.diffusion import refine
    from viewsynth.runtime import weights

    found, identity = refine.find(config.refine), ""
    if config.weights.identity:
        from viewsynth.reid import encoders

        encoder = encoders.load(config.weights.identity)
        if encoder.ordered:
            raise ValueError(
                f"weights.identity: the features of {config.weights.identity} hang on the order of "
                "the pictures (mode faithful); give a model of mode fixed, or its first stage"
            )
        identity = encoder.fingerprint
    models = {
        "pose": weights.pose_model(config.weights.pose),
        "detector": weights.detector_model(config.weights.detector),
    }
    _say(f"loading the body {config.body} (the very first time it is built: about a minute)")
    body = bodies.load(config.body)
    revisions = {name: weights.sha256(path) for name, path in models.items()}
    licences = _licences(config, found) | {"body": body.licence, "viewsynth": "Apache-2.0"}
    licences |= {name: weights.licence(path) for name, path in models.items()}
    if identity:
        models["identity"], revisions["identity"] = config.weights.identity, identity
        licences["identity"] = "unknown"
    if found:
        models["refine"] = found.folder
        revisions["refine"] = refine.revision(found, config.refine)
    if config.commercial:
        require_commercial(licences)
    return models, revisions, licences


# ---- the work --------------------------------------------------------------------------------


def _work(todo, job: worker.Job, load, make, rank: int, ranks: int) -> list[dict]:
    """Do this rank's share; returns rejects for the people whose worker died."""
    mine = todo[rank::ranks]
    lost: list[dict] = []
    parts = {job.run / "parts" / f"{task.part}.jsonl": task.people for task in todo}
    workers = hired(job.device, job.config.workers, len(mine), ranks)
    with Progress(parts if rank == 0 else {}) as progress:
        for outcome in spread(mine, worker.start, (job, load, make), workers):
            progress.update()
            if outcome is not None and outcome[1]:
                task, why = outcome
                lost += [to_json(reject) for reject in worker.all_failed(task, job, why)]
        while rank == 0 and len(list((job.run / "ranks").glob("[0-9]*.json"))) < ranks - 1:
            progress.update()
            time.sleep(0.5)
        progress.update()
    return lost


def _gather(folder: Path, ranks: int) -> list[dict]:
    """What the other ranks lost."""
    texts = [(folder / "ranks" / f"{rank}.json").read_text() for rank in range(1, ranks)]
    return [json.loads(line) for line in "".join(texts).splitlines()]


# ---- afterwards ------------------------------------------------------------------------------


def _finish(config: Config, frozen, todo, lost, licences: dict, seconds: float) -> int:
    """Join the parts, make sheet and report, say what came out; returns the exit status."""
    from viewsynth.report import sheet

    folder = config.folder
    shutil.rmtree(folder / "ranks", ignore_errors=True)
    rows, rejects = manifest.join(folder, frozen, lost)
    manifest.sweep(folder, frozen, rows)
    people = sum(task.people for task in todo)
    views = sum(task.people * len(task.views) for task in todo)
    session = {"people": people, "views": views, "seconds": round(seconds, 2)}
    frozen.facts = facts() | {"licences": licences, "last_session": session}
    manifest.save(folder, frozen)
    if config.report == "yes":
        sheet.write_report(folder)
    speed = f", {people / seconds:.2f} people/s, {views / seconds:.1f} views/s" if people else ""
    made, asked = len({row["person"] for row in rows}), len(frozen.people)
    kept = f"{len(rows)} views kept, {len(rejects)} rejects"
    _say(f"{made} people of {asked} made, {kept}; {seconds:.0f} s{speed}")
    for line in sheet.remarks(rows):
        _say(f"  {line}")
    reasons = sheet.reasons(rejects)
    for reason, count in reasons[:8]:
        _say(f"  {count} x {reason}")
    _say("licences: " + ", ".join(f"{part} {text}" for part, text in licences.items()))
    if config.report == "yes":
        _say(f"look at {folder / 'report' / 'index.html'} or {folder / 'contact_sheet.png'}")
    whole = {row["pid"] for row in rows}  # made, though a picture of theirs could not be read
    faults = len(
        {
            r["pid"] or r["source"]
            for r in rejects
            if r["kind"] == "fault" and not (r["stage"] == "input" and r["pid"] in whole)
        }
    )
    if broken := faults > FAULTS * asked:
        _say(
            f"failed: {faults} people of {asked} lost to faults, {folder}/rejects.jsonl says why; "
            "--retry-failed tries them again"
        )
    if not rows:
        why = f"most often: {reasons[0][0]}; " if reasons else ""
        _say(f"failed: nobody was made; {why}every reason is in {folder}/rejects.jsonl")
    return int(broken or not rows)


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{text}\n")
