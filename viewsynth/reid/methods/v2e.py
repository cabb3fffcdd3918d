# SPDX-License-Identifier: Apache-2.0
"""Method v2e: explain, and a third stream that attends to what stays visible from above.

Source: Nguyen et al., AG-ReID.v2, TIFS 2024 (arXiv 2401.02634); known from its abstract: what
follows is our reading. The elevated-view stream attends to the head region: its attention starts at
the upper quarter of the feature map and learns from there; it has CE + triplet of its own. The
other streams are those of `explain`. Retrieval compares all three. Attributes are needed in
training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid.attribute_head import attribute_loss
from viewsynth.reid.backbone_modules import Backbone
from viewsynth.reid.heads import BNNeck, identity_losses
from viewsynth.reid.methods import explain

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("attributes",)
TOLD = ""
KNOWN = "abstract"
PUBLISHED = {
    "ag_reid_v2": {"A->C": (88.77, 80.72), "C->A": (87.86, 78.51)}
    | {"A->W": (93.62, 84.85), "W->A": (88.61, 80.11)},
}
HEAD, START = 0.25, 2.0  # upper part of the map, and how much its logits start above the others


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    attributes: Sequence[str] = (),
) -> nn.Module:
    """See `methods.build`; `attributes` are their names."""
    return V2E(backbone, classes, smoothing, attributes)


class V2E(explain.Explain):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self, backbone: Backbone, classes: int, smoothing: float, attributes: Sequence[str]
    ):
        super().__init__(backbone, classes, smoothing, attributes)
        width = backbone.map_width()
        self.above = nn.Conv2d(width, 1, 1)
        self.above_neck = BNNeck(width, classes)

    def streams(self, images: Tensor) -> tuple[list[tuple[BNNeck, Tensor]], Tensor]:
        """The necks with the features of their streams, and the logits of the attributes."""
        feature, maps = self.backbone.with_map(images)
        vectors, logits = self.head(maps)
        rows = torch.arange(maps.shape[2], device=maps.device) < HEAD * maps.shape[2]
        attention = (self.above(maps) + START * rows[:, None]).flatten(2).softmax(-1)
        above = (attention @ maps.flatten(2).transpose(1, 2))[:, 0]
        necks = self.neck, self.second_neck, self.above_neck
        return list(zip(necks, (feature, vectors.flatten(1), above), strict=True)), logits

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity and triplet loss of all streams, attribute loss, see `Method.losses`."""
        heads, logits = self.streams(batch.images)
        known = attribute_loss(logits, batch.attributes, batch.weights)
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            "attributes": explain.ATTRIBUTES * known,
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """All streams after their necks, with equal norms, see `Method.features`."""
        heads, _ = self.streams(images)
        return torch.cat([functional.normalize(neck.norm(one), dim=1) for neck, one in heads], 1)
