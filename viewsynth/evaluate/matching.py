# SPDX-License-Identifier: Apache-2.0
"""Matching: the names in a features file, however they are written -> the samples' rows.

A name is a path below the data set's folder. It may begin with "./", have backslashes or "//", be
absolute, here or on another machine, or be a bare file name. A name with other folders than the
sample's never matches: pictures of another split often have the same file names.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from viewsynth.evaluate.name_files import few


def positions(
    path: Path, listed: Sequence[str], names: Sequence[str], roots: Sequence[Path] = ()
) -> tuple[list[int], list[str]]:
    """The row of each sample.

    In this order: the very name; the name in plain form, below one of `roots` or, where all samples
    are, below one other folder; the bare file name, where one sample alone has it.

    Args:
        path: The file, for messages.
        listed: Names of its rows.
        names: `Sample.name` of the samples.
        roots: Folders that the names of the samples are relative to, as they may be written.
    Returns: rows, and what should be told.
    Raises: ValueError: names the samples that are missing, unclear or there twice.
    """
    _once(path, listed)
    exact = {name: row for row, name in enumerate(listed)}
    if all(name in exact for name in names):
        return [exact[name] for name in names], []
    told = [_below(_plain(name), roots) for name in listed]
    wanted = [_plain(name) for name in names]
    notes = []
    known = set(told)
    if not all(name in known or _bare(name) in known for name in wanted):
        folder = _folder(path, known, wanted, roots)
        if folder is not None:
            told = [name.removeprefix(f"{folder}/") for name in told]
            notes = [f"the names in {path.name} are read as paths below {folder or '/'}"]
    needed = {*wanted, *map(_bare, wanted)}
    _once(path, [name for name in told if name in needed])
    rows = {name: row for row, name in enumerate(told)}
    alike, short = Counter(wanted), Counter(map(_bare, wanted))
    at, missing, unclear = [], [], []
    for name, plain in zip(names, wanted, strict=True):
        key, count = (plain, alike) if plain in rows else (_bare(plain), short)
        row = exact.get(name, rows.get(key))
        if row is None:
            missing.append(name)
        elif name not in exact and count[key] > 1:
            unclear.append(name)
        else:
            at.append(row)
    most = _most(known, wanted, roots) if missing else None
    lost = [name for name in missing if f"{most}/{_plain(name)}" not in known]
    below = f" (the others are below {most or '/'})" if 0 < len(lost) < len(missing) else ""
    _complain(path, listed, names, lost or missing, unclear, below)
    return at, notes


def _plain(name: str) -> str:
    """A path with "/" between, without "./", "//" and "x/../", its letters composed."""
    name = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    return posixpath.normpath(name).replace("//", "/")


def _bare(name: str) -> str:
    return name.rpartition("/")[2]


def _below(name: str, roots: Sequence[Path]) -> str:
    """The name relative to the first of the roots that it is below."""
    for root in roots:
        start = _plain(str(root)) + "/"
        if name.startswith(start):
            return name.removeprefix(start)
    return name


def _folder(
    path: Path, known: set[str], wanted: Sequence[str], roots: Sequence[Path]
) -> str | None:
    """The one folder, of another machine, say, below which all samples are; None = there is none.

    Not a folder of this data set: what is below it are other pictures.
    """
    end = f"/{wanted[0]}"
    found = [name.removesuffix(end) for name in known if name.endswith(end)]
    found = [one for one in found if all(f"{one}/{name}" in known for name in wanted)]
    found = sorted(one for one in found if not any(_inside(root, one) for root in roots))
    if len(found) > 1:
        raise ValueError(
            f"features: {path} has all samples below several folders: {few(found)}; keep one, or "
            "give names relative to the data set"
        )
    return found[0] if found else None


def _most(known: set[str], wanted: Sequence[str], roots: Sequence[Path]) -> str | None:
    """The folder, other than one of this data set, below which most samples are; None = none is."""
    alike: dict[str, list[str]] = {}
    for name in wanted:
        alike.setdefault(_bare(name), []).append(f"/{name}")
    folders = Counter(
        one.removesuffix(end)
        for one in known
        for end in alike.get(_bare(one), ())
        if one.endswith(end)
    )
    most, count = max(folders.items(), key=lambda each: each[1], default=("", 0))
    if 2 * count <= len(wanted) or any(_inside(root, most) for root in roots):
        return None
    return most


def _inside(root: Path, folder: str) -> bool:
    below = (root / folder).resolve()
    return bool(folder) and below.is_dir() and root.resolve() in below.parents


def _once(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"features: {path} names {len(twice)} samples twice: {few(twice)}")


def _complain(
    path: Path,
    listed: Sequence[str],
    names: Sequence[str],
    missing: list[str],
    unclear: list[str],
    below: str,
) -> None:
    if missing:
        raise ValueError(
            f"features: {len(missing)} of {len(names)} samples are not in {path}: "
            f"{few(missing)}{below}; it has {len(listed)} names: {few(listed)}; write them as "
            "paths relative to the data set, or as bare file names"
        )
    if unclear:
        raise ValueError(
            f"features: {path} names {len(unclear)} samples by file names that several have; give "
            f"paths relative to the data set: {few(unclear)}"
        )
