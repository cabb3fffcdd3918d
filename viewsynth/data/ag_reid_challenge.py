# SPDX-License-Identifier: Apache-2.0
"""AG-ReID 2023: the edition of AG-ReID.v2 of the IJCB challenge, 1,615 identities.

Source: README and loader of agreid23/AG-ReID. Layout: `bounding_box_train/` and, for each direction
of `DIRECTIONS`, `<direction>/{query,bounding_box_test}/` and the distractors of its gallery in
`gallery_add_on/<direction>/` (or `exp3`, `exp6` in short), with names as in `ag_reid_v1` and
cameras as in `ag_reid_v2`. The attributes, `ATTRIBUTES` (see `qut_attributes`), lie in the root or
one folder above it.

The identity is read from every name, as in the authors' loader. A name with a negative number
(P-1T-1A-1C0F7.jpg), which that loader takes too, has no known identity: such an image is left out
of training, matches nothing as a query, and is a distractor in the gallery. We have not seen the
released test images: if the challenge hid their identities in another way, only the submission
(`viewsynth export submission`) means anything, not our scores.

The query and the gallery of a direction have different cameras, so the camera rule removes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

from viewsynth.data import ag_reid_v1, layout, qut_attributes
from viewsynth.records import Dataset, Protocol, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="AG-ReID 2023 challenge",
    licence="unknown",
    redistribute="unknown",
    citation=(
        "Nguyen et al., AG-ReID 2023: Aerial-Ground Person Re-identification "
        "Challenge Results, IJCB 2023"
    ),
)

TRAIN, ADD_ON = "bounding_box_train", "gallery_add_on"
DIRECTIONS = {"A->G": "exp3_aerial_to_ground", "G->A": "exp6_ground_to_aerial"}
SPLITS = {"query": "query", "bounding_box_test": "gallery"}
PARTS = (TRAIN, *DIRECTIONS.values())
ATTRIBUTES = "qut_attribute_v8.mat"
EXAMPLE = ag_reid_v1.EXAMPLE
NAME = re.compile(r"P(-?\d+)T(-?\d+)A(-?\d+)C(\d+)F(-?\d+)\.", re.ASCII)
SITE = "website of the challenge, agreid23.github.io"
PUBLISHED = (
    Published(what="images", count=100_502, source=SITE),
    Published(what="identities", count=1_615, source=SITE),
)


def load(root: str | Path) -> Dataset:
    """The challenge's edition with its protocols "A->G" and "G->A", whose galleries have add-ons.

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
    tree = layout.scan(root, [*PARTS, ADD_ON], [table])
    samples = qut_attributes.add(layout.samples(tree, _parse, EXAMPLE), table, warnings)
    protocols = {}
    for name, folder in DIRECTIONS.items():
        own = [s for s in samples if s.name.startswith((folder, f"{ADD_ON}/{folder[:4]}"))]
        query, gallery = ([s for s in own if s.split == split] for split in ("query", "gallery"))
        if query and gallery:
            protocols[name] = Protocol(name=name, query=query, gallery=gallery)
        if not any(sample.name.startswith(ADD_ON) for sample in own):
            warnings.append(f"the gallery of {name} has no distractors in {ADD_ON}/{folder}")
    return Dataset(
        name="ag_reid_challenge",
        root=root,
        samples=samples,
        protocols=protocols,
        rejects=tree.rejects,
        warnings=warnings,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _parse(name: str, file: str) -> dict | str:
    split, match = _split(name), layout.match_name(NAME, file, EXAMPLE)
    # Without the signs, the name has the form of one with an identity.
    fields, _ = ag_reid_v1.parse_name(file.replace("-", ""), "ag_reid_challenge", (0, 2, 3))
    if "-" in "".join(match.groups()[:3]):
        if split == "train":
            return match[0].partition("C")[0]
        fields |= {"pid": f"ag_reid_challenge/{file.rpartition('.')[0]}", "session": ""}
    return fields | {"split": split}


def _split(name: str) -> str:
    """Split of an image. Raises FileNameError if it lies elsewhere."""
    folders = name.split("/")
    if folders[0] == TRAIN:
        return "train"
    if folders[0] == ADD_ON:
        if any(folders[1].startswith(folder[:4]) for folder in DIRECTIONS.values()):
            return "gallery"
        raise layout.FileNameError(f"expected it in {ADD_ON}/{' or '.join(DIRECTIONS.values())}")
    if folders[1] not in SPLITS:
        raise layout.FileNameError(f"expected it in {folders[0]}/{' or '.join(SPLITS)}")
    return SPLITS[folders[1]]
