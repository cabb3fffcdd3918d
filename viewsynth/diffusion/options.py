# SPDX-License-Identifier: Apache-2.0
"""Options of the diffusion stage: repair and training. Importing this module needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from viewsynth.config import check_range
from viewsynth.training.options import Optimization


@dataclass(frozen=True)
class Refine:
    """Repair of the rendered views by a diffusion model."""

    engine: str = "none"
    """none; folder or hub id of a train-diffusion pipeline; bundled = in the package (none is)."""
    steps: int = 4
    """Sampling steps: those that the model was distilled to (1 to 4), otherwise 20 to 50."""
    guidance: float = 1.0
    """Classifier-free guidance by the source image; 1 = none, more takes twice the time."""
    strength: float = 0.4
    """Initial noise on the rendering, 0.02 to 1: more allows larger changes, 1 is noise alone."""
    keep_seen: float = 0.5
    """How much of the rendering is kept in observed pixels, 0 to 1."""
    background: Literal["kept", "generated"] = "kept"
    """Around the person: the rendered ground and shadow, or what the model generates."""

    def __post_init__(self):
        if not self.engine.strip():
            raise ValueError("refine.engine must be none, bundled, a folder or a hub id; got ''")
        check_range("refine.guidance", self.guidance, 0, 100)
        check_range("refine.strength", self.strength, 0.02, 1)
        check_range("refine.steps", self.steps, 1, int(1000 * self.strength))
        check_range("refine.keep_seen", self.keep_seen, 0, 1)


@dataclass(frozen=True)
class DiffusionOptimization(Optimization):
    """Optimizer, batches and losses of the diffusion model."""

    GROUP: ClassVar[str] = "optim"

    gamma: float = 5.0
    """Min-SNR weighting: signal-to-noise ratios are clipped to this."""
    background: float = 0.3
    """Loss weight of the background, where the pair has a mask; the person has 1."""
    drop: tuple[float, float, float] = (0.1, 0.1, 0.1)
    """Probabilities of dropping source, geometry and camera, each independently."""

    def __post_init__(self):
        super().__post_init__()
        check_range("optim.gamma", self.gamma, 1e-6, 1e6)
        check_range("optim.background", self.background, 1e-3, 1)
        for share in self.drop:
            check_range("optim.drop", share, 0, 1)


@dataclass(frozen=True)
class AutoencoderOptimization(Optimization):
    """Optimizer, batches and length for the autoencoder of the base small."""

    GROUP: ClassVar[str] = "autoencoder"

    steps: int = 4000
    """Training steps of the autoencoder."""
    batch: int = 16
    """Training pairs per step."""
    rate: float = 1e-3
    """Learning rate of AdamW after the warm-up; decays as a cosine."""
    decay: float = 0.0
    """Weight decay; parameters of one dimension have none."""
    warmup: int = 200
    """Warm-up steps, from a hundredth of the learning rate to the learning rate."""
    average: float = 0.999
    """Decay of the moving average (EMA) of the weights, which is saved; 0 = no average."""
    noise: float = 0.1
    """Standard deviation of the noise on the latents in training; theirs is 1."""

    def __post_init__(self):
        super().__post_init__()
        check_range("autoencoder.noise", self.noise, 0, 10)


@dataclass(frozen=True)
class DistillationOptimization(Optimization):
    """Distillation of the trained model to a few sampling steps."""

    GROUP: ClassVar[str] = "distil"

    steps: int = 0
    """Training steps of the distillation; 0 = no distillation."""
    rate: float = 1e-4
    """Learning rate of AdamW after the warm-up; decays as a cosine."""
    decay: float = 0.0
    """Weight decay; parameters of one dimension have none."""
    warmup: int = 200
    """Warm-up steps, from a hundredth of the learning rate to the learning rate."""
    average: float = 0.95
    """Decay of the moving average that is the target and the result."""
    guidance: float = 1.5
    """Guidance of the teacher, away from its prediction without the source; 1 = none."""
    stations: int = 50
    """Points on the teacher's DDIM trajectory, one step of the student apart."""
    drop: float = 0.1
    """Probability of dropping geometry and source, each independently, as guidance needs it."""

    def __post_init__(self):
        super().__post_init__()
        check_range("distil.guidance", self.guidance, 1, 20)
        check_range("distil.stations", self.stations, 4, 1000)
        check_range("distil.drop", self.drop, 0, 1)
