# SPDX-License-Identifier: Apache-2.0
"""The data set that `viewsynth world` writes: people and cameras in, files and rows out.

rig (who is seen when) -> shots (pictures) -> this -> CARGO's folders, part maps, `truth.jsonl`,
`people.jsonl`. People are dealt to chunks by their numbers. A chunk is computed whole by one worker
and leaves one file, `chunks/<n>.jsonl`, written last: what is not in one does not exist. More
pictures of known people are a further file, `<n>-1.jsonl`. A picture depends on its own names
alone, so it does not matter in which file it came to be.

Such a file is JSON lines: first {"part": {people: {number: [images, instants]}, faults}}, what the
people in it have from now on; then {"person": ...} for new ones, then the rows, sorted.
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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from viewsynth.runtime.files import LEFTOVER, lines, settle, write
from viewsynth.runtime.images import DRAWN, indexed, jpeg
from viewsynth.runtime.writer import Writer, because

OPEN = 64  # files that are merged at once
# Colours of the part maps, for eyes; in the order of `world.LABELS`.
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
class Want:
    """Pictures of one person that are still to be taken.

    Args:
        images, instants: First and last + 1 of the plan's places, and of the instants.
    """

    number: int
    images: tuple[int, int]
    instants: tuple[int, int]

    @property
    def count(self) -> int:
        """How many pictures that are."""
        (first, last), (begin, end) = self.images, self.instants
        return last - first + 5 * (end - begin)


@dataclass(frozen=True)
class Task:
    """A chunk, or what is still missing of it; `part` is the name of the file that it leaves."""

    part: str
    people: tuple[Want, ...]

    @property
    def count(self) -> int:
        """How many pictures that are."""
        return sum(want.count for want in self.people)


# ---- what there is and what is missing -------------------------------------------------------


def tasks(folder: Path, people: int, images: int, instants: int, chunk: int) -> list[Task]:
    """What is still to do for so many people, pictures of each and instants of each."""
    todo = []
    for first in range(0, people, chunk):
        name = f"{first // chunk:05d}"
        done, heads = done_in(folder, name)
        wants = []
        for number in range(first, min(first + chunk, people)):
            have = done.get(number, (0, 0))
            want = Want(number, (have[0], max(images, have[0])), (have[1], max(instants, have[1])))
            wants += [want] if want.count else []
        if wants:
            todo.append(Task(f"{name}-{heads}" if heads else name, tuple(wants)))
    return todo


def done_in(folder: Path, chunk: str) -> tuple[dict[int, tuple[int, int]], int]:
    """What the people of a chunk have (images, instants), and how many files say so."""
    done: dict[int, tuple[int, int]] = {}
    paths = parts_of(folder, chunk)
    for path in paths:
        with path.open(encoding="utf-8") as file:
            head = json.loads(file.readline())["part"]
        done |= {int(number): tuple(have) for number, have in head["people"].items()}
    return done, len(paths)


def parts_of(folder: Path, chunk: str) -> list[Path]:
    """The files of a chunk, the oldest first."""
    names = itertools.chain([chunk], (f"{chunk}-{k}" for k in itertools.count(1)))
    paths = (folder / "chunks" / f"{name}.jsonl" for name in names)
    return list(itertools.takewhile(Path.is_file, paths))


def chunks(folder: Path) -> list[str]:
    """Names of the chunks that there are, sorted."""
    return sorted(path.stem for path in (folder / "chunks").glob("*.jsonl") if "-" not in path.stem)


# ---- in a worker -----------------------------------------------------------------------------


def start(folder: Path, seed: int) -> Callable[[Task], None]:
    """Load what a worker needs, and return the function that does one task."""
    import torch

    torch.set_num_threads(1)  # sums depend on the number of threads
    from viewsynth.world.mannequin import mannequin

    mannequin()
    return functools.partial(_do, folder=folder, seed=seed)


def _do(task: Task, folder: Path, seed: int) -> None:
    """Take all pictures of a task; what goes wrong with a person is told and harms nobody else."""
    have, faults, people, rows = {}, [], [], []
    with ThreadPoolExecutor(2) as pool:
        writer = Writer(folder, pool)
        for want in task.people:
            before = len(writer.files)
            try:
                new, own = _person(want, seed, writer.put)
            except Exception as error:  # the person is lost, the world is not
                writer.discard(before)
                faults.append({"pid": f"{want.number:04d}", "reason": because(error)})
                continue
            have[want.number] = (want.images[1], want.instants[1])
            people += [{"person": new}] if new else []
            rows += own
        writer.finish()
    head = {"part": {"people": have, "faults": faults}}
    rows.sort(key=lambda row: row["file_name"])
    write(folder / "chunks" / f"{task.part}.jsonl", lines([head, *people, *rows]))
    settle({folder / "chunks"})


def _person(want: Want, seed: int, put: Callable) -> tuple[dict | None, list[dict]]:
    """The pictures of one person that are wanted; the person's own row if they are the first."""
    from viewsynth.world import people, rig, shots

    number, rows = want.number, []
    plan = rig.plan(seed, number, want.images[1])
    for place in range(*want.images):
        split, shot = rig.split(number, place), plan[place]
        name = f"{split}/{shot.camid}/{shot.camid}_day_{number:04d}_{shot.index}"
        rows.append(_taken(shots.picture(seed, number, shot), name, split, seed, put))
    for n in range(*want.instants):
        for shot in rig.instant(seed, number, n):
            name = f"paired/{number:04d}/{n}_{shot.camid}"
            rows.append(_taken(shots.picture(seed, number, shot), name, "paired", seed, put))
    new = not (want.images[0] or want.instants[0])
    return (person_row(people.identity(seed, number)) if new else None), rows


