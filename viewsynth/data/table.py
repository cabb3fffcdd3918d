# SPDX-License-Identifier: Apache-2.0
"""Metadata files of a user's own images: rows in, samples out."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from viewsynth.data import cells, columns, layout, listing
from viewsynth.data.columns import Row
from viewsynth.data.listing import Folder, Found, quoted
from viewsynth.data.reading import Reading
from viewsynth.records import PLATFORMS, SOURCES, SPLITS, VIEWS, Reject, Sample

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}  # instead of commas
MAX_METADATA = 512 * 2**20  # bytes

LABELS = ("camid", "outfit", "session")
TEXT = ("modality", "caption")
CHOICES = {"platform": PLATFORMS, "view": VIEWS, "split": SPLITS, "source": SOURCES}
NUMBERS = {  # column: allowed range
    "azimuth": (-360.0, 360.0),
    "altitude": (-1000.0, 100_000.0),
    "distance": (0.0, 100_000.0),
}
ELEVATION = {"horizon": (-90.0, 90.0), "pitch": (-90.0, 90.0), "nadir": (0.0, 180.0)}
COLUMNS = ("file_name", "pid", *LABELS, *TEXT, *CHOICES)
COLUMNS += ("elevation", *NUMBERS, "attributes", "box")


def read(folders: list[Folder], reading: Reading, found: Found) -> None:
    """Read the metadata of some folders of one data set.

    The split of a row comes from its column, else from the name of a folder around it, else it is
    train.

    Args:
        folders: Folders with metadata.
        reading: How the columns box and elevation are written.
        found: Gets the samples, rejects and warnings.

    Raises:
        ValueError: if a file cannot be read at all, or a whole column has another form.
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
                    raise ValueError(f"{sample.name} was named before with the same box")
            except ValueError as error:
                found.rejects.append(_reject(row.where, str(error)))
            else:
                if sample:
                    seen.add(key)
                    samples.append(sample)
        found.warnings += _incomplete(folder, rows)
    found.samples += _with_unique_names(samples)


def _rows(folder: Folder, reading: Reading, found: Found) -> list[Row]:
    """The valid rows of a folder's metadata."""
    name = _metadata_file(folder)
    path = folder.path / name
    _check_file(path)
    rows: list[Row] = []
    unknown: Counter[str] = Counter()
    lines = _csv_rows(path) if name.lower().endswith(".csv") else layout.json_rows(path)
    for line, row in lines:
        where = f"{folder.name_of(name)}:{line}"
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
                source=folder.name_of(name),
                stage="input",
                reason=reason,
                kind="skipped",
                scores={"count": count},
            )
        )
    return rows


def _metadata_file(folder: Folder) -> str:
    """The only metadata file of a folder; raises ValueError if there are two."""
    if len(folder.tables) > 1:
        both = " and ".join(sorted(folder.tables))
        raise ValueError(f"{folder.path} has both {both}; keep one of them")
    return folder.tables[0]


def _check_file(path: Path) -> None:
    """Raise ValueError if a metadata file is a link, too large or not UTF-8."""
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} must be a regular file, not a symbolic link")
    if path.stat().st_size > MAX_METADATA:
        raise ValueError(f"{path} has more than {MAX_METADATA >> 20} MiB; split the data set")
    with path.open("rb") as file:
        start = file.read(4)
    if b"\0" in start or start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise ValueError(
            f"{path} must be text in UTF-8, got UTF-16 or another encoding with zero bytes; save "
            'it again as UTF-8 (in a spreadsheet: "CSV UTF-8")'
        )


def _reject(where: str, reason: str) -> Reject:
    return Reject(source=listing.clean(where), stage="input", reason=listing.clean(reason))


