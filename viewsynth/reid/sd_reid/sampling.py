# SPDX-License-Identifier: Apache-2.0
"""Sampling: how noisy a latent is at a time, and from noise to a feature of every view.

Source: DDPM (Ho et al., NeurIPS 2020) with the noise of Stable Diffusion, discretised over as many
times as the data set wants; DDIM (Song et al., ICLR 2021) with classifier-free guidance, both
branches and all views in one call of the denoiser.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from viewsynth.records import seed_of
from viewsynth.reid.sd_reid.mode import FIXED, Mode

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SEED = 1111  # of the generator that runs through all pictures, as in the release


def schedule(times: int, mode: Mode = FIXED) -> DDIMScheduler | DDPMScheduler:
    """The sampler of a mode.

    Args:
        times: How many times there are; the first and last noise are the same for any number.
    """
    shared = {**BETAS, "num_train_timesteps": times, "clip_sample": False}
    if mode.leading:
        return DDPMScheduler(**shared, timestep_spacing="leading", steps_offset=1)
    return DDIMScheduler(**shared, timestep_spacing="trailing")


def draw_times(uniform: Tensor, times: int) -> Tensor:
    """Times to learn from: floor((1 - u^3) times), mostly noisy ones.  [B] -> int64 [B]

    Source: SD-ReID, section 2.4 of its release.
    """
    return ((1 - uniform**3) * times).long().clamp(0, times - 1)


def starts(views: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """The noise that sampling starts from: that of a view, the same for all pictures.

    Source: ours. A noise of each picture's own would be as deterministic, but two pictures of a
    person would differ by it as well as by what they show.

    Args:
        views: How many features of each picture are wanted.
        count: Pictures.
        shape: Of a latent.
    Returns: float32 [views, count, *shape], on the CPU.
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
    """One feature of every view of every picture.

    Args:
        model: A `model.Generator`.
        condition: Identity conditions.  [B, T - 1, D]
        noise: To start from; its first axis says how many views, in the order of the prototypes.
            [V, B, *shape]
        steps: Of the sampler.
        guidance: How far from no condition to go; 1 = the condition alone, in half the time.
        generator: Of the noise of an ancestral sampler.
    Returns: features, not normalised, before the neck.  [V, B, D]
    """
    views, count = noise.shape[:2]
    wanted = model.prototypes[:views].to(noise.device)
    mode = model.mode
    tokens = torch.cat([model.tokens(condition, one.expand(count, -1)) for one in wanted])
    prototypes = wanted.repeat_interleave(count, 0)
    down, up = model.maps(prototypes)
    both = guidance != 1
    if both:
        tokens = torch.cat([model.fusion.null(len(tokens), mode.zero_null), tokens])
        down, up = ([torch.cat([each, each]) for each in maps] for maps in (down, up))
    sampler = schedule(model.times, mode)
    sampler.set_timesteps(steps)
    latents = noise.flatten(0, 1)
    for time in sampler.timesteps.tolist():
        if mode.lost_residuals:
            up = []
        given = torch.cat([latents, latents]) if both else latents
        at = torch.full((len(given),), time, device=given.device)
        found = model.denoiser(given, at, tokens, down, up)
        if both:
            nothing, told = found.float().chunk(2)
            found = nothing + guidance * (told - nothing)
        latents = sampler.step(
            found.float(),
            time,
            latents,
            **({"generator": generator} if mode.leading else {"eta": 0.0}),
        ).prev_sample
        if mode.lost_residuals:
            down = down[: len(down) // 2]
    features = model.features.back(model.feature(latents, prototypes))
    return features.unflatten(0, (views, count))