def _taken(picture, name: str, split: str, seed: int, put: Callable) -> dict:
    """Write a picture and its part map, later; its row."""
    row = picture_row(picture, f"{name}.jpg", split, seed)
    put(row["file_name"], jpeg, picture.image, DRAWN)
    put(row["parts"], indexed, picture.photo.labels, COLOURS)
    return row


# ---- rows ------------------------------------------------------------------------------------


def person_row(identity) -> dict:
    """What `people.jsonl` says of a person."""
    from viewsynth.world import rig, words

    return {
        "pid": identity.pid,
        "split": rig.people_split(identity.number),
        "phenotype": _plain(identity.phenotype),
        "local": _plain(identity.local),
        "scale": _plain(identity.scale),
        "skin": _plain(identity.skin),
        "hair": _plain(asdict(identity.hair)),
        "outfit": _plain(asdict(identity.outfit)),
        "words": words.words(identity),
        "caption": words.caption(identity),
        "attributes": words.attributes(identity).tolist(),
    }


def picture_row(picture, name: str, split: str, seed: int) -> dict:
    """What `truth.jsonl` says of a picture."""
    from viewsynth.world import words

    shot, photo, station = picture.shot, picture.photo, picture.station
    where = shot.where
    height, width = photo.image.shape[:2]
    motion = asdict(picture.motion)
    return {
        "file_name": name,
        "pid": picture.pid,
        "camid": shot.camera,
        "platform": shot.platform,
        "view": picture.view,
        "split": split,
        "index": shot.index,
        "instant": shot.instant,
        "elevation": _plain(station.elevation, 3),
        "azimuth": _plain(station.azimuth, 3),
        "distance": _plain(station.distance),
        "altitude": _plain(picture.altitude),
        "target_height": _plain(photo.target_height),
        "vfov": _plain(shot.lens.vfov),
        "box": _plain(photo.box, 2),
        "width": width,
        "height": height,
        "world_to_camera": _plain(photo.world_to_camera.ravel(), 7),
        "intrinsics": _plain(photo.intrinsics.ravel(), 5),
        "k1": _plain(photo.k1, 6),
        "keypoints": [
            [round(float(x), 2), round(float(y), 2), int(v)] for x, y, v in photo.keypoints
        ],
        "joints": _plain(picture.joints),
        "occlusion": _plain(photo.occlusion),
        "parts": f"parts/{name.removesuffix('.jpg')}.png",
        "pose": _plain(motion),
        "pose_vector": _plain(picture.pose.ravel(), 5),
        "lift": _plain(picture.lift),
        "phenotype": _plain(picture.identity.phenotype),
        "words": words.words(picture.identity),
        "place": {
            "ground": where.ground.kind,
            "weather": where.weather,
            "sun": _plain(where.own_sun()),
        },
        "seed": seed,
    }


