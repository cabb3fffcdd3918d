# SPDX-License-Identifier: Apache-2.0
"""Run one chunk in a worker process: load the models once, compute, write, leave the part last.

Threads encode and write the images while the worker computes. An exception in one chunk becomes a
fault of its people, recorded in its part; a disk that cannot be written stops the run.
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
from viewsynth.runtime.writer import Writer, describe_error


@dataclass(frozen=True)
class Job:
    """What a worker needs to know about its run.

    Args:
        run: Folder of the run.
        root: Folder of the input images.
        config: Configuration of `generate`.
        device: Of the tensors, e.g. "cpu" or "cuda:0".
        models: File or folder of each model, by name.
        revisions: Version or SHA-256 of everything that affects the pixels, by name, possibly
            nested; goes into every row.
        licences: Licence of each part; goes into every row.
    """

    run: Path
    root: Path
    config: Any
    device: str
    models: dict[str, Path]
    revisions: dict[str, str | dict]
    licences: dict[str, str]


ChunkResult = tuple[list[dict], list[dict], list[Reject]]  # people, rows, rejects


def start(job: Job, load: Callable, make: Callable) -> Callable[[manifest.Task], None]:
    """Load the tools of a worker and return the function that does one task.

    Args:
        job: The run.
        load: `load(job) -> tools`.
        make: `make(task, job, tools, put) -> ChunkResult`, where `put(name, encode, *args)` writes
            the file `name` of the run with the bytes of `encode(*args)`.
    """
    tools = load(job)
    return functools.partial(_do, job=job, tools=tools, make=make)


def _do(task: manifest.Task, job: Job, tools, make: Callable) -> None:
    """Compute one task and write its part."""
    with ThreadPoolExecutor(2) as pool:
        writer = Writer(job.run, pool)
        try:
            made, rows, rejects = make(task, job, tools, writer.put)
            add_digests(made, rows, writer.finish())
        except WriteError:
            raise
        except Exception as error:  # costs the chunk, not the run
            writer.discard()
            made, rows, rejects = [], [], all_failed(task, job, describe_error(error))
    manifest.write_part(job.run, task, made, rows, [to_dict(reject) for reject in rejects])


def add_digests(made: list[dict], rows: list[dict], digests: dict[str, str]) -> None:
    """Add the SHA-256 of the files to people and rows, as `sha256` and `seen_sha256`.

    Args:
        made: People; those of an earlier session have it already.
        rows: Rows of `metadata.jsonl`.
        digests: Of the files that were written, by name.
    """
    for one in made:
        one["sha256"] = digests.get(one["file"]) or one["sha256"]
    for row in rows:
        row["sha256"] = digests[row["file_name"]]
        row["seen_sha256"] = digests[row["seen_file_name"]]


def all_failed(task: manifest.Task, job: Job, why: str) -> list[Reject]:
    """One fault for every person of a task.

    Args:
        task: The task that failed.
        job: The run.
        why: The reason.
    """
    people = [(relative(e.samples[0].paths[0], job.root), e.pid) for e in task.entries]
    people = people or [(made["file"], made["pid"]) for made in task.made]
    return [
        Reject(source=source, stage="chunk", reason=why, kind="fault", pid=pid)
        for source, pid in people
    ]


def relative(path: Path, root: Path) -> str:
    """The name of a source file in rows: relative to the root of the data, with slashes."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
