# SPDX-License-Identifier: Apache-2.0
"""Render a world of people in CARGO's layout, with exact ground truth for every image.

viewsynth world --people 1000 --images-per-person 20 --output outputs/world

Thirteen cameras, five of them on drones, record people who walk by; `paired/` holds instants that
two ground cameras and three drones record at once. Run the same command again to continue after a
stop; more people, more images per person or more instants extend the world.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from viewsynth import manifest
from viewsynth.config import check_range
from viewsynth.runtime.files import claim_folder, clean, path_inside, write
from viewsynth.runtime.provenance import code_digest, facts
from viewsynth.runtime.workers import Progress, cores, run_items
from viewsynth.world import revisions, writer

FORMAT = 1
# Code that affects the pixels: a world can be extended only by the code that rendered it.
CODE = ("bodies", "render", "world", "cameras.py")
FAULTS = 0.01  # largest share of people lost to faults in a run that succeeds
SIZE = 25_000  # approximate bytes of an image with its part map and rows
OURS = {
    *("train", "query", "gallery", "paired", "parts", "chunks"),
    *("truth.jsonl", "people.jsonl", "world.json", "contact_sheet.png", ".gitkeep"),
}
SHOWN, ACROSS, TALL = 40, 4, 150  # people on the sheet, people per row, pixels of a tile


@dataclass(frozen=True)
class Config:
    """A rendered data set of people, streets and cameras, of any size."""

    people: int = 100
    """Number of people; even numbers are for training, odd ones for query and gallery."""
    images_per_person: int = 20
    """Images of each person, from five to eight cameras."""
    instants: int = 1
    """Instants of each person that two ground cameras and three drones record at once."""
    output: Path = Path("outputs/world")
    """Folder of the world."""
    seed: int = 0
    """Seed of all random draws."""
    revision: int = revisions.NEWEST
    """Revision of the world: 1 or 2; an older one gives the same images as ever."""
    workers: int = 0
    """Worker processes; 0 = one per core."""
    chunk: int = 8
    """People that one worker renders together."""

    def __post_init__(self):
        check_range("people", self.people, 1, 99_999)
        check_range("images_per_person", self.images_per_person, 1, 10_000)
        check_range("instants", self.instants, 0, 1000)
        check_range("seed", self.seed, 0, 2**63 - 1)
        revisions.of(self.revision)
        check_range("workers", self.workers, 0, 1024)
        check_range("chunk", self.chunk, 1, 10_000)


def run(config: Config) -> int:
    """Render the world; finished chunks are kept.

    Args:
        config: The options.

    Returns:
        0, or 1 if more than 1 % of the people were lost to faults.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "world starts --workers processes itself: start it without a launcher (got WORLD_SIZE "
            f"{os.environ['WORLD_SIZE']})"
        )
    began = time.perf_counter()
    folder = config.output.expanduser().resolve()
    settings = {"seed": config.seed, "revision": config.revision, "chunk": config.chunk}
    settings["code"] = code_digest(*CODE)
    if claim_folder(folder, OURS, "world.json"):
        manifest.refuse_other_settings(folder, read(folder)["settings"], settings)
    clean(folder)
    wanted = (config.people, config.images_per_person, config.instants)
    todo = writer.tasks(folder, *wanted, config.chunk)
    _refuse_full_disk(folder, sum(task.count for task in todo))
    _save(folder, settings, {})
    if todo:
        _prepare()
    died = _work(folder, config, todo)
    counts, lost = writer.join(folder)
    writer.sweep(folder)
    write(folder / "contact_sheet.png", draw_sheet(folder))
    made, seconds = sum(task.count for task in todo), time.perf_counter() - began
    session = {"pictures": made, "seconds": round(seconds, 2), "asked": wanted}
    _save(folder, settings, facts() | {"last_session": session})
    _report_counts(folder, counts, made, seconds)
    return _status(config, lost, died)


def read(folder: Path) -> dict:
    """Read `world.json`.

    Args:
        folder: Folder of the world.

    Returns:
        Its contents.

    Raises:
        FileNotFoundError: if there is no `world.json`.
        ValueError: if it cannot be read.
    """
    path = folder / "world.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no world of viewsynth: it has no world.json; give a folder that "
            "`viewsynth world` wrote"
        )
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format"] != FORMAT:
            raise ValueError(f"format {tree['format']} is not {FORMAT}")
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}; restore it, or start anew") from error
    return tree


def _save(folder: Path, settings: dict, facts: dict) -> None:
    from viewsynth.world import LABELS, words

    tree = {
        "format": FORMAT,
        "settings": settings,
        "labels": LABELS,
        "licence": "Apache-2.0",
        "attributes": list(words.ATTRIBUTES),
        "chunks": writer.chunks(folder),
        "facts": facts,
    }
    write(folder / "world.json", (json.dumps(tree, indent=1) + "\n").encode())


