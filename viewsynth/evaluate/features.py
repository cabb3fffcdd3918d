# SPDX-License-Identifier: Apache-2.0
"""Features: one vector a sample, made by an `Encoder` or elsewhere, in one file.

`evaluation` reads them. Ours, which any other program may write as well, is safetensors (for other
forms see `feature_files`) and holds
- a tensor "features": float32 [N, D], one row a sample; the length of a row does not matter;
- metadata "names": a JSON list of the N sample names, i.e. the paths of the pictures relative to
  the data set's folder with "/" between, e.g. "query/Cam1/Cam1_day_0007_3.jpg" (for other ways to
  write them see `matching`); "model", if given, is the name to print, "parts" JSON that names
  columns of a row, such as {"identity": [0, 768]}:

    import json; from safetensors.torch import save_file
    save_file({"features": features.float().contiguous()}, "features.safetensors",
              metadata={"names": json.dumps(names), "model": "my model"})

Blocks of `BLOCK` samples, in the order of their names, are the unit of work: each is computed whole
by one thread of one process and written once, so the digits hang neither on the number of processes
nor on kills, and a run that is started again goes on where it was.
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
from viewsynth.evaluate.name_files import few
from viewsynth.records import Reject, Sample
from viewsynth.reid.encoders import Encoder
from viewsynth.runtime import fingerprint
from viewsynth.runtime.files import write
from viewsynth.runtime.images import stretched

BLOCK = 256
REVISION = 2  # raise it when the same file gives other pixels
READERS = 16  # threads that keep a GPU busy; more only wait for it


@dataclass(frozen=True)
class Features:
    """Features of some samples.

    Args:
        rows: One a sample, in the order that was asked for.  float32 [N, D]
        model: What made them, for people to read; "" = the file does not say.
        fingerprint: Hash of names and rows.
        extra: Names in the file that were not asked for.
        parts: Name of a part of a row -> its first column and the one after its last.
        notes: What was done to the file's numbers and names to read them, a line each.
    """

    rows: np.ndarray
    model: str
    fingerprint: str
    extra: int
    parts: dict[str, tuple[int, int]]
    notes: tuple[str, ...] = ()

    def part(self, name: str) -> Features:
        """A part of the features alone.

        Raises: ValueError: if they have no such part.
        """
        if name not in self.parts:
            raise ValueError(
                f"part: these features have no part {name!r}; they have "
                f"{', '.join(self.parts) or 'no parts'}"
            )
        mark = hashlib.sha256(f"{self.fingerprint} {name}".encode()).hexdigest()
        rows = self.rows[:, slice(*self.parts[name])].copy()
        return replace(self, rows=rows, fingerprint=mark)


# ---- making them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Samples that are computed together, where their features go, and what those hang on."""

    path: Path
    samples: list[Sample]
    mark: str

    def done(self) -> bool:
        """Whether the file is there, is of this very model, setting and pictures, and none of its
        broken pictures can be read by now.
        """
        try:
            with safe_open(self.path, "numpy") as file:
                about = file.metadata() or {}
        except (OSError, SafetensorError):
            return False
        if about.get("mark") != self.mark:
            return False
        broken = [each["source"] for each in json.loads(about["rejects"])]
        again: list[Reject] = []
        concerned = [s for s in self.samples if any(str(path) in broken for path in s.paths)]
        deque(_frames(replace(self, samples=concerned), (1, 1), again), maxlen=0)
        return [reject.source for reject in again] == broken


def blocks(
    samples: Sequence[Sample], wanted: set[str], folder: Path, encoder: Encoder, batch: int
) -> list[Block]:
    """The blocks in which the wanted samples are.

    Args:
        samples: All that a data set is evaluated with, so that the blocks are always the same.
        wanted: Names of those whose features are needed.
        folder: Where the files of the blocks go.
        batch: Pictures that the encoder gets at once; part of what decides the digits.
    """
    ordered = sorted(samples, key=lambda sample: sample.name)
    parts = {n: ordered[n : n + BLOCK] for n in range(0, len(ordered), BLOCK)}
    parts = {n: part for n, part in parts.items() if any(s.name in wanted for s in part)}
    paths = [path for part in parts.values() for sample in part for path in sample.paths]
    digest = dict(zip(paths, fingerprint.digests(paths, folder / "hashes"), strict=True))
    found = []
    for start, part in parts.items():
        rows = [[s.name, s.box, [digest[path] for path in s.paths]] for s in part]
        mark = hashlib.sha256(
            json.dumps([REVISION, encoder.fingerprint, batch, rows]).encode()
        ).hexdigest()
        found.append(Block(folder / f"{start // BLOCK:06d}.safetensors", part, mark))
    return found


