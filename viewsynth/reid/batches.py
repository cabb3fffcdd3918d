# SPDX-License-Identifier: Apache-2.0
"""Batches: pool, plan and pixels put together, as the training loop takes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from viewsynth.reid.augment import augment
from viewsynth.reid.options import Augmentation
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.pool import Pool
from viewsynth.reid.sampler import Plan


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures to learn from, and what is known of them.

    Args:
        images: RGB in [0, 1], augmented, not normalised.  float32 [B, 3, H, W]
        labels: Identity, index into the pool's pids.  int64 [B]
        cameras: int64 [B]
        views: Index into the pool's view names; 0 ground, 1 aerial unless platforms were asked for.
            int64 [B]
        synthetic: bool [B]
        weights: In the losses, 1 for real pictures.  float32 [B]
        names: Of the samples, for messages.
    """

    images: Tensor
    labels: Tensor
    cameras: Tensor
    views: Tensor
    synthetic: Tensor
    weights: Tensor
    names: list[str]

    def to(self, device: str | torch.device) -> Batch:
        """The batch on another device."""
        values = (getattr(self, field.name) for field in fields(self))
        return Batch(*(v.to(device) if isinstance(v, Tensor) else v for v in values))


def assemble(pool: Pool, indices: np.ndarray, images: Tensor) -> Batch:
    """A batch of augmented pictures, on their device.

    Args:
        indices: Into the pool.  int64 [B]
        images: float32 [B, 3, H, W]
    """
    known = (pool.labels, pool.cameras, pool.views, pool.synthetic, pool.weights)
    values = [torch.from_numpy(array[indices]).to(images.device) for array in known]
    return Batch(images, *values, names=[pool.samples[n].name for n in indices.tolist()])


def stream(
    plan: Plan,
    pixels: Pixels,
    recipe: Augmentation,
    steps: Iterable[int],
    part: slice = slice(None),
    device: str | torch.device = "cpu",
    threads: int = 2,
) -> Iterator[Batch]:
    """The batches of some steps, read ahead.

    Args:
        plan: Its pool must have the samples of `pixels`, in their order.
        steps: Of the run, e.g. range(done, plan.steps).
        part: Slots of the batch that this process computes, see `Plan.part`.
        device: Where the pictures are augmented and the batch is.
        threads: That read.
    """
    assert len(plan.pool.samples) == len(pixels.samples), "pool.keep(pixels.usable) was forgotten"
    slots = np.arange(plan.people * plan.pictures)[part]
    ahead, now = itertools.tee((step, plan.batch(step)[part]) for step in steps)
    read = pixels.prefetch((indices for _, indices in ahead), threads)
    for images, (step, indices) in zip(read, now, strict=True):
        varied = augment(images.to(device), plan.seed, step, slots, recipe)
        yield assemble(plan.pool, indices, varied)