def _csv_rows(path: Path) -> Iterator[tuple[int, dict | ValueError]]:
    """Line number and row; a ValueError instead of a row that cannot be read."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = [column.strip() for column in next(reader, [])]
        _check_header(path, header)
        while True:
            first = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, ValueError(f"not a CSV row: {error}")
                continue
            while row and not row[-1].strip():  # spreadsheets pad rows with commas
                row.pop()
            if row:
                yield reader.line_num, _cells(header, row, first, reader.line_num)


def _check_header(path: Path, header: list[str]) -> None:
    """Raise ValueError if a required column is missing, or a column is there twice."""
    shown = ", ".join(map(quoted, header))
    if missing := {"file_name", "pid"} - set(header):
        other = next((name for mark, name in SEPARATORS.items() if mark in "".join(header)), "")
        raise ValueError(
            f"{path} needs the columns file_name and pid, separated by commas; "
            f"missing: {', '.join(sorted(missing))}; got {shown}"
            + (f": these are separated by {other}, save it with commas" if other else "")
        )
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        raise ValueError(f"{path} has a column twice: {shown}")


def _cells(header: list[str], row: list[str], first: int, last: int) -> dict | ValueError:
    """A row as a dict, or what is wrong with it.

    Args:
        header: Names of the columns.
        row: Cells of the row, without empty ones at the end.
        first: First line of the row.
        last: Its last line; later than `first` if a cell has line ends.
    """
    if len(row) > len(header):
        return ValueError(
            f"expected {len(header)} cells as in the header, got {len(row)}; "
            "text with commas needs quotes"
        )
    named = {k: v for k, v in zip(header, row, strict=False) if k or v}
    if "\n" in named.get("file_name", "") + named.get("pid", ""):
        return ValueError(
            f"the lines {first} to {last} are one row, because a quote is opened and not closed: "
            "write a quote inside text twice, and the text in quotes"
        )
    return named


def _row(folder: Folder, where: str, row: dict, reading: Reading) -> Row:
    """A row with its cells checked; raises ValueError that names the column."""
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
        is_image = paths[0].name == fields["name"].rpartition("/")[2]
        if not is_image or cells.is_video(fields["name"]):
            raise ValueError("box needs a single image, not a video or several frames")
    return Row(where, paths, fields)


def _text(row: dict, name: str) -> str:
    """A cell as text; line ends and tabs of a caption become spaces."""
    value = row.get(name)
    if name == "caption" and isinstance(value, str):
        return cells.text({name: " ".join(value.split())}, name)
    return cells.text(row, name)


def _sample(folder: Folder, row: Row, found: Found) -> Sample | None:
    """A row as a sample; None if it is in a test split that is neither query nor gallery."""
    fields = row.fields
    if "split" not in fields:
        name = _split_folder(folder, fields["name"], fields["pid"])
        fields["split"] = "train" if name is None else listing.split_of(name)
        if not fields["split"]:
            found.left_out[name, "rows"] += 1
            return None
    cells.check_identified(fields["pid"], fields["split"])
    return Sample(paths=row.paths, **fields)


def _split_folder(folder: Folder, name: str, pid: str) -> str | None:
    """The folder around an image that has the name of a split, if there is one.

    Args:
        folder: Folder of the metadata; any folder around it counts.
        name: Name of the image; only its outermost folder counts, containers like `images` aside.
        pid: Identity of the row; a folder with that name is the person's.
    """
    for part in reversed(folder.name.split("/")):
        if listing.is_split(part):
            return part
    outer = next((p for p in name.split("/")[:-1] if not listing.is_container(p)), "")
    return outer if outer != pid and listing.is_split(outer) else None


def _incomplete(folder: Folder, rows: list[Row]) -> Iterator[str]:
    """Warnings of columns that an evaluation needs and some rows lack."""
    with_camera = [row for row in rows if "camid" in row.fields]
    if 0 < len(with_camera) < len(rows):
        yield (
            f"{folder.name_of(folder.tables[0])}: {len(rows) - len(with_camera)} of {len(rows)} "
            f"rows have no camid: they count as camera {Sample.camid}"
        )
    # The platform implies the view, also on the ground.
    without_view = sum(
        "view" not in row.fields and row.fields.get("platform", "unknown") == "unknown"
        for row in rows
    )
    if 0 < without_view < len(rows):
        yield (
            f"{folder.name_of(folder.tables[0])}: {without_view} of {len(rows)} rows have no view: "
            f"they count as {Sample.view}; write aerial for images from above"
        )
    tested = [row for row in rows if row.fields.get("split") in ("query", "gallery")]
    if tested and not any("view" in row.fields for row in rows):
        yield (
            f"{folder.name_of(folder.tables[0])}: no row has a view: all count as {Sample.view}; "
            "protocols between ground and air need the column view (aerial or ground)"
        )


def _with_unique_names(samples: list[Sample]) -> list[Sample]:
    """Number the samples of one image: a.jpg, a.jpg#2, and so on."""
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
