# SPDX-License-Identifier: Apache-2.0
"""Training of the view-aware diffusion: which weights are trained, and the denoising loss.

pairs -> `latents.Latents` -> `Denoising` (the loss) -> `training.loop`. The UNet is called through
`pipeline.predict`, as in sampling.

Identity pairs show the same person as their rendering, but not pixel by pixel (see `pairs`). They
must not teach the model to distrust the layout of the rendering. At high noise the layout is still
undecided, and at low noise the image itself shows it. So the geometry of identity pairs is dropped
with probability 1 - alpha_bar(t), the share of noise: they teach texture, light and sensor only.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.diffusion.conditions import CONDITION_GROUPS
from viewsynth.diffusion.latents import CHUNK, Latents
from viewsynth.diffusion.noise import Noise
from viewsynth.diffusion.options import DiffusionOptimization
from viewsynth.diffusion.pipeline import Encoded, ViewDiffusionPipeline
from viewsynth.records import seed_of
from viewsynth.training import loop
from viewsynth.training.loop import Run
from viewsynth.training.rows import Draws, Plan, RowTask

# Layers with a LoRA: attention, and the first convolution, whose weights for the added condition
# channels start at zero.
LORA = ("to_q", "to_k", "to_v", "to_out.0", "conv_in")
GEOMETRY = CONDITION_GROUPS.index("geometry")


def train(
    pipeline: ViewDiffusionPipeline,
    latents: Latents,
    settings: DiffusionOptimization,
    seed: int,
    run: Run,
) -> ViewDiffusionPipeline:
    """Train to the last step, from the newest checkpoint.

    Args:
        pipeline: As `prepare` left it; its weights are changed.
        latents: Training data.
        settings: Steps, learning rate and loss weights.
        seed: Seed of the run.
        run: See `loop.Run`; `validate(step, pipeline)` gets the pipeline with averaged weights.

    Returns:
        The pipeline to use, with the averaged weights.

    Raises:
        DivergedError: See `loop.learn`.
        ValueError: See `loop.learn`.
    """
    plan = Plan(settings, len(latents), seed, latents.name)
    task = RowTask(plan, Denoising(pipeline, latents, settings))
    return loop.learn(Denoiser(pipeline), task, of_pipeline(run)).pipeline


def of_pipeline(run: Run) -> Run:
    """A run whose validation gets the pipeline of a `Denoiser`."""
    if (validate := run.validate) is None:
        return run
    return replace(run, validate=lambda step, model: validate(step, model.pipeline))


def prepare(
    pipeline: ViewDiffusionPipeline, rank: int = 0, checkpointing: bool = False, seed: int = 0
) -> None:
    """Choose the trainable weights: the conditioner, and the UNet or a LoRA of it.

    Encoders are frozen.

    Source: LoRA: Hu et al., ICLR 2022 (arXiv 2106.09685).

    Args:
        pipeline: The pipeline to train.
        rank: Rank of the LoRA; 0 = the whole UNet is trained.
        checkpointing: Whether activations are recomputed in the backward pass, to save memory.
        seed: Seed of the LoRA's initial weights.
    """
    for name in ("vae", "identity_encoder", "unet"):
        if (module := getattr(pipeline, name)) is not None:
            module.requires_grad_(False).eval()
    pipeline.conditioner.requires_grad_(True)
    if rank:
        from peft import LoraConfig

        with torch.random.fork_rng():
            torch.manual_seed(seed_of(seed, "lora"))
            pipeline.unet.add_adapter(
                LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA))
            )
    else:
        pipeline.unet.requires_grad_(True)
    if checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
    if pipeline.unet.device.type == "cpu":  # the fused one is slow backwards there: 1/3 of a step
        from diffusers.models.attention_processor import AttnProcessor

        pipeline.unet.set_attn_processor(AttnProcessor())


def save_lora(pipeline: ViewDiffusionPipeline, folder: Path) -> None:
    """Write the LoRA, as `load_lora_weights` reads it, and its conditioner."""
    from peft.utils import get_peft_model_state_dict

    layers = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(folder, unet_lora_layers=layers)
    pipeline.conditioner.save_pretrained(folder / "conditioner")


def merge_lora(pipeline: ViewDiffusionPipeline) -> None:
    """Merge the LoRA into the weights of the UNet."""
    pipeline.unet.fuse_lora()
    pipeline.unet.unload_lora()


class Denoiser(nn.Module):
    """The trainable parts of a pipeline, as a module that accelerate can wrap."""

    def __init__(self, pipeline: ViewDiffusionPipeline):
        super().__init__()
        self.unet, self.conditioner, self.pipeline = pipeline.unet, pipeline.conditioner, pipeline

    def __deepcopy__(self, memo: dict) -> Denoiser:
        """A copy with its own pipeline, which shares the encoders."""
        twin = copy.copy(self.pipeline)
        twin.unet, twin.conditioner = (
            copy.deepcopy(m, memo) for m in (self.unet, self.conditioner)
        )
        return Denoiser(twin)

    def forward(self, noisy: Tensor, timestep: Tensor, encoded: Encoded, kept: Tensor) -> Tensor:
        """See `ViewDiffusionPipeline.predict`."""
        return self.pipeline.predict(noisy, timestep, encoded, kept)


class Denoising:
    """Weighted squared error of the prediction, at random times, with conditions dropped."""

    def __init__(
        self, pipeline: ViewDiffusionPipeline, latents: Latents, settings: DiffusionOptimization
    ):
        self.latents, self.settings = latents, settings
        self.noise = Noise(pipeline.scheduler, latents.target.device)

    def __call__(self, model: nn.Module, average, rows: np.ndarray, draws: Draws) -> dict:
        """See `rows.Losses`."""
        encoded, target, exact = self.latents.take(rows)
        device = target.device
        time = (draws.spread() * self.noise.steps).long().to(device)
        noise = draws.normal(*target.shape[1:]).to(device)
        chance = target.new_tensor(self.settings.drop).repeat(len(rows), 1)
        unclear = self.noise.share(time).masked_fill(exact, 0)
        chance[:, GEOMETRY] = torch.maximum(chance[:, GEOMETRY], unclear)
        kept = draws.uniform(len(CONDITION_GROUPS)).to(device) >= chance
        found = model(self.noise.add(target, noise, time), time, encoded, kept).float()
        error = functional.mse_loss(found, self.noise.wanted(target, noise, time), reduction="none")
        error = error * self.latents.shares(rows, self.settings.background)
        weight = self.noise.weight(time, self.settings.gamma)
        return {"loss": (error.flatten(1).mean(1) * weight).mean()}


@torch.no_grad()
def check(
    pipeline: ViewDiffusionPipeline, latents: Latents, settings: DiffusionOptimization, seed: int
) -> float:
    """Validation loss: the same noise every time, no condition dropped at random.

    The geometry of identity pairs is dropped as in training.

    Args:
        pipeline: With the weights to check.
        latents: Held-out pairs.
        settings: Weights of the loss.
        seed: Seed of the run.
    """
    whole = replace(settings, drop=(0.0, 0.0, 0.0))
    losses, total = Denoising(pipeline, latents, whole), 0.0
    for start in range(0, len(latents), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(latents)))
        draws = Draws(len(rows), slice(None), seed, "validation", start)
        total += float(losses(Denoiser(pipeline), None, rows, draws)["loss"]) * len(rows)
    return total / len(latents)