def _refuse_full_disk(folder: Path, images: int) -> None:
    free, need = shutil.disk_usage(folder).free, images * SIZE
    if need > free:
        raise ValueError(
            f"output: {images} images need about {need / 1e9:.1f} GB, and {folder} has "
            f"{free / 1e9:.1f} GB; make room, give another --output, or ask for less"
        )


def _prepare() -> None:
    """Build the body model, which the workers load; the first time takes a minute."""
    from viewsynth import bodies

    _say("loading the body model (built at the first use, which takes about a minute)")
    bodies.load("anny")


def _work(folder: Path, config: Config, todo: list[writer.Task]) -> list[tuple[str, str]]:
    """Compute the tasks in workers; returns the people whose worker died, with the reasons."""
    files = {folder / "chunks" / f"{task.part}.jsonl": task.count for task in todo}
    workers, died = min(config.workers or cores(), max(len(todo), 1)), []
    with Progress(files, ("image", "images")) as progress:
        for outcome in run_items(
            todo, writer.start, (folder, config.seed, config.revision), workers
        ):
            progress.update()
            if outcome is not None and outcome[1]:
                task, why = outcome
                died += [(f"{want.number:04d}", why) for want in task.people]
        progress.update()
    return died


def _report_counts(folder: Path, counts: Counter, made: int, seconds: float) -> None:
    """Print the number of images per camera and split."""
    splits = [s for s in ("train", "query", "gallery", "paired") if any(k[0] == s for k in counts)]
    _say("camera " + " ".join(f"{split:>9}" for split in splits))
    for camera in sorted({camera for _, camera in counts}, key=lambda name: int(name[3:])):
        _say(f"{camera:>6} " + " ".join(f"{counts[split, camera]:>9}" for split in splits))
    sums = [sum(n for (s, _), n in counts.items() if s == split) for split in splits]
    _say("   all " + " ".join(f"{count:>9}" for count in sums))
    speed = f", {made / seconds:.1f} images/s" if made else ""
    _say(f"{sum(counts.values())} images, {made} of them new, {seconds:.0f} s{speed}")
    _say(f"look at {folder / 'contact_sheet.png'}")


def _status(config: Config, lost: list[dict], died: list[tuple[str, str]]) -> int:
    reasons = Counter([fault["reason"] for fault in lost] + [why for _, why in died])
    for reason, count in reasons.most_common(8):
        _say(f"  {count} x {reason}")
    people = {fault["pid"] for fault in lost} | {pid for pid, _ in died}
    if len(people) <= FAULTS * config.people:
        return 0
    _say(f"failed: {len(people)} people of {config.people} were lost to faults; run again")
    return 1


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


# ---- the sheet -------------------------------------------------------------------------------


def draw_sheet(folder: Path) -> bytes:
    """Draw the contact sheet: two ground and three aerial images of each of the first people.

    Args:
        folder: Folder of the world.

    Returns:
        A PNG file.
    """
    from viewsynth.report import sheet

    tiles = [list(_tiles(folder, rows)) for rows in _first_rows(folder)]
    shown = []
    for k in range(0, len(tiles), ACROSS):
        shown.append(("", [tile for person in tiles[k : k + ACROSS] for tile in person]))
    return sheet.draw(shown)


def _first_rows(folder: Path) -> list[list[dict]]:
    """Rows of the first people, five of each, from their first instant if there is one."""
    people: dict[str, list[dict]] = {}
    for name in writer.chunks(folder):
        for path in writer.parts_of(folder, name):
            with path.open(encoding="utf-8") as file:
                for line in file:
                    if line.startswith('{"file_name"'):
                        row = json.loads(line)
                        people.setdefault(row["pid"], []).append(row)
        if len(people) >= SHOWN:
            break
    chosen = []
    for pid in sorted(people, key=int)[:SHOWN]:
        rows = sorted(people[pid], key=lambda row: (row["split"] != "paired", row["file_name"]))
        ground = [row for row in rows if row["view"] == "ground"][:2]
        chosen.append(ground + [row for row in rows if row["view"] == "aerial"][:3])
    return chosen


def _tiles(folder: Path, rows: list[dict]):
    from PIL import Image

    from viewsynth.report import sheet

    for row in sorted(rows, key=lambda row: row["elevation"]):
        with Image.open(path_inside(folder, row["file_name"])) as image:
            factor = TALL / max(image.size)
            size = [max(round(side * factor), 1) for side in image.size]
            scaled = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        yield sheet.Tile(f"{row['pid']} {row['elevation']:.0f}°", scaled)
