# SPDX-License-Identifier: Apache-2.0
"""World: the benchmark that `viewsynth world` renders, in CARGO's layout with ground truth.

Each row of `truth.jsonl` is an image with its true camera: the samples have elevation, azimuth,
distance and altitude from there, captions and attributes from `people.jsonl`. The images of
`paired/` belong to no split and are left out. The protocols are CARGO's.
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
from viewsynth.runtime.files import path_inside
from viewsynth.runtime.licences import VIEWSYNTH

PASSPORT = VIEWSYNTH

TRUTH, PEOPLE, WORLD = "truth.jsonl", "people.jsonl", "world.json"
PARTS = (TRUTH, WORLD)
EXAMPLE = "Cam2_day_0007_3.jpg"
NAME = re.compile(r"Cam(\d+)_day_(\d+)_(\d+)\.", re.ASCII)
PID = re.compile(r"\d+", re.ASCII)
NUMBERS = ("elevation", "azimuth", "altitude", "distance")
TEXTS = ("file_name", "pid", "camid", "platform", "view", "split")
# Key points and poses make up nine tenths of a row and come last: rows are cut there when parsed.
REST = b', "target_height"'
DECODER = json.JSONDecoder(parse_int=str)  # "camid" is a number in the file, text in a sample


def load(root: str | Path) -> Dataset:
    """A rendered world with the protocols of `layout.directions`.

    Images without a row and rows without an image become rejects.

    Args:
        root: Folder of the release, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold this data set.
    """
    root = layout.find_root(root, PARTS)
    tree = layout.scan(root, SPLITS, (root / TRUTH, root / PEOPLE))
    warnings: list[str] = []
    people = _people(root, tree.rejects, warnings)
    samples, rows = _samples(tree, people)
    if not samples:
        raise layout.LayoutError(
            f"no row of {root / TRUTH} names an image of {root}; expected rows and images like "
            f"train/Cam2/{EXAMPLE}"
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
    """The rows that have an image, as samples, and the number of rows of each split."""
    files, rows, samples = set(tree.files), Counter(), []
    rejected = {reject.source for reject in tree.rejects}
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
            elif sample.name not in rejected:
                path_inside(tree.root, sample.name)
                exists = sample.paths[0].is_file()
                what = "was named before, in an earlier row" if exists else f"is not in {tree.root}"
                raise ValueError(f"{sample.name} {what}")
        except ValueError as error:
            tree.rejects.append(layout.bad(f"{TRUTH}:{line}", str(error)))
    reason = f"no row of {TRUTH} names this image"
    tree.rejects += [layout.bad(name, reason) for name in sorted(files)]
    return samples, rows


def _decode(line: bytes) -> object:
    """A row, or only the part of it that is needed."""
    head, rest, _ = line.partition(REST)
    if rest and line.endswith(b"}"):
        with contextlib.suppress(ValueError):
            row = DECODER.decode(head.decode() + "}")
            if row.keys() >= {*TEXTS, *NUMBERS}:
                return row
    return DECODER.decode(line.decode())


def _sample(root: Path, row: dict, people: dict[str, dict]) -> Sample:
    """A row as a sample. Raises ValueError naming the field."""
    texts = {key: row.get(key) for key in TEXTS}
    for key, value in texts.items():
        if not isinstance(value, str) or not value:
            raise ValueError(f"{key} must be text, got {value!r}")
    name, pid = texts.pop("file_name"), texts["pid"]
    if not PID.fullmatch(pid):
        raise ValueError(f"pid must be digits, got {pid!r}")
    if name.partition("/")[0] != texts["split"]:
        raise ValueError(f"{name} is not in the folder of its split, {texts['split']}")
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
    """Caption and attributes of each pid."""
    if not (root / PEOPLE).is_file():
        warnings.append(f"there is no {root / PEOPLE}: samples have no captions or attributes")
        return {}
    names, people = _attributes(root / WORLD), {}
    for line, row in layout.json_rows(root / PEOPLE):
        try:
            if isinstance(row, Exception):
                raise row
            pid, caption, flags = (row.get(key) for key in ("pid", "caption", "attributes"))
            if not isinstance(pid, str) or not isinstance(caption, str):
                raise ValueError("pid and caption must be text")
            if not isinstance(flags, list) or len(flags) != len(names):
                raise ValueError(
                    f"attributes must be a list of the {len(names)} that {WORLD} names"
                )
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
        raise ValueError(f"{path}: attributes must be a list of text")
    return names
