# SPDX-License-Identifier: Apache-2.0
"""Method cvaf: CLIP-ReID in which the views of an identity must be alike to the same sentences.

Source: Mao, Teng and Lv, a CLIP-based view-consistent alignment framework, ACM TOMM 2025; known
from its title: what follows is our reading, and shares with the paper no more than the idea. Stages
and losses are those of `clip_reid`. In the second stage, the likeness of an image to the sentences
of all identities is a distribution; that of every image shall be near to the mean distribution of
its identity's images in other views (Kullback-Leibler divergence). Views are needed in training
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from viewsynth.reid import losses
from viewsynth.reid.backbone_modules import Backbone
from viewsynth.reid.methods import clip_reid
from viewsynth.reid.text_tower import sentence_parts

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views", "text")
TOLD = ""
KNOWN = "title"
PUBLISHED = {
    "ag_reid_v1": {"A->G": (87.23, 79.45), "G->A": (90.12, 82.59)},
    "ag_reid_v2": {"A->C": (88.77, 83.35), "C->A": (88.40, 83.17)}
    | {"A->W": (92.49, 87.81), "W->A": (90.85, 85.08)},
}
STAGES = clip_reid.STAGES
CONSISTENT = 1.0  # weight of the divergence


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    sentence: Sequence[Sequence[int]] = (),
) -> nn.Module:
    """See `methods.build`; `sentence` is that of a saved model, see `text_tower.Sentence`."""
    sentence = sentence or sentence_parts(backbone.tokenize, clip_reid.BEFORE, clip_reid.AFTER)
    return CVAF(backbone, classes, smoothing, sentence)


class CVAF(clip_reid.CLIPReID):
    """The method; see the module docstring and `methods.Method`."""

    def text_losses(self, projected: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the projected features against the sentences, in the second stage."""
        logs = (clip_reid.SCALE * losses.cosines(projected, self.described)).log_softmax(1)
        apart = divergence(logs, batch.labels, batch.views, batch.weights)
        return {**super().text_losses(projected, batch), "consistency": CONSISTENT * apart}


def divergence(logs: Tensor, labels: Tensor, views: Tensor, weights: Tensor) -> Tensor:
    """Divergence of each distribution from the mean one of the same identity in other views.

    Args:
        logs: Logarithms of the distributions.  float [B, C]
        labels: int64 [B]
        views: int64 [B]
        weights: float [B]

    Returns:
        A scalar; images without one of another view add nothing.
    """
    share, found = losses.in_other_views(labels, views, weights)
    mean = share @ logs.detach().exp()
    terms = (mean * (mean.clamp_min(1e-12).log() - logs)).sum(1)
    return losses.weighted(terms, weights * found)
