# SPDX-License-Identifier: Apache-2.0
"""Make the training pairs of a world or a data set and store them in a folder.

people -> chunks -> `exact` or `identity` -> rendered at the model's size -> one shard and one part
per chunk -> `stored`. Each chunk is computed by one worker with one thread, and its part is written
last; a resumed run skips chunks with a part. The bytes are therefore independent of interruptions
and of the number of workers. Source files that changed in between are refused, see
`runtime.fingerprint`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from viewsynth import bodies, cameras, reconstruct
from viewsynth.config import check_range
from viewsynth.diffusion.pairs import exact, identity, stored
from viewsynth.diffusion.pairs.pair import ChunkPairs
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.records import Dataset
from viewsynth.render import foreground
from viewsynth.runtime import fingerprint, provenance, weights
from viewsynth.runtime.files import claim_folder, clean, stem_of, sync_folders, to_jsonl, write
from viewsynth.runtime.images import resized
from viewsynth.runtime.workers import FatalError, run_items
from viewsynth.world import truth

CHUNK = 4  # people per chunk
MADE, REJECTS, PARTS = "made.json", "rejects.jsonl", "parts"
OURS = {PARTS, stored.SHARDS, stored.ROWS, stored.INDEX, REJECTS, fingerprint.RECORD}
FAULTS = 0.01  # largest accepted share of pairs and rejects that are faults
# Files and folders of the code that affects the pairs.
CODE = (
    "bodies",
    "reconstruct",
    "render",
    "diffusion/pairs",
    "diffusion/conditions.py",
    "cameras.py",
    "judge",
    "records.py",
    "runtime/images.py",
    "runtime/weights.py",
    "world/truth.py",
    "data/images.py",
)


@dataclass(frozen=True)
class Job:
    """Settings of a run, for its workers.

    Args:
        world: Folder of the world; None = identity pairs.
        output: Folder of the pairs.
        models: Name -> file of each model, "pose" and "detector".
        mark: Fingerprint of everything that affects the bytes, which is written to each part.
        size: Height and width of the images, pixels.
        split: "train" or "test".
        seed: Seed of the choice of photos and targets.
    """

    world: Path | None
    output: Path
    models: dict[str, Path]
    mark: str
    size: tuple[int, int]
    split: str
    seed: int


@dataclass(frozen=True)
class Chunk:
    """People that one worker computes together.

    Args:
        name: File name of its shard and part, without suffix.
        members: `truth.Instant`s or `identity.Subject`s.
    """

    name: str
    members: tuple

    @property
    def who(self) -> list[list[str]]:
        """Pid and outfit or instant of each member."""
        return [[m.pid, getattr(m, "outfit", None) or getattr(m, "name", "")] for m in self.members]

    @property
    def people(self) -> int:
        """Number of people."""
        return len({member.pid for member in self.members})


def make(
    source: str | Path | Dataset,
    output: str | Path,
    size: tuple[int, int],
    people: int | None = None,
    workers: int = 2,
    seed: int = 0,
    split: str = "train",
    skip: int = 0,
) -> Pairs:
    """Make the pairs of a world or a data set, or resume an interrupted run.

    Args:
        source: Folder of a `viewsynth world` with paired images, for exact pairs; or a data set of
            `viewsynth.data`, for identity pairs of its training split.
        output: Folder of the pairs: new, empty, or of an earlier run with the same arguments,
            except that `people` may grow.
        size: Height and width of all images, pixels.
        people: Number of people, after the first `skip`; None = all.
        workers: Number of processes; does not affect the result.
        seed: Seed of the choice of photos and targets.
        split: "train", or "test" of a world: paired images only, for evaluation.
        skip: Number of people of the split to leave out first.

    Raises:
        FileNotFoundError: If the source does not exist.
        ValueError: If the source has too few people, the output holds something else or pairs of
            other files, or more than 1 % of the images failed.
        workers.FatalError: If a worker died.
    """
    _check(source, size, workers, split, skip, people)
    output, is_dataset = Path(output), isinstance(source, Dataset)
    if is_dataset:
        members = identity.plan(source, people, skip, seed)
    else:
        members = exact.plan(Path(source), people, skip, split)
    begun = claim_folder(output, OURS, MADE)
    # The files of a world vary with the number of people; its lists are always among them.
    files = fingerprint.compare(output, _inputs(source, members), begun, fixed=is_dataset)
    job = claim_output(source, output, size, split, seed)
    fingerprint.keep(output, files)
    every = chunks(members)
    _compute(job, every, workers)
    _finish(job, every)
    return Pairs.open(job.output)


def _compute(job: Job, every: list[Chunk], workers: int) -> None:
    """Make the chunks that have no part yet, with worker processes."""
    todo = [chunk for chunk in every if part(job, chunk) is None]
    (job.output / stored.INDEX).unlink(missing_ok=True)  # until all chunks are done again
    with tqdm(
        total=sum(chunk.people for chunk in todo), unit="person", desc="pairs", disable=not todo
    ) as bar:
        for done in run_items(todo, start, (job,), workers):
            if done is None:
                continue
            chunk, why = done
            if why:
                raise FatalError(f"people {chunk.who[0][0]} to {chunk.who[-1][0]}: {why}")
            bar.update(chunk.people)


def _check(source, size, workers, split, skip, people) -> None:
    check_range("workers", workers, 1, 256)
    check_range("skip", skip, 0, 10**7)
    check_range("people", people, 1, 10**7)
    for side in size:
        check_range("size", side, 16, 2048, "pixels")
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    if split == "test" and isinstance(source, Dataset):
        raise ValueError(
            "identity pairs are made of the split train only, because query and gallery must not "
            "be trained on; for evaluation, give a world, whose test people have exact pairs"
        )


def _inputs(source: str | Path | Dataset, members: list) -> dict[str, tuple[Path, dict]]:
    """The source files of the pairs with their properties, see `fingerprint.compare`."""
    if isinstance(source, Dataset):  # all files, as in its own fingerprint
        fields = ("pid", "outfit", "view", "box", "elevation", "azimuth", "distance")
        return {
            sample.name: (sample.paths[0], {key: getattr(sample, key) for key in fields})
            for sample in source.train
        }
    rows = [row for member in members for row in (*member.ground, *member.drone)]
    names = sorted({row[key] for row in rows for key in ("file_name", "parts")})
    return {name: (Path(source) / name, {}) for name in (*truth.FILES, *names)}


def claim_output(
    source: Path | Dataset, output: Path, size: tuple[int, int], split: str, seed: int
) -> Job:
    """Claim the output folder for these pairs.

    Args:
        source: See `make`.
        output: See `make`.
        size: See `make`.
        split: See `make`.
        seed: See `make`.

    Returns:
        The settings for the workers.

    Raises:
        ValueError: If the folder holds other pairs, or something else.
    """
    world = None if isinstance(source, Dataset) else Path(source)
    what = f"world {truth.digest(world)}" if world else f"{source.name} {source.fingerprint}"
    models = weights.reconstruction()
    settings = {
        "source": what,
        "size": list(size),
        "split": split,
        "seed": seed,
        "code": provenance.code_digest(*CODE),
        "completion": weights.sha256(models["completion"]),
    }
    _claim(output, settings)
    return Job(
        world=world,
        output=output,
        size=tuple(size),
        split=split,
        seed=seed,
        models=models,
        mark=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    )


def _claim(output: Path, settings: dict) -> None:
    if not claim_folder(output, OURS, MADE):
        write(output / MADE, json.dumps(settings, indent=1).encode())
        return
    clean(output)
    try:
        before = json.loads((output / MADE).read_bytes())
        different = [key for key in settings if before[key] != settings[key]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{output / MADE} cannot be read: {error!r}; give a new folder") from error
    if different:
        key = different[0]
        raise ValueError(
            f"{output} holds pairs of another {key}: {before[key]} there, {settings[key]} now; "
            "give another folder, or delete this one"
        )


def chunks(members: list) -> list[Chunk]:
    """Chunks of `CHUNK` people, in their order; the members of one pid are in one chunk."""
    pids = list(dict.fromkeys(member.pid for member in members))
    out = []
    for k in range(0, len(pids), CHUNK):
        some = set(pids[k : k + CHUNK])
        out.append(Chunk(stem_of(pids[k]), tuple(m for m in members if m.pid in some)))
    return out


def part(job: Job, chunk: Chunk) -> dict | None:
    """The content of a chunk's part; None if the chunk is not finished."""
    path, shard = _paths(job, chunk)
    if not path.is_file():
        return None
    found = json.loads(path.read_bytes())
    size = shard.stat().st_size if shard.is_file() else 0
    valid = found["mark"] == job.mark and found["who"] == chunk.who and found["bytes"] == size
    return found if valid else None


