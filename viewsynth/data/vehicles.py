# SPDX-License-Identifier: Apache-2.0
"""The layout that the vehicle data sets share: `agid` and `cvpair`.

The layouts of both are unpublished, and this one is ours: arrange the images as
`{train,query,gallery}/{aerial,ground}/v0012_c3_000045.jpg` = vehicle, camera, number. Cameras are
numbered through both views, since matches from the query's own camera do not count. The two data
sets differ in name and published counts alone, so a folder cannot tell which of them it holds.

The rest of viewsynth speaks of people; the ReID commands take pictures of anything, and the
reconstruction of `generate` only people.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import SPLITS, VIEWS, Dataset, Published

PARTS = SPLITS
EXAMPLE = "v0012_c3_000045.jpg"
NAME = re.compile(r"v(\d+)_c(\d+)_(\d+)\.", re.ASCII)


def load(root: str | Path, name: str, published: tuple[Published, ...]) -> Dataset:
    """A vehicle data set with the protocols of `layout.directions`.

    Args:
        root: Folder of the data set, or one that it is nested in.
        name: Name of the data set, the scope of its pids.
        published: Its published counts.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold this layout.
    """
    root = layout.find_root(root, PARTS)
    tree = layout.scan(root, PARTS)
    samples = layout.samples(tree, functools.partial(_parse, name), EXAMPLE)
    query, gallery = ([s for s in samples if s.split == split] for split in ("query", "gallery"))
    above, below = ({s.camid for s in samples if s.view == view} for view in VIEWS)
    warnings = []
    if both := sorted(above & below, key=int):
        warnings.append(
            f"cameras {', '.join(both)} have aerial and ground images: matches between them would "
            "not count; number the cameras of the two views apart"
        )
    return Dataset(
        name=name,
        root=root,
        samples=samples,
        protocols=layout.directions(query, gallery),
        rejects=tree.rejects,
        warnings=warnings,
        published=published,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(dataset: str, name: str, file: str) -> dict:
    vehicle, camera, _ = layout.match_name(NAME, file, EXAMPLE).groups()
    split, *folders = name.split("/")
    if len(folders) < 2 or folders[0] not in VIEWS:
        raise layout.FileNameError(f"expected it in {split}/aerial or {split}/ground")
    return {
        "pid": f"{dataset}/{int(vehicle)}",
        "camid": str(int(camera)),
        "split": split,
        "platform": "drone" if folders[0] == "aerial" else "cctv",
        "view": folders[0],
    }
