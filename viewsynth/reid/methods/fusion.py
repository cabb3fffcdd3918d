# SPDX-License-Identifier: Apache-2.0
"""Method fusion: several embeddings of an image, each trained on its own, compared together.

Source: Schumann and Metzler, Person re-identification across aerial and ground-based cameras by
deep feature fusion, ATR 2017; known from its title: what follows is our reading. The paper fuses
networks that were trained apart; ours fuses embeddings of one backbone: the pooled feature, and the
means of the upper and of the lower half of the last feature map. Each has a neck of its own with CE
and triplet. Retrieval compares all of them, each after its neck, with equal norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid.backbone_modules import Backbone
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ()
TOLD = ""
KNOWN = "title"
PUBLISHED = {}


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return Fusion(backbone, classes, smoothing)


class Fusion(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(self, backbone: Backbone, classes: int, smoothing: float):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing}
        self.backbone = backbone
        width = backbone.map_width()
        self.neck = BNNeck(backbone.width, classes)
        self.half_necks = nn.ModuleList(BNNeck(width, classes) for _ in range(2))

    def encode(self, images: Tensor) -> list[tuple[BNNeck, Tensor]]:
        """The necks with their embeddings, float [B, D] each."""
        feature, maps = self.backbone.with_map(images)
        middle = max(maps.shape[2] // 2, 1)
        halves = maps[:, :, :middle], maps[:, :, -middle:]
        embeddings = [feature, *(half.mean((2, 3)) for half in halves)]
        return list(zip((self.neck, *self.half_necks), embeddings, strict=True))

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity and triplet loss of all embeddings, see `Method.losses`."""
        heads, smoothing = self.encode(batch.images), self.settings["smoothing"]
        return identity_losses(heads, batch, smoothing, mine_synthetic)

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """All embeddings after their necks, see `Method.features`."""
        return torch.cat(
            [functional.normalize(neck.norm(x), dim=1) for neck, x in self.encode(images)], 1
        )
