# SPDX-License-Identifier: Apache-2.0
"""Train ReID methods on equal terms, without and with synthetic views, and compare them.

python pipelines/methods.py configs/benchmark/small_methods.yaml [--options]

Every method has the same data, steps, batches and seeds, and a backbone of the same size. Settings
are real images of both views, the same with views of `generate` added, and ground images with
views. Writes <output>/table.md: mAP of each, and what views add, with intervals over people and
seeds. Give your data with --train.data.name and .root. Rerun to resume.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from chains import follow, follow_all

from viewsynth import config
from viewsynth.commands import evaluate, generate, piped, train, world
from viewsynth.reid import methods
from viewsynth.runtime.files import write

SETTINGS = {
    "real": "--data.views both",
    "views": "--data.views both --data.synthetic {made}",
    "single": "--data.views ground --data.synthetic {made}",
}
FLOOR = "real"  # what the others are compared with
HEAD = "| method | known from | real | + views | gain | ground + views | against real |"


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
            for setting, options in SETTINGS.items():
                run = f"{method}/{setting}/seed{seed}"
                fit = ["train", *own(asked.train), *real, "--model.method", method]
                if "text" in methods.needs(method):
                    fit += ["--model.backbone", asked.text]
                fit += [*options.format(made=made).split(), "--cache", f"{out}/cache"]
                fit += ["--seed", f"{seed}", "--output", f"{out}/train/{run}"]
                test = ["evaluate", *own(asked.evaluate), *real, "--method", method]
                test += ["--model.path", f"{out}/train/{run}/model"]
                chains.append([fit, [*test, "--output", f"{out}/evaluate/{run}"]])
        words = ["compare", f"{out}/evaluate/{method}", "--floor", FLOOR, "--ceiling", ""]
        last.append([*words, "--protocol", asked.protocol, "--output", f"{out}/compare/{method}"])
    return first, chains, last


def table(asked: Config) -> str:
    """The table, from the outputs of `compare`."""
    rows = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    for method in asked.methods or methods.names():
        found = json.loads((asked.output / f"compare/{method}/table.json").read_text("utf-8"))
        [task] = [one for one in found["tasks"] if one["protocol"] == asked.protocol]
        arms = {one["arm"]: one["mAP"] for one in task["arms"]}
        gains = {one["one"]: one["mAP"] for one in task["differences"] if one["other"] == FLOOR}
        values = [arms[FLOOR]]
        for setting in list(SETTINGS)[1:]:
            values += [arms[setting], gains[setting]]
        cells = [
            " ".join([f"{100 * v:.1f}", f"[{100 * a:.1f}, {100 * b:.1f}]"]) for v, a, b in values
        ]
        rows.append(f"| {' | '.join([method, methods.known(method), *cells])} |")
    return "\n".join(rows) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline; returns the exit status of the first command that fails, else 0."""
    asked = config.parse(Config, argv, "methods.py")
    first, chains, last = plan(asked)
    status = follow(first) or follow_all(chains, asked.jobs) or follow(last)
    if not status:
        text = table(asked)
        write(asked.output / "table.md", text.encode())
        sys.stdout.write(text)
    return status


if __name__ == "__main__":
    with piped():
        sys.exit(main())
