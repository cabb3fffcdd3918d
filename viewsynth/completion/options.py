# SPDX-License-Identifier: Apache-2.0
"""Options of the training of completion. Importing this module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from viewsynth.training.options import Optimization


@dataclass(frozen=True)
class CompletionOptimization(Optimization):
    """Optimizer, batches and length of the training."""

    GROUP: ClassVar[str] = "optim"

    steps: int = 7000
    """Training steps."""
    batch: int = 16
    """Examples per step."""
    rate: float = 2e-3
    """Learning rate of AdamW after the warm-up; decays as a cosine."""
    warmup: int = 200
    """Warm-up steps, from a hundredth of the learning rate to the learning rate."""
    average: float = 0.998
    """Decay of the moving average (EMA) of the weights, which is saved; 0 = no average."""
