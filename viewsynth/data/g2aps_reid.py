# SPDX-License-Identifier: Apache-2.0
"""G2APS-ReID: crops of the person-search set G2APS, one drone and one CCTV camera, 2,788 people.

Source: Wang et al., SeCap, CVPR 2025 (arXiv 2503.06965), and their scripts, with which everybody
builds it from G2APS. Layout: `bounding_box_train/<identity>/0012_c0v1_000345.jpg` = identity,
camera (0 drone, 3 CCTV), sequence, frame, and the lists of `LISTS`, whose rows are paths from the
root into folders `query…` and others (the gallery).

**Two builds are not alike**: the queries are picked by k-means without a seed, so a number holds
for the build with the same fingerprint. Identity 5555 are people without a label: distractors of
the gallery, junk in training, and nobody to ask for.
"""

from __future__ import annotations

import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Published

TRAIN = "bounding_box_train"
PARTS = (TRAIN,)
FORM = "0012_c0v1_000345.jpg"
NAME = re.compile(r"(-?\d+)_c(\d)v(\d)_", re.ASCII)
LISTS = {"A->G": "exp3_A2G+.txt", "G->A": "exp4_G2A+.txt"}
PLATFORM = {0: ("drone", "aerial"), 3: ("cctv", "ground")}
UNLABELLED = 5555
README = "README of SeCap"
PUBLISHED = (
    Published(what="train images", count=100_871, source=README),
    Published(what="train identities", count=1_569, source=README),
    Published(what="query identities", count=1_219, source=README),
    Published(what="A->G query", count=4_876, source=README),
    Published(what="A->G gallery", count=37_202, source=README),
    Published(what="G->A query", count=4_876, source=README),
    Published(what="G->A gallery", count=62_791, source=README),
)


def load(root: str | Path) -> Dataset:
    """G2APS-ReID with its protocols "A->G" and "G->A", as far as the lists exist.

    Raises: FileNotFoundError, layout.LayoutError: if it is not there.
    """
    root = layout.find_root(root, PARTS)
    lists = {name: root / file for name, file in LISTS.items()}
    tree = layout.scan(root, [TRAIN, *layout.named_folders(lists.values())], lists.values())
    samples, warnings = layout.samples(tree, _parse, FORM), []
    return Dataset(
        name="g2aps_reid",
        root=root,
        samples=samples,
        protocols=layout.listed(tree, samples, lists, warnings),
        rejects=tree.rejects,
        warnings=warnings,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(name: str, file: str) -> dict | str:
    match = NAME.match(file)
    if match is None:
        raise layout.FileNameError(f"the name is not like {FORM}")
    pid, number, sequence = map(int, match.groups())
    if number not in PLATFORM:
        raise layout.FileNameError(f"camera {number} is neither 0 (drone) nor 3 (CCTV)")
    split = layout.split_of(name, TRAIN)
    if pid in (-1, UNLABELLED) and split == "train":
        return str(pid)
    if pid in (-1, UNLABELLED) and split == "query":
        raise layout.FileNameError(f"identity {pid} is nobody and cannot be asked for")
    platform, view = PLATFORM[number]
    return {
        "pid": f"g2aps_reid/{pid:04d}",
        "camid": str(number),
        "split": split,
        "session": str(sequence),
        "platform": platform,
        "view": view,
    }
