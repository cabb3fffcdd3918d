# SPDX-License-Identifier: Apache-2.0
"""Storage format of completion examples: a folder of shards, read as batches.

    examples.json  settings, fingerprint, bytes of each shard; written last
    rows.jsonl     one row per example: pid, name of the shot, motion, true and fitted angles
                   [elevation, azimuth], detail, overlap, and its shard and place in it
    shards/*.safetensors, see `canvas.Canvas`:
        image [N, H, W, 3], mask, inside, parts [N, H, W]  uint8
        body [N, 2, H, W]    middle and half thickness of the fitted body's trunk, metres, float16
        sheets [N, 2, H, W]  truth: middle between the sheets of the clothed trunk relative to that
                             of the body, and half its thickness, 0 = no trunk, NaN = a part of
                             a leg is before another one; metres, float16
        colour [N, 2, H, W, 3], kind [N, 2, H, W]  truth of the front and the back, uint8

Shards are mapped into memory, not loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from viewsynth.runtime.files import path_inside, to_jsonl, write

FORMAT = 1
INDEX, ROWS, SHARDS = "examples.json", "rows.jsonl", "shards"
REMEDY = "run the same command again: finished parts are kept"


@dataclass(frozen=True, eq=False)
class Stored:
    """A sequence of examples.

    Args:
        rows: One row per example.
        fingerprint: SHA-256 of all rows and arrays.
        shards: Name -> memory-mapped arrays.
    """

    rows: list[dict]
    fingerprint: str
    shards: Mapping[str, dict[str, Tensor]]

    @classmethod
    def open(cls, folder: Path) -> Stored:
        """Open a folder of examples.

        Raises:
            FileNotFoundError: If the folder contains no examples.
            ValueError: If it is incomplete or damaged.
        """
        from safetensors.torch import load_file

        path = folder / INDEX
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {INDEX}: no examples, or not finished")
        index = json.loads(path.read_text(encoding="utf-8"))
        if index.get("format") != FORMAT:
            raise ValueError(f"{path}: format {index.get('format')} is not {FORMAT}")
        text = (folder / ROWS).read_bytes()
        shards = {}
        for name, bytes_ in index["shards"].items():
            file = path_inside(folder, f"{SHARDS}/{name}.safetensors")
            if not file.is_file() or file.stat().st_size != bytes_:
                raise ValueError(f"{file} is missing or damaged; {REMEDY}")
            shards[name] = load_file(file)
        return cls([json.loads(line) for line in text.splitlines()], index["fingerprint"], shards)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Arrays of some examples by name, uint8 or float32, with "angles" and "detail"."""
        rows = [self.rows[int(k)] for k in indices]
        found = {}
        for name in self.shards[rows[0]["shard"]]:
            some = [self.shards[row["shard"]][name][row["place"]] for row in rows]
            # Before they are stacked: autocast refuses float16 on a CPU.
            found[name] = torch.stack([x.float() if x.is_floating_point() else x for x in some])
        found["angles"] = torch.tensor([row["fitted"] for row in rows], dtype=torch.float32)
        found["detail"] = torch.tensor([row["detail"] for row in rows], dtype=torch.float32)
        return found

    def name(self, row: int) -> str:
        """Name of an example in messages."""
        return self.rows[row]["name"]


def shard(arrays: Mapping[str, Sequence[np.ndarray]]) -> bytes:
    """A shard file."""
    return save({name: np.ascontiguousarray(np.stack(some)) for name, some in arrays.items()})


def finish(
    folder: Path, settings: dict, rows: list[dict], shards: dict[str, tuple[int, str]]
) -> None:
    """Write rows and index of a complete folder.

    Args:
        folder: The folder.
        settings: What the examples were made with.
        rows: All rows.
        shards: Name -> bytes and SHA-256 of each shard.
    """
    text = to_jsonl(rows)
    total = hashlib.sha256(text + "".join(sha for _, sha in shards.values()).encode())
    index = {
        "format": FORMAT,
        "settings": settings,
        "fingerprint": total.hexdigest(),
        "shards": {name: size for name, (size, _) in shards.items()},
    }
    write(folder / ROWS, text)
    write(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())
