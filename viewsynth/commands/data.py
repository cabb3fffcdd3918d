# SPDX-License-Identifier: Apache-2.0
"""Inspect a data set: counts, protocols, fingerprint, problems and a contact sheet.

viewsynth data cargo DIR

Prints what DIR holds and how it differs from the published numbers. Every image is opened once, so
that broken files are found here and not during training. OUTPUT gets `data.json` (all results),
`rejects.jsonl` and `contact_sheet.png` (some images of every camera).
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from viewsynth import data
from viewsynth.config import check_range
from viewsynth.data import Reading
from viewsynth.records import Dataset, Reject, Sample, seed_of, to_dict
from viewsynth.runtime.files import to_jsonl, write
from viewsynth.runtime.workers import cores

if TYPE_CHECKING:
    from viewsynth.report import sheet

FAULTS = 0.01  # largest share of unusable images in a data set that passes
PER_CAMERA = 6  # images of a camera on the sheet
SHOWN = 20  # rejects that are printed
AHEAD = 2048  # images that are queued for the threads at once


@dataclass(frozen=True)
class Config:
    """Counts, protocols and problems of a data set."""

    name: tyro.conf.Positional[str]
    """Layout of the data set, a module of viewsynth.data, e.g. cargo or folder."""
    root: tyro.conf.Positional[Path]
    """Folder of the data set."""
    data: Reading = field(default_factory=Reading)
    output: Path | None = None
    """Folder of the results; None = outputs/data/<name>."""
    json: bool = False
    """Print data.json instead of tables."""
    open: bool = True
    """Open every image to find broken files; --no-open is faster."""
    per_camera: int = PER_CAMERA
    """Images of each camera on the contact sheet."""

    def __post_init__(self):
        check_range("per_camera", self.per_camera, 1, 100)


def run(config: Config) -> int:
    """Inspect, print and write; returns 1 if more than 1 % of the images cannot be used."""
    with quiet():
        dataset = data.load(config.name, config.root, config.data)
    if config.open:
        dataset.rejects.extend(broken(dataset.samples))
    folder = config.output or Path("outputs") / "data" / config.name
    found = describe(dataset)
    sys.stdout.write(json.dumps(found, indent=1) + "\n" if config.json else text(found))
    write(folder / "data.json", (json.dumps(found, indent=1) + "\n").encode())
    write(folder / "rejects.jsonl", to_jsonl([to_dict(reject) for reject in dataset.rejects]))
    write(folder / "contact_sheet.png", draw(dataset, config.per_camera))
    say(f"look at {folder / 'contact_sheet.png'}")
    bad = [reject for reject in dataset.rejects if reject.kind != "skipped"]
    for reject in bad[:SHOWN]:
        say(f"  {reject.source}: {reject.reason}")
    if len(bad) > SHOWN:
        say(f"  … and {len(bad) - SHOWN} more in {folder / 'rejects.jsonl'}")
    if len(bad) <= FAULTS * (len(dataset.samples) + len(bad)):
        return 0
    say(f"failed: {len(bad)} files or rows of {len(dataset.samples)} images cannot be used")
    return 1


@contextlib.contextmanager
def quiet():
    """Silence the warnings of `data.load`, which the tables repeat."""
    logger = logging.getLogger("viewsynth.data")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def broken(samples: list[Sample]) -> list[Reject]:
    """Decode all images in threads.

    Args:
        samples: The samples.

    Returns:
        Rejects of those that cannot be decoded.
    """
    from tqdm import tqdm

    from viewsynth.data import frames
    from viewsynth.data.images import ImageError

    def bad(sample: Sample) -> list[Reject]:
        rejects = []

        def add(path: Path, error: ImageError) -> None:
            name = sample.name if len(sample.paths) == 1 else f"{sample.name}/{path.name}"
            rejects.append(Reject(source=name, stage="input", reason=str(error), pid=sample.pid))

        for _ in frames.iterate(sample, 1, add):
            pass
        return rejects

    found = []
    with (
        ThreadPoolExecutor(cores()) as pool,
        tqdm(total=len(samples), desc="images", unit="image") as bar,
    ):
        for start in range(0, len(samples), AHEAD):
            some = samples[start : start + AHEAD]
            for rejects in pool.map(bad, some):
                found += rejects
            bar.update(len(some))
    return found


def describe(dataset: Dataset) -> dict:
    """The contents of `data.json`."""
    rejects = Counter(reject.kind for reject in dataset.rejects)
    return {
        "name": dataset.name,
        "root": dataset.root.as_posix(),
        "fingerprint": dataset.fingerprint,
        "counts": data.counts(dataset),
        "cameras": {k: _sorted(v) for k, v in data.count_by(dataset, "camid").items()},
        "platforms": {k: _sorted(v) for k, v in data.count_by(dataset, "platform").items()},
        "protocols": {
            name: {
                "query": len(p.query),
                "gallery": len(p.gallery),
                "camera": p.camera,
                "valid_queries": p.valid_queries,
            }
            for name, p in dataset.protocols.items()
        },
        "differences": [
            {"what": p.what, "published": p.count, "found": found, "source": p.source}
            for p, found in data.differences(dataset)
        ],
        "warnings": [*dataset.warnings, *_constant_attributes(dataset.samples)],
        "rejects": dict(rejects),
    }


def _constant_attributes(samples: list[Sample]) -> list[str]:
    """A warning, as a list, if attributes tell no people apart; else empty."""
    from viewsynth.reid import attributes

    people = {(s.pid, s.outfit, s.attributes): s for s in samples if s.attributes}
    try:
        names, values = attributes.table(list(people.values()))
    except ValueError as error:
        return [str(error)]
    if not (constant := attributes.nearly_constant(names, values)):
        return []
    return [
        f"{len(constant)} of {len(names)} attributes are the same for nearly all of {len(values)} "
        f"people, so that nothing can be learnt from them: {', '.join(constant)}"
    ]


def _sorted(counts: Counter) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0])))


def text(found: dict) -> str:
    """The contents of `data.json` as tables for a terminal."""
    out = [f"{found['name']}  {found['root']}  fingerprint {found['fingerprint']}", ""]
    counts, splits = found["counts"], list(found["cameras"])
    out += table(
        ["split", "images", "identities", "cameras"],
        [
            [s, *(counts[f"{s} {what}"] for what in ("images", "identities", "cameras"))]
            for s in splits
        ],
    )
    for what in ("platforms", "cameras"):
        keys = _sorted(sum((Counter(found[what][s]) for s in splits), Counter()))
        rows = [[key, *(found[what][s].get(key, 0) for s in splits)] for key in keys]
        out += ["", *table([what[:-1], *splits], rows)]
    rows = [
        [name, p["query"], p["valid_queries"], p["gallery"], p["camera"]]
        for name, p in found["protocols"].items()
    ]
    head = ["protocol", "queries", "valid", "gallery", "same camera by"]
    out += ["", *(table(head, rows) if rows else ["no protocol: nothing to evaluate"])]
    if found["differences"]:
        rows = [[d["what"], d["found"], d["published"], d["source"]] for d in found["differences"]]
        out += ["", *table(["differs", "here", "published", "by"], rows)]
    out += ["", *(f"warning: {line}" for line in found["warnings"])] if found["warnings"] else []
    if found["rejects"]:
        out += ["", "rejects: " + ", ".join(f"{n} {k}" for k, n in found["rejects"].items())]
    return "\n".join(out) + "\n"


def table(head: list[str], rows: list[list]) -> list[str]:
    """The lines of a table, with numbers aligned right."""
    cells = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[k], int) for row in rows) for k in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]


def draw(dataset: Dataset, count: int) -> bytes:
    """Draw a contact sheet: some images of every camera, chosen by a hash of their names.

    Args:
        dataset: The data set.
        count: Images per camera; broken ones are left out.

    Returns:
        A PNG file.
    """
    from viewsynth.report import sheet

    cameras: dict[tuple, list[Sample]] = {}
    for sample in dataset.samples:
        cameras.setdefault((sample.view, len(sample.camid), sample.camid), []).append(sample)
    rows = []
    for (view, _, camera), samples in sorted(cameras.items()):
        samples.sort(key=lambda sample: seed_of(0, sample.name))
        head = f"camera {camera}   {samples[0].platform}, {view}   {len(samples)} images"
        rows.append((head, _tiles(samples, count)))
    return sheet.draw(rows)


def _tiles(samples: list[Sample], count: int) -> list[sheet.Tile]:
    from PIL import Image

    from viewsynth.data import frames
    from viewsynth.data.images import ImageError
    from viewsynth.report import sheet

    tiles: list[sheet.Tile] = []
    for sample in samples:
        if len(tiles) == count:
            break
        try:
            image = Image.fromarray(next(frames.iterate(sample, 1)).image)
        except ImageError:
            continue
        pid = sample.pid.rpartition("/")[2]
        tiles.append(sheet.Tile(f"{pid}  {sample.split}  {image.width}x{image.height}", image))
    return tiles


def say(line: str) -> None:
    """Write a line to standard error; standard output is for the tables."""
    sys.stderr.write(line + "\n")
