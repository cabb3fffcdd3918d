# SPDX-License-Identifier: Apache-2.0
"""Progress of a training run: a bar, `log.jsonl` and the trackers of accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

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

    Args:
        log: See `open_log`.
        accelerator: The launcher's Accelerator.
        stage: Name of the stage: label of the bar and prefix of the trackers' names; "" = none.
        offset: Steps of the stages before this one, for the trackers.

    Yields:
        `report(step, values)`, to be called after each step: the `report` of `loop.Run`.
    """
    quiet = not accelerator.is_main_process
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
