# SPDX-License-Identifier: Apache-2.0
"""CVPair v1.0: vehicles from drones and from the ground, 894 identities.

Source: CVNet, Sensors 2025. Layout and protocol unpublished: that of `vehicles` is ours.
"""

from __future__ import annotations

from pathlib import Path

from viewsynth.data import vehicles
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="CVPair",
    licence="unknown",
    redistribute="unknown",
    citation="Yin et al., CVNet, Sensors 25, 2809, 2025",
)

PARTS, EXAMPLE, NAME = vehicles.PARTS, vehicles.EXAMPLE, vehicles.NAME
SOURCE = "paper"
PUBLISHED = (
    Published(what="images", count=14_969, source=SOURCE),
    Published(what="identities", count=894, source=SOURCE),
)


def load(root: str | Path) -> Dataset:
    """CVPair with the protocols of `layout.directions`.

    Args:
        root: Folder of the data set, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        layout.LayoutError: if `root` does not hold the layout of `vehicles`.
    """
    return vehicles.load(root, "cvpair", PUBLISHED)
