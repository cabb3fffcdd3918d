# SPDX-License-Identifier: Apache-2.0
"""Synthetic images for training: the rows of a run of `generate`, checked and selected.

generate -> metadata.jsonl -> `read_rows` -> `check_people` -> `select` -> reid.pool.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from viewsynth.data import layout
from viewsynth.records import PLATFORMS, VIEWS, Sample
from viewsynth.runtime.files import path_inside, sha256
from viewsynth.runtime.messages import first_names

METADATA = "metadata.jsonl"
Weight = Literal["judge", "seen", "none"]
WEIGHTS = {"judge": "weight", "seen": "seen_ratio", "none": None}  # field of a row; None = 1
FIXED = {"source": ("synthetic",), "view": VIEWS, "platform": PLATFORMS, "split": ("train",)}


@dataclass(frozen=True)
class Selection:
    """Which rows of a run are used, and how much they weigh in the losses.

    Args:
        weight: Weight of an image: the judge's `weight`, its `seen_ratio`, or 1.
        least: Images of a smaller weight are left out, and always those that the judge gave
            weight 0.  [0, 1]
        views: Largest number of images for each (pid, outfit) of a run, the first by file name
            (names of random cameras are numbered in the order of sampling); None = all.

    Raises:
        ValueError: If a value is outside its range.
    """

    weight: Weight = "judge"
    least: float = 0.0
    views: int | None = None

    def __post_init__(self):
        if self.weight not in WEIGHTS:
            raise ValueError(f"weight must be one of {', '.join(WEIGHTS)}; got {self.weight!r}")
        if not 0 <= self.least <= 1 or (self.views is not None and self.views < 1):
            raise ValueError(
                f"least must be in [0, 1] and views > 0; got {self.least} and {self.views}"
            )


def read_rows(run: Path) -> list[dict]:
    """Rows of a run, sorted by file name, with every field that training uses checked.

    Args:
        run: Output folder of `generate`.

    Raises:
        FileNotFoundError: if the folder does not exist or the run is not finished.
        ValueError: if a row is malformed, or there are none.
    """
    path = run / METADATA
    if not run.is_dir():
        raise FileNotFoundError(f"data.synthetic: there is no folder {run}")
    if not path.is_file():
        raise FileNotFoundError(
            f"data.synthetic: {run} has no {METADATA}: it is not a run of generate, or the run was "
            "stopped; run generate again until it finishes"
        )
    rows = []
    for line, row in layout.json_rows(path):
        if problem := str(row) if isinstance(row, Exception) else _problem(row):
            raise ValueError(
                f"{path}:{line}: {problem}; run generate again with the same options to rewrite "
                "the file"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no rows: generate kept no image, see {run}/rejects.jsonl")
    return sorted(rows, key=lambda row: row["file_name"])


def check_people(
    run: Path, rows: list[dict], everyone: Sequence[Sample], tested: AbstractSet[str]
) -> None:
    """Check that a run shows training identities only, and was generated from these images.

    Args:
        run: Output folder of `generate`.
        rows: Its rows.
        everyone: All real training samples.
        tested: Identities of query and gallery.

    Raises:
        ValueError: If the run shows other identities, or was generated from other images.
    """
    known = {sample.pid for sample in everyone}
    shown = sorted({row["pid"] for row in rows})
    if found := [pid for pid in shown if pid in tested]:
        raise ValueError(
            f"data.synthetic: {run} shows {len(found)} identities of query or gallery: "
            f"{first_names(found)}; generate it from training images only"
        )
    unknown = [pid for pid in shown if pid not in known]
    if len(unknown) == len(shown):
        raise ValueError(
            f"data.synthetic: {run} was generated from another data set: it shows "
            f"{_scope(unknown[0])} ({first_names(unknown)}), the training images are of "
            f"{_scope(everyone[0].pid)} ({first_names(sorted(known))}); run generate on "
            "this data set"
        )
    if unknown:
        raise ValueError(
            f"data.synthetic: {len(unknown)} of the {len(shown)} identities of {run} are not among "
            f"the training identities: {first_names(unknown)}; run generate on the same images"
        )
    _check_sources(run, rows, everyone)


def select(
    run: Path, rows: list[dict], selection: Selection, left_out: AbstractSet[str]
) -> tuple[list[dict], list[float]]:
    """Rows to train on, and their weights.

    Args:
        run: Output folder of `generate`.
        rows: Its rows.
        selection: Which rows to use.
        left_out: Identities that are not trained on, e.g. those of the validation.

    Returns:
        The rows in their order, and one weight for each, in (0, 1].

    Raises:
        ValueError: If no row is left.
    """
    key, kept, values = WEIGHTS[selection.weight], [], []
    dropped: Counter[str] = Counter()
    count: Counter[tuple] = Counter()
    for row in rows:
        value, person = float(row[key]) if key else 1.0, (row["pid"], row.get("outfit"))
        if row["pid"] in left_out:
            dropped["are of identities that are left out, e.g. for validation"] += 1
        elif row["weight"] <= 0 or value <= 0 or value < selection.least:
            limit = f"weight {selection.weight!r}, at least {selection.least:g}"
            dropped[f"weigh too little ({limit})"] += 1
        elif selection.views is not None and count[person] >= selection.views:
            dropped["exceed the number of views of a person"] += 1
        else:
            count[person] += 1
            kept.append(row)
            values.append(value)
    if not kept:
        reasons = "; ".join(f"{number} {text}" for text, number in dropped.items())
        raise ValueError(
            f"data.synthetic: no image of {run} is left of {len(rows)}: {reasons}; lower "
            "--data.least, choose another --data.weight, or train without this run"
        )
    return kept, values


def sample_of(run: Path, name: str, row: dict) -> Sample:
    """A row as a training sample.

    Args:
        run: Output folder of `generate`.
        name: Name of the run in the sample's name.
        row: One of its rows.

    Raises:
        ValueError: If the file lies outside the run.
    """
    elevation = row.get("elevation")
    return Sample(
        paths=(path_inside(run, row["file_name"]),),
        name=f"{name}/{row['file_name']}",
        pid=row["pid"],
        camid=row["camid"],
        platform=row["platform"],
        view=row["view"],
        source="synthetic",
        outfit=row.get("outfit") or "",
        elevation=None if elevation is None else float(elevation),
    )


def _problem(row: dict) -> str:
    """What is wrong with a row; "" = nothing."""
    for key in ("file_name", "pid", "camid"):
        if not isinstance(row.get(key), str) or not row[key]:
            return f"{key} must be a non-empty string, got {row.get(key)!r}"
    for key, allowed in FIXED.items():
        if row.get(key) not in allowed:
            return f"{key} must be {' or '.join(allowed)}, got {row.get(key)!r}"
    for key in ("weight", "seen_ratio"):
        value = row.get(key)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            return f"{key} must be a number in [0, 1], got {value!r}"
    elevation = row.get("elevation", 0.0)
    if not isinstance(elevation, int | float) or not math.isfinite(elevation):
        return f"elevation must be a finite number, got {elevation!r}"
    return ""


def _check_sources(run: Path, rows: list[dict], everyone: Sequence[Sample]) -> None:
    """Compare one source image of each person, by SHA-256, with the training image of that name.

    People of whom a mesh is the only source have none that could be compared.
    Identities of two data sets can have the same names, e.g. those of two rendered worlds.
    """
    path_of = {
        sample.name if len(sample.paths) == 1 else f"{sample.name}/{path.name}": path
        for sample in everyone
        for path in sample.paths
    }
    compared: set[str] = set()
    for row in rows:
        for source in row.get("sources") or ():
            name, digest = source.get("file"), source.get("sha256")
            if row["pid"] in compared or name not in path_of or not digest:
                continue
            compared.add(row["pid"])
            if sha256(path_of[name]) != digest:
                raise ValueError(
                    f"data.synthetic: {run} was generated from another data set, or from an older "
                    f"version of this one: {name} is not the image that it was generated from; run "
                    "generate again"
                )
    meshes = all("mesh" in source for row in rows for source in row.get("sources") or [{}])
    if not compared and not meshes:
        raise ValueError(
            f"data.synthetic: none of the source images of {run} is among the training images: it "
            "was generated from another data set with the same identity names"
        )


def _scope(pid: str) -> str:
    """Data set of a pid, for messages."""
    scope, mark, _ = pid.partition("/")
    return repr(scope) if mark else "a folder of images"
