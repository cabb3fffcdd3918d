# SPDX-License-Identifier: Apache-2.0
"""Export a run: 3D bodies, contact sheets, or its images in the layout of another data set.

viewsynth export body|sheet|market|cargo|webdataset outputs/demo [--output DIR or URL]
viewsynth export submission outputs/evaluate [--output DIR or URL]

- body: `<person>.glb`, textured, standing, facing +z; your own meshes as they were drawn.
- sheet: `<person>.png`, all views, one row per elevation.
- market: `bounding_box_train/0001_c2s1_900001_01.jpg` (Market-1501), cameras 1 to 6, people 1 to
  1501: what the readers of fast-reid, torchreid and viewsynth accept.
- cargo: `train/Cam2/Cam2_day_1_900001.jpg` (CARGO), cameras 1 to 5, which its readers take as
  aerial.
- webdataset: `000000.tar`, ... with `<key>.jpg` and `<key>.json`; equal runs give equal bytes.
- submission: `submission.csv` of the AG-ReID 2023 challenge, from the output of `viewsynth
  evaluate`, see `viewsynth.evaluate.submission`; `sources.jsonl` has the image behind each answer.

For market and cargo: if there are more virtual cameras than numbers, cameras of similar elevation
share a number, and the command prints which. Synthetic images are for training only, so the query
and gallery folders are empty. If every pid ends in a number of its own, people keep it:
`cargo/2519` becomes person 2519. Image numbers start at 900001, so that copying into the real data
set overwrites no image; a camera number then stands for a real and a virtual camera. For every
exported file, `sources.jsonl` has the row of the run, with the virtual camera; the readers of
viewsynth take the files it lists as synthetic and aerial.
"""

from __future__ import annotations

import io
import json
import math
import posixpath
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from viewsynth.config import check_range
from viewsynth.manifest.renaming import FORMS, Form, notes, renamed
from viewsynth.runtime.files import path_inside, to_jsonl

COLUMNS = {  # columns that an export reads; all exports but body read the image, too
    "body": ("file_name", "person"),
    "sheet": ("file_name", "pid", "person", "elevation"),
    "market": ("file_name", "pid", "camid", "elevation"),
    "cargo": ("file_name", "pid", "camid", "elevation"),
    "webdataset": ("file_name",),
}
EXPECTED = "expected the metadata.jsonl that `viewsynth generate` wrote"


@dataclass(frozen=True)
class Config:
    """Bodies as GLB files, or the images of a run in the layout of another data set."""

    kind: tyro.conf.Positional[
        Literal["body", "sheet", "market", "cargo", "webdataset", "submission"]
    ]
    """What to export."""
    run: tyro.conf.Positional[Path]
    """Folder of a finished run; for submission, that of `viewsynth evaluate`."""
    output: str | None = None
    """New or empty folder, or a URL for fsspec; None = <run>/export/<kind>, which is replaced."""
    shard: int = 1000
    """Images per tar file of webdataset."""

    def __post_init__(self):
        check_range("shard", self.shard, 1, 1_000_000)


class Target:
    """The output folder, local or at any URL that fsspec can write to.

    Args:
        url: The folder or URL.

    Raises:
        ValueError: if it is not empty, so that two exports never mix.
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
        """Write one file and create its folders.

        Args:
            name: Path in the output folder.
            data: The bytes of the file.
        """
        path = posixpath.join(self.root, name)
        self.files.makedirs(posixpath.dirname(path), exist_ok=True)
        with self.files.open(path, "wb") as file:
            file.write(data)


def run(config: Config) -> int:
    """Export, and print what was written where; returns 0."""
    rows = _answers(config) if config.kind == "submission" else read_rows(config.run, config.kind)
    form = FORMS.get(config.kind)
    entries = renamed(form, rows) if form else []
    own = config.run / "export" / config.kind
    if config.output is None and own.exists():
        shutil.rmtree(own)  # written by export alone, so it can be replaced
    target = Target(config.output or own.as_posix())
    if form:
        written = _copied(config.run, form, entries, target)
    else:
        written = WRITERS[config.kind](config, rows, target)
    target.put("sources.jsonl", to_jsonl(written))
    sys.stderr.write(f"wrote {len(written)} {config.kind} entries to {target.url}\n")
    for note in notes(form, entries, target.root) if form else ():
        sys.stderr.write(f"{note}\n")
    return 0


def read_rows(folder: Path, kind: str) -> list[dict]:
    """Read the rows of a finished run and check the columns that an export reads.

    Args:
        folder: Folder of the run.
        kind: Kind of export.

    Returns:
        The rows, sorted by file name.

    Raises:
        FileNotFoundError: if there is no `metadata.jsonl`, or an image is missing.
        ValueError: if there are no rows, or a column is missing or wrong.
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
            f"{path} is empty, so nothing can be exported: no view was kept; see "
            f"{folder / 'rejects.jsonl'} for the reasons"
        )
    return sorted(rows, key=lambda row: row["file_name"])


