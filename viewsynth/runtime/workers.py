# SPDX-License-Identifier: Apache-2.0
"""Worker processes: items in, outcomes out, and never a hang.

`generate` hands chunks to them. Each worker is a fresh process with one thread for every numeric
library, so what it computes depends on the item alone. One that dies costs its item only.
"""

from __future__ import annotations

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
DEATHS = 3  # in a row, with nothing finished in between: the fault is not the item's


class FatalError(OSError):
    """Something that every item would run into: a model that cannot be loaded, a full disk."""


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    item: Any = None


def spread(
    items: Sequence, start: Callable, args: tuple, workers: int, tick: float = 0.5
) -> Iterator[tuple[Any, str] | None]:
    """Let worker processes do the items, each by one worker.

    Args:
        start: A function of a module; `start(*args)`, called once in each worker, returns the
            function that does one item.
        workers: Processes, > 0; no more than there are items.
        tick: Seconds after which the caller gets None, to show what happens elsewhere.
    Yields: (item, "") for what was done, (item, why) where the worker died; in any order.
    Raises: FatalError: if an item or `start` raised; whatever was going on is stopped.
    """
    queue, crew, deaths = list(reversed(items)), [], 0
    try:
        while queue or crew:
            while queue and len(crew) < workers:
                crew.append(_hire(start, args))
                _give(crew[-1], queue.pop())
            ready = wait([worker.pipe for worker in crew], timeout=tick)
            if not ready:
                yield None
            for worker in [worker for worker in crew if worker.pipe in ready]:
                item = worker.item
                try:
                    status, text = worker.pipe.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    deaths += 1
                    yield item, _epitaph(worker.process)
                    if deaths >= DEATHS:
                        raise FatalError(
                            f"{deaths} workers in a row died; {_epitaph(worker.process)}"
                        ) from None
                    continue
                if status == "fatal":
                    raise FatalError(text)
                deaths = 0
                if queue:
                    _give(worker, queue.pop())
                else:
                    _dismiss(worker)
                    crew.remove(worker)
                yield item, ""
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.join()


def _hire(start: Callable, args: tuple) -> _Worker:
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
    theirs.close()  # so that the end of the worker is the end of the pipe
    return _Worker(process, ours)


def _give(worker: _Worker, item) -> None:
    worker.item = item
    try:
        worker.pipe.send(item)
    except OSError:
        pass  # it is dead; `wait` will say so


def _dismiss(worker: _Worker) -> None:
    worker.pipe.send(None)
    worker.process.join(10)
    if worker.process.is_alive():
        worker.process.kill()


def _epitaph(process) -> str:
    process.join(10)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; out of memory? Try fewer --workers" if -code == signal.SIGKILL else ""
        return f"the worker was killed by {name}{hint}"
    return f"the worker ended with status {code}"


def _serve(pipe: Connection, start: Callable, args: tuple) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    end_with_parent()
    do = None
    while (item := pipe.recv()) is not None:
        try:
            do = do or start(*args)
            do(item)
        except OSError as error:
            pipe.send(("fatal", str(error)))
        except Exception:
            pipe.send(("fatal", traceback.format_exc()))
        else:
            pipe.send(("done", ""))


def launched(device: str, trackers: Sequence[str] = (), folder: Path | None = None):
    """The `accelerate.Accelerator` of a program that may be started by a launcher.

    Args:
        device: "auto", "cpu" or "cuda".
        trackers: What accelerate is to log to.
        folder: Where trackers keep their files.
    Raises: ValueError: if there is no such device or tracker.
    """
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be cpu or auto here: torch sees no CUDA device; got cuda")
    if {"LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys():
        # Started by a launcher: do not outlive it, whatever kills it.
        end_with_parent()
    # The first start fetches and builds for minutes while the other ranks wait.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    log = {"log_with": list(trackers), "project_dir": folder / "tracker"} if trackers else {}
    return Accelerator(cpu=device == "cpu", kwargs_handlers=[patience], **log)


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that one died."""
    parent = os.getppid()
    if parent == 1 and not _is_launcher(1):  # it died before we could look
        os._exit(1)

    def watch():
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_launcher(pid: int) -> bool:
    """Whether that process is a launcher; in a container it may well be process 1."""
    import psutil

    try:
        words = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
    return any(word in words for word in ("accelerate", "torchrun", "torch.distributed", "pytest"))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def hired(device: str, asked: int, tasks: int, ranks: int) -> int:
    """How many workers each of several processes has: one on a GPU, else its share of the cores.

    Args:
        asked: What the user wants; 0 = that share.
        tasks: Of this process: no more workers than that.
        ranks: Processes on this machine, unless the launcher says it.
    """
    if device.startswith("cuda"):
        return 1
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    return max(1, min(asked or share, tasks))


class Progress:
    """One progress bar that counts files as they appear or are replaced, whoever writes them.

    Args:
        files: How much each file counts; none, no bar.
        unit: What is counted, and in words its plural.
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
        """Look at the files again."""
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
