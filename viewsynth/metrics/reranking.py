# SPDX-License-Identifier: Apache-2.0
"""k-reciprocal re-ranking: distances that also compare the neighbourhoods of two images.

features -> `neighbours` (the nearest images of every image; nearly all of the time, and can be
shared by processes) -> `rerank` -> blocks of distances -> `ranking`. Everything is sparse: memory
grows with the number of images, not with its square. It uses the whole test set at once, including
the other queries, so a result obtained with it must say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from viewsynth.metrics.distances import BLOCK, checked_starts, normalised_pair

if TYPE_CHECKING:
    import torch

SMALLEST = 1e-6  # lower limit of an image's largest distance: avoids 0 / 0 for equal features
PAIRS = 1 << 12  # pairs whose distances are computed at a time


class Neighbours(NamedTuple):
    """The nearest images of a block, or of all images; queries come first, then the gallery.

    Args:
        start: Index of the first image.
        index: Nearest images: itself first, then by distance, then by index.  int32 [B, K]
        furthest: Squared distance to the furthest image.  float32 [B]
    """

    start: int
    index: np.ndarray
    furthest: np.ndarray


def neighbours(
    query_features, gallery_features, k1: int = 20, k2: int = 6, starts: Iterable[int] | None = None
) -> Iterator[Neighbours]:
    """The nearest images of every image, in blocks of `BLOCK` images.

    Several processes can share the work by `starts`; `rerank` takes all their blocks.

    Args:
        query_features: numpy or torch; tensors on a GPU are searched there.  [Q, D]
        gallery_features: Likewise.  [G, D]
        k1: See `rerank`.
        k2: See `rerank`.
        starts: First images of the blocks to compute, multiples of `BLOCK` below Q + G; None = all.

    Returns:
        K = max(k1 + 1, k2) neighbours of each image, fewer if there are fewer images.

    Raises:
        ValueError: see `rerank`.
    """
    _check(k1, k2)
    features = _all(query_features, gallery_features)
    starts = checked_starts(starts, len(features))
    count = _count(features, k1, k2)
    return (_nearest(features, start, count) for start in starts)


def rerank(
    query_features,
    gallery_features,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    starts: Iterable[int] | None = None,
    nearest: Iterable[Neighbours] | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Distances after k-reciprocal re-ranking, in blocks of queries.

    Source: Zhong et al., CVPR 2017, on features of length 1, so that the squared distance is
    2 - 2 cos. Their matrices are dense, (Q + G)^2; ours are sparse. Ours puts an image first among
    its own neighbours, and orders equal distances by index.

    Args:
        query_features: numpy or torch, see `distances.normalise`.  [Q, D]
        gallery_features: Likewise.  [G, D]
        k1: Two images are reciprocal neighbours if each is among the k1 nearest of the other.
        k2: The encoding of an image is the mean over its k2 nearest, itself included; 1 = its own.
        weight: Weight of the original distance (divided by each image's largest), in [0, 1]: the
            paper's lambda. The rest is the Jaccard distance of the neighbourhoods.
        starts: See `distances.blocks`.
        nearest: All blocks of `neighbours`, in any order, if they have been computed already.

    Returns:
        Pairs of first query and distances in [0, 1].  float32 [<= BLOCK, G]

    Raises:
        ValueError: if features are not finite, zero or of two widths, k1 or k2 is below 1, weight
            is not in [0, 1], or `nearest` does not cover all images; when called.
    """
    _check(k1, k2, weight)
    features = _all(query_features, gallery_features)
    queries = len(query_features)
    starts = checked_starts(starts, queries)
    count = _count(features, k1, k2)
    if nearest is None:
        nearest = (_nearest(features, start, count) for start in range(0, len(features), BLOCK))
    index, furthest = _joined(nearest, len(features), count)
    codes = _encoded(features, index, furthest, k1)
    if k2 > 1:
        codes = _mean_of(codes, index[:, :k2])
    codes.sort_indices()  # so that sums have a fixed order
    own, others = codes[:queries], codes[queries:].tocsc()
    return ((start, _block(features, furthest, own, others, start, weight)) for start in starts)


