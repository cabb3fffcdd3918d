# SPDX-License-Identifier: Apache-2.0
"""Options of SD-ReID's second stage; importing them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from viewsynth.config import within
from viewsynth.training.options import Optimization


@dataclass(frozen=True)
class GeneratorShape:
    """What a generator is made of."""

    mode: Literal["fixed", "faithful"] = "fixed"
    """fixed, or faithful: with the faults of the method's release, see reid/generation/mode.py."""
    denoiser: str = "small"
    """A UNet from scratch ("small"), "mlp", or folder or hub id of Stable Diffusion 1.5."""
    decoder: Literal["pyramid", "align"] = "pyramid"
    """Reading of the view-refined decoder: maps for the UNet, or an MLP after sampling."""
    depth: int = 1
    """Blocks that mix the tokens of the condition."""
    times: int = 1000
    """Times of the diffusion; fewer end with less noise."""

    def __post_init__(self):
        within("generator.depth", self.depth, 0, 100)
        within("generator.times", self.times, 2, 100_000)


@dataclass(frozen=True)
class GeneratorOptimization(Optimization):
    """How the generator is trained."""

    GROUP: ClassVar[str] = "optim"

    steps: int = 20_000
    """Of the whole training."""
    batch: int = 128
    """Pictures in a step, a multiple of `pictures`."""
    pictures: int = 4
    """Of each person."""
    rate: float = 1e-4
    """Learning rate of AdamW after the warm-up; falls as a cosine."""
    warmup: int = 1000
    """Steps from a hundredth of the rate to the rate."""
    clip: float = 5.0
    """Largest norm of the gradient; 0 = any."""
    average: float = 0.999
    """Decay of the moving average of the weights (EMA), which is what is saved; 0 = none."""
    drop: float = 0.05
    """How often the condition is withheld, so that guidance has its other branch."""

    def __post_init__(self):
        super().__post_init__()
        within("optim.drop", self.drop, 0, 1)
        within("optim.pictures", self.pictures, 1, 1000)
        if self.batch % self.pictures:
            raise ValueError(
                f"optim.batch must be a multiple of optim.pictures ({self.pictures}), got "
                f"{self.batch}"
            )