def _plain(value, digits: int = 4):
    """Numbers, arrays and trees of them as short JSON: a tenth of a millimetre is enough."""
    if isinstance(value, dict):
        return {key: _plain(item, digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), digits)
    if isinstance(value, list | tuple):
        return [_plain(item, digits) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), digits)
    return value.item() if isinstance(value, np.generic) else value


# ---- joining ---------------------------------------------------------------------------------


def join(folder: Path) -> tuple[Counter, list[dict]]:
    """Join the chunks into `truth.jsonl` and `people.jsonl`, in memory that does not grow.

    Returns: pictures by (split, camera), and the last fault of who lacks what was asked for.
    """
    names, lost, counts = chunks(folder), [], Counter()
    for path in folder.glob(f"{LEFTOVER}*"):
        path.unlink()
    with _aside(folder / "people.jsonl") as people:
        for name in names:
            found: dict[str, str] = {}
            broken: dict[int, dict] = {}
            for path in parts_of(folder, name):
                with path.open(encoding="utf-8") as file:
                    head = json.loads(file.readline())["part"]
                    for number in head["people"]:  # what failed before is made now
                        broken.pop(int(number), None)
                    broken |= {int(fault["pid"]): fault for fault in head["faults"]}
                    for line in file:
                        if not line.startswith('{"person"'):
                            break
                        row = json.loads(line)["person"]
                        found[row["pid"]] = json.dumps(row) + "\n"
            lost += broken.values()
            people.writelines(found[pid] for pid in sorted(found, key=int))
    parts = [path for name in names for path in parts_of(folder, name)]
    with _aside(folder / "truth.jsonl") as truth, contextlib.ExitStack() as stack:
        for line in _merged(parts, folder, stack):
            truth.write(line)
            split, camera = _name(line).split("/")[:2]
            counts[split, camera if split != "paired" else _name(line)[:-4].split("_")[1]] += 1
    return counts, lost


@contextlib.contextmanager
def _aside(path: Path):
    """A text file that is written aside and renamed when it is whole."""
    temporary = path.with_name(f"{LEFTOVER}{path.name}")
    with temporary.open("w", encoding="ascii") as file:
        yield file
    temporary.replace(path)


def _merged(paths: list[Path], folder: Path, stack: contextlib.ExitStack) -> Iterator[str]:
    """The rows of sorted files, sorted; many files are merged a few at a time first."""
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
    """Remove pictures that no row speaks of: a kill left them, and less was asked for since.

    Returns: how many files that were.
    """
    known: set[Path] = set()
    stray = 0
    with (folder / "truth.jsonl").open(encoding="ascii") as file:
        for place, rows in itertools.groupby(file, key=lambda line: Path(_name(line)).parent):
            known.add(place)
            names = {Path(_name(line)).stem for line in rows}
            for root, suffix in ((folder, ".jpg"), (folder / "parts", ".png")):
                for path in (root / place).glob(f"*{suffix}"):
                    if path.stem not in names:
                        path.unlink()
                        stray += 1
    for root, suffix in ((folder, ".jpg"), (folder / "parts", ".png")):
        for split in ("train", "query", "gallery", "paired"):
            for place in (root / split).glob("*"):
                if place.relative_to(root) not in known:
                    for path in place.glob(f"*{suffix}"):
                        path.unlink()
                        stray += 1
    return stray
