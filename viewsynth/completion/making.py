# SPDX-License-Identifier: Apache-2.0
"""Make the examples of people of a world and store them in a folder.

people -> chunks -> `examples` -> one shard and one part per chunk -> `stored`. Each chunk is
computed by one worker with one thread, and its part is written last; a resumed run skips chunks
with a part. The bytes are therefore independent of interruptions and of the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from viewsynth import bodies, reconstruct
from viewsynth.completion import examples, stored
from viewsynth.completion.stored import Stored
from viewsynth.manifest import refuse_other_settings
from viewsynth.runtime import weights
from viewsynth.runtime.files import claim_folder, clean, sync_folders, to_jsonl, write
from viewsynth.runtime.provenance import code_digest
from viewsynth.runtime.workers import FatalError, run_items
from viewsynth.world import revisions

CHUNK = 4  # people per chunk
MADE, REJECTS, PARTS = "made.json", "rejects.jsonl", "parts"
OURS = {MADE, REJECTS, PARTS, stored.SHARDS, stored.ROWS, stored.INDEX}
# Code that affects the examples.
FIT = ("canvas", "crop_flags", "crops", "facing", "fit", "fitting", "foreign", "matting", "parse")
FIT += ("quality", "targets", "tflite", "volume")
CODE = ("bodies", "render", "world", "cameras.py", "completion/examples.py")
CODE += tuple(f"reconstruct/{name}.py" for name in FIT)


@dataclass(frozen=True)
class Job:
    """Settings of a run, for its workers.

    Args:
        output: Folder of the examples.
        models: Files of `weights.reconstruction`.
        seed: Seed of the world.
        images: Ground images of each person.
    """

    output: Path
    models: dict[str, Path]
    seed: int
    images: int


def make(output: Path, people: int, seed: int, images: int, workers: int) -> Stored:
    """Make the examples of people of a world, or resume an interrupted run.

    Args:
        output: Folder of the examples: new, empty, or of an earlier run with the same arguments,
            except that `people` may change.
        people: Number of people.
        seed: Seed of the world.
        images: Ground images of each person.
        workers: Number of processes; does not affect the result.

    Raises:
        ValueError: If the output holds something else.
        workers.FatalError: If a worker died.
    """
    settings = {"seed": seed, "images": images, "revision": revisions.NEWEST}
    settings["code"] = code_digest(*CODE)
    if claim_folder(output, OURS, MADE):
        refuse_other_settings(output, json.loads((output / MADE).read_bytes()), settings)
    clean(output)
    write(output / MADE, json.dumps(settings).encode())
    models = weights.reconstruction("rules")
    bodies.load("anny")  # the first time takes a minute, and workers would all build it
    job = Job(output, models, seed, images)
    every = [range(k, min(k + CHUNK, people)) for k in range(0, people, CHUNK)]
    todo = [numbers for numbers in every if part(output, numbers) is None]
    (output / stored.INDEX).unlink(missing_ok=True)  # until all chunks are done again
    with tqdm(total=sum(map(len, todo)), unit="person", desc="examples", disable=not todo) as bar:
        for done in run_items(todo, start, (job,), workers):
            if done is not None and done[1]:
                raise FatalError(f"people {done[0].start} to {done[0].stop - 1}: {done[1]}")
            bar.update(len(done[0]) if done else 0)
    _finish(output, settings, every)
    return Stored.open(output)


def name_of(numbers: range) -> str:
    """Name of the shard and the part of a chunk."""
    return f"{numbers.start:06d}-{numbers.stop:06d}"


def part(output: Path, numbers: range) -> dict | None:
    """The content of a chunk's part; None if the chunk is not finished."""
    path = output / PARTS / f"{name_of(numbers)}.json"
    if not path.is_file():
        return None
    found, file = json.loads(path.read_bytes()), output / stored.SHARDS / f"{path.stem}.safetensors"
    return found if found["bytes"] == (file.stat().st_size if file.is_file() else 0) else None


def start(job: Job) -> Callable[[range], None]:
    """Load the tools of a worker, and return the function that makes one chunk."""
    torch.set_num_threads(1)  # floating-point sums depend on the number of threads
    tools = reconstruct.load(bodies.load("anny"), job.models)
    return lambda numbers: do(numbers, job, tools)


def do(numbers: range, job: Job, tools: reconstruct.Tools) -> None:
    """Make a chunk: write its shard, then its part."""
    found, data = examples.make(job.seed, numbers, job.images, tools), b""
    name = name_of(numbers)
    if found.rows:
        data = stored.shard(found.arrays)
        write(job.output / stored.SHARDS / f"{name}.safetensors", data)
    rows = [{**row, "shard": name, "place": place} for place, row in enumerate(found.rows)]
    content = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "rows": rows,
        "rejects": found.rejects,
    }
    write(job.output / PARTS / f"{name}.json", json.dumps(content).encode())


def _finish(output: Path, settings: dict, every: list[range]) -> None:
    """Join the parts."""
    parts = {name_of(numbers): part(output, numbers) for numbers in every}
    rows = [row for found in parts.values() for row in found["rows"]]
    rejects = [reject for found in parts.values() for reject in found["rejects"]]
    write(output / REJECTS, to_jsonl(rejects))
    if not rows:
        raise ValueError(f"no example could be made; {output / REJECTS} says why: {rejects[:2]}")
    shards = {k: (one["bytes"], one["sha256"]) for k, one in parts.items() if one["rows"]}
    stored.finish(output, settings, rows, shards)
    sync_folders({output, output / PARTS, output / stored.SHARDS})
    sys.stderr.write(
        f"{len(rows)} examples of {len({row['pid'] for row in rows})} people in {output}; "
        f"{len(rejects)} rejects, see {REJECTS}\n"
    )
