# SPDX-License-Identifier: Apache-2.0
"""Method vdt: a view token that is subtracted from the class token to remove the view.

Source: Zhang et al., View-decoupled Transformer, CVPR 2024 (arXiv 2403.14513). A view token is
added to the sequence; after every block CLS <- CLS - VIEW; after the final normalisation LN, the
identity feature is LN(CLS) - LN(VIEW) and the view feature is LN(VIEW). Loss: CE_id + triplet_id +
0.001 (CE_view + mean |cos(identity feature, view feature)|), where the classifiers use the features
after their necks. View labels are needed in training only.

Differences from the release: it resizes its position embeddings as if two tokens preceded the
patches, so its view token is initialised with a copy of the position of the first patch; ours
shares that position. (With a zero token, the normalisation of a ViT, epsilon 1e-12, would have a
gradient of up to a million.) Position embeddings are resized by bicubic instead of bilinear
interpolation. There is no stochastic depth. The view losses use the sample weights, as all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid import losses
from viewsynth.reid.backbones import VIT_TYPES, Backbone, TokenBackbone
from viewsynth.reid.heads import BNNeck

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = "views"
VIEW_WEIGHT = 1e-3  # lambda of the paper


def build(backbone: Backbone, classes: int, smoothing: float, views: int) -> nn.Module:
    """See `methods.build`.

    Raises:
        ValueError: If the backbone has no tokens.
    """
    if not isinstance(backbone, TokenBackbone):
        raise ValueError(
            f"method vdt needs a backbone with tokens ({', '.join(VIT_TYPES)}, small_vit); got "
            f"{backbone.kind}; use another --model.backbone, or --model.method baseline"
        )
    return VDT(backbone, classes, smoothing, views)


class VDT(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(self, backbone: TokenBackbone, classes: int, smoothing: float, views: int):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": views}
        self.backbone = backbone
        self.view_token = nn.Parameter(torch.zeros(1, 1, backbone.width))
        self.neck = BNNeck(backbone.width, classes)
        self.view_neck = BNNeck(backbone.width, views)

    def decouple(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Identity feature and view feature.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, width] each
        """
        view = self.view_token + self.backbone.places[:, 1:2]
        tokens = self.backbone.embed(images, view)
        for block in self.backbone.blocks[:-1]:
            tokens = block(tokens)
            tokens = torch.cat([tokens[:, :1] - tokens[:, 1:2], tokens[:, 1:]], 1)
        tokens = self.backbone.blocks[-1](tokens, 2)
        tokens = torch.cat([tokens[:, :1] - tokens[:, 1:], tokens[:, 1:]], 1)
        identity, view = self.backbone.norm(tokens).unbind(1)
        return identity - view, view

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet, view and orthogonality loss, see `Method.losses`."""
        feature, view = self.decouple(batch.images)
        labels, weights = batch.labels, batch.weights
        smoothing = self.settings["smoothing"]
        return {
            "identity": losses.classification(self.neck(feature), labels, weights, smoothing),
            "triplet": losses.triplet(
                feature, labels, weights, None if mine_synthetic else ~batch.synthetic
            ),
            "view": VIEW_WEIGHT * losses.classification(self.view_neck(view), batch.views, weights),
            "orthogonality": VIEW_WEIGHT * losses.orthogonality(feature, view, weights),
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """The identity feature after its neck, see `Method.features`."""
        return self.neck.norm(self.decouple(images)[0])