def _check(k1: int, k2: int, weight: float = 0.0) -> None:
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise ValueError(
            f"re-ranking needs k1 and k2 of at least 1 and a weight in [0, 1]; got {k1}, {k2}, "
            f"{weight}"
        )


def _all(query_features, gallery_features) -> torch.Tensor:
    """Features of all images, queries first, scaled to length 1: float32 [Q + G, D]."""
    import torch  # here, so that metrics of images do not need it

    return torch.cat(normalised_pair(query_features, gallery_features))


def _count(features: torch.Tensor, k1: int, k2: int) -> int:
    """Number of neighbours of an image that are kept, itself included."""
    return min(max(k1 + 1, k2), len(features))


# ---- neighbours ----------------------------------------------------------------------------------


def _nearest(features: torch.Tensor, start: int, count: int) -> Neighbours:
    """The `count` nearest images of each image of the block from `start` on."""
    import torch

    similarity = features[start : start + BLOCK] @ features.T
    furthest = 2 - 2 * similarity.amin(1)
    row = torch.arange(len(similarity), device=similarity.device)
    similarity[row, start + row] = 2  # above all others: an image comes before its copies
    value, index = similarity.topk(min(count + 1, len(features)))
    by_index = index[:, :count].argsort(1)
    value, index, next_value = (
        value[:, :count].gather(1, by_index),
        index[:, :count].gather(1, by_index),
        value[:, count:],
    )
    index = index.gather(1, value.argsort(dim=1, descending=True, stable=True))
    # If the last value kept equals the first one dropped, `topk` picked an arbitrary one of them.
    unclear = (next_value == value.amin(1, keepdim=True)).any(1).nonzero()[:, 0]
    for k in unclear.tolist():
        index[k] = similarity[k].argsort(descending=True, stable=True)[:count]
    return Neighbours(start, index.int().cpu().numpy(), furthest.cpu().numpy())


