# SPDX-License-Identifier: Apache-2.0
"""A cell of somebody's metadata: CSV text or a JSON value in, a field of `Sample` or why not out.

Every function raises ValueError with a sentence that names the column and what came.
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
from viewsynth.data.layout import quoted
from viewsynth.data.listing import bad_text, natural

# What other tools call them.
MEANT = {
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
EXACT = 2**53  # above it neighbouring whole numbers are the same float
STRANGE = re.compile(r"[:\\]|^//")
WINDOWS = re.compile(r"[A-Za-z]:|\\\\|//", re.ASCII)
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)


def missing(value, name: str = "") -> bool:
    """Whether a cell says that there is no value, in any of the ways that tools write it.

    Args:
        name: Of its column: na and nat may be people.
    """
    if value is None:
        return True
    if isinstance(value, str):
        value = value.strip()
        return listing.is_missing(value) or (name != "pid" and value.lower() in ("na", "nat"))
    if isinstance(value, list):
        return all(map(missing, value))
    return isinstance(value, float) and math.isnan(value)


def text(row: dict, name: str) -> str:
    """A cell as text, "" where there is no value."""
    value = row.get(name)
    if missing(value, name):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name} must be a text or a number, got {type(value).__name__}")
    value = str(value).strip()
    if reason := bad_text(value):
        raise ValueError(f"{name}: {reason}")
    return value


def label(row: dict, name: str) -> str:
    """A cell that names something: a whole number is the same name in every spelling, 6.0 is 6."""
    value = row.get(name)
    if isinstance(value, float) and abs(value) < EXACT and value.is_integer():
        return str(int(value))
    said = text(row, name)
    if ROUNDED.fullmatch(said) or (isinstance(value, float) and not abs(value) < EXACT and said):
        raise ValueError(
            f"{name} {said} is a number that a spreadsheet or a float has rounded, so different "
            f"ones may look the same; write {name} as text, with all digits"
        )
    whole = WHOLE.fullmatch(said)
    return whole[1] if whole else said


def pid(row: dict) -> str:
    """Who it is."""
    value = row.get("pid")
    if missing(value, "pid"):
        got = "nothing" if value in (None, "") else f"a missing value ({value})"
        raise ValueError(f"pid must be the name of a person, got {got}: the row has no identity")
    value = label(row, "pid")
    somebody(value, "gallery")  # its split is not known yet
    if value in (".", ".."):
        raise ValueError(f"pid must be the name of a person, got {quoted(value)}")
    return value


def somebody(pid: str, split: str) -> None:
    """Refuse a pid that stands for unknown people in such a split."""
    if listing.is_nobody(pid, split):
        raise ValueError(
            f"pid must be the name of a person, got {quoted(pid)}, which stands for unknown "
            "people: the row has no identity"
        )


def choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """One of the words of a column."""
    word = value.lower()
    if word in allowed:
        return word
    near = MEANT.get(word) or next(iter(difflib.get_close_matches(word, allowed, 1)), "")
    hint = f" (say {near})" if near and (near in allowed or name == "split") else ""
    raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {quoted(value)}{hint}")


def number(name: str, value: str, low: float, high: float) -> float:
    """A number in a range."""
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not low <= found <= high or (name == "distance" and found == 0):
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {quoted(value)}")
    return found


def attributes(value) -> tuple[str, ...]:
    """A JSON list, or text separated by semicolons."""
    items = value if isinstance(value, list) else "" if missing(value) else str(value).split(";")
    items = [text({"attributes": item}, "attributes") for item in items]
    return tuple(item for item in items if item)


def box(value) -> tuple[float, ...] | None:
    """Four numbers: a JSON list, or text separated by blanks or commas, in brackets or not."""
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
        raise ValueError(f"box must be four numbers, left, top, right, bottom; got {shown(value)}")
    return found


def shown(value) -> str:
    """A cell as a user wrote it."""
    return quoted(value) if isinstance(value, str) else str(value)


def paths(root: Path, base: Path, file_name: str) -> tuple[str, tuple[Path, ...]]:
    """The files that a row names: a picture, a video, or the frames of a folder.

    A folder of one frame is that picture.

    Args:
        root: Folder of the data set, which the files must lie in.
        base: Folder of the metadata, which names are relative to.
    Returns: the name in the root, and the files.
    """
    if not file_name:
        raise ValueError("file_name is empty")
    said = f"file_name {quoted(file_name)}"
    try:
        path = _path(base, file_name, said)
        real = path.resolve()
        if not path.is_relative_to(root):
            raise ValueError(f"{said} leads out of the folder; it must lie in {root.name}")
        if real != path:
            raise ValueError(f"{said} is or passes a symbolic link: refused")
        if path.is_file():
            return path.relative_to(root).as_posix(), (path,)
        if path.is_dir() and not base.is_relative_to(path):
            frames = _frames(path, said)
            path = frames[0] if len(frames) == 1 else path
            return path.relative_to(root).as_posix(), frames
        what = "is not a regular file" if path.exists() else "does not exist"
        raise ValueError(f"{said} {what} in {base.name}{_near(root, path, file_name)}")
    except (OSError, RuntimeError) as error:  # too long a name; links in a circle
        why = getattr(error, "strerror", None) or "links lead in a circle"
        raise ValueError(f"{said} cannot be read: {why}") from error


def _path(base: Path, file_name: str, said: str) -> Path:
    """Where a file name leads; backslashes are slashes, unless a file is really called so."""
    path = Path(os.path.normpath(base / file_name))
    if not STRANGE.search(file_name) or os.path.lexists(path):
        return path
    if URL.match(file_name):
        raise ValueError(f"{said} is an address; download the file and write its name")
    if WINDOWS.match(file_name):
        raise ValueError(
            f"{said} is a path with a drive or a computer of Windows; write it relative to the "
            f"folder of the metadata, {base.name}"
        )
    return Path(os.path.normpath(base / file_name.replace("\\", "/")))


def _frames(folder: Path, said: str) -> tuple[Path, ...]:
    """The pictures in a folder, in natural order."""
    with os.scandir(folder) as entries:
        frames = [
            entry
            for entry in entries
            if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
        ]
    if links := [entry.name for entry in frames if not entry.is_file(follow_symlinks=False)]:
        raise ValueError(f"{said} holds {quoted(links[0])}, a link or no regular file: refused")
    if not frames:
        raise ValueError(f"{said} is a folder without pictures ({' '.join(EXTENSIONS)})")
    return tuple(folder / name for name in sorted((e.name for e in frames), key=natural))


def is_video(name: str) -> bool:
    """Whether a file is called as a video."""
    return name.lower().endswith(VIDEOS)


def _near(root: Path, path: Path, file_name: str) -> str:
    """What may have been meant by the name of a file that is not there."""
    elsewhere = Path(os.path.normpath(root / file_name.replace("\\", "/")))
    if elsewhere != path and elsewhere.is_file():
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
            return f"; there is {quoted(name)}, which is spelt otherwise"
    return ""


def plain(value: str) -> str:
    """A name without what the eye overlooks: case, blanks, leading zeros, forms of a letter."""
    value = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    value = "".join(c for c in value if not c.isspace() and unicodedata.category(c) != "Cf")
    return re.sub(r"(?<!\d)0+(?=\d)", "", value)
