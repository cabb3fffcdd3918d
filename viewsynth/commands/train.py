# SPDX-License-Identifier: Apache-2.0
"""Train a ReID model on real pictures, synthetic ones, or both.

accelerate launch train.py --data.name cargo --data.root DIR --data.synthetic outputs/cargo

The output folder gets `model/` (what `evaluate --model.path` takes), `checkpoint-<step>/`,
`log.jsonl` (losses and validation), `config.yaml`, `run.json`, `inputs.jsonl` (every picture with
its SHA-256) and `rejects.jsonl`. Run the same command again to go on after a stop. A part of the
training identities is kept for validation: `model/` is the model that finds them best, or that of
the last step where there is none. The test split is never looked at, but for refusing its
identities.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from viewsynth import data, metrics
from viewsynth.config import dump, to_dict, within
from viewsynth.data import Reading, Source, reading
from viewsynth.manifest import refuse_other_settings
from viewsynth.records import Protocol, Sample
from viewsynth.records import to_dict as to_json
from viewsynth.reid import backbones, batches, methods, pool, saved
from viewsynth.reid.options import Augmentation, ReIDOptimization
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.sampler import Plan
from viewsynth.reid.training import LEARNS, ReIDTask, check_learns
from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import claim, clean, lines, write
from viewsynth.runtime.provenance import facts
from viewsynth.runtime.workers import launched
from viewsynth.training import checkpoints, loop
from viewsynth.training.log import Log, progress
from viewsynth.training.loop import Run

OURS = set(
    [
        "model",
        "log.jsonl",
        "config.yaml",
        "run.json",
        "rejects.jsonl",
        "diverged.json",
        "tracker",
        ".gitkeep",
    ]
) | {fingerprint.RECORD}
FREE = ("output", "resume", "every", "trackers", "device", "cache")  # change no weight
CHUNK = 256  # pictures of the validation at once


@dataclass(frozen=True)
class Data(Reading, Source):
    """What is learnt from."""

    views: Literal["both", "ground", "aerial"] = "both"
    """Which of its training pictures are used; ground = the single-view setting."""
    synthetic: tuple[Path, ...] = ()
    """Runs of generate, made from pictures of the same people."""
    share: float = 0.5
    """Synthetic pictures among those of a person in a batch, at most half."""
    until: float = 0.75
    """Part of the run after which that share falls to none."""
    weight: Literal["judge", "seen", "none"] = "judge"
    """What weighs a synthetic picture in the losses."""
    least: float = 0.0
    """Synthetic pictures that weigh less are left out."""
    per_person: int | None = None
    """At most so many synthetic pictures of a person; None = all."""
    repeat: int = 0
    """Control: so many real pictures of a person again, in the places of synthetic ones."""
    validation: float = 0.05
    """Part of the training identities kept for validation; 0 = none."""

    def __post_init__(self):
        within("data.share", self.share, 0, 0.5)
        within("data.until", self.until, 0, 1)
        within("data.least", self.least, 0, 1)
        within("data.per_person", self.per_person, 1, 10_000)
        within("data.repeat", self.repeat, 0, 10_000)
        within("data.validation", self.validation, 0, 0.9)


@dataclass(frozen=True)
class Model:
    """What learns."""

    method: str = "baseline"
    """A module of viewsynth.reid.methods."""
    backbone: str = "small"
    """A vision model of transformers (id or folder); or from scratch: "small", a ResNet, or
    "small_vit"."""
    size: tuple[int, int] = (256, 128)
    """Height and width of the pictures, pixels."""
    smoothing: float = 0.0
    """Label smoothing of the identity loss."""
    views: Literal["view", "platform"] = "view"
    """What methods that tell views apart take for one: ground and aerial, or each platform."""

    def __post_init__(self):
        for side in self.size:
            within("model.size", side, 16, 4096, "pixels")
        within("model.smoothing", self.smoothing, 0, 0.99)


@dataclass(frozen=True)
class Config:
    """Real and synthetic pictures in, a ReID model out."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optim: ReIDOptimization = field(default_factory=ReIDOptimization)
    augment: Augmentation = field(default_factory=Augmentation)
    steps: int = 24_000
    """Of the whole run."""
    people: int = 32
    """In a batch."""
    pictures: int = 4
    """Of each of them."""
    every: int = 2000
    """Steps between two checkpoints, and between two validations."""
    cache: Path | None = Path("outputs/cache")
    """Folder of the resized pictures; None = read the files again and again."""
    resume: Literal["latest", "no"] = "latest"
    """Go on from the newest whole checkpoint, or refuse a folder that has one."""
    trackers: tuple[str, ...] = ()
    """tensorboard, wandb, trackio, … as accelerate knows them."""
    output: Path = Path("outputs/train")
    """Folder of the run."""
    seed: int = 0
    """Every random draw hangs on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is."""

    def __post_init__(self):
        within("steps", self.steps, 1, 10**8)
        within("people", self.people, 2, 10_000)
        within("pictures", self.pictures, 1, 1000)
        within("every", self.every, 1, 10**8)
        within("seed", self.seed, 0, 2**63 - 1)


