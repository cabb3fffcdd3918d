# SPDX-License-Identifier: Apache-2.0
"""Training: a pipeline and pairs in, a pipeline that makes aerial views out.

pairs -> `Latents` (everything that is frozen, once) -> `Denoising` (the loss) -> `training.loop`. What
the UNet sees comes from `pipeline.predict`, as in sampling.

Pairs that are alike in identity but not by pixel (see `pairs`) must not teach that the rendering
lies about the layout. While a latent is mostly noise the layout has still to be decided, and only
the rendering tells it; once it shows, noise hides no more than texture, light and the sensor, which
such pairs know best. So their geometry is dropped with the share of noise, 1 - alpha_bar(t).
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.diffusion.conditions import KEPT, Conditions
from viewsynth.diffusion.networks import to_grid
from viewsynth.diffusion.options import DiffusionOptimization
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.diffusion.pipeline import Encoded, ViewDiffusionPipeline
from viewsynth.records import seed_of
from viewsynth.training import loop
from viewsynth.training.loop import Run
from viewsynth.training.rows import Draws, Plan, RowTask

CHUNK = 64  # pairs that are encoded at once
# Where LoRA sits: attention, and the convolution that first meets the conditions' channels, whose
# weights are zero in a UNet that never saw them.
LORA = ("to_q", "to_k", "to_v", "to_out.0", "conv_in")
# The least weight of v prediction: where a picture starts from pure noise (zero terminal SNR), the
# weight of the paper is zero, and the first of a few steps would never be learnt.
LEAST = 0.25
GEOMETRY = KEPT.index("geometry")


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
    """Say which weights learn: the conditioner, and the UNet or a LoRA of it; no encoder does.

    Source: LoRA: Hu et al., ICLR 2022 (arXiv 2106.09685).

    Args:
        rank: Of the LoRA; 0 = the whole UNet learns.
        checkpointing: Whether activations are computed again, for less memory.
        seed: Of the LoRA's first weights.
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
    if pipeline.unet.device.type == "cpu":  # where the fused one is slow backwards: a third a step
        from diffusers.models.attention_processor import AttnProcessor

        pipeline.unet.set_attn_processor(AttnProcessor())


def save_lora(pipeline: ViewDiffusionPipeline, folder: Path) -> None:
    """Write the LoRA, for `load_lora_weights`, and the conditioner that belongs to it."""
    from peft.utils import get_peft_model_state_dict

    layers = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(folder, unet_lora_layers=layers)
    pipeline.conditioner.save_pretrained(folder / "conditioner")


def merge_lora(pipeline: ViewDiffusionPipeline) -> None:
    """Make the LoRA part of the UNet's own weights."""
    pipeline.unet.fuse_lora()
    pipeline.unet.unload_lora()


class Denoiser(nn.Module):
    """What learns of a pipeline, in a form that a launcher can wrap."""

    def __init__(self, pipeline: ViewDiffusionPipeline):
        super().__init__()
        self.unet, self.conditioner, self.pipeline = pipeline.unet, pipeline.conditioner, pipeline

    def __deepcopy__(self, memo: dict) -> Denoiser:
        """A copy with a pipeline of its own, whose encoders are shared."""
        twin = copy.copy(self.pipeline)
        twin.unet, twin.conditioner = (
            copy.deepcopy(m, memo) for m in (self.unet, self.conditioner)
        )
        return Denoiser(twin)

    def forward(self, noisy: Tensor, timestep: Tensor, encoded: Encoded, kept: Tensor) -> Tensor:
        """See `ViewDiffusionPipeline.predict`."""
        return self.pipeline.predict(noisy, timestep, encoded, kept)


# ---- what is learnt from -------------------------------------------------------------------------


