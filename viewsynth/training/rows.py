# SPDX-License-Identifier: Apache-2.0
"""Training on numbered rows of data with random noise: the `Task` of diffusion and SD-ReID."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from viewsynth.records import seed_of
from viewsynth.training.options import Optimization


@dataclass(frozen=True)
class Plan:
    """Which rows the batch of a step has: all rows in a new random order, epoch after epoch.

    Args:
        settings: Number of steps and rows in a batch.
        count: Number of rows, > 0.
        seed: Seed of the run.
        name: Number of a row -> its name in messages.
    """

    settings: Optimization
    count: int
    seed: int
    name: Callable[[int], str]

    def batch(self, step: int) -> np.ndarray:
        """Rows of a step.  int64 [batch]."""
        size = self.settings.batch
        at = np.arange(step * size, (step + 1) * size)
        orders = {epoch: self._order(epoch) for epoch in np.unique(at // self.count).tolist()}
        return np.array([orders[p // self.count][p % self.count] for p in at.tolist()], np.int64)

    def _order(self, epoch: int) -> np.ndarray:
        return _order(self.seed, epoch, self.count)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """All rows in the order of an epoch; each part of a batch asks for it anew."""
    return np.random.default_rng(seed_of(seed, "epoch", epoch)).permutation(count)


class Draws:
    """Random numbers of some rows of a batch.

    They are drawn for the whole batch, so a row gets the same numbers in any number of processes.

    Args:
        size: Rows of the whole batch.
        rows: Positions of the rows that are needed.
        seed: Seed of the run.
        names: What the numbers are for; see `records.seed_of`.
    """

    def __init__(self, size: int, rows: slice, seed: int, *names: str | int):
        self.size, self.rows = size, rows
        self.generator = torch.Generator().manual_seed(seed_of(seed, *names))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal.  [rows, *shape]."""
        return torch.randn(self.size, *shape, generator=self.generator)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1).  [rows, *shape]."""
        return torch.rand(self.size, *shape, generator=self.generator)[self.rows]

    def spread(self) -> Tensor:
        """Uniform in [0, 1), stratified over the batch so that batches are alike.  [rows].

        Source: Kingma et al., Variational Diffusion Models, NeurIPS 2021, app. I.1.
        """
        first = torch.rand(1, generator=self.generator)
        return ((first + torch.arange(self.size) / self.size) % 1)[self.rows]


class Losses(Protocol):
    """The losses of a batch of rows."""

    def __call__(
        self, model: nn.Module, average: nn.Module, rows: np.ndarray, draws: Draws
    ) -> dict[str, Tensor]:
        """Losses by name, each a mean over the rows; their sum is minimized.

        Args:
            model: The model that is trained, as accelerate wrapped it: call it, do not unwrap it.
            average: Its moving average.
            rows: Some rows of the batch.  int64 [B]
            draws: Random numbers of these rows.
        """
        ...


@dataclass(frozen=True)
class RowTask:
    """Losses and rows as a `loop.Task`.

    Args:
        plan: Rows of each step.
        losses_of: Losses of a batch of rows.
        unit: What the rows are, for messages.
    """

    plan: Plan
    losses_of: Losses
    unit: str = "pairs"

    def before(self, step: int, model: nn.Module, accelerator) -> None:
        """Nothing is done before a step."""

    @property
    def settings(self) -> Optimization:
        """Learning rate, clipping, parts, moving average."""
        return self.plan.settings

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.steps

    @property
    def advice(self) -> str:
        """Options to change if the run diverges."""
        group, rate = self.settings.GROUP, self.settings.rate
        return f"lower --{group}.rate ({rate:g}), lengthen --{group}.warmup, or use bf16, not fp16"

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW; weights of one dimension (biases, norms) have no weight decay."""
        weights = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.ndim > 1], "weight_decay": self.settings.decay},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.settings.rate, betas=(0.9, 0.99), fused=True)

    def part(self, number: int, parts: int) -> slice:
        """Positions of one of the equal parts of a batch. See `loop.Task.part`."""
        size, group = self.settings.batch, self.settings.GROUP
        if size % parts:
            raise ValueError(
                f"{group}.batch must be a multiple of {parts}, its number of parts (at least one "
                f"per process); got {size}"
            )
        each = size // parts
        return slice(number * each, (number + 1) * each)

    def stream(self, first: int, part: slice, device: torch.device) -> Iterator[np.ndarray]:
        """Rows of one part of each batch from step `first` on."""
        return (self.plan.batch(step)[part] for step in range(first, self.steps))

    def losses(
        self, model: nn.Module, average: nn.Module, batch: np.ndarray, step: int, part: slice
    ) -> dict[str, Tensor]:
        """See `loop.Task.losses`."""
        draws = Draws(self.settings.batch, part, self.plan.seed, "step", step)
        return self.losses_of(model, average, batch, draws)

    def names(self, step: int) -> list[str]:
        """Names of the rows of a step."""
        return [self.plan.name(row) for row in self.plan.batch(step).tolist()]
