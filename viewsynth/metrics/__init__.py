# SPDX-License-Identifier: Apache-2.0
"""Metrics: figures of merit that need nothing but arrays.

`images` and `colours` say how near a picture comes to another; `distances`, optionally `reranking`,
then `ranking` say how well features find a person again; `intervals` how far a mean can be trusted.
Nothing here reads a file: `viewsynth.fidelity` and `viewsynth.reid` decide what is compared.
"""

from __future__ import annotations

from viewsynth.metrics.colours import delta_e, lab
from viewsynth.metrics.distances import BLOCK, blocks, cosine_distances, normalise
from viewsynth.metrics.images import BEST_PSNR, WINDOW, iou, psnr, ssim
from viewsynth.metrics.intervals import difference, interval
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
    "lab",
    "neighbours",
    "normalise",
    "psnr",
    "rank_metrics",
    "rank_rows",
    "rerank",
    "ssim",
    "summarise",
]
