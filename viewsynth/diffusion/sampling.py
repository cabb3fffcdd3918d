# SPDX-License-Identifier: Apache-2.0
"""Sampling: the parts of it that know no network, for `pipeline`.

Each row has a generator of its own, from which all its noise comes; memory that runs out halves the
batch; seen pixels are set back into what was made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from inspect import signature

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viewsynth.records import seed_of
from viewsynth.render.sensor import gaussian
from viewsynth.runtime.images import stretched

MIRRORED = 0.5  # what reconstruction calls a texel that it took from the body's other side
SOFT = 1 / 64  # width of the mask's edge, as a share of the picture's height
LEAST = 0.02  # share of a picture that must be seen before its light is judged by that
DOUBT = 1e-3  # how strongly the light is believed to be the same, before it is looked at

PASSES, ODD = 4, 0.1  # of judging the light; distance in RGB that is no longer a matter of light

logger = logging.getLogger(__name__)


def check(
    steps: int, guidance: float, keep_seen: float, batch: int = 0, strength: float = 1.0
) -> None:
    """Refuse settings of no use, before anything is computed.

    Raises: ValueError: it names the setting.
    """
    for name, value, low, high in (
        ("num_inference_steps", steps, 1, 1000),
        ("guidance_scale", guidance, 0, 100),
        ("keep_seen", keep_seen, 0, 1),
        ("batch", batch, 0, 10**6),
        ("strength", strength, 0.02, 1),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
    if steps > 1000 * strength:
        raise ValueError(
            f"num_inference_steps must be at most {1000 * strength:g} at a strength of {strength}, "
            f"since those are the last ones of 1000; got {steps}"
        )


# ---- rows ----------------------------------------------------------------------------------------


def generators(
    given: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[torch.Generator]:
    """One generator a row: whatever else is in the batch, a row gets the same noise.

    Args:
        given: One a row; or one, from which the seeds of the rows are drawn in their order; or
            None: always the same ones.
    Raises: ValueError: if there are not as many as rows.
    """
    if given is None:
        return [torch.Generator().manual_seed(seed_of(0, "row", row)) for row in range(count)]
    if isinstance(given, torch.Generator):
        seeds = [
            int(torch.randint(2**62, (1,), generator=given, device=given.device))
            for _ in range(count)
        ]
        return [torch.Generator(given.device).manual_seed(seed) for seed in seeds]
    if len(given) != count:
        raise ValueError(f"generator: expected one or {count} (one a view), got {len(given)}")
    return list(given)


def noise(shape: tuple[int, ...], rows: Sequence[torch.Generator], device) -> Tensor:
    """Standard normal, each row from its generator, in float32 whatever the networks run in.

    Args:
        shape: Of one row.
    Returns: [B, *shape] on `device`.
    """
    drawn = [torch.randn(shape, generator=one, device=one.device).to(device) for one in rows]
    return torch.stack(drawn)


def by_halves(
    make: Callable[[list[int]], Tensor], count: int, batch: int = 0, static: bool = False
) -> Tensor:
    """Make rows in batches, each half as large as before when memory runs out.

    Args:
        make: Indices of rows -> their results.  [N] -> [N, ...]; what it draws must not hang on
            earlier calls, since a batch that failed is made again.
        batch: Most rows at once; 0 = all.
        static: Give every call exactly `batch` rows: the last one repeats its last row, and what
            was made of that is dropped. What `torch.compile` wants; and kernels that see one shape
            only give a row the same digits whatever the others are.
    Returns: [count, ...], in the order of the rows.
    Raises: torch.OutOfMemoryError: if one row alone does not fit.
    """
    batch = batch if static else min(batch or count, count)
    done, parts = 0, []
    while done < count:
        rows = list(range(done, min(done + batch, count)))
        padded = rows + [rows[-1]] * (batch - len(rows)) if static else rows
        try:
            parts.append(make(padded)[: len(rows)])
            done += len(rows)
            continue
        except torch.OutOfMemoryError:
            if batch == 1:
                logger.error("out of memory with one view alone; use less precision or offload")
                raise
        # Outside the handler: until it ends, the failed batch's tensors are held by the traceback.
        batch = (len(padded) + 1) // 2
        logger.warning("out of memory: going on with %d views at once", batch)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return torch.cat(parts)


def run(
    scheduler,
    denoise: Callable[[Tensor, Tensor], Tensor],
    begun: Tensor,
    rows: list[torch.Generator],
    steps: int,
    guidance: float = 1.0,
    callback: Callable | None = None,
    start: Tensor | None = None,
    strength: float = 1.0,
) -> Tensor:
    """From noise to latents, by any scheduler that takes one model output a step, in float32.

    Source: classifier-free guidance (Ho and Salimans, 2022, arXiv 2207.12598); beginning with a
    picture under noise: SDEdit (Meng et al., ICLR 2022, arXiv 2108.01073).

    Args:
        denoise: (scaled latents, timestep) -> model output. With guidance it gets the latents
            twice, in one call, and its second half is what guidance leads away from.
        begun: Standard normal.  float32 [B, C, h, w]
        rows: One a row, for schedulers that draw in their steps.
        guidance: 1 = none.
        callback: (step, timestep, {"latents": ...}) -> changes of that, or None.
        start: Latents to begin with.  [B, C, h, w]; not looked at if the strength is 1
        strength: How far into the noise they are taken, (0, 1]; 1 = nothing is left of them.
    """
    times = _times(scheduler, steps, strength, begun.device)
    draws = {"generator": rows} if "generator" in signature(scheduler.step).parameters else {}
    if strength < 1:
        latents = scheduler.add_noise(start.float(), begun, times[:1])
    else:
        latents = begun * scheduler.init_noise_sigma
    for number, step in enumerate(times):
        inputs = scheduler.scale_model_input(latents, step)
        found = denoise(torch.cat([inputs, inputs]) if guidance != 1 else inputs, step).float()
        if guidance != 1:
            towards, away = found.chunk(2)
            found = away + guidance * (towards - away)
        latents = scheduler.step(found, step, latents, return_dict=False, **draws)[0]
        if callback is not None:
            latents = (callback(number, step, {"latents": latents}) or {}).get("latents", latents)
    return latents


def _times(scheduler, steps: int, strength: float, device) -> Tensor:
    """Set a scheduler to so many steps from a strength on: the last ones of a longer schedule."""
    if strength == 1:
        scheduler.set_timesteps(steps, device=device)
        return scheduler.timesteps
    if "strength" in signature(scheduler.set_timesteps).parameters:
        scheduler.set_timesteps(steps, device=device, strength=strength)
        return scheduler.timesteps
    whole = round(steps / strength)
    scheduler.set_timesteps(whole, device=device)
    first = (whole - steps) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


# ---- seen pixels ---------------------------------------------------------------------------------


def reimpose(pictures: Tensor, render: Tensor, seen: Tensor, keep: float) -> Tensor:
    """Set what was really seen back into what was made.

    On decoded pictures, not on latents while sampling (RePaint, Lugmayr et al., CVPR 2022): a cell
    of latents spans 4 to 8 pixels of a person some 30 wide; a sampler of 4 steps cannot harmonise
    what is forced on it; and the rendering has the light of an overcast sky, which the picture has
    not. So the rendering takes the picture's light first, one gain and one offset a channel, by
    least squares over the seen pixels; the mask is soft, and 0 wherever a surface was mirrored or
    invented.

    Args:
        pictures: float [B, 3, H, W] in [0, 1].
        render: float [B, 3, H, W] in [0, 1].
        seen: float [B, 1, H, W] in [0, 1].
        keep: How much of a seen pixel is the rendering's, [0, 1].
    Returns: float [B, 3, H, W] in [0, 1].
    """
    if keep == 0:
        return pictures
    render, seen = render.to(pictures), seen.to(pictures)
    sure = ((seen - MIRRORED) / (1 - MIRRORED)).clamp(0, 1)
    mask = keep * sure * gaussian(sure, SOFT * pictures.shape[-2])
    return torch.lerp(pictures, relit(render, pictures, sure).clamp(0, 1), mask)


def relit(render: Tensor, pictures: Tensor, weight: Tensor) -> Tensor:
    """The rendering in the light of the picture: a x + b a channel, over the weighted pixels.

    Robust, by weights of Cauchy's kind: where the picture shows something else, it does not count.
    Ridge towards a = 1, so that a person of one colour stays so; and with hardly a seen pixel the
    rendering stays as it is.
    """
    total = weight.mean((2, 3), keepdim=True)
    trust, light = weight, render
    for _ in range(PASSES):
        share = trust / trust.sum((2, 3), keepdim=True).clamp_min(1e-6)
        middle, goal = ((x * share).sum((2, 3), keepdim=True) for x in (render, pictures))
        around = (render - middle) * share
        spread = (around * (render - middle)).sum((2, 3), keepdim=True)
        along = (around * (pictures - goal)).sum((2, 3), keepdim=True)
        light = goal + ((along + DOUBT) / (spread + DOUBT)).clamp(0.5, 2) * (render - middle)
        odd = (light - pictures).square().sum(1, keepdim=True)
        trust = weight / (1 + odd / ODD**2)
    return torch.lerp(render, light, (total / LEAST).clamp(0, 1))


# ---- pictures in and out -------------------------------------------------------------------------


def fitted(picture: np.ndarray | Image.Image, size: tuple[int, int]) -> Tensor:
    """A picture at the model's size, its proportions given up.  float [3, H, W] in [0, 1]"""
    if isinstance(picture, Image.Image):
        picture = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(stretched(picture, size).copy()).permute(2, 0, 1).float() / 255


def shown(pictures: Tensor, aspects: Sequence[float]) -> list[Image.Image]:
    """Pictures at about their number of pixels, in the crops' own proportions.

    Args:
        pictures: float [B, 3, H, W] in [0, 1].
        aspects: Width over height.
    """
    area = pictures.shape[-1] * pictures.shape[-2]
    stored = (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    made = []
    for image, aspect in zip(stored, aspects, strict=True):
        height = max(round((area / aspect) ** 0.5), 1)
        size = max(round(height * aspect), 1), height
        made.append(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return made
