# SPDX-License-Identifier: Apache-2.0
"""Metadata files of one's own pictures: rows in, samples out."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from viewsynth.data import cells, columns, layout, listing
from viewsynth.data.columns import Row
from viewsynth.data.layout import quoted
from viewsynth.data.listing import Folder, Found
from viewsynth.data.reading import Reading
from viewsynth.records import PLATFORMS, SOURCES, SPLITS, VIEWS, Reject, Sample

MARKS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # that others put between columns
MAX_METADATA = 512 * 2**20  # bytes

LABELS = ("camid", "outfit", "session")
TEXT = ("modality", "caption")
CHOICES = {"platform": PLATFORMS, "view": VIEWS, "split": SPLITS, "source": SOURCES}
NUMBERS = {  # name: allowed range
    "azimuth": (-360.0, 360.0),
    "altitude": (-1000.0, 100_000.0),
    "distance": (0.0, 100_000.0),
}
ELEVATION = {"horizon": (-90.0, 90.0), "pitch": (-90.0, 90.0), "nadir": (0.0, 180.0)}
COLUMNS = (
    "file_name",
    "pid",
    "camid",
    "outfit",
    "session",
    "modality",
    "caption",
    "platform",
    "view",
    "split",
    "source",
    "elevation",
    "azimuth",
    "altitude",
    "distance",
    "attributes",
    "box",
)


def read(folders: list[Folder], reading: Reading, found: Found) -> None:
    """Read the metadata of some folders of one data set.

    A row's split is that of its column, else what a folder that it lies in is called as, else
    train.

    Args:
        found: Gets the samples, and what cannot be used.
    Raises: ValueError: if a file cannot be read at all, or a whole column is in another form.
    """
    seen: set[tuple] = set()
    samples: list[Sample] = []
    for folder in folders:
        rows = _rows(folder, reading, found)
        bad = columns.elevations(rows, reading.elevation, found.warnings)
        bad += columns.boxes(rows, reading.box, found.warnings)
        reasons = {id(row): reason for row, reason in reversed(bad)}
        for row in rows:
            try:
                if id(row) in reasons:
                    raise ValueError(reasons[id(row)])
                sample = _sample(folder, row, found)
                if sample and (key := (sample.name, sample.box)) in seen:
                    raise ValueError(f"{sample.name} was named before, with the same box")
            except ValueError as error:
                found.rejects.append(_reject(row.where, str(error)))
            else:
                if sample:
                    seen.add(key)
                    samples.append(sample)
        found.warnings += _half_told(folder, rows)
    found.samples += _numbered(samples)


def _rows(folder: Folder, reading: Reading, found: Found) -> list[Row]:
    """The rows of a folder's metadata that can be read."""
    name = _only(folder)
    path = folder.path / name
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} must be a regular file, no symbolic link")
    if path.stat().st_size > MAX_METADATA:
        raise ValueError(f"{path} has more than {MAX_METADATA >> 20} MiB; split the data set")
    with path.open("rb") as file:
        start = file.read(4)
    if b"\0" in start or start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise ValueError(
            f"{path} must be text in UTF-8, got UTF-16 or another form with zeros in it; save it "
            'again in UTF-8 (a spreadsheet\'s "CSV UTF-8")'
        )
    rows: list[Row] = []
    unknown: Counter[str] = Counter()
    lines = _csv_rows(path) if name.lower().endswith(".csv") else layout.json_rows(path)
    for line, row in lines:
        where = f"{folder.own(name)}:{line}"
        try:
            if isinstance(row, Exception):
                raise row
            unknown.update(str(key) for key in row if key not in COLUMNS)
            rows.append(_row(folder, where, row, reading))
        except ValueError as error:
            found.rejects.append(_reject(where, str(error)))
    for column, count in sorted(unknown.items()):
        reason = f"skipped: unknown column {quoted(column)}; known: {', '.join(COLUMNS)}"
        found.rejects.append(
            Reject(
                source=folder.own(name),
                stage="input",
                reason=reason,
                kind="skipped",
                scores={"count": count},
            )
        )
    return rows


def _only(folder: Folder) -> str:
    """The metadata file of a folder."""
    if len(folder.tables) > 1:
        both = " and ".join(sorted(folder.tables))
        raise ValueError(f"{folder.path} has both {both}; keep one of them")
    return folder.tables[0]


def _reject(where: str, reason: str) -> Reject:
    return Reject(source=listing.clean(where), stage="input", reason=listing.clean(reason))


