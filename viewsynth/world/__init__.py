# SPDX-License-Identifier: Apache-2.0
"""World: rendered people and places with exact ground truth for every pixel.

<<<<<<< HEAD
- People: `people` (identities), `outfits`, `cloth` (sampled fabrics), `colours`, `words`.
- Geometry: `mannequin` (base mesh), `forms` and `shells` (meshes, sheets round a body),
  `garments`, `drape`, `skull`, `hair`, `carried`; `character` (a dressed person).
- Surfaces: `fabrics`, `prints`, `faces` (colour and folds of a point), `noise` (patterns).
- Motion: `motions` (what a person does), `gait` (poses), `stride` (feet and legs), `turns`.
- Place: `scenes` (place and light), `grounds`, `backdrops`, `background` (what rays meet), `props`,
  `lights`.
- Camera: `sensor` (lens and electronics), `solids` (rasterizing), `capture` (a crop, its truth).
- Data set: `shots`, `rig` (thirteen cameras), `rows`, `writer` (`viewsynth world`), `truth`.
=======
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
>>>>>>> wt-faces

The demo, the tests and the benchmark use it; `reconstruct` must not import it.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "labels": ["LABELS", "of_person"],
        "people": ["Identity", "identity"],
        "shots": ["RenderedShot", "Shot", "SimpleShot", "render", "take", "write_folder"],
        "truth": ["Instant", "instants"],
    },
)
