# SPDX-License-Identifier: Apache-2.0
"""Verify a finished run: files, rows, people, input list, photos, licences, and some views again.

viewsynth verify outputs/demo [--chunks 1]

Every file is hashed and compared with `SHA256SUMS` (`sha256sum -c` in the folder does that part),
every row with its part and the input list of `run.json`, and every photo with its hash there. Some
chunks, drawn at random, are rendered again from their saved people and compared byte for byte; that
needs the versions that made the run. Prints what differs, a line each. The exit status is 1 if
anything does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from viewsynth import config as configs
from viewsynth import manifest
from viewsynth.config import check_range
from viewsynth.manifest import Problem
from viewsynth.runtime.licences import licences_of

SHOWN = 50  # problems that are printed


@dataclass(frozen=True)
class Config:
    """A finished run in; what differs from what was written out."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    chunks: int = 1
    """Chunks of people that are rendered again; 0 = none."""
    seed: int = 0
    """Seed of the choice of these chunks."""

    def __post_init__(self):
        check_range("chunks", self.chunks, 0, 10**6)
        check_range("seed", self.seed, 0, 2**63 - 1)


def run(config: Config) -> int:
    """Verify, and print what differs; returns 0 if nothing does, else 1."""
    folder = config.run.expanduser().resolve()
    problems, notes = manifest.verify(folder)
    rendered = 0
    if config.chunks and not problems:
        problems, rendered = _again(folder, config)
    elif config.chunks:
        notes.append("nothing was rendered again: mend what differs first")
    for problem in problems[:SHOWN]:
        sys.stdout.write(f"{problem.where}: {problem.what}\n")
    if len(problems) > SHOWN:
        sys.stdout.write(f"... and {len(problems) - SHOWN} more\n")
    for note in notes:
        sys.stderr.write(f"{note}\n")
    files = len(manifest.read_sums(folder))
    again = f", {rendered} views rendered again" if rendered else ""
    result = f"differences: {len(problems)}" if problems else "no difference"
    sys.stderr.write(f"{folder}: {files} files{again}: {result}\n")
    return int(bool(problems))


def _again(folder: Path, config: Config) -> tuple[list[Problem], int]:
    """Render some chunks again: what differs, and the number of views."""
    from viewsynth.commands import generate
    from viewsynth.generate import again, chunk, worker

    frozen = manifest.read(folder)
    rows, _ = manifest.read_rows(folder, frozen)
    made = configs.parse(generate.Config, [str(folder / "config.yaml")], "verify")
    made = replace(made, output=folder, device=frozen.settings["device"])
    heads = [head for head in manifest.heads(folder, frozen) if head["people"]]
    rng = np.random.default_rng(config.seed)
    chosen = rng.permutation(len(heads))[: config.chunks].tolist()
    models, revisions, passports = generate.models_of(made)
    licences = licences_of(passports)
    job = worker.Job(folder, frozen.root, made, made.device, models, revisions, licences)
    tools = chunk.load_tools(job)
    problems, count = [], 0
    for number in sorted(chosen):
        problems += again.differences(heads[number], rows, job, tools)
        count += len(heads[number]["people"]) * len(heads[number]["views"])
    return problems, count
