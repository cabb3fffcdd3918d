# SPDX-License-Identifier: Apache-2.0
"""The data set that a run writes, and how it survives being killed anywhere.

`run.json` freezes the input list, once; its people are dealt to chunks in that order, people added
later form new chunks. A chunk is computed whole and leaves one part, `parts/<chunk>.jsonl`, written
last: what has no part does not exist. More views of known people are a further part,
`<chunk>-1.jsonl`, made from their saved bodies. The main process joins the parts into
`metadata.jsonl` and `rejects.jsonl`. Every file is written aside and renamed. No locks, no appends.

A part is JSON lines with one key each: first {"part": {chunk, views, people, faults}}, where
`people` are those that were made, then {"row": ...} for every picture and {"reject": ...} for what
was not made or not kept.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from viewsynth.config import differences
from viewsynth.records import Reject, Sample, seed_of, to_dict
from viewsynth.runtime.files import folder_of, ignores_case, lines, settle, sha256, stem_of, write

FORMAT = 1


# ---- the frozen input list -------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One person of the input list: all crops of one (pid, outfit).

    Args:
        samples: In the order of the data set.
        sha256: Of every file of the samples, in hex; "" = could not be read.
    """

    pid: str
    outfit: str
    samples: tuple[Sample, ...]
    sha256: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        return stem_of(self.pid, self.outfit)

    @property
    def files(self) -> set[tuple[Path, str]]:
        """Each file and its hash."""
        return set(zip([p for s in self.samples for p in s.paths], self.sha256, strict=True))


@dataclass
class Frozen:
    """What `run.json` holds.

    Args:
        settings: The part of the configuration that changes pixels or rows.
        root: Folder that the paths of the samples are relative to.
        people: The input list.
        chunks: Name of each chunk, first and last + 1 of its people in the list.
        rejects: What was seen to be unusable while the list was made.
        facts: Versions, host, timings: for people, compared with nothing.
    """

    settings: dict
    root: Path
    people: list[Entry] = field(default_factory=list)
    chunks: list[tuple[str, int, int]] = field(default_factory=list)
    rejects: list[dict] = field(default_factory=list)
    facts: dict = field(default_factory=dict)


def few(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """At most `count` of each (pid, outfit), chosen by the seed, in the order of the samples."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: (seed_of(seed, "few", s.pid, s.name), s.name)):
        groups.setdefault((sample.pid, sample.outfit), []).append(sample)
    chosen = {sample.name for some in groups.values() for sample in some[:count]}
    return [sample for sample in samples if sample.name in chosen]


def entries(samples: list[Sample]) -> list[Entry]:
    """Samples grouped to people, in the order of their first sample, with the hashes of the files.

    Raises: ValueError: if two pids would be one on disk or in the rows.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.pid, sample.outfit), []).append(sample)
    pids = {pid for pid, _ in groups}
    for pid in pids:
        whole, mark, number = pid.rpartition("#")
        if mark and number.isdigit() and whole in pids:
            raise ValueError(
                f"pids {whole!r} and {pid!r}: the second is how the people of a picture of the "
                "first would be called; rename one"
            )
    with ThreadPoolExecutor(8) as pool:
        hashed = dict(
            zip(
                (files := [path for sample in samples for path in sample.paths]),
                pool.map(sha256, files),
                strict=True,
            )
        )
    return [
        Entry(pid, outfit, tuple(group), tuple(hashed[p] for s in group for p in s.paths))
        for (pid, outfit), group in groups.items()
    ]


def freeze(
    run: Path, settings: dict, root: Path, people: list[Entry], rejects: list[Reject], chunk: int
) -> Frozen:
    """Write the input list of a run down, or check it against the one that is there.

    New people form new chunks; people who have gone stay in the list.

    Args:
        run: Folder of the run.
        chunk: People in a chunk, > 0.
    Raises: ValueError: if the folder holds something else, or a run of another configuration, or
        a person whose pictures are no longer the same.
    """
    refuse_same_folder(run, people)
    if (run / "run.json").exists():
        frozen = read(run)
        refuse_other_settings(run, frozen.settings, settings)
        people = _new_people(run, frozen, people)
    else:
        frozen = Frozen(settings, root)
    for start in range(0, len(people), chunk):
        first, last = len(frozen.people), len(frozen.people) + len(people[start : start + chunk])
        frozen.people += people[start : start + chunk]
        frozen.chunks.append((f"{len(frozen.chunks):05d}", first, last))
    frozen.rejects = [to_dict(reject) for reject in rejects]
    save(run, frozen)
    return frozen


