# SPDX-License-Identifier: Apache-2.0
"""Training: what all training commands share.

- `loop`: the training loop (`learn`), independent of the number of processes.
- `rows`: the training task of numbered rows and random noise.
- `average`: the moving average of the weights.
- `log`: `log.jsonl`.
- `checkpoints`: checkpoints, of which the newest whole one is resumed.
- `progress`: bar, log and trackers.
- `options`: the options of a training run.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "average": ["Average"],
        "log": ["Log"],
        "loop": ["DivergedError", "Run", "Task", "learn", "schedule"],
        "rows": ["Draws", "Losses", "Plan", "RowTask"],
        "options": ["Optimization"],
    },
)
