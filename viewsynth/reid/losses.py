# SPDX-License-Identifier: Apache-2.0
"""Losses of ReID methods with a weight for each sample, computed in float32.

The weight of a sample is 1 for a real image, less for a synthetic image that is partly invented,
and 0 for one that must not be trained on. Every loss is the sum of its weighted terms divided by
the number of samples B, not by the sum of the weights. So weights of one give the plain mean, the
terms of a real image do not depend on the other weights in the batch (a triplet has three images),
and the mean over several processes of B samples each equals the loss of one process.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def classification(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float = 0) -> Tensor:
    """Cross entropy of identities (or views).

    Source: label smoothing of Szegedy et al., CVPR 2016; the common recipe of aerial-ground ReID
    has none.

    Args:
        logits: Scores of the classes.  [B, classes]
        labels: Class of each sample.  int64 [B]
        weights: Weight of each sample.  [B]
        smoothing: Part of the target probability that is spread over all classes, [0, 1).

    Returns:
        A scalar.
    """
    terms = functional.cross_entropy(
        logits.float(), labels, reduction="none", label_smoothing=smoothing
    )
    return weighted(terms, weights)


def triplet(
    features: Tensor, labels: Tensor, weights: Tensor, negatives: Tensor | None = None
) -> Tensor:
    """Soft-margin batch-hard triplet loss: mean of log(1 + exp(d_ap - d_an)) over anchors.

    Source: Hermans et al., 2017 (arXiv 1703.07737), eq. 5 with the soft margin: the farthest sample
    of the anchor's identity and the nearest one of another identity, by Euclidean distance between
    features that are not normalised. Ours: the weight of a triplet is the smallest of its three
    weights; samples of weight 0 are neither anchors nor mined, so they replace no other sample; an
    anchor without a positive (other than itself) or without a negative adds nothing.

    Mining is limited to the given samples: each process mines its own part of a batch.

    Args:
        features: Features, not normalised.  [B, D]
        labels: Identity of each sample.  int64 [B]
        weights: Weight of each sample.  [B]
        negatives: Samples that may be mined as negatives; None = all.  bool [B]

    Returns:
        A scalar.
    """
    features = features.float()
    with torch.no_grad():
        distances = torch.cdist(features, features)
        same = labels[:, None] == labels
        counts = weights > 0
        positive = same & counts
        positive.fill_diagonal_(False)
        negative = ~same & counts
        if negatives is not None:
            negative &= negatives
        far = distances.masked_fill(~positive, -1).argmax(1)
        near = distances.masked_fill(~negative, torch.inf).argmin(1)
        whole = positive.any(1) & negative.any(1)
        weights = torch.stack([weights, weights[far], weights[near]]).amin(0) * whole
    gaps = _distance(features, features[far]) - _distance(features, features[near])
    return weighted(functional.softplus(gaps), weights)


def orthogonality(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """Orthogonality loss between two features of each sample: mean of |cos|.

    Source: Zhang et al., View-decoupled Transformer, CVPR 2024 (arXiv 2403.14513).

    Args:
        one: First feature.  [B, D]
        other: Second feature.  [B, D]
        weights: Weight of each sample.  [B]

    Returns:
        A scalar.
    """
    return weighted(functional.cosine_similarity(one.float(), other.float()).abs(), weights)


def cosines(ones: Tensor, others: Tensor) -> Tensor:
    """Cosines of vectors with others.

    Args:
        ones: [..., B, D]
        others: [..., C, D]

    Returns:
        float32 [..., B, C]
    """
    ones, others = (functional.normalize(some.float(), dim=-1) for some in (ones, others))
    return ones @ others.mT


def in_other_views(labels: Tensor, views: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of a mean over the images of the same identity in other views.

    Args:
        labels: Identity of each sample.  int64 [B]
        views: View of each sample.  int64 [B]
        weights: Weight of each sample.  [B]

    Returns:
        Weights, whose sum is 1 in each row that has such images, [B, B]; and which have, bool [B].
    """
    share = (labels[:, None] == labels) * (views[:, None] != views) * weights
    total = share.sum(1)
    return share / total.clamp_min(1e-6)[:, None], total > 0


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return torch.linalg.vector_norm(one - other, dim=1)  # its gradient at 0 is 0, not NaN


def weighted(terms: Tensor, weights: Tensor) -> Tensor:
    """Mean over samples of a term times the sample's weight.

    Args:
        terms: [B]
        weights: [B]
    """
    return (terms * weights).mean()
