# SPDX-License-Identifier: Apache-2.0
"""Labels of a part map: what each pixel of a rendered image shows."""

from __future__ import annotations

import numpy as np

# The index is the stored value. Values 1 to 9 are the person.
LABELS = (
    *("background", "face", "hair", "headwear", "top", "arms"),
    *("bottom", "legs", "shoes", "carried", "occluder"),
)


def of_person(labels: np.ndarray) -> np.ndarray:
    """Which pixels of a part map show the person.

    Args:
        labels: A part map.  uint8 [...]

    Returns:
        bool [...].
    """
    return (labels >= 1) & (labels <= 9)
