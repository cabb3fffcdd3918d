# SPDX-License-Identifier: Apache-2.0
"""Heads between the feature of a backbone and the losses, for reid.methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from viewsynth.reid import losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch


class BNNeck(nn.Module):
    """Batch normalisation between the feature of the metric loss and a linear classifier.

    Source: Luo et al., Bag of Tricks, CVPRW 2019 (arXiv 1903.07071): the triplet loss takes the
    feature before the normalisation, the classifier and retrieval the one after it. The bias of the
    normalisation stays zero; the classifier has no bias and is initialised from N(0, 0.01).

    Args:
        width: Length of a feature.
        classes: Number of identities (or views).
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of features.

        Args:
            features: Features before the normalisation.  float [B, width]

        Returns:
            float [B, classes]
        """
        return self.classifier(self.norm(features))


def identity_losses(
    heads: Sequence[tuple[BNNeck, Tensor]], batch: Batch, smoothing: float, mine_synthetic: bool
) -> dict[str, Tensor]:
    """Identity and triplet loss of some features, each summed over the features.

    Args:
        heads: Heads with their features, before the normalisation.  float [B, D] each
        batch: The batch.
        smoothing: Label smoothing.
        mine_synthetic: Whether synthetic images may be mined as hardest negatives.
    """
    labels, weights = batch.labels, batch.weights
    negatives = None if mine_synthetic else ~batch.synthetic
    return {
        "identity": sum(
            losses.classification(neck(feature), labels, weights, smoothing)
            for neck, feature in heads
        ),
        "triplet": sum(losses.triplet(feature, labels, weights, negatives) for _, feature in heads),
    }
