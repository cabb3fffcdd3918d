# SPDX-License-Identifier: Apache-2.0
"""Rows of a table that take turns, so that what else a machine does hurts all alike (`train.py`).

A turn is a step that is not timed, then some that are, from when every loader is idle and the row's
own queue is full. "x plain" is a ratio of the medians of all rounds, "in a round" the least and the
largest ratio of one round. CPU time is that of all threads and loader processes, until they have
read as many batches as were used.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import torch


@dataclass(eq=False)
class Row:
    """A way to train: a step of it, how long it waited, and seconds of a step in each round."""

    name: str
    step: Callable[[], object]
    waits: list[float]
    close: Callable[[], None] = lambda: None
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def noted(items: Iterator, waits: list[float]) -> Iterator:
    """The same items; how long each was waited for is noted."""
    while True:
        began = time.perf_counter()
        item = next(items, None)
        waits.append(time.perf_counter() - began)
        if item is None:
            return
        yield item


def measure(rows: list[Row], rounds: int, steps: int, device: str) -> None:
    """Let the rows take turns."""
    for row in rows:
        row.step()  # compiles, and makes what is kept from step to step
        row.waits.clear()
    for number in range(rounds):
        for row in rows[number % len(rows) :] + rows[: number % len(rows)]:
            seconds, cpu = turn(row, steps, device)
            row.seconds.append(seconds / steps)
            row.cpu.append(cpu / steps)


def turn(row: Row, steps: int, device: str) -> tuple[float, float]:
    """Seconds of some steps: of the clock, and of the CPU until the loader is idle again."""
    row.step()  # untimed: memory and caches were the other rows'
    before, began = settled(), time.perf_counter()
    for _ in range(steps):
        row.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, settled() - before


def settled() -> float:
    """CPU seconds of this process and its loaders, as soon as nobody reads ahead any more."""
    spent = -1.0
    while True:
        children = [child.cpu_times() for child in psutil.Process().children()]
        before, spent = spent, time.process_time() + sum(c.user + c.system for c in children)
        if spent - before < 0.01:
            return spent
        time.sleep(0.1)


def told(rows: list[Row], base: Row, batch: int) -> None:
    """Print the rows, compared with one of them; `batch` pictures make a step."""
    print("| | images/s | x plain | in a round | CPU ms/image | waits ms/step | longest |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        middle = statistics.median(row.seconds)
        ratios = [one / own for one, own in zip(base.seconds, row.seconds, strict=True)]
        print(
            f"| {row.name} | {batch / middle:.2f} | "
            f"{statistics.median(base.seconds) / middle:.3f} | "
            f"{min(ratios):.3f} to {max(ratios):.3f} | "
            f"{1e3 * statistics.median(row.cpu) / batch:.2f} | "
            f"{1e3 * statistics.mean(row.waits):.2f} | {1e3 * max(row.waits):.1f} |"
        )
    if rows[0] is not base:
        first, last = (statistics.median(row.seconds) for row in (rows[0], rows[-1]))
        print(f"\nThe last row is {first / last:.2f} times the first.")
