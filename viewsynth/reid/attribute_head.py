# SPDX-License-Identifier: Apache-2.0
"""Attributes read from a feature map: where each is seen, a vector of it, and whether it is there.

Used by the methods that explain a match by attributes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses
from viewsynth.reid.attributes import UNKNOWN


class AttributeHead(nn.Module):
    """An attention map and a vector for each attribute.

    Args:
        width: Channels of the map.
        count: Number of attributes.
        length: Length of an attribute's vector.
    """

    def __init__(self, width: int, count: int, length: int = 16):
        super().__init__()
        self.where = nn.Conv2d(width, count, 1)
        self.vector = nn.Linear(width, length)
        self.present = nn.Parameter(0.01 * torch.randn(count, length))
        self.bias = nn.Parameter(torch.zeros(count))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors and logits of the attributes.

        Args:
            maps: float [B, C, h, w]

        Returns:
            float [B, A, length], and logits of "yes", float [B, A]
        """
        attention = self.where(maps).flatten(2).softmax(-1)
        vectors = self.vector(attention @ maps.flatten(2).transpose(1, 2))
        return vectors, (vectors * self.present).sum(-1) + self.bias


def attribute_loss(logits: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Mean binary cross entropy over the known attributes of each sample.

    Args:
        logits: float [B, A]
        values: 1 = yes, 0 = no, -1 = unknown.  int8 [B, A]
        weights: float [B]

    Returns:
        A scalar; samples without known attributes add nothing.
    """
    known = (values != UNKNOWN).float()
    terms = functional.binary_cross_entropy_with_logits(
        logits.float(), values.clamp_min(0).float(), reduction="none"
    )
    return losses.weighted((terms * known).sum(1) / known.sum(1).clamp_min(1), weights)
