# SPDX-License-Identifier: Apache-2.0
"""Method explain: a ReID stream, and one that reads attributes and explains distances by them.

Source: Nguyen et al., Aerial-ground person re-ID, ICME 2023 (arXiv 2303.08597), which introduces
AG-ReID; known from its abstract: what follows is our reading. The explaining stream has an
attention map and a short vector for each attribute, trained with cross entropy on the labels and
CE + triplet on all vectors together; between two images, `explain` weighs the distance in each
attribute by the chance that both show it or both lack it, so that a distance is a sum over
attributes. Retrieval compares both streams. Attributes are needed in training only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid.attribute_head import AttributeHead, attribute_loss
from viewsynth.reid.backbone_modules import Backbone
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("attributes",)
TOLD = ""
KNOWN = "abstract"
PUBLISHED = {
    "ag_reid_v1": {"A->G": (81.47, 72.61), "G->A": (82.85, 73.35)},
    "ag_reid_v2": {"A->C": (87.70, 79.00), "C->A": (87.35, 78.24)}
    | {"A->W": (93.67, 83.14), "W->A": (87.73, 79.08)},
    "lagper": {"A->G": (40.48, 28.89), "G->A": (32.96, 31.91), "G->A+G": (22.03, 17.89)},
}
ATTRIBUTES = 1.0  # weight of the attribute loss


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    attributes: Sequence[str] = (),
) -> nn.Module:
    """See `methods.build`; `attributes` are their names."""
    return Explain(backbone, classes, smoothing, attributes)


class Explain(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self, backbone: Backbone, classes: int, smoothing: float, attributes: Sequence[str]
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing}
        self.settings["attributes"] = list(attributes)
        self.backbone = backbone
        self.head = AttributeHead(backbone.map_width(), len(attributes))
        self.neck = BNNeck(backbone.width, classes)
        self.second_neck = BNNeck(len(attributes) * self.head.present.shape[1], classes)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The feature, float [B, width], vectors, float [B, A, L], and logits, float [B, A]."""
        feature, maps = self.backbone.with_map(images)
        return feature, *self.head(maps)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity and triplet loss of both streams, attribute loss, see `Method.losses`."""
        feature, vectors, logits = self.encode(batch.images)
        heads = [(self.neck, feature), (self.second_neck, vectors.flatten(1))]
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            "attributes": ATTRIBUTES * attribute_loss(logits, batch.attributes, batch.weights),
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """Both streams after their necks, with equal norms, see `Method.features`."""
        feature, vectors, _ = self.encode(images)
        both = self.neck.norm(feature), self.second_neck.norm(vectors.flatten(1))
        return torch.cat([functional.normalize(one, dim=1) for one in both], 1)

    @torch.no_grad()
    def explain(self, one: Tensor, other: Tensor) -> Tensor:
        """How far two images are apart in each attribute.

        Args:
            one: RGB in [0, 1].  float [B, 3, H, W]
            other: Likewise, of the images to compare with.

        Returns:
            Squared distance of the vectors times the chance that both images show the attribute or
            both lack it.  float [B, A]
        """
        (_, first, ones), (_, second, others) = self.encode(one), self.encode(other)
        ones, others = ones.sigmoid(), others.sigmoid()
        return (first - second).square().sum(-1) * (ones * others + (1 - ones) * (1 - others))
