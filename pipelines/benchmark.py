# SPDX-License-Identifier: Apache-2.0
"""Measure the gain from synthetic data: one model per arm and seed, with different data only.

python pipelines/benchmark.py configs/benchmark/small.yaml [--options]

Runs `world` and `generate`, per arm and seed `train`, `evaluate` and `probe`, and `compare`, which
writes <output>/compare/table.md. Give your data with --train.data.name and .root. Rerun to resume.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from chains import follow, follow_all

from viewsynth import config
from viewsynth.commands import evaluate, generate, piped, train, world


@dataclass(frozen=True)
class Config:
    """Arms, seeds and the options that all of them share."""

    world: world.Config = field(default_factory=world.Config)
    generate: generate.Config = field(default_factory=generate.Config)
    train: train.Config = field(default_factory=train.Config)
    evaluate: evaluate.Config = field(default_factory=evaluate.Config)
    arms: tuple[str, ...] = ()
    """Each "name: description: options of train"; a is the floor, f the ceiling, e the treatment.
    {made} is the run of generate, {single} one from a single image per person, {rules} one without
    completion network, {repaired} one with repaired views, {matched} one with the look of the
    aerial training images, see `match`."""
    repair: str = "bundled"
    """Diffusion model of {repaired}, see --refine.engine of generate."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each arm is trained once per seed."""
    jobs: int = 1
    """Training runs at the same time; they share the CPU cores."""
    output: Path = Path("outputs/benchmark")
    """Folder of all outputs."""

    def __post_init__(self):
        config.check_range("jobs", self.jobs, 1, 1024)
        names = {arm.split(": ")[0] for arm in self.arms if arm.count(": ") > 1}
        if not self.seeds or len(names) < len(self.arms) or not {"a", "e", "f"} <= names:
            raise ValueError('give seeds, and arms a, e, f and more: "name: description: options"')


def plan(asked: Config) -> tuple[list, list, list]:
    """Commands: first those to run in sequence, then chains to run in parallel, then the last."""
    out, own, data = asked.output.as_posix(), config.flags, asked.train.data
    arms = {name: (words, todo) for name, words, todo in (a.split(": ", 2) for a in asked.arms)}
    name, root = (data.name, f"{data.root}") if data.root else ("world", f"{out}/world")
    real = ["--data.name", name, "--data.root", root, *data.given()]
    first = [] if data.root else [["world", *own(asked.world), "--output", root]]
    kinds = {
        "made": [],
        "single": ["--data.per-person", "1"],
        "rules": ["--reconstruct.complete", "rules"],
        "repaired": ["--refine.engine", asked.repair],
    }
    made = {kind: f"{out}/{kind}" for kind in (*kinds, "matched")}
    for kind, folder in made.items():
        if not any(f"{{{kind}}}" in todo for _, todo in arms.values()):
            continue
        preset = []
        if kind == "matched":
            preset = [f"{out}/drone.yaml"]
            first.append(["match", root, "--data.name", name, *data.given(), "--output", *preset])
        options = [*own(asked.generate), *real, *kinds.get(kind, [])]
        first.append(["generate", *preset, *options, "--output", folder])
    chains, cache = [], ["--cache", f"{out}/cache"]
    for run in (f"{arm}/seed{seed}" for seed in asked.seeds for arm in arms):
        arm, seed = run.split("/seed")
        trained = f"{out}/train/{run}"
        options = [word.format(**made) for word in arms[arm][1].split()]
        fit = ["train", *own(asked.train), *real, *options, *cache, "--seed", seed]
        test = ["evaluate", *own(asked.evaluate), *real, "--model.path", f"{trained}/model"]
        test += ["--method", arm, "--output", f"{out}/evaluate/{run}"]
        probe = ["probe", "--model", f"{trained}/model", "--data.synthetic", made["made"], *real]
        probe += [*cache, "--output", f"{out}/probe/{run}"]
        chains.append([[*fit, "--output", trained], test, *([probe] if arm in ("a", "e") else [])])
    last = ["compare", f"{out}/evaluate", "--floor", "a", "--ceiling", "f", "--treated", "e"]
    last += ["--probes", f"{out}/probe", "--output", f"{out}/compare", "--arms", *arms, "--notes"]
    note = "{steps} steps of {people} people x {pictures} pictures, the last one is tested"
    last += [note.format(**asked.train.__dict__), "--words", *(f"{a}={arms[a][0]}" for a in arms)]
    return first, chains, last


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns the exit status of the first command that fails, else 0."""
    asked = config.parse(Config, argv, "benchmark.py")
    first, chains, last = plan(asked)
    return follow(first) or follow_all(chains, asked.jobs) or follow([last])


if __name__ == "__main__":
    with piped():
        sys.exit(main())
