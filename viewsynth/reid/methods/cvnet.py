# SPDX-License-Identifier: Apache-2.0
"""Method cvnet: localised details at several scales, in a shallow and a deep branch. For vehicles.

Source: Yin et al., CVNet, Sensors 25(9) 2809, 2025 (aerial-ground vehicles); known from its
abstract: what follows is our reading. MSL: depth-wise convolutions of several sizes over the last
feature map, summed, and an attention map that locates what distinguishes. DFC: a shallow branch of
one such module and a deep one of two; each is filtered by gates over its channels, and a gate of
both shares them out (collaboration). Loss: CE + triplet of the pooled feature and of the details.
Retrieval compares both after their necks. It runs on any image and any backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid.backbone_modules import Backbone
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ()
TOLD = ""
KNOWN = "abstract"
PUBLISHED = {}
SCALES = (3, 5, 7)  # sizes of the depth-wise convolutions
SQUEEZE = 4  # channels per hidden unit of a gate


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return CVNet(backbone, classes, smoothing)


class Details(nn.Module):
    """MSL: details at several scales, weighted by where they are.

    Args:
        width: Channels.
    """

    def __init__(self, width: int):
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Conv2d(width, width, side, padding=side // 2, groups=width) for side in SCALES
        )
        self.mix = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.where = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        found = self.mix(sum(scale(maps) for scale in self.scales)).relu()
        places = torch.cat([found.mean(1, keepdim=True), found.amax(1, keepdim=True)], 1)
        return maps + found * self.where(places).sigmoid()


def gate(width: int) -> nn.Sequential:
    """A factor in (0, 1) for each value of a vector.

    Args:
        width: Length of the vector.
    """
    hidden = max(width // SQUEEZE, 8)
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid()
    )


class CVNet(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(self, backbone: Backbone, classes: int, smoothing: float):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing}
        self.backbone = backbone
        width = backbone.map_width()
        self.shallow = Details(width)
        self.deep = nn.Sequential(Details(width), Details(width))
        self.filters = nn.ModuleList(gate(width) for _ in range(2))
        self.share = nn.Sequential(nn.Linear(2 * width, width), nn.Sigmoid())
        self.neck, self.detail_neck = BNNeck(backbone.width, classes), BNNeck(width, classes)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature, float [B, width], and the details, float [B, C]."""
        feature, maps = self.backbone.with_map(images)
        shallow, deep = (branch(maps).mean((2, 3)) for branch in (self.shallow, self.deep))
        shallow, deep = self.filters[0](shallow) * shallow, self.filters[1](deep) * deep
        share = self.share(torch.cat([shallow, deep], 1))
        return feature, share * shallow + (1 - share) * deep

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity and triplet loss of both features, see `Method.losses`."""
        feature, details = self.encode(batch.images)
        heads = [(self.neck, feature), (self.detail_neck, details)]
        return identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic)

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """Both features after their necks, see `Method.features`."""
        feature, details = self.encode(images)
        return torch.cat([self.neck.norm(feature), self.detail_neck.norm(details)], 1)
