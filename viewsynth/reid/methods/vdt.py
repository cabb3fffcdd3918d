# SPDX-License-Identifier: Apache-2.0
"""vdt: a view token takes out of the class token what depends on the view.

Source: Zhang et al., View-decoupled Transformer, CVPR 2024 (arXiv 2403.14513). A view token joins
the sequence; after every block CLS <- CLS - VIEW; after the last normalisation, LN, the identity
feature is LN(CLS) - LN(VIEW) and the view feature LN(VIEW). Loss: CE_id + triplet_id + 0.001
(CE_view + mean |cos(identity feature, view feature)|); only the classifiers see features after
their necks. The view is needed in training only.

We differ from the release: its table of positions is brought to the grid as if it had two tokens
before the places, so that its view token starts at a copy of the first place's position; ours uses
that position itself, shared. (A bare zero token would meet the normalisation of a ViT, whose
epsilon is 1e-12, with a slope of a million.) Positions are resized bicubic, not bilinear. There is
no stochastic depth. The view losses are weighted by sample like all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid import losses
from viewsynth.reid.backbones import TOKENS, Backbone, Tokens
from viewsynth.reid.heads import BNNeck

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = "views"
BALANCE = 1e-3  # lambda of the paper


def build(backbone: Backbone, classes: int, smoothing: float, views: int) -> nn.Module:
    """As `methods.build` says.

    Raises: ValueError: if the backbone has no tokens.
    """
    if not isinstance(backbone, Tokens):
        raise ValueError(
            f"method vdt needs a backbone with tokens ({', '.join(TOKENS)}); got {backbone.kind}; "
            "take another model, or the method baseline"
        )
    return VDT(backbone, classes, smoothing, views)


class VDT(nn.Module):
    """See the head of this file and `methods.Method`."""

    def __init__(self, backbone: Tokens, classes: int, smoothing: float, views: int):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": views}
        self.backbone = backbone
        self.view_token = nn.Parameter(torch.zeros(1, 1, backbone.width))
        self.neck = BNNeck(backbone.width, classes)
        self.view_neck = BNNeck(backbone.width, views)

    def decouple(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Identity feature and view feature.  [B, 3, H, W] -> [B, width] each"""
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
        """Identity, triplet, view and orthogonality loss."""
        feature, view = self.decouple(batch.images)
        labels, weights = batch.labels, batch.weights
        smoothing = self.settings["smoothing"]
        return {
            "identity": losses.classification(self.neck(feature), labels, weights, smoothing),
            "triplet": losses.triplet(
                feature, labels, weights, None if mine_synthetic else ~batch.synthetic
            ),
            "view": BALANCE * losses.classification(self.view_neck(view), batch.views, weights),
            "orthogonality": BALANCE * losses.orthogonality(feature, view, weights),
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """The identity feature after its neck.  [B, width]"""
        return self.neck.norm(self.decouple(images)[0])
