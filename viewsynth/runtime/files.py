# SPDX-License-Identifier: Apache-2.0
"""Files and their names: how anything that a run leaves gets onto the disk.

Every file is written aside and renamed, so readers see a whole file or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path, PurePosixPath

LEFTOVER = ".tmp-"  # how the names of unfinished files begin
LONGEST = 180  # bytes of a folder name before it is cut; file systems allow 255


def folder_of(pid: str, longest: int = LONGEST) -> str:
    """The folder name of a person: percent-encoded, `/` as `__`.

    Different pids get different names; `pid_of` reads all but very long ones (cut, with a hash)
    back. Never hidden, never `.` or `..`, only [A-Za-z0-9._%~-].
    Raises: ValueError: if the pid is empty.
    """
    if not pid:
        raise ValueError("a pid must not be empty, got ''; give the person a name")
    name = "".join(
        _encode(letter, pid[i - 1 : i] + pid[i + 1 : i + 2]) for i, letter in enumerate(pid)
    )
    name = re.sub(r"^[.-]|\.$", lambda m: f"%{ord(m[0]):02X}", name)
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(pid.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{name[: longest - 40]}~{digest}"


def _encode(letter: str, neighbours: str) -> str:
    if letter == "/":
        return "__"
    plain = letter.isascii() and (letter.isalnum() or letter in ".-")
    # `__` stands for `/` only, so an underscore beside another one or beside a `/` is encoded.
    if plain or (letter == "_" and not set(neighbours) & {"_", "/"}):
        return letter
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


def pid_of(folder: str) -> str:
    """The inverse of `folder_of`. Raises: ValueError: for a name that was cut."""
    if "~" in folder:
        raise ValueError(f"the folder name {folder!r} was cut; the rows have the true pid")
    data = folder.replace("__", "/").encode()
    data = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), data)
    return data.decode("utf-8", "surrogatepass")


def stem_of(pid: str, outfit: str = "") -> str:
    """The file name, without suffix, of a person in one outfit."""
    return folder_of(pid) + (f"+{folder_of(outfit, 60)}" if outfit else "")


def inside(root: Path, name: str) -> Path:
    """The file `name` of a manifest, if it lies in `root` and no symlink leads to it.

    Raises: ValueError: if it does not.
    """
    pure = PurePosixPath(name)
    path = root / pure
    links = [p for p in [path, *path.parents] if p != root and p.is_relative_to(root)]
    if pure.is_absolute() or ".." in pure.parts or any(p.is_symlink() for p in links):
        raise ValueError(
            f"{name!r} leads out of {root} or through a symlink; it was not opened: put the file "
            "itself into that folder, and name it relative to the folder"
        )
    return path


class WriteError(OSError):
    """A file of the run could not be written; what was finished before is safe."""


def write(path: Path, data: bytes) -> None:
    """Write a file aside, then rename it into place: readers see all of it or nothing.

    Raises: WriteError: if the disk is full, read-only or broken.
    """
    temporary = path.with_name(f"{LEFTOVER}{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise WriteError(
            f"cannot write {path}: {error.strerror or error}; finished chunks are safe: make room "
            "or mend the folder, then run the same command again"
        ) from error


def settle(folders: set[Path]) -> None:
    """Make the renames in these folders outlive a power cut."""
    for folder in sorted(folders):
        with contextlib.suppress(OSError):  # not every file system can
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def claim(folder: Path, ours: set[str], mark: str) -> bool:
    """Take a folder for a run: make it, or see that it is empty or holds a run.

    Args:
        ours: Names of what a run leaves; other things are refused where there is no run.
        mark: Name of the file that a run has.
    Returns: whether it holds a run.
    Raises: ValueError: if it cannot be made, or holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"output: cannot make the folder {folder}: {error.strerror}; give another --output"
        ) from error
    if (folder / mark).exists():
        return True
    names = sorted(path.name for path in folder.iterdir())
    if foreign := [name for name in names if name not in ours and not name.startswith(LEFTOVER)]:
        raise ValueError(
            f"output: {folder} holds other things ({', '.join(foreign[:3])}) and no run; give an "
            "empty or a new folder"
        )
    return False


def clean(run: Path) -> int:
    """Remove what a killed run left unfinished; returns how many files and folders that were."""
    leftovers = list(run.rglob(f"{LEFTOVER}*")) if run.is_dir() else []
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)


def lines(rows: list[dict]) -> bytes:
    """JSON lines in plain ASCII, the same bytes for the same rows."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex, "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def ignores_case(folder: Path) -> bool:
    """Whether the file system of a folder takes `A` and `a` for one."""
    probe = folder / f"{LEFTOVER}case-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.with_name(probe.name.upper()).exists()
    finally:
        probe.unlink()
