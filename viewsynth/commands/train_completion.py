# SPDX-License-Identifier: Apache-2.0
"""Train the network that predicts what a crop does not show (generate has one of its own).

viewsynth train-completion --people 1000

Renders people of a world of its own, fits bodies to their ground images as `generate` does, and
learns thickness, colours and kinds of the unseen side from the truth. The output folder gets
`examples/`, `training/` (checkpoints, `log.jsonl`), `grids/`, `config.yaml`, `run.json` and
finally `completion.safetensors`. Run the same command again to continue after a stop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from viewsynth.completion.options import CompletionOptimization
from viewsynth.config import check_range, dump, to_dict
from viewsynth.manifest import refuse_other_settings
from viewsynth.runtime.files import claim_folder, clean, write
from viewsynth.runtime.provenance import facts
from viewsynth.runtime.workers import cores, make_accelerator

if TYPE_CHECKING:
    from viewsynth.completion.stored import Stored

OURS = {
    *("examples", "training", "grids", "completion.safetensors", "config.yaml", "run.json"),
    *("tracker", ".gitkeep"),
}
# Options that do not affect the weights.
FREE = ("output", "resume", "every", "trackers", "device", "workers")


@dataclass(frozen=True)
class Config:
    """People of a world in, a completion network out."""

    people: int = 1000
    """Number of people."""
    images: int = 4
    """Ground images of each person, at most as many as cameras see a person."""
    world_seed: int = 230_000
    """Seed of the world; nobody of this seed may be reported on."""
    validation: float = 0.05
    """Share of the people held out for validation; 0 = none."""
    optim: CompletionOptimization = field(default_factory=CompletionOptimization)
    every: int = 1000
    """Steps between checkpoints, which are also those between validations."""
    resume: Literal["latest", "no"] = "latest"
    """Continue from the newest whole checkpoint (latest), or refuse a folder that has one (no)."""
    trackers: tuple[str, ...] = ()
    """Trackers of accelerate: tensorboard, wandb, trackio, ..."""
    workers: int = 0
    """Worker processes that make the examples; 0 = one per core."""
    output: Path = Path("outputs/train_completion")
    """Folder of the run."""
    seed: int = 0
    """Seed of weights, order and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the network; auto = cuda if there is one."""

    def __post_init__(self):
        check_range("people", self.people, 1, 99_999)
        check_range("images", self.images, 1, 8)
        check_range("world_seed", self.world_seed, 0, 2**63 - 1)
        check_range("validation", self.validation, 0, 0.9)
        check_range("every", self.every, 1, 10**8)
        check_range("workers", self.workers, 0, 1024)
        check_range("seed", self.seed, 0, 2**63 - 1)


def run(config: Config) -> int:
    """Train, or continue a stopped run; returns 0."""
    from viewsynth.completion import making, training
    from viewsynth.completion.stored import Stored
    from viewsynth.reconstruct import complete

    accelerator = make_accelerator(config.device, config.trackers, config.output)
    first, folder = accelerator.is_main_process, config.output / "examples"
    with accelerator.main_process_first():
        if first:
            claim_folder(config.output, OURS, "run.json")
            clean(config.output)
            workers = config.workers or cores()
            making.make(folder, config.people, config.world_seed, config.images, workers)
        examples = Stored.open(folder)
    parts = training.split(examples, config.validation, config.seed)
    if first:
        _freeze(config, examples, accelerator)
    if config.trackers:
        accelerator.init_trackers("viewsynth", {k: str(v) for k, v in to_dict(config).items()})
    accelerator.wait_for_everyone()
    model = training.train(
        examples,
        parts,
        config.optim,
        config.seed,
        config.output / "training",
        config.every,
        accelerator,
        _preview(config, examples, parts),
    )
    if first:
        people = {examples.rows[int(row)]["pid"] for row in parts.trained}
        about = {
            "examples": f"{len(parts.trained)} ground images of {len(people)} people of the "
            f"world of seed {config.world_seed}",
            "fingerprint": examples.fingerprint,
            "steps": f"{config.optim.steps} steps of {config.optim.batch} examples",
        }
        complete.save(model, config.output / "completion.safetensors", about)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return 0


def _freeze(config: Config, examples: Stored, accelerator) -> None:
    """Record what decides the weights, or refuse to resume with something else."""
    folder = config.output
    settings = {key: value for key, value in to_dict(config).items() if key not in FREE}
    settings["optim"]["parts"] = config.optim.parts or accelerator.num_processes
    settings |= {"examples": examples.fingerprint, "precision": accelerator.mixed_precision}
    if any((folder / "training").glob("checkpoint-*")):
        if config.resume == "no":
            raise ValueError(f"output: {folder} holds a run, and --resume is no; give another one")
        old = json.loads((folder / "run.json").read_text(encoding="utf-8"))["settings"]
        refuse_other_settings(folder, old, settings)
    write(folder / "config.yaml", dump(config).encode())
    record = json.dumps({"settings": settings, "facts": facts()}, indent=1) + "\n"
    write(folder / "run.json", record.encode())


def _preview(config: Config, examples: Stored, parts):
    """The function that writes a grid of images at every validation, of the same examples."""
    from viewsynth.report import completion

    rows = completion.choose(
        examples, parts.held if len(parts.held) else parts.trained, config.seed
    )

    def show(step: int, model) -> None:
        image = completion.grid(model, examples, rows)
        write(config.output / "grids" / f"{step:06d}.png", image)

    return show


if __name__ == "__main__":
    from viewsynth import commands

    commands.main("train_completion")
