# SPDX-License-Identifier: Apache-2.0
"""G2APS-ReID: crops of the person-search set G2APS, one drone and one CCTV camera, 2,788 people.

Source: Wang et al., SeCap, CVPR 2025 (arXiv 2503.06965), and their scripts, which build it from
G2APS. Layout: `bounding_box_train/<identity>/0012_c0v1_000345.jpg` = identity, camera (0 drone, 3
CCTV), sequence, frame, and the protocol lists of `LISTS`, whose rows are paths in the root: folders
`query…` hold queries, the others the gallery.

**Builds differ**: the scripts select the queries by k-means without a seed, so results compare only
between builds with the same fingerprint. Identity 5555 stands for unlabelled people: distractors in
the gallery, junk in training, refused as queries.
"""

from __future__ import annotations

import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="G2APS-ReID",
    licence="unknown",
    redistribute="no",
    citation="Wang et al., SeCap, CVPR 2025; images of G2APS",
)

TRAIN = "bounding_box_train"
PARTS = (TRAIN,)
EXAMPLE = "0012_c0v1_000345.jpg"
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
    """G2APS-ReID with its protocols "A->G" and "G->A", if their lists exist.

    Args:
        root: Folder of the release, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold this data set.
    """
    root = layout.find_root(root, PARTS)
    lists = {name: root / file for name, file in LISTS.items()}
    tree = layout.scan(root, [TRAIN, *layout.named_folders(lists.values())], lists.values())
    samples, warnings = layout.samples(tree, _parse, EXAMPLE), []
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
    pid, number, sequence = map(int, layout.match_name(NAME, file, EXAMPLE).groups())
    if number not in PLATFORM:
        raise layout.FileNameError(f"camera {number} is neither 0 (drone) nor 3 (CCTV)")
    split = layout.split_of(name, TRAIN)
    if pid in (-1, UNLABELLED) and split == "train":
        return str(pid)
    if pid in (-1, UNLABELLED) and split == "query":
        raise layout.FileNameError(f"identity {pid} is unlabelled and cannot be a query")
    platform, view = PLATFORM[number]
    return {
        "pid": f"g2aps_reid/{pid:04d}",
        "camid": str(number),
        "split": split,
        "session": str(sequence),
        "platform": platform,
        "view": view,
    }
