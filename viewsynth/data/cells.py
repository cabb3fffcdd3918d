# SPDX-License-Identifier: Apache-2.0
"""Cells of a user's metadata: CSV text or a JSON value in, a field of `Sample` out.

Every function raises a ValueError that names the column and the value if the cell is not valid.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import unicodedata
from pathlib import Path

from viewsynth.data import listing
from viewsynth.data.images import EXTENSIONS, VIDEOS
from viewsynth.data.listing import bad_text, natural, quoted

# Words of other tools -> ours, for the hint in the error message.
SYNONYMS = {
    "uav": "drone",
    "uas": "drone",
    "quadcopter": "drone",
    "aircraft": "drone",
    "fixed": "cctv",
    "surveillance": "cctv",
    "phone": "handheld",
    "glasses": "wearable",
    "air": "aerial",
    "drone": "aerial",
    "top": "aerial",
    "cctv": "ground",
    "street": "ground",
    "test": "query or gallery",
    "val": "query or gallery",
    "validation": "query or gallery",
    "probe": "query",
}
WHOLE = re.compile(r"([+-]?\d+)\.0*", re.ASCII)
ROUNDED = re.compile(r"[+-]?\d(?:\.\d+)?[eE]\+\d+", re.ASCII)
EXACT = 2**53  # above it, neighbouring integers are the same float
NOT_PORTABLE = re.compile(r"[:\\]|^//")
WINDOWS = re.compile(r"[A-Za-z]:|\\\\|//", re.ASCII)
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)


def missing(value, column: str = "") -> bool:
    """Whether a cell has no value, in any of the spellings that tools write.

    Args:
        value: The cell.
        column: Name of its column; in `pid`, na and nat may be names of people.
    """
    if value is None:
        return True
    if isinstance(value, str):
        value = value.strip()
        return listing.is_missing(value) or (column != "pid" and value.lower() in ("na", "nat"))
    if isinstance(value, list):
        return all(map(missing, value))
    return isinstance(value, float) and math.isnan(value)


def text(row: dict, column: str) -> str:
    """A cell as text, "" if it has no value."""
    value = row.get(column)
    if missing(value, column):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{column} must be text or a number, got {type(value).__name__}")
    value = str(value).strip()
    if reason := bad_text(value):
        raise ValueError(f"{column}: {reason}")
    return value


def label(row: dict, column: str) -> str:
    """A cell that names something; integers are the same name in every spelling: 6.0 is 6."""
    value = row.get(column)
    if isinstance(value, float) and abs(value) < EXACT and value.is_integer():
        return str(int(value))
    name = text(row, column)
    if ROUNDED.fullmatch(name) or (isinstance(value, float) and not abs(value) < EXACT and name):
        raise ValueError(
            f"{column} {name} is a number that a spreadsheet or a float has rounded, so different "
            f"numbers may look the same; write {column} as text, with all digits"
        )
    whole = WHOLE.fullmatch(name)
    return whole[1] if whole else name


def pid(row: dict) -> str:
    """The identity of a row."""
    value = row.get("pid")
    if missing(value, "pid"):
        got = "nothing" if value in (None, "") else f"a missing value ({value})"
        raise ValueError(f"pid must be the name of a person, got {got}: the row has no identity")
    value = label(row, "pid")
    check_identified(value, "gallery")  # the least strict split: the row's own is not known yet
    if value in (".", ".."):
        raise ValueError(f"pid must be the name of a person, got {quoted(value)}")
    return value


def check_identified(pid: str, split: str) -> None:
    """Raise ValueError for a pid that stands for unidentified people in that split."""
    if listing.is_unidentified(pid, split):
        raise ValueError(
            f"pid must be the name of a person, got {quoted(pid)}, which stands for unknown "
            "people: the row has no identity"
        )


def choice(column: str, value: str, allowed: tuple[str, ...]) -> str:
    """One of the words that a column allows."""
    word = value.lower()
    if word in allowed:
        return word
    near = SYNONYMS.get(word) or next(iter(difflib.get_close_matches(word, allowed, 1)), "")
    hint = f" (write {near})" if near and (near in allowed or column == "split") else ""
    raise ValueError(f"{column} must be one of {', '.join(allowed)}; got {quoted(value)}{hint}")


def number(column: str, value: str, low: float, high: float) -> float:
    """A number in a range."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not low <= found <= high or (column == "distance" and found == 0):
        raise ValueError(f"{column} must be a number in [{low:g}, {high:g}], got {quoted(value)}")
    return found


def attributes(value) -> tuple[str, ...]:
    """Attributes: a JSON list, or text separated by semicolons."""
    items = value if isinstance(value, list) else "" if missing(value) else str(value).split(";")
    items = [text({"attributes": item}, "attributes") for item in items]
    return tuple(item for item in items if item)


