# SPDX-License-Identifier: Apache-2.0
"""Training: a method, a plan of batches and pictures in, a trained model out. One loop.

`commands.train` reads what the user gave and calls `train`. Batches, augmentation and learning
rate are functions of (seed, step), so a run that is stopped and goes on from a checkpoint is the
run that was never stopped (but for rounding with more than two processes, whose first step adds up
gradients in another order than those after it). A batch is computed in `parts`, each mined and
normalised on its own; processes share the parts and accumulate what is left, so that losses and
weights do not depend on their number. (The running statistics of batch normalisation do: with
several processes they are those of the first one's parts.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from viewsynth.records import seed_of
from viewsynth.reid import methods
from viewsynth.reid.batches import Batch, stream
from viewsynth.reid.options import Augmentation, ReIDOptimization
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.sampler import Plan
from viewsynth.training import checkpoints
from viewsynth.training.learning import Average, DivergedError, descend, diverged, schedule

MOMENTUM = 0.9
LEARNS, TRIES, FALL = 16, 12, 0.9  # pictures, steps and ratio of the start-up check


def train(
    method: nn.Module,
    plan: Plan,
    pixels: Pixels,
    recipe: Augmentation,
    settings: ReIDOptimization,
    run: Path,
    accelerator,
    every: int = 500,
    tell: Callable[[int, dict], None] | None = None,
    validate: Callable[[int, nn.Module], dict] | None = None,
) -> nn.Module:
    """Train a method to the last step of its plan, from its newest checkpoint on.

    Args:
        method: See `reid.methods.Method`; its weights are changed.
        plan: Its pool must have the samples of `pixels`, in their order.
        run: Folder of the checkpoints.
        accelerator: Of the launcher: device, precision, processes.
        every: Steps between two checkpoints, and between two validations.
        tell: `tell(step, figures)` after each step, in the main process.
        validate: `validate(step, model) -> figures`, in every process, after each checkpoint's
            step and the last one.
    Returns: the model to use: the moving average, or the method itself.

    Raises:
        DivergedError: if a loss or a gradient is not finite. The weights from before that step are
            saved, and `diverged.json` names all pictures of it.
        ValueError: if the batch cannot be shared by the processes, or the checkpoint is not of
            this method.
    """
    mine = _parts(plan, settings, accelerator)
    optimizer = _optimizer(method, settings)
    model, optimizer = accelerator.prepare(method, optimizer)
    average = Average(method, settings.average)
    done = _resume(run, method, optimizer, average, accelerator)
    device = accelerator.device
    streams = [stream(plan, pixels, recipe, range(done, plan.steps), part, device) for part in mine]
    model.train()
    for step, batches in enumerate(zip(*streams, strict=True), done):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * schedule(step, plan.steps, settings.warmup)
        mining = step >= settings.mine_synthetic_from * plan.steps
        seeds = [seed_of(plan.seed, "step", step, part.start) for part in mine]
        losses = _step(model, optimizer, batches, seeds, mining, settings, accelerator)
        if not math.isfinite(sum(losses.values())):
            if accelerator.is_main_process:
                _save(run, step, method, optimizer, average, accelerator, {})
            raise _diverged(run, step, plan, losses, settings, accelerator)
        average.update(method, step)
        pause = step + 1 == plan.steps or (step + 1) % every == 0
        figures = validate(step + 1, average.model) if pause and validate else {}
        model.train()
        if accelerator.is_main_process:
            if tell:  # before the checkpoint: what a resumed run does not repeat has been told
                tell(step + 1, losses | figures | {"rate": optimizer.param_groups[0]["lr"]})
            if pause:
                _save(run, step + 1, method, optimizer, average, accelerator, figures)
        if pause:
            accelerator.wait_for_everyone()
    return average.model


def check_learns(method: nn.Module, batch: Batch, rate: float = 1e-3) -> tuple[float, float]:
    """Whether a copy of a method learns a few pictures by heart in a few steps.

    A model whose weights were not loaded, or whose loss is wired wrongly, does not: the most common
    complaint in the field is an mAP that never rises.

    Args:
        batch: Of its pictures as many identities are taken as fit into `LEARNS` pictures.
    Returns: losses before and after, the latter at most `FALL` of the former.
    Raises: ValueError: if the loss does not fall.
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
            f"the model does not learn: its loss on {len(small.names)} pictures went from "
            f"{seen[0]:.2f} to {seen[-1]:.2f} in {TRIES} steps. Were the right weights loaded "
            "(--model.backbone)? Do the pictures show what their names say (viewsynth data)?"
        )
    return seen[0], seen[-1]


# ---- one step ------------------------------------------------------------------------------------


def _parts(plan: Plan, settings: ReIDOptimization, accelerator) -> list[slice]:
    """The slots of a batch that this process computes, part by part."""
    processes = accelerator.num_processes
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"the launcher asks for {accelerator.gradient_accumulation_steps} accumulated steps; "
            "use --optim.parts instead: more parts than processes are accumulated"
        )
    parts = settings.parts or processes
    if parts % processes:
        raise ValueError(
            f"optim.parts must be a multiple of the {processes} processes, got {parts}"
        )
    own = range(accelerator.process_index, parts, processes)
    return [plan.part(number, parts) for number in own]


def _optimizer(method: nn.Module, settings: ReIDOptimization) -> torch.optim.Optimizer:
    groups = methods.groups(method, settings.decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.rate, fused=True)
    return torch.optim.SGD(groups, lr=settings.rate, momentum=MOMENTUM, fused=True)


def _step(
    model: nn.Module,
    optimizer,
    batches: tuple[Batch, ...],
    seeds: list[int],
    mining: bool,
    settings: ReIDOptimization,
    accelerator,
) -> dict[str, float]:
    """Gradients of all parts, then one step; see `learning.descend`."""

    def part(batch: Batch, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)  # for backbones that draw: dropout, stochastic depth
        return model(batch, mining)

    parts = [partial(part, batch, seed) for batch, seed in zip(batches, seeds, strict=True)]
    return descend(model, optimizer, parts, settings.clip, accelerator)


def _diverged(
    run: Path, step: int, plan: Plan, losses, settings: ReIDOptimization, accelerator
) -> DivergedError:
    names = [plan.pool.samples[n].name for n in plan.batch(step).tolist()]
    advice = f"lower --optim.rate ({settings.rate:g}) or lengthen --optim.warmup"
    return diverged(run, step, losses, "pictures", names, advice, accelerator)


# ---- checkpoints ---------------------------------------------------------------------------------


def _save(
    run: Path, step: int, method: nn.Module, optimizer, average: Average, accelerator, figures
) -> None:
    tensors = {"model": method.state_dict()}
    if average.decay:
        tensors["average"] = average.model.state_dict()
    checkpoints.save(run, step, tensors, optimizer, accelerator, figures)


def _resume(run: Path, method: nn.Module, optimizer, average: Average, accelerator) -> int:
    """Go back to the newest checkpoint; returns how many steps are done."""

    def put(tensors: dict) -> None:
        method.load_state_dict(tensors["model"])
        if average.decay:
            average.model.load_state_dict(tensors["average"])

    return checkpoints.resume(run, put, optimizer, accelerator)
