# SPDX-License-Identifier: Apache-2.0
"""Anyone's own pictures: a folder in, samples out, nothing decoded yet.

Rows with the splits `query` and `gallery` make it a benchmark with the protocols of
`layout.directions`; without any, everything is there to be learnt from.

Three forms, told apart by what is there:

- `root/metadata.csv` or `root/metadata.jsonl`: one row a picture (or a person in it, with `box`),
  the columns of `TEXT`, `CHOICES`, `NUMBERS`; `file_name` and `pid` are needed. Only what is named
  there is read. UTF-8, with or without BOM.
- `root/<pid>/*.jpg`: a folder is a person.
- `root/*.jpg`: each file is its own person; its pid is the name without extension, or with it where
  that would not be unique (`a.jpg` beside `a.png`, or beside a folder `a`). Folders may lie beside.

A pid is used as it is written. Hidden files are ignored, other files skipped and counted: one
`Reject` of kind "skipped" says how many. Symbolic links are refused everywhere.
"""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from viewsynth.data import layout
from viewsynth.data.images import EXTENSIONS
from viewsynth.records import PLATFORMS, SOURCES, SPLITS, VIEWS, Dataset, Reject, Sample

PARTS = ()  # any folder will do

METADATA = ("metadata.csv", "metadata.jsonl")
MAX_METADATA = 512 * 2**20  # bytes

TEXT = ("camid", "outfit", "session", "modality", "caption")
CHOICES = {"platform": PLATFORMS, "view": VIEWS, "split": SPLITS, "source": SOURCES}
NUMBERS = {  # name: allowed range
    "elevation": (-90.0, 90.0),
    "azimuth": (-360.0, 360.0),
    "altitude": (-1000.0, 100_000.0),
    "distance": (0.0, 100_000.0),
}
COLUMNS = ("file_name", "pid", *TEXT, *CHOICES, *NUMBERS, "attributes", "box")


def load(root: str | Path) -> Dataset:
    """The pictures of a folder.

    Args:
        root: The folder, in one of the three forms above.
    Returns: samples whose `name` is the path in the folder (with "#2", "#3" for further people of
        the same picture); rejects, sorted by source.
    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no picture, or its metadata cannot be read at all.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"data.root: there is no folder {root}")
    if not root.is_dir():
        raise ValueError(f"data.root must be a folder, got the file {root}")
    root = root.resolve()
    listed = [name for name in METADATA if (root / name).exists()]
    if len(listed) > 1:
        raise ValueError(f"{root} has both {' and '.join(METADATA)}; keep one of them")
    samples, rejects = _from_metadata(root, listed[0]) if listed else _from_tree(root)
    if not samples and all(reject.kind == "skipped" for reject in rejects):
        skipped = "; ".join(reject.reason for reject in rejects)
        raise ValueError(
            f"no pictures in {root}; expected {root.name}/<person>/*.jpg, or {root.name}/*.jpg "
            f"with one person a file ({' '.join(EXTENSIONS)}), or a metadata.csv with the columns "
            "file_name and pid" + (f" ({skipped})" if skipped else "")
        )
    samples.sort(key=lambda s: (s.pid, s.name))
    rejects.sort(key=lambda r: (r.source, r.reason))
    query, gallery = ([s for s in samples if s.split == split] for split in ("query", "gallery"))
    return Dataset(
        name="folder", root=root, samples=samples, rejects=rejects,
        protocols=layout.directions(query, gallery),
        fingerprint=layout.fingerprint((s.name, _size(s.paths[0])) for s in samples),
    )  # fmt: skip


def _size(path: Path) -> int:
    """Bytes; 0 for a file that is not there, which is told when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _from_tree(root: Path) -> tuple[list[Sample], list[Reject]]:
    rejects: list[Reject] = []
    skipped: Counter[str] = Counter()
    flat, folders = _list(root, root, rejects, skipped)
    stems = Counter(path.stem for path in flat) + Counter(path.name for path in folders)
    people = [(path, path.stem if stems[path.stem] == 1 else path.name) for path in flat]
    for folder in folders:
        files, deeper = _list(root, folder, rejects, skipped)
        people += [(path, folder.name) for path in files]
        rejects += [
            _reject(root, path, "folders inside a person's folder are not read: give the folder "
                    "one level down as data.root, move the pictures up, or write a metadata.csv")
            for path in deeper
        ]  # fmt: skip
    if skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        rejects.append(_skipped(".", f"files that are no pictures: {kinds}", skipped.total()))
    samples = [
        Sample(paths=(path,), pid=pid, name=path.relative_to(root).as_posix())
        for path, pid in people
    ]
    return samples, rejects


