# SPDX-License-Identifier: Apache-2.0
"""Batches for the training loop: images and labels of a plan's steps, read ahead and augmented.

reid.sampler, reid.pixels, reid.augment -> `stream` -> `Batch` -> reid.methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from viewsynth.reid.attributes import description
from viewsynth.reid.augment import augment
from viewsynth.reid.options import Augmentation
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.pool import Pool
from viewsynth.reid.sampler import Plan


@dataclass(frozen=True, eq=False)
class Batch:
    """Training images with their labels.

    Args:
        images: RGB in [0, 1], augmented, not normalised.  float32 [B, 3, H, W]
        labels: Identity, index into the pool's `pids`.  int64 [B]
        cameras: Camera, numbered over the pool.  int64 [B]
        views: Index into the pool's `view_names`: 0 ground, 1 aerial, or the platform.  int64 [B]
        synthetic: Whether an image is synthetic.  bool [B]
        weights: Weight in the losses, 1 for real images.  float32 [B]
        attributes: 1 = yes, 0 = no, -1 = unknown, for the pool's `attribute_names`.  int8 [B, A]
        indices: Index of each image into the pool.  int64 [B]
        texts: A description of each person, "" = none, see `attributes.description`.
        names: Names of the samples, for messages.
    """

    images: Tensor
    labels: Tensor
    cameras: Tensor
    views: Tensor
    synthetic: Tensor
    weights: Tensor
    attributes: Tensor
    indices: Tensor
    texts: list[str]
    names: list[str]

    def to(self, device: str | torch.device) -> Batch:
        """The batch on `device`."""
        values = (getattr(self, field.name) for field in fields(self))
        return Batch(*(v.to(device) if isinstance(v, Tensor) else v for v in values))


def assemble(pool: Pool, indices: np.ndarray, images: Tensor) -> Batch:
    """A batch of augmented images, on their device.

    Args:
        pool: The training pool.
        indices: Indices of the images into the pool.  int64 [B]
        images: Augmented images.  float32 [B, 3, H, W]
    """
    columns = (pool.labels, pool.cameras, pool.views, pool.synthetic, pool.weights)
    columns += (pool.attributes, np.arange(len(pool.samples)))
    values = [torch.from_numpy(array[indices]).to(images.device) for array in columns]
    samples = [pool.samples[n] for n in indices.tolist()]
    texts, names = [description(one) for one in samples], [one.name for one in samples]
    return Batch(images, *values, texts=texts, names=names)


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
        plan: The batches of the run; its pool must have the samples of `pixels`, in their order.
        pixels: The images.
        recipe: The augmentation.
        steps: Steps of the run, e.g. range(done, plan.steps).
        part: Slots of the batch that this process computes, see `Plan.part`.
        device: Device of the augmentation and of the batches.
        threads: Number of threads that read images.
    """
    assert len(plan.pool.samples) == len(pixels.samples), "call pool.keep(pixels.usable) first"
    slots = np.arange(plan.people * plan.each)[part]
    ahead, now = itertools.tee((step, plan.batch(step)[part]) for step in steps)
    read = pixels.prefetch((indices for _, indices in ahead), threads)
    for images, (step, indices) in zip(read, now, strict=True):
        augmented = augment(images.to(device), plan.seed, step, slots, recipe)
        yield assemble(plan.pool, indices, augmented)