def refuse_other_settings(run: Path, old: dict, new: dict) -> None:
    """Raise ValueError, with both values, if a run was made with other settings."""
    if "refine" in new:  # runs of before there was a refiner do not name it
        old = {"refine": {"engine": "none"}} | old
    if changed := differences(old, new):
        said = "; ".join(f"{key}: {a!r} there, {b!r} now" for key, a, b in changed)
        raise ValueError(
            f"{run} holds a run of another configuration ({said}); give another --output, or "
            "the values of that run"
        )


def refuse_same_folder(run: Path, people: list[Entry]) -> None:
    """Raise ValueError if two people would share a folder on a file system that ignores case."""
    names: dict[str, str] = {}
    for pid in dict.fromkeys(entry.pid for entry in people):
        other = names.setdefault(folder_of(pid).lower(), pid)
        if other != pid and ignores_case(run):
            raise ValueError(
                f"pids {other!r} and {pid!r} differ in case only, and the file system of {run} "
                "ignores case; rename one or write elsewhere"
            )


def _new_people(run: Path, frozen: Frozen, people: list[Entry]) -> list[Entry]:
    """Those who are not in the list yet. Raises: ValueError: if one in it has other pictures."""
    known = {(entry.pid, entry.outfit): index for index, entry in enumerate(frozen.people)}
    new = []
    for entry in people:
        index = known.get((entry.pid, entry.outfit))
        if index is None:
            new.append(entry)
            continue
        old = frozen.people[index]
        same = _compared(old, frozen.root) == _compared(entry, frozen.root) and all(
            a == b or not a or not b for a, b in zip(old.sha256, entry.sha256, strict=True)
        )
        if not same:
            other = sorted({path.name for path, _ in {*old.files} ^ {*entry.files}})
            raise ValueError(
                f"the pictures of {entry.pid!r} are not those that {run} was started with: "
                f"{', '.join(other[:3]) or 'other metadata'} ({len(old.sha256)} file(s) there, "
                f"{len(entry.sha256)} now); put them back or give another --output"
            )
        frozen.people[index] = entry if not all(old.sha256) else old
    return new


def _compared(entry: Entry, root: Path) -> list[dict]:
    return [_sample_to_json(sample, root) for sample in entry.samples]


def save(run: Path, frozen: Frozen) -> None:
    """Write `run.json`."""
    people = [
        {
            "pid": e.pid,
            "outfit": e.outfit,
            "sha256": list(e.sha256),
            "samples": _compared(e, frozen.root),
        }
        for e in frozen.people
    ]
    tree = {"format": FORMAT, "settings": frozen.settings, "root": frozen.root.as_posix()}
    text = json.dumps(tree | {"facts": frozen.facts}, indent=1)[:-2]
    lists = {"chunks": frozen.chunks, "rejects": frozen.rejects, "people": people}
    for key, values in lists.items():  # one line each: people look at this file
        text += f',\n "{key}": [\n' + ",\n".join(f"  {json.dumps(v)}" for v in values) + "\n ]"
    write(run / "run.json", (text + "\n}\n").encode())


