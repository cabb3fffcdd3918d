# SPDX-License-Identifier: Apache-2.0
"""The training loop that ReID, diffusion and SD-ReID share.

A `Task` supplies batches, losses and optimizer; `learn` runs it with accelerate from the newest
checkpoint to the last step. Batches, noise and learning rate are functions of (seed, step), and a
batch is computed in a number of parts that processes share. A run that was stopped and resumed, or
that ran in another number of processes with the same number of parts, therefore computes the same
weights. Two exceptions: with more than two processes the first step after a start sums gradients in
another order (rounding), and the running statistics of batch normalization are those of the first
process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from viewsynth.runtime.files import write
from viewsynth.training import checkpoints
from viewsynth.training.average import Average

WARM_FROM = 0.01  # share of the learning rate at the first step of the warm-up
COOL_TO = 2e-4  # share at the end of the cosine: 1.6e-6 of 8e-3 in the ReID field's recipe


class DivergedError(ValueError):
    """A loss, a gradient or a feature is not finite."""


class LoopOptions(Protocol):
    """The options that the loop reads; see `training.options.Optimization`."""

    GROUP: str
    rate: float
    warmup: int
    clip: float
    parts: int
    average: float


class Task(Protocol):
    """What a training run optimizes, and on which data.

    `rows.RowTask` is the one for numbered rows and random noise; `reid.training` has one for
    images of people.

    Attributes:
        settings: Learning rate, clipping, parts, moving average.
        steps: Steps of the whole run.
        unit: What a batch consists of, for messages: "images" or "pairs".
        advice: Options to change if the run diverges, for messages.
    """

    settings: LoopOptions
    steps: int
    unit: str
    advice: str

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of the trainable weights; a group may have a learning rate, "rate"."""
        ...

    def part(self, number: int, parts: int) -> slice:
        """Positions in a batch of one of its equal parts.

        Raises:
            ValueError: If the batch cannot be split into so many.
        """
        ...

    def stream(self, first: int, part: slice, device: torch.device) -> Iterator[Any]:
        """One part of the batches of all steps from `first` to the last, in order."""
        ...

    def losses(
        self, model: nn.Module, average: nn.Module, batch: Any, step: int, part: slice
    ) -> dict[str, Tensor]:
        """Losses by name, each a mean over the part; their sum is minimized.

        Args:
            model: The model that is trained, as accelerate wrapped it.
            average: Its moving average, or the model itself.
            batch: What `stream` yielded.
            step: Number of the step.
            part: Positions of this part in the batch.
        """
        ...

    def before(self, step: int, model: nn.Module, accelerator: Accelerator) -> None:
        """What is done before a step, in every process, e.g. once in an epoch.

        Args:
            step: Number of the step.
            model: The model that is trained, not wrapped.
            accelerator: Of accelerate.
        """
        ...

    def names(self, step: int) -> list[str]:
        """Names of everything in the batch of a step, for messages."""
        ...


@dataclass(frozen=True)
class Run:
    """Where a training run is executed, and who is informed.

    Args:
        folder: Folder of the checkpoints.
        accelerator: Of accelerate: device, precision, processes.
        every: Steps between two checkpoints, and between two validations.
        report: `report(step, values)` after each step, in the main process.
        validate: `validate(step, model) -> values`, in every process, before each checkpoint; the
            model is in evaluation mode.
    """

    folder: Path
    accelerator: Accelerator
    every: int = 500
    report: Callable[[int, dict], None] | None = None
    validate: Callable[[int, nn.Module], dict] | None = None


def learn(model: nn.Module, task: Task, run: Run) -> nn.Module:
    """Train to the last step, from the newest checkpoint of the run.

    Args:
        model: Weights that require a gradient are changed, and buffers such as running statistics.
        task: Batches, losses and optimizer.
        run: Folder, accelerator, reports.

    Returns:
        The model to use, in evaluation mode: the moving average, or the model itself.

    Raises:
        DivergedError: If a loss or a gradient is not finite. The weights from before that step are
            saved, and `diverged.json` names everything in its batch.
        ValueError: If the processes cannot share the batch, or the checkpoint is of another model.
    """
    state, accelerator = _State(model, task, run), run.accelerator
    streams = [task.stream(state.done, part, accelerator.device) for part in state.parts]
    for step, batches in enumerate(zip(*streams, strict=True), state.done):
        task.before(step, model, accelerator)
        found = state.step(step, batches)
        if not math.isfinite(sum(found.values())):
            state.save(step, {})
            raise _diverged(run, step, task, found)
        state.average.update(model, step)
        pause = step + 1 == task.steps or (step + 1) % run.every == 0
        values = {}
        if pause and run.validate:
            values = run.validate(step + 1, state.average.model.eval())
        if run.report and accelerator.is_main_process:
            # Before the checkpoint: a resumed run does not report these steps again.
            run.report(step + 1, found | values | {"rate": state.rate})
        if pause:
            state.save(step + 1, values)
            accelerator.wait_for_everyone()
    state.optimizer.zero_grad()
    accelerator.free_memory()  # weights and moments would stay allocated in later stages
    return state.average.model.eval()


