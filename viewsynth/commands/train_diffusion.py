# SPDX-License-Identifier: Apache-2.0
"""Train the view-aware diffusion on pairs of ground and aerial pictures.

viewsynth train-diffusion configs/diffusion/small.yaml --data.world outputs/world

Pairs come from a world of ours (exact by the pixel), from any data set of people seen from the
ground and from above, or both. A small model gets an autoencoder of its own first; Stable Diffusion
is given by a folder or hub id. The output folder gets `pairs/`, for each stage a folder with its
checkpoints and `log.jsonl`, `grids/`, `config.yaml`, `run.json`, `inputs.jsonl`, and last
`pipeline/`, which `generate --refine.engine` takes; after a LoRA also `lora/`, after a distillation
`teacher/`. Run the same command again to go on after a stop. Several processes:
`accelerate launch -m viewsynth.commands.train_diffusion ...`
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viewsynth import data
from viewsynth.commands import world
from viewsynth.config import dump, to_dict, within
from viewsynth.data import Reading, Source, reading
from viewsynth.diffusion.options import (
    AutoencoderOptimization,
    DiffusionOptimization,
    DistillationOptimization,
)
from viewsynth.manifest import refuse_other_settings
from viewsynth.runtime import fingerprint, hub
from viewsynth.runtime.files import claim, clean, write
from viewsynth.runtime.licences import require_commercial
from viewsynth.runtime.provenance import facts
from viewsynth.runtime.workers import cores, launched

if TYPE_CHECKING:
    from viewsynth.diffusion import stages
    from viewsynth.diffusion.pairs.stored import Pairs
    from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

OURS = set(
    [
        "pairs",
        "autoencoder",
        "training",
        "distillation",
        "grids",
        "lora",
        "teacher",
        "pipeline",
        "config.yaml",
        "run.json",
        "tracker",
        ".gitkeep",
    ]
) | {fingerprint.RECORD}
FREE = ("output", "resume", "every", "trackers", "device", "workers", "commercial")  # no weight
SIDE = 16  # sides are multiples: autoencoder and UNet halve those of the small model four times


@dataclass(frozen=True)
class Data(Reading, Source):
    """What is learnt from."""

    world: Path | None = None
    """Folder of `viewsynth world`, whose training people give exact pairs."""
    people: int | None = None
    """How many of them; None = all."""
    root: Path | None = None
    """Where real data lie; their training people give pairs that are alike in identity."""
    licence: str = "unknown"
    """Of those pictures, an SPDX identifier if you know it."""
    pairs: tuple[Path, ...] = ()
    """Folders of pairs of earlier runs, beside those or instead."""
    mirror: bool = True
    """Learn from the mirror image of every pair, too."""
    validation: float = 0.05
    """Part of the people kept for validation; 0 = nobody."""

    def __post_init__(self):
        within("data.people", self.people, 1, 10**8)
        within("data.validation", self.validation, 0, 0.9)


@dataclass(frozen=True)
class Model:
    """What learns."""

    base: str = "small"
    """"small": from scratch, with an autoencoder of its own; or a folder or hub id with weights of
    the class of Stable Diffusion 1.5 or 2.1, or a pipeline that this command made."""
    licence: str = "unknown"
    """Of those weights, an SPDX identifier if you know it."""
    identity: Path | None = None
    """Model that `viewsynth train` saved, whose features tell identity; None = the base's own."""
    identity_licence: str = "unknown"
    """Of its weights, which is that of the pictures it learnt from."""
    size: tuple[int, int] = (128, 64)
    """Height and width of the pictures, pixels."""
    rank: int = 0
    """Of a LoRA of the UNet; 0 = the whole UNet learns."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""

    def __post_init__(self):
        for side in self.size:
            within("model.size", side, SIDE, 2048, "pixels")
            if side % SIDE:
                raise ValueError(f"model.size must be multiples of {SIDE} pixels, got {side}")
        within("model.rank", self.rank, 0, 1024)
        if self.rank and self.base == "small":
            raise ValueError(
                "model.rank must be 0 with the base small, whose weights are random; got "
                f"{self.rank}. Give --model.base a folder or hub id to adapt"
            )


@dataclass(frozen=True)
class Config:
    """Pairs of pictures in, a pipeline that makes aerial views out."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    autoencoder: AutoencoderOptimization = field(default_factory=AutoencoderOptimization)
    optim: DiffusionOptimization = field(default_factory=DiffusionOptimization)
    distil: DistillationOptimization = field(default_factory=DistillationOptimization)
    every: int = 1000
    """Steps between two checkpoints, and between two validations."""
    resume: Literal["latest", "no"] = "latest"
    """Go on from the newest whole checkpoint, or refuse a folder that has one."""
    trackers: tuple[str, ...] = ()
    """tensorboard, wandb, trackio, ... as accelerate knows them."""
    workers: int = 0
    """Processes that make the pairs; 0 = all cores."""
    commercial: bool = False
    """Fail unless data and base allow commercial use."""
    output: Path = Path("outputs/train_diffusion")
    """Folder of the run."""
    seed: int = 0
    """Every random draw hangs on it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is."""

    def __post_init__(self):
        within("every", self.every, 1, 10**8)
        within("workers", self.workers, 0, 1024)
        within("seed", self.seed, 0, 2**63 - 1)


