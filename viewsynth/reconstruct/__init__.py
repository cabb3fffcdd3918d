# SPDX-License-Identifier: Apache-2.0
"""Reconstruct: the crops of people in, clothed 3D surfaces with seen map and fit quality out.

- `people`: all steps for several people at once (`reconstruct`).
- `find`, `crowd`: people in a photo that is not a crop, and two people in one crop.
- `crops`, `parse`, `matting`, `tflite`: the crops that are used; landmarks and mask of a crop.
- `fitting`, `facing`, `targets`, `fit`, `volume`: front or back view; the body that fits landmarks
  and mask.
- `foreign`: crops of somebody else among those of a person.
- `texture`, `fill`: the texture of the body from the crops, and what no crop shows.
- `canonical`, `warp`: the body with its parts apart, and how points around it follow a body.
- `canvas`, `complete`, `guess`: what a crop does not show, predicted by a network.
- `clothing`: the clothed surface, by `relief` (a crop), `surface` (the mesh), `exposure` (what is
  seen of it), `charts` (colours).
- `posing`: the pose that is rendered.
- `quality`, `crop_flags`: measurements and flags that the judge reads.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {"people": ["Outcome", "REVISION", "Tools", "load", "reconstruct"]},
)