def _paths(job: Job, chunk: Chunk) -> tuple[Path, Path]:
    """The part and the shard of a chunk."""
    return (
        job.output / PARTS / f"{chunk.name}.json",
        job.output / stored.SHARDS / f"{chunk.name}.safetensors",
    )


# ---- worker --------------------------------------------------------------------------------------


def start(job: Job) -> Callable[[Chunk], None]:
    """Load the tools of a worker, and return the function that makes one chunk."""
    torch.set_num_threads(1)  # floating-point sums depend on the number of threads
    tools = reconstruct.load(bodies.load("anny"), job.models)
    return lambda chunk: do(chunk, job, tools)


def do(chunk: Chunk, job: Job, tools: reconstruct.Tools) -> None:
    """Make a chunk: write its shard, then its part.

    Args:
        chunk: People of the chunk.
        job: Settings of the run.
        tools: Reconstruction tools.
    """
    members = list(chunk.members)
    if job.world is None:
        result = identity.make(members, job.size, tools)
    else:
        result = exact.make(members, job.world, job.split, job.size, tools, job.seed)
    path, file = _paths(job, chunk)
    data, rows = b"", []
    if result.pairs:
        arrays, rows = _rendered(result, chunk.name, job.size)
        data = stored.shard(arrays)
        write(file, data)
    else:
        file.unlink(missing_ok=True)  # left by an earlier run with other people
    content = {
        "mark": job.mark,
        "who": chunk.who,
        "bytes": len(data),
        "rows": rows,
        "sha256": hashlib.sha256(data).hexdigest(),
        "rejects": result.rejects,
    }
    write(path, json.dumps(content).encode())


