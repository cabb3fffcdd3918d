# SPDX-License-Identifier: Apache-2.0
"""Fingerprints of input files: detects whether the inputs of a run or a cache have changed.

A file is identified by its SHA-256. It is hashed once and not read again while its size and its
modification and status-change times stay the same. A file that was touched or copied to the same
place again is therefore hashed again and found equal; a replaced one is found changed. Both times
are needed: tools restore the modification time (`cp -p`, `rsync -t`), but none can set the other.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from viewsynth.config import differences
from viewsynth.runtime.files import sha256, to_jsonl, write

RECORD = "inputs.jsonl"  # file in the folder of a run
THREADS = 8
FEW = 3  # names listed in a message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """Recorded state of an input file.

    Args:
        size: Bytes; -1 = there was no file.
        modified_ns: Modification time (mtime), nanoseconds.
        changed_ns: Status-change time (ctime), nanoseconds.
        sha256: Hash of the content; "" = the file could not be read.
        about: Properties that the run uses with the file, e.g. its pid, as JSON types.
    """

    size: int
    modified_ns: int
    changed_ns: int
    sha256: str
    about: dict = field(default_factory=dict)

    @property
    def state(self) -> tuple[int, int, int]:
        """Size and times: equal values mean that the file need not be read again."""
        return self.size, self.modified_ns, self.changed_ns


def digests(paths: Sequence[Path], folder: Path) -> list[str]:
    """SHA-256 of files, reading only files that are new or have changed since the last call.

    Args:
        paths: Files to hash.
        folder: Folder of the stored hashes; each selection of paths has its own list.

    Returns:
        One hash per path; "" if the file cannot be read.
    """
    files = {path.absolute().as_posix(): path for path in paths}
    selection = "\n".join(files).encode("utf-8", "surrogatepass")
    store = folder / f"{hashlib.sha256(selection).hexdigest()[:32]}.jsonl"
    before = _read(store)
    now = _look({name: (path, {}) for name, path in files.items()}, before)
    if now != before:
        _write(store, now)
    return [now[path.absolute().as_posix()].sha256 for path in paths]


def compare(
    run: Path, files: Mapping[str, tuple[Path, dict]], begun: bool, fixed: bool = True
) -> dict[str, Known]:
    """Check that the inputs of a run have not changed since it was begun.

    Args:
        run: Folder of the run.
        files: Path and properties of each input by its name; properties as JSON types.
        begun: Whether the run has used its inputs already.
        fixed: Whether the set of inputs must stay the same; else inputs may be added or left out.

    Returns:
        State of the inputs, for `keep`.

    Raises:
        ValueError: If the run was begun with other inputs; the message names them.
    """
    before = _read(run / RECORD)
    now = _look(files, before)
    if begun and before:
        _refuse_others(run, before, now, fixed)
    elif begun and files:
        logger.warning(
            "%s is not there or cannot be read: the inputs cannot be compared with those that the "
            "run was begun with, and are used unchecked",
            run / RECORD,
        )
    return now if fixed or not begun else before | now


def keep(run: Path, known: Mapping[str, Known]) -> None:
    """Write the state of the inputs to the folder of a run, as `RECORD`."""
    if known != _read(run / RECORD):
        _write(run / RECORD, known)


def _look(files: Mapping[str, tuple[Path, dict]], before: Mapping[str, Known]) -> dict[str, Known]:
    """Current state of the files; only those whose size or times changed are read."""
    states = {name: _state(path) for name, (path, _) in files.items()}
    same = {
        name
        for name, state in states.items()
        if name in before and before[name].state == state and before[name].sha256
    }
    todo = list({path: None for name, (path, _) in files.items() if name not in same})
    with ThreadPoolExecutor(THREADS) as pool:
        read = dict(zip(todo, pool.map(sha256, todo), strict=True))
    return {
        name: Known(
            *states[name],
            before[name].sha256 if name in same else read[path],
            json.loads(json.dumps(about)),  # as it will be read back
        )
        for name, (path, about) in files.items()
    }


def _state(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return -1, -1, -1
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _refuse_others(
    run: Path, before: Mapping[str, Known], now: Mapping[str, Known], fixed: bool
) -> None:
    """Raise ValueError if the inputs differ from those that the run was begun with."""
    there = [name for name, known in before.items() if known.sha256]
    here = [name for name, known in now.items() if known.sha256]
    both = [name for name in there if name in now and now[name].sha256]
    mended = [name for name in both if _readable(before[name]) is False and _readable(now[name])]
    found = {
        "changed": [name for name in both if before[name].sha256 != now[name].sha256],
        "gone": [name for name in there if name not in both and (fixed or name in now)],
        "new": [name for name in here if name not in both and fixed],
        "described otherwise": [
            f"{name}, {key}: {old!r} there, {new!r} now"
            for name in both
            if name not in mended
            for key, old, new in differences(before[name].about, now[name].about)[:1]
        ],
        "that could not be read then and can be now": mended,
    }
    if any(found.values()):
        changes = "; ".join(
            f"{len(few)} {what} ({_few(few)})" for what, few in found.items() if few
        )
        only = sum(map(len, found.values())) == len(mended)
        back = "" if only else "put them back as they were, or "
        raise ValueError(
            f"{run} was begun with other files than there are now: {changes}; {back}give another "
            "--output"
        )


def _readable(known: Known) -> bool | None:
    """Whether the run could read an image, see `reid.pool.inputs`; None = not recorded."""
    return known.about.get("readable")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")


def _read(path: Path) -> dict[str, Known]:
    """Stored states; empty if there is no file or it cannot be parsed."""
    try:
        rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
        return {row.pop("name"): Known(**row) for row in rows}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(path: Path, known: Mapping[str, Known]) -> None:
    write(path, to_jsonl([{"name": name, **asdict(one)} for name, one in known.items()]))
