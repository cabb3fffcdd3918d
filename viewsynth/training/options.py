# SPDX-License-Identifier: Apache-2.0
"""Options that all training commands share. Importing this module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from viewsynth.config import within


@dataclass(frozen=True)
class Optimization:
    """Optimizer, batches and length of a training run."""

    GROUP: ClassVar[str] = "optim"

    steps: int = 20_000
    """Training steps of the whole run."""
    batch: int = 16
    """Training pairs per step."""
    rate: float = 3e-4
    """Learning rate of AdamW after the warm-up; decays as a cosine."""
    decay: float = 1e-2
    """Weight decay; parameters of one dimension have none."""
    warmup: int = 500
    """Warm-up steps, from a hundredth of the learning rate to the learning rate."""
    clip: float = 1.0
    """Gradients are clipped to this norm; 0 = no clipping."""
    parts: int = 0
    """Parts that a batch is split into; 0 = one per process, more are accumulated."""
    average: float = 0.9995
    """Decay of the moving average (EMA) of the weights, which is saved; 0 = no average."""

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
