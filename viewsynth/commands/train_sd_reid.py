# SPDX-License-Identifier: Apache-2.0
"""Train the second stage of SD-ReID: a diffusion that generates features of the missing views.

viewsynth train --model.method sd_reid --model.backbone ... --data.root DIR --output outputs/stage1
viewsynth train-sd-reid outputs/stage1

The training data is that of the first stage's run. The features of its images are computed once and
stored in --cache; the generator is trained on them alone. The output folder gets `model/` (what
`evaluate --model.path` takes: the identity feature and one feature per view), `training/`
(checkpoints, `log.jsonl`), `cost.json`, `config.yaml`, `run.json` and `inputs.jsonl` (every image
with its SHA-256). Run the same command again to continue after a stop.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from viewsynth import config
from viewsynth.commands import train
from viewsynth.config import check_range, dump, to_dict
from viewsynth.manifest import refuse_other_settings
from viewsynth.reid import pool
from viewsynth.reid.sd_reid.options import GeneratorOptimization, GeneratorShape
from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import claim_folder, clean, write
from viewsynth.runtime.provenance import facts
from viewsynth.runtime.workers import make_accelerator

if TYPE_CHECKING:
    from viewsynth.reid.sd_reid import cache, training
    from viewsynth.reid.sd_reid.model import Generator

OURS = {
    *("model", "training", "cost.json", "config.yaml", "run.json"),
    *(fingerprint.RECORD, "tracker", ".gitkeep"),
}
# Options that do not affect the weights. The sampler is used by the finished model only; the first
# stage is identified by its features, not by its folder.
FREE = ("stage1", "output", "resume", "every", "trackers", "device", "cache", "sampler")


@dataclass(frozen=True)
class Sampler:
    """Sampling of the finished model."""

    steps: int = 5
    """Sampling steps."""
    guidance: float = 2.0
    """Classifier-free guidance; 1 = none, in half the time."""

    def __post_init__(self):
        check_range("sampler.steps", self.steps, 1, 1000)
        check_range("sampler.guidance", self.guidance, 0, 100)


@dataclass(frozen=True)
class Config:
    """A trained first stage in, a model that completes the missing views out."""

    stage1: tyro.conf.Positional[Path] = Path("outputs/train")
    """Output folder of `viewsynth train --model.method sd_reid`."""
    generator: GeneratorShape = field(default_factory=GeneratorShape)
    optim: GeneratorOptimization = field(default_factory=GeneratorOptimization)
    sampler: Sampler = field(default_factory=Sampler)
    every: int = 2000
    """Steps between checkpoints, which are also those between validations."""
    cache: Path = Path("outputs/cache")
    """Folder of the cached features and resized images."""
    resume: Literal["latest", "no"] = "latest"
    """Continue from the newest whole checkpoint (latest), or refuse a folder that has one (no)."""
    trackers: tuple[str, ...] = ()
    """Trackers of accelerate: tensorboard, wandb, trackio, ..."""
    output: Path = Path("outputs/train_sd_reid")
    """Folder of the run."""
    seed: int = 0
    """Seed of all random draws."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the model; auto = cuda if there is one."""

    def __post_init__(self):
        check_range("every", self.every, 1, 10**8)
        check_range("seed", self.seed, 0, 2**63 - 1)
        check_range("sampler.steps", self.sampler.steps, 1, self.generator.times - 1)


def run(asked: Config) -> int:
    """Train, or continue a stopped run; returns 0."""
    from viewsynth.reid import saved
    from viewsynth.reid.sd_reid import training

    first_stage = _first_stage(asked.stage1)
    person, _ = saved.load(asked.stage1 / "model")
    accelerator = make_accelerator(asked.device, asked.trackers, asked.output)
    first = accelerator.is_main_process
    if not first:
        logging.getLogger("viewsynth").setLevel(logging.ERROR)  # each warning once
    train_pool, validated, _ = train.pools(first_stage)
    generator = _generator(asked, person, len(train_pool.view_names))
    with accelerator.main_process_first():
        if first:
            claim_folder(asked.output, OURS, "run.json")
            clean(asked.output)
        pixels = train.open_pixels(train_pool.samples, first_stage, first)
        held = validated and pool.build(
            validated, by=train_pool.by, view_names=train_pool.view_names
        )
        others = held.samples if held else []
        seen = train.open_pixels(others, first_stage, first)
        files = pool.inputs(train_pool, others, pixels, seen)
        train_pool = train_pool.keep(pixels.usable)
        plan = _plan(asked, first_stage, train_pool)
        if first:
            _freeze(
                asked, first_stage, person, train_pool, generator.denoiser.base, files, accelerator
            )
        cached = _cached(asked, person, train_pool, pixels, accelerator)
        checked = seen and _cached(asked, person, held.keep(seen.usable), seen, accelerator)
    training.prepare(generator, cached, person.bank)
    generator.to(accelerator.device)
    if asked.trackers:
        accelerator.init_trackers("viewsynth", {k: str(v) for k, v in to_dict(asked).items()})
    accelerator.wait_for_everyone()
    generator = _train(asked, generator, cached, checked, plan, accelerator)
    if first:
        _finish(asked, first_stage, person, generator, accelerator.device)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


# ---- before training -----------------------------------------------------------------------------


def _first_stage(folder: Path) -> train.Config:
    """Read the configuration of the first stage's run.

    Raises:
        FileNotFoundError: if the folder holds no finished run.
        ValueError: if the run is of another method.
    """
    from viewsynth.reid import saved

    path = folder / "config.yaml"
    if not path.is_file() or not saved.is_ours(folder / "model"):
        raise FileNotFoundError(
            f"{folder} is no finished run of viewsynth train: expected config.yaml and model/ in "
            "it; give the --output of one"
        )
    found = config.parse(train.Config, [str(path)], "train-sd-reid")
    if found.model.method != "sd_reid":
        raise ValueError(
            f"{folder} was trained with the method {found.model.method}; the second stage needs a "
            "first stage with --model.method sd_reid"
        )
    return found


