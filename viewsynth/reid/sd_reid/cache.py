# SPDX-License-Identifier: Apache-2.0
"""Cache: what the encoder says of every training picture and of its mirror image, made once.

The second stage trains on these numbers and needs no picture any more. One file, named by a hash of
encoder, pictures and mode, written aside and renamed: several runs share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from tqdm import tqdm

from viewsynth.records import seed_of
from viewsynth.reid.methods.sd_reid import SDReID
from viewsynth.reid.pixels import HASHES, Pixels
from viewsynth.reid.pool import Pool
from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import write

BATCH = 128  # pictures at once
REVISION = 3  # raise it when the file holds something else for the same pictures
DROP = 0.1  # of the last block in stochastic depth, as released


@dataclass(frozen=True, eq=False)
class Cached:
    """Features of N pictures, as they are and mirrored.

    Args:
        identity: Before the neck.  float32 [2, N, D]
        condition: float16 [2, N, T - 1, D]
        view: float32 [2, N, D]
        kinds: View of each picture, index.  int64 [N]
        labels: Who is on it, index.  int64 [N]
        weights: In the losses.  float32 [N]
    """

    identity: Tensor
    condition: Tensor
    view: Tensor
    kinds: Tensor
    labels: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return self.identity.shape[1]

    @cached_property
    def _by_person(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures person by person; where each picture's person begins, and has how many."""
        _, who, counts = self.labels.unique(return_inverse=True, return_counts=True)
        return who.argsort(stable=True), (counts.cumsum(0) - counts)[who], counts[who]

    def of_same_person(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """A picture of the person on each, any of them, itself included.

        Args:
            rows: int64 [B]
            uniform: Which one, in [0, 1).  [B]
        Returns: int64 [B]
        """
        order, begins, counts = self._by_person
        which = torch.minimum((uniform * counts[rows]).long(), counts[rows] - 1)
        return order[begins[rows] + which]

    def moments(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of what is cached, both weighted.

        Args:
            numbers: `identity`, `condition` or `view`.  [2, N, ..., D]
        Returns: [..., D] each; the deviation is no less than what float16 can tell of the mean.
        """
        if numbers.dim() > 3:  # one token after the other: all as float32 would be twice the cache
            found = [self.moments(each) for each in numbers.unbind(2)]
            return tuple(map(torch.stack, zip(*found, strict=True)))
        weights, numbers = (self.weights / (2 * self.weights.sum()))[None, :, None], numbers.float()
        mean = (weights * numbers).sum((0, 1))
        scale = (weights * (numbers - mean) ** 2).sum((0, 1)).sqrt()
        return mean, torch.maximum(scale, 1e-3 * mean.abs() + 1e-6)

    def prototypes(self, views: int) -> Tensor:
        """The exact mean view feature of each view, weighted.  [views, D]

        Raises: ValueError: if a view has no picture.
        """
        rows = []
        for number in range(views):
            weights = self.weights * (self.kinds == number)
            if not weights.sum():
                raise ValueError(f"view {number} has no picture to make its prototype from")
            rows.append((weights[None, :, None] * self.view).sum((0, 1)) / (2 * weights.sum()))
        return torch.stack(rows)


def mark(method: SDReID, pool: Pool, dropped_paths: bool, seed: int) -> str:
    """Hash of encoder, mode, and of the pictures' names, people, views and weights."""
    said = [[s.name for s in pool.samples]]
    said += [known.tolist() for known in (pool.labels, pool.views, pool.weights)]
    said += [dropped_paths, seed if dropped_paths else 0, list(method.backbone.size)]
    digest = hashlib.sha256(json.dumps(said).encode())
    for key, value in sorted(method.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def open_or_make(
    folder: Path,
    method: SDReID,
    pool: Pool,
    pixels: Pixels,
    dropped_paths: bool,
    seed: int,
    device,
    bar: bool = False,
) -> Cached:
    """The features of a pool, from their file if it is there, else made and written.

    Args:
        folder: Of the file, which is named by what it is of: runs may share it.
        method: Trained; its mode is evaluation again afterwards.
        pool: Its samples are those of `pixels`, in their order.
        dropped_paths: See `mode.Mode`.
        seed: Of the paths that are dropped.
        device: Where to compute.
        bar: Whether to show progress.
    """
    said = [REVISION, mark(method, pool, dropped_paths, seed)]
    # Pictures may have been made anew under their old names.
    said += fingerprint.digests([sample.paths[0] for sample in pool.samples], folder / HASHES)
    wanted = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    path = folder / f"features-{wanted[:16]}.safetensors"
    if not _is_of(path, wanted):
        made = make(method, pixels, dropped_paths, seed, device, bar)
        known = {"kinds": pool.views, "labels": pool.labels, "weights": pool.weights}
        made |= {name: torch.from_numpy(values) for name, values in known.items()}
        write(path, to_bytes(made, {"mark": wanted}))
    return Cached(**load_file(path))


def _is_of(path: Path, wanted: str) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("mark") == wanted
    except (OSError, SafetensorError):
        return False


@torch.inference_mode()
def make(
    method: SDReID, pixels: Pixels, dropped_paths: bool, seed: int, device, bar: bool = False
) -> dict[str, Tensor]:
    """Encode all pictures and their mirror images; see `Cached`."""
    method = method.to(device).eval()
    count, sides = len(pixels.samples), []
    with tqdm(total=2 * count, desc="features", unit="picture", disable=not bar) as done:
        for side in (False, True):
            parts = []
            for start in range(0, count, BATCH):
                images = pixels.get(range(start, min(start + BATCH, count))).to(device)
                images = images.permute(0, 3, 1, 2).contiguous().float() / 255
                images = images.flip(-1) if side else images
                with _dropping(method, dropped_paths, seed_of(seed, "paths", side, start)):
                    found = method.encode(images)
                parts.append(
                    [
                        found.identity.float().cpu(),
                        found.condition.half().cpu(),
                        found.view.float().cpu(),
                    ]
                )
                done.update(len(images))
            sides.append([torch.cat(column) for column in zip(*parts, strict=True)])
    stacked = [torch.stack(pair) for pair in zip(*sides, strict=True)]
    return dict(zip(("identity", "condition", "view"), stacked, strict=True))


@contextmanager
def _dropping(method: nn.Module, active: bool, seed: int) -> Iterator[None]:
    """Stochastic depth of the encoder's blocks, from 0 to `DROP`; a kept block counts for more."""
    handles, generator = [], torch.Generator().manual_seed(seed)
    blocks = method.backbone.blocks
    for number, block in enumerate(blocks if active else ()):
        share = DROP * number / max(len(blocks) - 1, 1)

        def drop(module, given, out, share=share):
            kept = (torch.rand(len(out), 1, 1, generator=generator) >= share).to(out)
            before = given[0][:, : out.shape[1]]
            return before + kept / (1 - share) * (out - before)

        handles.append(block.register_forward_hook(drop))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
