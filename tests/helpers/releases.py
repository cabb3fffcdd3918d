# SPDX-License-Identifier: Apache-2.0
"""Small releases of every data set in their official layouts, with the pitfalls of their names.

`write(name, root)` creates one. Each has train, query and gallery, a valid query in every protocol,
distractors, and, where the data set has them, junk identities. `LISTS` holds the file names of the
protocol lists, `IMAGES` the number of samples that a loader should find.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from viewsynth.data import (
    ag_reid_challenge,
    ag_reid_v2,
    cp2108,
    g2aps_reid,
    lagper,
    qut_attributes,
)
from viewsynth.records import Dataset
from viewsynth.runtime.images import jpeg

LISTS = {
    "ag_reid_v2": tuple(ag_reid_v2.LISTS.values()),
    "lagper": tuple(lagper.LISTS.values()),
    "g2aps_reid": tuple(g2aps_reid.LISTS.values()),
}


def write(name: str, root: Path) -> Path:
    """Create a release in the new folder `root`, and return that folder."""
    root.mkdir(parents=True)
    WRITERS[name](root)
    return root


@functools.cache
def image_of(seed: int) -> bytes:
    """A plain 24x48 JPEG."""
    return jpeg(np.full((48, 24, 3), [seed, 255 - seed, 128], np.uint8))


def put(root: Path, *names: str) -> None:
    """Create images; the colour of each depends on its name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_of(hashlib.sha256(name.encode()).digest()[0]))


def put_list(root: Path, name: str, *rows: str, end: str = "\n") -> None:
    """Create a protocol list."""
    (root / name).write_bytes("".join(row + end for row in rows).encode())


# ---- the data sets -----------------------------------------------------------------------------


def _cargo(root: Path, people: str = "{}") -> None:
    """Small enough to count by hand, see `test_protocols_of_cargo`."""
    for split, places in {
        "train": [(1, 1), (1, 6), (2, 2), (2, 13), (2, 13)],
        "query": [(7, 1), (7, 6), (8, 3), (9, 10), (10, 5)],
        "gallery": [(7, 2), (7, 7), (8, 9), (8, 3), (9, 10), (9, 4), (10, 5), (11, 13)],
    }.items():
        for index, (pid, camera) in enumerate(places):
            name = people.format(pid)
            put(root, f"{split}/Cam{camera}/Cam{camera}_day_{name}_{index}.jpg")


def _ag_reid_v1(root: Path) -> None:
    train, test = "bounding_box_train", "bounding_box_test_all_c"
    # Joining the digits would merge the first two people, P alone the first and the third.
    for pid in ("P0001T04041A0", "P00010T4041A0", "P0001T04040A0"):
        put(root, f"{train}/{pid}C0F1.jpg", f"{train}/{pid}C3F20.jpg")
    for pid in ("P0002T0404A1", "P0003T04041A2"):
        put(root, f"query_all_c0/{pid}C0F5.jpg", f"query_all_c3/{pid}C3F7.jpg")
        put(root, f"{test}0/{pid}C0F5.jpg", f"{test}0/{pid}C0F6.jpg", f"{test}3/{pid}C3F7.jpg")
    put(root, f"{test}0/P0004T04041A2C0F1.jpg", "query_all_c3/P0005T04041A2C3F1.jpg")


def _ag_reid_v2(root: Path) -> None:
    inner, rows = root / "AG-ReID.v2" / "AG-ReID.v2", {}
    for pid in ("P0001T04041A0", "P0001T04040A0"):
        put(inner, *(f"train_all/{pid}/{pid}C{camera}F1.jpg" for camera in (0, 2, 3)))
    for pid in ("P0101T04041A1", "P0102T04041A2"):
        for camera, frame in ((0, 1), (0, 2), (2, 1), (3, 1)):
            for split in ("query", "gallery"):
                name = f"{split}/{pid}/{pid}C{camera}F{frame}{len(split)}.jpg"
                put(inner, name)
                rows.setdefault((split, camera), []).append(name)
    for file, (asked, searched) in zip(
        LISTS["ag_reid_v2"], ((0, 3), (0, 2), (3, 0), (2, 0)), strict=True
    ):
        put_list(inner.parent, file, *rows["query", asked], *rows["gallery", searched])


def _ag_reid_challenge(root: Path) -> None:
    train = ("P0001T04041A0", "P0001T04040A0")
    test = ("P0101T04041A1", "P0102T04041A2")
    for pid in train:
        put(root, *(f"bounding_box_train/{pid}C{camera}F1.jpg" for camera in (0, 2, 3)))
    for folder, asked, searched in (
        ("exp3_aerial_to_ground", (0,), (2, 3)),
        ("exp6_ground_to_aerial", (2, 3), (0,)),
    ):
        for pid in test:
            put(root, *(f"{folder}/query/{pid}C{camera}F5.jpg" for camera in asked))
            put(root, *(f"{folder}/bounding_box_test/{pid}C{camera}F7.jpg" for camera in searched))
        put(root, f"gallery_add_on/{folder}/P0201T04041A1C{searched[0]}F9.jpg")
    attributes = {pid: row_of(n) for n, pid in enumerate((*train, *test, "P0201T04041A1"))}
    put_attributes(root / ag_reid_challenge.ATTRIBUTES, attributes)


