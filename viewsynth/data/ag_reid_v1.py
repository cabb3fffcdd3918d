# SPDX-License-Identifier: Apache-2.0
"""AG-ReID (v1): one drone and one CCTV camera over a campus, 388 identities.

Source: Nguyen et al., Aerial-Ground Person Re-ID, ICME 2023 (arXiv 2303.08597). Layout: the folders
of `FOLDERS` with pictures named `P0001T04041A0C3F31.jpg` = person, time (month, day, half of the
day), altitude level, camera (0 drone, 3 CCTV), frame.

The number after P begins again in other sessions: an identity is P, T and A together. The authors
write it as one integer, int(P || T || A); here it is `ag_reid_v1/P0001T04041A0`, digit by digit, so
that two identities never become one whatever the width of the fields (releases have a T of four and
of five digits). Each thus has one outfit. The levels are 0 low, 1 medium, 2 high (15 to 45 m in
all; no page gives the metres of each): the drone's pictures have "altitude_level:0".

Queries and gallery of a direction never share a camera, so nothing is removed as "same camera".
"""

from __future__ import annotations

import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Protocol, Published

FOLDERS = {  # name: split, the one camera in it
    "bounding_box_train": ("train", None),
    "query_all_c0": ("query", 0),
    "query_all_c3": ("query", 3),
    "bounding_box_test_all_c0": ("gallery", 0),
    "bounding_box_test_all_c3": ("gallery", 3),
}
PARTS = tuple(FOLDERS)
FORM = "P0001T04041A0C3F31.jpg"
NAME = re.compile(r"P(\d+)T(\d+)A(\d+)C(\d+)F(\d+)\.", re.ASCII)
PLATFORM = {0: ("drone", "aerial"), 2: ("wearable", "ground"), 3: ("cctv", "ground")}
AUTHOR = "author, issue 4 of huynguyen792/AG-ReID"
# The paper prints 1,701 queries A->G and 3,331 pictures of the gallery; neither fits the author's
# sums, 2,033 = 1,071 + 962 and 10,429 = 3,225 + 7,204. The paper's 21,983 images are those of
# training and gallery: every query is in the gallery of its own camera, too.
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

    Raises: FileNotFoundError, layout.LayoutError: if it is not there.
    """
    root = layout.find_root(root, PARTS)
    tree = layout.scan(root, PARTS)
    samples = layout.samples(tree, _parse, FORM)
    protocols = {}
    for name, asked, searched in (("A->G", "aerial", "ground"), ("G->A", "ground", "aerial")):
        query = [s for s in samples if s.split == "query" and s.view == asked]
        gallery = [s for s in samples if s.split == "gallery" and s.view == searched]
        if query and gallery:
            protocols[name] = Protocol(name=name, query=query, gallery=gallery)
    return Dataset(
        name="ag_reid_v1",
        root=root,
        samples=samples,
        protocols=protocols,
        rejects=tree.rejects,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(name: str, file: str) -> dict:
    split, camera = FOLDERS[name.partition("/")[0]]
    fields, number = parts(file, "ag_reid_v1", (0, 3))
    if camera not in (None, number):
        raise layout.FileNameError(f"camera {number} in a folder of camera {camera}")
    return fields | {"split": split}


def parts(file: str, dataset: str, cameras: tuple[int, ...]) -> tuple[dict, int]:
    """What a name of AG-ReID says, as fields of `Sample`, and the number of the camera.

    Args:
        dataset: The scope of the pid.
        cameras: Numbers that the data set has.
    Raises: layout.FileNameError: if it is no such name.
    """
    match = NAME.match(file)
    if match is None:
        raise layout.FileNameError(f"the name is not like {FORM}")
    person, time, level, camera, _ = match.groups()
    number = int(camera)
    if number not in cameras:
        known = ", ".join(f"{c} ({PLATFORM[c][0]})" for c in cameras)
        raise layout.FileNameError(
            f"camera {number} is none of {known}; the first archive of v1 held pictures of camera "
            "2, the authors' present one does not"
        )
    platform, view = PLATFORM[number]
    return {
        "pid": f"{dataset}/P{person}T{time}A{level}",
        "camid": str(number),
        "session": time,
        "platform": platform,
        "view": view,
        "attributes": (f"altitude_level:{int(level)}",) if view == "aerial" else (),
    }, number
