# SPDX-License-Identifier: Apache-2.0
"""Method ida: a decoder finds the same parts in every view, and their features are pulled together.

Source: Bei, Zhang and Lai, Implicit Decoder Alignment, Acta Automatica Sinica 2025; known from its
title: what follows is our reading, and shares with the paper no more than the idea. Learned queries
read the patches in a decoder of one block, so that each finds a part of its own, in whatever view.
Loss: CE + triplet of the class token and of the mean part; a squared distance of each part from the
mean of the same part in the images of the same identity in other views; and the squared cosine
between different parts of an image, so that queries do not all find the same. Retrieval compares
both features after their necks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone, require_tokens
from viewsynth.reid.heads import BNNeck, identity_losses
from viewsynth.reid.prompts import PromptBlock

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = ""
KNOWN = "title"
PUBLISHED = {}
PARTS = 8  # queries
ALIGN, APART = 1.0, 0.1  # weights of losses


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return IDA(require_tokens(backbone, "ida"), classes, smoothing)


class IDA(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(self, backbone: TokenBackbone, classes: int, smoothing: float):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing}
        self.backbone = backbone
        width = backbone.width
        self.query_tokens = nn.Parameter(0.02 * torch.randn(1, PARTS, width))
        self.decoder = PromptBlock(width, backbone.heads)
        self.neck, self.part_neck = BNNeck(width, classes), BNNeck(width, classes)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The class token, float [B, D], and the parts, float [B, PARTS, D]."""
        first, patches = self.backbone.with_map(images)
        queries = self.query_tokens.expand(len(images), -1, -1)
        return first, self.decoder(queries, patches.flatten(2).transpose(1, 2))

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet, alignment and separation loss, see `Method.losses`."""
        first, parts = self.encode(batch.images)
        heads = [(self.neck, first), (self.part_neck, parts.mean(1))]
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            "alignment": ALIGN * aligned(parts, batch.labels, batch.views, batch.weights),
            "separation": APART * losses.weighted(_alike(parts), batch.weights),
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """Class token and mean part after their necks, see `Method.features`."""
        first, parts = self.encode(images)
        return torch.cat([self.neck.norm(first), self.part_neck.norm(parts.mean(1))], 1)


def aligned(parts: Tensor, labels: Tensor, views: Tensor, weights: Tensor) -> Tensor:
    """Squared distance of parts from the mean of the same identity's in other views.

    Args:
        parts: float [B, P, D]
        labels: int64 [B]
        views: int64 [B]
        weights: float [B]

    Returns:
        A scalar; images without one of another view add nothing.
    """
    parts = functional.normalize(parts.float(), dim=-1)
    share, found = losses.in_other_views(labels, views, weights)
    mean = torch.einsum("bc,cpd->bpd", share, parts.detach())
    apart = (parts - mean).square().sum(-1).mean(1)
    return losses.weighted(apart, weights * found)


def _alike(parts: Tensor) -> Tensor:
    """Mean squared cosine between the parts of an image, [B]."""
    parts = functional.normalize(parts.float(), dim=-1)
    likeness = (parts @ parts.mT).square()
    count = parts.shape[1]
    return (likeness.sum((1, 2)) - count) / (count * (count - 1))
