# SPDX-License-Identifier: Apache-2.0
"""Render chunks of a finished run again, from its saved people, and compare every byte.

manifest.heads -> `differences` -> `viewsynth verify`. A chunk is rendered whole, as it was the
first time, because the last digits of a view may depend on the others of its chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from viewsynth import manifest
from viewsynth.generate import chunk, worker
from viewsynth.manifest import Problem, differing


def differences(head: dict, rows: list[dict], job: worker.Job, tools: chunk.Tools) -> list[Problem]:
    """What differs between the rows of a part and those of its people rendered again.

    Args:
        head: Of `manifest.heads`.
        rows: All rows of the run.
        job: The run.
        tools: See `chunk.load_tools`.
    """
    digests: dict[str, str] = {}

    def put(name: str, encode: Callable[..., bytes], *args) -> None:
        digests[name] = hashlib.sha256(encode(*args)).hexdigest()

    people = tuple(head["people"])
    task = manifest.Task("again", head["chunk"], (), people, tuple(head["views"]))
    _, again, rejects = chunk.make_chunk(task, job, tools, put)
    worker.add_digests([], again, digests)
    files = {made["file"] for made in people}
    old = {r["file_name"]: r for r in rows if r["person"] in files and _view(r) in head["views"]}
    new = {row["file_name"]: row for row in again}
    found = [
        Problem(reject.source, f"cannot be rendered again: {reject.reason}")
        for reject in rejects
        if reject.kind == "fault"
    ]
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            found.append(Problem(name, "its person, rendered again, does not give this view"))
        elif name not in old:
            found.append(Problem(name, "its person, rendered again, gives this view, but no row"))
        elif old[name] != new[name]:
            what = f"rendered again, it differs: {differing(old[name], new[name])}"
            found.append(Problem(name, what))
    return found


def _view(row: dict) -> str:
    """The name of a view, as tasks have it."""
    return row["file_name"].rpartition("/")[2].rpartition(".")[0].rpartition("+")[2]