def _csv_rows(path: Path) -> Iterator[tuple[int, dict | ValueError]]:
    """Line number and row, or what is wrong with it."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = [column.strip() for column in next(reader, [])]
        if missing := {"file_name", "pid"} - set(header):
            other = next((name for mark, name in MARKS.items() if mark in "".join(header)), "")
            raise ValueError(
                f"{path} needs the columns file_name and pid, separated by commas; "
                f"missing: {', '.join(sorted(missing))}; got {', '.join(map(quoted, header))}"
                + (f": these are {other}, save it with commas" if other else "")
            )
        named = [column for column in header if column]
        if len(set(named)) < len(named):
            raise ValueError(f"{path} names a column twice: {', '.join(map(quoted, header))}")
        while True:
            first = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, ValueError(f"not a CSV row: {error}")
                continue
            while row and not row[-1].strip():  # the commas of a spreadsheet
                row.pop()
            if len(row) > len(header):
                yield (
                    reader.line_num,
                    ValueError(
                        f"expected {len(header)} fields as in the header, got {len(row)}; "
                        "text with commas needs quotes"
                    ),
                )
            elif row:
                named = {k: v for k, v in zip(header, row, strict=False) if k or v}
                if "\n" in named.get("file_name", "") + named.get("pid", ""):
                    named = ValueError(
                        f"the lines {first} to {reader.line_num} are one row, as a quote is opened "
                        "and not closed: write a quote in text twice, and the text in quotes"
                    )
                yield reader.line_num, named


def _row(folder: Folder, where: str, row: dict, reading: Reading) -> Row:
    """The cells of a row. Raises ValueError naming the field."""
    fields: dict = {name: value for name in LABELS if (value := cells.label(row, name))}
    fields |= {name: value for name in TEXT if (value := _text(row, name))}
    for name, allowed in CHOICES.items():
        if value := cells.text(row, name):
            fields[name] = cells.choice(name, value, allowed)
    for name, limits in (NUMBERS | {"elevation": ELEVATION[reading.elevation]}).items():
        if value := cells.text(row, name):
            fields[name] = cells.number(name, value, *limits)
    if fields.get("platform") == "drone":
        fields.setdefault("view", "aerial")
    fields["pid"] = cells.pid(row)
    fields["name"], paths = cells.paths(folder.root, folder.path, cells.text(row, "file_name"))
    fields["attributes"] = cells.attributes(row.get("attributes"))
    if box := cells.box(row.get("box")):
        fields["box"] = box
        picture = paths[0].name == fields["name"].rpartition("/")[2]
        if not picture or cells.is_video(fields["name"]):
            raise ValueError("box is of one picture; it cannot go with a video or several frames")
    return Row(where, paths, fields)


def _text(row: dict, name: str) -> str:
    """Text; a caption may have line ends and tabs, which become blanks."""
    value = row.get(name)
    if name == "caption" and isinstance(value, str):
        return cells.text({name: " ".join(value.split())}, name)
    return cells.text(row, name)


def _sample(folder: Folder, row: Row, found: Found) -> Sample | None:
    """A row as a sample; None if it belongs to a test split without a role."""
    fields = row.fields
    if "split" not in fields:
        called = _split_folder(folder, fields["name"], fields["pid"])
        fields["split"] = "train" if called is None else listing.split_of(called)
        if not fields["split"]:
            found.left[called, "rows"] += 1
            return None
    cells.somebody(fields["pid"], fields["split"])
    return Sample(paths=row.paths, **fields)


def _split_folder(folder: Folder, name: str, pid: str) -> str | None:
    """The folder around a picture that is called as a split, if one is.

    Args:
        folder: Of the metadata: any folder that it lies in counts.
        name: Of the picture: only its outermost folder counts, but for one like `images`.
    """
    for part in reversed(folder.name.split("/")):
        if listing.is_split(part):
            return part
    outer = next((p for p in name.split("/")[:-1] if not listing.is_container(p)), "")
    return outer if outer != pid and listing.is_split(outer) else None


def _half_told(folder: Folder, rows: list[Row]) -> Iterator[str]:
    """What an evaluation will not find in the rows."""
    told = [row for row in rows if "camid" in row.fields]
    if 0 < len(told) < len(rows):
        yield (
            f"{folder.own(folder.tables[0])}: {len(rows) - len(told)} of {len(rows)} rows have no "
            f"camid: they count as camera {Sample.camid}"
        )
    # A platform on the ground says the view, too.
    blind = sum(
        "view" not in row.fields and row.fields.get("platform", "unknown") == "unknown"
        for row in rows
    )
    if 0 < blind < len(rows):
        yield (
            f"{folder.own(folder.tables[0])}: {blind} of {len(rows)} rows have no view: they count "
            f"as {Sample.view}; write aerial for those from above"
        )
    tested = [row for row in rows if row.fields.get("split") in ("query", "gallery")]
    if tested and not any("view" in row.fields for row in rows):
        yield (
            f"{folder.own(folder.tables[0])}: no row has a view: all count as {Sample.view}; "
            "protocols between ground and air need the column view (aerial or ground)"
        )


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
