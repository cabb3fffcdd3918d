# SPDX-License-Identifier: Apache-2.0
"""Names for the images of a run in the layouts of Market-1501 and CARGO.

People and virtual cameras get the numbers that the readers of those data sets accept.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

FIRST = 900_001  # first image number; real images have lower ones
BAND = 15  # degrees of elevation per virtual camera


@dataclass(frozen=True)
class Form:
    """File names of the training images of a data set, and the limits of its readers.

    Args:
        release: Name of the data set.
        scope: Prefix of its pids.
        name: Template of a file name.
        cameras: Largest camera number that readers accept (CARGO: of a drone).
        people: Largest person number that readers accept.
        empty: Query and gallery folders, which readers expect.
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


def numbers(pids: set[str], most: int) -> dict[str, int]:
    """A person number for every pid: the one at its end if these are unique, else 1, 2, ...

    Args:
        pids: The pids, at most `most`.
        most: Largest number.

    Returns:
        pid -> number in [1, most].
    """
    found = {pid: re.search(r"(?<!\d)0*(\d{1,9})$", pid, re.ASCII) for pid in pids}
    own = {pid: int(match[1]) for pid, match in found.items() if match}
    fits = all(1 <= number <= most for number in own.values())
    if fits and len(own) == len(set(own.values())) == len(pids):
        return own
    return {pid: number for number, pid in enumerate(sorted(pids), 1)}


def cameras(rows: list[dict], most: int) -> dict[str, int]:
    """A camera number for every virtual camera, increasing with the elevation.

    If there are more cameras than numbers, all bands of elevation get equally many numbers, which
    their cameras share; if there are more bands than numbers, neighbouring bands share a number.

    Args:
        rows: Rows of the run.
        most: Largest number.

    Returns:
        camid -> number in [1, most].
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
    """The entries of `sources.jsonl`: new name, label, camera, old name and row of every image.

    Args:
        form: Layout of the data set.
        rows: Rows of the run.

    Returns:
        One entry per row.

    Raises:
        ValueError: if there are more people than the readers accept.
    """
    pids = {row["pid"] for row in rows}
    if len(pids) > form.people:
        raise ValueError(
            f"the run has {len(pids)} people, but readers of {form.release} accept at most "
            f"{form.people}; use `viewsynth export cargo` or `webdataset`"
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
    """Notes for users of the export.

    Args:
        form: Layout of the data set.
        entries: See `renamed`.
        path: The output folder.

    Yields:
        One line each.
    """
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
            f"person {labels[pid]} is {pid!r} (see sources.jsonl for all); in the real "
            f"{form.release} these numbers are other people: do not merge the two"
        )
    yield (
        f"{' and '.join(form.empty)} are empty: synthetic images are for training only; if "
        "a reader needs files there (torchreid), copy those of a real data set"
    )
    if form.scope == "market1501" and re.search(r"[-\d]+_c\d", path):
        yield (
            f"{path} looks like a person and a camera, and readers of Market-1501 search the whole "
            "path: rename that folder"
        )
