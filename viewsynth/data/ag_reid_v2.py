# SPDX-License-Identifier: Apache-2.0
"""AG-ReID.v2: a drone, CCTV and smart glasses, 1,615 identities.

Source: Nguyen et al., AG-ReID.v2, TIFS 2024 (arXiv 2401.02634). Layout:
`{train_all,query,gallery}/<P..T..A..>/P0001T04041A0C3F31.jpg`, with names and identities as in
`ag_reid_v1`. Cameras: 0 drone, 2 wearable, 3 CCTV. The protocol lists of `LISTS` and the
attributes, `ATTRIBUTES` (see `qut_attributes`), lie next to these folders or, as in the archive,
one folder above them.

The query and the gallery of a direction have different cameras, so the camera rule removes nothing.
"""

from __future__ import annotations

from pathlib import Path

from viewsynth.data import ag_reid_v1, layout, qut_attributes
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="AG-ReID.v2",
    licence="unknown",
    redistribute="unknown",
    citation=(
        "Nguyen et al., AG-ReID.v2: Bridging Aerial and Ground Views for Person "
        "Re-identification, TIFS 2024"
    ),
)

SPLITS = {"train_all": "train", "query": "query", "gallery": "gallery"}
PARTS = tuple(SPLITS)
EXAMPLE, NAME = ag_reid_v1.EXAMPLE, ag_reid_v1.NAME
LISTS = {
    "A->C": "exp1_aerial_to_cctv.txt",
    "A->W": "exp2_aerial_to_wearable.txt",
    "C->A": "exp4_cctv_to_aerial.txt",
    "W->A": "exp5_wearable_to_aerial.txt",
}
ATTRIBUTES = "qut_attribute_v8.mat"
PAPER, DISK = "paper", "users' counts of the archive (sum as in the paper)"
ISSUE = "issue {} of huynguyen792/AG-ReID.v2"
PUBLISHED = (
    Published(what="images", count=100_502, source=PAPER),
    Published(what="train images", count=51_530, source=DISK),
    Published(what="train identities", count=807, source=PAPER),
    Published(what="query images", count=8_499, source=DISK),
    Published(what="gallery images", count=40_473, source=DISK),
    Published(what="gallery identities", count=808, source=PAPER),
    # The paper prints 6,374 and 12,256; its author confirmed that these are errors.
    Published(what="A->C gallery", count=6_347, source=ISSUE.format(1)),
    Published(what="C->A query", count=1_811, source=DISK),
    Published(what="W->A query", count=2_340, source=DISK),
    Published(what="W->A gallery", count=12_568, source=ISSUE.format("1 and 4")),
)


def load(root: str | Path) -> Dataset:
    """AG-ReID.v2 with its protocols "A->C", "A->W", "C->A" and "W->A", if their lists exist.

    Args:
        root: Folder of the release, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold this data set.
    """
    root = layout.find_root(root, PARTS)
    lists = {name: layout.beside(root, file) for name, file in LISTS.items()}
    table, warnings = layout.beside(root, ATTRIBUTES), []
    tree = layout.scan(root, PARTS, [*lists.values(), table])
    samples = qut_attributes.add(layout.samples(tree, _parse, EXAMPLE), table, warnings)
    return Dataset(
        name="ag_reid_v2",
        root=root,
        samples=samples,
        protocols=layout.listed(tree, samples, lists, warnings),
        rejects=tree.rejects,
        warnings=warnings,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(name: str, file: str) -> dict:
    fields, _ = ag_reid_v1.parse_name(file, "ag_reid_v2", (0, 2, 3))
    return fields | {"split": SPLITS[name.partition("/")[0]]}
