# SPDX-License-Identifier: Apache-2.0
"""AGID: vehicles from drones and from the ground, 834 identities.

Source: AGID, Remote Sensing 2025, 17(15), 2653: aerial queries, a ground gallery, which is the
protocol "A->G". Layout unpublished: that of `vehicles` is ours.
"""

from __future__ import annotations

from pathlib import Path

from viewsynth.data import vehicles
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="AGID",
    licence="unknown",
    redistribute="unknown",
    citation="Remote Sensing 17(15) 2653, 2025",
)

PARTS, EXAMPLE, NAME = vehicles.PARTS, vehicles.EXAMPLE, vehicles.NAME
SOURCE = "paper, second hand and unverified"
PUBLISHED = (
    Published(what="images", count=20_785, source=SOURCE),
    Published(what="identities", count=834, source=SOURCE),
)


def load(root: str | Path) -> Dataset:
    """AGID with the protocols of `layout.directions`; the published one is "A->G".

    Args:
        root: Folder of the data set, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold the layout of `vehicles`.
    """
    return vehicles.load(root, "agid", PUBLISHED)