def _generator(asked: Config, person, views: int) -> Generator:
    """A new generator for the first stage; refuses data with another number of views."""
    from viewsynth.reid.backbones import seeded
    from viewsynth.reid.sd_reid.model import Generator

    if views != len(person.bank):
        raise ValueError(
            f"the data of {asked.stage1} has {views} views now, its model has {len(person.bank)}; "
            "restore the data, or train the first stage again"
        )
    with seeded(asked.seed, "generator"):
        return Generator(person.backbone.width, len(person.backbone.blocks), views, asked.generator)


def _cached(asked: Config, person, chosen: pool.Pool, pixels, accelerator) -> cache.Cached:
    """The features of a pool, computed by the main process."""
    from viewsynth.reid.sd_reid import cache
    from viewsynth.reid.sd_reid.mode import MODES

    return cache.load_or_compute(
        asked.cache,
        person,
        chosen,
        pixels,
        MODES[asked.generator.mode].dropped_paths,
        asked.seed,
        accelerator.device,
        accelerator.is_main_process,
    )


def _plan(asked: Config, first_stage: train.Config, train_pool: pool.Pool) -> training.Plan:
    """Batches as in the first stage; raises ValueError if the options or the pool do not fit."""
    from viewsynth.reid.sd_reid import training

    each = asked.optim.pictures + first_stage.data.added
    if asked.optim.batch % each:
        raise ValueError(
            f"optim.batch must be a multiple of {each}, the images of a person: optim.pictures "
            f"({asked.optim.pictures}) plus data.added of the first stage "
            f"({first_stage.data.added}); got {asked.optim.batch}"
        )
    people = asked.optim.batch // each
    wanted = replace(
        first_stage,
        people=people,
        pictures=asked.optim.pictures,
        steps=max(asked.optim.steps, 1),
        seed=asked.seed,
    )
    try:
        return training.Plan(asked.optim, train.plan_of(wanted, train_pool))
    except ValueError as error:
        raise ValueError(
            f"optim.batch {asked.optim.batch} with optim.pictures {asked.optim.pictures} of each "
            f"person: {error}"
        ) from error


def _freeze(
    asked: Config,
    first_stage: train.Config,
    person,
    train_pool: pool.Pool,
    base: str,
    files: dict,
    accelerator,
) -> None:
    """Record what decides the weights, or refuse to resume with something else."""
    from viewsynth.reid.sd_reid import cache
    from viewsynth.reid.sd_reid.mode import MODES

    folder, values = asked.output, to_dict(asked)
    begun = any((folder / "training").glob("checkpoint-*"))
    if begun and asked.resume == "no":
        raise ValueError(f"output: {folder} holds a run, and --resume is no; give another one")
    known = fingerprint.compare(folder, files, begun)  # first: the features depend on them
    settings = {key: value for key, value in values.items() if key not in FREE}
    settings["optim"]["parts"] = asked.optim.parts or accelerator.num_processes
    mark = cache.mark(person, train_pool, MODES[asked.generator.mode].dropped_paths, asked.seed)
    settings |= {"features": mark, "precision": accelerator.mixed_precision, "base": base}
    if begun:
        old = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        refuse_other_settings(folder, old["settings"], settings)
    fingerprint.keep(folder, known)
    write(folder / "config.yaml", dump(asked).encode())
    record = {"settings": settings, "stage1": to_dict(first_stage), "facts": facts()}
    write(folder / "run.json", (json.dumps(record, indent=1) + "\n").encode())


# ---- training ------------------------------------------------------------------------------------


def _train(asked: Config, generator, cached, checked, plan, accelerator) -> Generator:
    """Train the generator; returns the one to use, with averaged weights."""
    from viewsynth.reid.sd_reid import training
    from viewsynth.training import loop, progress, rows

    folder, device = asked.output / "training", accelerator.device
    losses = training.Denoising(generator, cached, asked.optim, device)

    def validate(step: int, model: Generator) -> dict:
        with accelerator.autocast():
            found = training.check(model, checked, asked.optim, asked.seed, device)
        return {"val_loss": found}

    log = progress.open_log(folder, asked.every, asked.optim.steps)
    with progress.progress(log, accelerator) as report:
        run = loop.Run(folder, accelerator, asked.every, report, checked and validate)
        return loop.learn(generator, rows.RowTask(plan, losses), run)


def _finish(asked: Config, first_stage: train.Config, person, generator, device) -> None:
    """Write the model, and measure its cost."""
    from viewsynth.reid.sd_reid import cost, fused

    sampler = asked.sampler
    model = fused.Fused(person, generator, sampler.steps, sampler.guidance).to(device).eval()
    about = {"data": first_stage.data.name, "steps": asked.optim.steps}
    fused.save(model, asked.output / "model", about)
    costs = cost.report(model)
    write(asked.output / "cost.json", (json.dumps(costs, indent=1) + "\n").encode())
    one, both = costs["encoder"], costs["fused"]
    sys.stderr.write(
        f"an image takes {both['gflops']:.2f} GFLOPs and {both['milliseconds']:.1f} ms, by the "
        f"encoder alone {one['gflops']:.2f} and {one['milliseconds']:.1f}; "
        f"look at {asked.output / 'model'}\n"
    )


if __name__ == "__main__":
    from viewsynth import commands

    commands.main("train_sd_reid")