def read(run: Path) -> Frozen:
    """Read `run.json`. Raises: FileNotFoundError, ValueError: if there is no run of ours."""
    path = run / "run.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} is no run of viewsynth: it has no run.json; give a folder that `viewsynth "
            "generate` wrote"
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format"] != FORMAT:
            raise ValueError(f"format {tree['format']} is not {FORMAT}")
        root = Path(tree["root"])
        people = [
            Entry(
                e["pid"],
                e["outfit"],
                tuple(_sample_from_json(s, root) for s in e["samples"]),
                tuple(e["sha256"]),
            )
            for e in tree["people"]
        ]
        chunks = [(name, first, last) for name, first, last in tree["chunks"]]
        return Frozen(tree["settings"], root, people, chunks, tree["rejects"], tree["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}; restore it, or start anew") from error


_DEFAULTS = {
    f.name: f.default for f in dataclasses.fields(Sample) if f.default is not dataclasses.MISSING
}


def _sample_to_json(sample: Sample, root: Path) -> dict:
    values = {
        f.name: getattr(sample, f.name)
        for f in dataclasses.fields(sample)
        if f.name not in _DEFAULTS or getattr(sample, f.name) != _DEFAULTS[f.name]
    }
    paths = [p.relative_to(root) if p.is_relative_to(root) else p for p in sample.paths]
    values["paths"] = [path.as_posix() for path in paths]
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _sample_from_json(values: dict, root: Path) -> Sample:
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return Sample(**{**values, "paths": tuple(root / path for path in values["paths"])})


# ---- chunks and parts ------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A chunk, or what is still missing of it.

    Args:
        part: Name of the part that it will leave, without suffix.
        chunk: Name of the chunk.
        entries: The people to reconstruct; empty when `made` is given.
        made: People of an earlier part that only need new views: {pid, outfit, file}.
        views: Names of the views wanted.
    """

    part: str
    chunk: str
    entries: tuple[Entry, ...]
    made: tuple[dict, ...]
    views: tuple[str, ...]

    @property
    def people(self) -> int:
        return len(self.entries) or len(self.made)


def tasks(run: Path, frozen: Frozen, views: tuple[str, ...], retry: bool = False) -> list[Task]:
    """What is still to do: chunks without a part, parts without these views, and if `retry`
    chunks with a fault, whole and with all views that they had.
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
    """Write the part of a finished task: the last thing that it does."""
    faults = sum(reject["kind"] == "fault" for reject in rejects)
    head = {"chunk": task.chunk, "views": list(task.views), "people": made, "faults": faults}
    rows = sorted(rows, key=lambda row: row["file_name"])
    body = [{"row": row} for row in rows] + [{"reject": reject} for reject in _sorted(rejects)]
    write(run / "parts" / f"{task.part}.jsonl", lines([{"part": head}, *body]))
    settle({run / "parts"})


def _parts(run: Path, chunk: str) -> Iterator[tuple[dict, Path]]:
    """The valid parts of a chunk: what their first line says, and where they are.

    A part whose views were all there already is left over from a chunk that was done again.
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
    """The lines of a part. Raises: ValueError: if it is not as it was written."""
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
    """All rows and all rejects of the finished parts, sorted."""
    rows, rejects = [], [*frozen.rejects]
    for chunk, _, _ in frozen.chunks:
        for _, path in _parts(run, chunk):
            for line in _lines(path):
                rows += [line["row"]] if "row" in line else []
                rejects += [line["reject"]] if "reject" in line else []
    return sorted(rows, key=lambda row: row["file_name"]), _sorted(rejects)


def join(run: Path, frozen: Frozen, lost: list[dict]) -> tuple[list[dict], list[dict]]:
    """Join the parts into `metadata.jsonl` and `rejects.jsonl`.

    Args:
        lost: Rejects of people whose chunk has no part, because its worker died.
    Returns: the rows and the rejects, as they were written.
    """
    rows, rejects = read_rows(run, frozen)
    rejects = _sorted([*rejects, *lost])
    for one, two in itertools.pairwise(rows):
        assert one["file_name"] != two["file_name"], f"{one['file_name']} was written twice"
    write(run / "metadata.jsonl", lines(rows))
    write(run / "rejects.jsonl", lines(rejects))
    return rows, rejects


def sweep(run: Path, frozen: Frozen, rows: list[dict]) -> int:
    """Remove files that no part speaks of: a kill left them, and other views were asked since.

    Returns: how many files that were.
    """
    keep = {row[key] for row in rows for key in ("file_name", "seen_file_name")}
    heads = [head for chunk, _, _ in frozen.chunks for head, _ in _parts(run, chunk)]
    keep.update(made["file"] for head in heads for made in head["people"])
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