def _joined(parts: Iterable[Neighbours], total: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and largest distances of all images; raises ValueError if some are missing."""
    index, furthest = np.full((total, count), -1, np.int32), np.zeros(total, np.float32)
    for start, some, far in parts:
        if start + len(some) > total or some.shape[1] != count:
            raise ValueError(
                f"nearest belongs to other features or other k1, k2: {some.shape[1]} neighbours "
                f"of images {start} to {start + len(some)}, {count} of {total} are needed"
            )
        index[start : start + len(some)], furthest[start : start + len(some)] = some, far
    if missing := int((index[:, 0] < 0).sum()):
        raise ValueError(
            f"nearest lacks {missing} of {total} images: give `rerank` the blocks of every process"
        )
    return index, furthest.clip(SMALLEST)


# ---- encodings -----------------------------------------------------------------------------------


def _encoded(
    features: torch.Tensor, index: np.ndarray, furthest: np.ndarray, k1: int
) -> sparse.csr_array:
    """Encode each image by its k-reciprocal neighbours, weighted by exp(-distance).

    Source: sections 3.2 and 3.3 of the paper.

    Args:
        features: Features of length 1.  float32 [N, D]
        index: Nearest images of each image.  int32 [N, K]
        furthest: Squared distance to the furthest image.  float32 [N]
        k1: See `rerank`.

    Returns:
        Matrix whose rows sum to 1.  float32 [N, N]
    """
    total = len(index)
    near, few = index[:, : k1 + 1], index[:, : round(k1 / 2) + 1]
    mutual_few = np.concatenate([_mutual(few, rows) for rows in _chunks(total)])
    parts = [_expanded(near, few, mutual_few, rows) for rows in _chunks(total)]
    row, column = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    weight = np.exp(-_squared(features, row, column) / furthest[row])
    sums = np.bincount(row, weight, total)
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=total))])
    data = (weight / sums[row]).astype(np.float32)
    return sparse.csr_array((data, column, ends), shape=(total, total))


def _chunks(total: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + BLOCK, total)) for start in range(0, total, BLOCK))


def _mutual(near: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which neighbours of some images have the image among their own: bool [B, K]."""
    return (near[near[rows]] == rows[:, None, None]).any(-1)


def _expanded(
    near: np.ndarray, few: np.ndarray, mutual_few: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of an image and a member of its k-reciprocal set, sorted: int32 [P] each.

    The set of an image is extended by the smaller set (with k1 / 2) of a member if more than two
    thirds of the smaller set are in it already.

    Args:
        near: The k1 + 1 nearest images of every image.  [N, K]
        few: The k1 / 2 + 1 nearest images of every image.  [N, H]
        mutual_few: `_mutual` of `few`.  [N, H]
        rows: Images to expand.  [B]
    """
    members = np.where(_mutual(near, rows), near[rows], -1)  # [B, K]
    theirs = few[near[rows]]  # [B, K, H]
    counted = mutual_few[near[rows]] & (members >= 0)[..., None]
    shared = counted & (theirs[..., None] == members[:, None, None]).any(-1)
    taken = counted & (3 * shared.sum(-1) > 2 * counted.sum(-1))[..., None]
    first = rows * len(near)  # a pair is one number: row * N + column
    both = (first[:, None] + members)[members >= 0], (first[:, None, None] + theirs)[taken]
    pairs = np.unique(np.concatenate(both))
    return (pairs // len(near)).astype(np.int32), (pairs % len(near)).astype(np.int32)


def _squared(features: torch.Tensor, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Squared distances of pairs of images: float32 [P]."""
    import torch

    found = np.empty(len(row), np.float32)
    for start in range(0, len(row), PAIRS):
        some = slice(start, start + PAIRS)
        one, other = (
            features[torch.from_numpy(ids[some]).to(features.device)] for ids in (row, column)
        )
        found[some] = (one * other).sum(1).mul_(-2).add_(2).clamp_(min=0).cpu().numpy()
    return found


def _mean_of(codes: sparse.csr_array, nearest: np.ndarray) -> sparse.csr_array:
    """Mean encoding over each image's nearest: the paper's local query expansion."""
    total, count = nearest.shape
    ends = np.arange(0, total * count + 1, count, dtype=np.int32)
    share = np.full(total * count, 1 / count, np.float32)
    return sparse.csr_array((share, nearest.ravel(), ends), shape=(total, total)) @ codes


# ---- distances -----------------------------------------------------------------------------------


def _block(
    features: torch.Tensor,
    furthest: np.ndarray,
    own: sparse.csr_array,
    others: sparse.csc_array,
    start: int,
    weight: float,
) -> np.ndarray:
    """Final distances of the queries of a block.

    Args:
        features: Features of length 1, queries first.  float32 [N, D]
        furthest: Squared distance to the furthest image.  float32 [N]
        own: Encodings of the queries.  [Q, N]
        others: Encodings of the gallery, stored by column.  [G, N]
        start: Index of the first query.
        weight: See `rerank`.
    """
    queries, stop = own.shape[0], min(start + BLOCK, own.shape[0])
    similarity = features[start:stop] @ features[queries:].T
    found = similarity.mul_(-2).add_(2).cpu().numpy()
    found *= np.float32(weight) / furthest[start:stop, None]
    for row, query in zip(found, range(start, stop), strict=True):
        row += (1 - weight) * _jaccard(own, others, query)
    return found


def _jaccard(own: sparse.csr_array, others: sparse.csc_array, query: int) -> np.ndarray:
    """1 - (sum of minima) / (sum of maxima) of a query's encoding and all others: float32 [G].

    Rows sum to 1, so the maxima sum to 2 minus the sum of minima, and only common entries count.
    """
    of_query = slice(own.indptr[query], own.indptr[query + 1])
    column, value = own.indices[of_query], own.data[of_query]
    first = others.indptr[column]
    count = others.indptr[column + 1] - first
    begin = np.cumsum(count) - count  # position of a column's entries among all of them
    entry = np.arange(count.sum()) + np.repeat(first - begin, count)
    least = np.minimum(others.data[entry], np.repeat(value, count))
    shared = np.bincount(others.indices[entry], least, minlength=others.shape[0])
    return (1 - shared / (2 - shared)).astype(np.float32)
