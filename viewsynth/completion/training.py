# SPDX-License-Identifier: Apache-2.0
"""Training of the completion network on stored examples, with validation on held-out people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from viewsynth.completion.losses import Completing, lab, light_of, lit, terms
from viewsynth.completion.stored import Stored
from viewsynth.metrics.colours import delta_e
from viewsynth.reconstruct.complete import BODY, Completer, Completion, stack
from viewsynth.records import seed_of
from viewsynth.training import loop
from viewsynth.training.loop import Run
from viewsynth.training.options import Optimization
from viewsynth.training.progress import open_log, progress
from viewsynth.training.rows import Plan, RowTask

BATCH = 16  # examples of a validation batch


@dataclass(frozen=True)
class Split:
    """Rows of the examples that are trained on, and of held-out people."""

    trained: np.ndarray
    held: np.ndarray


def split(examples: Stored, share: float, seed: int) -> Split:
    """Hold out some people.

    Args:
        examples: All examples.
        share: Share of the people that is held out, [0, 1); at least one person unless 0.
        seed: Seed of the choice.

    Raises:
        ValueError: If nobody is left to train on.
    """
    pids = sorted({row["pid"] for row in examples.rows}, key=lambda p: seed_of(seed, "held out", p))
    count = max(round(share * len(pids)), 1) if share else 0
    if count >= len(pids):
        raise ValueError(
            f"validation: {count} of {len(pids)} people would be held out, which leaves nobody to "
            "train on; give more --people or --validation 0"
        )
    away = set(pids[:count])
    out = np.array([row["pid"] in away for row in examples.rows])
    return Split(np.flatnonzero(~out), np.flatnonzero(out))


def train(
    examples: Stored,
    parts: Split,
    settings: Optimization,
    seed: int,
    folder: Path,
    every: int,
    accelerator,
    preview=None,
) -> Completer:
    """Train to the last step, from the newest checkpoint.

    Args:
        examples: All examples.
        parts: Which are trained on, and which are validated.
        settings: Steps, batch, learning rate.
        seed: Seed of weights, order and augmentation.
        folder: Folder of the checkpoints.
        every: Steps between checkpoints, and between validations.
        accelerator: The launcher's Accelerator.
        preview: `preview(step, model)`, called in the main process at every validation.

    Returns:
        The network with averaged weights, in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "completer") % 2**63)
        model = Completer()
    model.to(accelerator.device)
    chosen = parts.trained
    plan = Plan(settings, len(chosen), seed, lambda row: examples.name(int(chosen[row])))
    task = RowTask(plan, Completing(examples, chosen, accelerator.device), "examples")

    def validate(step: int, model: Completer) -> dict:
        if accelerator.is_main_process and preview:
            preview(step, model)
        return check(model, examples, parts.held, accelerator.device) if len(parts.held) else {}

    with progress(open_log(folder, every, settings.steps), accelerator) as report:
        return loop.learn(model, task, Run(folder, accelerator, every, report, validate))


@torch.no_grad()
def check(
    model: Completer, examples: Stored, rows: np.ndarray, device: torch.device
) -> dict[str, float]:
    """Validation on examples as they are: losses, and errors in units that mean something.

    Args:
        model: The network.
        examples: All examples.
        rows: Those to validate on.
        device: Device of the model.

    Returns:
        Names that begin with `val_`: the losses; half thickness and middle, mean absolute error in
        centimetres, also of the bare body (`val_body_...`); ΔE00 of the back's colours in the
        light of the crop, also of the crop's own colours; error of the light, and its size
        (`val_dark`); share of right kinds of the back; share of azimuths that are
        less than 90 degrees off, of the network without the fitted body, and of the fit.
    """
    reader, total, count = Completing(examples, rows, device), {}, 0
    for start in range(0, len(rows), BATCH):
        some = np.arange(start, min(start + BATCH, len(rows)))
        here = reader.read(some)
        values = {k: float(v) for k, v in terms(model, here, device).items()}
        given = stack({name: value.to(device) for name, value in here.items()})
        values |= _errors(model(given), here)
        given[:, BODY] = 0
        values |= _facing(model(given), here)
        for name, value in values.items():
            total[name] = total.get(name, 0.0) + value * len(some)
        count += len(some)
    return {f"val_{name}": round(value / count, 5) for name, value in total.items()}


def _facing(found: Completion, true: dict[str, Tensor]) -> dict[str, float]:
    """Share of crops turned by less than 90 degrees, by the network without body and by the fit."""
    azimuth = torch.deg2rad(true["true_angles"][:, 1])
    fitted = torch.deg2rad(true["angles"][:, 1]) - azimuth
    told = found.azimuth.cpu() * torch.stack([azimuth.cos(), azimuth.sin()], 1)
    right = {"facing": told.sum(1) > 0, "fit_facing": fitted.cos() > 0}
    return {name: float(one.float().mean()) for name, one in right.items()}


def _errors(found: Completion, true: dict[str, Tensor]) -> dict[str, float]:
    """See `check`; means over the pixels of a batch."""
    middle, half = true["sheets"].float().nan_to_num().unbind(1)
    trunk = half > 0
    body = true["body"][:, 1].float()
    back = true["kind"][:, 1] > 0
    colours = {"back": found.colour[:, 1].cpu(), "crop": true["image"].movedim(-1, 1) / 255}
    light = light_of(true)
    goal = lab(lit(true["colour"], light)[:, 1].movedim(1, -1)[back]).numpy()
    values = {
        "half_cm": 100 * (found.half.cpu() - half).abs()[trunk].mean(),
        "body_half_cm": 100 * (body - half).abs()[trunk].mean(),
        "middle_cm": 100 * (found.middle.cpu() - middle).abs()[trunk].mean(),
        "body_middle_cm": 100 * middle.abs()[trunk].mean(),
        "light": (found.light.cpu() - light).abs().mean(),
        "dark": light.abs().mean(),
        "back_kind": (found.kind[:, 1].argmax(1).cpu() == true["kind"][:, 1])[back].float().mean(),
    }
    for name, colour in colours.items():
        made = lab(colour.movedim(1, -1)[back]).numpy()
        values[f"{name}_delta_e"] = delta_e(made, goal).mean()
    return {name: float(value) for name, value in values.items()}
