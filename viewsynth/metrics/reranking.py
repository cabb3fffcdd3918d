# SPDX-License-Identifier: Apache-2.0
"""Re-ranking: features -> distances that also ask whether two pictures have the same neighbours.

features -> `neighbours` (the nearest few of every picture: nearly all of the time, and divisible)
-> `rerank` -> blocks of distances -> `ranking`. Everything is sparse: memory grows with the number
of pictures, not with its square. It looks at the whole test set at once, queries too, so a figure
that was made with it must say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from viewsynth.metrics.distances import BLOCK, checked_starts, normalised_pair

if TYPE_CHECKING:
    import torch

SMALLEST = 1e-6  # a picture's largest distance is at least this: equal features divide nothing by 0
PAIRS = 1 << 12  # distances of single pairs that are computed at a time


class Neighbours(NamedTuple):
    """The nearest pictures of a block, or of all pictures; queries come first, then the gallery.

    Args:
        start: The first picture.
        index: The nearest, itself first, then by distance, then by index.  int32 [B, K]
        furthest: Squared distance to the furthest.  float32 [B]
    """

    start: int
    index: np.ndarray
    furthest: np.ndarray


def neighbours(
    query_features, gallery_features, k1: int = 20, k2: int = 6, starts: Iterable[int] | None = None
) -> Iterator[Neighbours]:
    """The nearest pictures of every picture, block after block of `BLOCK`.

    Several processes share the work by `starts`; `rerank` takes the parts together.

    Args:
        query_features, gallery_features: numpy or torch; tensors on a GPU are searched there.
            [Q, D], [G, D]
        k1, k2: See `rerank`.
        starts: First pictures of the blocks, multiples of `BLOCK` below Q + G; None = all.
    Returns: K = max(k1 + 1, k2) neighbours of each, fewer if there are fewer pictures.
    Raises: ValueError: see `rerank`.
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
    """Distances after k-reciprocal re-ranking, block after block of queries.

    Source: Zhong et al., CVPR 2017, on features of length 1, so that the squared distance is
        2 - 2 cos. Theirs is dense, (Q + G)^2; ours keeps the few entries that are not zero. Ours
        puts a picture first among its own neighbours, and equal distances in order of index.

    Args:
        query_features, gallery_features: numpy or torch, see `distances.normalise`.
        k1: Two pictures are each other's neighbours if each is among the other's k1 nearest.
        k2: A picture's encoding is the mean over its k2 nearest, itself among them; 1 = its own.
        weight: Of the original distance (over each picture's largest); the rest is the Jaccard
            distance of the neighbourhoods. The paper's lambda, in [0, 1].
        starts: See `distances.blocks`.
        nearest: All of `neighbours`, in any order, if they are known already.
    Returns: pairs of first query and distances in [0, 1].  float32 [<= BLOCK, G]
    Raises: ValueError: if features are not finite, zero or of two widths, k1 or k2 is below 1,
        weight is not in [0, 1], or `nearest` does not cover all pictures; at once.
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
    codes.sort_indices()  # sums are in this order
    own, others = codes[:queries], codes[queries:].tocsc()
    return ((start, _block(features, furthest, own, others, start, weight)) for start in starts)


def _check(k1: int, k2: int, weight: float = 0.0) -> None:
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise ValueError(
            f"re-ranking needs k1 and k2 of at least 1 and a weight in [0, 1]; got {k1}, {k2}, "
            f"{weight}"
        )


def _all(query_features, gallery_features) -> torch.Tensor:
    """All pictures, queries first, of length 1.  float32 [Q + G, D]"""
    import torch  # here, so that the metrics of pictures do without it

    return torch.cat(normalised_pair(query_features, gallery_features))


def _count(features: torch.Tensor, k1: int, k2: int) -> int:
    """How many neighbours of a picture are kept, itself among them."""
    return min(max(k1 + 1, k2), len(features))


# ---- neighbours ----------------------------------------------------------------------------------


def _nearest(features: torch.Tensor, start: int, count: int) -> Neighbours:
    """The `count` nearest pictures of those from `start` on."""
    import torch

    likeness = features[start : start + BLOCK] @ features.T
    furthest = 2 - 2 * likeness.amin(1)
    row = torch.arange(len(likeness), device=likeness.device)
    likeness[row, start + row] = 2  # above all others: a copy of a picture is not the picture
    value, index = likeness.topk(min(count + 1, len(features)))
    by_index = index[:, :count].argsort(1)
    value, index, next_value = (
        value[:, :count].gather(1, by_index),
        index[:, :count].gather(1, by_index),
        value[:, count:],
    )
    index = index.gather(1, value.argsort(dim=1, descending=True, stable=True))
    # Where the last that is taken equals the first that is not, `topk` picked any of them.
    unclear = (next_value == value.amin(1, keepdim=True)).any(1).nonzero()[:, 0]
    for k in unclear.tolist():
        index[k] = likeness[k].argsort(descending=True, stable=True)[:count]
    return Neighbours(start, index.int().cpu().numpy(), furthest.cpu().numpy())


def _joined(parts: Iterable[Neighbours], total: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and largest distances of all pictures."""
    index, furthest = np.full((total, count), -1, np.int32), np.zeros(total, np.float32)
    for start, some, far in parts:
        if start + len(some) > total or some.shape[1] != count:
            raise ValueError(
                f"nearest was found for other features or other k1, k2: {some.shape[1]} neighbours "
                f"of pictures {start} to {start + len(some)}, {count} of {total} are needed"
            )
        index[start : start + len(some)], furthest[start : start + len(some)] = some, far
    if missing := int((index[:, 0] < 0).sum()):
        raise ValueError(
            f"nearest lacks {missing} of {total} pictures: give `rerank` the parts of every process"
        )
    return index, furthest.clip(SMALLEST)