def compute(todo: Sequence[Block], encoder: Encoder, batch: int, threads: int, bar: bool) -> None:
    """Compute blocks, each by one of several threads: some read while others compute.

    Args:
        threads: On a CPU each computes with one thread of torch; a GPU is used by one at a time.
        bar: Whether to show progress.
    Raises: ValueError: if the model returns something that is no number.
    """
    gpu = next(encoder.model.parameters()).device.type != "cpu"
    turn, before = Lock() if gpu else nullcontext(), torch.get_num_threads()
    precise, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    torch.set_num_threads(1)  # sums hang on the number of threads
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
    """One block, from the pictures to the file."""
    rejects: list[Reject] = []
    sums: dict[int, np.ndarray] = {}
    pictures = _frames(block, encoder.size, rejects)
    while some := list(islice(pictures, batch)):
        pixels = torch.from_numpy(np.stack([image for _, image in some]))
        with turn:
            rows = encoder.encode(pixels).numpy()
        for (number, _), row in zip(some, rows, strict=True):
            sample = block.samples[number]
            if not np.isfinite(row).all():
                raise ValueError(f"{encoder.name} returns NaN or infinity for {sample.name}")
            if frames.several(sample):  # a tracklet or video: the mean direction of its frames
                row = row / max(np.linalg.norm(row), 1e-12)
                row = sums.get(number, 0) + row / len(sample.paths)
            sums[number] = row
    features = np.stack([sums[n] for n in sorted(sums)]) if sums else np.zeros((0, 1), np.float32)
    about = {
        "names": json.dumps([block.samples[n].name for n in sorted(sums)]),
        "rejects": json.dumps([asdict(reject) for reject in rejects]),
        "mark": block.mark,
    }
    write(block.path, _file(features, about))


def _frames(
    block: Block, size: tuple[int, int], rejects: list[Reject]
) -> Iterator[tuple[int, np.ndarray]]:
    """Number of the sample and picture, one by one; a broken one goes to the rejects."""
    for number, sample in enumerate(block.samples):

        def bad(path: Path, error: images.ImageError, pid: str = sample.pid) -> None:
            rejects.append(Reject(source=str(path), stage="input", reason=str(error), pid=pid))

        for frame in frames.each(sample, 1, bad):
            yield number, stretched(frame.image, size)


def outcome(every: Sequence[Block]) -> tuple[set[str], list[Reject]]:
    """The samples of finished blocks that have features, and the pictures that were not read."""
    names, rejects = set(), []
    for block in every:
        with safe_open(block.path, "numpy") as file:
            about = file.metadata()
        names |= set(json.loads(about["names"]))
        rejects += [Reject(**each) for each in json.loads(about["rejects"])]
    return names, rejects


def join(every: Sequence[Block], path: Path, encoder: Encoder) -> None:
    """Make one file of finished blocks, at least one of which has features."""
    names, rows = [], []
    for block in every:
        with safe_open(block.path, "numpy") as file:
            own = json.loads(file.metadata()["names"])
            rows += [file.get_tensor("features")] if own else []
            names += own
    about = {"names": json.dumps(names), "model": encoder.name, "viewsynth": "1"}
    if encoder.parts:
        about["parts"] = json.dumps(encoder.parts)
    write(path, _file(np.concatenate(rows), about))


def _file(rows: np.ndarray, about: dict[str, str]) -> bytes:
    """A safetensors file, the same bytes for the same content (the library shuffles metadata)."""
    data = np.ascontiguousarray(rows, "<f4").tobytes()
    shape = {"dtype": "F32", "shape": list(rows.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": about, "features": shape}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


# ---- reading them --------------------------------------------------------------------------------


def load(
    path: Path, names: Sequence[str], listing: Path | None = None, roots: Sequence[Path] = ()
) -> Features:
    """The features of some samples.

    Args:
        path: A file as the head of this module describes it, or another of `feature_files`.
        names: `Sample.name` of those samples.
        listing: A file of the names of its rows, if they are not in it.
        roots: Folders that the names are relative to, see `matching.positions`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another kind of file, a name is missing or stands twice, or a row of
            the samples is zero or not finite.
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
            after = f" ({'; '.join(found.notes)})" if found.notes else ""
            raise ValueError(f"features: {len(which)} rows of {path} {what}: {few(which)}{after}")
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
    """What the file says of the parts of a row. Raises: ValueError: if there can be none such."""
    try:
        parts = {
            str(k): (int(a), int(b)) for k, (a, b) in json.loads(about.get("parts", "{}")).items()
        }
    except (ValueError, TypeError, AttributeError):
        parts = {"": (0, -1)}
    if bad := [name for name, (a, b) in parts.items() if not 0 <= a < b <= rows.shape[1]]:
        raise ValueError(
            f'features: the metadata "parts" of {path} must be JSON, a name to the first column '
            f"and the one after the last, of {rows.shape[1]}; wrong: {few(bad)}"
        )
    return parts
