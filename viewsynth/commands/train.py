# SPDX-License-Identifier: Apache-2.0
"""Train a ReID model on real images, synthetic views, or both.

accelerate launch train.py --data.name cargo --data.root DIR --data.synthetic outputs/cargo

The output folder gets `model/` (what `evaluate --model.path` takes), `checkpoint-<step>/`,
`log.jsonl` (losses and validation), `config.yaml`, `run.json`, `inputs.jsonl` (every image with its
SHA-256) and `rejects.jsonl`. Run the same command again to continue after a stop. A part of the
training identities is held out for validation: `model/` is the model that retrieves them best, or
that of the last step if there is no validation. The test split is used only to refuse synthetic
views of its people.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viewsynth import data
from viewsynth.config import check_range, dump, to_dict
from viewsynth.data import Reading, Source, reading
from viewsynth.manifest import refuse_other_settings
from viewsynth.records import Sample
from viewsynth.records import to_dict as to_json
from viewsynth.reid import attributes, methods, pool
from viewsynth.reid.options import Augmentation, ReIDOptimization
from viewsynth.reid.sampler import Plan
from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import claim_folder, clean, to_jsonl, write
from viewsynth.runtime.provenance import facts
from viewsynth.runtime.workers import make_accelerator

if TYPE_CHECKING:
    from viewsynth.reid.pixels import Pixels

OURS = {
    *("model", "log.jsonl", "config.yaml", "run.json", fingerprint.RECORD),
    *("rejects.jsonl", "diverged.json", "tracker", ".gitkeep"),
    "prompts",  # checkpoints of the first stage of a method that has two
}
PLAIN = Augmentation(pad=0, flip=0, erase=0)
# Options that do not affect the weights.
FREE = ("output", "resume", "every", "trackers", "device", "cache")


@dataclass(frozen=True)
class Data(Reading, Source):
    """Training data."""

    views: Literal["both", "ground", "aerial"] = "both"
    """Views of the real training images; ground = the single-view setting."""
    synthetic: tuple[Path, ...] = ()
    """Runs of generate with views of the same people."""
    share: float = 0.5
    """Share of synthetic images among the images of a person in a batch, at most 0.5."""
    added: int = 0
    """Synthetic images of a person in a batch on top of `pictures`; with --data.share 0, those are
    all real. Real images take their places where there are no synthetic ones."""
    until: float = 0.75
    """Part of the run after which both fall linearly to 0; real images take their places."""
    weight: Literal["judge", "seen", "none"] = "judge"
    """Weight of a synthetic image in the losses: that of the judge, its mean seen map, or 1."""
    least: float = 0.0
    """Lowest weight of the synthetic images that are used."""
    per_person: int | None = None
    """Largest number of synthetic images per person; None = all."""
    repeat: int = 0
    """Control: number of real images per person that are repeated in place of synthetic ones."""
    validation: float = 0.05
    """Share of the training identities held out for validation; 0 = none."""

    def __post_init__(self):
        check_range("data.share", self.share, 0, 0.5)
        check_range("data.added", self.added, 0, 1000)
        check_range("data.until", self.until, 0, 1)
        check_range("data.least", self.least, 0, 1)
        check_range("data.per_person", self.per_person, 1, 10_000)
        check_range("data.repeat", self.repeat, 0, 10_000)
        check_range("data.validation", self.validation, 0, 0.9)


@dataclass(frozen=True)
class Model:
    """The model to train."""

    method: str = "baseline"
    """Method, a module of viewsynth.reid.methods."""
    backbone: str = "small"
    """Vision model of transformers (hub id or folder); or, from scratch, small, small_vit or
    small_clip."""
    freeze_norms: Literal["yes", "no"] = "no"
    """Whether batch norms of the backbone keep their statistics and weights, for fine-tuning in few
    steps; without effect on backbones that have none."""
    size: tuple[int, int] = (256, 128)
    """Height and width of the images, pixels."""
    stride: int | None = None
    """Pixels from one patch to the next of a pretrained transformer: less than a patch, e.g. 12 of
    16, and they overlap; None = a patch."""
    smoothing: float = 0.0
    """Label smoothing of the identity loss, 0 to 0.99."""
    views: Literal["view", "platform"] = "view"
    """Views that methods distinguish: ground and aerial, or one per platform."""

    def __post_init__(self):
        for side in self.size:
            check_range("model.size", side, 16, 4096, "pixels")
        check_range("model.stride", self.stride, 1, 4096, "pixels")
        check_range("model.smoothing", self.smoothing, 0, 0.99)


@dataclass(frozen=True)
class Config:
    """Real and synthetic images in, a ReID model out."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: ReIDOptimization = field(default_factory=ReIDOptimization)
    augment: Augmentation = field(default_factory=Augmentation)
    steps: int = 24_000
    """Training steps of the whole run."""
    people: int = 32
    """People in a batch."""
    pictures: int = 4
    """Images of each person in a batch, without those of --data.added."""
    every: int = 2000
    """Steps between checkpoints, which are also those between validations."""
    cache: Path | None = Path("outputs/cache")
    """Folder of resized images; None = read the files at every start."""
    resume: Literal["latest", "no"] = "latest"
    """Continue from the newest whole checkpoint (latest), or refuse a folder that has one (no)."""
    trackers: tuple[str, ...] = ()
    """Trackers of accelerate: tensorboard, wandb, trackio, ..."""
    output: Path = Path("outputs/train")
    """Folder of the run."""
    seed: int = 0
    """Seed of all random draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto = cuda if there is one."""

    def __post_init__(self):
        check_range("steps", self.steps, 1, 10**8)
        check_range("people", self.people, 2, 10_000)
        check_range("pictures", self.pictures, 1, 1000)
        check_range("every", self.every, 1, 10**8)
        check_range("seed", self.seed, 0, 2**63 - 1)