def _list(
    root: Path, folder: Path, rejects: list[Reject], skipped: Counter
) -> tuple[list[Path], list[Path]]:
    """Pictures and folders of one folder; what cannot be used goes to `rejects` and `skipped`."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        rejects.append(_reject(root, folder, reason, "fault"))
        return [], []
    for entry in entries:
        path = folder / entry.name
        picture = path.suffix.lower() in EXTENSIONS
        if entry.name.startswith("."):
            continue
        if reason := _bad_name(entry.name):
            rejects.append(_reject(root, path, reason))
        elif entry.is_symlink() and (picture or entry.is_dir()):
            rejects.append(_reject(root, path, "symbolic links are refused; put the file there"))
        elif entry.is_dir():
            folders.append(path)
        elif not picture:
            skipped[path.suffix.lower() or "without extension"] += 1
        elif not entry.is_file():
            rejects.append(_reject(root, path, "not a regular file"))
        else:
            files.append(path)
    return files, folders


def _from_metadata(root: Path, name: str) -> tuple[list[Sample], list[Reject]]:
    path = root / name
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} must be a regular file, no symbolic link")
    if path.stat().st_size > MAX_METADATA:
        raise ValueError(f"{path} has more than {MAX_METADATA >> 20} MiB; split the data set")
    samples: list[Sample] = []
    rejects: list[Reject] = []
    unknown: Counter[str] = Counter()
    seen: set[tuple] = set()
    rows = _csv_rows(path) if name.endswith(".csv") else layout.json_rows(path)
    for line, row in rows:
        where = f"{name}:{line}"
        try:
            if isinstance(row, Exception):
                raise row
            unknown.update(str(key) for key in row if key not in COLUMNS)
            sample = _sample(root, row)
            if (key := (sample.name, sample.box)) in seen:
                raise ValueError(f"{sample.name} was named before, with the same box")
            seen.add(key)
        except ValueError as error:
            rejects.append(Reject(source=where, stage="input", reason=_clean(str(error))))
        else:
            samples.append(sample)
    for column, count in sorted(unknown.items()):
        reason = f"unknown column {_clean(column)!r}; known: {', '.join(COLUMNS)}"
        rejects.append(_skipped(name, reason, count))
    return _numbered(samples), rejects


def _csv_rows(path: Path) -> Iterator[tuple[int, dict | ValueError]]:
    """Line number and row, or what is wrong with it."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = [column.strip() for column in next(reader, [])]
        if missing := {"file_name", "pid"} - set(header):
            raise ValueError(
                f"{path} needs the columns file_name and pid, separated by commas; "
                f"missing: {', '.join(sorted(missing))}; got {header}"
            )
        if len(set(header)) < len(header):
            raise ValueError(f"{path} names a column twice: {header}")
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, ValueError(f"not a CSV row: {error}")
                continue
            if len(row) > len(header):
                yield (
                    reader.line_num,
                    ValueError(
                        f"expected {len(header)} fields as in the header, got {len(row)}; "
                        "text with commas needs quotes"
                    ),
                )
            elif row:
                yield reader.line_num, dict(zip(header, row, strict=False))


