# SPDX-License-Identifier: Apache-2.0
"""LAGPeR: seven places with one drone and two cameras on the ground each, 4,231 identities.

Source: Wang et al., SeCap, CVPR 2025 (arXiv 2503.06965). Layout:
`bounding_box_train/<identity>/0123_c13_000045.jpg` = identity, camera, frame, and the lists of
`LISTS`, whose rows are paths from the root into folders `query…` and others (the gallery).

Cameras are numbered 1 to 22 and are 21: 10 or 11 is unused, and published notes disagree which. The
cameras that fly are known by the file's own number. `camid` is contiguous: the numbers above the
unused one, which the disk tells, are one less. Where both are there nothing is renumbered.
Identity -1 is junk in training, nobody in the gallery, and cannot be asked for.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Published

TRAIN = "bounding_box_train"
PARTS = (TRAIN,)
FORM = "0123_c13_000045.jpg"
NAME = re.compile(r"(-?\d+)_c(\d+)_", re.ASCII)
LISTS = {"A->G": "exp3_A2G+.txt", "G->A": "exp4_G2A+.txt", "G->A+G": "exp5_G2A+G.txt"}
AERIAL = {3, 6, 9, 13, 16, 19, 22}
CAMERAS, DOUBTFUL = 22, {10, 11}  # the highest number; those of which one is unused
README = "README of the authors"
# The paper's 63,841 images are not the 64,020 that training and both galleries have together.
PUBLISHED = (
    Published(what="train images", count=40_770, source=README),
    Published(what="train identities", count=2_708, source=README),
    Published(what="train cameras", count=12, source=README),
    Published(what="test identities", count=1_523, source=README),
    Published(what="A->G query", count=3_046, source=README),
    Published(what="A->G gallery", count=15_533, source=README),
    Published(what="G->A query", count=3_046, source=README),
    Published(what="G->A gallery", count=7_717, source=README),
    Published(what="G->A+G query", count=3_046, source=README),
    Published(what="G->A+G gallery", count=20_204, source=README),
)


def load(root: str | Path) -> Dataset:
    """LAGPeR with its protocols "A->G", "G->A" and "G->A+G", as far as the lists exist.

    Raises: FileNotFoundError, layout.LayoutError: if it is not there.
    """
    root = layout.find_root(root, PARTS)
    lists = {name: root / file for name, file in LISTS.items()}
    tree = layout.scan(root, [TRAIN, *layout.named_folders(lists.values())], lists.values())
    unused, warnings = _unused(tree.files)
    samples = layout.samples(tree, functools.partial(_parse, unused), FORM)
    return Dataset(
        name="lagper",
        root=root,
        samples=samples,
        protocols=layout.listed(tree, samples, lists, warnings),
        rejects=tree.rejects,
        warnings=warnings,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _unused(files: list[str]) -> tuple[int, list[str]]:
    """The camera that no file is of, and what a user should know of it."""
    matches = (NAME.match(file.rpartition("/")[2]) for file in files)
    found = DOUBTFUL & {int(match[2]) for match in matches if match}
    if len(found) == 1:
        return (DOUBTFUL - found).pop(), []
    if found:
        return CAMERAS, [
            "both camera 10 and camera 11 have pictures, expected one of them; they are kept "
            "apart and nothing is renumbered, so camera ids are not those of other loaders"
        ]
    return max(DOUBTFUL), []  # a part of the data set: numbers as if it were whole


def _parse(unused: int, name: str, file: str) -> dict | str:
    match = NAME.match(file)
    if match is None:
        raise layout.FileNameError(f"the name is not like {FORM}")
    pid, number = map(int, match.groups())
    if not 1 <= number <= CAMERAS:
        raise layout.FileNameError(f"camera {number} is not one of 1 to {CAMERAS}")
    split = layout.split_of(name, TRAIN)
    if pid < 0 and split == "train":
        return str(pid)
    if pid < 0 and split == "query":
        raise layout.FileNameError(f"identity {pid} is nobody and cannot be asked for")
    air = number in AERIAL
    return {
        "pid": f"lagper/{pid:04d}",
        "camid": str(number - (number > unused)),
        "split": split,
        "platform": "drone" if air else "cctv",
        "view": "aerial" if air else "ground",
    }
