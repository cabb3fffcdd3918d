# SPDX-License-Identifier: Apache-2.0
"""World: people and places that we render ourselves, with exact truth for every pixel.

Who: people (age, build, skin, hair), outfits (kinds and cuts of clothes), cloth (their fabrics),
    colours (palettes and names of colours), words (what is seen, as words and answers).
Body and clothes: mannequin (the base mesh), forms and shells (meshes, and sheets around a body),
    garments, drape, hair, carried (what is worn); fabrics, prints, faces (colour of a point);
    character (all of it as one person, posed and coloured).
Motion: turns (rotations), stride (feet and legs), gait (what a person does).
Place: scenes (ground, backdrop, weather), grounds, backdrops, props, lights, noise (patterns that
    filter themselves).
Camera: sensor (lens and electronics), capture (a person in a place -> a picture and its truth).
Pictures: shots (one person, one camera, one moment), rig (thirteen cameras, and who films whom).

The demo, the tests and the benchmark come from here, and `population` writes data sets of it;
nothing in reconstruct may look at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# What a pixel of a part map shows; the index is the stored value. Values 1 to 9 are the person.
LABELS = (
    "background",
    "face",
    "hair",
    "headwear",
    "top",
    "arms",
    "bottom",
    "legs",
    "shoes",
    "carried",
    "occluder",
)


def of_person(labels: np.ndarray) -> np.ndarray:
    """Which pixels of a part map show the person.  uint8 [...] -> bool [...]"""
    return (labels >= 1) & (labels <= 9)