def row_of(seed: int) -> list[int]:
    """88 values of an attribute file, one 2 (yes) in each group."""
    groups = [count for _, count in qut_attributes.GROUPS.values()]
    return [2 if n == seed % count else 1 for count in groups for n in range(count)]


def fields() -> list[str]:
    """Names of the columns as the file of AG-ReID has them: their group, and more."""
    groups = qut_attributes.GROUPS.items()
    return [f"{key}{'abcdefghijklm'[n]}" for key, (_, count) in groups for n in range(count)]


def put_attributes(path: Path, rows: dict[str, list[int]]) -> None:
    """Create an attribute file of AG-ReID: half of the identities in train, half in test."""
    parts = {}
    for number, split in enumerate(qut_attributes.SPLITS):
        some = dict(list(rows.items())[number::2])
        columns = dict(zip(fields(), zip(*some.values(), strict=True), strict=True))
        parts[split] = columns | {"image_index": [index_of(pid) for pid in some]}
    savemat(path, {"qut_attribute": parts})


def index_of(pid: str) -> int:
    """An identity as the attribute files write it."""
    return int("".join(letter for letter in pid if letter.isdigit()))


def _cp2108(root: Path) -> None:
    rows: dict[str, list[str]] = {}
    for split, places in {
        "train": [(1, 3), (1, 25), (2, 4), (2, 39)],
        "query": [(11, 1), (11, 23), (12, 22), (12, 24)],
        "gallery": [(11, 2), (11, 30), (12, 5), (12, 31), (13, 6)],
    }.items():
        for index, (pid, camera) in enumerate(places):
            name = f"{pid:04d}_{camera}_{index % 2}_5_{index:06d}.jpg"
            put(root, f"{cp2108.IMAGES}/{name}")
            rows.setdefault(split, []).append(name)
    put(root, f"{cp2108.IMAGES}/-1_7_0_5_000001.jpg", f"{cp2108.IMAGES}/0099_7_0_5_000001.jpg")
    (root / "split_v100").mkdir()
    for split, file in cp2108.LISTS.items():
        put_list(root, file, *rows[split])
    traits = {"Upper Color": "Black", "View": "ground"}
    (root / cp2108.TRAITS).write_text(
        json.dumps({"0001_0_0": traits, "0001_1_0": {"Upper Color": "blue"}, "2_1_1": ["hat"]})
    )
    (root / cp2108.CAPTIONS).write_text(json.dumps({"0001_0_0": "A man.", "0001_1_1": "Seen."}))


def vehicles_release(root: Path) -> None:
    """AGID or CVPair in the layout of `viewsynth.data.vehicles`."""
    for split, numbers in {"train": (1, 2), "query": (3, 4), "gallery": (3, 4, 5)}.items():
        for number in numbers:
            shift = split == "query"  # its cameras differ from those of the gallery
            put(root, f"{split}/aerial/v{number:04d}_c{1 + shift}_000001.jpg")
            put(root, f"{split}/ground/v{number:04d}_c{3 + shift}_000001.jpg")


def lagper_release(root: Path, missing: int = 10) -> None:
    """LAGPeR without camera 10 or 11, as `missing` says."""
    for number in range(1, 14):
        if number != missing:
            put(root, f"bounding_box_train/{number % 3:04d}/{number % 3:04d}_c{number}_00001.jpg")
    put(root, "bounding_box_train/-1/-1_c4_000001.jpg")
    air, ground = "bounding_box_test_aerial", "bounding_box_test_ground"
    for pid in ("0101", "0102"):
        put(root, f"query_aerial/{pid}/{pid}_c16_000001.jpg")
        put(root, f"query_ground/{pid}/{pid}_c14_000002.jpg")
        put(root, f"{air}/{pid}/{pid}_c16_000003.jpg", f"{ground}/{pid}/{pid}_c15_000004.jpg")
    put(root, f"{ground}/0102/0102_c14_000005.jpg", f"{air}/0103/0103_c22_000006.jpg")
    asked, found = _below(root, "query_aerial"), _below(root, ground)
    put_list(root, "exp3_A2G+.txt", *asked, *found)
    asked, more = _below(root, "query_ground"), _below(root, air)
    put_list(root, "exp4_G2A+.txt", *asked, *more)
    put_list(root, "exp5_G2A+G.txt", *asked, *more, *found)