class _State:
    """Model, optimizer and moving average of a run, as the newest checkpoint left them."""

    def __init__(self, model: nn.Module, task: Task, run: Run):
        self.model, self.task, self.run = model, task, run
        self.parts = _own_parts(task, run.accelerator)
        self.wrapped, self.optimizer = run.accelerator.prepare(model, task.optimizer(model))
        self.average = Average(model, task.settings.average)
        self.done = checkpoints.resume(run.folder, self._load, self.optimizer, run.accelerator)

    @property
    def rate(self) -> float:
        """The present learning rate, of the first group."""
        return self.optimizer.param_groups[0]["lr"]

    def step(self, step: int, batches: Sequence[Any]) -> dict[str, float]:
        """Compute the gradients of this process's parts of a batch and step; returns the losses."""
        settings, task = self.task.settings, self.task
        self.model.train()
        for group in self.optimizer.param_groups:
            rate = group.get("rate", settings.rate)
            group["lr"] = rate * schedule(step, task.steps, settings.warmup)
        parts = [
            partial(task.losses, self.wrapped, self.average.model, batch, step, part)
            for batch, part in zip(batches, self.parts, strict=True)
        ]
        return descend(self.wrapped, self.optimizer, parts, settings.clip, self.run.accelerator)

    def save(self, step: int, values: dict) -> None:
        """Write a checkpoint, in the main process."""
        if not self.run.accelerator.is_main_process:
            return
        tensors = {"model": trained_tensors(self.model)}
        if self.average.decay:
            tensors["average"] = trained_tensors(self.average.model)
        checkpoints.save(
            self.run.folder, step, tensors, self.optimizer, self.run.accelerator, values
        )

    def _load(self, tensors: dict) -> None:
        load_trained(self.model, tensors["model"])
        if self.average.decay:
            load_trained(self.average.model, tensors["average"])


# ---- one step ------------------------------------------------------------------------------------


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine.

    Args:
        step: Number of the step, from 0.
        steps: Steps of the whole run.
        warmup: Steps of the warm-up; at most a fifth of the run is used.
    """
    warmup = min(warmup, steps // 5)
    if step < warmup:
        return WARM_FROM + (1 - WARM_FROM) * step / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return COOL_TO + (1 - COOL_TO) * (1 + math.cos(math.pi * done)) / 2


def descend(
    model: nn.Module,
    optimizer,
    computations: Sequence[Callable[[], dict[str, Tensor]]],
    clip: float,
    accelerator,
) -> dict[str, float]:
    """Accumulate the gradients of all parts of a batch, then step if everything is finite.

    Args:
        model: As accelerate wrapped it.
        optimizer: As accelerate wrapped it.
        computations: Each computes the losses of one part of the batch by name.
        clip: Largest norm of the gradient; 0 = unlimited.
        accelerator: Of accelerate.

    Returns:
        The losses, means over all parts and processes; with the key "gradient", the gradient's
        norm, if that is not finite.
    """
    optimizer.zero_grad()
    total: dict[str, Tensor] = {}
    for number, compute in enumerate(computations, 1):
        with nullcontext() if number == len(computations) else accelerator.no_sync(model):
            with accelerator.autocast():
                terms = compute()
            accelerator.backward(sum(terms.values()) / len(computations))
        for name, value in terms.items():
            total[name] = total.get(name, 0) + value.detach() / len(computations)
    names = sorted(total)
    means = accelerator.reduce(torch.stack([total[name] for name in names]), "mean").tolist()
    losses = dict(zip(names, means, strict=True))
    if all(map(math.isfinite, means)):
        norm = float(accelerator.clip_grad_norm_(model.parameters(), clip or math.inf))
        if math.isfinite(norm) or accelerator.scaler:  # a gradient scaler skips such steps itself
            optimizer.step()
        else:
            losses["gradient"] = norm
    return losses


def _own_parts(task: Task, accelerator) -> list[slice]:
    """Positions in a batch that this process computes, part by part."""
    group, processes = task.settings.GROUP, accelerator.num_processes
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"the launcher asks for {accelerator.gradient_accumulation_steps} accumulated steps; "
            f"use --{group}.parts instead: more parts than processes are accumulated"
        )
    parts = task.settings.parts or processes
    if parts % processes:
        raise ValueError(
            f"{group}.parts must be a multiple of the {processes} processes, got {parts}"
        )
    own = range(accelerator.process_index, parts, processes)
    return [task.part(number, parts) for number in own]


def _diverged(run: Run, step: int, task: Task, losses: dict[str, float]) -> DivergedError:
    """The error for a step that is not finite, after its batch is written to `diverged.json`."""
    file, names = run.folder / "diverged.json", task.names(step)
    if run.accelerator.is_main_process:
        values = {name: str(value) for name, value in losses.items()}
        told = {"step": step, "losses": values, task.unit: names}
        write(file, (json.dumps(told, indent=1) + "\n").encode())
    said = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    return DivergedError(
        f"step {step} is not finite ({said}); its {len(names)} {task.unit} are listed in {file}, "
        f"e.g. {names[0]}, and the weights from before are saved. Look at the images; if they are "
        f"right, {task.advice}, in a new --output"
    )


# ---- weights -------------------------------------------------------------------------------------


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All weights and buffers that are not frozen, by name: what a checkpoint holds."""
    named = model.named_parameters(remove_duplicate=False)
    frozen = {name for name, p in named if not p.requires_grad}
    return {k: value for k, value in model.state_dict().items() if k not in frozen}


@torch.no_grad()
def load_trained(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Set everything that `trained_tensors` returned.

    Raises:
        ValueError: If the weights are of another model.
    """
    own = trained_tensors(model)
    if own.keys() != weights.keys():
        odd = sorted(own.keys() ^ weights.keys())
        raise ValueError(f"{len(odd)} weights are not in both, e.g. {odd[0]}")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(value.shape)}"
            )
        value.copy_(weights[name])
