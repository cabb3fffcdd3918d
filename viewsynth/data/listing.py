# SPDX-License-Identifier: Apache-2.0
"""A folder listed: pictures, videos and tables in it, and what the name of a folder may mean."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from viewsynth.data import layout
from viewsynth.data.images import EXTENSIONS, VIDEOS
from viewsynth.records import Reject, Sample

METADATA = ("metadata.csv", "metadata.jsonl")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow", ".feather", ".xlsx", ".xls")
DEEPEST = 8  # folders below the root that are looked at

# A folder's name -> the split of what is in it; "": a test split, neither query nor gallery.
SPLITS = {
    "train": "train",
    "training": "train",
    "query": "query",
    "queries": "query",
    "probe": "query",
    "gallery": "gallery",
    "test": "",
    "testing": "",
    "validation": "",
    "valid": "",
    "val": "",
    "dev": "",
    "eval": "",
    "evaluation": "",
}
NAMES = ("val", "dev")  # of people, too
_WORD = r"(?:b(?:ounding[-_ ]?)?box|images?|imgs?|crops?|data|set|split)"
_SPLIT = re.compile(rf"(?:{_WORD}[-_ .]?)*({'|'.join(SPLITS)})(?:[-_ .]?{_WORD})*", re.I)
_NEAR = re.compile(rf"{_SPLIT.pattern}(?:[-_ .]?(?:\d{{1,4}}|[a-z]|all))?", re.I)
_BOX = re.compile(
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
_GROUP = re.compile(  # of people: by time, by place, by kind
    r"(?:day|date|week|site|place|location|scene|session|group|batch|class|country|city|part|"
    r"fold|set)[-_ ]?(?:\d+|[a-z])|(?:single|multi)[-_ ]?shot|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|(?:19|20)\d\d[-_.]?(?:0\d|1[0-2])[-_.]?[0-3]\d|"
    r"(?:fe)?male|(?:wo)?men|girls|boys|adults|children|indoors?|outdoors?|morning|evening|night",
    re.I,
)
# How tools write that there is no value, in small letters: pandas' list, and others.
MISSING = frozenset(
    [
        "nan",
        "-nan",
        "null",
        "none",
        "nil",
        "n/a",
        "<na>",
        "#na",
        "#n/a",
        "1.#ind",
        "-1.#ind",
        "1.#qnan",
        "-1.#qnan",
        "undefined",
        "-",
        "--",
        "(null)",
    ]
) | {"", "#n/a n/a"}
MISSING_AS_WRITTEN = ("NA", "NaT")  # in other letters they are names of people: Na, Nat
# What says of a picture that nobody knows who it is; -1 and 00-1 are the junk of Market-1501, MARS.
NOBODY = MISSING | set(["unknown", "unk", "?", "-1", "00-1", "junk"])
DISTRACTORS = ("distractor", "distractors")


@dataclass
class Found:
    """What was read.

    Args:
        left: Rows or pictures that belong to a test split without a role, by folder and what.
        skipped: Files that are no pictures, by kind.
    """

    samples: list[Sample] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass
class Folder:
    """A folder and all below it.

    Args:
        root: The folder that names are relative to.
        name: Its own name in the root, "" for the root.
        files: Names of pictures and videos in it, in natural order.
        tables: Names of its metadata files.
        foreign: Names of other tables.
        rejects, skipped: What in it cannot be used, and what is no picture.
    """

    root: Path
    name: str = ""
    files: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def base(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / self.name

    @cached_property
    def alive(self) -> list[Folder]:
        """The folders in it that hold something, at any depth."""
        return [sub for sub in self.folders if sub.files or sub.tables or sub.alive]

    @cached_property
    def pictures(self) -> int:
        """How many pictures and videos there are in it, at any depth."""
        return len(self.files) + sum(sub.pictures for sub in self.folders)

    def walk(self, but: Collection[str] = ()) -> Iterator[Folder]:
        """It and all folders below, from above, but for those of such names and what is in them."""
        if self.name not in but:
            yield self
            for sub in self.folders:
                yield from sub.walk(but)

    def own(self, file: str) -> str:
        """The name of a file of it, in the root."""
        return f"{self.name}/{file}" if self.name else file


def scan(root: Path, name: str = "", depth: int = DEEPEST) -> Folder:
    """List a folder and all below it.

    Hidden files are ignored; links, pipes and names that are no text are rejected.
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
            _sort(folder, entry, depth)
    folder.files.sort(key=natural)
    return folder


