# SPDX-License-Identifier: Apache-2.0
"""Pixels: the pictures of a pool at one size, from a cache on the disk or read ahead from files.

sampler -> `Pixels.prefetch` -> augment. The cache is a folder of blocks, `BLOCK` pictures each, as
safetensors that are mapped into memory, not loaded. A block is named by a hash of what it holds, is
written aside and renamed, and is never changed: so several runs share a cache, a killed one goes on
with the blocks that are there, and processes that fill it at the same time help each other. Blocks
that nobody needs any more stay until somebody deletes them. A picture is known by its content, see
`fingerprint`: what was found of it is kept beside the blocks, in `HASHES`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor
from tqdm import tqdm

from viewsynth.data import images
from viewsynth.records import Reject, Sample
from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import write
from viewsynth.runtime.images import stretched

BLOCK = 256  # pictures
HASHES = "hashes"  # folder in the cache
REVISION = 2  # raise it when the same file gives other pixels
BROKEN = 0.01  # share of the pictures that may be unreadable
AHEAD = 4  # batches that are read before they are asked for, and one more for each thread


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pictures by number.

    Args:
        samples: Those that can be read, in the order in which they were given.
        size: Height and width, pixels.
        usable: Which of the given samples those are.  bool [N]
        rejects: The others, and why.
        blocks: The cache of all given samples, mapped, uint8 [n, H, W, 3]; None = files are read.
        places: Where in the blocks the samples are.  int64
    """

    samples: list[Sample]
    size: tuple[int, int]
    usable: np.ndarray
    rejects: list[Reject]
    blocks: list[Tensor] | None
    places: np.ndarray

    @classmethod
    def open(
        cls,
        samples: Sequence[Sample],
        size: tuple[int, int],
        cache: Path | None = None,
        threads: int = 4,
        bar: bool = False,
    ) -> Pixels:
        """Read every picture once: into the cache, or to see that it can be read.

        Args:
            samples: One picture each.
            size: Height and width, pixels; bicubic, antialiased, proportions given up.
            cache: Folder of the cache, made if need be; None = no cache.
            threads: That read.
            bar: Whether to show progress.
        Raises: ValueError: if more than 1 % cannot be read.
        """
        if not samples:
            raise ValueError("there are no pictures to read")
        if several := [s.name for s in samples if len(s.paths) != 1]:
            raise ValueError(f"expected one picture a sample; {several[0]} has another number")
        if cache is None:
            blocks, problems = None, _try(samples, size, threads, bar)
        else:
            blocks, problems = _cached(samples, size, Path(cache).expanduser(), threads, bar)
        rejects = [
            Reject(source=str(sample.paths[0]), stage="input", reason=problem, pid=sample.pid)
            for sample, problem in zip(samples, problems, strict=True)
            if problem
        ]
        _refuse_many(rejects, len(samples))
        usable = np.array([not problem for problem in problems])
        places = np.flatnonzero(usable)
        return cls([samples[n] for n in places], size, usable, rejects, blocks, places)

    def get(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Pictures by their place in `samples`.

        Returns: RGB.  uint8 [B, H, W, 3]
        Raises: OSError: if a file that could be read before cannot be read any more.
        """
        numbers = np.asarray(indices, np.int64).tolist()
        out = torch.empty((len(numbers), *self.size, 3), dtype=torch.uint8)
        if self.blocks is None:
            for row, number in enumerate(numbers):
                pixels, problem = _read(self.samples[number], self.size)
                if pixels is None:
                    path = self.samples[number].paths[0]
                    # An OSError: it may be one process's own, which must then speak.
                    raise OSError(f"{path} could be read at the start, but now: {problem}")
                out.numpy()[row] = pixels
            return out
        places = self.places[numbers].tolist()
        for row, place in enumerate(places):
            out[row] = self.blocks[place // BLOCK][place % BLOCK]
        return out

    def prefetch(self, batches: Iterable[np.ndarray], threads: int = 2) -> Iterator[Tensor]:
        """Pictures of batch after batch, in order, read by threads before they are asked for.

        Args:
            batches: Indices of each batch; taken from a few batches ahead.
            threads: That read.
        Returns: what `get` returns, one a batch.
        """
        waiting: deque = deque()
        pool = ThreadPoolExecutor(threads, "pixels")
        try:
            for indices in batches:
                waiting.append(pool.submit(self.get, indices))
                if len(waiting) > AHEAD + threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(sample: Sample, size: tuple[int, int]) -> tuple[np.ndarray | None, str]:
    """A picture, or why there is none."""
    try:
        # least=1: who is small in a data set is still somebody to learn from.
        return stretched(images.read(sample.paths[0], sample.box, least=1), size), ""
    except images.ImageError as error:
        return None, str(error)


def _try(samples: Sequence[Sample], size: tuple[int, int], threads: int, bar: bool) -> list[str]:
    """What is wrong with each picture, "" = nothing."""
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda sample: _read(sample, size)[1], samples)
        shown = tqdm(
            found, total=len(samples), desc="reading pictures", unit="picture", disable=not bar
        )
        return list(shown)


def _refuse_many(rejects: list[Reject], total: int) -> None:
    if len(rejects) > BROKEN * total:
        few = "; ".join(f"{reject.source}: {reject.reason}" for reject in rejects[:3])
        raise ValueError(
            f"{len(rejects)} of {total} pictures cannot be read, at most {BROKEN:.0%} may be left "
            f"out; mend them or take them out of the data set: {few}"
        )


# ---- the cache ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Pictures that are written together, and where to."""

    path: Path
    samples: Sequence[Sample]


def _cached(
    samples: Sequence[Sample], size: tuple[int, int], cache: Path, threads: int, bar: bool
) -> tuple[list[Tensor], list[str]]:
    """The blocks that hold the samples, made where they are not there; and what is wrong with
    each picture, "" = nothing.
    """
    digests = fingerprint.digests([sample.paths[0] for sample in samples], cache / HASHES)
    blocks = _blocks(samples, digests, size, cache / f"{size[0]}x{size[1]}")
    todo = [block for block in blocks if not _done(block, size)]
    # Each process takes them in an order of its own, so that several seldom do the same block.
    order = np.random.default_rng(os.getpid()).permutation(len(todo))
    total = sum(len(block.samples) for block in todo)
    shown = tqdm(total=total, desc="caching pictures", unit="picture", disable=not (bar and todo))
    with ThreadPoolExecutor(threads) as pool, shown:
        for block in (todo[n] for n in order):
            if not _done(block, size):
                _make(block, size, pool)
            shown.update(len(block.samples))
    opened = [_map(block, size) for block in blocks]
    return [pixels for pixels, _ in opened], [text for _, texts in opened for text in texts]


def _blocks(
    samples: Sequence[Sample], digests: Sequence[str], size: tuple[int, int], folder: Path
) -> list[Block]:
    """The blocks of these samples, named after what they hold."""
    found = []
    for start in range(0, len(samples), BLOCK):
        part, content = samples[start : start + BLOCK], digests[start : start + BLOCK]
        rows = [[s.name, s.box, digest] for s, digest in zip(part, content, strict=True)]
        mark = hashlib.sha256(json.dumps([REVISION, size, rows]).encode()).hexdigest()[:32]
        found.append(Block(folder / f"{mark}.safetensors", part))
    return found


def _make(block: Block, size: tuple[int, int], pool: ThreadPoolExecutor) -> None:
    """Read the pictures of a block and write it; those that are broken are black, and listed."""
    pixels = np.zeros((len(block.samples), *size, 3), np.uint8)
    problems = []
    for row, (image, problem) in enumerate(pool.map(lambda s: _read(s, size), block.samples)):
        problems.append(problem)
        if image is not None:
            pixels[row] = image
    write(block.path, save({"pixels": pixels}, metadata={"problems": json.dumps(problems)}))


def _done(block: Block, size: tuple[int, int]) -> bool:
    """Whether the block is there, whole, and none of its broken pictures has been mended."""
    problems = _problems(block, size)
    if problems is None:
        return False
    broken = [sample for sample, text in zip(block.samples, problems, strict=True) if text]
    return all(_read(sample, size)[0] is None for sample in broken)


def _problems(block: Block, size: tuple[int, int]) -> list[str] | None:
    """What is wrong with each picture of a block, None if the block is not there or cut short."""
    try:
        with safe_open(block.path, "numpy") as file:
            shape = file.get_slice("pixels").get_shape()
            problems = json.loads((file.metadata() or {})["problems"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    expected = [len(block.samples), *size, 3]
    return problems if shape == expected and len(problems) == len(block.samples) else None


def _map(block: Block, size: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """The pictures of a block, mapped, and what is wrong with each."""
    problems = _problems(block, size)
    if problems is None:
        raise ValueError(f"{block.path} was whole a moment ago; is somebody deleting the cache?")
    shape = (len(block.samples), *size, 3)
    # Unlike numpy's map this one keeps no file open: a large cache has more blocks than allowed.
    whole = torch.from_file(
        str(block.path), shared=False, size=block.path.stat().st_size, dtype=torch.uint8
    )
    return whole[len(whole) - math.prod(shape) :].view(shape), problems
