# SPDX-License-Identifier: Apache-2.0
"""SD-ReID, second stage: a diffusion that completes the features of the missing views.

A trained `methods.sd_reid` -> `cache` (features of the training images) -> `training` (a
`model.Generator` is trained to denoise them) -> `fused` (identity feature and one sampled feature a
view, which `evaluate` takes). `latents`, `conditions`, `denoisers` and `sampling` are parts of the
generator; `mode` lists where it may follow the authors' release; `cost` measures its compute.

Source: Wang et al., SD-ReID, IEEE TIP 2026 (arXiv 2504.09549).
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "fused": ["Fused"],
        "model": ["Generator"],
        "options": ["GeneratorOptimization", "GeneratorShape"],
    },
)
