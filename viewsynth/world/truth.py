# SPDX-License-Identifier: Apache-2.0
"""Read the ground truth of a world from its folder.

The folder is written by `writer`: `truth.jsonl` has one row per image, `people.jsonl` one row per
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
from viewsynth.runtime.files import path_inside
from viewsynth.world import LABELS, of_person

FILES = "people.jsonl", "truth.jsonl"
OCCLUDER = LABELS.index("occluder")


@dataclass(frozen=True)
class Instant:
    """One moment of one person, seen by several cameras at once.

    Args:
        pid: Identity.
        name: Name of the instant, unique for the person.
        ground: Rows of `truth.jsonl` of the ground images, sorted by file name.
        drone: Likewise, of the aerial images.
    """

    pid: str
    name: str
    ground: tuple[dict, ...]
    drone: tuple[dict, ...]


@dataclass(frozen=True)
class TrueImage:
    """An image of the world with its ground truth.

    Args:
        image: RGB.  uint8 [H, W, 3]
        labels: Part map: index into `world.LABELS`.  uint8 [H, W]
        camera: One camera whose canvas is the image.
        row: Row of `truth.jsonl`.
    """

    image: np.ndarray
    labels: np.ndarray
    camera: Cameras
    row: dict

    @property
    def mask(self) -> np.ndarray:
        """Pixels of the person, bool [H, W]."""
        return of_person(self.labels)


def instants(world: Path, people: int | None, skip: int = 0, split: str = "test") -> list[Instant]:
    """Instants with ground and aerial images, sorted by pid and name.

    Args:
        world: Folder of `viewsynth world`.
        people: Number of people, after the first `skip` of the split; None = all others.
        skip: Number of people to skip.
        split: Split of the people: "test" or "train".

    Returns:
        The instants.

    Raises:
        FileNotFoundError: If the folder is not a world.
        ValueError: If the world has fewer people, or no paired images.
    """
    every = [row["pid"] for row in _rows(world, "people.jsonl") if row["split"] == split]
    every.sort(key=pid_order)
    wanted = set(every[skip:] if people is None else every[skip : skip + people])
    if len(wanted) < (people or 1):
        raise ValueError(
            f"{world} has {len(every)} {split} people, so after skipping {skip} there are "
            f"{len(wanted)}, not {people or 1}; lower --people or --skip, or render a larger world"
        )
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in _rows(world, "truth.jsonl", '"paired"'):
        if row["split"] == "paired" and row["pid"] in wanted:
            groups.setdefault((row["pid"], row["instant"]), []).append(row)
    found = []
    for (pid, name), rows in sorted(
        groups.items(), key=lambda item: tuple(map(pid_order, item[0]))
    ):
        rows.sort(key=lambda row: row["file_name"])
        ground, drone = (tuple(r for r in rows if r["view"] == v) for v in ("ground", "aerial"))
        if ground and drone:
            found.append(Instant(pid, name, ground, drone))
    if not found:
        raise ValueError(f"{world} has no paired images; render it with --instants 1 or more")
    return found


def aerial_rows(world: Path, pids: set[str]) -> dict[str, list[dict]]:
    """Rows of the aerial images of the split "train", by pid, sorted by file name.

    No ground camera saw the person at the same moment.

    Args:
        world: Folder of `viewsynth world`.
        pids: Identities whose rows are read.

    Returns:
        Rows of `truth.jsonl` by pid.
    """
    found: dict[str, list[dict]] = {}
    for row in _rows(world, "truth.jsonl", '"aerial"'):
        if row["split"] == "train" and row["view"] == "aerial" and row["pid"] in pids:
            found.setdefault(row["pid"], []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row["file_name"])
    return found


def pid_order(name: str) -> tuple[int, str]:
    """Key that sorts names of digits by their numbers, also beyond 9999."""
    return len(name), name


def training_rows(world: Path) -> list[dict]:
    """Rows of all images of the training people, sorted by file name.

    Args:
        world: Folder of `viewsynth world`.

    Returns:
        Rows of `truth.jsonl` with the keys that the training of the observer needs.

    Raises:
        FileNotFoundError: If the folder is not a world.
        ValueError: If the world has no training people.
    """
    allowed = {row["pid"] for row in _rows(world, "people.jsonl") if row["split"] == "train"}
    keep = ("file_name", "pid", "parts", "elevation")
    rows = [
        {key: row[key] for key in keep}
        for row in _rows(world, "truth.jsonl")
        if row["pid"] in allowed
    ]
    if not rows:
        raise ValueError(f"{world} has no training images for the observer")
    return sorted(rows, key=lambda row: row["file_name"])


def _rows(world: Path, name: str, having: str = "") -> Iterator[dict]:
    """Rows of a JSON lines file of the world; lines without the text `having` are skipped."""
    path = world / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{world} is no world: it has no {name}; render one with `viewsynth world`"
        )
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if having in line:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}, line {number}: not JSON: {error}") from error


def digest(world: Path) -> str:
    """SHA-256 over the ground truth files of a world."""
    total = hashlib.sha256()
    for name in FILES:
        with (world / name).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def person_image(world: Path, row: dict) -> tuple[np.ndarray, np.ndarray]:
    """Image of a row, uint8 [H, W, 3], and mask of the person, bool [H, W]."""
    image, labels = _pixels(world, row)
    return image, of_person(labels)


def read(world: Path, row: dict) -> TrueImage:
    """Read the image, part map and camera of a row.

    Args:
        world: Folder of `viewsynth world`.
        row: Row of `truth.jsonl`.

    Returns:
        The image with its ground truth.

    Raises:
        ValueError: If the part map has another size than the image.
    """
    image, labels = _pixels(world, row)
    camera = Cameras(
        torch.tensor(row["world_to_camera"]).view(1, 4, 4).float(),
        torch.tensor(row["intrinsics"]).view(1, 3, 3).float(),
        image.shape[:2],
        torch.tensor([float(row.get("k1") or 0.0)]),
    )
    return TrueImage(image, labels, camera, row)


def sample(world: Path, row: dict) -> Sample:
    """Sample of a ground image as `generate` reads it: file, camera and platform, no truth."""
    return Sample(
        paths=(world / row["file_name"],),
        pid=row["pid"],
        name=row["file_name"],
        camid=str(row["camid"]),
        platform=row["platform"],
    )


def _pixels(world: Path, row: dict) -> tuple[np.ndarray, np.ndarray]:
    with Image.open(path_inside(world, row["file_name"])) as file:
        image = np.asarray(file.convert("RGB"))
    with Image.open(path_inside(world, row["parts"])) as file:
        labels = np.asarray(file)
    if labels.shape != image.shape[:2]:
        raise ValueError(
            f"{row['parts']} has the size {labels.shape}, its image {image.shape[:2]}; render the "
            "world again"
        )
    return image, labels
