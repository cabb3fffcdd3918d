# SPDX-License-Identifier: Apache-2.0
"""World: rendered people and places with exact ground truth for every pixel.

- People: `people` (identities), `outfits`, `wardrobe` (clothes of revision 2), `cloth` (sampled
  fabrics), `colours`, `words`.
- Geometry: `mannequin` (base mesh), `forms` and `shells` (meshes, sheets round a body),
  `garments`, `drape`, `skull`, `hair`, `carried`; `character` (a dressed person).
- Surfaces: `fabrics`, `prints`, `seams`, `faces` (colour and folds of a point), `noise` (patterns).
- Motion: `motions` (what a person does), `gait` (poses), `stride` (feet and legs), `turns`.
- Place: `scenes` (place and light), `grounds`, `backdrops`, `background` (what rays meet), `props`,
  `lights`.
- Camera: `sensor` (lens and electronics), `solids` (rasterizing), `capture` (a crop, its truth),
  `sheets` (front and back of a person).
- Data set: `revisions`, `shots`, `rig` (thirteen cameras), `rows`, `writer` (`viewsynth world`),
  `truth`.

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
