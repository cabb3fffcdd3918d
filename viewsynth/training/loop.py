# SPDX-License-Identifier: Apache-2.0
"""The loop: a module, its losses and a plan of batches in, a trained module out.

`diffusion` and `reid.generation` bring the losses; `viewsynth.reid.training` has a loop of its own, for
pictures of people. Batches, noise and learning rate are functions of (seed, step), and all random
numbers of a step are drawn for the whole batch, so neither a stop nor the number of processes
changes what is learnt (but for rounding: with more than two processes the first step after a start
adds up gradients in another order than those after it). As in `viewsynth.reid.training`, a batch may be
computed in parts that are accumulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from viewsynth.records import seed_of
from viewsynth.training import checkpoints
from viewsynth.training.learning import Average, DivergedError, descend, diverged, schedule
from viewsynth.training.options import Optimization


@dataclass(frozen=True)
class Plan:
    """Which rows a step learns from: all of them in a new order, epoch after epoch.

    Args:
        settings: How many steps, of how many rows.
        count: Rows that there are, > 0.
        seed: Of the run.
        name: Number of a row -> what to call it in messages.
    """

    settings: Optimization
    count: int
    seed: int
    name: Callable[[int], str]

    def batch(self, step: int) -> np.ndarray:
        """Rows of a step.  int64 [batch]"""
        size = self.settings.batch
        at = np.arange(step * size, (step + 1) * size)
        orders = {epoch: self._order(epoch) for epoch in np.unique(at // self.count).tolist()}
        return np.array([orders[p // self.count][p % self.count] for p in at.tolist()], np.int64)

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(seed_of(self.seed, "epoch", epoch)).permutation(self.count)


class Draws:
    """Random numbers of some rows of a batch: drawn for all of it, so that nobody's depend on who
    else computes with whom.

    Args:
        size: Rows of the whole batch.
        rows: Those that are asked for.
        names: What is drawn for.
    """

    def __init__(self, size: int, rows: slice, seed: int, *names: str | int):
        self.size, self.rows = size, rows
        self.generator = torch.Generator().manual_seed(seed_of(seed, *names))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal.  [rows, *shape]"""
        return torch.randn(self.size, *shape, generator=self.generator)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1).  [rows, *shape]"""
        return torch.rand(self.size, *shape, generator=self.generator)[self.rows]

    def spread(self) -> Tensor:
        """Uniform in [0, 1), but evenly spread over the batch, so that batches are alike.  [rows]

        Source: Kingma et al., Variational Diffusion Models, NeurIPS 2021, app. I.1.
        """
        first = torch.rand(1, generator=self.generator)
        return ((first + torch.arange(self.size) / self.size) % 1)[self.rows]


class Losses(Protocol):
    """What is to be made small."""

    def __call__(
        self, model: nn.Module, average: nn.Module, rows: np.ndarray, draws: Draws
    ) -> dict[str, Tensor]:
        """Losses by name, each a mean over the rows; their sum is minimised.

        Args:
            model: What learns, as the launcher wrapped it: only calls of it share gradients.
            average: The moving average of it.
            rows: Some rows of the batch.  int64 [B]
        """
        ...


def learn(
    model: nn.Module,
    losses: Losses,
    plan: Plan,
    run: Path,
    accelerator,
    every: int = 500,
    tell: Callable[[int, dict], None] | None = None,
    validate: Callable[[int, nn.Module], dict] | None = None,
) -> nn.Module:
    """Train to the last step of a plan, from the newest checkpoint on.

    Args:
        model: Its weights that want a gradient are changed.
        run: Folder of the checkpoints.
        accelerator: Of the launcher: device, precision, processes.
        every: Optimization between two checkpoints, and between two validations.
        tell: `tell(step, figures)` after each step, in the main process.
        validate: `validate(step, model) -> figures`, in every process, after each checkpoint's
            step and the last one.
    Returns: the model to use: the moving average, or the model itself.

    Raises:
        DivergedError: if a loss or a gradient is not finite. The weights from before that step are
            saved, and `diverged.json` names all rows of it.
        ValueError: if the batch cannot be shared by the processes, or the checkpoint is not of
            this model.
    """
    settings, mine = plan.settings, _parts(plan.settings, accelerator)
    optimizer = _optimizer(model, settings)
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    average = Average(model, settings.average)
    done = _resume(run, model, optimizer, average, accelerator)
    for step in range(done, settings.steps):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * schedule(step, settings.steps, settings.warmup)
        found = _step(wrapped, average, optimizer, losses, plan, step, mine, accelerator)
        if not math.isfinite(sum(found.values())):
            if accelerator.is_main_process:
                _save(run, step, model, optimizer, average, accelerator, {})
            raise _diverged(run, step, plan, found, accelerator)
        average.update(model, step)
        pause = step + 1 == settings.steps or (step + 1) % every == 0
        figures = validate(step + 1, average.model.eval()) if pause and validate else {}
        if accelerator.is_main_process:
            if tell:  # before the checkpoint: what a resumed run does not repeat has been told
                tell(step + 1, found | figures | {"rate": optimizer.param_groups[0]["lr"]})
            if pause:
                _save(run, step + 1, model, optimizer, average, accelerator, figures)
        if pause:
            accelerator.wait_for_everyone()
    optimizer.zero_grad()
    accelerator.free_memory()  # it would hold weights and moments through the stages to come
    return average.model.eval()


# ---- one step ------------------------------------------------------------------------------------


def _parts(settings: Optimization, accelerator) -> list[slice]:
    """The rows of a batch that this process computes, part by part."""
    processes = accelerator.num_processes
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"the launcher asks for {accelerator.gradient_accumulation_steps} accumulated steps; "
            f"use --{settings.GROUP}.parts instead: more parts than processes are accumulated"
        )
    parts = settings.parts or processes
    for what, count, of in (
        ("parts", parts, processes),
        ("batch", settings.batch, parts),
    ):
        if count % of:
            raise ValueError(
                f"{settings.GROUP}.{what} must be a multiple of {of}, so that {processes} "
                f"process(es) can share it; got {count}"
            )
    each = settings.batch // parts
    own = range(accelerator.process_index, parts, processes)
    return [slice(number * each, (number + 1) * each) for number in own]


def _optimizer(model: nn.Module, settings: Optimization) -> torch.optim.Optimizer:
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": settings.decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.99), fused=True)


def _step(
    model: nn.Module,
    average: Average,
    optimizer,
    losses: Losses,
    plan: Plan,
    step: int,
    mine: list[slice],
    accelerator,
) -> dict[str, float]:
    """Gradients of all parts, then one step; see `learning.descend`."""
    batch = plan.batch(step)

    def part(rows: slice) -> dict[str, Tensor]:
        draws = Draws(len(batch), rows, plan.seed, "step", step)
        return losses(model, average.model, batch[rows], draws)

    parts = [partial(part, rows) for rows in mine]
    return descend(model, optimizer, parts, plan.settings.clip, accelerator)


def _diverged(
    run: Path, step: int, plan: Plan, found: dict[str, float], accelerator
) -> DivergedError:
    names = [plan.name(row) for row in plan.batch(step).tolist()]
    group, rate = plan.settings.GROUP, plan.settings.rate
    advice = f"lower --{group}.rate ({rate:g}), lengthen --{group}.warmup, or use bf16, not fp16"
    return diverged(run, step, found, "pairs", names, advice, accelerator)


# ---- checkpoints ---------------------------------------------------------------------------------


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """The weights that learn, by name: all that a checkpoint needs."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _save(run: Path, step: int, model: nn.Module, optimizer, average, accelerator, figures) -> None:
    tensors = {"model": learnt(model)}
    if average.decay:
        tensors["average"] = learnt(average.model)
    checkpoints.save(run, step, tensors, optimizer, accelerator, figures)


def _resume(run: Path, model: nn.Module, optimizer, average: Average, accelerator) -> int:
    """Go back to the newest checkpoint; returns how many steps are done."""

    def back(tensors: dict) -> None:
        put(model, tensors["model"])
        if average.decay:
            put(average.model, tensors["average"])

    return checkpoints.resume(run, back, optimizer, accelerator)


@torch.no_grad()
def put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set the weights that learn. Raises: ValueError: if these are not they."""
    own = learnt(model)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise ValueError(f"{len(odd)} weights are not in both, e.g. {odd[0]}")
    for name, value in own.items():
        value.copy_(weights[name])
