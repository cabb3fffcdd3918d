# SPDX-License-Identifier: Apache-2.0
"""Distances: features -> blocks of the distance matrix, which is never held whole.

features -> here, or `reranking` -> blocks -> `ranking`. A block is `BLOCK` queries from a multiple
of `BLOCK` on, whoever computes it, so its digits do not depend on the number of processes (on one
kind of machine with one number of threads: the last bit of a product can hang on both).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BLOCK = 256  # queries: the unit of work


def cosine_distances(query, gallery):
    """Cosine distance, 1 - cos, of every query to every gallery picture.

    Args:
        query, gallery: Features of any length, numpy or torch.  [B, D], [G, D]
    Returns: float32 in [0, 2] up to rounding; numpy, but a tensor where the features lie on another
        device than the CPU.  [B, G]
    Raises: ValueError: see `normalise`.
    """
    return _given(_negated_cosine(*normalised_pair(query, gallery)).add_(1))


def blocks(
    query_features, gallery_features, starts: Iterable[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Distances block after block, `BLOCK` queries against the whole gallery: minus the cosine.

    The order is that of `cosine_distances`, but 1 - cos has steps of 6e-8, and among 82,161
    pictures up to half of the queries get ties from them that their features do not have.

    Args:
        query_features, gallery_features: See `cosine_distances`.  [Q, D], [G, D]
        starts: First queries of the blocks wanted, multiples of `BLOCK`; None = all, in order.
            Process r of n takes `range(r * BLOCK, Q, n * BLOCK)`.
    Returns: pairs of first query and distances in [-1, 1]; array or tensor as of
        `cosine_distances`.  float32 [<= BLOCK, G]
    Raises: ValueError: see `normalise`; at once, not at the first block.
    """
    query, gallery = normalised_pair(query_features, gallery_features)
    starts = checked_starts(starts, len(query))
    return (
        (start, _given(_negated_cosine(query[start : start + BLOCK], gallery))) for start in starts
    )


def normalise(features, what: str = "features") -> torch.Tensor:
    """Features of length 1, in float32 whatever they came in.

    Args:
        features: numpy or torch.  [N, D]
        what: Their name in an error.
    Returns: tensor on the device of the features.  float32 [N, D]
    Raises: ValueError: if one is not finite or is zero: it has no direction, so no distance.
    """
    import torch  # here, so that the metrics of pictures do without it

    if not isinstance(features, torch.Tensor):
        features = np.asarray(features)
        if features.dtype.kind in "fiu":  # a file's array may be read-only, which torch warns of
            features = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
    numbers = isinstance(features, torch.Tensor) and not features.is_complex()
    if not numbers or features.ndim != 2 or not all(features.shape):
        raise ValueError(
            f"{what} must be real numbers of shape [pictures, values], both at least 1; "
            f"got {features.dtype} {list(features.shape)}"
        )
    features = features.detach().float()
    length = torch.linalg.vector_norm(features, dim=1, dtype=torch.float64)
    for bad, why in ((~torch.isfinite(length), "not finite"), (length == 0, "zero")):
        if bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(bad)} rows of the {what} are {why}, the first is row "
                f"{int(bad.nonzero()[0])}; extract them again, or leave these pictures out"
            )
    return features / length.float()[:, None]


def normalised_pair(query, gallery) -> tuple[torch.Tensor, torch.Tensor]:
    """`normalise` of both, which must be of one width."""
    query, gallery = normalise(query, "query features"), normalise(gallery, "gallery features")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query and gallery features come from one model, but have {query.shape[1]} and "
            f"{gallery.shape[1]} values"
        )
    return query, gallery


def checked_starts(starts: Iterable[int] | None, count: int) -> list[int]:
    """The blocks wanted of `count` rows; None = all.

    Raises: ValueError: if one is no multiple of `BLOCK` below `count`.
    """
    starts = list(range(0, count, BLOCK) if starts is None else starts)
    for start in starts:
        if start % BLOCK or not 0 <= start < count:
            raise ValueError(
                f"a block starts at a multiple of {BLOCK} from 0 to below {count}; got {start}"
            )
    return starts


def _negated_cosine(query: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    return (query @ gallery.T).neg_()


def _given(distances: torch.Tensor):
    return distances.numpy() if distances.device.type == "cpu" else distances
