# SPDX-License-Identifier: Apache-2.0
"""Metrics on arrays; no metric reads a file.

- `images` and `colours`: similarity of two images.
- `distances`, optionally `expansion` or `reranking`, then `ranking`: retrieval by features.
- `kernel_distance`: distance between two sets of images (KID).
- `intervals`: confidence interval of a mean.

`viewsynth.evaluate` decides what is compared.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "colours": ["delta_e", "lab"],
        "distances": ["BLOCK", "blocks", "cosine_distances", "normalise"],
        "expansion": ["expand"],
        "images": ["BEST_PSNR", "WINDOW", "iou", "psnr", "ssim", "ssim_map"],
        "intervals": ["difference", "interval"],
        "kernel_distance": ["kid", "kid_difference", "kid_floor"],
        "ranking": ["Labels", "RankMetrics", "RankRows", "rank_metrics", "rank_rows", "summarise"],
        "reranking": ["neighbours", "rerank"],
    },
)
