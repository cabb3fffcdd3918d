# SPDX-License-Identifier: Apache-2.0
"""What of a finished run differs from what was written: files, rows, input list, photos, licences.

`viewsynth verify` also renders a part of it again, see `generate.again`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from viewsynth.manifest import frozen as frozen_list
from viewsynth.manifest import parts, sums
from viewsynth.manifest.frozen import Frozen
from viewsynth.runtime.files import folder_of, path_inside, sha256, stem_of

# What a run folder may hold besides the files of `SHA256SUMS`: it can be made again.
DERIVED = ("run.json", "config.yaml", sums.SUMS, "contact_sheet.png", ".gitkeep")
DERIVED_FOLDERS = ("report", "export")
READERS = 8  # threads that hash files


@dataclass(frozen=True)
class Problem:
    """Something that differs.

    Args:
        where: File of the run, or row, or photo.
        what: What is wrong with it, and what to do if that is not obvious.
    """

    where: str
    what: str


def verify(run: Path) -> tuple[list[Problem], list[str]]:
    """Compare a run with its own records, and its photos with those that it was made of.

    Args:
        run: Folder of a finished run.

    Returns:
        What differs, and notes on what could not be compared.

    Raises:
        FileNotFoundError: If it is no run, or is not finished.
        ValueError: If its records cannot be read at all.
    """
    frozen, listed = frozen_list.read(run), sums.read_sums(run)
    found = [*_files(run, listed), *_input_list(run)]
    try:
        rows, rejects = parts.read_rows(run, frozen)
    except (ValueError, KeyError, StopIteration) as error:
        return [*found, Problem("parts", f"cannot be read: {error}")], []
    found += _lines(run / "metadata.jsonl", rows, "file_name")
    found += _lines(run / "rejects.jsonl", rejects, "source")
    found += _rows(rows, frozen)
    photos, notes = _photos(frozen)
    return [*found, *photos], notes


def _files(run: Path, listed: dict[str, str]) -> Iterator[Problem]:
    """Files that are missing, differ, or belong to nothing."""
    names = sorted(listed)
    with ThreadPoolExecutor(READERS) as pool:
        hashes = pool.map(lambda name: sha256(path_inside(run, name)), names)
        for name, digest in zip(names, hashes, strict=True):
            if not digest:
                yield Problem(name, "is missing, or cannot be read")
            elif digest != listed[name]:
                yield Problem(name, "is not the file that was written: its SHA-256 differs")
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        known = name in listed or name in DERIVED or name.split("/")[0] in DERIVED_FOLDERS
        if not known and not (path.is_dir() and not path.is_symlink()):
            yield Problem(name, "belongs to no row of this run")


def _input_list(run: Path) -> Iterator[Problem]:
    tree = json.loads((run / "run.json").read_text("utf-8"))
    if frozen_list.digest(tree) != tree.get("sha256"):
        yield Problem("run.json", "settings, people or chunks were edited: its own hash differs")


def _lines(path: Path, expected: list[dict], key: str) -> Iterator[Problem]:
    """How a joined file differs from the parts: rows that are lost, added or edited."""
    name = path.name
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("expected a JSON object in each line")
    except (OSError, ValueError) as error:
        yield Problem(name, f"cannot be read: {error}")
        return
    if rows == expected:
        return
    if [row.get(key) for row in rows] == [row[key] for row in expected]:
        for number, (row, old) in enumerate(zip(rows, expected, strict=True), 1):
            if row != old:
                what = f"was edited: {differing(row, old)} differ from its part"
                yield Problem(f"{name}:{number} ({row[key]})", what)
        return
    there, wanted = {str(row.get(key)) for row in rows}, {str(row[key]) for row in expected}
    for lost in sorted(wanted - there):
        yield Problem(f"{name} ({lost})", "a row of its part is lost")
    for added in sorted(there - wanted):
        yield Problem(f"{name} ({added})", "no part has this row")
    if there == wanted:
        yield Problem(name, "its rows are in another order, or repeated")


def differing(one: dict, other: dict) -> str:
    """The keys whose values differ between two rows, joined by commas."""
    keys = sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k))
    return ", ".join(keys)


def _rows(rows: list[dict], frozen: Frozen) -> Iterator[Problem]:
    """Rows that contradict their file names, the input list, or the licences of the run."""
    people = {(entry.pid, entry.outfit): set(entry.sha256) for entry in frozen.people}
    told = frozen.facts.get("passports", {})
    licences = {part: one["licence"] for part, one in told.items()}
    for row in rows:
        name, pid, outfit = row["file_name"], row["pid"], row["outfit"]
        entry = people.get((pid, outfit), people.get((pid.rpartition("#")[0], outfit)))
        if entry is None:
            yield Problem(name, f"its person {pid} is not in the input list of run.json")
        elif unknown := [s["file"] for s in row["sources"] if s["sha256"] not in entry]:
            yield Problem(name, f"{unknown[0]} is no photo of {pid} in the input list of run.json")
        if name.split("/")[1] != folder_of(pid) or Path(row["person"]).stem != stem_of(pid, outfit):
            yield Problem(name, f"the file names are not those of its person, {pid}")
        if row["seed"] != frozen.settings["seed"]:
            yield Problem(name, f"its seed is {row['seed']}, that of run.json another")
        if licences and row["licences"] != licences:
            yield Problem(name, "its licences are not those of run.json")
    for entry in frozen.people:
        if wrong := [s.name for s in entry.samples if s.split != "train"]:
            yield Problem(wrong[0], f"is a photo of {entry.pid} for evaluation, not for training")


def _photos(frozen: Frozen) -> tuple[list[Problem], list[str]]:
    """Photos that have changed since the run was started, and a note if there are none."""
    if not frozen.root.is_dir():
        return [], [f"the photos are not in {frozen.root}: they were not compared"]
    files = {path: digest for entry in frozen.people for path, digest in entry.files if digest}
    names = sorted(files)
    with ThreadPoolExecutor(READERS) as pool:
        hashes = dict(zip(names, pool.map(sha256, names), strict=True))
    return [
        Problem(str(path), "this photo has changed" if hashes[path] else "this photo is gone")
        for path in names
        if hashes[path] != files[path]
    ], []
