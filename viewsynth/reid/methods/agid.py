# SPDX-License-Identifier: Apache-2.0
"""Method agid: how a place of the feature map correlates with its surroundings. For vehicles.

Source: the AGID data set and its baseline, Remote Sensing 17(15) 2653, 2025 (aerial-ground
vehicles), whose "enhanced self-correlation feature computation" is known from the abstract: what
follows is our reading, in the form of Kang et al., Relational Embedding, ICCV 2021 (arXiv
2108.09666). Cosines between each place of the last feature map and those within `REACH` of it, by
groups of channels, pass a small network and are added to the map, whose mean is the second feature.
Correlations say how parts lie to each other, which changes less with the view than their colours
and shades. Loss: CE + triplet of the pooled feature and of the second one. Retrieval compares both
after their necks. It runs on any image and any backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid.backbone_modules import Backbone, UnfitError
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ()
TOLD = ""
KNOWN = "abstract"
PUBLISHED = {}
REACH = 2  # places to each side
GROUPS = 8  # of channels


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return AGID(backbone, classes, smoothing)


class AGID(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(self, backbone: Backbone, classes: int, smoothing: float):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing}
        self.backbone = backbone
        width = backbone.map_width()
        if width % GROUPS:
            raise UnfitError(
                f"method agid needs a feature map whose channels are a multiple of {GROUPS}; "
                f"{backbone.kind} has {width}; use another --model.backbone"
            )
        around = (2 * REACH + 1) ** 2
        self.relate = nn.Sequential(
            nn.Conv2d(GROUPS * around, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.neck, self.second_neck = BNNeck(backbone.width, classes), BNNeck(width, classes)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled feature, float [B, width], and the second one, float [B, C]."""
        feature, maps = self.backbone.with_map(images)
        return feature, (maps + self.relate(correlations(maps))).relu().mean((2, 3))

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity and triplet loss of both features, see `Method.losses`."""
        heads = list(zip((self.neck, self.second_neck), self.encode(batch.images), strict=True))
        return identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic)

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """Both features after their necks, see `Method.features`."""
        feature, second = self.encode(images)
        return torch.cat([self.neck.norm(feature), self.second_neck.norm(second)], 1)


def correlations(maps: Tensor) -> Tensor:
    """Cosines between places and those around them, 0 beyond the border, by groups of channels.

    Args:
        maps: float [B, C, h, w]

    Returns:
        float [B, GROUPS * (2 REACH + 1)^2, h, w]; the group changes slowest
    """
    parts = functional.normalize(maps.unflatten(1, (GROUPS, -1)), dim=2, eps=1e-6)
    height, width = maps.shape[2:]
    padded = functional.pad(parts, (REACH,) * 4)
    found = [
        (parts * padded[..., row : row + height, column : column + width]).sum(2)
        for row in range(2 * REACH + 1)
        for column in range(2 * REACH + 1)
    ]
    return torch.stack(found, 2).flatten(1, 2)
