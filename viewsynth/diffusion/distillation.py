# SPDX-License-Identifier: Apache-2.0
"""Distillation of a trained pipeline into one that samples in one to four steps.

The student is trained to predict the same clean latent from all noisy latents of one trajectory of
the teacher (`Consistency`). It is sampled by diffusers' `LCMScheduler` in the same pipeline,
without classifier-free guidance: the teacher's guidance is distilled into it.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from viewsynth.diffusion.conditions import CONDITION_GROUPS
from viewsynth.diffusion.latents import Latents
from viewsynth.diffusion.noise import Noise
from viewsynth.diffusion.options import DistillationOptimization
from viewsynth.diffusion.pipeline import Encoded, ViewDiffusionPipeline
from viewsynth.diffusion.training import GEOMETRY, Denoiser, merge_lora, of_pipeline, prepare
from viewsynth.records import seed_of
from viewsynth.training import loop
from viewsynth.training.loop import Run
from viewsynth.training.rows import Draws, Plan, RowTask

SIGMA = 0.5  # deviation of the data in the boundary conditions, as in `LCMScheduler`
SCALING = 10.0  # factor of the time in the boundary conditions, as in `LCMScheduler`
HUBER = 1e-3  # difference at which the loss changes from squares to absolute values
SOURCE = CONDITION_GROUPS.index("source")


def train(
    pipeline: ViewDiffusionPipeline,
    latents: Latents,
    settings: DistillationOptimization,
    seed: int,
    run: Run,
    rank: int = 0,
    checkpointing: bool = False,
) -> ViewDiffusionPipeline:
    """Distil a pipeline, from the newest checkpoint.

    Source of the LoRA variant: Luo et al., LCM-LoRA, 2023 (arXiv 2311.05556).

    Args:
        pipeline: The teacher; it is not changed.
        latents: Training data.
        settings: Steps, learning rate, guidance of the teacher.
        seed: Seed of the run.
        run: See `training.train`.
        rank: See `training.prepare`.
        checkpointing: See `training.prepare`.

    Returns:
        The student, whose scheduler is an `LCMScheduler`.
    """
    from diffusers import LCMScheduler

    student = copy.deepcopy(Denoiser(pipeline)).pipeline
    prepare(student, rank, checkpointing, seed_of(seed, "distillation"))
    student.scheduler = LCMScheduler.from_config(
        pipeline.scheduler.config,
        original_inference_steps=settings.stations,
        timestep_scaling=SCALING,
        clip_sample=False,
    )
    pipeline.unet.requires_grad_(False)
    pipeline.conditioner.requires_grad_(False)
    losses = Consistency(Denoiser(pipeline).eval(), latents, settings)
    plan = Plan(settings, len(latents), seed_of(seed, "distillation"), latents.name)
    found = loop.learn(Denoiser(student), RowTask(plan, losses), of_pipeline(run))
    if rank:
        merge_lora(found.pipeline)
    return found.pipeline


class Consistency:
    """Consistency loss: distance between the student's predictions at two adjacent times.

    Source: Luo et al., Latent Consistency Models, 2023 (arXiv 2310.04378), algorithm 1, with the
    skipping-step DDIM solver of section 4.3; Song et al., Consistency Models, ICML 2023 (arXiv
    2303.01469) for the boundary conditions and the EMA target. Ours: guidance is fixed, so the
    student has no embedding of it; the source crop is dropped where they drop the text.

    Args:
        teacher: The frozen teacher.
        latents: Training data.
        settings: Guidance, number of stations, drop rate.
    """

    def __init__(self, teacher: Denoiser, latents: Latents, settings: DistillationOptimization):
        self.teacher, self.latents, self.settings = teacher, latents, settings
        self.noise = Noise(teacher.pipeline.scheduler, latents.target.device)
        self.skip = self.noise.steps // settings.stations

    def __call__(self, model: nn.Module, average: nn.Module, rows: np.ndarray, draws: Draws):
        """See `rows.Losses`."""
        encoded, clean, _ = self.latents.take(rows)
        device = clean.device
        station = (draws.spread() * self.settings.stations).long()
        late = ((station + 1) * self.skip - 1).to(device)
        early = (late - self.skip).clamp(min=0)
        kept = torch.ones(len(rows), len(CONDITION_GROUPS), dtype=torch.bool, device=device)
        given = draws.uniform(2).to(device) >= self.settings.drop
        kept[:, GEOMETRY], kept[:, SOURCE] = given.unbind(1)
        noisy = self.noise.add(clean, draws.normal(*clean.shape[1:]).to(device), late)
        with torch.no_grad():
            nearer = self.follow(noisy, late, early, encoded, kept)
            goal = self.end(average, nearer, early, encoded, kept)
        error = self.end(model, noisy, late, encoded, kept) - goal
        return {"consistency": ((error.square() + HUBER**2).sqrt() - HUBER).mean()}

    def follow(
        self, noisy: Tensor, late: Tensor, early: Tensor, encoded: Encoded, kept: Tensor
    ) -> Tensor:
        """The latent after a DDIM step of the guided teacher from one time to an earlier one."""
        output = self.teacher(noisy, late, encoded, kept).float()
        clean, noise = self.noise.split(noisy, output, late)
        if (guidance := self.settings.guidance) > 1:
            without = kept.clone()
            without[:, SOURCE] = False
            output = self.teacher(noisy, late, encoded, without).float()
            plain_clean, plain_noise = self.noise.split(noisy, output, late)
            clean = plain_clean + guidance * (clean - plain_clean)
            noise = plain_noise + guidance * (noise - plain_noise)
        return self.noise.add(clean, noise, early)

    def end(
        self, model: nn.Module, noisy: Tensor, time: Tensor, encoded: Encoded, kept: Tensor
    ) -> Tensor:
        """The clean latent that a model predicts; at time 0 this is its input."""
        skip, out = boundary(time)
        clean, _ = self.noise.split(noisy, model(noisy, time, encoded, kept).float(), time)
        return skip * noisy + out * clean


def boundary(time: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of input and prediction, (1, 0) at time 0.  long [B] -> [B, 1, 1, 1] each.

    Source: Luo et al. 2023, eq. 9, with the numbers of diffusers' `LCMScheduler`.
    """
    scaled = (time.float() * SCALING)[:, None, None, None]
    total = scaled.square() + SIGMA**2
    return SIGMA**2 / total, scaled / total.sqrt()
