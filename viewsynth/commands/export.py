# SPDX-License-Identifier: Apache-2.0
"""Hand a run on: 3D bodies, or the pictures in the form of another data set.

viewsynth export body|sheet|market|cargo|webdataset outputs/demo [--output DIR or URL]

- body: `<person>.glb`, textured, standing, facing +z.
- sheet: `<person>.png`, all views, a row an elevation.
- market: `bounding_box_train/0001_c7s1_000001_01.jpg` (Market-1501); cameras 1-6 stay free.
- cargo: `train/Cam14/Cam14_day_1_1.jpg` (CARGO); cameras 1-13 stay free. CARGO's own loaders call
  cameras 1-5 aerial and all others ground: tell them that ours, from 14 on, are aerial.
- webdataset: `000000.tar`, ... with `<key>.jpg` and `<key>.json`, the same bytes for the same run.

Synthetic pictures go into the training set only. Where all pids end in a number of their own they
keep it, so `cargo/2519` is person 2519 again. `sources.jsonl` beside the files says for every new
name which row of the run it was.
"""

from __future__ import annotations

import io
import json
import posixpath
import re
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from viewsynth.config import within
from viewsynth.files import inside, lines

MARKET_CAMERA, CARGO_CAMERA = 7, 14  # the first that no real camera has


@dataclass(frozen=True)
class Config:
    """Bodies as GLB files, or the pictures of a run as another kind of data set."""

    kind: tyro.conf.Positional[Literal["body", "sheet", "market", "cargo", "webdataset"]]
    """What to write."""
    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    output: str | None = None
    """Empty or new folder, or any URL that fsspec writes to; None = <run>/export/<kind>, anew."""
    shard: int = 1000
    """Pictures in a tar of webdataset."""

    def __post_init__(self):
        within("shard", self.shard, 1, 1_000_000)


class Target:
    """The place that is written to: a folder, or whatever fsspec can reach.

    Raises: ValueError: if there is something already, so that two exports never mix.
    """

    def __init__(self, url: str):
        import fsspec

        self.url = url
        self.files, self.root = fsspec.core.url_to_fs(url)
        if self.files.exists(self.root) and (
            not self.files.isdir(self.root) or self.files.ls(self.root, detail=False)
        ):
            raise ValueError(f"output: {url} is not empty; give a new or an empty folder")

    def put(self, name: str, data: bytes) -> None:
        """Write one file; its folders come along."""
        path = posixpath.join(self.root, name)
        self.files.makedirs(posixpath.dirname(path), exist_ok=True)
        with self.files.open(path, "wb") as file:
            file.write(data)


def run(config: Config) -> int:
    """Export, and say what was written where."""
    rows = read_rows(config.run)
    own = config.run / "export" / config.kind
    if config.output is None and own.exists():
        shutil.rmtree(own)  # ours alone: made anew, so that running again is safe
    target = Target(config.output or own.as_posix())
    write = {"body": _bodies, "sheet": _sheets, "webdataset": _webdataset}.get(config.kind)
    written = write(config, rows, target) if write else _renamed(config, rows, target)
    target.put("sources.jsonl", lines(written))
    sys.stderr.write(f"wrote {len(written)} {config.kind} entries to {target.url}\n")
    return 0


def read_rows(folder: Path) -> list[dict]:
    """The rows of a finished run.

    Raises: FileNotFoundError, ValueError: if there are none.
    """
    path = folder / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no finished run: it has no metadata.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    if not rows:
        raise ValueError(f"{path} is empty: no view was kept, see {folder / 'rejects.jsonl'}")
    return sorted(rows, key=lambda row: row["file_name"])


def numbers(pids: set[str]) -> dict[str, int]:
    """A whole number > 0 for every pid: its own last one if that is unique, else 1, 2, ..."""
    found = {pid: re.search(r"(\d{1,9})$", pid) for pid in sorted(pids)}
    own = {pid: int(match[1]) for pid, match in found.items() if match}
    if len(own) == len(set(own.values())) == len(pids) and min(own.values()) > 0:
        return own
    return {pid: number for number, pid in enumerate(sorted(pids), 1)}


def _renamed(config: Config, rows: list[dict], target: Target) -> list[dict]:
    """The pictures under the names of another data set."""
    first = MARKET_CAMERA if config.kind == "market" else CARGO_CAMERA
    person = numbers({row["pid"] for row in rows})
    cameras = {c: first + k for k, c in enumerate(sorted({row["camid"] for row in rows}))}
    counts: Counter = Counter()
    written = []
    for row in rows:
        number, camera = person[row["pid"]], cameras[row["camid"]]
        counts[number, camera] += 1
        index = counts[number, camera]
        if config.kind == "market":
            name = f"bounding_box_train/{number:04d}_c{camera}s1_{index:06d}_01.jpg"
        else:
            name = f"train/Cam{camera}/Cam{camera}_day_{number}_{index}.jpg"
        target.put(name, inside(config.run, row["file_name"]).read_bytes())
        names = {"label": number, "camera": camera, "original": row["file_name"]}
        written.append({"file_name": name, **names, "row": row})
    return written


def _webdataset(config: Config, rows: list[dict], target: Target) -> list[dict]:
    written = []
    for first in range(0, len(rows), config.shard):
        shard, packed = f"{first // config.shard:06d}.tar", io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, row in enumerate(rows[first : first + config.shard], first):
                picture = inside(config.run, row["file_name"]).read_bytes()
                for name, data in (
                    (f"{key:09d}.jpg", picture),
                    (f"{key:09d}.json", json.dumps(row, sort_keys=True).encode()),
                ):
                    entry = tarfile.TarInfo(name)  # no clock, no user: the same bytes
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
                names = {"shard": shard, "key": f"{key:09d}", "original": row["file_name"]}
                written.append({"file_name": f"{shard}/{key:09d}.jpg", **names})
        target.put(shard, packed.getvalue())
    return written


def _people(config: Config, rows: list[dict]) -> Iterator[tuple[str, list[dict]]]:
    """Person files of the run and the rows of each, sorted."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["person"], []).append(row)
    yield from sorted(groups.items())


def _bodies(config: Config, rows: list[dict], target: Target) -> list[dict]:
    """One GLB a person."""
    from viewsynth import bodies, glb
    from viewsynth.reconstruct.posing import Poser
    from viewsynth.records import Person

    written, posers = [], {}
    for file, views in _people(config, rows):
        person = Person.load(inside(config.run, file))
        if person.body not in posers:
            posers[person.body] = Poser(bodies.load(person.body))
        name = f"{Path(file).stem}.glb"
        target.put(name, glb.write(person, posers[person.body], views[0]["pose_mode"]))
        written.append({"file_name": name, "pid": person.pid, "person": file})
    return written


def _sheets(config: Config, rows: list[dict], target: Target) -> list[dict]:
    """One picture a person: all views, a row an elevation, a column an azimuth."""
    from PIL import Image

    from viewsynth import sheet

    written = []
    for file, views in _people(config, rows):
        shown: dict[float, list[sheet.Tile]] = {}
        for row in sorted(views, key=lambda row: (row["elevation"], row["azimuth"])):
            with Image.open(inside(config.run, row["file_name"])) as image:
                tile = sheet.Tile(f"{row['azimuth']:g}°", image.convert("RGB"))
            shown.setdefault(row["elevation"], []).append(tile)
        name = f"{Path(file).stem}.png"
        titles = [(f"{views[0]['pid']}   elevation {e:g}°", tiles) for e, tiles in shown.items()]
        target.put(name, sheet.draw(titles))
        written.append({"file_name": name, "pid": views[0]["pid"], "views": len(views)})
    return written
