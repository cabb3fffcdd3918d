# SPDX-License-Identifier: Apache-2.0
"""Storage format of training pairs: a folder of shards, read as batches.

`pairs.making` writes the folder, `diffusion.training` reads it. A pair is a source image of a
person, the person rendered from a target camera, and a true image from about there, all of one
size.

    pairs.json    format, size, fingerprint, bytes of each shard; written last
    rows.jsonl    one row per pair: pid, kind, split, elevation, camera (`conditions.CAMERA`),
                  files, and its location: shard, place in the shard, place of its source image
    shards/*.safetensors
                  uint8: render, target, normals [N, H, W, 3]; seen, mask [N, H, W]; and source
                  [P, H, W, 3], the source images, which pairs may share; no mask = unknown

In images, seen and mask, 255 = 1; in normals, 128 = 0 and 127 steps = 1. Shards are mapped into
memory, not loaded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from viewsynth.diffusion.conditions import CAMERA, Conditions
from viewsynth.runtime.files import inside, lines, write

FORMAT = 1
INDEX, ROWS, SHARDS = "pairs.json", "rows.jsonl", "shards"
KINDS = ("exact", "identity")
CHANNELS = {"source": 3, "render": 3, "target": 3, "normals": 3, "seen": 0, "mask": 0}  # 0 = a map
REMEDY = "run the same command again: finished parts are kept"


@dataclass(frozen=True, eq=False)
class Pairs:
    """A sequence of pairs.

    Args:
        rows: One row per pair; `kind` is "exact" (the person is rendered where the target shows
            it) or "identity" (the same person from roughly the same view).
        size: Height and width of all images, pixels.
        fingerprint: SHA-256 of all rows and images.
        shards: Name -> memory-mapped arrays.
    """

    rows: list[dict]
    size: tuple[int, int]
    fingerprint: str
    shards: Mapping[str, dict[str, Tensor]]

    @classmethod
    def open(cls, *folders: str | Path) -> Pairs:
        """Open folders of pairs; several folders are concatenated.

        Args:
            folders: Folders written by `pairs.making`.

        Raises:
            FileNotFoundError: If a folder contains no pairs.
            ValueError: If a folder is incomplete or damaged, or sizes differ.
        """
        if not folders:
            raise ValueError("expected at least one folder of pairs, got none")
        parts = [_open(Path(folder)) for folder in folders]
        if len(sizes := {part.size for part in parts}) != 1:
            got = ", ".join(
                f"{f} {p.size[0]}x{p.size[1]}" for f, p in zip(folders, parts, strict=True)
            )
            raise ValueError(f"pairs must have one size to be joined; got {got} (height x width)")
        if len(parts) == 1:
            return parts[0]
        rows, shards = [], {}
        for number, part in enumerate(parts):
            rows += [row | {"shard": f"{number}/{row['shard']}"} for row in part.rows]
            shards |= {f"{number}/{name}": found for name, found in part.shards.items()}
        mark = hashlib.sha256(" ".join(part.fingerprint for part in parts).encode()).hexdigest()
        return cls(rows, sizes.pop(), mark, shards)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> tuple[Conditions, Tensor, Tensor | None]:
        """Read pairs; a source image that several of them share occurs once.

        Args:
            indices: Numbers of the pairs.

        Returns:
            The conditions; the true images, float32 [B, 3, H, W] in [0, 1]; and the share of each
            of their pixels that is person, float32 [B, 1, H, W], 1 for a row whose mask is unknown,
            or None if all masks are unknown.
        """
        rows = [self.rows[int(index)] for index in indices]
        if not rows:
            raise ValueError("a batch must have at least one pair, got none")
        photos: dict[tuple[str, int], int] = {}
        person = [photos.setdefault((row["shard"], row["source"]), len(photos)) for row in rows]
        source = torch.stack([self.shards[shard]["source"][place] for shard, place in photos])
        conditions = Conditions(
            source=_image(source),
            person=torch.tensor(person),
            render=_image(self._stack(rows, "render")),
            seen=_map(self._stack(rows, "seen")),
            normals=(self._stack(rows, "normals").movedim(-1, 1).float() - 128) / 127,
            camera=torch.tensor([row["camera"] for row in rows], dtype=torch.float32),
        )
        return conditions, _image(self._stack(rows, "target")), self._mask(rows)

    def _stack(self, rows: list[dict], name: str) -> Tensor:
        return torch.stack([self.shards[row["shard"]][name][row["place"]] for row in rows])

    def _mask(self, rows: list[dict]) -> Tensor | None:
        known = ["mask" in self.shards[row["shard"]] for row in rows]
        if not any(known):
            return None
        mask = torch.ones(len(rows), 1, *self.size)
        where = torch.tensor(known)
        mask[where] = _map(
            self._stack(
                [row for row, is_known in zip(rows, known, strict=True) if is_known], "mask"
            )
        )
        return mask


def _image(stored: Tensor) -> Tensor:
    return stored.movedim(-1, 1).float() / 255


def _map(stored: Tensor) -> Tensor:
    return stored[:, None].float() / 255


# ---- writing -------------------------------------------------------------------------------------


def shard(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Content of a shard file.

    Args:
        arrays: uint8 arrays by the names of `CHANNELS`; without "mask" the masks are unknown.
    """
    return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})


