# SPDX-License-Identifier: Apache-2.0
"""Noise schedule and sampling of features, with classifier-free guidance.

Source: DDPM (Ho et al., NeurIPS 2020) with the noise schedule of Stable Diffusion, discretised to
any number of timesteps; DDIM (Song et al., ICLR 2021). Both branches of the guidance and all views
are computed in one call of the denoiser.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from viewsynth.records import seed_of
from viewsynth.reid.sd_reid.mode import FIXED, Mode

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SEED = 1111  # of the random generator in the mode `running_noise`, as in the release


def schedule(times: int, mode: Mode = FIXED) -> DDIMScheduler | DDPMScheduler:
    """The scheduler of a mode.

    Args:
        times: Number of timesteps; the first and the last beta do not depend on it.
        mode: The mode.
    """
    shared = {**BETAS, "num_train_timesteps": times, "clip_sample": False}
    if mode.leading:
        return DDPMScheduler(**shared, timestep_spacing="leading", steps_offset=1)
    return DDIMScheduler(**shared, timestep_spacing="trailing")


def sample_timesteps(uniform: Tensor, times: int) -> Tensor:
    """Random timesteps for training, floor((1 - u^3) times): mostly with much noise.

    Source: the release of SD-ReID.

    Args:
        uniform: Random numbers in [0, 1).  [B]
        times: Number of timesteps.

    Returns:
        int64 [B]
    """
    return ((1 - uniform**3) * times).long().clamp(0, times - 1)


def initial_noise(views: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """Initial noise of the sampling: fixed for each view and equal for all images.

    Source: ours. Noise that is fixed for each image would be deterministic, too, but features of
    two images of a person would also differ by their noise.

    Args:
        views: Number of views.
        count: Number of images.
        shape: Shape of a latent.

    Returns:
        float32 [views, count, *shape], on the CPU.
    """
    rows = []
    for view in range(views):
        generator = torch.Generator().manual_seed(seed_of(0, "feature", view))
        rows.append(torch.randn(1, *shape, generator=generator).expand(count, *shape))
    return torch.stack(rows)


@torch.no_grad()
def sample(
    model,
    condition: Tensor,
    noise: Tensor,
    steps: int,
    guidance: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample one feature for every view of every image.

    Args:
        model: A `model.Generator`.
        condition: Identity conditions.  [B, T - 1, D]
        noise: Initial noise for the first V views, in the order of the prototypes.
            [V, B, *shape]
        steps: Number of sampling steps.
        guidance: Scale of the classifier-free guidance; 1 = no guidance, in half the time.
        generator: Random generator for the noise of ancestral sampling.

    Returns:
        features, not normalised, before the neck.  [V, B, D]
    """
    mode, (views, count) = model.mode, noise.shape[:2]
    prototypes = model.prototypes[:views].to(noise.device)
    tokens = torch.cat([model.tokens(condition, one.expand(count, -1)) for one in prototypes])
    prototypes = prototypes.repeat_interleave(count, 0)
    down, up = model.maps(prototypes)
    if guidance != 1:
        tokens = torch.cat([model.fusion.null(len(tokens), mode.zero_null), tokens])
        down, up = ([torch.cat([each, each]) for each in maps] for maps in (down, up))
    up = [] if mode.lost_residuals else up
    options = {"generator": generator} if mode.leading else {"eta": 0.0}
    scheduler = schedule(model.times, mode)
    scheduler.set_timesteps(steps)
    latents = noise.flatten(0, 1)
    for time in scheduler.timesteps.tolist():
        predicted = _predict(model.denoiser, latents, time, tokens, down, up, guidance)
        latents = scheduler.step(predicted, time, latents, **options).prev_sample
        if mode.lost_residuals:
            down = down[: len(down) // 2]
    features = model.features.inverse(model.feature(latents, prototypes))
    return features.unflatten(0, (views, count))


def _predict(
    denoiser,
    latents: Tensor,
    time: int,
    tokens: Tensor,
    down: list[Tensor],
    up: list[Tensor],
    guidance: float,
) -> Tensor:
    """Predicted noise with guidance; tokens and maps are those of the branches in use.

    Returns:
        float32 [V * B, *shape]
    """
    batch = torch.cat([latents, latents]) if guidance != 1 else latents
    times = torch.full((len(batch),), time, device=batch.device)
    predicted = denoiser(batch, times, tokens, down, up).float()
    if guidance == 1:
        return predicted
    unconditional, conditional = predicted.chunk(2)
    return unconditional + guidance * (conditional - unconditional)
