# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: which files a run or a cache was made of, to the byte.

A file is known by its SHA-256. It is read once: as long as its size and its times are as they were,
it is taken for the same. So a file that was touched, or copied to its place again, is the same
file, and one that was replaced is another one. Times are two: of the last change of the content,
which tools restore (`cp -p`, `rsync -t`), and of the last change of anything, which none can set.
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
from viewsynth.runtime.files import lines, sha256, write

RECORD = "inputs.jsonl"  # what a run leaves
THREADS = 8
FEW = 3  # names in a message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """A file as it was found.

    Args:
        size: Bytes; -1 = there was none.
        modified_ns: When its content was last changed, as it says itself.
        changed_ns: When anything of it was last changed.
        sha256: Of its content; "" = it could not be read.
        about: What else is learnt of it, as JSON types.
    """

    size: int
    modified_ns: int
    changed_ns: int
    sha256: str
    about: dict = field(default_factory=dict)

    @property
    def state(self) -> tuple[int, int, int]:
        """What tells, without reading it, that nothing has happened to it."""
        return self.size, self.modified_ns, self.changed_ns


def digests(paths: Sequence[Path], folder: Path) -> list[str]:
    """SHA-256 of files; only those are read that are not known, or to which something happened.

    Args:
        paths: Of the files.
        folder: Where a list of them is kept, one for each choice of paths.
    Returns: one a path, "" if it cannot be read.
    """
    files = {path.absolute().as_posix(): path for path in paths}
    choice = "\n".join(files).encode("utf-8", "surrogatepass")
    store = folder / f"{hashlib.sha256(choice).hexdigest()[:32]}.jsonl"
    before = _read(store)
    now = _look({name: (path, {}) for name, path in files.items()}, before)
    if now != before:
        _write(store, now)
    return [now[path.absolute().as_posix()].sha256 for path in paths]


def compare(
    run: Path, files: Mapping[str, tuple[Path, dict]], begun: bool, fixed: bool = True
) -> dict[str, Known]:
    """What a run learns from, for `keep`, once it is clear that it is what it was begun with.

    Args:
        run: Its folder.
        files: By name: where each lies, and what else is learnt of it, as JSON types.
        begun: Whether it has learnt from them already.
        fixed: Whether more or fewer may not be asked for than before.
    Raises: ValueError: if files are not those that the run was begun with; names them.
    """
    before = _read(run / RECORD)
    now = _look(files, before)
    if begun and before:
        _refuse_others(run, before, now, fixed)
    elif begun and files:
        logger.warning(
            "%s is not there or cannot be read: whether the files are those that the run was begun "
            "with cannot be told; they are taken as they are",
            run / RECORD,
        )
    return now if fixed or not begun else before | now


def keep(run: Path, known: Mapping[str, Known]) -> None:
    """Write down what a run learns from, in its folder, as `RECORD`."""
    if known != _read(run / RECORD):
        _write(run / RECORD, known)


def _look(files: Mapping[str, tuple[Path, dict]], before: Mapping[str, Known]) -> dict[str, Known]:
    """The files as they are; read are those that are not as they were."""
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
            json.loads(json.dumps(about)),  # as it will be read
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
    """Raise ValueError if something else is to be learnt than before."""
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
        said = "; ".join(f"{len(few)} {what} ({_few(few)})" for what, few in found.items() if few)
        only = sum(map(len, found.values())) == len(mended)
        back = "" if only else "put them back as they were, or "
        raise ValueError(
            f"{run} was begun with other files than there are now: {said}; {back}give another "
            "--output"
        )


def _readable(known: Known) -> bool | None:
    """What a run said of a picture, see `reid.pool.inputs`; None = nothing."""
    return known.about.get("readable")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")


def _read(path: Path) -> dict[str, Known]:
    """What was written; nothing if it is not there, or is no such file."""
    try:
        rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
        return {row.pop("name"): Known(**row) for row in rows}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _write(path: Path, known: Mapping[str, Known]) -> None:
    write(path, lines([{"name": name, **asdict(one)} for name, one in known.items()]))
