# SPDX-License-Identifier: Apache-2.0
"""Market-1501: six ground cameras in front of a supermarket, 1,501 identities.

Source: Zheng et al., Scalable Person Re-identification, ICCV 2015. Layout:
`{bounding_box_train,query,bounding_box_test}/0002_c1s1_000451_03.jpg` = identity, camera,
sequence, frame, box. Identity -1 is junk (boxes that are ignored in the evaluation) and left out.
Identity 0000 stands for distractors: they stay in the gallery and are left out elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Protocol, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="Market-1501",
    licence="unknown",
    redistribute="no",
    citation="Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015",
)

SPLITS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
PARTS = tuple(SPLITS)
EXAMPLE = "0002_c1s1_000451_03.jpg"
NAME = re.compile(r"(-?\d+)_c(\d)s(\d+)_", re.ASCII)
CAMERAS = 6
README = "README of the authors"
PUBLISHED = (
    Published(what="train images", count=12_936, source=README),
    Published(what="train identities", count=751, source=README),
    Published(what="query images", count=3_368, source=README),
    Published(what="query identities", count=750, source=README),
    # The folder has 19,732 files, of which 3,819 are junk.
    Published(what="gallery images", count=15_913, source="README of torchreid, without junk"),
)


def load(root: str | Path) -> Dataset:
    """Market-1501 with its single protocol, "ALL".

    Args:
        root: Folder of the release, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold this data set.
    """
    root = layout.find_root(root, PARTS)
    tree = layout.scan(root, PARTS)
    samples = layout.exported(tree, layout.samples(tree, _parse, EXAMPLE))
    query, gallery = ([s for s in samples if s.split == split] for split in ("query", "gallery"))
    protocols = {"ALL": Protocol(name="ALL", query=query, gallery=gallery)}
    return Dataset(
        name="market1501",
        root=root,
        samples=samples,
        protocols=protocols if query and gallery else {},
        rejects=tree.rejects,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(name: str, file: str) -> dict | str:
    pid, number, sequence = map(int, layout.match_name(NAME, file, EXAMPLE).groups())
    if not 1 <= number <= CAMERAS:
        raise layout.FileNameError(f"camera {number} is not one of 1 to {CAMERAS}")
    split = SPLITS[name.partition("/")[0]]
    if pid < 0 or (pid == 0 and split != "gallery"):
        return f"{pid:04d}" if pid == 0 else str(pid)
    return {
        "pid": f"market1501/{pid:04d}",
        "camid": str(number),
        "split": split,
        "session": str(sequence),
        "platform": "cctv",
        "view": "ground",
    }
