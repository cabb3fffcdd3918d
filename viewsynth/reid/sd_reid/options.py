# SPDX-License-Identifier: Apache-2.0
"""Options of the second stage of SD-ReID. Importing this module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from viewsynth.config import check_range
from viewsynth.training.options import Optimization


@dataclass(frozen=True)
class GeneratorShape:
    """Architecture of the feature generator."""

    mode: Literal["fixed", "faithful"] = "fixed"
    """fixed, or faithful: with the behaviour of the authors' release, see reid/sd_reid/mode.py."""
    denoiser: str = "small"
    """small (a UNet from scratch), "mlp", or folder or hub id of Stable Diffusion 1.5."""
    decoder: Literal["pyramid", "align"] = "pyramid"
    """View-refined decoder: feature maps for the UNet, or an MLP after sampling."""
    depth: int = 1
    """Transformer blocks that mix the tokens of the condition."""
    times: int = 1000
    """Timesteps of the diffusion; with fewer, the last one has less noise."""

    def __post_init__(self):
        check_range("generator.depth", self.depth, 0, 100)
        check_range("generator.times", self.times, 2, 100_000)


@dataclass(frozen=True)
class GeneratorOptimization(Optimization):
    """Optimizer, batches and length of the generator's training run."""

    GROUP: ClassVar[str] = "optim"

    steps: int = 20_000
    """Training steps of the whole run."""
    batch: int = 128
    """Images per step, a multiple of `pictures` plus data.added of the first stage."""
    pictures: int = 4
    """Images of each person in a batch, without those of data.added."""
    rate: float = 1e-4
    """Learning rate of AdamW after the warm-up; decays as a cosine."""
    warmup: int = 1000
    """Warm-up steps, from a hundredth of the learning rate to the learning rate."""
    clip: float = 5.0
    """Gradients are clipped to this norm; 0 = no clipping."""
    average: float = 0.999
    """Decay of the moving average (EMA) of the weights, which is saved; 0 = no average."""
    drop: float = 0.05
    """Probability of dropping the condition, for classifier-free guidance."""

    def __post_init__(self):
        super().__post_init__()
        check_range("optim.drop", self.drop, 0, 1)
        check_range("optim.pictures", self.pictures, 1, 1000)
