# SPDX-License-Identifier: Apache-2.0
"""Diffusion: a photo and a rendering of the wanted view in, a repaired image of it out.

- `pipeline`: the diffusers pipeline; `conditions` are its inputs, `networks` its UNet and
  conditioner, `sampling` its sampler, `photo` makes conditions of a photo alone.
- `refine`: the repair of rendered views in `generate`.
- `adapt`: a pipeline from the weights of Stable Diffusion, or a small one with random weights.
- `pairs`, `stages`, `autoencoder`, `training`, `distillation`: training.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "conditions": ["Conditions"],
        "options": ["Refine"],
        "pairs.stored": ["Pairs"],
        "photo": ["conditions_from_photo"],
        "pipeline": ["ViewDiffusionOutput", "ViewDiffusionPipeline"],
        "refine": ["Refiner"],
    },
)
