# SPDX-License-Identifier: Apache-2.0
"""Method baseline: one feature, a BNNeck, identity and triplet loss; works on any backbone.

Source: Luo et al., Bag of Tricks, CVPRW 2019 (arXiv 1903.07071), in the variant that is common in
aerial-ground ReID: no centre loss, no label smoothing by default, a soft margin instead of 0.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from viewsynth.reid.backbone_modules import Backbone
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ()
TOLD = ""
KNOWN = "released code"
# Of a ViT-B/16, as quoted beside other methods.
PUBLISHED = {
    "cargo": {
        "ALL": (61.54, 53.54),
        "G<->G": (82.14, 71.34),
        "A<->A": (80.00, 64.47),
        "A<->G": (43.13, 40.11),
    },
    "lagper": {"A->G": (38.67, 27.25), "G->A": (32.04, 30.69), "G->A+G": (18.88, 15.31)},
}


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return Baseline(backbone, classes, smoothing)


class Baseline(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(self, backbone: Backbone, classes: int, smoothing: float):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing}
        self.backbone = backbone
        self.neck = BNNeck(backbone.width, classes)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity and triplet loss, see `Method.losses`."""
        heads = [(self.neck, self.backbone(batch.images))]
        return identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic)

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """The feature after the neck, see `Method.features`."""
        return self.neck.norm(self.backbone(images))