# ---- encodings -----------------------------------------------------------------------------------


def _encoded(
    features: torch.Tensor, index: np.ndarray, furthest: np.ndarray, k1: int
) -> sparse.csr_array:
    """Each picture by its k-reciprocal neighbours, weighted by exp(-distance).  [N, N], rows sum 1

    Sections 3.2 and 3.3 of the paper.
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
    """Which neighbours of some pictures have the picture among theirs.  bool [B, K]"""
    return (near[near[rows]] == rows[:, None, None]).any(-1)


def _expanded(
    near: np.ndarray, few: np.ndarray, mutual_few: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of some pictures and the members of their k-reciprocal sets, sorted.  int [P] each

    A picture's set takes in the smaller set of a member (of k1 / 2) if more than two thirds of that
    are in it already.
    """
    members = np.where(_mutual(near, rows), near[rows], -1)  # [B, K]
    theirs = few[near[rows]]  # [B, K, H]
    counted = mutual_few[near[rows]] & (members >= 0)[..., None]
    shared = counted & (theirs[..., None] == members[:, None, None]).any(-1)
    taken = counted & (3 * shared.sum(-1) > 2 * counted.sum(-1))[..., None]
    first = rows * len(near)  # a pair is one number: of its row, then of its column
    both = (first[:, None] + members)[members >= 0], (first[:, None, None] + theirs)[taken]
    pairs = np.unique(np.concatenate(both))
    return (pairs // len(near)).astype(np.int32), (pairs % len(near)).astype(np.int32)


def _squared(features: torch.Tensor, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Squared distances of pairs of pictures.  float32 [P]"""
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
    """The mean encoding of each picture's nearest: the paper's local query expansion."""
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
    """The final distances of the queries of a block.

    Args:
        own: Encodings of the queries.  [Q, N]
        others: Those of the gallery, by column: who has a picture in his set.  [G, N]
    """
    queries, stop = own.shape[0], min(start + BLOCK, own.shape[0])
    likeness = features[start:stop] @ features[queries:].T
    found = likeness.mul_(-2).add_(2).cpu().numpy()
    found *= np.float32(weight) / furthest[start:stop, None]
    for row, query in zip(found, range(start, stop), strict=True):
        row += (1 - weight) * _jaccard(own, others, query)
    return found


def _jaccard(own: sparse.csr_array, others: sparse.csc_array, query: int) -> np.ndarray:
    """1 - (sum of minima) / (sum of maxima) of a query's encoding and all others.  float32 [G]

    Rows sum to 1, so the maxima sum to 2 - the sum of minima: only entries that both have count.
    """
    of_query = slice(own.indptr[query], own.indptr[query + 1])
    column, value = own.indices[of_query], own.data[of_query]
    first = others.indptr[column]
    count = others.indptr[column + 1] - first
    begin = np.cumsum(count) - count  # where a column's entries stand among all of them
    entry = np.arange(count.sum()) + np.repeat(first - begin, count)
    least = np.minimum(others.data[entry], np.repeat(value, count))
    shared = np.bincount(others.indices[entry], least, minlength=others.shape[0])
    return (1 - shared / (2 - shared)).astype(np.float32)