def _sample(root: Path, row: dict) -> Sample:
    """One row as a sample. Raises ValueError naming the field."""
    fields = {name: value for name in TEXT if (value := _text(row, name))}
    for name, allowed in CHOICES.items():
        if value := _text(row, name):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
            fields[name] = value
    for name, (low, high) in NUMBERS.items():
        if value := _text(row, name):
            fields[name] = _number(name, value, low, high)
    pid = _text(row, "pid")
    if not pid or pid in (".", ".."):
        raise ValueError(f"pid must be a name of the person, got {pid!r}")
    path = _path(root, _text(row, "file_name"))
    return Sample(
        paths=(path,),
        pid=pid,
        name=path.relative_to(root).as_posix(),
        attributes=_attributes(row.get("attributes")),
        box=_box(row.get("box")),
        **fields,
    )


def _text(row: dict, name: str) -> str:
    """A field as text, "" where it is absent."""
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name} must be a text or a number, got {type(value).__name__}")
    value = str(value).strip()
    if name == "caption":
        value = " ".join(value.split())
    if reason := _bad_name(value):
        raise ValueError(f"{name}: {reason}")
    return value


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high or (name == "distance" and value == 0):
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {text!r}")
    return value


def _attributes(value) -> tuple[str, ...]:
    """A JSON list, or text separated by semicolons."""
    items = value if isinstance(value, list) else str(value or "").split(";")
    items = [_text({"attributes": item}, "attributes") for item in items]
    return tuple(item for item in items if item)


def _box(value) -> tuple[int, int, int, int] | None:
    """A JSON list, or four numbers separated by blanks or commas."""
    if value is None or value == "":
        return None
    items = value if isinstance(value, list) else str(value).replace(",", " ").split()
    try:
        left, top, right, bottom = (round(float(item)) for item in items)
    except (ValueError, TypeError, OverflowError):
        left = top = right = bottom = 0
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError(f"box must be left, top, right, bottom in pixels, got {value!r}")
    return left, top, right, bottom


def _path(root: Path, file_name: str) -> Path:
    """The file that a row names, if it lies in the folder and is no link."""
    if not file_name:
        raise ValueError("file_name is empty")
    try:
        path = Path(os.path.normpath(root / file_name))
        real = path.resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"file_name {file_name!r} leads out of the folder; it must lie in it")
        if real != path:
            raise ValueError(f"file_name {file_name!r} is or passes a symbolic link: refused")
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise ValueError(f"file_name {file_name!r} {what} in {root.name}")
    except (OSError, RuntimeError) as error:  # too long a name; links in a circle
        raise ValueError(f"file_name {file_name!r} cannot be read: {error}") from error
    return path


def _numbered(samples: list[Sample]) -> list[Sample]:
    """Samples of the same picture get names of their own: a.jpg, a.jpg#2, …"""
    taken = {sample.name for sample in samples}
    used: Counter[str] = Counter()
    result = []
    for sample in samples:
        name = sample.name
        while used[sample.name] and name in taken:
            used[sample.name] += 1
            name = f"{sample.name}#{used[sample.name]}"
        used[sample.name] = max(used[sample.name], 1)
        taken.add(name)
        result.append(replace(sample, name=name))
    return result


def _bad_name(text: str) -> str:
    """Why a name or field cannot be used; "" if it can."""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return f"{_clean(text)!r} is not valid UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return f"{text!r} has control characters"
    return ""


def _clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _reject(root: Path, path: Path, reason: str, kind: str = "quality") -> Reject:
    source = _clean(path.relative_to(root).as_posix())
    return Reject(source=source, stage="input", reason=reason, kind=kind)


def _skipped(source: str, what: str, count: int) -> Reject:
    reason = f"skipped: {what}"
    return Reject(
        source=source, stage="input", reason=reason, kind="skipped", scores={"count": count}
    )
