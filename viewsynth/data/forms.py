# SPDX-License-Identifier: Apache-2.0
"""Recognises the form of a user's folder: a table, folders of people, or splits.

Names alone can mislead: a folder `train` is not a person. Where two readings are possible, the
error names both, each with the option that selects it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from viewsynth.data import listing
from viewsynth.data.listing import Folder, quoted

UNSUPPORTED = tuple(
    f"metadata.{extension}" for extension in ("parquet", "tsv", "arrow", "feather", "xlsx", "xls")
)


def form_of(top: Folder, warnings: list[str]) -> tuple[str, Folder]:
    """The form of a folder, and the folder in it where that form starts.

    Args:
        top: The root, listed.
        warnings: Get folders that are read as people although their names mean something else.

    Returns:
        "table", "splits" or "folders" (see `viewsynth.data.folder`), and a folder.

    Raises:
        ValueError: if two readings are possible, or the table has an unsupported format.
    """
    deeper = [folder for folder in top.walk() if folder.tables and folder is not top]
    split = [folder for folder in deeper if any(map(listing.is_split, folder.name.split("/")))]
    if top.tables and split:
        raise _ambiguous(
            top,
            f"by {quoted(top.tables[0])} alone (--data.form table)",
            f"by {_tables(split)} (--data.form splits)",
        )
    if top.tables:
        return "table", top
    if deeper:
        return _of_tables(top, deeper, split)
    for folder in (top, *top.nonempty):
        for name in folder.other_tables:
            if name.lower() in UNSUPPORTED:
                raise ValueError(
                    f"{folder.path / name} has an unsupported format: write it as metadata.csv or "
                    "metadata.jsonl, or give --data.form folders to tell people by folders and "
                    "files alone"
                )
    return _of_folders(top, warnings)


def _of_tables(top: Folder, tables: list[Folder], split: list[Folder]) -> tuple[str, Folder]:
    """The form of a folder with metadata in subfolders."""
    known = {table.name for table in tables}
    nested = any(f"{parent}" in known for t in tables for parent in PurePosixPath(t.name).parents)
    others = [
        folder
        for folder in top.walk(known)
        if folder.files
        and folder is not top
        and not any(
            listing.is_split(part) or listing.is_container(part) for part in folder.name.split("/")
        )
    ]
    if len(split) == len(tables) and not nested:
        _refuse_duplicate_splits(top.walk())
        return "splits", top
    if len(tables) == 1 and not others:
        return "table", top
    one = f"by {_tables(tables)} as one data set (--data.form table)"
    if others:
        raise _ambiguous(top, one, f"{_names(others)} as people (--data.form folders)")
    raise _ambiguous(
        top,
        one,
        f"as several data sets, one at a time (e.g. --data.root {tables[0].path}), or "
        f"{_names(tables)} as people (--data.form folders)",
    )


def _of_folders(top: Folder, warnings: list[str]) -> tuple[str, Folder]:
    """The form of a folder without metadata."""
    folders = top.nonempty
    if len(folders) == 1 and not top.files:
        inner = _of_only_folder(top, folders[0])
        if inner:
            return _of_folders(inner, warnings)
    splits = [folder for folder in folders if listing.is_split(folder.basename)]
    if splits and len(splits) == len(folders) and not any(f.files for f in (top, *splits)):
        _refuse_duplicate_splits((top,))
        people = [person for folder in splits for person in folder.nonempty]
        _refuse_groups(top, people, "(--data.form splits)", warnings)
        return "splits", top
    near = [folder for folder in folders if listing.is_near_split(folder.basename)]
    if len(splits) < len(near) == len(folders):
        odd = [folder for folder in near if not listing.is_split(folder.basename)]
        raise _ambiguous(
            top,
            _as_people(top),
            f"{_names(odd)} as splits (name them train, query, gallery or test, or move them out)",
        )
    only_splits = any(folder.basename.lower() not in listing.ALSO_PEOPLE for folder in splits)
    if splits := _at_least_half(splits if only_splits else [], folders, warnings):
        raise _ambiguous(top, _as_people(top), f"{_names(splits)} as splits (--data.form splits)")
    _refuse_groups(top, folders, _option(top), warnings)
    return "folders", top


def _of_only_folder(top: Folder, only: Folder) -> Folder | None:
    """The folder to look into if `top` holds a single folder and no files.

    Args:
        top: The outer folder.
        only: Its only subfolder.

    Returns:
        `only` if it is a container of people or splits; None if it may be a person or a split.

    Raises:
        ValueError: if its files or folders may be people as well.
    """
    inner = [folder.basename for folder in only.nonempty]
    nested = listing.is_container(only.basename) or all(map(listing.is_split, inner))
    if nested and not only.files:
        return only
    if listing.is_container(only.basename):
        raise _ambiguous(
            top, _as_people(top), f"each of its files as a person (--data.root {only.path})"
        )
    clear = listing.is_near_split(only.basename) or all(map(listing.is_tracklet, inner))
    if not only.files and not clear:
        raise _ambiguous(
            top,
            f"{quoted(only.basename)} as one person with tracklets {_option(top)}",
            f"the folders in it as people (--data.root {only.path})",
        )
    return None


def _refuse_duplicate_splits(parents: Iterable[Folder]) -> None:
    """Raise ValueError if two folders of one parent are the same split: people may repeat."""
    for parent in parents:
        found: dict[str, Folder] = {}
        for folder in parent.nonempty:
            if (split := listing.split_of(folder.basename)) and split in found:
                raise ValueError(
                    f"data.root: {found[split].path} and {folder.path} both have the name of the "
                    f"split {split}, and may hold the same people: keep one of them, or give "
                    "--data.form splits to read both"
                )
            found[split] = folder


def _refuse_groups(top: Folder, people: list[Folder], option: str, warnings: list[str]) -> None:
    """Raise ValueError if folders to be read as people have names that many people share.

    Args:
        top: Folder around them.
        people: The folders.
        option: The option that reads them as people anyway.
        warnings: Get such names if they are fewer than half.
    """
    containers = [folder for folder in people if listing.is_container(folder.basename)]
    if containers := _at_least_half(containers, people, warnings):
        raise _groups(top, containers, f"{_names(containers)} as people {option}")
    groups = [f for f in people if f.nonempty and not f.files and listing.is_group(f.basename)]
    groups = _at_least_half(groups, people, warnings)
    groups = groups or (people if _hold_names(people) else [])
    if groups:
        raise _groups(top, groups, f"{_names(groups)} as people with tracklets {option}")
    cameras = [folder for folder in people if listing.is_camera(folder.basename)]
    if cameras := _at_least_half(cameras, people, warnings):
        raise _ambiguous(
            cameras[0],
            f"{_names(cameras)} as people {option}",
            f"{_names(cameras)} as cameras or views of many people (add a metadata.csv next to "
            "them, with file_name, pid and camid)",
        )


def _hold_names(people: list[Folder]) -> bool:
    """Whether all subfolders have different names without digits: these may be the people."""
    inner = [folder.basename for person in people for folder in person.nonempty]
    several = sum(len(person.nonempty) > 1 for person in people) > 1
    words = len(set(inner)) == len(inner) and not any(map(str.isdigit, "".join(inner)))
    return several and words and all(person.nonempty and not person.files for person in people)


def _at_least_half(some: list[Folder], folders: list[Folder], warnings: list[str]) -> list[Folder]:
    """`some` if they are at least half of the folders; else a warning that they count as people."""
    if 2 * len(some) >= len(folders):
        return some
    if some:
        warnings.append(
            f"{_names(some)} of {len(folders)} folders are read as people like the others, "
            "although their names are those of splits, cameras or groups; if they are not people, "
            "move them out"
        )
    return []


def _groups(top: Folder, folders: list[Folder], one: str) -> ValueError:
    option = f"e.g. --data.root {folders[0].path}"
    return _ambiguous(top, one, f"{_names(folders)} as folders of many people ({option})")


def _ambiguous(folder: Folder, one: str, other: str) -> ValueError:
    return ValueError(
        f"data.root: {folder.root} can be read in two ways: {one}; or {other}: add one of these "
        "options"
    )


def _as_people(top: Folder) -> str:
    return f"{_names(top.nonempty)} as people {_option(top)}"


def _option(top: Folder) -> str:
    """The option that reads the folders of `top` as people."""
    return f"(--data.root {top.path} --data.form folders)" if top.name else "(--data.form folders)"


def _names(folders: list[Folder]) -> str:
    return _listed(folder.name for folder in folders)


def _tables(folders: list[Folder]) -> str:
    return _listed(folder.name_of(folder.tables[0]) for folder in folders)


def _listed(names: Iterator[str]) -> str:
    names = list(map(quoted, names))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
