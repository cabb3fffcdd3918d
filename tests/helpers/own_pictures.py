# SPDX-License-Identifier: Apache-2.0
"""Small folders of a user's own images, and what the loader reads from them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viewsynth import data
from viewsynth.data import Reading
from viewsynth.records import Dataset, Reject, Sample

FOUR_PEOPLE = [{"file_name": f"{k}.jpg", "pid": f"p{k % 4}", "camid": "1"} for k in range(8)]
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 20, 3), dtype=np.uint8))


def put(root: Path, *names: str, size: tuple[int, int] | None = None) -> Path:
    """Create images; files with names of videos hold an image, too, and must not be decoded."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = IMAGE.resize(size) if size else IMAGE
        image.save(path, "PNG")
    return root


def write_csv(root: Path, *rows: dict, bom: bool = False, end: str = "\n") -> Path:
    """Create metadata.csv with a column for every key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    encoding = "utf-8-sig" if bom else "utf-8"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "metadata.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
    return root


def write_jsonl(root: Path, *lines: dict | str | bytes) -> Path:
    """Create metadata.jsonl; NaN is written as the literal that Python and pandas write."""
    texts = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    return root


def eight_images(root: Path, folder: str, write=write_csv, rows: list[dict] = FOUR_PEOPLE) -> Path:
    """Eight images of four people in a folder of `root`, and their metadata."""
    put(root, *(f"{folder}/{row['file_name']}" for row in FOUR_PEOPLE))
    write(root / folder, *rows)
    return root


def load(root: Path, **options: str) -> Dataset:
    """Load a folder like the commands."""
    return data.load("folder", root, Reading(**options))


def refusal(call, *arguments, kind: type[ValueError] = ValueError, **options) -> str:
    """Message of the error that a call raises; the test fails if there is none of that kind."""
    with pytest.raises(kind) as error:
        call(*arguments, **options)
    return str(error.value)


def both(dataset: Dataset) -> tuple[list[Sample], list[Reject]]:
    """Samples and rejects of a data set."""
    return dataset.samples, dataset.rejects


def pids(root: Path, **options: str) -> dict[str, str]:
    """Name of each sample -> its pid."""
    return {sample.name: sample.pid for sample in load(root, **options).samples}


def reasons(root: Path, **options: str) -> dict[str, str]:
    """Source of each reject -> its reason."""
    return {reject.source: reject.reason for reject in load(root, **options).rejects}
