# SPDX-License-Identifier: Apache-2.0
"""Matches the names in a feature file, in various spellings, with the names of samples.

A name is a path relative to the data set's folder. It may begin with "./", contain backslashes or
"//", be absolute, here or on another machine, or be a bare file name. A name in other folders than
the sample never matches, because images of different splits often have equal file names.
"""

from __future__ import annotations

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from viewsynth.runtime.messages import first_names


def positions(
    path: Path, listed: Sequence[str], names: Sequence[str], roots: Sequence[Path] = ()
) -> tuple[list[int], list[str]]:
    """Find the row of each sample.

    A name matches, in this order: exactly; normalised, relative to one of `roots` or to another
    folder that contains all samples; by its bare file name, if only one sample has it.

    Args:
        path: The feature file, for messages.
        listed: Names of its rows.
        names: `Sample.name` of the samples.
        roots: Folders that the names of the samples are relative to, in all spellings.

    Returns:
        Row numbers, and remarks for the user.

    Raises:
        ValueError: If samples are missing, ambiguous or listed twice.
    """
    _refuse_duplicates(path, listed)
    exact = {name: row for row, name in enumerate(listed)}
    if all(name in exact for name in names):
        return [exact[name] for name in names], []
    relative = [_relative(_normalised(name), roots) for name in listed]
    wanted = [_normalised(name) for name in names]
    notes = []
    known = set(relative)
    if not all(name in known or _bare(name) in known for name in wanted):
        folder = _common_folder(path, known, wanted, roots)
        if folder is not None:
            relative = [name.removeprefix(f"{folder}/") for name in relative]
            notes = [f"the names in {path.name} are read as paths below {folder or '/'}"]
    needed = {*wanted, *map(_bare, wanted)}
    _refuse_duplicates(path, [name for name in relative if name in needed])
    rows = {name: row for row, name in enumerate(relative)}
    at, missing, ambiguous = _match(names, wanted, exact, rows)
    if missing:
        lost = _missing(missing, known, _main_folder(known, wanted, roots))
        raise ValueError(
            f"features: {lost[0]} of {len(names)} samples are not in {path}: {lost[1]}; it has "
            f"{len(listed)} names: {first_names(listed)}; write them as paths relative to the "
            "data set, or as bare file names"
        )
    if ambiguous:
        raise ValueError(
            f"features: {path} names {len(ambiguous)} samples by file names that several have; "
            f"give paths relative to the data set: {first_names(ambiguous)}"
        )
    return at, notes


def _match(
    names: Sequence[str], wanted: Sequence[str], exact: dict[str, int], rows: dict[str, int]
) -> tuple[list[int], list[str], list[str]]:
    """Rows of the samples, and the names of missing and of ambiguous samples.

    Args:
        names: Names of the samples.
        wanted: Normalised names of the samples.
        exact: Rows by their names in the file.
        rows: Rows by their normalised names.
    """
    full, bare = Counter(wanted), Counter(map(_bare, wanted))
    at, missing, ambiguous = [], [], []
    for name, normalised in zip(names, wanted, strict=True):
        key, count = (normalised, full) if normalised in rows else (_bare(normalised), bare)
        row = exact.get(name, rows.get(key))
        if row is None:
            missing.append(name)
        elif name not in exact and count[key] > 1:
            ambiguous.append(name)
        else:
            at.append(row)
    return at, missing, ambiguous


def _normalised(name: str) -> str:
    """Path with "/" as separator, without "./", "//" and "x/../", in composed Unicode form."""
    name = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    return posixpath.normpath(name).replace("//", "/")


def _bare(name: str) -> str:
    return name.rpartition("/")[2]


def _relative(name: str, roots: Sequence[Path]) -> str:
    """Name relative to the first root that contains it; unchanged if none does."""
    for root in roots:
        start = _normalised(str(root)) + "/"
        if name.startswith(start):
            return name.removeprefix(start)
    return name


def _common_folder(
    path: Path, known: set[str], wanted: Sequence[str], roots: Sequence[Path]
) -> str | None:
    """The folder, e.g. of another machine, that contains all samples; None = there is none.

    Folders of this data set do not count, because they contain other images.
    """
    end = f"/{wanted[0]}"
    found = [name.removesuffix(end) for name in known if name.endswith(end)]
    found = [one for one in found if all(f"{one}/{name}" in known for name in wanted)]
    found = sorted(one for one in found if not any(_inside(root, one) for root in roots))
    if len(found) > 1:
        raise ValueError(
            f"features: {path} has all samples below several folders: {first_names(found)}; "
            "keep one of "
            "them, or give names relative to the data set"
        )
    return found[0] if found else None


def _main_folder(known: set[str], wanted: Sequence[str], roots: Sequence[Path]) -> str | None:
    """The folder outside this data set that contains most samples; None = there is none."""
    endings: dict[str, list[str]] = {}
    for name in wanted:
        endings.setdefault(_bare(name), []).append(f"/{name}")
    folders = Counter(
        one.removesuffix(end)
        for one in known
        for end in endings.get(_bare(one), ())
        if one.endswith(end)
    )
    most, count = max(folders.items(), key=lambda each: each[1], default=("", 0))
    if 2 * count <= len(wanted) or any(_inside(root, most) for root in roots):
        return None
    return most


def _inside(root: Path, folder: str) -> bool:
    below = (root / folder).resolve()
    return bool(folder) and below.is_dir() and root.resolve() in below.parents


def _refuse_duplicates(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"features: {path} names {len(twice)} samples twice: {first_names(twice)}; "
            "keep one row each"
        )


def _missing(missing: list[str], known: set[str], folder: str | None) -> tuple[int, str]:
    """Number and names of the missing samples, leaving out those in the folder of the others."""
    lost = [name for name in missing if f"{folder}/{_normalised(name)}" not in known]
    if 0 < len(lost) < len(missing):
        return len(lost), f"{first_names(lost)} (the others are below {folder or '/'})"
    return len(missing), first_names(missing)
