# SPDX-License-Identifier: Apache-2.0
"""Training: what all training commands share.

- `loop`: the training loop (`learn`), independent of the number of processes.
- `learning`: optimizer step, learning rate, moving average, `log.jsonl`.
- `checkpoints`: checkpoints, of which the newest whole one is resumed.
- `progress`: bar, log and trackers.
- `options`: the options of a training run.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "learning": ["Average", "DivergedError", "Log", "schedule"],
        "loop": ["Draws", "Losses", "Plan", "learn"],
        "options": ["Optimization"],
    },
)
