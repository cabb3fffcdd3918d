# SPDX-License-Identifier: Apache-2.0
"""Times training variants in turns, so that other load on the machine affects all of them alike.

`train.py` uses it. A turn is one untimed step and then timed ones, which start when all loaders are
idle and the queue of the variant is full. "x plain" is the ratio of the medians over all rounds,
"in a round" the smallest and largest ratio within a round. CPU time is that of all threads and
loader processes, until they have read as many batches as were used.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import torch


@dataclass(eq=False)
class Row:
    """A variant: function of one step, waiting times, and seconds per step in each round."""

    name: str
    step: Callable[[], object]
    waits: list[float]
    close: Callable[[], None] = lambda: None
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class StopTrainingError(Exception):
    """Raised inside the trainer to stop it."""


class Stepper:
    """Runs the trainer in a thread, one step at a time.

    Args:
        train: Trains until its argument, called after each step, raises an exception.
    """

    def __init__(self, train: Callable[[Callable], None]):
        self.train, self.error = train, None
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def step(self) -> None:
        self.go.release()
        self.done.acquire()
        if self.error:
            raise self.error

    def close(self) -> None:
        self.error = StopTrainingError()
        self.go.release()
        self.thread.join()

    def _run(self) -> None:
        self.go.acquire()
        try:
            self.train(self._pause)
        except StopTrainingError:
            pass
        except Exception as error:
            self.error = error
        self.done.release()

    def _pause(self, number: int, losses: dict) -> None:
        self.done.release()
        self.go.acquire()
        if self.error:
            raise self.error


def timed_items(items: Iterator, waits: list[float]) -> Iterator:
    """Yield items and append the waiting time for each to `waits`."""
    while True:
        began = time.perf_counter()
        item = next(items, None)
        waits.append(time.perf_counter() - began)
        if item is None:
            return
        yield item


def measure(rows: list[Row], rounds: int, steps: int, device: str) -> None:
    """Time all rows in turns."""
    for row in rows:
        row.step()  # compiles and allocates state
        row.waits.clear()
    for number in range(rounds):
        for row in rows[number % len(rows) :] + rows[: number % len(rows)]:
            seconds, cpu = turn(row, steps, device)
            row.seconds.append(seconds / steps)
            row.cpu.append(cpu / steps)


def turn(row: Row, steps: int, device: str) -> tuple[float, float]:
    """Seconds of some steps: elapsed time, and CPU time until the loaders are idle again."""
    row.step()  # untimed: memory and caches hold data of other rows
    before, began = idle_cpu_time(), time.perf_counter()
    for _ in range(steps):
        row.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, idle_cpu_time() - before


def idle_cpu_time() -> float:
    """Wait until the loaders are idle; returns the CPU seconds of this process and its loaders."""
    spent = -1.0
    while True:
        children = [child.cpu_times() for child in psutil.Process().children()]
        before, spent = spent, time.process_time() + sum(c.user + c.system for c in children)
        if spent - before < 0.01:
            return spent
        time.sleep(0.1)


def print_rows(rows: list[Row], base: Row, batch: int) -> None:
    """Print the rows, compared with `base`; a step processes `batch` images."""
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