def to_uint8(values: Tensor) -> np.ndarray:
    """Values in [0, 1] as stored."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def normals_to_uint8(values: Tensor) -> np.ndarray:
    """Normals in [-1, 1] as stored."""
    return ((values.clamp(-1, 1) * 127).round() + 128).to(torch.uint8).cpu().numpy()


def finish(folder: Path, size: tuple[int, int], rows: list[dict], digests: dict[str, str]) -> None:
    """Write rows and index of a folder whose shards are complete.

    Args:
        folder: Folder of the pairs.
        size: Height and width of all images, pixels.
        rows: One row per pair.
        digests: SHA-256 of each shard by name.
    """
    text = lines(rows)
    total = hashlib.sha256(text)
    for name in sorted(digests):
        total.update(f"{name} {digests[name]}\n".encode())
    index = {
        "format": FORMAT,
        "size": list(size),
        "pairs": len(rows),
        "fingerprint": total.hexdigest(),
        "shards": {name: _file(folder, name).stat().st_size for name in sorted(digests)},
    }
    write(folder / ROWS, text)
    write(folder / INDEX, json.dumps(index, indent=1).encode())


def _file(folder: Path, name: str) -> Path:
    return inside(folder, f"{SHARDS}/{name}.safetensors")


# ---- reading -------------------------------------------------------------------------------------


def _open(folder: Path) -> Pairs:
    index = _index(folder)
    size, sizes = tuple(index["size"]), index["shards"]
    try:
        text = (folder / ROWS).read_bytes()
        rows = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / ROWS} cannot be read: {error}; {REMEDY}") from error
    if len(rows) != index["pairs"] or not rows:
        raise ValueError(
            f"{folder / ROWS} has {len(rows)} rows, expected {index['pairs']}; {REMEDY}"
        )
    shards = {}
    for name, expected in sizes.items():
        path = _file(folder, name)
        got = path.stat().st_size if path.is_file() else None
        if got != expected:
            what = "is missing" if got is None else f"has {got:,} bytes, expected {expected:,}"
            raise ValueError(f"{path} {what}; {REMEDY}")
        shards[name] = _mapped(path, size)
    for number, row in enumerate(rows, 1):
        _check(row, shards, f"{folder / ROWS}, line {number}")
    return Pairs(rows, size, index["fingerprint"], shards)


def _index(folder: Path) -> dict:
    path = folder / INDEX
    if not path.is_file():
        if (folder / SHARDS).is_dir():
            raise ValueError(f"{folder} is incomplete: it has shards but no {INDEX}; {REMEDY}")
        raise FileNotFoundError(
            f"{folder} holds no pairs: it has no {INDEX}; `viewsynth train-diffusion` makes pairs"
        )
    try:
        index = json.loads(path.read_bytes())
        known = index["format"] == FORMAT
        height, width = (int(side) for side in index["size"])
        index["size"] = [height, width]
        index["shards"].items(), index["pairs"], index["fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not an index of pairs: {error!r}; {REMEDY}") from error
    if not known:
        raise ValueError(
            f"{path} has format {index['format']!r}, this version reads {FORMAT}; make the pairs "
            "again in a new folder"
        )
    return index


def _mapped(path: Path, size: tuple[int, int]) -> dict[str, Tensor]:
    """The memory-mapped arrays of a shard.

    Unlike the mapping of safetensors, this one keeps no file open: a large set has more shards than
    a process may have open files.
    """
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    try:
        length = int.from_bytes(bytes(whole[:8].tolist()), "little")
        head = json.loads(bytes(whole[8 : 8 + length].tolist()))
        head.pop("__metadata__", None)
        found = {}
        for name, about in head.items():
            first, last = (8 + length + offset for offset in about["data_offsets"])
            shape = about["shape"]
            tail = [*size, 3] if CHANNELS[name] else [*size]
            if about["dtype"] != "U8" or shape[1:] != tail or math.prod(shape) != last - first:
                raise ValueError(f"{name} is {about['dtype']} {shape}, not U8 [n, {tail}]")
            found[name] = whole[first:last].view(shape)
        if missing := CHANNELS.keys() - found.keys() - {"mask"}:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is not a shard of pairs: {error}; {REMEDY}") from error
    return found


def _check(row: dict, shards: Mapping[str, dict[str, Tensor]], where: str) -> None:
    """Check that a row refers to existing data."""
    try:
        arrays = shards[row["shard"]]
        good = (
            0 <= row["place"] < len(arrays["render"])
            and 0 <= row["source"] < len(arrays["source"])
            and len(row["camera"]) == len(CAMERA)
            and row["kind"] in KINDS
            and isinstance(row["pid"], str)
            and row["split"]
            and row["elevation"] == row["camera"][0]
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: a field is missing or wrong ({error!r}); {REMEDY}") from error
    if not good:
        raise ValueError(f"{where}: the row does not match its shard; {REMEDY}")
