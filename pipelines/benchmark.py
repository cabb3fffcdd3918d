# SPDX-License-Identifier: Apache-2.0
"""What synthesis is worth: one model per arm and seed, equal but for its data, in one table.

python pipelines/benchmark.py configs/benchmark/small.yaml [--options]

`world`, `generate`, per arm and seed `train`, `evaluate` and `probe`; `compare` then writes
<output>/compare/table.md. --train.data.name and .root take your data. Run again to go on.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from viewsynth import config
from viewsynth.commands import evaluate, generate, piped, train, world
from viewsynth.runtime.workers import cores

START = "from viewsynth import cli, workers; workers.end_with_parent(); cli.main()"


@dataclass(frozen=True)
class Config:
    """Arms and seeds, and the options that all of them share."""

    world: world.Config = field(default_factory=world.Config)
    generate: generate.Config = field(default_factory=generate.Config)
    train: train.Config = field(default_factory=train.Config)
    evaluate: evaluate.Config = field(default_factory=evaluate.Config)
    arms: tuple[str, ...] = ()
    """Each "name: words: options of train"; a is the floor, f the ceiling, e is asked about. {made}
    is the run of generate, {single} one from one picture of each person, {repaired} one that
    `repair` went over."""
    repair: str = "bundled"
    """Engine of {repaired}, see generate's --refine.engine."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training of each arm a seed."""
    jobs: int = 1
    """Trainings side by side; they share the processors."""
    output: Path = Path("outputs/benchmark")
    """Folder of everything."""

    def __post_init__(self):
        config.within("jobs", self.jobs, 1, 1024)
        names = {arm.split(": ")[0] for arm in self.arms if arm.count(": ") > 1}
        if not self.seeds or len(names) < len(self.arms) or not {"a", "e", "f"} <= names:
            raise ValueError('give seeds, and arms a, e, f and more, each "name: words: options"')


def plan(asked: Config) -> tuple[list, list, list]:
    """Commands: first one after the other, then chains that may run side by side, then the last."""
    out, own, data = asked.output.as_posix(), config.flags, asked.train.data
    arms = {name: (words, todo) for name, words, todo in (a.split(": ", 2) for a in asked.arms)}
    name, root = (data.name, f"{data.root}") if data.root else ("world", f"{out}/world")
    real = ["--data.name", name, "--data.root", root, *data.given()]
    cache = ["--cache", f"{out}/cache"]
    first = [] if data.root else [["world", *own(asked.world), "--output", root]]
    kinds = {
        "made": [],
        "single": ["--data.per-person", "1"],
        "repaired": ["--refine.engine", asked.repair],
    }
    made = {kind: f"{out}/{kind}" for kind in kinds}
    for kind, more in kinds.items():
        if any(f"{{{kind}}}" in todo for _, todo in arms.values()):
            first.append(["generate", *own(asked.generate), *real, *more, "--output", made[kind]])
    chains = []
    for run in (f"{arm}/seed{seed}" for seed in asked.seeds for arm in arms):
        arm, seed = run.split("/seed")
        learnt, learns = f"{out}/train/{run}", (w.format(**made) for w in arms[arm][1].split())
        fit = ["train", *own(asked.train), *real, *learns, *cache, "--seed", seed]
        test = ["evaluate", *own(asked.evaluate), *real, "--model.path", f"{learnt}/model"]
        test += ["--method", arm, "--output", f"{out}/evaluate/{run}"]
        probe = ["probe", "--model", f"{learnt}/model", "--data.synthetic", made["made"], *real]
        probe += [*cache, "--output", f"{out}/probe/{run}"]
        chains.append([[*fit, "--output", learnt], test, *([probe] if arm in ("a", "e") else [])])
    last = ["compare", f"{out}/evaluate", "--floor", "a", "--ceiling", "f", "--treated", "e"]
    last += ["--probes", f"{out}/probe", "--output", f"{out}/compare", "--arms", *arms, "--notes"]
    said = "{steps} steps of {people} people x {pictures} pictures, the last one is tested"
    last += [said.format(**asked.train.__dict__), "--words", *(f"{a}={arms[a][0]}" for a in arms)]
    return first, chains, last


def follow(chain: list[list[str]], jobs: int = 1) -> int:
    """Run commands one after the other; returns the exit status of the first that fails."""
    environ = {"OMP_NUM_THREADS": f"{max(1, cores() // jobs)}"} | os.environ
    for words in chain:
        sys.stderr.write(f"$ {shlex.join(['viewsynth', *words])}\n")
        if status := subprocess.run([sys.executable, "-c", START, *words], env=environ).returncode:
            return abs(status)  # of a signal it is negative
    return 0


def perform(first: list, chains: list, last: list, jobs: int) -> int:
    """Follow a plan; returns the exit status of the first command that fails."""
    with ThreadPoolExecutor(jobs) as pool:
        failed = follow(first) or max(pool.map(lambda chain: follow(chain, jobs), chains))
    return failed or follow([last])


def main(argv: list[str] | None = None) -> int:
    """Run the story; returns the exit status of the first command that fails."""
    return perform(*plan(asked := config.parse(Config, argv, "benchmark.py")), asked.jobs)


if __name__ == "__main__":
    with piped():
        sys.exit(main())
