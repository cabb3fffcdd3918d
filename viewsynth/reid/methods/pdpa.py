# SPDX-License-Identifier: Apache-2.0
"""Method pdpa: images are pulled to the prototype of their identity in the other view.

Source: Huang et al., Perspective-Driven Prototype Alignment, ICIG 2025; known from its abstract:
what follows is our reading. Stages and losses are those of `clip_reid`. In the second stage a
memory bank, computed anew every epoch, holds a prototype of each identity in each view: the mean of
its images' features and the feature of its sentence, which is the anchor, with equal weights; of a
view without images, the anchor alone. An image is classified among the prototypes of the other
views, by cosines. Views are needed in training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone
from viewsynth.reid.methods import clip_reid
from viewsynth.reid.text_tower import sentence_parts

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views", "text")
TOLD = ""
KNOWN = "abstract"
PUBLISHED = {}
STAGES = clip_reid.STAGES
PULL, SCALE = 1.0, 15.0  # weight of the loss; factor of its cosines


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    sentence: Sequence[Sequence[int]] = (),
) -> nn.Module:
    """See `methods.build`; `sentence` is that of a saved model, see `text_tower.Sentence`."""
    sentence = sentence or sentence_parts(backbone.tokenize, clip_reid.BEFORE, clip_reid.AFTER)
    return PDPA(backbone, classes, smoothing, views, sentence)


class PDPA(clip_reid.CLIPReID):
    """The method; see the module docstring and `methods.Method`.

    Attributes:
        prototypes: Unit vectors; 0 before the first epoch, when they add no loss.
            float32 [classes, views, F]
    """

    def __init__(
        self,
        backbone: TokenBackbone,
        classes: int,
        smoothing: float,
        views: Sequence[str],
        sentence: Sequence[Sequence[int]],
    ):
        super().__init__(backbone, classes, smoothing, sentence)
        self.settings["views"] = list(views)
        shape = (classes, len(views), backbone.text.features)
        self.register_buffer("prototypes", torch.zeros(shape))

    def bank_features(self, images: Tensor) -> Tensor:
        """What the bank holds of images, see `methods.Method`."""
        return self.encode(images)[1]

    @torch.no_grad()
    def rebuild(self, features: Tensor, labels: Tensor, views: Tensor, weights: Tensor) -> None:
        """Compute the prototypes, see `methods.Method`."""
        classes, count, width = self.prototypes.shape
        rows = functional.normalize(features, dim=1) * weights[:, None]
        sums = rows.new_zeros(classes * count, width).index_add_(0, labels * count + views, rows)
        mean = functional.normalize(sums, dim=1).unflatten(0, (classes, count))
        anchor = functional.normalize(self.described, dim=1)[:, None]
        self.prototypes.copy_(functional.normalize(mean + anchor, dim=2))

    def text_losses(self, projected: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the projected features against sentences and prototypes, second stage."""
        pull = PULL * pulled(projected, self.prototypes, batch)
        return {**super().text_losses(projected, batch), "prototype": pull}


def pulled(features: Tensor, prototypes: Tensor, batch: Batch) -> Tensor:
    """Cross entropy of images among the prototypes of the other views, mean over these views.

    Args:
        features: float [B, F]
        prototypes: Unit vectors.  float [classes, V, F]
        batch: Labels, views and weights.

    Returns:
        A scalar.
    """
    count, total = prototypes.shape[1], 0
    features = functional.normalize(features.float(), dim=1)
    for view in range(count):
        weights = batch.weights * (batch.views != view) / max(count - 1, 1)
        total = total + losses.classification(
            SCALE * features @ prototypes[:, view].T, batch.labels, weights
        )
    return total
