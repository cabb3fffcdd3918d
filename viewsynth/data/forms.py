# SPDX-License-Identifier: Apache-2.0
"""Which form a folder of one's own pictures has, told by what is there.

Names alone can mislead: a folder `train` is no person. Where two readings are possible, the error
names both, each with the option that chooses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from viewsynth.data import listing
from viewsynth.data.layout import quoted
from viewsynth.data.listing import Folder

FOREIGN = (
    "metadata.parquet",
    "metadata.tsv",
    "metadata.arrow",
    "metadata.feather",
    "metadata.xlsx",
    "metadata.xls",
)


def form_of(top: Folder, warnings: list[str]) -> tuple[str, Folder]:
    """The form of a folder, see `folder`, and the folder in it that the form begins in.

    Args:
        warnings: Get the folders that are read as people in spite of their names.
    Raises: ValueError: if there are two readings, or a table that is not read.
    """
    deeper = [folder for folder in top.walk() if folder.tables and folder is not top]
    split = [folder for folder in deeper if any(map(listing.is_split, folder.name.split("/")))]
    if top.tables and split:
        raise _two(
            top,
            f"by {quoted(top.tables[0])} alone (--data.form table)",
            f"by {_tables(split)} (--data.form splits)",
        )
    if top.tables:
        return "table", top
    if deeper:
        return _of_tables(top, deeper, split)
    for folder in (top, *top.alive):
        for name in folder.foreign:
            if name.lower() in FOREIGN:
                raise ValueError(
                    f"{folder.path / name} is not read: write it as metadata.csv or metadata.jsonl"
                    ", or give --data.form folders to tell people by folders and files alone"
                )
    return _of_folders(top, warnings)


def _of_tables(top: Folder, tables: list[Folder], split: list[Folder]) -> tuple[str, Folder]:
    """The form of a folder with metadata further down."""
    known = {table.name for table in tables}
    nested = any(f"{parent}" in known for t in tables for parent in PurePosixPath(t.name).parents)
    beside = [
        folder
        for folder in top.walk(known)
        if folder.files
        and folder is not top
        and not any(
            listing.is_split(part) or listing.is_container(part) for part in folder.name.split("/")
        )
    ]
    if len(split) == len(tables) and not nested:
        _no_doubles(top.walk())
        return "splits", top
    if len(tables) == 1 and not beside:
        return "table", top
    one = f"by {_tables(tables)} as one data set (--data.form table)"
    if beside:
        raise _two(top, one, f"{_names(beside)} as people (--data.form folders)")
    raise _two(
        top,
        one,
        f"as several data sets, one at a time (e.g. --data.root {tables[0].path}), or "
        f"{_names(tables)} as people (--data.form folders)",
    )


def _of_folders(top: Folder, warnings: list[str]) -> tuple[str, Folder]:
    """The form of a folder without metadata."""
    alive = top.alive
    if len(alive) == 1 and not top.files:
        only, inner = alive[0], [folder.base for folder in alive[0].alive]
        nested = listing.is_container(only.base) or all(map(listing.is_split, inner))
        if nested and not only.files:
            return _of_folders(only, warnings)
        if listing.is_container(only.base):
            raise _two(top, _people(top), f"its files as a person each (--data.root {only.path})")
        told = listing.is_near_split(only.base) or all(map(listing.is_tracklet, inner))
        if not only.files and not told:
            raise _two(
                top,
                f"{quoted(only.base)} as one person with tracklets {_folders(top)}",
                f"the folders in it as people (--data.root {only.path})",
            )
    splits = [folder for folder in alive if listing.is_split(folder.base)]
    if splits and len(splits) == len(alive) and not any(f.files for f in (top, *splits)):
        _no_doubles((top,))
        people = [person for folder in splits for person in folder.alive]
        _no_groups(top, people, "(--data.form splits)", warnings)
        return "splits", top
    near = [folder for folder in alive if listing.is_near_split(folder.base)]
    if len(splits) < len(near) == len(alive):
        odd = [folder for folder in near if not listing.is_split(folder.base)]
        raise _two(
            top,
            _people(top),
            f"{_names(odd)} as splits (call them train, query, gallery or test, or move them out)",
        )
    named = any(folder.base.lower() not in listing.NAMES for folder in splits)
    if splits := _most(splits if named else [], alive, warnings):
        raise _two(top, _people(top), f"{_names(splits)} as splits (--data.form splits)")
    _no_groups(top, alive, _folders(top), warnings)
    return "folders", top


def _no_doubles(parents: Iterable[Folder]) -> None:
    """Refuse two folders of one split side by side: people may be there twice."""
    for parent in parents:
        found: dict[str, Folder] = {}
        for folder in parent.alive:
            if (split := listing.split_of(folder.base)) and split in found:
                raise ValueError(
                    f"data.root: {found[split].path} and {folder.path} are both called as the "
                    f"split {split}, and may hold the same people: keep one of them, or give "
                    "--data.form splits to read both"
                )
            found[split] = folder


def _no_groups(top: Folder, people: list[Folder], option: str, warnings: list[str]) -> None:
    """Refuse folders that would be people, and are called as what many people have in common."""
    boxes = [folder for folder in people if listing.is_container(folder.base)]
    if boxes := _most(boxes, people, warnings):
        raise _many(top, boxes, f"{_names(boxes)} as people {option}")
    groups = [f for f in people if f.alive and not f.files and listing.is_group(f.base)]
    groups = _most(groups, people, warnings) or (people if _of_names(people) else [])
    if groups:
        raise _many(top, groups, f"{_names(groups)} as people with tracklets {option}")
    cameras = [folder for folder in people if listing.is_camera(folder.base)]
    if cameras := _most(cameras, people, warnings):
        raise _two(
            cameras[0],
            f"{_names(cameras)} as people {option}",
            f"{_names(cameras)} as cameras or views of many people (a metadata.csv beside them, "
            "with file_name, pid and camid)",
        )


def _of_names(people: list[Folder]) -> bool:
    """Whether the folders hold nothing but folders called by words, another word each: names."""
    inner = [folder.base for person in people for folder in person.alive]
    several = sum(len(person.alive) > 1 for person in people) > 1
    words = len(set(inner)) == len(inner) and not any(map(str.isdigit, "".join(inner)))
    return several and words and all(person.alive and not person.files for person in people)


def _most(some: list[Folder], folders: list[Folder], warnings: list[str]) -> list[Folder]:
    """Some folders if they are half of all or more; fewer are people as the others, and told."""
    if 2 * len(some) >= len(folders):
        return some
    if some:
        warnings.append(
            f"{_names(some)} of {len(folders)} folders are read as people, as the others are, "
            "though the names are those of splits, cameras or groups; move them out if they are"
        )
    return []


def _many(top: Folder, folders: list[Folder], one: str) -> ValueError:
    where = f"e.g. --data.root {folders[0].path}"
    return _two(top, one, f"{_names(folders)} as folders of many people ({where})")


def _two(folder: Folder, one: str, other: str) -> ValueError:
    return ValueError(
        f"data.root: {folder.root} can be read in two ways: {one}; or {other}: add one of these "
        "options"
    )


def _people(top: Folder) -> str:
    return f"{_names(top.alive)} as people {_folders(top)}"


def _folders(top: Folder) -> str:
    """The option that reads the folders of a folder as people."""
    return f"(--data.root {top.path} --data.form folders)" if top.name else "(--data.form folders)"


def _names(folders: list[Folder]) -> str:
    return _listed(folder.name for folder in folders)


def _tables(folders: list[Folder]) -> str:
    return _listed(folder.own(folder.tables[0]) for folder in folders)


def _listed(names: Iterator[str]) -> str:
    names = list(map(quoted, names))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
