# SPDX-License-Identifier: Apache-2.0
"""Options of the diffusion stage: repair and training. Importing them needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from viewsynth.config import within
from viewsynth.training.options import Optimization


@dataclass(frozen=True)
class Refine:
    """A diffusion model that repairs what geometry could not see."""

    engine: str = "none"
    """none; bundled (comes with viewsynth); or a folder or hub id of what train-diffusion makes."""
    steps: int = 4
    """Of the sampler; what the model was distilled to, or 20 to 50."""
    guidance: float = 1.0
    """How strongly the photo is followed; 1 = as learnt, more takes twice the time."""
    strength: float = 0.4
    """How far from what was drawn it may go, 0.02 to 1: it begins with the drawn picture under so
    much noise; 1 = with noise alone."""
    keep_seen: float = 0.5
    """How much of a pixel that a photo showed stays as it was drawn, 0 to 1."""
    background: Literal["kept", "generated"] = "kept"
    """The drawn ground and shadow around the person, or what the model makes of all."""

    def __post_init__(self):
        if not self.engine.strip():
            raise ValueError("refine.engine must be none, bundled, a folder or a hub id; got ''")
        within("refine.guidance", self.guidance, 0, 100)
        within("refine.strength", self.strength, 0.02, 1)
        within("refine.steps", self.steps, 1, int(1000 * self.strength))
        within("refine.keep_seen", self.keep_seen, 0, 1)


@dataclass(frozen=True)
class DiffusionOptimization(Optimization):
    """How the model is trained."""

    GROUP: ClassVar[str] = "optim"

    gamma: float = 5.0
    """Min-SNR: signal-to-noise ratios count up to this."""
    background: float = 0.3
    """Weight of what is not the person, where the pair tells; the person has 1."""
    drop: tuple[float, float, float] = (0.1, 0.1, 0.1)
    """How often source, geometry and camera are withheld, each on its own."""

    def __post_init__(self):
        super().__post_init__()
        within("optim.gamma", self.gamma, 1e-6, 1e6)
        within("optim.background", self.background, 1e-3, 1)
        for share in self.drop:
            within("optim.drop", share, 0, 1)


@dataclass(frozen=True)
class AutoencoderOptimization(Optimization):
    """How the autoencoder of a small model is trained; others bring theirs."""

    GROUP: ClassVar[str] = "autoencoder"

    steps: int = 4000
    batch: int = 16
    rate: float = 1e-3
    decay: float = 0.0
    warmup: int = 200
    average: float = 0.999
    noise: float = 0.1
    """Deviation of the noise that the decoder learns to bear; latents have deviation 1."""

    def __post_init__(self):
        super().__post_init__()
        within("autoencoder.noise", self.noise, 0, 10)


@dataclass(frozen=True)
class DistillationOptimization(Optimization):
    """How the few-step model is made of the trained one."""

    GROUP: ClassVar[str] = "distil"

    steps: int = 0
    """Of the whole distillation; 0 = none."""
    rate: float = 1e-4
    decay: float = 0.0
    warmup: int = 200
    average: float = 0.95
    """Of the target, which is also the result."""
    guidance: float = 1.5
    """Of the teacher, away from the prediction without the source; 1 = none."""
    stations: int = 50
    """Of the teacher's DDIM trajectory, a student's step apart."""
    drop: float = 0.1
    """How often geometry and source are withheld, each on its own: the student knows what to make
    of one alone, and what guidance leads away from."""

    def __post_init__(self):
        super().__post_init__()
        within("distil.guidance", self.guidance, 1, 20)
        within("distil.stations", self.stations, 4, 1000)
        within("distil.drop", self.drop, 0, 1)