def _row(line: bytes, where: str, folder: Path, kind: str) -> dict:
    """A line of `metadata.jsonl`, checked."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{where}: expected a row of JSON, got {line[:40]!r} ({error}); run `viewsynth "
            "generate` again, which rewrites the file"
        ) from error
    row = row if isinstance(row, dict) else {}
    for key in COLUMNS[kind]:
        value = row.get(key)
        if key == "elevation":
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{where}: {key} must be a number, got {value!r}; {EXPECTED}")
        elif not isinstance(value, str) or not value:
            raise ValueError(f"{where}: {key} must be text, got {value!r}; {EXPECTED}")
    if kind != "body" and not path_inside(folder, row["file_name"]).is_file():
        raise FileNotFoundError(
            f"{where}: there is no image {row['file_name']} in {folder}; put it back, or run "
            "`viewsynth generate` in a new folder"
        )
    return row


def _copied(run: Path, form: Form, entries: list[dict], target: Target) -> list[dict]:
    """Write the images under the file names of another data set."""
    for entry in entries:
        target.put(entry["file_name"], path_inside(run, entry["original"]).read_bytes())
    for folder in form.empty:
        target.put(f"{folder}/.keep", b"")  # hidden and no image, so the folder counts as empty
    return entries


def _webdataset(config: Config, rows: list[dict], target: Target) -> list[dict]:
    written = []
    for first in range(0, len(rows), config.shard):
        shard, packed = f"{first // config.shard:06d}.tar", io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, row in enumerate(rows[first : first + config.shard], first):
                picture = path_inside(config.run, row["file_name"]).read_bytes()
                for name, data in (
                    (f"{key:09d}.jpg", picture),
                    (f"{key:09d}.json", json.dumps(row, sort_keys=True).encode()),
                ):
                    entry = tarfile.TarInfo(name)  # without time and user, for equal bytes
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
                names = {"shard": shard, "key": f"{key:09d}", "original": row["file_name"]}
                written.append({"file_name": f"{shard}/{key:09d}.jpg", **names})
        target.put(shard, packed.getvalue())
    return written


def _answers(config: Config) -> list[dict]:
    from viewsynth.evaluate import submission

    rows = submission.answers(config.run)
    if len(rows) != submission.QUERIES:
        sys.stderr.write(f"{len(rows)} answers; the challenge has {submission.QUERIES} queries\n")
    return rows


def _submission(config: Config, rows: list[dict], target: Target) -> list[dict]:
    from viewsynth.evaluate import submission

    target.put("submission.csv", submission.to_csv(rows))
    return rows


def _people(config: Config, rows: list[dict]) -> Iterator[tuple[str, list[dict]]]:
    """Person files of the run, sorted, with the rows of each."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["person"], []).append(row)
    yield from sorted(groups.items())


def _bodies(config: Config, rows: list[dict], target: Target) -> list[dict]:
    """Write one GLB file per person."""
    from viewsynth import bodies
    from viewsynth.reconstruct.posing import Poser
    from viewsynth.records import MESH, Person
    from viewsynth.report import glb

    written, posers = [], {MESH: None}
    for file, views in _people(config, rows):
        person = Person.load(path_inside(config.run, file))
        if person.body not in posers:
            posers[person.body] = Poser(bodies.load(person.body))
        name = f"{Path(file).stem}.glb"
        target.put(name, glb.write(person, posers[person.body], views[0]["pose_mode"]))
        written.append({"file_name": name, "pid": person.pid, "person": file})
    return written


def _sheets(config: Config, rows: list[dict], target: Target) -> list[dict]:
    """Write one sheet per person: a row per elevation, a column per azimuth."""
    from PIL import Image

    from viewsynth.report import sheet

    written = []
    for file, views in _people(config, rows):
        shown: dict[float, list[sheet.Tile]] = {}
        for row in sorted(views, key=lambda row: (row["elevation"], row["azimuth"])):
            with Image.open(path_inside(config.run, row["file_name"])) as image:
                tile = sheet.Tile(f"{row['azimuth']:g}°", image.convert("RGB"))
            shown.setdefault(row["elevation"], []).append(tile)
        name = f"{Path(file).stem}.png"
        titles = [(f"{views[0]['pid']}   elevation {e:g}°", tiles) for e, tiles in shown.items()]
        target.put(name, sheet.draw(titles))
        written.append({"file_name": name, "pid": views[0]["pid"], "views": len(views)})
    return written


WRITERS = {
    "body": _bodies,
    "sheet": _sheets,
    "webdataset": _webdataset,
    "submission": _submission,
}
