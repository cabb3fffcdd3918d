# SPDX-License-Identifier: Apache-2.0
"""Images of a pool resized to one size, from a cache on disk or read ahead from the files.

reid.sampler -> `Pixels.prefetch` -> reid.augment. The cache is a folder of blocks of `BLOCK` images
each: safetensors files that are memory-mapped. A block is named by a hash of its content, written
atomically and never changed, so several runs can share a cache, a resumed run uses the blocks that
exist, and several processes can fill it together. Unused blocks are never deleted. Images are
identified by their content, see runtime.fingerprint; their digests are in the subfolder `HASHES`.
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
from viewsynth.runtime.images import resized

BLOCK = 256  # images in a block
HASHES = "hashes"  # subfolder of the cache
REVISION = 2  # increase it if the same file gives other pixels
BROKEN = 0.01  # largest share of unreadable images
AHEAD = 4  # batches that are read ahead, and one more for each thread


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images by index.

    Args:
        samples: The readable samples, in the order given.
        size: Height and width, pixels.
        usable: Which of the given samples are readable.  bool [N]
        rejects: The unreadable samples, with reasons.
        blocks: Memory-mapped cache of all given samples, uint8 [n, H, W, 3] each; None = images are
            read from their files.
        places: Index of each readable sample among the given ones.  int64
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
        """Read every image once, into the cache or to check that it is readable.

        Args:
            samples: Samples of one image each.
            size: Height and width, pixels; images are resized (bicubic, antialiased) to exactly
                this size, whatever their aspect ratio.
            cache: Folder of the cache, created if it does not exist; None = no cache.
            threads: Number of threads that read.
            bar: Whether to show a progress bar.

        Raises:
            ValueError: If more than 1 % of the images are unreadable.
        """
        if not samples:
            raise ValueError("there are no images to read")
        if several := [s for s in samples if len(s.paths) != 1]:
            raise ValueError(
                f"expected one image in each sample, {several[0].name} has "
                f"{len(several[0].paths)}; call pool.single_images first"
            )
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
        """Images by their index in `samples`.

        Args:
            indices: Indices of the images.  [B]

        Returns:
            RGB.  uint8 [B, H, W, 3]

        Raises:
            OSError: If a file has become unreadable.
        """
        numbers = np.asarray(indices, np.int64).tolist()
        out = torch.empty((len(numbers), *self.size, 3), dtype=torch.uint8)
        if self.blocks is None:
            for row, number in enumerate(numbers):
                pixels, problem = _read(self.samples[number], self.size)
                if pixels is None:
                    path = self.samples[number].paths[0]
                    # An OSError: it may happen in one process only, whose error must be shown.
                    raise OSError(f"{path} was readable at the start, but now: {problem}")
                out.numpy()[row] = pixels
            return out
        places = self.places[numbers].tolist()
        for row, place in enumerate(places):
            out[row] = self.blocks[place // BLOCK][place % BLOCK]
        return out

    def prefetch(self, batches: Iterable[np.ndarray], threads: int = 2) -> Iterator[Tensor]:
        """Iterate over the images of batches, in order, while threads read a few batches ahead.

        Args:
            batches: Indices of each batch; consumed a few batches ahead.
            threads: Number of threads that read.

        Yields:
            The images of each batch, as from `get`.
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
    """An image, or None and the reason why it is unreadable."""
    try:
        # least=1: small images of a data set are training data, too.
        return resized(images.read(sample.paths[0], sample.box, least=1), size), ""
    except images.ImageError as error:
        return None, str(error)


def _try(samples: Sequence[Sample], size: tuple[int, int], threads: int, bar: bool) -> list[str]:
    """Reason why each image is unreadable; "" = it is readable."""
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda sample: _read(sample, size)[1], samples)
        shown = tqdm(
            found, total=len(samples), desc="reading images", unit="image", disable=not bar
        )
        return list(shown)


