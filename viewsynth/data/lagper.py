# SPDX-License-Identifier: Apache-2.0
"""LAGPeR: seven places with one drone and two ground cameras each, 4,231 identities.

Source: Wang et al., SeCap, CVPR 2025 (arXiv 2503.06965). Layout:
`bounding_box_train/<identity>/0123_c13_000045.jpg` = identity, camera, frame, and the protocol
lists of `LISTS`, whose rows are paths in the root: folders `query…` hold queries, the others the
gallery.

The 21 cameras are numbered 1 to 22: 10 or 11 is unused, and published notes disagree which; the
files decide. Drones are recognised by the number in the file name. `camid` is contiguous: numbers
above the unused one are reduced by one, and nothing is renumbered if both 10 and 11 have images.
Identity -1 is junk in training, a distractor in the gallery, and refused as a query.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="LAGPeR",
    licence="research only, by signed form",
    redistribute="no",
    citation=(
        "Wang et al., SeCap: Self-Calibrating and Adaptive Prompts for Cross-view "
        "Person Re-Identification in Aerial-Ground Networks, CVPR 2025"
    ),
)

TRAIN = "bounding_box_train"
PARTS = (TRAIN,)
EXAMPLE = "0123_c13_000045.jpg"
NAME = re.compile(r"(-?\d+)_c(\d+)_", re.ASCII)
LISTS = {"A->G": "exp3_A2G+.txt", "G->A": "exp4_G2A+.txt", "G->A+G": "exp5_G2A+G.txt"}
DRONES = {3, 6, 9, 13, 16, 19, 22}
CAMERAS, DOUBTFUL = 22, {10, 11}  # highest number; one of these two is unused
README = "README of the authors"
# The paper's 63,841 images differ from the 64,020 of training and both galleries together.
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
    """LAGPeR with its protocols "A->G", "G->A" and "G->A+G", if their lists exist.

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
    unused, warnings = _unused(tree.files)
    samples = layout.samples(tree, functools.partial(_parse, unused), EXAMPLE)
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
    """The camera number without images, and warnings."""
    matches = (NAME.match(file.rpartition("/")[2]) for file in files)
    found = DOUBTFUL & {int(match[2]) for match in matches if match}
    if len(found) == 1:
        return (DOUBTFUL - found).pop(), []
    if found:
        return CAMERAS, [
            "both camera 10 and camera 11 have images, expected only one of them; no camera is "
            "renumbered, so camera ids differ from those of other loaders"
        ]
    return max(DOUBTFUL), []  # part of the data set: numbered as in the whole


def _parse(unused: int, name: str, file: str) -> dict | str:
    pid, number = map(int, layout.match_name(NAME, file, EXAMPLE).groups())
    if not 1 <= number <= CAMERAS:
        raise layout.FileNameError(f"camera {number} is not one of 1 to {CAMERAS}")
    split = layout.split_of(name, TRAIN)
    if pid < 0 and split == "train":
        return str(pid)
    if pid < 0 and split == "query":
        raise layout.FileNameError(f"identity {pid} is unlabelled and cannot be a query")
    aerial = number in DRONES
    return {
        "pid": f"lagper/{pid:04d}",
        "camid": str(number - (number > unused)),
        "split": split,
        "platform": "drone" if aerial else "cctv",
        "view": "aerial" if aerial else "ground",
    }
