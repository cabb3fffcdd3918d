# SPDX-License-Identifier: Apache-2.0
"""The log of a training run, `log.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from viewsynth.runtime.files import lines, write


class Log:
    """Writes a row of mean values every 50 steps and at every checkpoint.

    Values whose name starts with `val_` are written unchanged. Rows after the checkpoint that a
    run resumes from are removed.

    Args:
        path: The file.
        done: Steps that are already done.
        every: Steps between two checkpoints.
        last: Steps of the whole run.
    """

    EVERY = 50

    def __init__(self, path: Path, done: int, every: int, last: int):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        rows = [json.loads(row) for row in text.splitlines()]
        self.path, self.done = path, done
        self.rows = [row for row in rows if row["step"] <= done]
        self.seen: list[dict] = []
        self.every, self.last = every, last

    def add(self, step: int, figures: dict) -> None:
        """Add the losses and metrics of a step."""
        validation = {k: v for k, v in figures.items() if k.startswith("val_")}
        self.seen.append({k: v for k, v in figures.items() if k not in validation})
        if 0 in (step % self.EVERY, step % self.every) or step == self.last:
            means = {
                k: round(float(np.mean([one[k] for one in self.seen])), 6) for k in self.seen[0]
            }
            self.rows.append({"step": step, **means, **validation})
            self.seen = []
            write(self.path, lines(self.rows))
