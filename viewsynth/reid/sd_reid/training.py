# SPDX-License-Identifier: Apache-2.0
"""Training of SD-ReID's second stage on cached features: its losses for `training.loop`.

Source: SD-ReID, section 2.4 of its release: mean squared error of the noise, at mostly noisy times.
Ours: half the time the denoised feature is that of any image of the person, under the prototype of
that image's view, as a generated view should be (`mode.Mode.own_target`); doing so always gave a
lower mAP on the tuning world. The decoder `align` adds 1 - cosine between refined and true feature,
weighted by alpha_bar, because a prediction from pure noise has nothing to refine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import sampler
from viewsynth.reid.sd_reid.cache import Cached
from viewsynth.reid.sd_reid.model import Generator
from viewsynth.reid.sd_reid.options import GeneratorOptimization
from viewsynth.reid.sd_reid.sampling import draw_times
from viewsynth.training.rows import Draws

CHUNK = 512  # images of a validation batch


@dataclass(frozen=True)
class Plan:
    """The batches of `reid.sampler` as a `training.rows.Plan`: P people, K images of each."""

    settings: GeneratorOptimization
    people: sampler.Plan

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.people.seed

    def batch(self, step: int) -> np.ndarray:
        """Rows of a step.  int64 [batch]."""
        return self.people.batch(step)

    def name(self, row: int) -> str:
        """Name of a row in messages."""
        return self.people.pool.samples[row].name


class Denoising:
    """Denoising loss of a batch; see `training.rows.Losses`.

    Args:
        generator: The model that is trained, not wrapped.
        cached: Features of the training images.
        settings: Drop rate of the condition.
        device: Device of the model.
    """

    def __init__(
        self, generator: Generator, cached: Cached, settings: GeneratorOptimization, device
    ):
        self.generator, self.cached = generator, cached
        self.settings, self.device = settings, device

    def __call__(
        self, model: nn.Module, average: nn.Module, rows: np.ndarray, draws: Draws
    ) -> dict[str, Tensor]:
        """See `rows.Losses`."""
        own, at = self.generator, torch.from_numpy(rows)
        side = (draws.uniform() < 0.5).long()
        condition = self.cached.condition[side, at].to(self.device).float()
        if not own.mode.own_target:
            other, turned = draws.uniform() < 0.5, (draws.uniform() < 0.5).long()
            at = torch.where(other, self.cached.of_same_person(at, draws.uniform()), at)
            side = torch.where(other, turned, side)
        identity, view = (
            table[side, at].to(self.device) for table in (self.cached.identity, self.cached.view)
        )
        weights = self.cached.weights[at].to(self.device)
        times = draw_times(draws.uniform(), own.times).to(self.device)
        noise = draws.normal(*own.grid.shape).to(self.device)
        dropped = (draws.uniform() < self.settings.drop).to(self.device)
        instance = (draws.uniform() < 0.5).to(self.device)
        prototype = own.prototypes[self.cached.kinds[at].to(self.device)]
        if not own.mode.own_view:
            view = torch.where(instance[:, None], view, prototype)
        told, refined = model(
            own.latent(identity), noise, times, condition, prototype, view, dropped
        )
        errors = (told.float() - noise).square().flatten(1).mean(1)
        losses = {"noise": (errors * weights).mean()}
        if refined is not None:
            apart = 1 - functional.cosine_similarity(refined.float(), own.features(identity))
            losses["align"] = (apart * weights * own.alphas[times]).mean()
        return losses


@torch.no_grad()
def check(
    generator: Generator, cached: Cached, settings: GeneratorOptimization, seed: int, device
) -> float:
    """Validation loss over all images of a cache, with the same noise every time."""
    losses, total = Denoising(generator.eval(), cached, settings, device), 0.0
    for start in range(0, len(cached), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(cached)))
        draws = Draws(len(rows), slice(None), seed, "validation", start)
        total += float(sum(losses(generator, generator, rows, draws).values())) * len(rows)
    return total / len(cached)


def prepare(generator: Generator, cached: Cached, bank: Tensor) -> None:
    """Set the mean and scale of a generator's inputs, and the prototypes of the views.

    Args:
        generator: The model to prepare.
        cached: Features of the training images.
        bank: Moving prototypes of the encoder.  [V, D]
    """
    if not generator.mode.raw:
        for standard, numbers in (
            (generator.features, cached.identity),
            (generator.conditions, cached.condition),
            (generator.view_features, cached.view),
        ):
            standard.mean, standard.scale = cached.moments(numbers)
    if generator.mode.moving_prototypes:
        generator.prototypes = bank.detach().cpu().clone()
    else:
        generator.prototypes = cached.prototypes(len(generator.prototypes))
