# SPDX-License-Identifier: Apache-2.0
"""Sampling: settings, per-row random generators, batches and the denoising loop of the pipeline.

Each row (one view) has a random generator of its own for all its noise. A batch that runs out of
memory is halved and repeated. Nothing here calls a network directly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor

from viewsynth.diffusion.conditions import CONDITION_GROUPS
from viewsynth.records import seed_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """Settings of the sampler, see `ViewDiffusionPipeline.sample`.

    Args:
        steps: Number of denoising steps.
        guidance: Scale of the classifier-free guidance; 1 = none.
        strength: Share of the noise schedule that is run, (0, 1].
        keep_seen: Weight of the rendering at seen pixels, [0, 1].
        kept: Groups of conditions that the model gets, see `conditions.CONDITION_GROUPS`.

    Raises:
        ValueError: If a value is out of range.
    """

    steps: int = 4
    guidance: float = 1.0
    strength: float = 1.0
    keep_seen: float = 0.5
    kept: Sequence[str] = CONDITION_GROUPS

    def __post_init__(self):
        for name, value, low, high in (
            ("num_inference_steps", self.steps, 1, 1000),
            ("guidance_scale", self.guidance, 0, 100),
            ("keep_seen", self.keep_seen, 0, 1),
            ("strength", self.strength, 0.02, 1),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
        if self.steps > 1000 * self.strength:
            raise ValueError(
                f"num_inference_steps must be at most {1000 * self.strength:g} at a strength of "
                f"{self.strength}, because the schedule has 1000 steps; got {self.steps}"
            )
        if unknown := set(self.kept) - set(CONDITION_GROUPS):
            raise ValueError(
                f"kept must be some of {', '.join(CONDITION_GROUPS)}; got {sorted(unknown)}"
            )


# ---- rows ----------------------------------------------------------------------------------------


def generators(
    given: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> list[torch.Generator]:
    """One generator per row, so that a row's noise is independent of the rest of the batch.

    Args:
        given: One generator per row; or one, from which a seed of each row is drawn in order; or
            None = fixed seeds.
        count: Number of rows.

    Raises:
        ValueError: If the number of generators differs from the number of rows.
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
        raise ValueError(f"generator: expected one or {count} (one per view), got {len(given)}")
    return list(given)


def copies(
    rows: Sequence[torch.Generator], states: Sequence[Tensor], indices: Sequence[int]
) -> list[torch.Generator]:
    """New generators for some of the rows, which leave those of the caller unchanged.

    Args:
        rows: Generators of all rows, for their devices.
        states: State of the generator of each row.
        indices: Rows wanted; an index may occur several times.
    """
    own = [torch.Generator(rows[k].device) for k in indices]
    for one, k in zip(own, indices, strict=True):
        one.set_state(states[k])
    return own


def noise(shape: tuple[int, ...], rows: Sequence[torch.Generator], device) -> Tensor:
    """Standard normal noise in float32, each row from its own generator.

    Args:
        shape: Shape of one row.
        rows: Generator of each row.
        device: Device of the result.

    Returns:
        [B, *shape].
    """
    samples = [torch.randn(shape, generator=one, device=one.device).to(device) for one in rows]
    return torch.stack(samples)


def in_batches(
    function: Callable[[list[int]], Tensor], count: int, batch: int = 0, static: bool = False
) -> Tensor:
    """Call a function on batches of rows, and halve the batch when memory runs out.

    Args:
        function: Row indices -> results, [N] -> [N, ...]. It must not depend on earlier calls,
            because a batch that failed is repeated.
        count: Number of rows.
        batch: Maximum number of rows per call; 0 = all.
        static: Pass exactly `batch` rows to every call, by repeating the last row and dropping its
            results. `torch.compile` prefers this; and since kernels then see one shape only, a row
            gets the same bits whatever the other rows are.

    Returns:
        [count, ...], in the order of the rows.

    Raises:
        torch.OutOfMemoryError: If a single row does not fit into memory.
    """
    batch = batch if static else min(batch or count, count)
    done, parts = 0, []
    while done < count:
        rows = list(range(done, min(done + batch, count)))
        padded = rows + [rows[-1]] * (batch - len(rows)) if static else rows
        try:
            parts.append(function(padded)[: len(rows)])
            done += len(rows)
            continue
        except torch.OutOfMemoryError:
            if batch == 1:
                logger.error("out of memory with a single view; use lower precision or offloading")
                raise
        # Outside the handler, whose traceback keeps the tensors of the failed batch alive.
        batch = (len(padded) + 1) // 2
        logger.warning("out of memory: continuing with %d views per batch", batch)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return torch.cat(parts)


# ---- denoising -----------------------------------------------------------------------------------


def set_timesteps(scheduler, steps: int, strength: float, device) -> Tensor:
    """Set the timesteps of a scheduler: the last `steps` of a schedule of `steps / strength`.

    Args:
        scheduler: A scheduler of diffusers.
        steps: Number of steps.
        strength: Share of the noise schedule that is run, (0, 1].
        device: Device of the timesteps.

    Returns:
        The timesteps, in descending order.
    """
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


def initial_latents(
    scheduler, timesteps: Tensor, noise: Tensor, image_latents: Tensor | None
) -> Tensor:
    """Latents at the first timestep, in float32.

    Source: starting from a noised image: SDEdit (Meng et al., ICLR 2022, arXiv 2108.01073).

    Args:
        scheduler: Scheduler whose timesteps are set.
        timesteps: See `set_timesteps`.
        noise: Standard normal.  float32 [B, C, h, w]
        image_latents: Latents of the images to start from; None = start from noise alone.
            [B, C, h, w]
    """
    if image_latents is None:
        return noise * scheduler.init_noise_sigma
    return scheduler.add_noise(image_latents.float(), noise, timesteps[:1])


def denoise(
    scheduler,
    predict: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    timesteps: Tensor,
    rows: list[torch.Generator],
    guidance: float = 1.0,
    callback: Callable | None = None,
) -> Tensor:
    """The denoising loop, for any scheduler with one model output per step, in float32.

    Source: classifier-free guidance (Ho and Salimans, 2022, arXiv 2207.12598).

    Args:
        scheduler: Scheduler whose timesteps are set.
        predict: (scaled latents, timestep) -> model output. With guidance the latents come twice,
            in one call, and the second half of the output is the prediction to lead away from.
        latents: See `initial_latents`.
        timesteps: See `set_timesteps`.
        rows: Generator of each row, for schedulers that add noise in their steps.
        guidance: Scale of the guidance; 1 = none.
        callback: (step, timestep, {"latents": ...}) -> replacements of these, or None.

    Returns:
        Denoised latents.  float32 [B, C, h, w]
    """
    extra = {"generator": rows} if "generator" in signature(scheduler.step).parameters else {}
    for step, timestep in enumerate(timesteps):
        inputs = scheduler.scale_model_input(latents, timestep)
        output = predict(torch.cat([inputs, inputs]) if guidance != 1 else inputs, timestep).float()
        if guidance != 1:
            towards, away = output.chunk(2)
            output = away + guidance * (towards - away)
        latents = scheduler.step(output, timestep, latents, return_dict=False, **extra)[0]
        if callback is not None:
            changes = callback(step, timestep, {"latents": latents}) or {}
            latents = changes.get("latents", latents)
    return latents
