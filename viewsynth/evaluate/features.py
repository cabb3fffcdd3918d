# SPDX-License-Identifier: Apache-2.0
"""Computes, stores and loads features: one vector per sample, from an `Encoder` or a file.

samples -> this module -> `scoring`. The native format is safetensors, which other programs can
write as well (for further formats see `feature_files`). A file holds
- a tensor "features": float32 [N, D], one row per sample, of any norm;
- metadata "names": a JSON list of the N sample names, i.e. image paths relative to the folder of
  the data set with "/" as separator, e.g. "query/Cam1/Cam1_day_0007_3.jpg" (for other spellings see
  `matching`); optionally "model", the name to print, and "parts", JSON that names ranges of columns
  such as {"identity": [0, 768]}:

    import json; from safetensors.torch import save_file
    save_file({"features": features.float().contiguous()}, "features.safetensors",
              metadata={"names": json.dumps(names), "model": "my model"})

The unit of work is a block of `BLOCK` samples, sorted by name. One thread of one process computes a
block and writes it once, so the features are independent of the number of processes and of
interruptions, and a restarted run resumes after the finished blocks.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from viewsynth.data import frames, images
from viewsynth.evaluate import feature_files, matching
from viewsynth.records import Reject, Sample
from viewsynth.reid.encoders import Encoder
from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import write
from viewsynth.runtime.images import resized
from viewsynth.runtime.messages import first_names

BLOCK = 256
REVISION = 2  # increase it when decoding or resizing changes
READERS = 16  # maximum number of threads that read images for a GPU


@dataclass(frozen=True)
class Features:
    """Features of samples.

    Args:
        rows: One row per sample, in the requested order.  float32 [N, D]
        model: Name of the model for display; "" = not in the file.
        fingerprint: Hash of names and rows.
        extra: Number of names in the file that were not requested.
        parts: Named ranges of columns: name -> first column and the one after the last.
        notes: Conversions of the file's values and names, one line each.
    """

    rows: np.ndarray
    model: str
    fingerprint: str
    extra: int
    parts: dict[str, tuple[int, int]]
    notes: tuple[str, ...] = ()

    def part(self, name: str) -> Features:
        """Features restricted to a named range of columns.

        Args:
            name: A key of `parts`.

        Raises:
            ValueError: If there is no such part.
        """
        if name not in self.parts:
            raise ValueError(
                f"part: these features have no part {name!r}; they have "
                f"{', '.join(self.parts) or 'no parts'}"
            )
        digest = hashlib.sha256(f"{self.fingerprint} {name}".encode()).hexdigest()
        rows = self.rows[:, slice(*self.parts[name])].copy()
        return replace(self, rows=rows, fingerprint=digest)


# ---- computing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Samples that are computed together.

    Args:
        path: File of their features.
        samples: The samples, sorted by name.
        mark: Hash of everything that determines the features.
    """

    path: Path
    samples: list[Sample]
    mark: str

    def done(self) -> bool:
        """Whether the file exists with this mark and its unreadable images still are unreadable."""
        try:
            with safe_open(self.path, "numpy") as file:
                metadata = file.metadata() or {}
        except (OSError, SafetensorError):
            return False
        if metadata.get("mark") != self.mark:
            return False
        broken = [each["source"] for each in json.loads(metadata["rejects"])]
        rejects: list[Reject] = []
        affected = [s for s in self.samples if any(str(path) in broken for path in s.paths)]
        deque(_frames(replace(self, samples=affected), (1, 1), rejects), maxlen=0)
        return [reject.source for reject in rejects] == broken


def blocks(
    samples: Sequence[Sample], wanted: set[str], folder: Path, encoder: Encoder, batch: int
) -> list[Block]:
    """Blocks that contain the requested samples.

    Args:
        samples: All samples of the evaluation, which determine the division into blocks.
        wanted: Names of the samples whose features are needed.
        folder: Folder of the blocks' files.
        encoder: Network that computes the features.
        batch: Images per forward pass, which affects the last digits of the features.
    """
    ordered = sorted(samples, key=lambda sample: sample.name)
    parts = {n: ordered[n : n + BLOCK] for n in range(0, len(ordered), BLOCK)}
    parts = {n: part for n, part in parts.items() if any(s.name in wanted for s in part)}
    paths = [path for part in parts.values() for sample in part for path in sample.paths]
    digest = dict(zip(paths, fingerprint.digests(paths, folder / "hashes"), strict=True))
    found = []
    for start, part in parts.items():
        rows = [[s.name, s.box, [digest[path] for path in s.paths]] for s in part]
        views = encoder.views_of(part)  # refuses a sample without a view before any is computed
        rows += [] if views is None else views.tolist()
        mark = hashlib.sha256(
            json.dumps([REVISION, encoder.fingerprint, batch, rows]).encode()
        ).hexdigest()
        found.append(Block(folder / f"{start // BLOCK:06d}.safetensors", part, mark))
    return found


def compute(todo: Sequence[Block], encoder: Encoder, batch: int, threads: int, bar: bool) -> None:
    """Compute blocks in several threads, so that reading and computing overlap.

    Args:
        todo: Blocks to compute.
        encoder: Network that computes the features.
        batch: Images per forward pass.
        threads: Number of threads. On a CPU each computes with one thread of torch; a GPU is used
            by one thread at a time.
        bar: Whether to show a progress bar.

    Raises:
        ValueError: If the model returns NaN or infinity.
    """
    gpu = next(encoder.model.parameters()).device.type != "cpu"
    turn, before = Lock() if gpu else nullcontext(), torch.get_num_threads()
    precise, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    torch.set_num_threads(1)  # sums depend on the number of threads
    threads = min(threads, READERS) if gpu else threads
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    total = sum(len(block.samples) for block in todo)
    try:
        with tqdm(total=total, desc="features", unit="sample", disable=not (bar and todo)) as shown:
            jobs = {pool.submit(_block, b, encoder, batch, turn): b for b in todo}
            for job in as_completed(jobs):
                job.result()
                shown.update(len(jobs[job].samples))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
        torch.backends.cudnn.allow_tf32 = precise


