# SPDX-License-Identifier: Apache-2.0
"""CARGO: 5,000 rendered people, five drones and eight ground cameras.

Source: Zhang et al., View-decoupled Transformer, CVPR 2024 (arXiv 2403.14513). Layout:
`{train,query,gallery}/Cam1 … Cam13/Cam2_day_2519_320.jpg` = camera, time, identity, running number.
Cameras 1 to 5 are drones. The paper calls two different protocols "A-G"; `layout.directions` names
them apart.
"""

from __future__ import annotations

import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="CARGO",
    licence="academic use only",
    redistribute="unknown",
    citation=(
        "Zhang et al., View-decoupled Transformer for Person Re-identification under "
        "Aerial-ground Camera Network, CVPR 2024"
    ),
)

PARTS = ("train", "query", "gallery")
EXAMPLE = "Cam2_day_2519_320.jpg"
NAME = re.compile(r"Cam(\d+)_([^_]+)_(\d+)_(\d+)\.")
DRONES, CAMERAS = 5, 13  # the first five of the thirteen cameras are drones
README, STEPS = "README of the authors", "steps of the published Rank-1 values"
PUBLISHED = (
    Published(what="train images", count=51_451, source=README),
    Published(what="train identities", count=2_500, source=README),
    Published(what="query images", count=312, source=README),
    Published(what="query identities", count=149, source=README),
    Published(what="gallery images", count=50_712, source=README),
    Published(what="G<->G gallery", count=18_444, source=README),
    Published(what="A<->A gallery", count=32_268, source=README),
    # The README's 134 (G<->G) and 178 (A<->A) queries seem interchanged: see the next lines.
    Published(what="ALL valid queries", count=312, source=STEPS),
    Published(what="G<->G valid queries", count=112, source=STEPS),
    Published(what="A<->A valid queries", count=40, source=STEPS),
    Published(what="A<->G valid queries", count=160, source=STEPS),
    Published(what="A->G valid queries", count=94, source=STEPS),
    Published(what="G->A valid queries", count=66, source=STEPS),
)


def load(root: str | Path) -> Dataset:
    """CARGO, or a data set in its layout, with its five protocols and ours, "G->A".

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
    return Dataset(
        name="cargo",
        root=root,
        samples=samples,
        protocols=layout.directions(query, gallery),
        rejects=tree.rejects,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(name: str, file: str) -> dict:
    camera, time, pid, _ = layout.match_name(NAME, file, EXAMPLE).groups()
    number = int(camera)
    if not 1 <= number <= CAMERAS:
        raise layout.FileNameError(f"camera {number} is not one of 1 to {CAMERAS}")
    split, *folders = name.split("/")
    if folders[:-1] != [f"Cam{number}"]:
        raise layout.FileNameError(f"by its name, it belongs in {split}/Cam{number}")
    aerial = number <= DRONES
    return {
        "pid": f"cargo/{int(pid)}",
        "camid": str(number),
        "split": split,
        "session": time,
        "platform": "drone" if aerial else "cctv",
        "view": "aerial" if aerial else "ground",
    }
