# SPDX-License-Identifier: Apache-2.0
"""Losses of ReID methods, in float32 whatever comes in, with a weight for every sample.

A weight says how much a sample counts: 1 for a real picture, less for a synthetic one that was
partly invented, 0 for one that must not be learnt from. Every loss is the sum of its weighted terms
over the number of samples B, not over the sum of the weights: all ones give the plain mean, a real
picture's own terms count the same whoever else is in the batch (a triplet has three pictures), and
B samples on each of several processes average to what one process would compute.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def classification(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float = 0) -> Tensor:
    """Cross entropy of identities (or views).

    Source: label smoothing of Szegedy et al., CVPR 2016; the shared recipe of aerial-ground ReID
    has none.

    Args:
        logits: [B, classes]
        labels: int64 [B]
        weights: [B]
        smoothing: Share of the target that is spread over all classes, [0, 1).
    Returns: a scalar.
    """
    terms = functional.cross_entropy(
        logits.float(), labels, reduction="none", label_smoothing=smoothing
    )
    return _mean(terms, weights)


def triplet(
    features: Tensor, labels: Tensor, weights: Tensor, negatives: Tensor | None = None
) -> Tensor:
    """Soft-margin batch-hard triplet loss: mean of log(1 + exp(d_ap - d_an)) over anchors.

    Source: Hermans et al., 2017 (arXiv 1703.07737), eq. 5 with the soft margin: the farthest sample
    of the anchor's identity and the nearest one of another, by Euclidean distance between features
    that are not normalised. Ours: a triplet weighs what the least of its three weighs; samples of
    weight 0 are neither anchors nor mined, so that they displace nobody; an anchor that has no
    positive (other than itself) or no negative adds nothing.

    Mining is within the samples given: nothing is gathered from other processes, each mines in its
    own part of a batch.

    Args:
        features: [B, D]
        labels: int64 [B]
        weights: [B]
        negatives: Samples that may be mined as negatives; None = all.  bool [B]
    Returns: a scalar.
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
    return _mean(functional.softplus(gaps), weights)


def orthogonality(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    """How far two features of a sample are from being at right angles: mean of |cos|.

    Source: Zhang et al., View-decoupled Transformer, CVPR 2024 (arXiv 2403.14513).

    Args:
        one, other: [B, D]
        weights: [B]
    Returns: a scalar.
    """
    return _mean(functional.cosine_similarity(one.float(), other.float()).abs(), weights)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return torch.linalg.vector_norm(one - other, dim=1)  # its slope at 0 is 0, not NaN


def _mean(terms: Tensor, weights: Tensor) -> Tensor:
    return (terms * weights).mean()
