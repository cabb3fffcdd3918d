# SPDX-License-Identifier: Apache-2.0
"""Truth: what a world says of the instants of its people, read from its folder.

The layout is that of `viewsynth world`: `truth.jsonl` has a row an image, `people.jsonl` a row a
person, `parts/` the part maps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from viewsynth.cameras import Cameras
from viewsynth.records import Sample
from viewsynth.runtime.files import inside
from viewsynth.world import LABELS, of_person

LISTS = "people.jsonl", "truth.jsonl"
OCCLUDER = LABELS.index("occluder")


@dataclass(frozen=True)
class Instant:
    """One moment of one person.

    Args:
        pid: Identity.
        name: Of the moment, unique for the person.
        ground, drone: Rows of `truth.jsonl`, in the order of their file names.
    """

    pid: str
    name: str
    ground: tuple[dict, ...]
    drone: tuple[dict, ...]


@dataclass(frozen=True)
class Picture:
    """A true picture.

    Args:
        image: RGB.  uint8 [H, W, 3]
        labels: Index into `world.LABELS`.  uint8 [H, W]
        camera: One camera whose canvas is the picture.
        row: Its row of `truth.jsonl`.
    """

    image: np.ndarray
    labels: np.ndarray
    camera: Cameras
    row: dict

    @property
    def mask(self) -> np.ndarray:
        """Pixels of the person.  bool [H, W]"""
        return of_person(self.labels)


def instants(world: Path, people: int | None, skip: int = 0, split: str = "test") -> list[Instant]:
    """The instants that have both views, in the order of their pids.

    Args:
        world: Folder of `viewsynth world`.
        people: How many people, after the first `skip` of the split; None = all that follow.
        split: "test" or "train": whose.
    Raises: FileNotFoundError, ValueError: if the folder is no world, or has fewer people.
    """
    every = [row["pid"] for row in _rows(world, "people.jsonl") if row["split"] == split]
    every.sort(key=order)
    wanted = set(every[skip:] if people is None else every[skip : skip + people])
    if len(wanted) < (people or 1):
        raise ValueError(
            f"{world} has {len(every)} {split} people, so after skipping {skip} there are "
            f"{len(wanted)}, not {people or 1}; lower --people or --skip, or draw a larger world"
        )
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in _rows(world, "truth.jsonl", '"paired"'):
        if row["split"] == "paired" and row["pid"] in wanted:
            groups.setdefault((row["pid"], row["instant"]), []).append(row)
    found = []
    for (pid, name), rows in sorted(groups.items(), key=lambda item: tuple(map(order, item[0]))):
        rows.sort(key=lambda row: row["file_name"])
        ground, drone = (tuple(r for r in rows if r["view"] == v) for v in ("ground", "aerial"))
        if ground and drone:
            found.append(Instant(pid, name, ground, drone))
    if not found:
        raise ValueError(f"{world} has no paired pictures; draw it with --instants 1 or more")
    return found


def drone_pictures(world: Path, pids: set[str]) -> dict[str, list[dict]]:
    """The rows of the drone pictures in the split train, by person, sorted by file name.

    Their moments are their own: no ground camera saw the person just then.
    """
    found: dict[str, list[dict]] = {}
    for row in _rows(world, "truth.jsonl", '"aerial"'):
        if row["split"] == "train" and row["view"] == "aerial" and row["pid"] in pids:
            found.setdefault(row["pid"], []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row["file_name"])
    return found


def order(name: str) -> tuple[int, str]:
    """How pids of digits are sorted: by their numbers, also past 9999."""
    return len(name), name


def training(world: Path) -> list[dict]:
    """The rows of `truth.jsonl` that the observer may learn from: every picture of the training
    people, sorted by file name.

    Raises: FileNotFoundError, ValueError: if the folder is no world, or has none.
    """
    allowed = {row["pid"] for row in _rows(world, "people.jsonl") if row["split"] == "train"}
    keep = ("file_name", "pid", "parts", "elevation")
    rows = [
        {key: row[key] for key in keep}
        for row in _rows(world, "truth.jsonl")
        if row["pid"] in allowed
    ]
    if not rows:
        raise ValueError(f"{world} has no training pictures for the observer")
    return sorted(rows, key=lambda row: row["file_name"])


def _rows(world: Path, name: str, having: str = "") -> Iterator[dict]:
    """The rows of a file of the world; those without the text `having` are not even parsed."""
    path = world / name
    if not path.is_file():
        raise FileNotFoundError(f"{world} is no world: it has no {name}; make one: viewsynth world")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if having in line:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}, line {number}: not JSON: {error}") from error


def digest(world: Path) -> str:
    """SHA-256 of the world's truth: another world has another."""
    total = hashlib.sha256()
    for name in LISTS:
        with (world / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def person(world: Path, row: dict) -> tuple[np.ndarray, np.ndarray]:
    """The picture of a row, uint8 [H, W, 3], and the person's mask, bool [H, W]."""
    image, labels = _pixels(world, row)
    return image, of_person(labels)


def read(world: Path, row: dict) -> Picture:
    """The picture of a row, its part map and its camera."""
    image, labels = _pixels(world, row)
    camera = Cameras(
        torch.tensor(row["world_to_camera"]).view(1, 4, 4).float(),
        torch.tensor(row["intrinsics"]).view(1, 3, 3).float(),
        image.shape[:2],
        torch.tensor([float(row.get("k1") or 0.0)]),
    )
    return Picture(image, labels, camera, row)


def sample(world: Path, row: dict) -> Sample:
    """A ground picture as `generate` gets it: file, camera and platform, and no truth."""
    return Sample(
        paths=(world / row["file_name"],),
        pid=row["pid"],
        name=row["file_name"],
        camid=str(row["camid"]),
        platform=row["platform"],
    )


def _pixels(world: Path, row: dict) -> tuple[np.ndarray, np.ndarray]:
    with Image.open(inside(world, row["file_name"])) as file:
        image = np.asarray(file.convert("RGB"))
    with Image.open(inside(world, row["parts"])) as file:
        labels = np.asarray(file)
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"{row['parts']} is {labels.shape}, its picture {image.shape[:2]}; draw the world anew"
        )
    return image, labels