def box(value) -> tuple[float, ...] | None:
    """Four numbers: a JSON list, or text with spaces or commas, with or without brackets."""
    if missing(value):
        return None
    items = value
    if not isinstance(value, list):
        items = str(value).strip("[]() ").replace(",", " ").split()
    if all(map(missing, items)):
        return None
    try:
        found = tuple(float(item) for item in items)
    except (ValueError, TypeError, OverflowError):
        found = ()
    if len(found) != 4 or not all(map(math.isfinite, found)):
        shown = quoted(value) if isinstance(value, str) else str(value)
        raise ValueError(f"box must be four numbers: left, top, right, bottom; got {shown}")
    return found


def paths(root: Path, base: Path, file_name: str) -> tuple[str, tuple[Path, ...]]:
    """The files that a row names: an image, a video, or the frames in a folder.

    A folder with a single frame counts as that image.

    Args:
        root: Folder of the data set; the files must be inside.
        base: Folder of the metadata; `file_name` is relative to it.
        file_name: The cell.

    Returns:
        The name relative to `root`, and the files.
    """
    if not file_name:
        raise ValueError("file_name is empty")
    cell = f"file_name {quoted(file_name)}"
    try:
        path = _path(base, file_name, cell)
        real = path.resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"{cell} leads out of the folder; it must be inside {root.name}")
        if real != path:
            raise ValueError(f"{cell} is or passes a symbolic link, which is refused")
        if path.is_file():
            return path.relative_to(root).as_posix(), (path,)
        if path.is_dir() and not base.is_relative_to(path):
            frames = _frames(path, cell)
            path = frames[0] if len(frames) == 1 else path
            return path.relative_to(root).as_posix(), frames
        what = "is not a regular file" if path.exists() else "does not exist"
        raise ValueError(f"{cell} {what} in {base.name}{_suggestion(root, path, file_name)}")
    except (OSError, RuntimeError) as error:  # the name is too long; links form a circle
        why = getattr(error, "strerror", None) or "symbolic links form a circle"
        raise ValueError(f"{cell} cannot be read: {why}") from error


def _path(base: Path, file_name: str, cell: str) -> Path:
    """Path of a file name; backslashes become slashes unless a file has them in its name."""
    path = Path(os.path.normpath(base / file_name))
    if not NOT_PORTABLE.search(file_name) or os.path.lexists(path):
        return path
    if URL.match(file_name):
        raise ValueError(f"{cell} is a URL; download the file and write its path")
    if WINDOWS.match(file_name):
        raise ValueError(
            f"{cell} is an absolute Windows path (a drive or a network computer); write it "
            f"relative to the folder of the metadata, {base.name}"
        )
    return Path(os.path.normpath(base / file_name.replace("\\", "/")))


def _frames(folder: Path, cell: str) -> tuple[Path, ...]:
    """The images in a folder, in natural order."""
    with os.scandir(folder) as entries:
        frames = [
            entry
            for entry in entries
            if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
        ]
    if links := [entry.name for entry in frames if not entry.is_file(follow_symlinks=False)]:
        raise ValueError(
            f"{cell} contains {quoted(links[0])}, which is a symbolic link or not a regular file: "
            "refused"
        )
    if not frames:
        raise ValueError(f"{cell} is a folder without images ({' '.join(EXTENSIONS)})")
    return tuple(folder / name for name in sorted((e.name for e in frames), key=natural))


def is_video(name: str) -> bool:
    """Whether a file name has the extension of a video."""
    return name.lower().endswith(VIDEOS)


def _suggestion(root: Path, path: Path, file_name: str) -> str:
    """An existing file that the name of a missing one may refer to."""
    in_root = Path(os.path.normpath(root / file_name.replace("\\", "/")))
    if in_root != path and in_root.is_file():
        return f", but in {root.name}: names are relative to the folder of the metadata"
    stem, suffix = path.stem, path.suffix
    spellings = (
        stem + suffix.lower(),
        stem + suffix.upper(),
        path.name.lower(),
        path.name.upper(),
        *(unicodedata.normalize(form, path.name) for form in ("NFC", "NFD")),
    )
    for name in spellings:
        if name != path.name and path.with_name(name).is_file():
            return f"; there is {quoted(name)}, which is spelled differently"
    return ""


def normalised(value: str) -> str:
    """A name without case, spaces, leading zeros and variants of a letter, to compare names."""
    value = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    value = "".join(c for c in value if not c.isspace() and unicodedata.category(c) != "Cf")
    return re.sub(r"(?<!\d)0+(?=\d)", "", value)