def run(config: Config) -> int:
    """Train, or continue a stopped run; returns 0."""
    from viewsynth.diffusion import stages
    from viewsynth.diffusion.pairs.stored import Pairs

    licences = check(config)
    accelerator = launched(config.device, config.trackers, config.output)
    first = accelerator.is_main_process
    if not first:
        logging.getLogger("viewsynth").setLevel(logging.ERROR)  # each warning once
    pipeline = _base(config)  # before the pairs: a wrong one is told at once
    with accelerator.main_process_first():
        if first:
            claim(config.output, OURS, "run.json")
            clean(config.output)
            _make_pairs(config)
        pairs = Pairs.open(*config.data.pairs, *_pairs(config))
    if pairs.size != pipeline.size:
        raise ValueError(f"data.pairs are {pairs.size} pixels, the model is {pipeline.size}")
    if first:
        _freeze(config, pairs, accelerator)
    if config.trackers:
        accelerator.init_trackers("viewsynth", {k: str(v) for k, v in to_dict(config).items()})
    accelerator.wait_for_everyone()
    preview = _preview(config, pairs, accelerator)
    stages.train(config, pipeline, pairs, licences, accelerator, preview)
    accelerator.end_training()
    return 0


# ---- what the user gave --------------------------------------------------------------------------


def check(config: Config) -> dict[str, str]:
    """Look at everything that was given before anything is loaded; returns the licences by part."""
    from viewsynth.diffusion import loading
    from viewsynth.diffusion.pairs.stored import Pairs

    data, model = config.data, config.model
    if not (data.world or data.root or data.pairs):
        raise ValueError(
            "data: give --data.world (a folder of viewsynth world), --data.root (a data set), or "
            "--data.pairs (of an earlier run); got none"
        )
    licences = {}
    if data.world:
        licences["world"] = world.read(data.world)["licence"]
    if data.root:
        if not data.root.expanduser().is_dir():
            raise FileNotFoundError(f"data.root: there is no folder {data.root}")
        licences["data"] = data.licence
    for folder in data.pairs:
        Pairs.open(folder)
        licences["pairs"] = data.licence
    if model.base != "small":
        hub.folder_of(model.base, loading.files())  # now, not after the pairs were made
        licences["base"] = model.licence
    if model.identity is not None:
        if not (model.identity / "config.json").is_file():
            raise FileNotFoundError(
                f"model.identity: there is no config.json in {model.identity}; give the folder "
                "model/ of a viewsynth train"
            )
        licences["identity"] = model.identity_licence
    if config.commercial:
        require_commercial(licences)
    return licences


