# SPDX-License-Identifier: Apache-2.0
"""ReID: models that turn images into features, and their training.

- `encoders`: any vision model of transformers, or one that `viewsynth train` saved.
- `backbones`, `heads`, `losses` and `methods` (one file a method): a model in training.
- `pool`, `sampler`, `pixels`, `augment`, `batches`: from images to batches.
- `training` and `validation`: the training run; `saved` is its model on disk.
- `sd_reid`: the second stage of SD-ReID, a diffusion of features.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "backbones": ["Backbone"],
        "batches": ["Batch"],
        "encoders": ["Encoder"],
        "options": ["Augmentation", "ReIDOptimization"],
        "pixels": ["Pixels"],
        "pool": ["Pool"],
        "sampler": ["Plan"],
        "training": ["ReIDTask", "check_learns"],
    },
)
