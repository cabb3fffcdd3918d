# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels for training without identities: clusters of features, matched between views.

`neighbourhoods` -> `distances` -> `dbscan` -> `match`. All is sparse: memory grows with the number
of images, not with its square.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csgraph
from torch import Tensor

BLOCK = 1024  # images whose similarities to all others are computed at a time
NOISE = -1  # label of images in no cluster


def neighbourhoods(features: Tensor, count: int) -> sparse.csr_matrix:
    """The k-reciprocal neighbours of images: both are among the nearest of the other.

    Source: Zhong et al., re-ranking, CVPR 2017 (arXiv 1701.08398), without its expansion.

    Args:
        features: Unit vectors.  float32 [N, D]
        count: How many nearest images of each count, itself included.

    Returns:
        1 where two images are neighbours; each is its own.  float32 [N, N]
    """
    total = len(features)
    count = min(count, total)
    nearest = [
        (features[start : start + BLOCK] @ features.T).topk(count, 1).indices
        for start in range(0, total, BLOCK)
    ]
    columns = torch.cat(nearest).cpu().numpy().ravel()
    rows = np.repeat(np.arange(total), count)
    ones = np.ones(len(rows), np.float32)
    graph = sparse.csr_matrix((ones, (rows, columns)), shape=(total, total))
    both = graph.multiply(graph.T).tocsr()
    both.setdiag(1)
    return both.sign().tocsr()


def distances(neighbours: sparse.csr_matrix) -> sparse.csr_matrix:
    """Jaccard distances of neighbourhoods, of the pairs that share a neighbour; others are 1.

    Args:
        neighbours: From `neighbourhoods`.  [N, N]

    Returns:
        Distances in [0, 1) of these pairs, stored also where they are 0.  float32 [N, N]
    """
    shared = (neighbours @ neighbours.T).tocoo()
    sizes = np.asarray(neighbours.sum(1)).ravel()
    union = sizes[shared.row] + sizes[shared.col] - shared.data
    values = (1 - shared.data / union).astype(np.float32)
    return sparse.csr_matrix((values, (shared.row, shared.col)), shape=shared.shape)


def dbscan(apart: sparse.csr_matrix, reach: float, least: int) -> np.ndarray:
    """Density-based clusters (Ester et al., KDD 1996), numbered by their first core image.

    The same labels as those of scikit-learn.

    Args:
        apart: Distances; pairs that are not stored are out of reach.  [N, N]
        reach: Largest distance of neighbours.
        least: Neighbours, itself included, that make an image a core of a cluster.

    Returns:
        Cluster of each image, `NOISE` = none.  int64 [N]
    """
    near = apart.tocoo()
    kept = near.data <= reach
    shape = apart.shape
    graph = sparse.csr_matrix((np.ones(kept.sum()), (near.row[kept], near.col[kept])), shape=shape)
    core = np.asarray(graph.sum(1)).ravel() >= least
    labels = np.full(shape[0], NOISE, np.int64)
    inside = np.flatnonzero(core)
    _, parts = csgraph.connected_components(graph[inside][:, inside], directed=False)
    _, first = np.unique(parts, return_index=True)
    order = np.argsort(np.argsort(first))  # by the first core image of each
    labels[inside] = order[parts]
    # An image at the border joins the first cluster that has a core within reach.
    border = graph[np.flatnonzero(~core)][:, inside].tocoo()
    joined = np.full(shape[0], len(inside) + 1, np.int64)
    np.minimum.at(joined, np.flatnonzero(~core)[border.row], labels[inside][border.col])
    found = joined <= len(inside)
    labels[found] = joined[found]
    return labels


def match(alike: np.ndarray) -> np.ndarray:
    """Match two sets one to one in rounds, until each of the larger one has a partner.

    Source: Wu and Ye, progressive graph matching, CVPR 2023 (for visible and infrared images).

    Args:
        alike: Similarities.  float [M, N]

    Returns:
        Pairs, the most similar first.  int64 [max(M, N), 2]; empty if either set is
    """
    if not alike.size:
        return np.zeros((0, 2), np.int64)
    if alike.shape[0] < alike.shape[1]:
        return match(alike.T)[:, ::-1].copy()
    left, found = np.arange(alike.shape[0]), []
    while len(left):
        rows, columns = linear_sum_assignment(alike[left], maximize=True)
        found.append(np.stack([left[rows], columns], 1))
        left = np.delete(left, rows)
    pairs = np.concatenate(found)
    order = np.argsort(-alike[pairs[:, 0], pairs[:, 1]], kind="stable")
    return pairs[order]