def run(config: Config) -> int:
    """Train, or continue a stopped run; returns 0."""
    if config.data.root is None:
        raise ValueError("data.root must be the folder of the real data set; got none")
    methods.needs(config.model.method)  # refuse an unknown name before anything is read
    accelerator = make_accelerator(config.device, config.trackers, config.output)
    first = accelerator.is_main_process
    if not first:
        logging.getLogger("viewsynth").setLevel(logging.ERROR)  # each warning once
    train_pool, validated, rejects = pools(config)
    plan_of(config, train_pool)
    _check_needs(config, train_pool)
    backbone = _backbone(config, train_pool)
    with accelerator.main_process_first():
        if first:
            ours = OURS | {p.name for p in config.output.glob("checkpoint-*")}
            claim_folder(config.output, ours, "run.json")
            clean(config.output)
        pixels = open_pixels(train_pool.samples, config, first)
        held = open_pixels(validated, config, first)
    files = pool.inputs(train_pool, validated, pixels, held)
    train_pool = train_pool.keep(pixels.usable)
    if not methods.identities(config.model.method):
        train_pool = train_pool.without_identities()
    method = _method(config, backbone, train_pool)
    if first:
        _freeze(config, files, accelerator)
        every = [*rejects, *pixels.rejects, *(held.rejects if held else [])]
        write(config.output / "rejects.jsonl", to_jsonl([to_json(reject) for reject in every]))
    _train(config, method, plan_of(config, train_pool), pixels, held, accelerator)
    accelerator.end_training()
    return 0


# ---- data and model --------------------------------------------------------------------------


