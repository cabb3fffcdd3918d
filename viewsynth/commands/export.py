# SPDX-License-Identifier: Apache-2.0
"""Hand a run on: 3D bodies, or the pictures in the form of another data set.

viewsynth export body|sheet|market|cargo|webdataset outputs/demo [--output DIR or URL]

- body: `<person>.glb`, textured, standing, facing +z.
- sheet: `<person>.png`, all views, a row an elevation.
- market: `bounding_box_train/0001_c2s1_900001_01.jpg` (Market-1501), cameras 1 to 6, people 1 to
  1501: what the readers of fast-reid and torchreid, and ours, accept.
- cargo: `train/Cam2/Cam2_day_1_900001.jpg` (CARGO), cameras 1 to 5, which its readers call aerial.
- webdataset: `000000.tar`, ... with `<key>.jpg` and `<key>.json`, the same bytes for the same run.

Of market and cargo: more virtual cameras than numbers share numbers by elevation, and the command
says which. Synthetic pictures are for training only, so the folders of queries and gallery are
empty. Where all pids end in a number of their own they keep it, so `cargo/2519` is person 2519
again. Running numbers begin at 900001, so that copying into the real set overwrites no picture;
there a number of a camera stands for a real and a virtual one. `sources.jsonl` beside the files
says for every new name which row of the run it was, with its true camera; our readers take what it
names for synthetic and aerial.
"""

from __future__ import annotations

import io
import json
import math
import posixpath
import re
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import tyro

from viewsynth.config import within
from viewsynth.runtime.files import inside, lines

FIRST = 900_001  # running numbers from here on are those of no real picture
BAND = 15  # degrees of elevation of a virtual camera
COLUMNS = {  # that an export reads; all but that of bodies read the picture, too
    "body": ("file_name", "person"),
    "sheet": ("file_name", "pid", "person", "elevation"),
    "market": ("file_name", "pid", "camid", "elevation"),
    "cargo": ("file_name", "pid", "camid", "elevation"),
    "webdataset": ("file_name",),
}
EXPECTED = "expected the metadata.jsonl that `viewsynth generate` wrote"


@dataclass(frozen=True)
class Form:
    """How a data set names its training pictures, and what its readers accept.

    Args:
        release: Name of the data set.
        scope: What its pids begin with.
        name: Form of a file name.
        cameras: Readers take the numbers 1 to this one; of CARGO those that fly.
        people: Readers take the numbers 1 to this one.
        empty: Folders of queries and gallery, which readers expect.
    """

    release: str
    scope: str
    name: str
    cameras: int
    people: int
    empty: tuple[str, str]


FORMS = {
    "market": Form(
        "Market-1501",
        "market1501",
        "bounding_box_train/{label:04d}_c{camera}s1_{index:06d}_01.jpg",
        6,
        1501,
        ("query", "bounding_box_test"),
    ),
    "cargo": Form(
        "CARGO",
        "cargo",
        "train/Cam{camera}/Cam{camera}_day_{label}_{index}.jpg",
        5,
        999_999_999,
        ("query", "gallery"),
    ),
}


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
    rows = read_rows(config.run, config.kind)
    form = FORMS.get(config.kind)
    entries = renamed(form, rows) if form else []
    own = config.run / "export" / config.kind
    if config.output is None and own.exists():
        shutil.rmtree(own)  # ours alone: made anew, so that running again is safe
    target = Target(config.output or own.as_posix())
    if form:
        written = _copied(config.run, form, entries, target)
    else:
        write = {"body": _bodies, "sheet": _sheets, "webdataset": _webdataset}[config.kind]
        written = write(config, rows, target)
    target.put("sources.jsonl", lines(written))
    sys.stderr.write(f"wrote {len(written)} {config.kind} entries to {target.url}\n")
    for note in notes(form, entries, target.root) if form else ():
        sys.stderr.write(f"{note}\n")
    return 0


def read_rows(folder: Path, kind: str) -> list[dict]:
    """The rows of a finished run, sorted by file name, checked as far as a kind of export reads.

    Raises: FileNotFoundError, ValueError: if there are none, if one is no row of a run, or if its
        picture is not there.
    """
    path = folder / "metadata.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no finished run: it has no metadata.jsonl; give the folder that "
            "`viewsynth generate` wrote"
        )
    rows = [
        _row(line, f"{path}:{number}", folder, kind)
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if line.strip()
    ]
    if not rows:
        raise ValueError(
            f"{path} is empty: no view was kept; {folder / 'rejects.jsonl'} says why, nothing can "
            "be exported"
        )
    return sorted(rows, key=lambda row: row["file_name"])


