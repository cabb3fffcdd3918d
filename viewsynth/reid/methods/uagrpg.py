# SPDX-License-Identifier: Apache-2.0
"""Method uagrpg: learns without identities, from clusters of each view that are matched.

Source: Mei et al., UAGRPG, Drones 9(4) 244, 2025; known from its abstract: what follows is our
reading, of single persons (the paper goes on to groups of people). Every epoch the images of each
view are clustered by their neighbours (DBSCAN of Jaccard distances of k-reciprocal neighbours), and
clusters of two views are matched one to one in rounds, the most similar pairs first and more of
them every epoch. The losses are cross entropies of an image among the centres of clusters: of its
own cluster, of the matched one in the other view, and of soft labels there, which are the
likenesses of its own cluster to all of that view. Views are needed in training, identities are not;
the people of validation, if any, are known by identity.

Images in no cluster add no loss. The centres stay as they are within an epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import clusters, losses
from viewsynth.reid.backbone_modules import Backbone

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = ""
KNOWN = "abstract"
PUBLISHED = {}
IDENTITIES = False
NEAREST, REACH, LEAST = 20, 0.6, 4  # neighbours; distance and size of clusters
GRADUAL = 5  # epochs until all pairs of clusters are used
MATCHED, SOFT = 1.0, 0.5  # weights of the losses in the other view
SCALE, SHARP = 20.0, 0.05  # factor of the cosines; temperature of the soft labels


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`; `classes` is the number of training images."""
    return UAGRPG(backbone, classes, smoothing, views)


class UAGRPG(nn.Module):
    """The method; see the module docstring and `methods.Method`.

    Attributes:
        cluster: Cluster of each training image among those of its view, -1 = none.  int64 [N]
        count: Number of clusters of each view.  int64 [V]
        centres: Unit vectors; those from `count` on are not used.  float32 [V, M, D]
        partner: Cluster in another view that one is matched with, -1 = none.  int64 [V, V, M]
        epoch: How many times the clusters were computed.
    """

    def __init__(self, backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.backbone = backbone
        self.norm = nn.BatchNorm1d(backbone.width)
        self.norm.bias.requires_grad_(False)
        most, number = max(classes // LEAST, 1), len(views)
        self.register_buffer("cluster", torch.full((classes,), clusters.NOISE))
        self.register_buffer("count", torch.zeros(number, dtype=torch.long))
        self.register_buffer("centres", torch.zeros(number, most, backbone.width))
        self.register_buffer("partner", torch.full((number, number, most), clusters.NOISE))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def features(self, images: Tensor) -> Tensor:
        """The feature after its normalisation, see `Method.features`."""
        return self.norm(self.backbone(images))

    bank_features = features

    @torch.no_grad()
    def rebuild(self, features: Tensor, labels: Tensor, views: Tensor, weights: Tensor) -> None:
        """Compute and match the clusters, see `methods.Method`; the labels are not looked at."""
        rows, most = functional.normalize(features, dim=1), self.centres.shape[1]
        self.epoch += 1
        self.cluster.fill_(clusters.NOISE)
        for view in range(len(self.count)):
            own = (views == view).nonzero()[:, 0]
            found = torch.from_numpy(_clusters(rows[own])).to(own.device)
            found[found >= most] = clusters.NOISE
            self.cluster[own] = found
            self.count[view] = int(found.max()) + 1 if len(own) else 0
            inside = found >= 0
            weighted = rows[own[inside]] * weights[own[inside], None]
            sums = torch.zeros_like(self.centres[view]).index_add_(0, found[inside], weighted)
            self.centres[view] = functional.normalize(sums, dim=1)
        self.partner.fill_(clusters.NOISE)
        for one, other in itertools.combinations(range(len(self.count)), 2):
            self.match(one, other)

    def match(self, one: int, other: int) -> None:
        """Match the clusters of two views, as many pairs as belong to the epoch."""
        alike = self.used(one) @ self.used(other).T
        pairs = clusters.match(alike.cpu().numpy().astype(np.float64))
        pairs = pairs[: math.ceil(min(int(self.epoch) / GRADUAL, 1) * len(pairs))]
        for first, second in reversed(pairs.tolist()):  # the most similar pair is written last
            self.partner[one, other, first] = second
            self.partner[other, one, second] = first

    def used(self, view: int) -> Tensor:
        """Centres of the clusters of a view.  float32 [C, D]."""
        return self.centres[view, : int(self.count[view])]

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Losses of own, matched and soft clusters, see `Method.losses`."""
        rows = functional.normalize(self.features(batch.images).float(), dim=1)
        cluster, nothing = self.cluster[batch.indices], 0 * rows.sum()
        found = {"identity": nothing, "matched": nothing, "soft": nothing}
        for view in range(len(self.count)):
            if not self.count[view]:
                continue
            inside = (batch.views == view) & (cluster >= 0)
            own = torch.where(inside, cluster, 0)
            logits, weights = SCALE * rows @ self.used(view).T, batch.weights * inside
            found["identity"] = found["identity"] + losses.classification(
                logits, own, weights, self.settings["smoothing"]
            )
            for other in range(len(self.count)):
                if other != view and self.count[other]:
                    logits = SCALE * rows @ self.used(other).T
                    partner = self.partner[view, other, own]
                    matched = losses.classification(
                        logits, partner.clamp_min(0), weights * (partner >= 0)
                    )
                    soft = self.used(view)[own] @ self.used(other).T / SHARP
                    terms = -(soft.softmax(1) * logits.log_softmax(1)).sum(1)
                    found["matched"] = found["matched"] + MATCHED * matched
                    found["soft"] = found["soft"] + SOFT * losses.weighted(terms, weights)
        return found

    forward = losses


def _clusters(rows: Tensor) -> np.ndarray:
    """Clusters of the unit vectors of a view.  float32 [N, D] -> int64 [N]."""
    if not len(rows):
        return np.zeros(0, np.int64)
    apart = clusters.distances(clusters.neighbourhoods(rows.float(), NEAREST))
    return clusters.dbscan(apart, REACH, LEAST)
