# SPDX-License-Identifier: Apache-2.0
"""Metrics: figures of merit that need nothing but arrays.

`images` and `colours` say how near a picture comes to another; `distances`, optionally `reranking`,
then `ranking` say how well features find a person again; `kid` how far one set of pictures is from
another; `intervals` how far a mean can be trusted.
Nothing here reads a file: `viewsynth.evaluate.fidelity` and `viewsynth.reid` decide what is compared.
"""

from __future__ import annotations

from viewsynth.metrics.colours import delta_e, lab
from viewsynth.metrics.distances import BLOCK, blocks, cosine_distances, normalise
from viewsynth.metrics.images import BEST_PSNR, WINDOW, iou, psnr, ssim, ssim_map
from viewsynth.metrics.intervals import difference, interval
from viewsynth.metrics.kid import kid, kid_difference, kid_floor
from viewsynth.metrics.ranking import (
    Labels,
    RankMetrics,
    RankRows,
    rank_metrics,
    rank_rows,
    summarise,
)
from viewsynth.metrics.reranking import neighbours, rerank

__all__ = [
    "BEST_PSNR",
    "BLOCK",
    "WINDOW",
    "Labels",
    "RankMetrics",
    "RankRows",
    "blocks",
    "cosine_distances",
    "delta_e",
    "difference",
    "interval",
    "iou",
    "kid",
    "kid_difference",
    "kid_floor",
    "lab",
    "neighbours",
    "normalise",
    "psnr",
    "rank_metrics",
    "rank_rows",
    "rerank",
    "ssim",
    "ssim_map",
    "summarise",
]