def _g2aps_reid(root: Path) -> None:
    for pid in (1, 2, 5555):
        for camera in (0, 3):
            put(root, f"bounding_box_train/{pid}/{pid:04d}_c{camera}v1_000345.jpg")
    for pid in (11, 12):
        for camera in (0, 3):
            for folder in (f"query_c{camera}", f"bounding_box_test_c{camera}"):
                put(root, f"{folder}/{pid}/{pid:04d}_c{camera}v2_000001.jpg")
    put(root, *(f"bounding_box_gallery/5555_c{camera}v1_000009.jpg" for camera in (0, 3)))
    for file, asked, searched in (("exp3_A2G+.txt", 0, 3), ("exp4_G2A+.txt", 3, 0)):
        rows = _below(root, f"query_c{asked}") + _below(root, f"bounding_box_test_c{searched}")
        put_list(root, file, *rows, f"bounding_box_gallery/5555_c{searched}v1_000009.jpg")


def _market1501(root: Path) -> None:
    for pid in ("0002", "0007", "-1", "0000"):
        put(root, f"bounding_box_train/{pid}_c1s1_000451_03.jpg")
        put(root, f"bounding_box_train/{pid}_c6s3_000453_01.jpg")
    for pid in ("0001", "0003"):
        put(root, f"query/{pid}_c1s1_001051_00.jpg", f"query/{pid}_c4s1_001051_00.jpg")
        put(root, f"bounding_box_test/{pid}_c1s1_001052_00.jpg")
    put(root, "bounding_box_test/0001_c2s1_001053_00.jpg")
    put(root, "bounding_box_test/0000_c2s1_000001_00.jpg")
    put(root, "bounding_box_test/-1_c2s1_000002_00.jpg")


def _folder(root: Path) -> None:
    rows = [("file_name", "pid", "camid", "platform", "view", "split")]
    for pid, splits in (("ann", ("train", "train")), ("bob", ("query", "gallery"))):
        for split, (camid, platform, view) in zip(
            splits, (("1", "cctv", "ground"), ("2", "drone", "aerial")), strict=True
        ):
            put(root, f"{pid}/{split}_{camid}.jpg")
            rows.append((f"{pid}/{split}_{camid}.jpg", pid, camid, platform, view, split))
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _world(root: Path) -> None:
    """The small release of CARGO with the tables of a world, and a folder `paired`."""
    _cargo(root, people="{:04d}")
    put(root, "paired/0007/0_Cam1.jpg", "parts/train/Cam1/Cam1_day_0001_0.jpg")
    names = [n for split in ("gallery", "paired", "query", "train") for n in _below(root, split)]
    rows = [world_row(name) for name in names]
    _lines(root / "truth.jsonl", rows)
    people = sorted({row["pid"] for row in rows})
    _lines(
        root / "people.jsonl",
        [
            {"pid": pid, "caption": f"Person {pid}.", "attributes": [int(pid) % 2, 1]}
            for pid in people
        ],
    )
    (root / "world.json").write_text(json.dumps({"format": 1, "attributes": ["odd", "tall"]}))


def world_row(name: str) -> dict:
    """A row of truth.jsonl for an image."""
    split, folder, file = name.split("/")
    camera = int((folder if split != "paired" else file[2:-4])[3:])
    pid = folder if split == "paired" else file.split("_")[2]
    aerial = camera <= 5
    return {
        "file_name": name,
        "pid": pid,
        "camid": camera,
        "platform": "drone" if aerial else "cctv" if camera <= 10 else "wearable",
        "view": "aerial" if aerial else "ground",
        "split": split,
        "index": 0,
        "instant": "",
        "elevation": 10.5 * camera % 90,
        "azimuth": 15.25,
        "distance": 20.0 + camera,
        "altitude": 3.5 * camera,
        "target_height": 0.9,
        "keypoints": [[1.5, 2.5, 1]] * 3,
    }


def _lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _below(root: Path, folder: str) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in (root / folder).rglob("*.jpg"))


WRITERS = {
    "ag_reid_challenge": _ag_reid_challenge,
    "ag_reid_v1": _ag_reid_v1,
    "ag_reid_v2": _ag_reid_v2,
    "agid": vehicles_release,
    "cargo": _cargo,
    "cp2108": _cp2108,
    "cvpair": vehicles_release,
    "folder": _folder,
    "g2aps_reid": _g2aps_reid,
    "lagper": lagper_release,
    "market1501": _market1501,
    "world": _world,
}
IMAGES = {
    "ag_reid_challenge": 20,
    "ag_reid_v1": 18,
    "ag_reid_v2": 22,
    "agid": 14,
    "cargo": 18,
    "cp2108": 13,
    "cvpair": 14,
    "folder": 4,
    "g2aps_reid": 14,
    "lagper": 22,
    "market1501": 12,
    "world": 18,
}


def content(dataset: Dataset) -> tuple:
    """Everything that a loader found, without the paths."""
    samples = [{**vars(s), "paths": None} for s in dataset.samples]
    protocols = {
        key: ([s.name for s in p.query], [s.name for s in p.gallery], p.camera)
        for key, p in dataset.protocols.items()
    }
    return samples, protocols, dataset.rejects, dataset.fingerprint


def reasons(dataset: Dataset) -> dict[str, str]:
    """Source of each reject -> its reason."""
    return {reject.source: reject.reason for reject in dataset.rejects}
