# SPDX-License-Identifier: Apache-2.0
"""Small folders of somebody's own pictures, and what is read of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from viewsynth import data
from viewsynth.data import Reading
from viewsynth.records import Dataset, Reject, Sample

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 20, 3), dtype=np.uint8))


def put(root: Path, *names: str, size: tuple[int, int] | None = None) -> Path:
    """Pictures; names of videos become files that are never decoded here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = PICTURE.resize(size) if size else PICTURE
        picture.save(path, "PNG")
    return root


def write_csv(root: Path, *rows: dict, bom: bool = False, end: str = "\n") -> Path:
    """metadata.csv with a column for every key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    encoding = "utf-8-sig" if bom else "utf-8"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "metadata.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator=end)
        writer.writeheader()
        writer.writerows(rows)
    return root


def write_jsonl(root: Path, *lines: dict | str | bytes) -> Path:
    """metadata.jsonl; NaN stays the literal that Python and pandas write."""
    texts = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    root.mkdir(parents=True, exist_ok=True)
    (root / "metadata.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    return root


def load(root: Path, **options: str) -> Dataset:
    """As the commands do."""
    return data.load("folder", root, Reading(**options))


def both(dataset: Dataset) -> tuple[list[Sample], list[Reject]]:
    """Samples and rejects."""
    return dataset.samples, dataset.rejects


def pids(root: Path, **options: str) -> dict[str, str]:
    """Sample -> person."""
    return {sample.name: sample.pid for sample in load(root, **options).samples}


def reasons(root: Path, **options: str) -> dict[str, str]:
    """Source -> why it cannot be used."""
    return {reject.source: reject.reason for reject in load(root, **options).rejects}