def _freeze(config: Config, pairs: Pairs, accelerator) -> None:
    """Write down what decides the weights, or refuse to go on with something else."""
    folder = config.output
    settings = {key: value for key, value in to_dict(config).items() if key not in FREE}
    settings["data"] = reading.told(settings["data"])
    for stage in (config.autoencoder, config.optim, config.distil):
        settings[stage.GROUP]["parts"] = stage.parts or accelerator.num_processes
    settings |= {"pairs": pairs.fingerprint, "precision": accelerator.mixed_precision}
    begun = {path.parent.name for path in folder.glob("*/checkpoint-*")}
    if begun and config.resume == "no":
        raise ValueError(f"output: {folder} holds a run, and --resume is no; give another one")
    known = fingerprint.compare(folder, _inputs(config), bool(begun))
    if begun:
        old = json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]
        new = dict(settings)
        for stage, group in (("training", "optim"), ("distillation", "distil")):
            if stage not in begun:  # may still be changed
                old.pop(group), new.pop(group)
        refuse_other_settings(folder, old, new)
    fingerprint.keep(folder, known)
    write(folder / "config.yaml", dump(config).encode())
    told = json.dumps({"settings": settings, "facts": facts()}, indent=1) + "\n"
    write(folder / "run.json", told.encode())


def _inputs(config: Config) -> dict[str, tuple[Path, dict]]:
    """The files that the run reads, by the names of their places as they were given.

    The pictures that pairs are made of are known where the pairs lie.
    """
    from viewsynth.diffusion import adapt, loading
    from viewsynth.diffusion.pairs.stored import INDEX, ROWS, SHARDS

    model, kinds = config.model, (INDEX, ROWS, f"{SHARDS}/*.safetensors")
    given = [(str(place), place, kinds) for place in config.data.pairs]
    if model.identity:
        given.append((str(model.identity), model.identity, adapt.VISION))
    if model.base != "small":
        files = loading.files()
        given.append((model.base, hub.folder_of(model.base, files), files))
    return {
        f"{name}/{path.relative_to(place).as_posix()}": (path, {})
        for name, place, kinds in given
        for kind in kinds
        for path in sorted(place.glob(kind))
    }


# ---- pairs and base ------------------------------------------------------------------------------


def _pairs(config: Config) -> dict[Path, str]:
    """The folders of pairs that the run makes, and of what."""
    wanted = {"world": config.data.world, "data": config.data.root}
    return {config.output / "pairs" / name: name for name, root in wanted.items() if root}


def _make_pairs(config: Config) -> None:
    from viewsynth.diffusion.pairs import making

    own = config.data
    for folder, name in _pairs(config).items():
        source = own.world if name == "world" else data.load(own.name, own.root, own)
        people = own.people if name == "world" else None
        making.make(
            source, folder, config.model.size, people, config.workers or cores(), config.seed
        )


def _base(config: Config) -> ViewDiffusionPipeline:
    """The pipeline to train."""
    from viewsynth.diffusion import adapt, loading
    from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

    model = config.model
    identity = model.identity and adapt.identity_encoder(model.identity)
    if model.base == "small":
        parts = adapt.small(config.seed, identity, model.size)
        return ViewDiffusionPipeline(**parts, licence="Apache-2.0")
    folder = hub.folder_of(model.base, loading.files())
    if (folder / "conditioner").is_dir():
        made = ViewDiffusionPipeline.from_pretrained(folder)
        if made.size != tuple(model.size):
            raise ValueError(f"model.size must be that of the base, {made.size}; got {model.size}")
        if model.identity:
            raise ValueError("model.identity must be absent: the base has learnt from its own")
        if type(made.scheduler).__name__ == "LCMScheduler":
            raise ValueError(f"model.base: {model.base} is distilled; give teacher/ beside it")
        return made
    return adapt.adapt(folder, identity, model.size, config.seed, model.licence)


def _preview(config: Config, pairs: Pairs, accelerator) -> stages.Preview:
    """The function that writes a grid of images at every validation, from the same noise."""
    from viewsynth.report import preview

    def show(stage: str, step: int, pipeline, rows: list[int], steps: int) -> None:
        shown = preview.choose(pairs, rows, config.seed)
        image = preview.grid(pipeline, pairs, shown, steps, config.seed)
        write(config.output / "grids" / f"{stage}-{step:06d}.png", image)
        preview.show(accelerator, f"{stage}/grid", image, step)

    return show


if __name__ == "__main__":
    from viewsynth import commands

    commands.main("train_diffusion")
