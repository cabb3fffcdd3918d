# SPDX-License-Identifier: Apache-2.0
"""Features: one vector a sample, made by an `Encoder` or elsewhere, in one safetensors file.

`evaluation` reads them. The file, which any other program may write as well, holds
- a tensor "features": float32 [N, D], one row a sample; the length of a row does not matter;
- metadata "names": a JSON list of the N sample names, i.e. the paths of the pictures relative to
  the data set's folder with "/" between, e.g. "query/Cam1/Cam1_day_0007_3.jpg" (a bare file name
  will do where no other picture of the data set has it); "model", if given, is the name to print,
  "parts" JSON that names columns of a row, such as {"identity": [0, 768]}:

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
from collections import Counter
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

from viewsynth import fingerprint
from viewsynth.data import images
from viewsynth.files import write
from viewsynth.pictures import stretched
from viewsynth.records import Reject, Sample
from viewsynth.reid.encoders import Encoder

BLOCK = 256
READERS = 16  # threads that keep a GPU busy; more only wait for it
CONVERT = """
  import json; from safetensors.torch import save_file
  names = [...]  # of each row, e.g. "query/Cam1/Cam1_day_0007_3.jpg", relative to the data set
  save_file({"features": features.float().contiguous()}, "features.safetensors",
            metadata={"names": json.dumps(names)})"""


@dataclass(frozen=True)
class Features:
    """Features of some samples.

    Args:
        rows: One a sample, in the order that was asked for.  float32 [N, D]
        model: What made them, for people to read; "" = the file does not say.
        fingerprint: Hash of names and rows.
        extra: Names in the file that were not asked for.
        parts: Name of a part of a row -> its first column and the one after its last.
    """

    rows: np.ndarray
    model: str
    fingerprint: str
    extra: int
    parts: dict[str, tuple[int, int]]

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
        """Whether the file is there and is of this very model, setting and pictures."""
        try:
            with safe_open(self.path, "numpy") as file:
                return (file.metadata() or {}).get("mark") == self.mark
        except (OSError, SafetensorError):
            return False


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
        mark = hashlib.sha256(json.dumps([encoder.fingerprint, batch, rows]).encode()).hexdigest()
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
    frames = _frames(block, encoder.size, rejects)
    while some := list(islice(frames, batch)):
        pixels = torch.from_numpy(np.stack([image for _, image in some]))
        with turn:
            rows = encoder.encode(pixels).numpy()
        for (number, _), row in zip(some, rows, strict=True):
            sample = block.samples[number]
            if not np.isfinite(row).all():
                raise ValueError(f"{encoder.name} returns NaN or infinity for {sample.name}")
            if len(sample.paths) > 1:  # a tracklet: the mean direction of its frames
                row = row / max(np.linalg.norm(row), 1e-12)
                row = sums.get(number, 0) + row / len(sample.paths)
            sums[number] = row
    features = np.stack([sums[n] for n in sorted(sums)]) if sums else np.zeros((0, 1), np.float32)
    about = {
        "names": json.dumps([block.samples[n].name for n in sorted(sums)]),
        "rejects": json.dumps([asdict(reject) for reject in rejects]), "mark": block.mark,
    }  # fmt: skip
    write(block.path, _file(features, about))


def _frames(
    block: Block, size: tuple[int, int], rejects: list[Reject]
) -> Iterator[tuple[int, np.ndarray]]:
    """Number of the sample and picture, one by one; a broken one goes to the rejects."""
    for number, sample in enumerate(block.samples):
        for path in sample.paths:
            try:
                image = images.read(path, sample.box, least=1)
            except images.BadImage as error:
                rejects.append(
                    Reject(source=str(path), stage="input", reason=str(error), pid=sample.pid)
                )
            else:
                yield number, stretched(image, size)


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


def load(path: Path, names: Sequence[str]) -> Features:
    """The features of some samples.

    Args:
        path: A file as the head of this module describes it.
        names: `Sample.name` of those samples.
    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another kind of file, a name is missing or stands twice, or a row of
            the samples is zero or not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"features: there is no file {path}")
    rows, listed, about = _read(path)
    twice = [name for name, count in Counter(listed).items() if count > 1]
    if twice:
        raise ValueError(f"features: {path} names {len(twice)} samples twice: {_few(twice)}")
    at = _positions(path, listed, names)
    rows = rows[at]
    for what, bad in (
        ("hold NaN or infinity", ~np.isfinite(rows).all(1)), ("are all zero", ~rows.any(1)),
    ):  # fmt: skip
        if bad.any():
            which = [names[n] for n in np.flatnonzero(bad)]
            raise ValueError(f"features: {len(which)} rows of {path} {what}: {_few(which)}")
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    digest.update(np.ascontiguousarray(rows))
    extra = len(listed) - len(set(at))
    return Features(
        rows, about.get("model", ""), digest.hexdigest(), extra, _parts(path, about, rows)
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
            f"and the one after the last, of {rows.shape[1]}; wrong: {_few(bad)}"
        )
    return parts


def _read(path: Path) -> tuple[np.ndarray, list[str], dict[str, str]]:
    """Rows, names and metadata of a features file, as far as they can be checked alone."""
    try:
        with safe_open(path, "numpy") as file:
            about, keys = file.metadata() or {}, list(file.keys())
            if "features" not in keys:
                raise ValueError(
                    f'features: {path} must hold a tensor "features", float32 [N, D]; it has '
                    f"{_few(keys) or 'none'}"
                )
            part = file.get_slice("features")
            kind, shape = part.get_dtype(), part.get_shape()
            if kind != "F32" or len(shape) != 2:
                raise ValueError(
                    f'features: the tensor "features" of {path} must be float32 [N, D]; got '
                    f"{kind} {shape}; features.float() makes it float32"
                )
            rows = file.get_tensor("features")
    except SafetensorError as error:
        raise ValueError(
            f"features: {path} is no safetensors file ({error}); pickles (.pth, .pkl) and .npy are "
            f"not read. Convert it where it was made:{CONVERT}"
        ) from error
    try:
        names = json.loads(about.get("names", "null"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f'features: {path} must have metadata "names", a JSON list of the samples\' names; '
            f"write it like this:{CONVERT}"
        )
    if len(names) != len(rows):
        raise ValueError(f"features: {path} has {len(rows)} rows but {len(names)} names")
    return rows, names, about


def _positions(path: Path, listed: list[str], names: Sequence[str]) -> list[int]:
    """The row of each sample: by its name, else by its bare file name where that is one sample's.

    Raises: ValueError: names those that are missing.
    """
    row_of = {name: row for row, name in enumerate(listed)}
    short = Counter(name.rpartition("/")[2] for name in names)
    at, missing, unclear = [], [], []
    for name in names:
        bare = name.rpartition("/")[2]
        row = row_of.get(name, row_of.get(bare))
        if row is None:
            missing.append(name)
        elif name not in row_of and short[bare] > 1:
            unclear.append(name)
        else:
            at.append(row)
    if missing:
        raise ValueError(
            f"features: {len(missing)} of {len(names)} samples are not in {path}: {_few(missing)}; "
            f"it has {len(listed)} names: {_few(listed)}"
        )
    if unclear:
        raise ValueError(
            f"features: {path} names {len(unclear)} samples by file names that several have; give "
            f"paths relative to the data set: {_few(unclear)}"
        )
    return at


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
