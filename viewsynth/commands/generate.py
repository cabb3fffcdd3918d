# SPDX-License-Identifier: Apache-2.0
"""Generate aerial views of the people in ground images.

    accelerate launch generate.py                                a demo with rendered people
    accelerate launch generate.py --data.root DIR                your own images
    accelerate launch generate.py --data.meshes DIR              your own 3D models of people
    accelerate launch generate.py preset.yaml --views.sample 8   a preset with one change

Run the same command again to continue after a stop; more people or more views extend the run.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viewsynth import manifest
from viewsynth.config import check_range, dump, to_dict
from viewsynth.data import Reading, Source, reading
from viewsynth.diffusion.options import Refine
from viewsynth.generate import ranks, worker
from viewsynth.generate.options import Pose, Reconstruct, Views, Weights
from viewsynth.render.options import Scene, Sensor
from viewsynth.runtime.files import claim_folder, clean, write
from viewsynth.runtime.licences import VIEWSYNTH, Passport, licences_of, require_commercial
from viewsynth.runtime.provenance import facts
from viewsynth.runtime.workers import make_accelerator

if TYPE_CHECKING:
    from viewsynth.diffusion import refine

FREE = ("output", "workers", "report", "retry_failed", "commercial")  # affect no pixel
FAULTS = 0.01  # largest share of people lost to faults in a run that succeeds
OURS = {
    *("images", "seen", "people", "parts", "report", ranks.FOLDER),
    *("run.json", "config.yaml", "metadata.jsonl", "rejects.jsonl", "contact_sheet.png"),
    *("SHA256SUMS", ".gitkeep"),
}


@dataclass(frozen=True)
class Data(Reading, Source):
    """The ground images."""

    root: Path | None = None
    """Folder of <person>/*.jpg, *.jpg (one person each) or metadata.csv; None = rendered people."""
    meshes: Path | None = None
    """Folder of <pid>.glb, .gltf, .obj or .ply: meshes of people, drawn instead of reconstructions;
    without a root each file is a person, and nothing counts as seen."""
    people: int = 6
    """Number of rendered people, without a root and meshes."""
    per_person: int | None = None
    """Largest number of images per person, chosen at random; None = all."""
    crops: Literal["auto", "yes", "no"] = "auto"
    """Whether each image is a tight crop of one person; auto decides by size and aspect ratio."""
    licence: str = "unknown"
    """Licence of the images, an SPDX identifier; the output inherits it."""

    def __post_init__(self):
        check_range("data.people", self.people, 1, 1_000_000)
        check_range("data.per_person", self.per_person, 1, 1_000_000)


@dataclass(frozen=True)
class Config:
    """Ground images of people in, aerial views of the same people out."""

    data: Data = field(default_factory=Data)
    views: Views = field(default_factory=Views)
    reconstruct: Reconstruct = field(default_factory=Reconstruct)
    pose: Pose = field(default_factory=Pose)
    sensor: Sensor = field(default_factory=Sensor)
    scene: Scene = field(default_factory=Scene)
    refine: Refine = field(default_factory=Refine)
    weights: Weights = field(default_factory=Weights)
    body: str = "anny"
    """Body model, a module of viewsynth.bodies."""
    output: Path | None = None
    """Folder of the run; None = outputs/<name of data.root>, or outputs/demo."""
    seed: int = 0
    """Seed of all random draws."""
    chunk: int = 8
    """People that one worker computes together; affects the last digits of the results."""
    workers: int = 0
    """Worker processes per rank; 0 = one per core. On a GPU always one."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the tensors; auto = cuda if there is one."""
    report: Literal["yes", "no"] = "yes"
    """Whether to write the contact sheet and the HTML report."""
    retry_failed: bool = False
    """Compute chunks with faults again (rejects for quality are final)."""
    commercial: bool = False
    """Fail unless the images and all models allow commercial use."""

    def __post_init__(self):
        check_range("seed", self.seed, 0, 2**63 - 1)
        check_range("chunk", self.chunk, 1, 10_000)
        check_range("workers", self.workers, 0, 1024)
        if self.weights.identity and self.chunk < 4:
            raise ValueError(
                "chunk must be at least 4 with weights.identity, which compares the crops of a "
                f"person with those of the other people of its chunk; got {self.chunk}"
            )

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        given = self.data.root or self.data.meshes
        name = given.expanduser().resolve().name if given else "demo"
        return (self.output or Path("outputs") / (name or "root")).expanduser().resolve()


def run(
    config: Config,
    prepare: Callable | None = None,
    load: Callable | None = None,
    make: Callable | None = None,
) -> int:
    """Generate the data set; finished chunks are kept.

    Args:
        config: The options.
        prepare: `prepare(config) -> (models, revisions, passports)`, which fetches what the workers
            load; None = the default.
        load: Passed to `worker.start`; None = `chunk.load_tools`.
        make: Passed to `worker.start`; None = `chunk.make_chunk`.

    Returns:
        0, or 1 if no view was kept or more than 1 % of the people were lost to faults.
    """
    from viewsynth.generate import chunk

    started = time.perf_counter()
    folder = config.folder
    check(config)
    accelerator = make_accelerator(config.device)
    first = accelerator.is_main_process
    with accelerator.main_process_first():
        if first:
            settings = settings_of(config, accelerator.device.type)
            _claim(folder, settings)
            root, samples, rejects = _input(config)
            people = manifest.entries(samples)
        models, revisions, passports = (prepare or models_of)(config)
        if first:
            settings["models"] = revisions
            manifest.freeze(folder, settings, root, people, rejects, config.chunk)
            write(folder / "config.yaml", dump(config).encode())
    frozen = manifest.read(folder)
    todo = manifest.tasks(folder, frozen, config.views.names(), config.retry_failed)
    accelerator.wait_for_everyone()  # all ranks list the same tasks before one is computed
    device = str(accelerator.device)
    licences = licences_of(passports)
    job = worker.Job(folder, frozen.root, config, device, models, revisions, licences)
    load, make = load or chunk.load_tools, make or chunk.make_chunk
    rank, count = accelerator.process_index, accelerator.num_processes
    lost, status = ranks.compute(todo, job, load, make, rank, count), 0
    if first:
        status = _finish(config, frozen, todo, lost, passports, time.perf_counter() - started)
    accelerator.end_training()
    return status


# ---- before anything is computed -------------------------------------------------------------


def check(config: Config) -> None:
    """Check the options before a model is loaded.

    Args:
        config: The options.

    Raises:
        ValueError: if options are wrong or do not fit together.
        FileNotFoundError: if a file or folder does not exist.
    """
    from viewsynth import bodies, data
    from viewsynth.diffusion import refine
    from viewsynth.runtime import weights

    if config.data.name not in data.names():
        raise ValueError(
            f"data.name must be one of {', '.join(data.names())}; got {config.data.name!r}"
        )
    if config.body not in bodies.names():
        raise ValueError(f"body must be one of {', '.join(bodies.names())}; got {config.body!r}")
    for given, known in (
        (config.weights.pose, weights.pose_model),
        (config.weights.detector, weights.detector_model),
    ):
        if given:
            known(given)
    weights.completion(config.reconstruct.complete)
    if config.weights.smplx:
        smplx = weights.smplx_model(config.weights.smplx)
        # The workers inherit it; a later export of the run needs it set by the user.
        os.environ["VIEWSYNTH_SMPLX"] = str(smplx)
    for key in ("root", "meshes"):
        if (given := getattr(config.data, key)) is not None:
            _check_input(f"data.{key}", given, config.folder.resolve())
    found = refine.find(config.refine, whole=False)
    if found and config.data.meshes and not config.data.root:
        raise ValueError("refine.engine needs photos of the people of data.meshes: give data.root")
    if config.commercial:
        require_commercial(licences_of(_passports(config, found)))


def _check_input(key: str, given: Path, output: Path) -> None:
    """Check the folder that the option `key` gives."""
    root = given.expanduser().resolve()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"{key} must be a folder of {'meshes' if 'meshes' in key else 'images'}; {given} {what}"
            f": give the path of the folder, or leave {key} out for rendered people"
        )
    if output.is_relative_to(root):
        why = "or the next run would read it"
        raise ValueError(f"output must not be inside {key}, {why}; got {output} in {root}")


def _passports(config: Config, found: refine.Found | None) -> dict[str, Passport]:
    """Rights in the images and the refiner; rendered people are those of viewsynth."""
    from viewsynth import data

    given = config.data.root or config.data.meshes
    images = data.passport(config.data.name) if given else VIEWSYNTH
    if given and config.data.licence != "unknown":
        images = replace(images, licence=config.data.licence)
    refiner = {"refiner": Passport(found.folder.name, found.licence)} if found else {}
    return {"data": images} | refiner


def settings_of(config: Config, device: str) -> dict:
    """The options that affect pixels or rows, except views and people, which may be added."""
    from viewsynth.diffusion import refine

    tree = to_dict(config)
    for key in ("views", "weights", "reconstruct", *FREE):
        del tree[key]
    tree["data"] = reading.non_default(tree["data"])
    del tree["data"]["people"]
    for key in ("root", "meshes"):
        if given := getattr(config.data, key):
            tree["data"][key] = given.expanduser().resolve().as_posix()
    if not config.data.meshes:  # runs from before this option can be resumed
        del tree["data"]["meshes"]
    tree["scene"] = config.scene.settings()
    return tree | {"refine": refine.settings(config.refine), "device": device}


def _claim(folder: Path, settings: dict) -> None:
    """Claim the folder if it is empty or holds this run, and remove leftovers of a kill."""
    if claim_folder(folder, OURS, "run.json"):
        old = manifest.read(folder).settings
        manifest.refuse_other_settings(folder, old, settings | {"models": old.get("models")})
    clean(folder)
    (folder / manifest.SUMS).unlink(missing_ok=True)  # until the run is finished again
    shutil.rmtree(folder / ranks.FOLDER, ignore_errors=True)


def _input(config: Config) -> tuple[Path, list, list]:
    """Root, samples and rejects of the data set; without any, the demo is rendered first."""
    from viewsynth import data
    from viewsynth.data import layout
    from viewsynth.generate import meshes

    root, own = config.data.root, config.data.meshes and config.data.meshes.expanduser().resolve()
    if own and root is None:
        _say("data.meshes without data.root: fronts are taken to face +z, and nothing as seen")
        return own, *meshes.alone(own)
    if root is None:
        from viewsynth.world import shots

        # Not inside the run: tools that read the run would take the photos for its images.
        root, done = config.folder.with_name(f"{config.folder.name}_photos"), set()
        if (root / "metadata.jsonl").exists():  # written last
            done = {sample.pid for sample in data.load("folder", root).samples}
        if len(done) < config.data.people:
            _say(f"rendering {config.data.people} people to {root}")
            shots.write_folder(root, config.data.people, config.seed)
    dataset = data.load(config.data.name, root, config.data)
    samples = [sample for sample in dataset.train if sample.view == "ground"]
    if others := len(dataset.samples) - len(samples):
        what = "images that are aerial or for evaluation are not used"
        dataset.rejects.append(layout.skip(".", what, others))
        if not samples:
            raise ValueError(
                f"data.root: {root} has no ground image of the split train: all {others} are "
                "aerial (view; platform drone) or for evaluation (split): correct these columns"
            )
    if config.data.per_person:
        samples = manifest.random_subset(samples, config.data.per_person, config.seed)
    if own:
        samples, unknown, told = meshes.attach(own, samples)
        dataset.rejects.extend(unknown)
        _say("\n".join(told))
    return dataset.root, samples, dataset.rejects


def models_of(config: Config) -> tuple[dict, dict, dict[str, Passport]]:
    """Fetch and build what the workers load: models, revisions and passports by name."""
    from viewsynth import bodies
    from viewsynth.diffusion import refine
    from viewsynth.runtime import weights

    found, identity = refine.find(config.refine), ""
    if config.weights.identity:
        from viewsynth.reid import encoders

        encoder = encoders.load(config.weights.identity)
        if encoder.ordered:
            raise ValueError(
                f"weights.identity: the features of {config.weights.identity} depend on the order "
                "of the images (mode faithful); give a model of mode fixed, or its first stage"
            )
        identity = encoder.fingerprint
    own = config.weights
    models = weights.reconstruction(config.reconstruct.complete, own.pose, own.detector)
    _say(f"loading the body model {config.body} (built at the first use: about a minute)")
    body = bodies.load(config.body)
    revisions = {name: weights.sha256(path) for name, path in models.items()}
    passports = _passports(config, found) | {"body": body.passport, "viewsynth": VIEWSYNTH}
    passports |= {name: weights.passport(path) for name, path in models.items()}
    if identity:
        models["identity"], revisions["identity"] = config.weights.identity, identity
        passports["identity"] = Passport(Path(config.weights.identity).name)
    if found:
        models["refine"] = found.folder
        revisions["refine"] = refine.revision(found, config.refine)
    if config.commercial:
        require_commercial(licences_of(passports))
    return models, revisions, passports


# ---- afterwards ------------------------------------------------------------------------------


def _finish(
    config: Config, frozen, todo, lost, passports: dict[str, Passport], seconds: float
) -> int:
    """Join the parts, write the report, print a summary; returns the exit status."""
    from viewsynth.report import sheet

    folder = config.folder
    shutil.rmtree(folder / ranks.FOLDER, ignore_errors=True)
    rows, rejects = manifest.join(folder, frozen, lost)
    manifest.sweep(folder, frozen, rows)
    people = sum(task.people for task in todo)
    views = sum(task.people * len(task.views) for task in todo)
    session = {"people": people, "views": views, "seconds": round(seconds, 2)}
    told = {part: one.to_dict() for part, one in passports.items()}
    frozen.facts = facts() | {"passports": told, "last_session": session}
    manifest.save(folder, frozen)
    if config.report == "yes":
        sheet.write_report(folder)
    manifest.write_sums(folder, frozen, rows)
    speed = f", {people / seconds:.2f} people/s, {views / seconds:.1f} views/s" if people else ""
    made, asked = len({row["person"] for row in rows}), len(frozen.people)
    kept = f"{len(rows)} views kept, {len(rejects)} rejects"
    _say(f"{made} people of {asked} done, {kept}; {seconds:.0f} s{speed}")
    for line in sheet.remarks(rows):
        _say(f"  {line}")
    reasons = sheet.reasons(rejects)
    for reason, count in reasons[:8]:
        _say(f"  {count} x {reason}")
    _say("licences: " + ", ".join(f"{part} {one.licence}" for part, one in passports.items()))
    if config.report == "yes":
        _say(f"look at {folder / 'report' / 'index.html'} or {folder / 'contact_sheet.png'}")
    if broken := (faults := _faults(rows, rejects)) > FAULTS * asked:
        _say(
            f"failed: {faults} people of {asked} were lost to faults, see {folder}/rejects.jsonl; "
            "--retry-failed tries them again"
        )
    if not rows:
        why = f"most often: {reasons[0][0]}; " if reasons else ""
        _say(f"failed: no view was kept; {why}all reasons are in {folder}/rejects.jsonl")
    return int(broken or not rows)


def _faults(rows: list[dict], rejects: list[dict]) -> int:
    """Number of people lost to faults, without those who have views from other images."""
    kept = {row["pid"] for row in rows}
    faults = [reject for reject in rejects if reject["kind"] == "fault"]
    lost = [r for r in faults if r["stage"] != "input" or r["pid"] not in kept]
    return len({reject["pid"] or reject["source"] for reject in lost})


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{text}\n")
