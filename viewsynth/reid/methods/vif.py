# SPDX-License-Identifier: Apache-2.0
"""Method vif: regions of training images are rotated; angles between features are penalised.

Source: Khalid et al., Bridging the Sky and Ground, ICCV 2025; known from its abstract: what follows
is our reading. RotateMix: in training, a square region of an image, at a random place, is rotated
about its centre by a random angle and put back, so that features do not depend on the orientation
of parts. View-invariant angular loss: the angle to the farthest image of the same identity, of the
other view if there is one, and how far the nearest other identity is within 90 degrees, enter
exponentially. Otherwise it is the baseline. Views are not needed at test time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses
from viewsynth.reid.backbone_modules import Backbone
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = ""
KNOWN = "abstract"
PUBLISHED = {
    "cargo": {
        "ALL": (65.71, 57.46),
        "G<->G": (83.93, 74.19),
        "A<->A": (82.50, 66.98),
        "A<->G": (51.25, 44.55),
    },
    "ag_reid_v1": {"A->G": (83.75, 75.22), "G->A": (87.32, 79.19)},
}
ROTATED = 0.5  # probability that an image has a rotated region
SIDES = 0.3, 0.9  # side of the region, over the width of the image
ANGULAR, GROWTH = 0.1, 2.0  # weight of the loss; exponent per radian


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return VIF(backbone, classes, smoothing)


class VIF(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(self, backbone: Backbone, classes: int, smoothing: float):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing}
        self.backbone = backbone
        self.neck = BNNeck(backbone.width, classes)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet and angular loss, see `Method.losses`."""
        images = rotate_mix(batch.images) if self.training else batch.images
        feature = self.backbone(images)
        heads = [(self.neck, feature)]
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            "angular": ANGULAR * angular(feature, batch.labels, batch.views, batch.weights),
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """The feature after the neck, see `Method.features`."""
        return self.neck.norm(self.backbone(images))


def rotate_mix(images: Tensor) -> Tensor:
    """Images of which some have a rotated square region.

    Args:
        images: float [B, 3, H, W]
    """
    count, _, height, width = images.shape
    draw = torch.rand(5, count).to(images.device)  # on the CPU: the same on every device
    half = (SIDES[0] + (SIDES[1] - SIDES[0]) * draw[0]) * width / 2
    x, y = half + draw[1] * (width - 2 * half), half + draw[2] * (height - 2 * half)
    turn = 2 * math.pi * draw[3] * (draw[4] < ROTATED)
    rows = torch.arange(height, device=images.device) + 0.5
    columns = torch.arange(width, device=images.device) + 0.5
    dx = columns[None, None, :] - x[:, None, None]
    dy = rows[None, :, None] - y[:, None, None]
    inside = (dx.abs() < half[:, None, None]) & (dy.abs() < half[:, None, None])
    cosine, sine = turn.cos()[:, None, None], turn.sin()[:, None, None]
    at_x = x[:, None, None] + torch.where(inside, cosine * dx - sine * dy, dx)
    at_y = y[:, None, None] + torch.where(inside, sine * dx + cosine * dy, dy)
    places = torch.stack([2 * at_x / width - 1, 2 * at_y / height - 1], -1)
    return functional.grid_sample(
        images, places.to(images), padding_mode="border", align_corners=False
    )


def angular(features: Tensor, labels: Tensor, views: Tensor, weights: Tensor) -> Tensor:
    """View-invariant angular loss, see the module docstring.

    Args:
        features: float [B, D]
        labels: int64 [B]
        views: int64 [B]
        weights: Samples of weight 0 are neither anchors nor mined.  float [B]

    Returns:
        A scalar.
    """
    features = functional.normalize(features.float(), dim=1)
    angles = (features @ features.T).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    same, counts = labels[:, None] == labels, weights > 0
    positive = same & counts & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    across = positive & (views[:, None] != views)
    positive = torch.where(across.any(1, keepdim=True), across, positive)
    negative = ~same & counts
    far = angles.masked_fill(~positive, 0).amax(1)
    near = angles.masked_fill(~negative, math.pi).amin(1)
    terms = torch.expm1(GROWTH * far) + torch.expm1(GROWTH * (math.pi / 2 - near).clamp_min(0))
    return losses.weighted(terms, weights * positive.any(1) * negative.any(1))
