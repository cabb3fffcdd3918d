# SPDX-License-Identifier: Apache-2.0
"""Train ReID methods on equal terms, without and with synthetic views, and compare them.

python pipelines/methods.py configs/methods/small.yaml [--options]

Every method has the same data, steps, batches and seeds, and a backbone of the same size. Settings
are real images of both views, the same with views of `generate` added, and ground images with
views. Writes <output>/table.md and table.png: mAP of each, and what views add, with intervals over
people and seeds. Give your data with --train.data.name and .root. Rerun to resume; a later run with
more seeds goes on from the runs that are there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chains import follow, follow_all

from viewsynth import config
from viewsynth.commands import evaluate, generate, piped, train, world
from viewsynth.evaluate.compare import plots
from viewsynth.reid import methods
from viewsynth.runtime.files import write

SETTINGS = {
    "real": "--data.views both",
    "views": "--data.views both --data.synthetic {made}",
    "single": "--data.views ground --data.synthetic {made}",
}


@dataclass(frozen=True)
class Config:
    """Methods, seeds and the options that all of them share."""

    world: world.Config = field(default_factory=world.Config)
    generate: generate.Config = field(default_factory=generate.Config)
    train: train.Config = field(default_factory=train.Config)
    evaluate: evaluate.Config = field(default_factory=evaluate.Config)
    methods: tuple[str, ...] = ()
    """Methods to train; none = all."""
    text: str = "small_clip"
    """Backbone of the methods that need a text side; all others have --train.model.backbone."""
    settings: tuple[Literal["real", "views", "single"], ...] = ("real", "views", "single")
    """Settings to train; the first one is what the others are compared with."""
    protocol: str = "A<->G"
    """Protocol of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each setting is trained once per seed."""
    jobs: int = 1
    """Training runs at the same time; they share the CPU cores."""
    output: Path = Path("outputs/methods")
    """Folder of all outputs."""

    def __post_init__(self):
        config.check_range("jobs", self.jobs, 1, 1024)
        for name in self.methods:
            methods.needs(name)


def plan(asked: Config) -> tuple[list, list, list]:
    """Commands: first those to run in sequence, then chains to run in parallel, then the last."""
    out, own, data = asked.output.as_posix(), config.flags, asked.train.data
    name, root = (data.name, f"{data.root}") if data.root else ("world", f"{out}/world")
    real = ["--data.name", name, "--data.root", root, *data.given()]
    first = [] if data.root else [["world", *own(asked.world), "--output", root]]
    made = f"{out}/made"
    first.append(["generate", *own(asked.generate), *real, "--output", made])
    chains, last = [], []
    for method in asked.methods or methods.names():
        for seed in asked.seeds:
            for setting in asked.settings:
                options = SETTINGS[setting]
                run = f"{method}/{setting}/seed{seed}"
                fit = ["train", *own(asked.train), *real, "--model.method", method]
                if "text" in methods.needs(method):
                    fit += ["--model.backbone", asked.text]
                fit += [*options.format(made=made).split(), "--cache", f"{out}/cache"]
                fit += ["--seed", f"{seed}", "--output", f"{out}/train/{run}"]
                test = ["evaluate", *own(asked.evaluate), *real, "--method", method]
                test += ["--model.path", f"{out}/train/{run}/model"]
                chains.append([fit, [*test, "--output", f"{out}/evaluate/{run}"]])
        words = ["compare", f"{out}/evaluate/{method}", "--floor", asked.settings[0]]
        words += ["--ceiling", ""]
        last.append([*words, "--protocol", asked.protocol, "--output", f"{out}/compare/{method}"])
    return first, chains, last


def found(asked: Config) -> dict[str, dict]:
    """What `compare` found of each method, with the arms and differences of one protocol."""
    every = {}
    for method in asked.methods or methods.names():
        read = json.loads((asked.output / f"compare/{method}/table.json").read_text("utf-8"))
        [task] = [one for one in read["tasks"] if one["protocol"] == asked.protocol]
        every[method] = task | {"seeds": len(read["seeds"])}
    return every


def table(asked: Config, every: dict[str, dict]) -> str:
    """The table, of mAP in per cent, from `found`."""
    floor, *others = asked.settings
    head = ["method", "known from", "seeds", floor]
    for setting in others:
        head += [setting, f"{setting} - {floor}"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method, task in every.items():
        arms = {one["arm"]: one["mAP"] for one in task["arms"]}
        gains = {one["one"]: one["mAP"] for one in task["differences"] if one["other"] == floor}
        values = [arms[floor]]
        for setting in others:
            values += [arms[setting], gains[setting]]
        cells = [f"{100 * v:.1f} [{100 * a:.1f}, {100 * b:.1f}]" for v, a, b in values]
        about = [method, methods.known(method), str(task["seeds"])]
        rows.append(f"| {' | '.join([*about, *cells])} |")
    return "\n".join(rows) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns the exit status of the first command that fails, else 0."""
    asked = config.parse(Config, argv, "methods.py")
    first, chains, last = plan(asked)
    status = follow(first) or follow_all(chains, asked.jobs) or follow(last)
    if not status:
        every = found(asked)
        text = table(asked, every)
        write(asked.output / "table.md", text.encode())
        write(asked.output / "table.png", plots.rows(every, asked.settings))
        sys.stdout.write(text)
    return status


if __name__ == "__main__":
    with piped():
        sys.exit(main())
