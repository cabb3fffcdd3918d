# SPDX-License-Identifier: Apache-2.0
"""World: people and places that we render ourselves, with exact truth for every pixel.

people (who, wearing what) -> garments, hair, carried (geometry) -> gait (pose) -> scenes (where, in
what light) -> capture (camera and sensor) -> shots, rig (who films whom). The demo, the tests and
the benchmark come from here; nothing in reconstruct may look at it.
"""

# What a pixel of a part map shows; the index is the stored value. Values 1 to 9 are the person.
LABELS = (
    "background", "face", "hair", "headwear", "top", "arms", "bottom", "legs", "shoes", "carried",
    "occluder",
)  # fmt: skip