def run(config: Config) -> int:
    """Train, or go on; returns 0."""
    if config.data.root is None:
        raise ValueError("data.root must be the folder of the real data set; got none")
    methods.needs(config.model.method)  # an unknown name is told before anything is read
    accelerator = launched(config.device, config.trackers, config.output)
    first = accelerator.is_main_process
    if not first:
        logging.getLogger("viewsynth").setLevel(logging.ERROR)  # each warning once
    learnt, validated, rejects = pools(config)
    plan_of(config, learnt)
    _check_views(config, learnt)
    body = backbones.load(config.model.backbone, config.model.size, config.seed)
    with accelerator.main_process_first():
        if first:
            ours = OURS | {p.name for p in config.output.glob("checkpoint-*")}
            claim(config.output, ours, "run.json")
            clean(config.output)
        pixels = open_pixels(learnt.samples, config, first)
        seen = open_pixels(validated, config, first)
    files = pool.inputs(learnt, validated, pixels, seen)
    learnt = learnt.keep(pixels.usable)
    method = methods.build(
        config.model.method,
        body,
        learnt.classes,
        config.model.smoothing,
        config.seed,
        len(learnt.view_names),
    )
    if first:
        _freeze(config, files, accelerator)
        every = [*rejects, *pixels.rejects, *(seen.rejects if seen else [])]
        write(config.output / "rejects.jsonl", lines([to_json(reject) for reject in every]))
    plan = plan_of(config, learnt)
    accelerator.wait_for_everyone()
    done = checkpoints.newest(config.output)
    if first and done is None:
        _check_learns(method, plan, pixels, accelerator.device)
    accelerator.wait_for_everyone()
    _train(config, method, plan, pixels, seen, accelerator)
    return 0


def open_pixels(samples: list[Sample], config: Config, bar: bool) -> Pixels | None:
    """The pictures of some samples as a run wants them; None if there are none."""
    return Pixels.open(samples, config.model.size, config.cache, bar=bar) if samples else None


def pools(config: Config) -> tuple[pool.Pool, list[Sample], list]:
    """What is learnt from, the samples of the validation, and what cannot be used."""
    dataset = data.load(config.data.name, config.data.root, config.data)
    every = [sample for sample in dataset.train if sample.source == "real"]
    if not every:
        raise ValueError(f"data.root: {config.data.root} has no real picture of the split train")
    wanted = [s for s in every if config.data.views in ("both", s.view)]
    if not wanted:
        raise ValueError(f"data.views: {config.data.root} has no {config.data.views} picture")
    # Validation sees what training sees: the other view's pictures are not to be had.
    frames, videos = pool.pictures(wanted)
    real, validated = pool.split(frames, config.data.validation, config.seed)
    tested = {s.pid for p in dataset.protocols.values() for s in (*p.query, *p.gallery)}
    learnt = pool.build(
        real,
        config.data.synthetic,
        config.data.weight,
        everyone=every,
        tested=tested,
        least=config.data.least,
        views=config.data.per_person,
        repeat=config.data.repeat,
        by=config.model.views,
    )
    return learnt, validated, [*dataset.rejects, *videos]


def plan_of(config: Config, learnt: pool.Pool) -> Plan:
    """The batches of the run. Raises: ValueError: if they cannot be drawn."""
    return Plan(
        pool=learnt,
        people=config.people,
        pictures=config.pictures,
        steps=config.steps,
        synthetic=config.data.share if learnt.synthetic.any() else 0.0,
        until=config.data.until,
        seed=config.seed,
    )


def _freeze(config: Config, files: dict[str, tuple[Path, dict]], accelerator) -> None:
    """Write down what decides the weights, or refuse to go on with something else."""
    folder, values = config.output, to_dict(config)
    settings = {key: value for key, value in values.items() if key not in FREE}
    settings["data"] = reading.told(settings["data"])
    settings["optim"]["parts"] = config.optim.parts or accelerator.num_processes
    settings["precision"] = accelerator.mixed_precision
    begun = any(folder.glob("checkpoint-*"))
    if begun:
        if config.resume == "no":
            raise ValueError(f"output: {folder} holds a run, and --resume is no; give another one")
        old = json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]
        old.pop("pictures_sha256", None)  # of runs of before there was a record of the inputs
        refuse_other_settings(folder, old, settings)
    fingerprint.keep(folder, fingerprint.compare(folder, files, begun))
    write(folder / "config.yaml", dump(config).encode())
    told = json.dumps({"settings": settings, "facts": facts()}, indent=1) + "\n"
    write(folder / "run.json", told.encode())


def _check_views(config: Config, learnt: pool.Pool) -> None:
    if methods.needs(config.model.method) == "views" and len(set(learnt.views.tolist())) < 2:
        raise ValueError(
            f"model.method: {config.model.method} needs pictures from the ground and from above; "
            "there are only those of one view: add --data.synthetic, or use baseline"
        )


def _check_learns(method, plan: Plan, pixels: Pixels, device) -> None:
    """The start-up check, on pictures that nothing was done to."""
    plain = Augmentation(pad=0, flip=0, erase=0)
    batch = next(batches.stream(plan, pixels, plain, [0], device=device))
    before, after = check_learns(method.to(device), batch)
    say(f"start-up check: loss {before:.2f} -> {after:.2f} on {LEARNS} pictures")