def held_out(pairs: Pairs, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the pairs that are learnt from, and of those of the people of the validation.

    Args:
        share: Of the people, [0, 1); 0 = nobody is held out.
    Raises: ValueError: if nobody would be left to learn from.
    """
    own = [k for k, row in enumerate(pairs.rows) if row["split"] == "train"]
    if not own:
        raise ValueError(
            f"data.pairs: none of {len(pairs)} pairs is of the split train; those of test people "
            "are to measure on"
        )
    pids = sorted({pairs.rows[k]["pid"] for k in own}, key=lambda p: seed_of(seed, "held out", p))
    count = max(round(share * len(pids)), 1) if share else 0
    if len(pids) <= count:
        raise ValueError(
            f"data.validation: {count} of {len(pids)} training people would be kept, which leaves "
            "nobody to learn from; give more people or --data.validation 0"
        )
    kept = set(pids[:count])
    held = [k for k in own if pairs.rows[k]["pid"] in kept]
    return [k for k in own if pairs.rows[k]["pid"] not in kept], held


class Latents:
    """Pairs as the UNet sees them, encoded once and kept in memory in half precision.

    Row k < N is pair `rows[k]`; row N + k, if `mirror`, the same in a looking-glass: everything is
    flipped, the azimuth changes its sign.

    Args:
        rows: Which pairs.
        mirror: Whether mirrored ones are added.
    """

    def __init__(
        self, pipeline: ViewDiffusionPipeline, pairs: Pairs, rows: list[int], mirror: bool = True
    ):
        self.pairs, self.rows = pairs, rows
        found, targets, masks = [], [], []
        for flip in (False, True)[: 1 + mirror]:
            for start in range(0, len(rows), CHUNK):
                conditions, target, mask = pairs.batch(rows[start : start + CHUNK])
                mask = torch.ones_like(target[:, :1]) if mask is None else mask
                if flip:
                    conditions, target, mask = mirrored(conditions, target, mask)
                found.append(_half(pipeline.encode(conditions)))
                targets.append(pipeline.to_latents(target).half())
                masks.append(to_grid(mask, tuple(targets[-1].shape[-2:])).to(targets[-1]))
        with torch.autocast(targets[0].device.type, enabled=False):  # it knows no halves on a CPU
            self.encoded, self.target, self.mask = (
                _joined(found),
                torch.cat(targets),
                torch.cat(masks),
            )
        exact = [pairs.rows[row]["kind"] == "exact" for row in rows]
        self.exact = torch.tensor(exact * (1 + mirror), device=self.target.device)

    def __len__(self) -> int:
        return len(self.target)

    def name(self, row: int) -> str:
        """What to call a row in messages."""
        number = self.rows[row % len(self.rows)]
        pair = self.pairs.rows[number]
        return f"pair {number} ({pair['pid']}, {pair['kind']}, {pair['elevation']:.0f} degrees)"

    def shares(self, rows: np.ndarray, background: float) -> Tensor:
        """How much each latent counts, 1 in the mean of a row: those of the person more.

        Args:
            background: Weight of the others.
        Returns: float32 [B, 1, h, w].
        """
        mask = self.mask[torch.from_numpy(rows).to(self.mask.device)].float()
        weight = background + (1 - background) * mask
        return weight / weight.mean((1, 2, 3), keepdim=True)

    def take(self, rows: np.ndarray) -> tuple[Encoded, Tensor, Tensor]:
        """Conditions, latent of the target [B, C, h, w], and whether each pair is exact [B]."""
        at = torch.from_numpy(rows).to(self.target.device)
        some, photos = self.encoded.take(at), self.encoded.person[at]
        names = ("render", "seen", "normals")
        encoded = replace(
            some,
            source=some.source[photos].float(),
            identity=some.identity[photos].float(),
            person=torch.arange(len(at), device=at.device),
            **{name: getattr(some, name).float() for name in names},
        )
        return encoded, self.target[at].float(), self.exact[at]


def mirrored(
    conditions: Conditions, target: Tensor, mask: Tensor
) -> tuple[Conditions, Tensor, Tensor]:
    """A pair as a looking-glass shows it."""
    normals = conditions.normals.flip(-1) * conditions.normals.new_tensor([-1, 1, 1])[:, None, None]
    camera = conditions.camera.clone()
    camera[:, 2] *= -1
    flipped = {name: getattr(conditions, name).flip(-1) for name in ("source", "render", "seen")}
    conditions = replace(conditions, **flipped, normals=normals, camera=camera)
    return conditions, target.flip(-1), mask.flip(-1)


def _half(encoded: Encoded) -> Encoded:
    names = ("source", "identity", "render", "seen", "normals")
    return replace(encoded, **{name: getattr(encoded, name).half() for name in names})


def _joined(parts: list[Encoded]) -> Encoded:
    """One of many; each keeps its photos."""
    before = np.cumsum([0] + [len(part.source) for part in parts])[:-1].tolist()
    parts = [replace(part, person=part.person + n) for part, n in zip(parts, before, strict=True)]
    return Encoded(
        **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Encoded)}
    )


# ---- the loss ------------------------------------------------------------------------------------


class Denoising:
    """Weighted squared error of the prediction, at random noise, with conditions left out."""

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
        kept = draws.uniform(len(KEPT)).to(device) >= chance
        found = model(self.noise.add(target, noise, time), time, encoded, kept).float()
        error = functional.mse_loss(found, self.noise.wanted(target, noise, time), reduction="none")
        error = error * self.latents.shares(rows, self.settings.background)
        weight = self.noise.weight(time, self.settings.gamma)
        return {"loss": (error.flatten(1).mean(1) * weight).mean()}


class Noise:
    """The forward process of a scheduler.

    Args:
        scheduler: Of diffusers, with `alphas_cumprod` and a `prediction_type`.
    """

    def __init__(self, scheduler, device: torch.device | str = "cpu"):
        self.alpha = scheduler.alphas_cumprod.to(device, torch.float32)  # alpha_bar of the papers
        self.kind = scheduler.config.prediction_type
        self.steps = len(self.alpha)
        if self.kind not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"the scheduler's prediction_type must be epsilon or v_prediction; got {self.kind}"
            )
        if self.kind == "epsilon" and float(self.alpha[-1]) < 1e-6:
            raise ValueError(
                "a model that predicts epsilon learns nothing from pure noise: with "
                "rescale_betas_zero_snr the scheduler's prediction_type must be v_prediction"
            )

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of signal and noise.  long [B] -> [B, 1, 1, 1] each"""
        alpha = self.alpha[time][:, None, None, None]
        return alpha.sqrt(), (1 - alpha).sqrt()

    def share(self, time: Tensor) -> Tensor:
        """Variance of the noise, [0, 1].  [B]"""
        return 1 - self.alpha[time]

    def add(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Noisy latents."""
        signal, sigma = self.scales(time)
        return signal * clean + sigma * noise

    def wanted(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the model is to predict.

        Source: v: Salimans and Ho, ICLR 2022 (arXiv 2202.00512), app. D.
        """
        if self.kind == "epsilon":
            return noise
        signal, sigma = self.scales(time)
        return signal * noise - sigma * clean

    def split(self, noisy: Tensor, output: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latent and the noise that a prediction stands for."""
        signal, sigma = self.scales(time)
        if self.kind == "epsilon":
            return (noisy - sigma * output) / signal, output
        return signal * noisy - sigma * output, signal * output + sigma * noisy

    def weight(self, time: Tensor, gamma: float) -> Tensor:
        """Min-SNR weights of the squared error.  [B]

        Source: Hang et al., ICCV 2023 (arXiv 2303.09556), eq. 8 and section 3.4: min(SNR, gamma),
        over SNR for epsilon and over SNR + 1 for v; ours: where noise prevails, at least `LEAST`
        for v.
        """
        alpha = self.alpha[time]
        ratio = alpha / (1 - alpha)
        if self.kind == "epsilon":
            return ratio.clamp(max=gamma) / ratio
        weight = ratio.clamp(max=gamma) / (ratio + 1)
        return torch.where(ratio < 1, weight.clamp(min=LEAST), weight)


@torch.no_grad()
def check(
    pipeline: ViewDiffusionPipeline, latents: Latents, settings: DiffusionOptimization, seed: int
) -> float:
    """The loss at noise that is always the same, over all rows. Nothing is left out at random; of
    identity pairs the geometry is as it is in training.

    Args:
        latents: Held-out pairs.
    """
    whole = replace(settings, drop=(0.0, 0.0, 0.0))
    losses, total = Denoising(pipeline, latents, whole), 0.0
    for start in range(0, len(latents), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(latents)))
        draws = Draws(len(rows), slice(None), seed, "validation", start)
        total += float(losses(Denoiser(pipeline), None, rows, draws)["loss"]) * len(rows)
    return total / len(latents)
