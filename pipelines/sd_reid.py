# SPDX-License-Identifier: Apache-2.0
"""Train and compare both stages of SD-ReID on one or more data arms.

python pipelines/sd_reid.py configs/sd_reid/small.yaml [--options]

Runs `world`, `generate`, per data arm and seed `train`, `train-sd-reid` and `evaluate`, `compare`:
<output>/compare/table.md. Give your data with --train.data.name and .root. Rerun to resume.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from chains import follow, follow_all

from viewsynth import config
from viewsynth.commands import evaluate, generate, piped, train, train_sd_reid, world


@dataclass(frozen=True)
class Config:
    """Arms, each "name: description: options", seeds, and the options that all of them share."""

    world: world.Config = field(default_factory=world.Config)
    generate: generate.Config = field(default_factory=generate.Config)
    train: train.Config = field(default_factory=train.Config)
    second: train_sd_reid.Config = field(default_factory=train_sd_reid.Config)
    evaluate: evaluate.Config = field(default_factory=evaluate.Config)
    data: tuple[str, ...] = ("real: real pictures: ",)
    """Data arms, with options of train; {made} is the run of generate."""
    first: tuple[str, ...] = ("stage1: SD-ReID's first stage: --model.method sd_reid",)
    """First stages, with options of train; second stages use the first of them."""
    stages: tuple[str, ...] = ("unet: a small UNet: --generator.denoiser small",)
    """Second stages, with options of train-sd-reid."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each stage is trained once per seed."""
    jobs: int = 1
    """Chains of one data arm and seed at the same time; they share the CPU cores."""
    output: Path = Path("outputs/sd_reid")
    """Folder of all outputs."""

    def __post_init__(self):
        config.check_range("jobs", self.jobs, 1, 1024)
        arms = (*self.data, *self.first, *self.stages)
        if not (self.seeds and self.data and self.first and all(a.count(": ") > 1 for a in arms)):
            raise ValueError('give seeds, data and first; arms as "name: description: options"')
        if self.train.data.name != "folder" and self.train.data.root is None:
            raise ValueError(f"give --train.data.root, the folder of {self.train.data.name}")


def plan(asked: Config) -> tuple[list, list, list]:
    """Commands: first those to run in sequence, then chains to run in parallel, then the last."""
    out, own, data = asked.output.as_posix(), config.flags, asked.train.data
    name, root = (data.name, f"{data.root}") if data.root else ("world", f"{out}/world")
    real, made = ["--data.name", name, "--data.root", root, *data.given()], f"{out}/made"
    before = [] if data.root else [["world", *own(asked.world), "--output", root]]
    if any("{made}" in arm for arm in asked.data):
        before.append(["generate", *own(asked.generate), *real, "--output", made])
    groups = (asked.data, asked.first, asked.stages)
    kinds, first, second = ([arm.split(": ", 2) for arm in arms] for arms in groups)
    words, chains = {}, []

    def test(arm: str, run: str, text: str, *options: str) -> list[str]:
        words[name := f"{arm}-{run.partition('/')[0]}"] = text
        line = ["evaluate", *own(asked.evaluate), *real, *options, "--method", name]
        return [*line, "--output", f"{out}/evaluate/{arm}-{run}"]

    for seed, (kind, on, options) in ((str(s), kind) for s in asked.seeds for kind in kinds):
        run, chain = f"{kind}/seed{seed}", []
        same = ["--cache", f"{out}/cache", "--seed", seed, "--output"]
        folders = {arm: f"{out}/train/{arm}-{run}" for arm, _, _ in (*first, *second)}
        for arm, about, more in first:
            fit = [*more.split(), *(word.format(made=made) for word in options.split()), *same]
            chain.append(["train", *own(asked.train), *real, *fit, folders[arm]])
            chain.append(test(arm, run, f"{about}, {on}", "--model.path", f"{folders[arm]}/model"))
        for arm, about, more in second:
            fit = [*own(asked.second), *more.split(), *same, folders[arm]]
            chain.append(["train-sd-reid", folders[first[0][0]], *fit])
            model = ["--model.path", f"{folders[arm]}/model"]
            chain.append(test(arm, run, f"{about}, fused, {on}", *model))
            file = ["--features", f"{out}/evaluate/{arm}-{run}/features.safetensors", "--part"]
            text = f"{about}, generated alone, {on}"
            chain.append(test(f"{arm}-alone", run, text, *file, "generated"))
        chains.append(chain)
    last = ["compare", f"{out}/evaluate", "--floor", next(iter(words)), "--ceiling", ""]
    last += ["--output", f"{out}/compare", "--arms", *words, "--words"]
    return before, chains, [*last, *(f"{arm}={text}" for arm, text in words.items())]


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns the exit status of the first command that fails, else 0."""
    first, chains, last = plan(asked := config.parse(Config, argv, "sd_reid.py"))
    return follow(first) or follow_all(chains, asked.jobs) or follow([last])


if __name__ == "__main__":
    with piped():
        sys.exit(main())