# ---- validation ------------------------------------------------------------------------------


def _validation(config: Config, pixels: Pixels | None, best: float, accelerator):
    """`validate(step, model)` for `training.loop.learn`, which keeps the best model so far.

    Everybody is looked for among everybody: across views where there are two, else across cameras.

    Args:
        pixels: Of the validation.
        best: mAP of the best model that is saved already.
    Returns: None if there is nobody to find.
    """
    samples = pixels.samples if pixels else []
    camera = "view" if len({sample.view for sample in samples}) > 1 else "camid"
    if not Protocol(name="", query=samples, gallery=samples, camera=camera).valid_queries:
        return None
    pids = [sample.pid for sample in samples]
    cameras = [getattr(sample, camera) for sample in samples]

    def validate(step: int, model) -> dict:
        nonlocal best
        rows = features(model, pixels)
        if not np.isfinite(rows).all():
            raise loop.DivergedError(
                f"after step {step} the features of the validation are not finite; lower "
                f"--optim.rate ({config.optim.rate:g}) in a new --output"
            )
        found = metrics.rank_metrics(
            metrics.cosine_distances(rows, rows), pids, pids, cameras, cameras
        )
        if found.mAP > best:
            best = found.mAP
            if accelerator.is_main_process:
                _save(config, model, step)
        return {"val_mAP": found.mAP, "val_rank1": float(found.cmc[0])}

    return validate


def _best(config: Config, rows: list[dict], method, accelerator) -> float:
    """MAP of the best model so far; if it is not there any more, it is made from its checkpoint.

    Args:
        rows: Of the log, up to the newest checkpoint.
        method: Its weights are changed, before those of the newest checkpoint are read.
    Returns: -1 if there is none.
    """
    rows = [row for row in rows if "val_mAP" in row]
    none, folder = {"step": 0, "val_mAP": -1.0}, config.output / "model"
    best = max(rows, key=lambda row: row["val_mAP"], default=none)
    there = saved.is_ours(folder)
    told = json.loads((folder / saved.CONFIG).read_text(encoding="utf-8")) if there else {}
    accelerator.wait_for_everyone()  # all have looked before one writes
    if there or not rows:  # that of a step after the newest checkpoint will be made again
        step = told.get("about", {}).get("step")
        return next((row["val_mAP"] for row in rows if row["step"] == step), best["val_mAP"])
    folders = {row["step"]: config.output / f"{checkpoints.NAME}{row['step']}" for row in rows}
    left = [row for row in rows if folders[row["step"]].is_dir()]
    found = max(left, key=lambda row: row["val_mAP"], default=none)
    if found is none:
        return none["val_mAP"]  # the best one from here on is kept
    if accelerator.is_main_process:
        if found is not best:
            say(
                f"model/ is gone, and so is the checkpoint of step {best['step']}, which was the "
                f"best; that of step {found['step']} takes its place"
            )
        tensors, _ = checkpoints.read_checkpoint(folders[found["step"]])
        loop.load_trained(method, tensors.get("average", tensors["model"]))
        _save(config, method, found["step"])
    return found["val_mAP"]


def _save(config: Config, model, step: int) -> None:
    about = {"data": config.data.name, "step": step, "steps": config.steps}
    saved.save(model, config.output / "model", about)


def features(model, pixels: Pixels) -> np.ndarray:
    """Features of all pictures, as they are.  float32 [N, D]"""
    import torch

    device, found = next(model.parameters()).device, []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(pixels.samples), CHUNK):
            images = pixels.get(range(start, min(start + CHUNK, len(pixels.samples))))
            images = images.to(device).permute(0, 3, 1, 2).contiguous().float() / 255
            found.append(model.features(images).float().cpu())
    return torch.cat(found).numpy()


# ---- the run ---------------------------------------------------------------------------------


def _train(
    config: Config, method, plan: Plan, pixels: Pixels, seen: Pixels | None, accelerator
) -> None:
    folder, began = config.output, time.perf_counter()
    log = Log(folder / "log.jsonl", checkpoints.steps_done(folder), config.every, config.steps)
    best = _best(config, log.rows, method, accelerator)
    validation = _validation(config, seen, best, accelerator)
    if config.trackers:
        accelerator.init_trackers("viewsynth", {k: str(v) for k, v in to_dict(config).items()})
    task = ReIDTask(plan, pixels, config.augment, config.optim)
    with progress(log, accelerator) as tell:
        model = loop.learn(method, task, Run(folder, accelerator, config.every, tell, validation))
    if accelerator.is_main_process:
        if validation is None:
            _save(config, model, config.steps)
        seconds, made = time.perf_counter() - began, config.steps - log.done
        speed = made * config.people * config.pictures / seconds
        say(f"{made} steps in {seconds:.0f} s, {speed:.0f} images/s; look at {folder / 'model'}")
    accelerator.wait_for_everyone()
    accelerator.end_training()


def say(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(text + "\n")