def _rendered(result: ChunkPairs, name: str, size: tuple[int, int]) -> tuple[dict, list[dict]]:
    """The arrays of a shard, with the source images that pairs use, and its rows."""
    some = result.pairs
    found = foreground.render(
        [pair.mesh for pair in some],
        torch.arange(len(some)),
        cameras.join([pair.window for pair in some]),
    )
    used = sorted({pair.photo for pair in some})
    arrays = {
        "source": np.stack([resized(result.photos[k], size) for k in used]),
        "render": stored.to_uint8(found.render.movedim(1, -1)),
        "seen": stored.to_uint8(found.seen[:, 0]),
        "normals": stored.normals_to_uint8(found.normals.movedim(1, -1)),
        "target": np.stack([resized(pair.target, size) for pair in some]),
    }
    masks = [resized(pair.mask, size) for pair in some if pair.mask is not None]
    if masks:
        arrays["mask"] = np.stack(masks)
    rows = [
        {**pair.row, "shard": name, "place": place, "source": used.index(pair.photo)}
        for place, pair in enumerate(some)
    ]
    return arrays, rows


# ---- finish --------------------------------------------------------------------------------------


def _finish(job: Job, every: list[Chunk]) -> None:
    """Join the parts.

    Raises:
        ValueError: If there is no pair, or too many images failed.
    """
    parts = {chunk.name: part(job, chunk) for chunk in every}
    rows = [row for found in parts.values() for row in found["rows"]]
    rejects = [reject for found in parts.values() for reject in found["rejects"]]
    write(job.output / REJECTS, to_jsonl(rejects))
    faults = [reject for reject in rejects if reject["kind"] == "fault"]
    if len(faults) > FAULTS * (len(rows) + len(rejects)):
        for chunk in every:  # the next run makes these chunks again
            if any(reject["kind"] == "fault" for reject in parts[chunk.name]["rejects"]):
                _paths(job, chunk)[0].unlink()
        few = "; ".join(f"{reject['name']}: {reject['reason']}" for reject in faults[:3])
        raise ValueError(
            f"{len(faults)} of {len(rows) + len(rejects)} images failed, more than {FAULTS:.0%}; "
            f"correct them and run the same command again: {few}"
        )
    if not rows:
        raise ValueError(f"no pair could be made; {job.output / REJECTS} says why: {rejects[:2]}")
    digests = {name: found["sha256"] for name, found in parts.items() if found["rows"]}
    stored.finish(job.output, job.size, rows, digests)
    sync_folders({job.output, job.output / PARTS, job.output / stored.SHARDS})
    sys.stderr.write(
        f"{len(rows)} pairs of {len({row['pid'] for row in rows})} people in {job.output}; "
        f"{len(rejects)} rejects, see {REJECTS}\n"
    )
