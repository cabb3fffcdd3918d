# SPDX-License-Identifier: Apache-2.0
"""What a ReID training run optimizes: the `training.loop.Task` for images of people.

A batch (P identities, K images of each) is computed in equal parts. Each part is mined and
normalized on its own; with the same `--optim.parts`, losses and weights do not depend on the number
of processes.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from viewsynth.records import seed_of
from viewsynth.reid import banks, methods
from viewsynth.reid.batches import Batch, stream
from viewsynth.reid.options import Augmentation, ReIDOptimization
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.sampler import Plan

MOMENTUM = 0.9
LEARNS, TRIES, FALL = 16, 12, 0.9  # images, steps and ratio of the start-up check


@dataclass(frozen=True)
class ReIDTask:
    """Images of people as a `training.loop.Task`.

    Args:
        plan: Images of each step; its pool has the samples of `pixels`, in their order.
        pixels: The images.
        augmentation: How images are varied.
        settings: Optimizer, learning rate, moving average.
        banks: Whether a method's memory bank is rebuilt every epoch: in its last stage.
    """

    plan: Plan
    pixels: Pixels
    augmentation: Augmentation
    settings: ReIDOptimization
    banks: bool = True
    unit: str = "images"

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.plan.steps

    @property
    def advice(self) -> str:
        """Options to change if the run diverges."""
        return f"lower --optim.rate ({self.settings.rate:g}) or lengthen --optim.warmup"

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """SGD with momentum, or AdamW."""
        groups = methods.groups(
            model,
            self.settings.decay,
            self.settings.head_rate,
            self.settings.decay_tokens == "yes",
        )
        if self.settings.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=self.settings.rate, fused=True)
        return torch.optim.SGD(groups, lr=self.settings.rate, momentum=MOMENTUM, fused=True)

    def part(self, number: int, parts: int) -> slice:
        """Positions of some whole identities of a batch. See `loop.Task.part`."""
        return self.plan.part(number, parts)

    def stream(self, first: int, part: slice, device: torch.device) -> Iterator[Batch]:
        """Augmented images of one part of each batch from step `first` on, read ahead."""
        steps = range(first, self.steps)
        return stream(self.plan, self.pixels, self.augmentation, steps, part, device)

    def before(self, step: int, model: nn.Module, accelerator) -> None:
        """At the start of an epoch, rebuild the memory bank of a method that has one."""
        plan = self.plan
        epoch = max(len(plan.pool.samples) // (plan.people * plan.each), 1)
        if not self.banks or step % epoch or not hasattr(model, "rebuild"):
            return
        rows = banks.features(model, model.bank_features, self.pixels, accelerator)
        columns = plan.pool.labels, plan.pool.views, plan.pool.weights
        model.rebuild(rows, *(torch.from_numpy(one).to(rows.device) for one in columns))

    def losses(
        self, model: nn.Module, average: nn.Module, batch: Batch, step: int, part: slice
    ) -> dict[str, Tensor]:
        """See `loop.Task.losses`."""
        seed = seed_of(self.plan.seed, "step", step, part.start)
        torch.manual_seed(seed)  # for backbones with dropout or stochastic depth
        with _attention(batch.images.device):
            found = model(batch, step >= self.settings.mine_synthetic_from * self.steps)
        return found | {"identity": self.settings.identity * found["identity"]}

    def names(self, step: int) -> list[str]:
        """Names of the images of a step."""
        samples = self.plan.pool.samples
        return [samples[number].name for number in self.plan.batch(step).tolist()]


def _attention(device: torch.device):
    """Attention by matrix products in bfloat16 on a CPU, where torch's fused one is slower."""
    slow = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return sdpa_kernel(SDPBackend.MATH) if slow else contextlib.nullcontext()


def check_learns(method: nn.Module, batch: Batch, rate: float = 1e-3) -> tuple[float, float]:
    """Check that a copy of a method overfits a few images in a few steps.

    A model whose weights were not loaded, or whose loss is wired wrongly, does not: the most common
    complaint in the field is an mAP that never rises.

    Args:
        method: See `reid.methods`; its weights are not changed.
        batch: Its first `LEARNS` images are used.
        rate: Learning rate of AdamW.

    Returns:
        Losses before and after, the latter at most `FALL` of the former.

    Raises:
        ValueError: If the loss does not fall.
    """
    small = Batch(**{key: value[:LEARNS] for key, value in vars(batch).items()})
    model = copy.deepcopy(method).train()
    optimizer = torch.optim.AdamW(methods.groups(model, 0.0), lr=rate)
    seen = []
    for _ in range(TRIES):
        loss = sum(model(small, True).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    if not min(seen[-3:]) <= FALL * seen[0]:
        raise ValueError(
            f"the model does not learn: its loss on {len(small.names)} images went from "
            f"{seen[0]:.2f} to {seen[-1]:.2f} in {TRIES} steps. Were the right weights loaded "
            "(--model.backbone)? Do the images show the people in their names (viewsynth data)?"
        )
    return seen[0], seen[-1]
