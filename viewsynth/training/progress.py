# SPDX-License-Identifier: Apache-2.0
"""Progress of a training run: a bar, `log.jsonl` and the trackers of accelerate."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from viewsynth.training import checkpoints
from viewsynth.training.log import Log


def open_log(folder: Path, every: int, steps: int) -> Log:
    """The log of a training run, up to its newest checkpoint.

    Args:
        folder: Folder of the checkpoints and of `log.jsonl`.
        every: Steps between two checkpoints.
        steps: Steps of the whole run.

    Returns:
        The log; its `done` is the step of the newest checkpoint, 0 without one.
    """
    return Log(folder / "log.jsonl", checkpoints.steps_done(folder), every, steps)


@contextlib.contextmanager
def progress(
    log: Log, accelerator, stage: str = "", offset: int = 0
) -> Iterator[Callable[[int, dict], None]]:
    """Show a bar in the main process, and report every step to the log and the trackers.

    Warns where the CPU makes the chosen precision slow.

    Args:
        log: See `open_log`.
        accelerator: The launcher's Accelerator.
        stage: Name of the stage: label of the bar and prefix of the trackers' names; "" = none.
        offset: Steps of the stages before this one, for the trackers.

    Yields:
        `report(step, values)`, to be called after each step: the `report` of `loop.Run`.
    """
    quiet = not accelerator.is_main_process
    precision = accelerator.mixed_precision
    if not quiet and accelerator.device.type == "cpu" and precision == "bf16" and not _has_bf16():
        sys.stderr.write(
            "warning: this CPU has no instructions for bfloat16, which makes mixed precision bf16 "
            "many times slower than none; use --mixed_precision no, or "
            "ACCELERATE_MIXED_PRECISION=no\n"
        )
    prefix = f"{stage}/" if stage else ""
    with tqdm(
        total=log.last, initial=log.done, desc=stage or None, unit="step", disable=quiet
    ) as bar:

        def report(step: int, values: dict) -> None:
            bar.update()
            bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()}, refresh=False)
            log.add(step, values)
            accelerator.log({f"{prefix}{k}": v for k, v in values.items()}, offset + step)

        yield report


def _has_bf16() -> bool:
    """Whether the CPU kernels of torch have instructions for bfloat16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
