# SPDX-License-Identifier: Apache-2.0
"""Options of a ReID training run; importing them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from viewsynth.config import within


@dataclass(frozen=True)
class ReIDOptimization:
    """How the weights are moved."""

    GROUP: ClassVar[str] = "optim"

    optimizer: Literal["sgd", "adamw"] = "sgd"
    rate: float = 8e-3
    """Learning rate after the warm-up; falls as a cosine."""
    decay: float = 1e-4
    """Weight decay; norms, biases, positions and tokens have none."""
    warmup: int = 2000
    """Steps from a hundredth of the rate to the rate."""
    clip: float = 5.0
    """Largest norm of the gradient; 0 = any."""
    parts: int = 0
    """Independent parts of a batch; 0 = as many as processes. More parts than processes are
    accumulated."""
    average: float = 0.0
    """Decay of the moving average of the weights (EMA), which is then what is saved; 0 = none."""
    mine_synthetic_from: float = 0.25
    """Part of the run before which synthetic pictures are no hardest negatives."""

    def __post_init__(self):
        within("optim.rate", self.rate, 0, 1e6)
        within("optim.decay", self.decay, 0, 1e3)
        within("optim.warmup", self.warmup, 0, 10**8, "steps")
        within("optim.clip", self.clip, 0, 1e9)
        within("optim.parts", self.parts, 0, 10_000)
        within("optim.average", self.average, 0, 0.99999)
        within("optim.mine_synthetic_from", self.mine_synthetic_from, 0, 1)


@dataclass(frozen=True)
class Augmentation:
    """How pictures are varied in training; probabilities unless said otherwise."""

    pad: int = 10
    """Pixels of black round a picture 256 high (others: in proportion) before it is cut again."""
    flip: float = 0.5
    """Left and right exchanged."""
    erase: float = 0.5
    """A rectangle replaced by the mean colour."""
    degrade: float = 0.0
    """Control: only the resolution of a drone, 28 to 150 pixels a person; 0 = off."""
    perspective: float = 0.0
    """Control: the picture as a board that leans, seen from near by; 0 = off."""

    def __post_init__(self):
        within("augment.pad", self.pad, 0, 128, "pixels")
        for key in ("flip", "erase", "degrade", "perspective"):
            within(f"augment.{key}", getattr(self, key), 0, 1)
