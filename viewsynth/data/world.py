# SPDX-License-Identifier: Apache-2.0
"""A world of our own, as `viewsynth world` leaves it: CARGO's layout, with the truth beside it.

Every row of `truth.jsonl` is a picture with its true camera: elevation, azimuth, distance and
altitude come with the samples; captions and attributes from `people.jsonl`. The moments of
`paired/` are not part of it: they are no split of a benchmark. The protocols are CARGO's.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import SPLITS, Dataset, Published, Reject, Sample
from viewsynth.runtime.files import inside

TRUTH, PEOPLE, WORLD = "truth.jsonl", "people.jsonl", "world.json"
PARTS = (TRUTH, WORLD)
FORM = "Cam2_day_0007_3.jpg"
NAME = re.compile(r"Cam(\d+)_day_(\d+)_(\d+)\.", re.ASCII)
PID = re.compile(r"\d+", re.ASCII)
NUMBERS = ("elevation", "azimuth", "altitude", "distance")
TEXTS = ("file_name", "pid", "camid", "platform", "view", "split")
# Nine tenths of a row are key points and poses, after all that is read here: rows end there first.
REST = b', "target_height"'
ROW = json.JSONDecoder(parse_int=str)  # "camid" is a number in the file and a text in a sample


def load(root: str | Path) -> Dataset:
    """The pictures of a world, with the protocols of `layout.directions`.

    Pictures without a row and rows without a picture are rejects.
    Raises: FileNotFoundError, layout.LayoutError: if it is not there.
    """
    root = layout.find_root(root, PARTS)
    tree = layout.scan(root, SPLITS, (root / TRUTH, root / PEOPLE))
    warnings: list[str] = []
    people = _people(root, tree.rejects, warnings)
    samples, rows = _samples(tree, people)
    if not samples:
        raise layout.LayoutError(
            f"{root / TRUTH} and the pictures of {root} have nothing in common, expected "
            f"rows and pictures like train/Cam2/{FORM}"
        )
    samples.sort(key=lambda sample: (sample.pid, sample.name))
    query, gallery = ([s for s in samples if s.split == split] for split in ("query", "gallery"))
    published = (
        Published(what=f"{split} images", count=rows[split], source=TRUTH)
        for split in SPLITS
        if rows[split]
    )
    return Dataset(
        name="world",
        root=root,
        samples=samples,
        protocols=layout.directions(query, gallery),
        rejects=tree.rejects,
        warnings=warnings,
        published=tuple(published),
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _samples(tree: layout.Tree, people: dict[str, dict]) -> tuple[list[Sample], Counter]:
    """The rows that have a picture, and how many rows each split has."""
    files, rows, samples = set(tree.files), Counter(), []
    told = {reject.source for reject in tree.rejects}
    for line, row in layout.json_rows(tree.root / TRUTH, _decode):
        try:
            if isinstance(row, Exception):
                raise row
            if row.get("split") == "paired":
                continue
            sample = _sample(tree.root, row, people)
            rows[sample.split] += 1
            if sample.name in files:
                files.remove(sample.name)
                samples.append(sample)
            elif sample.name not in told:
                inside(tree.root, sample.name)
                there = sample.paths[0].is_file()
                what = "was named before" if there else f"is not there, in {tree.root}"
                raise ValueError(f"{sample.name} {what}")
        except ValueError as error:
            tree.rejects.append(layout.bad(f"{TRUTH}:{line}", str(error)))
    tree.rejects += [layout.bad(name, f"no row of {TRUTH} names it") for name in sorted(files)]
    return samples, rows


def _decode(line: bytes) -> object:
    """A row, as far as it is needed."""
    head, rest, _ = line.partition(REST)
    if rest and line.endswith(b"}"):
        with contextlib.suppress(ValueError):
            row = ROW.decode(head.decode() + "}")
            if row.keys() >= {*TEXTS, *NUMBERS}:
                return row
    return ROW.decode(line.decode())


def _sample(root: Path, row: dict, people: dict[str, dict]) -> Sample:
    """A row as a sample. Raises ValueError naming the field."""
    texts = {
        key: row.get(key) for key in ("file_name", "pid", "camid", "platform", "view", "split")
    }
    for key, value in texts.items():
        if not isinstance(value, str) or not value:
            raise ValueError(f"{key} must be a text, got {value!r}")
    name, pid = texts.pop("file_name"), texts["pid"]
    if not PID.fullmatch(pid):
        raise ValueError(f"pid must be digits, got {pid!r}")
    if name.partition("/")[0] != texts["split"]:
        raise ValueError(f"{name} does not lie in the folder of its split, {texts['split']}")
    numbers = {key: _number(key, row.get(key)) for key in NUMBERS}
    texts["pid"] = f"world/{pid}"
    return Sample(paths=(root / name,), name=name, **texts, **numbers, **people.get(pid, {}))


def _number(key: str, text) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{key} must be a finite number, got {text!r}")
    return value


def _people(root: Path, rejects: list[Reject], warnings: list[str]) -> dict[str, dict]:
    """Caption and attributes by pid."""
    if not (root / PEOPLE).is_file():
        warnings.append(f"there is no {root / PEOPLE}: no captions, no attributes")
        return {}
    names, people = _attributes(root / WORLD), {}
    for line, row in layout.json_rows(root / PEOPLE):
        try:
            if isinstance(row, Exception):
                raise row
            pid, caption, flags = (row.get(key) for key in ("pid", "caption", "attributes"))
            if not isinstance(pid, str) or not isinstance(caption, str):
                raise ValueError("pid and caption must be texts")
            if not isinstance(flags, list) or len(flags) != len(names):
                raise ValueError(f"attributes must be the {len(names)} numbers that {WORLD} names")
        except ValueError as error:
            rejects.append(layout.bad(f"{PEOPLE}:{line}", str(error)))
            continue
        present = tuple(name for name, flag in zip(names, flags, strict=True) if flag)
        people[pid] = {"caption": caption, "attributes": present}
    return people


def _attributes(path: Path) -> list[str]:
    """The names of the attributes. Raises ValueError if they cannot be read."""
    try:
        names = json.loads(path.read_bytes())["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}; restore it") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: attributes must be a list of texts")
    return names
