# SPDX-License-Identifier: Apache-2.0
"""Cosine distances of features, in blocks: the whole distance matrix is never in memory.

features -> this module, or `reranking` -> blocks -> `ranking`. A block starts at a multiple of
`BLOCK` queries, so its values are independent of the number of processes (on one kind of machine
with one number of threads: the last bit of a product can depend on both).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BLOCK = 256  # queries: the unit of work


def cosine_distances(query, gallery):
    """Cosine distance, 1 - cos, of every query to every gallery image.

    Args:
        query: Features of any length, numpy or torch.  [B, D]
        gallery: Likewise.  [G, D]

    Returns:
        Distances in [0, 2] up to rounding: numpy, or a tensor if the features are on another device
        than the CPU.  float32 [B, G]

    Raises:
        ValueError: see `normalise`.
    """
    return _as_input(_negated_cosine(*normalised_pair(query, gallery)).add_(1))


def blocks(
    query_features, gallery_features, starts: Iterable[int] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Distances, minus the cosine, in blocks of `BLOCK` queries to the whole gallery.

    They rank like `cosine_distances`, without its ties: 1 - cos has steps of 6e-8, which among
    82,161 images give up to half of the queries ties that their features do not have.

    Args:
        query_features: See `cosine_distances`.  [Q, D]
        gallery_features: See `cosine_distances`.  [G, D]
        starts: First queries of the blocks to compute, multiples of `BLOCK`; None = all, in order.
            Process r of n takes `range(r * BLOCK, Q, n * BLOCK)`.

    Returns:
        Pairs of first query and distances in [-1, 1]; array or tensor as in `cosine_distances`.
        float32 [<= BLOCK, G]

    Raises:
        ValueError: see `normalise`; when called, not at the first block.
    """
    query, gallery = normalised_pair(query_features, gallery_features)
    starts = checked_starts(starts, len(query))
    return (
        (start, _as_input(_negated_cosine(query[start : start + BLOCK], gallery)))
        for start in starts
    )


def normalise(features, what: str = "features") -> torch.Tensor:
    """Scale features to length 1, in float32.

    Args:
        features: numpy or torch, of any real type.  [N, D]
        what: Their name in error messages.

    Returns:
        Tensor on the device of the features.  float32 [N, D]

    Raises:
        ValueError: if a row is not finite or is zero, so that it has no direction.
    """
    import torch  # here, so that metrics of images do not need it

    if not isinstance(features, torch.Tensor):
        features = np.asarray(features)
        if features.dtype.kind in "fiu":  # a file's array may be read-only, which torch warns of
            features = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
    numbers = isinstance(features, torch.Tensor) and not features.is_complex()
    if not numbers or features.ndim != 2 or not all(features.shape):
        raise ValueError(
            f"{what} must be real numbers of shape [images, values], both at least 1; "
            f"got {features.dtype} {list(features.shape)}"
        )
    features = features.detach().float()
    length = torch.linalg.vector_norm(features, dim=1, dtype=torch.float64)
    for bad, why in ((~torch.isfinite(length), "not finite"), (length == 0, "zero")):
        if bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(bad)} rows of the {what} are {why}, the first is row "
                f"{int(bad.nonzero()[0])}; extract them again, or leave these images out"
            )
    return features / length.float()[:, None]


def normalised_pair(query, gallery) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale both to length 1 with `normalise`; raises ValueError if their widths differ."""
    query, gallery = normalise(query, "query features"), normalise(gallery, "gallery features")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query and gallery features must have the same width, but have {query.shape[1]} and "
            f"{gallery.shape[1]} values: extract both with one model"
        )
    return query, gallery


def checked_starts(starts: Iterable[int] | None, count: int) -> list[int]:
    """First rows of the blocks to compute.

    Args:
        starts: First rows; None = those of all blocks.
        count: Number of rows.

    Raises:
        ValueError: if one is not a multiple of `BLOCK` below `count`.
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


def _as_input(distances: torch.Tensor):
    """An array if the tensor is on the CPU, else the tensor."""
    return distances.numpy() if distances.device.type == "cpu" else distances
