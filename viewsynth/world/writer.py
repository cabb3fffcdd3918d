# SPDX-License-Identifier: Apache-2.0
"""Write a world as a data set: images, part maps, and rows of ground truth.

rig (plans) -> shots (images), rows -> this module -> CARGO's folders, `parts/`, `truth.jsonl`,
`people.jsonl`, which `truth` and `data.world` read. People are assigned to chunks by their numbers.
One worker computes a whole chunk and then writes its part, `chunks/<n>.jsonl`; images that no part
lists do not count. More images of known people are a further part, `<n>-1.jsonl`. An image depends
on its own seed names alone, so its bytes do not depend on the part.

A part is a JSON lines file: first {"part": {"people": {number: [images, instants]}, "faults":
[...]}}, the totals of its people including this part; then {"person": ...} for new people; then the
rows of the images, sorted.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from viewsynth.runtime.files import LEFTOVER, sync_folders, to_jsonl, write
from viewsynth.runtime.images import RENDERED, indexed, jpeg
from viewsynth.runtime.writer import Writer, describe_error
from viewsynth.world import revisions

OPEN = 64  # files that are open at once while merging
# Palette of the part maps, in the order of `world.LABELS`.
COLOURS = [
    (0, 0, 0),
    (240, 190, 160),
    (110, 70, 40),
    (250, 220, 60),
    (60, 120, 220),
    (220, 150, 120),
    (40, 170, 90),
    (200, 130, 100),
    (170, 60, 170),
    (230, 110, 30),
    (120, 120, 120),
]


@dataclass(frozen=True)
class PersonTask:
    """Images of one person that are still to be rendered.

    Args:
        number: Number of the person.
        images: Positions in the person's plan: first, last + 1.
        instants: Likewise, of the instants.
    """

    number: int
    images: tuple[int, int]
    instants: tuple[int, int]

    @property
    def count(self) -> int:
        """Number of images."""
        (first, last), (begin, end) = self.images, self.instants
        return last - first + 5 * (end - begin)


@dataclass(frozen=True)
class Task:
    """A chunk, or what is missing of it.

    Args:
        part: Name of the part that the task writes.
        people: The missing images of each person.
    """

    part: str
    people: tuple[PersonTask, ...]

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(want.count for want in self.people)


# ---- finished parts and open tasks -----------------------------------------------------------


def tasks(folder: Path, people: int, images: int, instants: int, chunk: int) -> list[Task]:
    """Tasks that are missing for a world of the given size.

    Args:
        folder: Folder of the world.
        people: Number of people.
        images: Images per person outside the instants.
        instants: Instants per person.
        chunk: People per chunk.

    Returns:
        One task per chunk that is not finished.
    """
    todo = []
    for first in range(0, people, chunk):
        name = f"{first // chunk:05d}"
        done, heads = done_in(folder, name)
        wants = []
        for number in range(first, min(first + chunk, people)):
            have = done.get(number, (0, 0))
            want = PersonTask(
                number, (have[0], max(images, have[0])), (have[1], max(instants, have[1]))
            )
            wants += [want] if want.count else []
        if wants:
            todo.append(Task(f"{name}-{heads}" if heads else name, tuple(wants)))
    return todo


def done_in(folder: Path, chunk: str) -> tuple[dict[int, tuple[int, int]], int]:
    """Finished images and instants of the people of a chunk.

    Args:
        folder: Folder of the world.
        chunk: Name of the chunk.

    Returns:
        (images, instants) by number of the person, and the number of parts.
    """
    done: dict[int, tuple[int, int]] = {}
    paths = parts_of(folder, chunk)
    for path in paths:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())["part"]
        done |= {int(number): tuple(have) for number, have in head["people"].items()}
    return done, len(paths)


def parts_of(folder: Path, chunk: str) -> list[Path]:
    """Paths of the parts of a chunk, the oldest first."""
    names = itertools.chain([chunk], (f"{chunk}-{k}" for k in itertools.count(1)))
    paths = (folder / "chunks" / f"{name}.jsonl" for name in names)
    return list(itertools.takewhile(Path.is_file, paths))


def chunks(folder: Path) -> list[str]:
    """Names of the chunks with at least one part, sorted."""
    return sorted(path.stem for path in (folder / "chunks").glob("*.jsonl") if "-" not in path.stem)


# ---- in a worker -----------------------------------------------------------------------------


def start(folder: Path, seed: int, revision: int = revisions.NEWEST) -> Callable[[Task], None]:
    """Prepare a worker.

    Args:
        folder: Folder of the world.
        seed: Seed of the world.
        revision: Of the world.

    Returns:
        The function that does one task.
    """
    import torch

    torch.set_num_threads(1)  # sums depend on the number of threads
    from viewsynth.world.mannequin import mannequin

    mannequin()
    return functools.partial(_do, folder=folder, seed=seed, revision=revision)


def _do(task: Task, folder: Path, seed: int, revision: int) -> None:
    """Render all images of a task; a fault of one person is recorded and affects no other."""
    have, faults, people, rows = {}, [], [], []
    with ThreadPoolExecutor(2) as pool:
        writer = Writer(folder, pool)
        for want in task.people:
            before = len(writer.files)
            try:
                new, own = _person(want, seed, revision, writer.put)
            except Exception as error:  # one person must not stop the run
                writer.discard(before)
                faults.append({"pid": f"{want.number:04d}", "reason": describe_error(error)})
                continue
            have[want.number] = (want.images[1], want.instants[1])
            people += [{"person": new}] if new else []
            rows += own
        writer.finish()
    head = {"part": {"people": have, "faults": faults}}
    rows.sort(key=lambda row: row["file_name"])
    write(folder / "chunks" / f"{task.part}.jsonl", to_jsonl([head, *people, *rows]))
    sync_folders({folder / "chunks"})


def _person(
    want: PersonTask, seed: int, revision: int, put: Callable
) -> tuple[dict | None, list[dict]]:
    """Render one person: the row of `people.jsonl` if the person is new, and the image rows."""
    from viewsynth.world import people, rig, shots
    from viewsynth.world.rows import person_row

    number, rows = want.number, []
    plan = rig.plan(seed, number, want.images[1], revision)
    for index in range(*want.images):
        split, shot = rig.split(number, index), plan[index]
        name = f"{split}/{shot.camid}/{shot.camid}_day_{number:04d}_{shot.index}"
        rows.append(_stored(shots.render_shot(seed, number, shot), name, split, seed, put))
    for n in range(*want.instants):
        for shot in rig.instant(seed, number, n, revision):
            name = f"paired/{number:04d}/{n}_{shot.camid}"
            rows.append(_stored(shots.render_shot(seed, number, shot), name, "paired", seed, put))
    new = not (want.images[0] or want.instants[0])
    return (person_row(people.identity(seed, number, revision)) if new else None), rows


def _stored(rendered, name: str, split: str, seed: int, put: Callable) -> dict:
    """Schedule the writing of an image and its part map; returns the row of the image."""
    from viewsynth.world.rows import image_row

    row = image_row(rendered, f"{name}.jpg", split, seed)
    put(row["file_name"], jpeg, rendered.image, RENDERED)
    put(row["parts"], indexed, rendered.photo.labels, COLOURS)
    return row


# ---- joining the parts -----------------------------------------------------------------------


def join(folder: Path) -> tuple[Counter, list[dict]]:
    """Join the parts into `truth.jsonl` and `people.jsonl`; memory does not grow with the world.

    Args:
        folder: Folder of the world.

    Returns:
        Number of images by (split, camera), and the last fault of each person with missing images.
    """
    names, lost, counts = chunks(folder), [], Counter()
    for path in folder.glob(f"{LEFTOVER}*"):
        path.unlink()
    with _aside(folder / "people.jsonl") as people:
        for name in names:
            rows, faults = _people_of(parts_of(folder, name))
            lost += faults
            people.writelines(rows)
    parts = [path for name in names for path in parts_of(folder, name)]
    with _aside(folder / "truth.jsonl") as truth, contextlib.ExitStack() as stack:
        for line in _merged(parts, folder, stack):
            truth.write(line)
            split, camera = _name(line).split("/")[:2]
            counts[split, camera if split != "paired" else _name(line)[:-4].split("_")[1]] += 1
    return counts, lost


def _people_of(parts: list[Path]) -> tuple[list[str], list[dict]]:
    """Lines of `people.jsonl` of a chunk, sorted, and the faults that no later part mended."""
    rows: dict[str, str] = {}
    faults: dict[int, dict] = {}
    for path in parts:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())["part"]
            for number in head["people"]:
                faults.pop(int(number), None)
            faults |= {int(fault["pid"]): fault for fault in head["faults"]}
            for line in file:
                if not line.startswith('{"person"'):
                    break
                row = json.loads(line)["person"]
                rows[row["pid"]] = json.dumps(row) + "\n"
    return [rows[pid] for pid in sorted(rows, key=int)], list(faults.values())


@contextlib.contextmanager
def _aside(path: Path):
    """Open a text file that is written under another name and renamed when it is complete."""
    temporary = path.with_name(f"{LEFTOVER}{path.name}")
    with temporary.open("w", encoding="ascii") as file:
        yield file
    temporary.replace(path)


def _merged(paths: list[Path], folder: Path, stack: contextlib.ExitStack) -> Iterator[str]:
    """Merge the rows of sorted files; more than `OPEN` files are merged in several passes."""
    for level in itertools.count():
        if len(paths) <= OPEN:
            break
        groups = [paths[k : k + OPEN] for k in range(0, len(paths), OPEN)]
        paths = []
        for k, group in enumerate(groups):
            paths.append(folder / f"{LEFTOVER}merge-{level}-{k}")
            stack.callback(paths[-1].unlink, missing_ok=True)
            with paths[-1].open("w", encoding="ascii") as file, contextlib.ExitStack() as inner:
                file.writelines(_merge(group, inner))
    return _merge(paths, stack)


def _merge(paths: list[Path], stack: contextlib.ExitStack) -> Iterator[str]:
    files = [stack.enter_context(path.open(encoding="ascii")) for path in paths]
    rows = ((line for line in file if line.startswith('{"file_name"')) for file in files)
    return heapq.merge(*rows, key=_name)


def _name(line: str) -> str:
    return line.split('"', 4)[3]


def sweep(folder: Path) -> int:
    """Remove images and part maps without a row, which an interrupted run left.

    Args:
        folder: Folder of the world.

    Returns:
        Number of removed files.
    """
    known: set[Path] = set()
    removed = 0
    kinds = ((folder, ".jpg"), (folder / "parts", ".png"))
    with (folder / "truth.jsonl").open(encoding="ascii") as file:
        for parent, rows in itertools.groupby(file, key=lambda line: Path(_name(line)).parent):
            known.add(parent)
            names = {Path(_name(line)).stem for line in rows}
            for root, suffix in kinds:
                for path in (root / parent).glob(f"*{suffix}"):
                    if path.stem not in names:
                        path.unlink()
                        removed += 1
    for root, suffix in kinds:
        for split in ("train", "query", "gallery", "paired"):
            for parent in (root / split).glob("*"):
                if parent.relative_to(root) not in known:
                    for path in parent.glob(f"*{suffix}"):
                        path.unlink()
                        removed += 1
    return removed
