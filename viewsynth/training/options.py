# SPDX-License-Identifier: Apache-2.0
"""Options that every training command shares; importing them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from viewsynth.config import within


@dataclass(frozen=True)
class Optimization:
    """How weights are moved."""

    GROUP: ClassVar[str] = "optim"

    steps: int = 20_000
    """Of the whole training."""
    batch: int = 16
    """Pairs in a step."""
    rate: float = 3e-4
    """Learning rate of AdamW after the warm-up; falls as a cosine."""
    decay: float = 1e-2
    """Weight decay; what has one dimension has none."""
    warmup: int = 500
    """Steps from a hundredth of the rate to the rate."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 = any."""
    parts: int = 0
    """Parts of a batch; 0 = as many as processes. More parts than processes are accumulated."""
    average: float = 0.9995
    """Decay of the moving average of the weights (EMA), which is what is saved; 0 = none."""

    def __post_init__(self):
        for name, low, high, unit in (
            ("steps", 0, 10**8, ""),
            ("batch", 1, 100_000, "pairs"),
            ("rate", 0, 10, ""),
            ("decay", 0, 1e3, ""),
            ("warmup", 0, 10**8, "steps"),
            ("clip", 0, 1e9, ""),
            ("parts", 0, 10_000, ""),
            ("average", 0, 0.99999, ""),
        ):
            within(f"{self.GROUP}.{name}", getattr(self, name), low, high, unit)
        if self.parts and self.batch % self.parts:
            raise ValueError(
                f"{self.GROUP}.batch must be a multiple of {self.GROUP}.parts ({self.parts}), got "
                f"{self.batch}"
            )
