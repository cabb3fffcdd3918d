# SPDX-License-Identifier: Apache-2.0
"""What a worker does around a chunk: load once, make, write beside the computation, part last.

Pictures are encoded and written by threads while the worker computes on. What goes wrong with one
chunk is a fault of its people and written down in its part; a disk that cannot be written stops
the run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viewsynth import manifest
from viewsynth.records import Reject, to_dict
from viewsynth.runtime.files import WriteError
from viewsynth.runtime.writer import Writer, because


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of its run.

    Args:
        run: Folder of the run.
        root: Folder of the input pictures.
        config: Configuration of `generate`.
        device: For tensors, e.g. "cpu" or "cuda:0".
        models: Name -> file or folder of each model.
        revisions: Name -> version or SHA-256 of whatever shapes the pixels, or several in a tree;
            goes into every row.
        licences: Part -> licence; goes into every row.
    """

    run: Path
    root: Path
    config: Any
    device: str
    models: dict[str, Path]
    revisions: dict[str, str | dict]
    licences: dict[str, str]


Made = tuple[list[dict], list[dict], list[Reject]]  # people, rows, rejects


def start(job: Job, load: Callable, make: Callable) -> Callable[[manifest.Task], None]:
    """Load the tools of a worker, and return the function that does one task.

    Args:
        load: `load(job) -> tools`.
        make: `make(task, job, tools, put) -> Made`, with `put(name, encode, *args)` to write the
            file `name` of the run with the bytes of `encode(*args)`.
    """
    tools = load(job)
    return functools.partial(_do, job=job, tools=tools, make=make)


def _do(task: manifest.Task, job: Job, tools, make: Callable) -> None:
    with ThreadPoolExecutor(2) as pool:
        writer = Writer(job.run, pool)
        try:
            made, rows, rejects = make(task, job, tools, writer.put)
            writer.finish()
        except WriteError:
            raise
        except Exception as error:  # the chunk is lost, the run is not
            writer.discard()
            made, rows, rejects = [], [], all_failed(task, job, because(error))
    manifest.write_part(job.run, task, made, rows, [to_dict(reject) for reject in rejects])


def all_failed(task: manifest.Task, job: Job, why: str) -> list[Reject]:
    """A fault for everyone in a task."""
    people = [(relative(e.samples[0].paths[0], job.root), e.pid) for e in task.entries]
    people = people or [(made["file"], made["pid"]) for made in task.made]
    return [
        Reject(source=source, stage="chunk", reason=why, kind="fault", pid=pid)
        for source, pid in people
    ]


def relative(path: Path, root: Path) -> str:
    """A source file as rows name it: relative to the data's root, with slashes."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
