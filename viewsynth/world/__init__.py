# SPDX-License-Identifier: Apache-2.0
"""World: our rendered benchmark of people and places, with exact ground truth for every pixel.

- People: `people` (age, build, skin, hair), `outfits` (kinds and cuts of clothes), `cloth`
  (fabrics), `colours` (palettes, names of colours), `words` (attributes and captions).
- Bodies and clothes: `mannequin` (base mesh), `forms` and `shells` (meshes; sheets around a body),
  `garments`, `drape`, `hair`, `carried` (what is worn); `fabrics`, `prints`, `faces` (colour of a
  surface point); `character` (all of it as one posed, coloured person).
- Motion: `turns` (rotations), `stride` (feet and legs), `gait` (what a person does).
- Places: `scenes` (ground, backdrop, weather), `grounds`, `backdrops`, `props`, `lights`, `noise`
  (band-limited patterns).
- Cameras: `sensor` (lens and electronics), `capture` (a person in a place -> an image and its
  ground truth), `shots` (one camera looking at one person), `rig` (thirteen cameras, and which
  of them record a person).
- Data sets: `writer` writes a world to disk, `truth` reads its ground truth.

The demo, the tests and the benchmark are rendered here. Reconstruction must not import it.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "labels": ["LABELS", "of_person"],
        "people": ["Identity", "identity"],
        "shots": ["Picture", "Shot", "Simple", "draw", "take", "write"],
        "truth": ["Instant", "instants"],
    },
)
