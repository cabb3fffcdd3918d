# SPDX-License-Identifier: Apache-2.0
"""Feature cache: outputs of the first stage for all training images and their mirror images.

reid.pixels, reid.methods.sd_reid -> `load_or_compute` -> `Cached` -> reid.sd_reid.training. The
second stage trains on these features only. They are computed once and written atomically to one
file, named by a hash of the encoder, the images and the mode, so several runs can share it.
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

BATCH = 128  # images in a batch
REVISION = 3  # increase it if the same images give other content of the file
DROP = 0.1  # drop probability of the last block in stochastic depth, as in the release


@dataclass(frozen=True, eq=False)
class Cached:
    """Features of N images, unchanged and mirrored; see `methods.sd_reid.Encoded`.

    Args:
        identity: Identity features, before the neck.  float32 [2, N, D]
        condition: Identity conditions.  float16 [2, N, T - 1, D]
        view: View features.  float32 [2, N, D]
        kinds: Index of the view of each image.  int64 [N]
        labels: Index of the identity of each image.  int64 [N]
        weights: Weights in the losses.  float32 [N]
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
        """Rows sorted by person; and for each row, start and count of its person in that order."""
        _, person, counts = self.labels.unique(return_inverse=True, return_counts=True)
        return person.argsort(stable=True), (counts.cumsum(0) - counts)[person], counts[person]

    def of_same_person(self, rows: Tensor, uniform: Tensor) -> Tensor:
        """For each row, a random row of the same person, possibly the same one.

        Args:
            rows: Rows.  int64 [B]
            uniform: Random numbers in [0, 1) that choose the rows.  [B]

        Returns:
            int64 [B]
        """
        order, starts, counts = self._by_person
        which = torch.minimum((uniform * counts[rows]).long(), counts[rows] - 1)
        return order[starts[rows] + which]

    def moments(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted mean and standard deviation over the images.

        Args:
            numbers: `identity`, `condition` or `view`.  [2, N, ..., D]

        Returns:
            [..., D] each; the deviation is at least the float16 resolution of the mean.
        """
        if numbers.dim() > 3:  # token by token: all in float32 would be twice the size of the cache
            found = [self.moments(each) for each in numbers.unbind(2)]
            return tuple(map(torch.stack, zip(*found, strict=True)))
        weights, numbers = (self.weights / (2 * self.weights.sum()))[None, :, None], numbers.float()
        mean = (weights * numbers).sum((0, 1))
        scale = (weights * (numbers - mean) ** 2).sum((0, 1)).sqrt()
        return mean, torch.maximum(scale, 1e-3 * mean.abs() + 1e-6)

    def prototypes(self, views: int) -> Tensor:
        """The weighted mean view feature of each view.

        Args:
            views: Number of views, V.

        Returns:
            [V, D]

        Raises:
            ValueError: If a view has no images.
        """
        rows = []
        for number in range(views):
            weights = self.weights * (self.kinds == number)
            if not weights.sum():
                raise ValueError(
                    f"view {number} has no image to compute its prototype from; the training "
                    "images must show every view"
                )
            rows.append((weights[None, :, None] * self.view).sum((0, 1)) / (2 * weights.sum()))
        return torch.stack(rows)


def mark(method: SDReID, pool: Pool, dropped_paths: bool, seed: int) -> str:
    """Hash of the encoder, the mode, and the images' names, identities, views and weights.

    Args:
        method: The trained first stage.
        pool: The images.
        dropped_paths: See `mode.Mode`.
        seed: Seed of stochastic depth.
    """
    content = [[s.name for s in pool.samples]]
    content += [column.tolist() for column in (pool.labels, pool.views, pool.weights)]
    content += [dropped_paths, seed if dropped_paths else 0, list(method.backbone.size)]
    digest = hashlib.sha256(json.dumps(content).encode())
    for key, value in sorted(method.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def load_or_compute(
    folder: Path,
    method: SDReID,
    pool: Pool,
    pixels: Pixels,
    dropped_paths: bool,
    seed: int,
    device,
    bar: bool = False,
) -> Cached:
    """The features of a pool, read from the cache, or computed and written to it.

    Args:
        folder: Folder of the cache.
        method: The trained first stage; it is in evaluation mode afterwards.
        pool: The images; its samples are those of `pixels`, in their order.
        pixels: The images' pixels.
        dropped_paths: See `mode.Mode`.
        seed: Seed of stochastic depth.
        device: Device of the computation.
        bar: Whether to show a progress bar.
    """
    content = [REVISION, mark(method, pool, dropped_paths, seed)]
    # By content: images can be generated again under the same names.
    content += fingerprint.digests([sample.paths[0] for sample in pool.samples], folder / HASHES)
    wanted = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path = folder / f"features-{wanted[:16]}.safetensors"
    if not _is_of(path, wanted):
        tensors = compute(method, pixels, dropped_paths, seed, device, bar)
        columns = {"kinds": pool.views, "labels": pool.labels, "weights": pool.weights}
        tensors |= {name: torch.from_numpy(values) for name, values in columns.items()}
        write(path, to_bytes(tensors, {"mark": wanted}))
    return Cached(**load_file(path))


def _is_of(path: Path, wanted: str) -> bool:
    """Whether a file is whole and of the wanted content."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("mark") == wanted
    except (OSError, SafetensorError):
        return False


@torch.inference_mode()
def compute(
    method: SDReID, pixels: Pixels, dropped_paths: bool, seed: int, device, bar: bool = False
) -> dict[str, Tensor]:
    """Encode all images and their mirror images; see `Cached` and `load_or_compute`."""
    method = method.to(device).eval()
    count, sides = len(pixels.samples), []
    with tqdm(total=2 * count, desc="features", unit="image", disable=not bar) as done:
        for side in (False, True):
            parts = []
            for start in range(0, count, BATCH):
                images = pixels.get(range(start, min(start + BATCH, count))).to(device)
                images = images.permute(0, 3, 1, 2).contiguous().float() / 255
                images = images.flip(-1) if side else images
                with _stochastic_depth(method, dropped_paths, seed_of(seed, "paths", side, start)):
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
def _stochastic_depth(method: nn.Module, active: bool, seed: int) -> Iterator[None]:
    """Stochastic depth, with drop probabilities from 0 in the first block to `DROP` in the last."""
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
