# SPDX-License-Identifier: Apache-2.0
"""Heads: what stands between a backbone's feature and the losses. Used by `methods`."""

from __future__ import annotations

from torch import Tensor, nn


class BNNeck(nn.Module):
    """A normalisation between the feature that distances are learnt on and the classifier.

    Source: Luo et al., Bag of Tricks, CVPRW 2019 (arXiv 1903.07071): the triplet loss takes the
    feature before it, the classifier and retrieval the one after. The bias of the normalisation
    stays zero; the classifier has none and starts from N(0, 0.01).

    Args:
        width: Length of a feature.
        classes: How many identities (or views) there are.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, features: Tensor) -> Tensor:
        """Logits.  float [B, width] -> [B, classes]"""
        return self.classifier(self.norm(features))