def pools(config: Config) -> tuple[pool.Pool, list[Sample], list]:
    """The training pool, the samples of the validation, and the rejects of both."""
    dataset = data.load(config.data.name, config.data.root, config.data)
    every = [sample for sample in dataset.train if sample.source == "real"]
    if not every:
        raise ValueError(f"data.root: {config.data.root} has no real image of the split train")
    wanted = [s for s in every if config.data.views in ("both", s.view)]
    if not wanted:
        raise ValueError(f"data.views: {config.data.root} has no {config.data.views} image")
    # Validation sees the views that training sees.
    frames, videos = pool.single_images(wanted)
    real, validated = pool.split(frames, config.data.validation, config.seed)
    tested = {s.pid for p in dataset.protocols.values() for s in (*p.query, *p.gallery)}
    train_pool = pool.build(
        real,
        config.data.synthetic,
        pool.Selection(config.data.weight, config.data.least, config.data.per_person),
        everyone=every,
        tested=tested,
        repeat=config.data.repeat,
        by=config.model.views,
    )
    if methods.wants(config.model.method, "attributes"):
        train_pool = train_pool.with_attributes()
    return train_pool, validated, [*dataset.rejects, *videos]


def open_pixels(samples: list[Sample], config: Config, bar: bool) -> Pixels | None:
    """The resized images of some samples; None if there are no samples."""
    from viewsynth.reid.pixels import Pixels

    return Pixels.open(samples, config.model.size, config.cache, bar=bar) if samples else None


def plan_of(config: Config, train_pool: pool.Pool) -> Plan:
    """The batches of the run.

    Raises:
        ValueError: if the pool has too few people or images for them.
    """
    alone = not methods.identities(config.model.method)  # an image is a class of its own
    if alone:
        train_pool = train_pool.without_identities()
    return Plan(
        pool=train_pool,
        people=config.people * config.pictures if alone else config.people,
        pictures=1 if alone else config.pictures,
        steps=config.steps,
        added=0 if alone else config.data.added,
        synthetic=config.data.share if train_pool.synthetic.any() and not alone else 0.0,
        until=config.data.until,
        seed=config.seed,
    )


def _check_needs(config: Config, train_pool: pool.Pool) -> None:
    """Refuse a method whose needs the data do not meet, and name attributes that tell little."""
    names, needs = train_pool.attribute_names, methods.needs(config.model.method)
    if "attributes" in needs and not names:
        raise ValueError(
            f"model.method: {config.model.method} needs attributes of people, and no training "
            "image has any: world, cp2108, AG-ReID with its .mat file and folders with a table "
            "have them; or use another method"
        )
    if few := attributes.nearly_constant(names, train_pool.attributes):
        say(f"nearly the same in all images: the attributes {', '.join(few)}")
    if "views" in needs and len(set(train_pool.views.tolist())) < 2:
        raise ValueError(
            f"model.method: {config.model.method} needs ground and aerial images; all images are "
            "of one view: add --data.synthetic, or use the method baseline"
        )


def _backbone(config: Config, train_pool: pool.Pool):
    from viewsynth.reid import backbones, text_tower

    text, model = "text" in methods.needs(config.model.method), config.model
    described = map(attributes.description, train_pool.samples) if text else ()
    words = text_tower.words_of(described)
    backbone = backbones.load(model.backbone, model.size, config.seed, text, words, model.stride)
    if config.model.freeze_norms == "yes":
        backbone.freeze_norms()
    return backbone


def _method(config: Config, backbone, train_pool: pool.Pool):
    model = config.model
    more = {}
    if methods.wants(model.method, "attributes"):
        more["attributes"] = list(train_pool.attribute_names)
    return methods.build(
        model.method,
        backbone,
        train_pool.classes,
        model.smoothing,
        config.seed,
        train_pool.view_names,
        **more,
    )


