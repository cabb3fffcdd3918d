# SPDX-License-Identifier: Apache-2.0
"""Method gsalign: patch maps are straightened by thin-plate splines before every block.

Source: Li et al., Geometric and Semantic Alignment, NeurIPS 2025 (arXiv 2510.22268); known from
released code. The encoder is that of `reid.view_tokens`. Before each block a small network predicts
one angle for each image; learned control points are rotated by it, a thin-plate spline maps a fixed
grid to them, the patches are sampled there and mixed into the map (LTPS). In training, the mean
patch, masked by a network, is pulled to the masked mean of its identity in the batch (DAM); it is
not used in retrieval. Loss: CE + triplet, 0.001 (CE_view + mean |cos|), 10 (mean squared distance
+ 0.1 entropy of the mask), and 0.5 times the mean |angle|, summed over blocks.

Differences from the release, besides those of `reid.view_tokens`: the angle starts at 0. The weight
of the angles is 0 in its configuration for CARGO. Its configurations for AG-ReID test with mirrored
images and query expansion, which `evaluate` does only if it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses, view_tokens
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone, require_tokens
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = ""
KNOWN = "released code"
# Those of AG-ReID with flipped images and query expansion.
PUBLISHED = {
    "cargo": {
        "ALL": (65.06, 57.95),
        "G<->G": (83.04, 73.86),
        "A<->A": (80.00, 65.55),
        "A->G": (64.89, 61.55),
    },
    "ag_reid_v1": {"A->G": (83.75, 75.01), "G->A": (84.10, 77.73)},
    "ag_reid_v2": {
        "A->C": (87.86, 81.38),
        "C->A": (88.02, 81.05),
        "A->W": (90.63, 83.98),
        "W->A": (87.31, 80.90),
    },
}
VIEW_WEIGHT = 1e-3
MIX = 0.1  # share of the straightened map
ALIGN, ENTROPY, ANGLE = 10.0, 0.1, 0.5  # weights of losses
CORNER = 0.5  # control points at (+-CORNER, +-CORNER) of a map over [-1, 1]


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return GSAlign(require_tokens(backbone, "gsalign"), classes, smoothing, views)


class Straighten(nn.Module):
    """LTPS: a learned thin-plate spline over a patch map.

    Args:
        width: Length of a patch.
        grid: Height and width of the map.
    """

    def __init__(self, width: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        ends = torch.tensor([-CORNER, CORNER])
        fixed = torch.cartesian_prod(ends, ends)
        self.point_tokens = nn.Parameter(fixed.clone())
        self.look = nn.Conv2d(width, max(width // 3, 8), 3, padding=1)
        self.angle = nn.Sequential(
            nn.Linear(self.look.out_channels, 128), nn.ReLU(), nn.Linear(128, 1)
        )
        nn.init.zeros_(self.angle[-1].weight)
        nn.init.zeros_(self.angle[-1].bias)
        rows, columns = (torch.linspace(-1, 1, side) for side in grid)
        places = torch.cartesian_prod(rows, columns).flip(1)  # x, y
        self.register_buffer("spline", spline(fixed, places), persistent=False)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed map, and the angles.

        Args:
            patches: float [B, N, D]

        Returns:
            float [B, N, D], and radians [B]
        """
        image = patches.transpose(1, 2).unflatten(2, self.grid)
        angle = self.angle(functional.relu(self.look(image)).mean((2, 3)))[:, 0].tanh()
        angle = angle * (math.pi / 2)
        cosine, sine = angle.cos(), angle.sin()
        turn = torch.stack([cosine, -sine, sine, cosine], 1).unflatten(1, (2, 2))
        sources = self.point_tokens @ turn.mT
        places = (self.spline @ sources.float()).unflatten(1, self.grid)
        bent = functional.grid_sample(
            image.float(), places, padding_mode="border", align_corners=True
        )
        return patches + MIX * bent.flatten(2).transpose(1, 2).to(patches), angle


def spline(points: Tensor, places: Tensor) -> Tensor:
    """Weights of a thin-plate spline: values at places from values at control points.

    Source: Bookstein, PAMI 11(6), 1989.

    Args:
        points: Control points.  [K, 2]
        places: [N, 2]

    Returns:
        [N, K]
    """
    count = len(points)
    system = torch.zeros(count + 3, count + 3, dtype=torch.float64)
    affine = functional.pad(points.double(), (1, 0), value=1.0)
    system[:count, :count] = _bend(points, points)
    system[:count, count:], system[count:, :count] = affine, affine.T
    terms = torch.cat([_bend(places, points), functional.pad(places.double(), (1, 0), value=1)], 1)
    return (terms @ torch.linalg.inv(system))[:, :count].float()


def _bend(places: Tensor, points: Tensor) -> Tensor:
    """r^2 log r for every place and point, 0 at r = 0."""
    squared = torch.cdist(places.double(), points.double()).square()
    return torch.special.xlogy(squared, squared) / 2


class GSAlign(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self, backbone: TokenBackbone, classes: int, smoothing: float, views: Sequence[str]
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.backbone = backbone
        width = backbone.width
        self.view_token = nn.Parameter(torch.zeros(1, 1, width))
        self.straighten = nn.ModuleList(
            Straighten(width, backbone.grid) for _ in range(len(backbone.blocks))
        )
        self.mask = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.neck, self.view_neck = BNNeck(width, classes), BNNeck(width, len(views))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Identity feature, view feature, mean patch, angles.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]

        Returns:
            float [B, width] three times, and radians [B, blocks]
        """
        angles, count = [], self.backbone.grid[0] * self.backbone.grid[1]

        def bend(number: int, tokens: Tensor) -> Tensor:
            patches, angle = self.straighten[number](tokens[:, -count:])
            angles.append(angle)
            return torch.cat([tokens[:, :-count], patches], 1)

        tokens = view_tokens.before_last(self.backbone, self.view_token, images, bend)
        tokens = bend(len(self.straighten) - 1, tokens)
        feature, view = view_tokens.decoupled(self.backbone, tokens)
        return feature, view, tokens[:, -count:].mean(1), torch.stack(angles, 1)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet, view, alignment and angle losses, see `Method.losses`."""
        feature, view, patch, angles = self.encode(batch.images)
        heads = [(self.neck, feature)]
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            **view_tokens.view_losses(self.view_neck, feature, view, batch, VIEW_WEIGHT),
            "alignment": ALIGN * self._alignment(patch.float(), batch),
            "angle": ANGLE * losses.weighted(angles.abs().sum(1), batch.weights),
        }

    forward = losses

    def _alignment(self, patch: Tensor, batch: Batch) -> Tensor:
        """Distance of the masked patches from the masked mean of their identities, and entropy."""
        logits = self.mask(patch).float()
        mask = logits.sigmoid()
        same = (batch.labels[:, None] == batch.labels) * batch.weights
        centre = same @ patch / same.sum(1, keepdim=True).clamp_min(1e-6)
        apart = (mask * (patch - centre)).square().mean(1)
        entropy = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none").mean(
            1
        )
        return losses.weighted(apart + ENTROPY * entropy, batch.weights)

    def features(self, images: Tensor) -> Tensor:
        """The identity feature after its neck, see `Method.features`."""
        return self.neck.norm(self.encode(images)[0])
