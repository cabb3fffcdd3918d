# SPDX-License-Identifier: Apache-2.0
"""SD-ReID, whole: first stages, second stages on their features, and what each of them finds.

python pipelines/sd_reid.py configs/sd_reid/small.yaml [--options]

`world` and `generate` where they are needed, `train`, `train-sd-reid` and `evaluate` per data arm
and seed; `compare` writes <output>/compare/table.md. --train.data.name and .root take your data.
Run again to go on.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmark import perform

from viewsynth import config
from viewsynth.commands import evaluate, generate, piped, train, train_sd_reid, world


@dataclass(frozen=True)
class Config:
    """Arms, each "name: words: options", seeds, and the options that all of them share."""

    world: world.Config = field(default_factory=world.Config)
    generate: generate.Config = field(default_factory=generate.Config)
    train: train.Config = field(default_factory=train.Config)
    second: train_sd_reid.Config = field(default_factory=train_sd_reid.Config)
    evaluate: evaluate.Config = field(default_factory=evaluate.Config)
    data: tuple[str, ...] = ("real: real pictures: ",)
    """What is learnt from, with options of train; {made} is the run of generate."""
    first: tuple[str, ...] = ("stage1: SD-ReID's first stage: --model.method sd_reid",)
    """First stages, with options of train; second stages stand on the first of them."""
    stages: tuple[str, ...] = ("unet: a small UNet: --generator.denoiser small",)
    """Second stages, with options of train-sd-reid."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training of each a seed."""
    jobs: int = 1
    """Chains of one data arm and seed side by side; they share the processors."""
    output: Path = Path("outputs/sd_reid")
    """Folder of everything."""

    def __post_init__(self):
        config.within("jobs", self.jobs, 1, 1024)
        arms = (*self.data, *self.first, *self.stages)
        if not (self.seeds and self.data and self.first and all(a.count(": ") > 1 for a in arms)):
            raise ValueError('give seeds, data and first, arms each as "name: words: options"')
        if self.train.data.name != "folder" and self.train.data.root is None:
            raise ValueError(f"give --train.data.root, the folder of {self.train.data.name}")


def plan(asked: Config) -> tuple[list, list, list]:
    """Commands: first one after the other, then chains that may run side by side, then the last."""
    out, own, data = asked.output.as_posix(), config.flags, asked.train.data
    name, root = (data.name, f"{data.root}") if data.root else ("world", f"{out}/world")
    real, made = ["--data.name", name, "--data.root", root, *data.given()], f"{out}/made"
    before = [] if data.root else [["world", *own(asked.world), "--output", root]]
    if any("{made}" in arm for arm in asked.data):
        before.append(["generate", *own(asked.generate), *real, "--output", made])
    kinds, first, second = (
        [arm.split(": ", 2) for arm in arms] for arms in (asked.data, asked.first, asked.stages)
    )
    words: dict[str, str] = {}

    def tested(arm: str, run: str, text: str, *what: str) -> list[str]:
        name = f"{arm}-{run.partition('/')[0]}"
        words[name] = text
        line = ["evaluate", *own(asked.evaluate), *real, *what, "--method", name]
        return [*line, "--output", f"{out}/evaluate/{arm}-{run}"]

    chains = []
    for seed, (kind, said, learns) in itertools.product(map(str, asked.seeds), kinds):
        run, chain = f"{kind}/seed{seed}", []
        same = ["--cache", f"{out}/cache", "--seed", seed, "--output"]
        place = {arm: f"{out}/train/{arm}-{run}" for arm, _, _ in (*first, *second)}
        use = {arm: ["--model.path", f"{folder}/model"] for arm, folder in place.items()}
        for arm, about, more in first:
            fit = [*more.split(), *learns.format(made=made).split(), *same, place[arm]]
            chain.append(["train", *own(asked.train), *real, *fit])
            chain.append(tested(arm, run, f"{about}, {said}", *use[arm]))
        for arm, about, more in second:
            fit = [*own(asked.second), *more.split(), *same, place[arm]]
            chain.append(["train-sd-reid", place[first[0][0]], *fit])
            chain.append(tested(arm, run, f"{about}, fused, {said}", *use[arm]))
            found = ["--features", f"{out}/evaluate/{arm}-{run}/features.safetensors", "--part"]
            text = f"{about}, generated alone, {said}"
            chain.append(tested(f"{arm}-alone", run, text, *found, "generated"))
        chains.append(chain)
    last = ["compare", f"{out}/evaluate", "--floor", next(iter(words)), "--ceiling", ""]
    last += ["--output", f"{out}/compare", "--arms", *words, "--words"]
    return before, chains, [*last, *(f"{arm}={text}" for arm, text in words.items())]


def main(argv: list[str] | None = None) -> int:
    """Run the story; returns the exit status of the first command that fails."""
    return perform(*plan(asked := config.parse(Config, argv, "sd_reid.py")), asked.jobs)


if __name__ == "__main__":
    with piped():
        sys.exit(main())
