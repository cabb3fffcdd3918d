# SPDX-License-Identifier: Apache-2.0
"""What every training shares: the learning rate's course, the moving average, the log.

`viewsynth.reid.training` (ReID) and `viewsynth.diffusion.training` build their loops on it. All of it is a
function of the step, so a run that goes on is the run that was never stopped.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from viewsynth.runtime.files import lines, write

WARM_FROM = 0.01  # share of the learning rate that the warm-up starts with
COOL_TO = 2e-4  # share that the cosine ends with: 1.6e-6 of 8e-3 in the ReID field's recipe


class DivergedError(ValueError):
    """A loss, a gradient or a feature is no number any more."""


def schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine (A.0 of the ReID field).

    The warm-up is at most a fifth of the run.
    """
    warmup = min(warmup, steps // 5)
    if step < warmup:
        return WARM_FROM + (1 - WARM_FROM) * step / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return COOL_TO + (1 - COOL_TO) * (1 + math.cos(math.pi * done)) / 2


def descend(
    model: nn.Module,
    optimizer,
    parts: Sequence[Callable[[], dict[str, Tensor]]],
    clip: float,
    accelerator,
) -> dict[str, float]:
    """Gradients of all parts of a batch, then one step, unless something is no number.

    Args:
        model: As the launcher wrapped it.
        parts: Each computes the losses of one part by name.
        clip: Largest norm of the gradient; 0 = any.
    Returns: the losses, means over all parts and processes; with "gradient", its norm, if that is
        not finite.
    """
    optimizer.zero_grad()
    total: dict[str, Tensor] = {}
    for number, part in enumerate(parts, 1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            with accelerator.autocast():
                terms = part()
            accelerator.backward(sum(terms.values()) / len(parts))
        for name, value in terms.items():
            total[name] = total.get(name, 0) + value.detach() / len(parts)
    names = sorted(total)
    means = accelerator.reduce(torch.stack([total[name] for name in names]), "mean").tolist()
    losses = dict(zip(names, means, strict=True))
    if all(map(math.isfinite, means)):
        norm = float(accelerator.clip_grad_norm_(model.parameters(), clip or math.inf))
        if math.isfinite(norm) or accelerator.scaler:  # a scaler passes over such steps itself
            optimizer.step()
        else:
            losses["gradient"] = norm
    return losses


def diverged(
    run: Path,
    step: int,
    losses: dict[str, float],
    what: str,
    names: list[str],
    advice: str,
    accelerator,
) -> DivergedError:
    """The error for a step that is not finite, once everything about it is written down.

    Args:
        what: "pictures" or "pairs", of which `names` are those of the whole batch.
        advice: What to try, as options.
    """
    file = run / "diverged.json"
    if accelerator.is_main_process:
        told = {"step": step, "losses": {k: str(v) for k, v in losses.items()}, what: names}
        write(file, (json.dumps(told, indent=1) + "\n").encode())
    said = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    return DivergedError(
        f"step {step} is not finite ({said}); its {len(names)} {what} stand in {file}, e.g. "
        f"{names[0]}, and the weights from before are saved. Look at the pictures; if they are "
        f"right, {advice}, in a new --output"
    )


class Average:
    """The moving average of a model's weights, or the model itself.

    Weights that do not learn are shared with the model, not copied.

    Args:
        decay: Share that the average keeps at a step, [0, 1); 0 = no average.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.model = decay, model
        if decay:
            still = {id(p): p for p in model.parameters() if not p.requires_grad}
            self.model = copy.deepcopy(model, still).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))  # else it remembers the random start
        for own, new in self._pairs(model):
            if own.data_ptr() == new.data_ptr():
                continue
            if own.is_floating_point():
                own.lerp_(new, 1 - decay)
            else:
                own.copy_(new)

    def _pairs(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)


class Log:
    """`log.jsonl`: means since the last row, a row every 50 steps and at every pause.

    Figures whose name starts with `val_` stand as they are. What a resumed run repeats is cut.

    Args:
        done: Steps that are done already.
        every: Steps between two pauses.
        last: Steps of the whole run.
    """

    EVERY = 50

    def __init__(self, path: Path, done: int, every: int, last: int):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        rows = [json.loads(row) for row in text.splitlines()]
        self.path, self.done = path, done
        self.rows = [row for row in rows if row["step"] <= done]
        self.seen: list[dict] = []
        self.every, self.last = every, last

    def add(self, step: int, figures: dict) -> None:
        """Take in the figures of a step."""
        validation = {k: v for k, v in figures.items() if k.startswith("val_")}
        self.seen.append({k: v for k, v in figures.items() if k not in validation})
        if 0 in (step % self.EVERY, step % self.every) or step == self.last:
            means = {
                k: round(float(np.mean([one[k] for one in self.seen])), 6) for k in self.seen[0]
            }
            self.rows.append({"step": step, **means, **validation})
            self.seen = []
            write(self.path, lines(self.rows))