def _row(line: bytes, where: str, folder: Path, kind: str) -> dict:
    """A line of `metadata.jsonl`, checked."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{where}: expected a row of JSON, got {line[:40]!r} ({error}); run `viewsynth "
            "generate` again, it writes the file anew"
        ) from error
    row = row if isinstance(row, dict) else {}
    for key in COLUMNS[kind]:
        value = row.get(key)
        if key == "elevation":
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{where}: {key} must be a number, got {value!r}; {EXPECTED}")
        elif not isinstance(value, str) or not value:
            raise ValueError(f"{where}: {key} must be a text, got {value!r}; {EXPECTED}")
    if kind != "body" and not inside(folder, row["file_name"]).is_file():
        raise FileNotFoundError(
            f"{where}: there is no picture {row['file_name']} in {folder}; put it back, or run "
            "`viewsynth generate` anew"
        )
    return row


def numbers(pids: set[str], most: int) -> dict[str, int]:
    """A whole number in [1, most] for every pid: its own last one if those fit, else 1, 2, ...

    Own numbers fit if each is there once. There must be no more pids than `most`.
    """
    found = {pid: re.search(r"(?<!\d)0*(\d{1,9})$", pid, re.ASCII) for pid in pids}
    own = {pid: int(match[1]) for pid, match in found.items() if match}
    fits = all(1 <= number <= most for number in own.values())
    if fits and len(own) == len(set(own.values())) == len(pids):
        return own
    return {pid: number for number, pid in enumerate(sorted(pids), 1)}


def cameras(rows: list[dict], most: int) -> dict[str, int]:
    """A number in [1, most] for every virtual camera, rising with the elevation.

    Where there are more cameras than numbers, every band of elevations gets as many numbers as the
    others, and its cameras share them; where there are more bands, neighbouring bands share one.
    """
    lowest: dict[str, float] = {}
    for row in rows:
        lowest[row["camid"]] = min(row["elevation"], lowest.get(row["camid"], math.inf))
    order = sorted(lowest, key=lambda camid: (lowest[camid] // BAND, camid))
    if len(order) <= most:
        return {camid: number for number, camid in enumerate(order, 1)}
    bands = [list(some) for _, some in groupby(order, key=lambda camid: lowest[camid] // BAND)]
    each = most // len(bands)
    return {
        camid: 1 + (k * each + place * each // len(band) if each else k * most // len(bands))
        for k, band in enumerate(bands)
        for place, camid in enumerate(band)
    }


def renamed(form: Form, rows: list[dict]) -> list[dict]:
    """The entries of `sources.jsonl`: new name, label, camera, old name and row of every picture.

    Raises: ValueError: if there are more people than the readers of that form have numbers for.
    """
    pids = {row["pid"] for row in rows}
    if len(pids) > form.people:
        raise ValueError(
            f"the run has {len(pids)} people, and readers of {form.release} take at most "
            f"{form.people}; `viewsynth export cargo` and `webdataset` take any number"
        )
    label, camera = numbers(pids, form.people), cameras(rows, form.cameras)
    counts: Counter = Counter()
    entries = []
    for row in rows:
        place = {"label": label[row["pid"]], "camera": camera[row["camid"]]}
        name = form.name.format(**place, index=FIRST + counts[*place.values()])
        counts[*place.values()] += 1
        entries.append({"file_name": name, **place, "original": row["file_name"], "row": row})
    return entries


def notes(form: Form, entries: list[dict], path: str) -> Iterator[str]:
    """What whoever reads the pictures exported to `path` must know."""
    shared: dict[int, set[str]] = {}
    for entry in entries:
        shared.setdefault(entry["camera"], set()).add(entry["row"]["camid"])
    for camera, camids in sorted(shared.items()):
        if len(camids) > 1:
            yield f"camera {camera} is shared by the virtual cameras {', '.join(sorted(camids))}"
    labels = {entry["row"]["pid"]: entry["label"] for entry in entries}
    if not all(re.fullmatch(f"{form.scope}/0*{label}", pid) for pid, label in labels.items()):
        pid = min(labels, key=lambda pid: labels[pid])
        yield (
            f"person {labels[pid]} is {pid!r}, and so on, see sources.jsonl; in the real "
            f"{form.release} the same numbers are other people: do not copy the two together"
        )
    yield (
        f"{' and '.join(form.empty)} are empty: these pictures are for training only; for readers "
        "that need some there (torchreid), copy in those of a real set"
    )
    if form.scope == "market1501" and re.search(r"[-\d]+_c\d", path):
        yield (
            f"{path} itself reads like a person and a camera, and readers of Market-1501 search "
            "the whole path: rename that folder"
        )


def _copied(run: Path, form: Form, entries: list[dict], target: Target) -> list[dict]:
    """The pictures under the names of another data set."""
    for entry in entries:
        target.put(entry["file_name"], inside(run, entry["original"]).read_bytes())
    for folder in form.empty:
        target.put(f"{folder}/.keep", b"")  # hidden, no picture: an empty folder anywhere
    return entries


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
    from viewsynth import bodies
    from viewsynth.reconstruct.posing import Poser
    from viewsynth.records import Person
    from viewsynth.report import glb

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

    from viewsynth.report import sheet

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