def _sort(folder: Folder, entry: os.DirEntry, depth: int) -> None:
    """Put an entry where it belongs."""
    name, suffix = entry.name, Path(entry.name).suffix.lower()
    usable = suffix in EXTENSIONS or suffix in VIDEOS
    own = folder.own(name)
    if reason := bad_text(name):
        folder.rejects.append(_reject(own, reason))
    elif entry.is_symlink() and (usable or entry.is_dir()):
        reason = "symbolic links are refused; put the file there"
        folder.rejects.append(_reject(own, reason))
    elif entry.is_dir():
        if depth:
            folder.folders.append(scan(folder.root, own, depth - 1))
        else:
            reason = f"folders deeper than {DEEPEST} are not looked at; give one as data.root"
            folder.rejects.append(_reject(own, reason))
    elif name.lower() in METADATA and (not folder.name or _names_files(entry)):
        folder.tables.append(name)
    elif not usable:
        folder.skipped[suffix or "without extension"] += 1
        if suffix in TABLES:
            folder.foreign.append(name)
    elif not entry.is_file():
        folder.rejects.append(_reject(own, "not a regular file"))
    else:
        folder.files.append(name)


def _names_files(entry: os.DirEntry) -> bool:
    """Whether the first line of a table speaks of files or people, or cannot be read."""
    if not entry.is_file(follow_symlinks=False):
        return True
    try:
        with Path(entry).open("rb") as file:
            start = file.read(2**16).replace(b"\0", b"").strip()  # UTF-16, too
    except OSError:
        return True
    return bool(re.match(rb".*?(file|image|path|pid|person|identity)", start, re.I))


def has_table(root: Path) -> bool:
    """Whether a folder has metadata in it."""
    return any((root / name).exists() for name in METADATA)


def split_of(name: str) -> str | None:
    """The split that a folder's name says, "" for a test split without a role, None for none."""
    found = _SPLIT.fullmatch(name)
    return SPLITS[found[1].lower()] if found else None


def is_split(name: str) -> bool:
    """Whether a folder is called as a split."""
    return split_of(name) is not None


def is_near_split(name: str) -> bool:
    """Whether a folder is called as a split, or as a part or a version of one: train2017."""
    return bool(_NEAR.fullmatch(name))


def is_missing(text: str) -> bool:
    """Whether a text is how tools write that there is no value."""
    return text in MISSING_AS_WRITTEN or text.casefold() in MISSING


def is_nobody(pid: str, split: str) -> bool:
    """Whether a pid says that nobody knows who it is; a gallery may have distractors."""
    if pid.casefold() in DISTRACTORS:
        return split != "gallery"
    return is_missing(pid) or pid.casefold() in NOBODY


def is_container(name: str) -> bool:
    """Whether a folder is called as what people put pictures into."""
    return bool(_BOX.fullmatch(name))


def is_camera(name: str) -> bool:
    """Whether a folder is called as a camera or a view."""
    return bool(_CAMERA.fullmatch(name))


def is_group(name: str) -> bool:
    """Whether a folder is called as a time, a place or a kind of people."""
    return bool(_GROUP.fullmatch(name))


def is_tracklet(name: str) -> bool:
    """Whether a folder is called as a tracklet."""
    return bool(_TRACKLET.fullmatch(name))


def natural(name: str) -> tuple:
    """A key that sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return [(int(part), part) if k % 2 else (0, part) for k, part in enumerate(parts)], name


def bad_text(text: str) -> str:
    """Why a name or field cannot be used; "" if it can."""
    if text.isprintable():
        return ""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return f"{layout.quoted(text)} is not valid UTF-8; write it in UTF-8"
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return f"{layout.quoted(text)} has control characters"
    return ""


def clean(text: str) -> str:
    """Text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _reject(source: str, reason: str, kind: str = "quality") -> Reject:
    return Reject(source=clean(source), stage="input", reason=reason, kind=kind)
