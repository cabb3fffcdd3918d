# SPDX-License-Identifier: Apache-2.0
"""File names, atomic writes and checksums for everything that a run stores on disk.

Every file is written under a temporary name and renamed, so readers see a complete file or none.
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

LEFTOVER = ".tmp-"  # prefix of the names of unfinished files
LONGEST = 180  # bytes of a folder name before it is shortened; file systems allow 255


def folder_of(pid: str, longest: int = LONGEST) -> str:
    """Folder name of a person: the percent-encoded pid, with `/` as `__`.

    Different pids have different names. Names longer than `longest` are shortened and end with a
    hash; `pid_of` inverts all others. A name is never hidden, `.` or `..`, and uses only
    [A-Za-z0-9._%~-].

    Args:
        pid: Identity, not empty.
        longest: Length limit of the name, bytes.

    Raises:
        ValueError: If the pid is empty.
    """
    if not pid:
        raise ValueError("pid must not be empty, got ''; give the person a name")
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
    # `__` stands for `/` only, so an underscore next to another one or next to a `/` is encoded.
    if plain or (letter == "_" and not set(neighbours) & {"_", "/"}):
        return letter
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


def pid_of(folder: str) -> str:
    """Identity that belongs to a folder name: the inverse of `folder_of`.

    Args:
        folder: Name, as `folder_of` returns it.

    Raises:
        ValueError: If the name was shortened.
    """
    if "~" in folder:
        raise ValueError(
            f"the folder name {folder!r} was shortened; read the pid from metadata.jsonl"
        )
    data = folder.replace("__", "/").encode()
    data = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), data)
    return data.decode("utf-8", "surrogatepass")


def stem_of(pid: str, outfit: str = "") -> str:
    """File name, without suffix, of a person in one outfit."""
    return folder_of(pid) + (f"+{folder_of(outfit, 60)}" if outfit else "")


def path_inside(root: Path, name: str) -> Path:
    """Path of a file named in a manifest, checked to lie inside `root`.

    Args:
        root: Folder that the name is relative to.
        name: POSIX path from the manifest.

    Raises:
        ValueError: If the path is absolute, leaves `root` or goes through a symlink.
    """
    pure = PurePosixPath(name)
    path = root / pure
    links = [p for p in [path, *path.parents] if p != root and p.is_relative_to(root)]
    if pure.is_absolute() or ".." in pure.parts or any(p.is_symlink() for p in links):
        raise ValueError(
            f"{name!r} leads out of {root} or through a symlink, and was not opened; put the file "
            "itself into that folder and give its path relative to the folder"
        )
    return path


class WriteError(OSError):
    """A file of the run could not be written; chunks finished earlier are complete."""


def write(path: Path, data: bytes) -> None:
    """Write a file atomically: under a temporary name, then renamed into place.

    Args:
        path: Destination; missing parent folders are created.
        data: Content of the file.

    Raises:
        WriteError: If the disk is full, read-only or faulty.
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
            f"cannot write {path}: {error.strerror or error}; finished chunks are complete: free "
            "disk space or fix the folder's permissions, then run the same command again"
        ) from error


def sync_folders(folders: set[Path]) -> None:
    """Flush renames in these folders to disk, so that they survive a power failure."""
    for folder in sorted(folders):
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def claim_folder(folder: Path, ours: set[str], mark: str) -> bool:
    """Create the output folder of a run, or check that it is empty or holds a run.

    Args:
        folder: Output folder.
        ours: Names of the files and folders of a run; without a run, other names are an error.
        mark: Name of the file that identifies a run.

    Returns:
        Whether the folder holds a run.

    Raises:
        ValueError: If the folder cannot be created or holds other files.
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
    """Remove unfinished files and folders of an interrupted run.

    Args:
        run: Output folder; may be missing.

    Returns:
        Number of files and folders removed.
    """
    leftovers = list(run.rglob(f"{LEFTOVER}*")) if run.is_dir() else []
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(leftovers)


def to_jsonl(rows: list[dict]) -> bytes:
    """Rows as JSON lines in ASCII; equal rows give equal bytes."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex; "" if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def ignores_case(folder: Path) -> bool:
    """Whether the file system of a folder ignores the case of names."""
    probe = folder / f"{LEFTOVER}case-{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.with_name(probe.name.upper()).exists()
    finally:
        probe.unlink()
