# SPDX-License-Identifier: Apache-2.0
"""Train the view diffusion model on pairs of ground and aerial images.

viewsynth train-diffusion configs/diffusion/small.yaml --data.world outputs/world

Pairs come from a rendered world (exact by the pixel), from any data set with ground and aerial
images of the same people, or both. A small model first gets an autoencoder of its own; Stable
Diffusion is given by a folder or hub id. The output folder gets `pairs/`, a folder per stage with
its checkpoints and `log.jsonl`, `grids/`, `config.yaml`, `run.json`, `inputs.jsonl`, and finally
`pipeline/`, which `generate --refine.engine` takes; a LoRA is also saved to `lora/`, the model
before distillation to `teacher/`. Run the same command again to continue after a stop. With several
processes: `accelerate launch -m viewsynth.commands.train_diffusion ...`
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

OURS = {
    *("pairs", "autoencoder", "training", "distillation", "grids", "lora", "teacher", "pipeline"),
    *("config.yaml", "run.json", fingerprint.RECORD, "tracker", ".gitkeep"),
}
# Options that do not affect the weights.
FREE = ("output", "resume", "every", "trackers", "device", "workers", "commercial")
SIDE = 16  # image sides are multiples: the small autoencoder and UNet halve them four times


@dataclass(frozen=True)
class Data(Reading, Source):
    """Training data."""

    world: Path | None = None
    """Folder of viewsynth world, whose training people give exact pairs."""
    people: int | None = None
    """Number of these people; None = all."""
    root: Path | None = None
    """Folder of a real data set, whose training people give pairs of the same identity."""
    licence: str = "unknown"
    """Licence of its images, an SPDX identifier."""
    pairs: tuple[Path, ...] = ()
    """Folders of pairs of earlier runs, in addition or instead."""
    mirror: bool = True
    """Also train on the mirror image of every pair."""
    validation: float = 0.05
    """Share of the people held out for validation; 0 = none."""

    def __post_init__(self):
        within("data.people", self.people, 1, 10**8)
        within("data.validation", self.validation, 0, 0.9)


@dataclass(frozen=True)
class Model:
    """The model to train."""

    base: str = "small"
    """small (from scratch), or folder or hub id of Stable Diffusion 1.5, 2.1 or of a pipeline."""
    licence: str = "unknown"
    """Licence of the base's weights, an SPDX identifier."""
    identity: Path | None = None
    """Model of viewsynth train as identity encoder; None = the one of the base."""
    identity_licence: str = "unknown"
    """Licence of its weights, which depends on its training images."""
    size: tuple[int, int] = (128, 64)
    """Height and width of the images, pixels."""
    rank: int = 0
    """Rank of a LoRA of the UNet; 0 = the whole UNet is trained."""
    checkpointing: bool = False
    """Gradient checkpointing: less memory, a third more time."""

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
    """Pairs of images in, a pipeline that generates aerial views out."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    autoencoder: AutoencoderOptimization = field(default_factory=AutoencoderOptimization)
    optim: DiffusionOptimization = field(default_factory=DiffusionOptimization)
    distil: DistillationOptimization = field(default_factory=DistillationOptimization)
    every: int = 1000
    """Steps between checkpoints, which are also those between validations."""
    resume: Literal["latest", "no"] = "latest"
    """Continue from the newest whole checkpoint (latest), or refuse a folder that has one (no)."""
    trackers: tuple[str, ...] = ()
    """Trackers of accelerate: tensorboard, wandb, trackio, ..."""
    workers: int = 0
    """Worker processes that make the pairs; 0 = one per core."""
    commercial: bool = False
    """Fail unless all data and models allow commercial use."""
    output: Path = Path("outputs/train_diffusion")
    """Folder of the run."""
    seed: int = 0
    """Seed of all random draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto = cuda if there is one."""

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
    pipeline = _base(config)  # before the pairs, so that a wrong one fails at once
    with accelerator.main_process_first():
        if first:
            claim(config.output, OURS, "run.json")
            clean(config.output)
            _make_pairs(config)
        pairs = Pairs.open(*config.data.pairs, *_pairs(config))
    if pairs.size != pipeline.size:
        raise ValueError(
            f"data.pairs must have the model's size of {pipeline.size} pixels, got {pairs.size}"
        )
    if first:
        _freeze(config, pairs, accelerator)
    if config.trackers:
        accelerator.init_trackers("viewsynth", {k: str(v) for k, v in to_dict(config).items()})
    accelerator.wait_for_everyone()
    preview = _preview(config, pairs, accelerator)
    stages.train(config, pipeline, pairs, licences, accelerator, preview)
    accelerator.end_training()
    return 0


# ---- options -------------------------------------------------------------------------------------


def check(config: Config) -> dict[str, str]:
    """Check the options before anything is loaded.

    Args:
        config: The options.

    Returns:
        Part -> licence.

    Raises:
        ValueError: if options are missing or do not fit together.
        FileNotFoundError: if a folder does not exist.
    """
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
        hub.folder_of(model.base, loading.files())  # now, not after the pairs are made
        licences["base"] = model.licence
    if model.identity is not None:
        if not (model.identity / "config.json").is_file():
            raise FileNotFoundError(
                f"model.identity: there is no config.json in {model.identity}; give the folder "
                "model/ of a run of viewsynth train"
            )
        licences["identity"] = model.identity_licence
    if config.commercial:
        require_commercial(licences)
    return licences


def _freeze(config: Config, pairs: Pairs, accelerator) -> None:
    """Record what decides the weights, or refuse to resume with something else."""
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
            if stage not in begun:  # its options may still change
                old.pop(group), new.pop(group)
        refuse_other_settings(folder, old, new)
    fingerprint.keep(folder, known)
    write(folder / "config.yaml", dump(config).encode())
    record = json.dumps({"settings": settings, "facts": facts()}, indent=1) + "\n"
    write(folder / "run.json", record.encode())


def _inputs(config: Config) -> dict[str, tuple[Path, dict]]:
    """The files that the run reads, by name: pairs of earlier runs, identity encoder and base.

    The source images of pairs are recorded in the folder of the pairs.
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
    """The folders of pairs that the run makes -> their source."""
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
            raise ValueError("model.identity must be None: the base has an identity encoder")
        if type(made.scheduler).__name__ == "LCMScheduler":
            raise ValueError(f"model.base: {model.base} is distilled; give teacher/ next to it")
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
