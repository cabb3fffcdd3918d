# SPDX-License-Identifier: Apache-2.0
"""Options of a ReID training run. Importing this module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from viewsynth.config import check_range


@dataclass(frozen=True)
class ReIDOptimization:
    """Optimizer of the ReID model."""

    GROUP: ClassVar[str] = "optim"

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimizer: SGD with momentum, or AdamW."""
    rate: float = 8e-3
    """Learning rate after the warm-up; decays as a cosine."""
    head_rate: float | None = None
    """Likewise, of all weights outside the backbone, which start at random; None = `rate`."""
    decay: float = 1e-4
    """Weight decay; normalisations and biases have none."""
    decay_tokens: Literal["yes", "no"] = "no"
    """Whether position embeddings and learned tokens, as that of the view, get weight decay: some
    releases have it for a part of them, by an oversight."""
    warmup: int = 2000
    """Warm-up steps, from a hundredth of the learning rate to the learning rate."""
    identity: float = 1.0
    """Weight of the identity loss; 0 = none, for fine-tuning in so few steps that the classifier of
    the new identities, which starts at random, would only disturb the backbone."""
    prompt_steps: int = 0
    """Steps of the stage that learns prompts, of methods that have one; 0 = as many as `steps`."""
    prompt_rate: float = 3.5e-4
    """Learning rate of that stage, of AdamW."""
    clip: float = 5.0
    """Gradients are clipped to this norm; 0 = no clipping."""
    parts: int = 0
    """Parts of a batch, each with its own triplets; 0 = one per process, more are accumulated."""
    average: float = 0.0
    """Decay of the moving average (EMA) of the weights, which is then saved; 0 = no average."""
    mine_synthetic_from: float = 0.25
    """Share of the run after which synthetic images may be hardest negatives."""

    def __post_init__(self):
        check_range("optim.rate", self.rate, 0, 1e6)
        check_range("optim.head_rate", self.head_rate, 0, 1e6)
        check_range("optim.decay", self.decay, 0, 1e3)
        check_range("optim.warmup", self.warmup, 0, 10**8, "steps")
        check_range("optim.identity", self.identity, 0, 1e3)
        check_range("optim.prompt_steps", self.prompt_steps, 0, 10**8, "steps")
        check_range("optim.prompt_rate", self.prompt_rate, 0, 1e6)
        check_range("optim.clip", self.clip, 0, 1e9)
        check_range("optim.parts", self.parts, 0, 10_000)
        check_range("optim.average", self.average, 0, 0.99999)
        check_range("optim.mine_synthetic_from", self.mine_synthetic_from, 0, 1)


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of the training images; values are probabilities unless noted."""

    pad: int = 10
    """Black border before a random crop, in pixels of an image of height 256."""
    flip: float = 0.5
    """Horizontal flip."""
    erase: float = 0.5
    """Random erasing: a rectangle is filled with the mean colour."""
    degrade: float = 0.0
    """Control: downscaling to drone resolution, 28 to 150 pixels per person; 0 = off."""
    perspective: float = 0.0
    """Control: perspective distortion, as of a tilted plane seen from nearby; 0 = off."""

    def __post_init__(self):
        check_range("augment.pad", self.pad, 0, 128, "pixels")
        for key in ("flip", "erase", "degrade", "perspective"):
            check_range(f"augment.{key}", getattr(self, key), 0, 1)