def _freeze(config: Config, files: dict[str, tuple[Path, dict]], accelerator) -> None:
    """Record what decides the weights, or refuse to resume with something else."""
    folder, values = config.output, to_dict(config)
    settings = {key: value for key, value in values.items() if key not in FREE}
    settings["data"] = reading.non_default(settings["data"])
    settings["optim"]["parts"] = config.optim.parts or accelerator.num_processes
    settings["precision"] = accelerator.mixed_precision
    begun = any(folder.glob("checkpoint-*")) or any(folder.glob("*/checkpoint-*"))
    if begun:
        if config.resume == "no":
            raise ValueError(f"output: {folder} holds a run, and --resume is no; give another one")
        old = json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]
        old.pop("pictures_sha256", None)  # in runs from before inputs.jsonl
        refuse_other_settings(folder, old, settings)
    fingerprint.keep(folder, fingerprint.compare(folder, files, begun))
    write(folder / "config.yaml", dump(config).encode())
    record = json.dumps({"settings": settings, "facts": facts()}, indent=1) + "\n"
    write(folder / "run.json", record.encode())


# ---- training --------------------------------------------------------------------------------


def _train(
    config: Config, method, plan: Plan, pixels: Pixels, held: Pixels | None, accelerator
) -> None:
    """Train and save the model: the best one by validation, else the last one."""
    from viewsynth.reid import saved, training, validation
    from viewsynth.training import checkpoints, loop, progress

    folder, first = config.output, accelerator.is_main_process

    def save(model, step: int) -> None:
        if first:
            about = {"data": config.data.name, "step": step, "steps": config.steps}
            saved.save(model, folder / "model", about)

    accelerator.wait_for_everyone()
    identities = methods.identities(config.model.method)  # without them, nothing is learned yet
    if first and identities and checkpoints.newest(folder) is None:
        _check_learns(method, plan, pixels, accelerator.device)
    accelerator.wait_for_everyone()
    stages = methods.stages(config.model.method)
    for stage in stages[:-1]:
        methods.start(method, stage)
        _prompts(config, stage.name, method, plan, pixels, accelerator)
    methods.start(method, stages[-1])
    began, log = time.perf_counter(), progress.open_log(folder, config.every, config.steps)
    best = validation.best_so_far(folder, log.rows, method, save, accelerator)
    validate = validation.validator(held, best, config.optim.rate, save)
    if config.trackers:
        accelerator.init_trackers("viewsynth", {k: str(v) for k, v in to_dict(config).items()})
    with progress.progress(log, accelerator) as report:
        task = training.ReIDTask(plan, pixels, config.augment, config.optim)
        run = loop.Run(folder, accelerator, config.every, report, validate)
        model = loop.learn(method, task, run)
    if validate is None:
        save(model, config.steps)
    if first:
        steps, seconds = config.steps - log.done, time.perf_counter() - began
        speed = steps * plan.people * plan.each / seconds
        say(f"{steps} steps in {seconds:.0f} s, {speed:.0f} images/s; look at {folder / 'model'}")
    accelerator.wait_for_everyone()


def _prompts(config: Config, name: str, method, plan: Plan, pixels: Pixels, accelerator) -> None:
    """A stage before the last, on images without augmentation, from its newest checkpoint."""
    from viewsynth.reid import training
    from viewsynth.training import loop, progress

    optim = config.optim
    plan = replace(plan, steps=optim.prompt_steps or plan.steps)
    optim = replace(optim, optimizer="adamw", rate=optim.prompt_rate, head_rate=None, average=0.0)
    folder = config.output / name
    log = progress.open_log(folder, config.every, plan.steps)
    with progress.progress(log, accelerator, name) as report:
        task = training.ReIDTask(plan, pixels, PLAIN, optim, banks=False)
        loop.learn(method, task, loop.Run(folder, accelerator, config.every, report))


def _check_learns(method, plan: Plan, pixels: Pixels, device) -> None:
    """The start-up check, on images without augmentation."""
    from viewsynth.reid import batches, training

    batch = next(batches.stream(plan, pixels, PLAIN, [0], device=device))
    before, after = training.check_learns(method.to(device), batch)
    say(f"start-up check: loss {before:.2f} -> {after:.2f} on {training.LEARNS} images")


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")
