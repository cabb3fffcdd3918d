# SPDX-License-Identifier: Apache-2.0
"""Parts: what each finished chunk of a run leaves, and how they are joined to `metadata.jsonl`.

A part is a file of JSON lines with one key each: first {"part": {chunk, views, people, faults}},
where `people` are the reconstructed ones with the hashes of their files, then {"row": ...} for
every view and {"reject": ...} for every reject. Further views of known people are a further part,
`<chunk>-1.jsonl`, rendered from their saved bodies.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from viewsynth.manifest.frozen import Entry, Frozen
from viewsynth.runtime.files import sync_folders, to_jsonl, write


@dataclass(frozen=True)
class Task:
    """A chunk to compute, or the views that are missing of it.

    Args:
        part: Name of the part to be written, without suffix.
        chunk: Name of the chunk.
        entries: The people to reconstruct; empty if `made` is given.
        made: People of an earlier part that only need new views: {pid, outfit, file, sha256}.
        views: Names of the wanted views.
    """

    part: str
    chunk: str
    entries: tuple[Entry, ...]
    made: tuple[dict, ...]
    views: tuple[str, ...]

    @property
    def people(self) -> int:
        """Number of people."""
        return len(self.entries) or len(self.made)


def tasks(run: Path, frozen: Frozen, views: tuple[str, ...], retry: bool = False) -> list[Task]:
    """The tasks that are left: chunks without a part, and missing views of finished chunks.

    Args:
        run: Folder of the run.
        frozen: Its input list.
        views: Names of the wanted views.
        retry: Whether chunks with a fault are computed again, whole and with all views they had.

    Returns:
        The tasks, in the order of the chunks.
    """
    todo = []
    for chunk, first, last in frozen.chunks:
        heads = [head for head, _ in _parts(run, chunk)]
        done = [view for head in heads for view in head["views"]]
        missing = tuple(view for view in views if view not in done)
        people = tuple(frozen.people[first:last])
        if not heads or (retry and any(head["faults"] for head in heads)):
            todo.append(Task(chunk, chunk, people, (), (*done, *missing)))
        elif missing:
            made = tuple(heads[0]["people"])
            todo.append(Task(f"{chunk}-{len(heads)}", chunk, (), made, missing))
    return todo


def write_part(
    run: Path, task: Task, made: list[dict], rows: list[dict], rejects: list[dict]
) -> None:
    """Write the part of a finished task, after all its other files.

    Args:
        run: Folder of the run.
        task: The task.
        made: The reconstructed people: {pid, outfit, file, sha256}.
        rows: Rows of `metadata.jsonl`.
        rejects: Rows of `rejects.jsonl`.
    """
    faults = sum(reject["kind"] == "fault" for reject in rejects)
    head = {"chunk": task.chunk, "views": list(task.views), "people": made, "faults": faults}
    rows = sorted(rows, key=lambda row: row["file_name"])
    body = [{"row": row} for row in rows] + [{"reject": reject} for reject in _sorted(rejects)]
    write(run / "parts" / f"{task.part}.jsonl", to_jsonl([{"part": head}, *body]))
    sync_folders({run / "parts"})


def _parts(run: Path, chunk: str) -> Iterator[tuple[dict, Path]]:
    """The valid parts of a chunk: their first lines, and their paths.

    A part without any new view is a leftover of a chunk that was computed again.
    """
    covered: set[str] = set()
    for number in itertools.count():
        path = run / "parts" / (f"{chunk}-{number}.jsonl" if number else f"{chunk}.jsonl")
        if not path.is_file():
            return
        head = next(_lines(path))["part"]
        if not covered.issuperset(head["views"]):
            covered.update(head["views"])
            yield head, path


def _lines(path: Path) -> Iterator[dict]:
    """The lines of a part; raises ValueError if one is damaged."""
    with path.open("rb") as file:
        for number, line in enumerate(itertools.chain([file.readline()], file), 1):
            try:
                found = json.loads(line)
                if not isinstance(found, dict) or ("part" in found) != (number == 1):
                    raise ValueError(f"got {line[:40]!r}")
            except ValueError as error:
                raise ValueError(
                    f"{path}:{number} is no line of a part: {error}; delete the file and run "
                    "the same command again, which computes its chunk anew"
                ) from error
            yield found


def read_rows(run: Path, frozen: Frozen) -> tuple[list[dict], list[dict]]:
    """Read all rows and rejects of the finished parts.

    Args:
        run: Folder of the run.
        frozen: Its input list.

    Returns:
        Rows and rejects, sorted.
    """
    rows, rejects = [], [*frozen.rejects]
    for chunk, _, _ in frozen.chunks:
        for _, path in _parts(run, chunk):
            for line in _lines(path):
                rows += [line["row"]] if "row" in line else []
                rejects += [line["reject"]] if "reject" in line else []
    return sorted(rows, key=lambda row: row["file_name"]), _sorted(rejects)


def made_people(run: Path, frozen: Frozen) -> list[dict]:
    """The people of the finished parts: {pid, outfit, file, sha256}.

    Args:
        run: Folder of the run.
        frozen: Its input list.
    """
    return [made for head in heads(run, frozen) for made in head["people"]]


def heads(run: Path, frozen: Frozen) -> list[dict]:
    """The first lines of the finished parts: {chunk, views, people, faults}.

    Args:
        run: Folder of the run.
        frozen: Its input list.
    """
    return [head for chunk, _, _ in frozen.chunks for head, _ in _parts(run, chunk)]


def join(run: Path, frozen: Frozen, lost: list[dict]) -> tuple[list[dict], list[dict]]:
    """Join the parts into `metadata.jsonl` and `rejects.jsonl`.

    Args:
        run: Folder of the run.
        frozen: Its input list.
        lost: Rejects of people whose chunk has no part because its worker died.

    Returns:
        The rows and the rejects that were written.
    """
    rows, rejects = read_rows(run, frozen)
    rejects = _sorted([*rejects, *lost])
    for one, two in itertools.pairwise(rows):
        assert one["file_name"] != two["file_name"], f"{one['file_name']} was written twice"
    write(run / "metadata.jsonl", to_jsonl(rows))
    write(run / "rejects.jsonl", to_jsonl(rejects))
    return rows, rejects


def sweep(run: Path, frozen: Frozen, rows: list[dict]) -> int:
    """Remove files that no part refers to, such as those of a killed worker.

    Args:
        run: Folder of the run.
        frozen: Its input list.
        rows: All rows of the run.

    Returns:
        Number of removed files.
    """
    keep = {row[key] for row in rows for key in ("file_name", "seen_file_name")}
    keep.update(made["file"] for made in made_people(run, frozen))
    kinds = {"images": ".jpg", "seen": ".png", "people": ".safetensors"}
    stray = [
        path
        for folder, suffix in kinds.items()
        for path in (run / folder).rglob(f"*{suffix}")
        if path.relative_to(run).as_posix() not in keep
    ]
    for path in (run / "report" / "fit").glob("*.jpg"):
        if f"people/{path.stem.rpartition('_')[0]}.safetensors" not in keep:
            stray.append(path)
    for path in stray:
        path.unlink()
    return len(stray)


def _sorted(rejects: list[dict]) -> list[dict]:
    return sorted(rejects, key=lambda r: (r["source"], r["pid"], r["stage"], r["reason"]))