def _refuse_many(rejects: list[Reject], total: int) -> None:
    if len(rejects) > BROKEN * total:
        few = "; ".join(f"{reject.source}: {reject.reason}" for reject in rejects[:3])
        raise ValueError(
            f"{len(rejects)} of {total} images are unreadable, at most {BROKEN:.0%} can be left "
            f"out; repair them or remove them from the data set: {few}"
        )


# ---- the cache ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Samples of one file of the cache.

    Args:
        path: The file.
        samples: Its samples, in order.
    """

    path: Path
    samples: Sequence[Sample]


def _cached(
    samples: Sequence[Sample], size: tuple[int, int], cache: Path, threads: int, bar: bool
) -> tuple[list[Tensor], list[str]]:
    """Open the blocks of samples, after writing those that do not exist.

    Returns:
        memory-mapped blocks; and the reason why each image is unreadable, "" = it is readable.
    """
    digests = fingerprint.digests([sample.paths[0] for sample in samples], cache / HASHES)
    blocks = _blocks(samples, digests, size, cache / f"{size[0]}x{size[1]}")
    todo = [block for block in blocks if not _done(block, size)]
    # Each process has its own order, so that two rarely write the same block at the same time.
    order = np.random.default_rng(os.getpid()).permutation(len(todo))
    total = sum(len(block.samples) for block in todo)
    shown = tqdm(total=total, desc="caching images", unit="image", disable=not (bar and todo))
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
    """Divide samples into blocks, each named by a hash of its content."""
    found = []
    for start in range(0, len(samples), BLOCK):
        part, content = samples[start : start + BLOCK], digests[start : start + BLOCK]
        rows = [[s.name, s.box, digest] for s, digest in zip(part, content, strict=True)]
        mark = hashlib.sha256(json.dumps([REVISION, size, rows]).encode()).hexdigest()[:32]
        found.append(Block(folder / f"{mark}.safetensors", part))
    return found


def _make(block: Block, size: tuple[int, int], pool: ThreadPoolExecutor) -> None:
    """Read the images of a block and write it; unreadable images are black and listed."""
    pixels = np.zeros((len(block.samples), *size, 3), np.uint8)
    problems = []
    for row, (image, problem) in enumerate(pool.map(lambda s: _read(s, size), block.samples)):
        problems.append(problem)
        if image is not None:
            pixels[row] = image
    write(block.path, save({"pixels": pixels}, metadata={"problems": json.dumps(problems)}))


def _done(block: Block, size: tuple[int, int]) -> bool:
    """Whether a block exists, is complete, and its unreadable images are still unreadable."""
    problems = _problems(block, size)
    if problems is None:
        return False
    broken = [sample for sample, text in zip(block.samples, problems, strict=True) if text]
    return all(_read(sample, size)[0] is None for sample in broken)


def _problems(block: Block, size: tuple[int, int]) -> list[str] | None:
    """Reason why each image of a block is unreadable; None = the block is missing or incomplete."""
    try:
        with safe_open(block.path, "numpy") as file:
            shape = file.get_slice("pixels").get_shape()
            problems = json.loads((file.metadata() or {})["problems"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    expected = [len(block.samples), *size, 3]
    return problems if shape == expected and len(problems) == len(block.samples) else None


def _map(block: Block, size: tuple[int, int]) -> tuple[Tensor, list[str]]:
    """Memory-map a block; also the reason why each of its images is unreadable."""
    problems = _problems(block, size)
    if problems is None:
        raise ValueError(
            f"{block.path} was deleted or changed while it was opened; leave the cache unchanged "
            "during a run"
        )
    shape = (len(block.samples), *size, 3)
    # Unlike numpy.memmap this keeps no file open: a large cache exceeds the limit of open files.
    whole = torch.from_file(
        str(block.path), shared=False, size=block.path.stat().st_size, dtype=torch.uint8
    )
    return whole[len(whole) - math.prod(shape) :].view(shape), problems
