# SPDX-License-Identifier: Apache-2.0
"""Listing of a user's folder: its images, videos and tables, and what folder names may mean."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from viewsynth.data.images import EXTENSIONS, VIDEOS
from viewsynth.records import Reject, Sample

METADATA = ("metadata.csv", "metadata.jsonl")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".feather", ".xlsx", ".xls")
DEEPEST = 8  # how many folders below the root are listed

# Split -> names of folders that hold it; "" = a test split that is neither query nor gallery.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "query": ("query", "queries", "probe"),
    "gallery": ("gallery",),
    "": ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"),
}
SPLITS = {name: split for split, names in SPLIT_NAMES.items() for name in names}
ALSO_PEOPLE = ("val", "dev")  # also names of people
_WORD = r"(?:b(?:ounding[-_ ]?)?box|images?|imgs?|crops?|data|set|split)"
_SPLIT = re.compile(rf"(?:{_WORD}[-_ .]?)*({'|'.join(SPLITS)})(?:[-_ .]?{_WORD})*", re.I)
_NEAR = re.compile(rf"{_SPLIT.pattern}(?:[-_ .]?(?:\d{{1,4}}|[a-z]|all))?", re.I)
_CONTAINER = re.compile(
    r"images?|imgs?|pictures?|pics?|photos?|crops?|data|datasets?|jpe?gs?|pngs?|frames|people|"
    r"persons|identities|ids?|samples|files",
    re.I,
)
_CAMERA = re.compile(
    r"(?:cam|camera|cctv|drone|uav|wearable|handheld|view|sensor)(?:[-_ ]?\d+|[-_ ][a-z])|c\d+|"
    r"camera|cctv|drone|uav|wearable|handheld|aerial|ground|rgb|ir|nir|thermal|infrared|visible",
    re.I,
)
_TRACKLET = re.compile(
    r"(?:track(?:let)?|t|clip|seq(?:uence)?|s|session|video|take|scene|walk|outfit)[-_ ]?\d+|"
    r"track(?:let)?|clip|seq(?:uence)?",
    re.I,
)
_GROUP = re.compile(  # groups of people by time, place or kind
    r"(?:day|date|week|site|place|location|scene|session|group|batch|class|country|city|part|"
    r"fold|set)[-_ ]?(?:\d+|[a-z])|(?:single|multi)[-_ ]?shot|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:19|20)\d\d[-_.]?(?:0\d|1[0-2])[-_.]?[0-3]\d|"
    r"(?:fe)?male|(?:wo)?men|girls|boys|adults|children|indoors?|outdoors?|morning|evening|night",
    re.I,
)
# Spellings of a missing value, in lower case: those of pandas, and of other tools.
_PANDAS = {"", "nan", "-nan", "null", "none", "n/a", "<na>", "#na", "#n/a", "#n/a n/a"}
_MICROSOFT = {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
MISSING = frozenset(_PANDAS | _MICROSOFT | {"nil", "undefined", "-", "--", "(null)"})
MISSING_AS_WRITTEN = ("NA", "NaT")  # in other letter case these are names of people: Na, Nat
# Pids of unidentified people; -1 and 00-1 are the junk identities of Market-1501 and MARS.
UNIDENTIFIED = MISSING | {"unknown", "unk", "?", "-1", "00-1", "junk"}
DISTRACTORS = ("distractor", "distractors")


@dataclass
class Found:
    """Result of reading a folder.

    Args:
        samples: Images, videos and tracklets of people.
        rejects: Rows, files or folders that cannot be used.
        warnings: What the user should check.
        left_out: Number of rows or images in a test split that is neither query nor gallery, by
            (folder, "rows" or "images").
        skipped: Number of files that are not images, by extension.
    """

    samples: list[Sample] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass
class Folder:
    """A folder and everything below it.

    Args:
        root: Folder of the data set.
        name: Path relative to `root`, "" for the root itself.
        files: File names of the images and videos in it, in natural order.
        folders: Its subfolders.
        tables: File names of its metadata.
        other_tables: File names of other tables.
        rejects: Entries that cannot be used.
        skipped: Number of files that are not images, by extension.
    """

    root: Path
    name: str = ""
    files: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    other_tables: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def basename(self) -> str:
        """Last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Path on the disk."""
        return self.root / self.name

    @cached_property
    def nonempty(self) -> list[Folder]:
        """Subfolders that hold images, videos or metadata at any depth."""
        return [sub for sub in self.folders if sub.files or sub.tables or sub.nonempty]

    @cached_property
    def count(self) -> int:
        """Number of images and videos at any depth."""
        return len(self.files) + sum(sub.count for sub in self.folders)

    def walk(self, exclude: Collection[str] = ()) -> Iterator[Folder]:
        """This folder and all below it, top down, without the excluded names and their subfolders.

        Args:
            exclude: Names of folders to leave out.
        """
        if self.name not in exclude:
            yield self
            for sub in self.folders:
                yield from sub.walk(exclude)

    def name_of(self, file: str) -> str:
        """Name of one of its files, relative to `root`."""
        return f"{self.name}/{file}" if self.name else file


def scan(root: Path, name: str = "", depth: int = DEEPEST) -> Folder:
    """List a folder and everything below it.

    Hidden files are ignored; links, pipes and names that are not valid text are rejected.

    Args:
        root: Folder of the data set.
        name: Folder to list, relative to `root`.
        depth: How many folders further down to list.
    """
    folder = Folder(root, name)
    try:
        with os.scandir(folder.path) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        folder.rejects.append(_reject(name or ".", reason, "fault"))
        return folder
    for entry in entries:
        if not entry.name.startswith("."):
            _add(folder, entry, depth)
    folder.files.sort(key=natural)
    return folder


def _add(folder: Folder, entry: os.DirEntry, depth: int) -> None:
    """Add an entry to the list that it belongs to."""
    file, suffix = entry.name, Path(entry.name).suffix.lower()
    usable = suffix in EXTENSIONS or suffix in VIDEOS
    name = folder.name_of(file)
    if reason := bad_text(file):
        folder.rejects.append(_reject(name, reason))
    elif entry.is_symlink() and (usable or entry.is_dir()):
        reason = "symbolic links are refused; put the file or folder itself there"
        folder.rejects.append(_reject(name, reason))
    elif entry.is_dir():
        if depth:
            folder.folders.append(scan(folder.root, name, depth - 1))
        else:
            reason = f"folders more than {DEEPEST} levels down are not read; give one as data.root"
            folder.rejects.append(_reject(name, reason))
    elif file.lower() in METADATA and (not folder.name or _is_metadata(entry)):
        folder.tables.append(file)
    elif not usable:
        folder.skipped[suffix or "without extension"] += 1
        if suffix in TABLES:
            folder.other_tables.append(file)
    elif not entry.is_file():
        folder.rejects.append(_reject(name, "not a regular file"))
    else:
        folder.files.append(file)


def _is_metadata(entry: os.DirEntry) -> bool:
    """Whether the first line of a table mentions files or people, or cannot be read."""
    if not entry.is_file(follow_symlinks=False):
        return True
    try:
        with Path(entry).open("rb") as file:
            start = file.read(2**16).replace(b"\0", b"").strip()  # UTF-16 has zeros between letters
    except OSError:
        return True
    return bool(re.match(rb".*?(file|image|path|pid|person|identity)", start, re.I))


def has_table(root: Path) -> bool:
    """Whether a folder holds a metadata file."""
    return any((root / name).exists() for name in METADATA)


# ---- what a folder name means --------------------------------------------------------------------


def split_of(name: str) -> str | None:
    """Split that a folder name means: "" = a test split of no role, None = not a split."""
    found = _SPLIT.fullmatch(name)
    return SPLITS[found[1].lower()] if found else None


def is_split(name: str) -> bool:
    """Whether a folder has the name of a split."""
    return split_of(name) is not None


def is_near_split(name: str) -> bool:
    """Whether a folder has the name of a split, or of a part or version of one: train2017."""
    return bool(_NEAR.fullmatch(name))


def is_missing(text: str) -> bool:
    """Whether text is a spelling of a missing value."""
    return text in MISSING_AS_WRITTEN or text.casefold() in MISSING


def is_unidentified(pid: str, split: str) -> bool:
    """Whether a pid stands for unidentified people; distractors are allowed in the gallery."""
    if pid.casefold() in DISTRACTORS:
        return split != "gallery"
    return is_missing(pid) or pid.casefold() in UNIDENTIFIED


def is_container(name: str) -> bool:
    """Whether a folder has a name that means a collection of images."""
    return bool(_CONTAINER.fullmatch(name))


def is_camera(name: str) -> bool:
    """Whether a folder has the name of a camera or a view."""
    return bool(_CAMERA.fullmatch(name))


def is_group(name: str) -> bool:
    """Whether a folder has the name of a time, a place or a kind of people."""
    return bool(_GROUP.fullmatch(name))


def is_tracklet(name: str) -> bool:
    """Whether a folder has the name of a tracklet."""
    return bool(_TRACKLET.fullmatch(name))


# ---- text ----------------------------------------------------------------------------------------


def natural(name: str) -> tuple:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return [(int(part), part) if k % 2 else (0, part) for k, part in enumerate(parts)], name


def quoted(text: str) -> str:
    """Text in quotes, as a user wrote it, with only the invisible characters escaped."""
    return "'" + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + "'"


def bad_text(text: str) -> str:
    """Why a name or cell cannot be used; "" if it can."""
    if text.isprintable():
        return ""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return f"{quoted(text)} is not valid UTF-8; write it in UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return f"{quoted(text)} has control characters"
    return ""


def clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _reject(source: str, reason: str, kind: str = "quality") -> Reject:
    return Reject(source=clean(source), stage="input", reason=reason, kind=kind)
