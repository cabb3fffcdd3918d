# SPDX-License-Identifier: Apache-2.0
"""Method apan: prototypes chosen for each image read its patches, which read them in turn.

Source: the repository of APAN (2026); known from a description of its released code, whose losses
and attention were not described in full: what follows is our reading. The encoder is that of
`reid.view_tokens`. `FIXED` prototypes serve every image, and of `CANDIDATES` others the `KEPT` most
similar to its identity feature. The prototypes read the patches before the last block, whose
logarithmic prior is their similarity to the identity feature (`DELTAS[0]`); then the patches read
the prototypes, whose prior is the probability of their choice (`DELTAS[1]`); the mean patch is the
local feature, with a further loss whose margin adapts to the spread of distances in the batch.
Other losses are those of VDT, for both features. Retrieval compares both after their necks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses, view_tokens
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone, require_tokens
from viewsynth.reid.heads import BNNeck, identity_losses
from viewsynth.reid.prompts import Attention

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = ""
KNOWN = "description"
# Means over seeds.
PUBLISHED = {
    "cargo": {
        "ALL": (75.02, 69.28),
        "G<->G": (87.32, 82.27),
        "A<->A": (82.50, 74.34),
        "A<->G": (65.14, 60.63),
    },
    "ag_reid_v1": {"A->G": (84.62, 75.61), "G->A": (85.88, 78.25)},
    "ag_reid_v2": {
        "A->C": (89.29, 82.78),
        "C->A": (89.51, 82.12),
        "A->W": (91.47, 85.29),
        "W->A": (88.51, 82.04),
    },
    "lagper": {"A->G": (42.20, 30.43), "G->A": (35.07, 33.57), "G->A+G": (25.02, 19.59)},
}
FIXED, CANDIDATES, KEPT = 16, 32, 16  # prototypes
DELTAS = 1.0, 0.8  # weights of the logarithmic priors, those for CARGO
SHARP = 0.07  # temperature of similarities
SPREAD, TEMPERATURE = 0.01, 1.2  # alpha and beta of the margin loss
VIEW_WEIGHT = 1e-3


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return APAN(require_tokens(backbone, "apan"), classes, smoothing, views)


class APAN(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self, backbone: TokenBackbone, classes: int, smoothing: float, views: Sequence[str]
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.backbone = backbone
        width = backbone.width
        self.view_token = nn.Parameter(torch.zeros(1, 1, width))
        self.fixed_tokens = nn.Parameter(0.02 * torch.randn(FIXED, width))
        self.candidate_tokens = nn.Parameter(0.02 * torch.randn(CANDIDATES, width))
        self.read, self.write = (Attention(width, backbone.heads) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.neck, self.local_neck = BNNeck(width, classes), BNNeck(width, classes)
        self.view_neck = BNNeck(width, len(views))

    def prototypes(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """The prototypes of each image, and the logarithm of the probability of their choice.

        Args:
            feature: Identity feature.  float [B, D]

        Returns:
            float [B, FIXED + KEPT, D] and [B, FIXED + KEPT]
        """
        likeness = losses.cosines(feature[:, None], self.candidate_tokens[None])[:, 0] / SHARP
        logs = likeness.log_softmax(-1)
        kept, places = logs.topk(KEPT)
        fixed = self.fixed_tokens.expand(len(feature), -1, -1)
        # The probability, relative to an even one, scales a candidate: choices get a gradient.
        chosen = self.candidate_tokens[places] * (CANDIDATES * kept.exp())[..., None].to(fixed)
        log_even = kept.new_full((len(feature), FIXED), 1 / CANDIDATES).log()
        return torch.cat([fixed, chosen], 1), torch.cat([log_even, kept], 1)

    def local(self, feature: Tensor, patches: Tensor) -> Tensor:
        """The local feature.

        Args:
            feature: Identity feature.  float [B, D]
            patches: Patches before the last block.  float [B, N, D]

        Returns:
            float [B, D]
        """
        prototypes, chosen = self.prototypes(feature)
        prior = (losses.cosines(feature[:, None], patches) / SHARP).log_softmax(-1)
        found = self.read(prototypes, patches, patches, DELTAS[0] * prior)
        prototypes = self.norms[0](prototypes + found)
        found = self.write(patches, prototypes, prototypes, DELTAS[1] * chosen[:, None])
        return self.norms[1](patches + found).mean(1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Identity feature, local feature and view feature, see `SeCap.encode`."""
        feature, view, patches = view_tokens.with_patches(self.backbone, self.view_token, images)
        return feature, self.local(feature, patches), view

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet, margin and view losses, see `Method.losses`."""
        feature, local, view = self.encode(batch.images)
        heads = [(self.neck, feature), (self.local_neck, local)]
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            **view_tokens.view_losses(self.view_neck, feature, view, batch, VIEW_WEIGHT),
            "margin": adaptive_margin(local, batch.labels, batch.weights),
        }

    forward = losses

    def features(self, images: Tensor) -> Tensor:
        """Both features after their necks, see `Method.features`."""
        feature, local, _ = self.encode(images)
        return torch.cat([self.neck.norm(feature), self.local_neck.norm(local)], 1)


def adaptive_margin(features: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Distances to the own identity below those to others, by a margin that follows their spread.

    Source: our reading of an "adaptive distributional margin": log(1 + exp((p - n + m) / beta)) of
    an anchor, with p and n the means of its distances to its own and to other identities, and m
    alpha times the sum of their standard deviations. Samples of weight 0 are left out.

    Args:
        features: Not normalised.  float [B, D]
        labels: int64 [B]
        weights: float [B]

    Returns:
        A scalar.
    """
    features = functional.normalize(features.float(), dim=1)
    apart = (2 - 2 * features @ features.T).clamp_min(1e-6).sqrt()
    same = labels[:, None] == labels
    counts = (weights > 0) & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    (near, spread), (far, other) = (_moments(apart, kind & counts) for kind in (same, ~same))
    margin = SPREAD * (spread + other).detach()
    whole = (same & counts).any(1) & (~same & counts).any(1)
    return losses.weighted(
        functional.softplus((near - far + margin) / TEMPERATURE), weights * whole
    )


def _moments(values: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each row, over some places."""
    count = where.sum(1).clamp_min(1)
    mean = (values * where).sum(1) / count
    spread = ((values - mean[:, None]).square() * where).sum(1) / count
    return mean, spread.sqrt()
