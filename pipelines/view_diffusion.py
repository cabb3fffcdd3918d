# SPDX-License-Identifier: Apache-2.0
"""Train a view-aware diffusion model, repair rendered views with it, and measure the result.

python pipelines/view_diffusion.py [--preset configs/diffusion/sd15.yaml] [--options]

Runs `world`, `train-diffusion` on its training people, `generate` with the model, and `fidelity` on
the test people, which writes <output>/fidelity/table.md. Rerun to resume.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from chains import follow

from viewsynth import config
from viewsynth.commands import generate, piped, train_diffusion, world


@dataclass(frozen=True)
class Config:
    """The options of the commands; those of `train` override the preset."""

    preset: Path = Path("configs/diffusion/small.yaml")
    """Preset of train-diffusion."""
    world: world.Config = field(default_factory=world.Config)
    train: train_diffusion.Config = field(default_factory=train_diffusion.Config)
    generate: generate.Config = field(default_factory=generate.Config)
    people: int = 200
    """Number of test people that are measured."""
    output: Path = Path("outputs/view_diffusion")
    """Folder of all outputs."""

    def __post_init__(self):
        config.check_range("people", self.people, 1, 1_000_000)


def plan(asked: Config) -> list[list[str]]:
    """Commands to run in sequence."""
    out, own = asked.output.as_posix(), config.flags
    data, model = f"{out}/world", f"{out}/diffusion/pipeline"
    train = [asked.preset.as_posix(), *own(asked.train), "--data.world", data]
    engine = ["--refine.engine", model]
    made = ["--data.name", "world", "--data.root", data, "--output", f"{out}/made"]
    return [
        ["world", *own(asked.world), "--output", data],
        ["train-diffusion", *train, "--output", f"{out}/diffusion"],
        ["generate", *own(asked.generate), *made, *engine],
        ["fidelity", data, "--people", f"{asked.people}", *engine, "--output", f"{out}/fidelity"],
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns the exit status of the first command that fails, else 0."""
    return follow(plan(config.parse(Config, argv, "view_diffusion.py")))


if __name__ == "__main__":
    with piped():
        sys.exit(main())