def _block(block: Block, encoder: Encoder, batch: int, turn) -> None:
    """Compute one block and write its file."""
    rejects: list[Reject] = []
    sums: dict[int, np.ndarray] = {}
    stream = _frames(block, encoder.size, rejects)
    while chunk := list(islice(stream, batch)):
        pixels = torch.from_numpy(np.stack([image for _, image in chunk]))
        with turn:
            views = encoder.views_of([block.samples[number] for number, _ in chunk])
            rows = encoder.encode(pixels, views).numpy()
        for (number, _), row in zip(chunk, rows, strict=True):
            sample = block.samples[number]
            if not np.isfinite(row).all():
                raise ValueError(f"{encoder.name} returns NaN or infinity for {sample.name}")
            if frames.has_frames(sample):  # a tracklet or video: the mean direction of its frames
                row = row / max(np.linalg.norm(row), 1e-12)
                row = sums.get(number, 0) + row / len(sample.paths)
            sums[number] = row
    features = np.stack([sums[n] for n in sorted(sums)]) if sums else np.zeros((0, 1), np.float32)
    metadata = {
        "names": json.dumps([block.samples[n].name for n in sorted(sums)]),
        "rejects": json.dumps([asdict(reject) for reject in rejects]),
        "mark": block.mark,
    }
    write(block.path, _file(features, metadata))


def _frames(
    block: Block, size: tuple[int, int], rejects: list[Reject]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number of the sample and each of its images; add unreadable ones to `rejects`."""
    for number, sample in enumerate(block.samples):

        def bad(path: Path, error: images.ImageError, pid: str = sample.pid) -> None:
            rejects.append(Reject(source=str(path), stage="input", reason=str(error), pid=pid))

        for frame in frames.iterate(sample, 1, bad):
            yield number, resized(frame.image, size)


def readable_samples(every: Sequence[Block]) -> tuple[set[str], list[Reject]]:
    """Names of the samples of finished blocks that have features, and unreadable images."""
    names, rejects = set(), []
    for block in every:
        with safe_open(block.path, "numpy") as file:
            metadata = file.metadata()
        names |= set(json.loads(metadata["names"]))
        rejects += [Reject(**each) for each in json.loads(metadata["rejects"])]
    return names, rejects


def join(every: Sequence[Block], path: Path, encoder: Encoder) -> None:
    """Join finished blocks, at least one of which has features, to one feature file."""
    names, rows = [], []
    for block in every:
        with safe_open(block.path, "numpy") as file:
            own = json.loads(file.metadata()["names"])
            rows += [file.get_tensor("features")] if own else []
            names += own
    metadata = {"names": json.dumps(names), "model": encoder.name, "viewsynth": "1"}
    if encoder.parts:
        metadata["parts"] = json.dumps(encoder.parts)
    write(path, _file(np.concatenate(rows), metadata))


def _file(rows: np.ndarray, metadata: dict[str, str]) -> bytes:
    """Content of a safetensors file with metadata in a fixed order, unlike the library's."""
    data = np.ascontiguousarray(rows, "<f4").tobytes()
    shape = {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": metadata, "features": shape}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


# ---- loading -------------------------------------------------------------------------------------


def load(
    path: Path, names: Sequence[str], listing: Path | None = None, roots: Sequence[Path] = ()
) -> Features:
    """Load the features of samples.

    Args:
        path: Feature file, in the format described above or another one of `feature_files`.
        names: `Sample.name` of the requested samples.
        listing: File with the names of the rows, if the feature file has none.
        roots: Folders that the names are relative to, see `matching.positions`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the format is not supported, a name is missing or ambiguous, or a requested
            row is zero or not finite.
    """
    found = feature_files.read(path, listing)
    at, notes = matching.positions(path, found.names, names, roots)
    rows, notes = found.rows[at], (*found.notes, *notes)
    for what, bad in (
        ("hold NaN or infinity", ~np.isfinite(rows).all(1)),
        ("are all zero", ~rows.any(1)),
    ):
        if bad.any():
            which = [names[n] for n in np.flatnonzero(bad)]
            hint = f" ({'; '.join(found.notes)})" if found.notes else ""
            raise ValueError(
                f"features: {len(which)} rows of {path} {what}: {first_names(which)}{hint}"
            )
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    digest.update(np.ascontiguousarray(rows))
    return Features(
        rows=rows,
        model=found.about.get("model", ""),
        fingerprint=digest.hexdigest(),
        extra=len(found.names) - len(set(at)),
        parts=_parts(path, found.about, rows),
        notes=notes,
    )


def _parts(path: Path, about: dict[str, str], rows: np.ndarray) -> dict[str, tuple[int, int]]:
    """Parse the metadata "parts" of a file. Raises: ValueError: if it is invalid."""
    try:
        parts = {
            str(k): (int(a), int(b)) for k, (a, b) in json.loads(about.get("parts", "{}")).items()
        }
    except (ValueError, TypeError, AttributeError):
        parts = {"": (0, -1)}
    if bad := [name for name, (a, b) in parts.items() if not 0 <= a < b <= rows.shape[1]]:
        raise ValueError(
            f'features: the metadata "parts" of {path} must be JSON, a name to the first column '
            f"and the one after the last, of {rows.shape[1]}; wrong: {first_names(bad)}"
        )
    return parts
