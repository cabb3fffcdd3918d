# SPDX-License-Identifier: Apache-2.0
"""AG-ReID (v1): one drone and one CCTV camera on a campus, 388 identities.

Source: Nguyen et al., Aerial-Ground Person Re-ID, ICME 2023 (arXiv 2303.08597).

Layout: the folders of `FOLDERS` with images named `P0001T04041A0C3F31.jpg` = person, time (month,
day, half of the day), altitude level, camera (0 drone, 3 CCTV), frame.

Person numbers restart in other sessions, so P, T and A together form an identity. The authors write
it as the integer int(P || T || A). Here it is the string `ag_reid_v1/P0001T04041A0`, which keeps
every digit, so that two identities never collide (releases have a T of four and of five digits).
Each identity therefore has one outfit. Its part A is the altitude level: 0 low, 1 medium, 2 high
(15 to 45 m overall; the metres of each level are not published).

Attributes come from `ATTRIBUTES`, see `qut_attributes`, if that file lies in the root or one folder
above it.

The query and the gallery of a direction have different cameras, so the camera rule removes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from viewsynth.data import layout, qut_attributes
from viewsynth.records import Dataset, Protocol, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="AG-ReID",
    licence="unknown",
    redistribute="unknown",
    citation="Nguyen et al., Aerial-Ground Person Re-ID, ICME 2023",
)

FOLDERS = {  # folder: split, its only camera (None = several)
    "bounding_box_train": ("train", None),
    "query_all_c0": ("query", 0),
    "query_all_c3": ("query", 3),
    "bounding_box_test_all_c0": ("gallery", 0),
    "bounding_box_test_all_c3": ("gallery", 3),
}
PARTS = tuple(FOLDERS)
ATTRIBUTES = "qut_attribute_v4_88_attributes.mat"
EXAMPLE = "P0001T04041A0C3F31.jpg"
NAME = re.compile(r"P(\d+)T(\d+)A(\d+)C(\d+)F(\d+)\.", re.ASCII)
PLATFORM = {0: ("drone", "aerial"), 2: ("wearable", "ground"), 3: ("cctv", "ground")}
AUTHOR = "author, issue 4 of huynguyen792/AG-ReID"
# The paper prints 1,701 queries A->G and 3,331 gallery images; neither fits the author's sums,
# 2,033 = 1,071 + 962 and 10,429 = 3,225 + 7,204. The paper's 21,983 images are those of training
# and gallery: every query image is also in the gallery of its own camera.
PUBLISHED = (
    Published(what="train images", count=11_554, source=AUTHOR),
    Published(what="train identities", count=199, source="paper"),
    Published(what="query images", count=2_033, source=AUTHOR),
    Published(what="gallery images", count=10_429, source=AUTHOR),
    Published(what="test identities", count=189, source="paper"),
    Published(what="A->G query", count=1_071, source="the author's sum and published Rank-1 steps"),
    Published(what="A->G gallery", count=3_225, source="issue 1 of huynguyen792/AG-ReID"),
    Published(what="G->A query", count=962, source="paper"),
    Published(what="G->A gallery", count=7_204, source="paper"),
)


def load(root: str | Path) -> Dataset:
    """AG-ReID.v1 with its protocols "A->G" and "G->A".

    Args:
        root: Folder of the release, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold this data set.
    """
    root = layout.find_root(root, PARTS)
    table, warnings = layout.beside(root, ATTRIBUTES), []
    tree = layout.scan(root, PARTS, [table])
    samples = qut_attributes.add(layout.samples(tree, _parse, EXAMPLE), table, warnings)
    protocols = {}
    for name, query_view, gallery_view in (
        ("A->G", "aerial", "ground"),
        ("G->A", "ground", "aerial"),
    ):
        query = [s for s in samples if s.split == "query" and s.view == query_view]
        gallery = [s for s in samples if s.split == "gallery" and s.view == gallery_view]
        if query and gallery:
            protocols[name] = Protocol(name=name, query=query, gallery=gallery)
    return Dataset(
        name="ag_reid_v1",
        root=root,
        samples=samples,
        protocols=protocols,
        rejects=tree.rejects,
        warnings=warnings,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(name: str, file: str) -> dict:
    split, camera = FOLDERS[name.partition("/")[0]]
    fields, number = parse_name(file, "ag_reid_v1", (0, 3))
    if camera not in (None, number):
        raise layout.FileNameError(f"camera {number} in the folder of camera {camera}")
    return fields | {"split": split}


def parse_name(file: str, dataset: str, cameras: tuple[int, ...]) -> tuple[dict, int]:
    """Parse a file name of AG-ReID.

    Args:
        file: File name without its folders.
        dataset: Scope of the pid.
        cameras: Camera numbers of the data set.

    Returns:
        Fields of `Sample`, and the camera number.

    Raises:
        layout.FileNameError: if the name has another form, or an unknown camera.
    """
    person, time, level, camera, _ = layout.match_name(NAME, file, EXAMPLE).groups()
    number = int(camera)
    if number not in cameras:
        known = ", ".join(f"{c} ({PLATFORM[c][0]})" for c in cameras)
        raise layout.FileNameError(
            f"camera {number} is none of {known}; the first archive of v1 had images of camera 2, "
            "the authors' current archive does not"
        )
    platform, view = PLATFORM[number]
    return {
        "pid": f"{dataset}/P{person}T{time}A{level}",
        "camid": str(number),
        "session": time,
        "platform": platform,
        "view": view,
    }, number
