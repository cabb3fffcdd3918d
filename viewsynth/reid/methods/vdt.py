# SPDX-License-Identifier: Apache-2.0
"""Method vdt: a view token that is subtracted from the class token to remove the view.

Source: Zhang et al., View-decoupled Transformer, CVPR 2024 (arXiv 2403.14513); known from released
code. The encoder is that of `reid.view_tokens`. Loss: CE_id + triplet_id + 0.001 (CE_view + mean
|cos(identity feature, view feature)|), where the classifiers use the features after their necks.
View labels are needed in training only.

Differences from the release, besides those of `reid.view_tokens`: position embeddings are resized
by bicubic instead of bilinear interpolation. There is no stochastic depth. The view losses use the
sample weights, as all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid import view_tokens
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone, require_tokens
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = ""
KNOWN = "released code"
PUBLISHED = {
    "cargo": {
        "ALL": (64.10, 55.20),
        "G<->G": (82.14, 71.59),
        "A<->A": (82.50, 66.83),
        "A<->G": (48.12, 42.76),
    },
    "ag_reid_v1": {"A->G": (82.91, 74.44), "G->A": (86.59, 78.57)},
    "ag_reid_v2": {
        "A->C": (86.46, 79.13),
        "C->A": (86.14, 78.12),
        "A->W": (90.00, 82.21),
        "W->A": (85.26, 78.52),
    },
    "lagper": {"A->G": (40.15, 28.97), "G->A": (33.55, 31.98), "G->A+G": (19.50, 16.45)},
}
VIEW_WEIGHT = 1e-3  # lambda of the paper


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return VDT(require_tokens(backbone, "vdt"), classes, smoothing, views)


class VDT(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self, backbone: TokenBackbone, classes: int, smoothing: float, views: Sequence[str]
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.backbone = backbone
        self.view_token = nn.Parameter(torch.zeros(1, 1, backbone.width))
        self.neck = BNNeck(backbone.width, classes)
        self.view_neck = BNNeck(backbone.width, len(views))

    def decouple(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Identity feature and view feature.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, width] each
        """
        tokens = view_tokens.before_last(self.backbone, self.view_token, images)
        return view_tokens.decoupled(self.backbone, tokens)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet, view and orthogonality loss, see `Method.losses`."""
        feature, view = self.decouple(batch.images)
        heads = [(self.neck, feature)]
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            **view_tokens.view_losses(self.view_neck, feature, view, batch, VIEW_WEIGHT),
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """The identity feature after its neck, see `Method.features`."""
        return self.neck.norm(self.decouple(images)[0])
