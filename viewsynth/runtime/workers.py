# SPDX-License-Identifier: Apache-2.0
"""Worker processes for independent items, e.g. the chunks of `generate`.

Each worker is a new process with one thread for every numeric library, so its results depend on the
item alone. If a worker dies, only its current item is lost.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
DEATHS = 3  # in a row without a finished item: the items are not the cause


class FatalError(OSError):
    """A fault that affects every item, such as a missing model or a full disk."""


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    item: Any = None


def run_items(
    items: Sequence, start: Callable, args: tuple, workers: int, tick: float = 0.5
) -> Iterator[tuple[Any, str] | None]:
    """Process items in worker processes, each item in one worker.

    Args:
        items: Items to process, which can be pickled.
        start: A module-level function; `start(*args)` is called once in each worker and returns
            the function that processes one item.
        args: Arguments of `start`.
        workers: Number of processes, > 0; at most one per item is started.
        tick: Seconds of waiting after which None is yielded, so that the caller can show progress.

    Yields:
        (item, "") for a finished item, (item, reason) where the worker died; in any order.

    Raises:
        FatalError: If `start` or an item raised an exception; all workers are stopped.
    """
    queue, crew, deaths = list(reversed(items)), [], 0
    try:
        while queue or crew:
            while queue and len(crew) < workers:
                crew.append(_start(start, args))
                _send(crew[-1], queue.pop())
            ready = wait([worker.pipe for worker in crew], timeout=tick)
            if not ready:
                yield None
            for worker in [worker for worker in crew if worker.pipe in ready]:
                item, reason = worker.item, _receive(worker)
                if reason:
                    crew.remove(worker)
                    deaths += 1
                    yield item, reason
                    if deaths >= DEATHS:
                        raise FatalError(
                            f"{deaths} workers in a row died without finishing an item; {reason}"
                        )
                    continue
                deaths = 0
                if queue:
                    _send(worker, queue.pop())
                else:
                    _stop(worker)
                    crew.remove(worker)
                yield item, ""
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.join()


def _start(start: Callable, args: tuple) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        process = context.Process(target=_serve, args=(theirs, start, args), daemon=True)
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    theirs.close()  # so that the pipe ends when the worker ends
    return _Worker(process, ours)


def _send(worker: _Worker, item) -> None:
    worker.item = item
    with contextlib.suppress(OSError):  # the worker is dead, which `wait` will report
        worker.pipe.send(item)


def _receive(worker: _Worker) -> str:
    """Wait for the outcome of a worker's item: "" if it is finished, else why the worker died.

    Raises:
        FatalError: If the item raised an exception.
    """
    try:
        status, text = worker.pipe.recv()
    except (EOFError, OSError):
        return _cause_of_death(worker.process)
    if status == "fatal":
        raise FatalError(text)
    return ""


def _stop(worker: _Worker) -> None:
    worker.pipe.send(None)
    worker.process.join(10)
    if worker.process.is_alive():
        worker.process.kill()


def _cause_of_death(process) -> str:
    process.join(10)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; out of memory? Use fewer --workers" if name == "SIGKILL" else ""
        return f"the worker was killed by {name}{hint}"
    return f"the worker exited with status {code}"


def _serve(pipe: Connection, start: Callable, args: tuple) -> None:
    """Main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the main process
    end_with_parent()
    process = None
    while (item := pipe.recv()) is not None:
        try:
            process = process or start(*args)
            process(item)
        except OSError as error:
            pipe.send(("fatal", str(error)))
        except Exception:
            pipe.send(("fatal", traceback.format_exc()))
        else:
            pipe.send(("done", ""))


def make_accelerator(device: str, trackers: Sequence[str] = (), folder: Path | None = None):
    """Create the `accelerate.Accelerator` of a command that a launcher may have started.

    Args:
        device: "auto", "cpu" or "cuda".
        trackers: Names of the experiment trackers to log to.
        folder: Parent folder of the trackers' files.

    Raises:
        ValueError: If the device or a tracker is not available.
    """
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device: got cuda, but torch finds no CUDA device on this machine; use --device cpu or "
            "auto"
        )
    if {"LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys():
        # Started by a launcher: end with it, even if it is killed.
        end_with_parent()
    # At first use one rank downloads and builds for minutes while the others wait.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    log = {"log_with": list(trackers), "project_dir": folder / "tracker"} if trackers else {}
    return Accelerator(cpu=device == "cpu", kwargs_handlers=[patience], **log)


def end_with_parent() -> None:
    """End this process as soon as its parent has ended, even if the parent was killed."""
    parent = os.getppid()
    if parent == 1 and not _is_launcher(1):  # the parent died before this check
        os._exit(1)

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_launcher(pid: int) -> bool:
    """Whether a process is a launcher, which can be process 1 in a container."""
    import psutil

    try:
        words = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
    return any(word in words for word in ("accelerate", "torchrun", "torch.distributed", "pytest"))


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def worker_count(device: str, asked: int, tasks: int, ranks: int) -> int:
    """Number of workers of one rank: one on a GPU, else the rank's share of the CPU cores.

    Args:
        device: Device of the rank, e.g. "cpu" or "cuda:0".
        asked: Number that the user set; 0 = the share of the cores.
        tasks: Number of tasks of this rank, an upper limit.
        ranks: Ranks on this machine, used if the launcher does not set LOCAL_WORLD_SIZE.
    """
    if device.startswith("cuda"):
        return 1
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    return max(1, min(asked or share, tasks))


class Progress:
    """Progress bar that counts files as any process creates or replaces them.

    Args:
        files: Weight of each file in the count; empty = no bar.
        unit: Name of the unit, singular and plural.
    """

    def __init__(self, files: dict[Path, int], unit: tuple[str, str] = ("person", "people")):
        self.files, self.unit = files, unit
        self.before = {path: _state(path) for path in files}

    def __enter__(self):
        from tqdm import tqdm

        total, calm = sum(self.files.values()), 0.1 if sys.stderr.isatty() else 10
        self.bar = tqdm(
            total=total,
            unit=self.unit[0],
            desc=self.unit[1],
            disable=not self.files,
            mininterval=calm,
        )
        return self

    def update(self) -> None:
        """Check the files and advance the bar."""
        done = [path for path, old in self.before.items() if _state(path) != old]
        self.bar.update(sum(self.files[path] for path in done))
        for path in done:
            del self.before[path]

    def __exit__(self, *_):
        self.bar.close()


def _state(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns
