# SPDX-License-Identifier: Apache-2.0
"""Checks and conversions of the ids and distances that `ranking` gets."""

from __future__ import annotations

import numpy as np


def integer_ids(what: str, query, gallery) -> tuple[np.ndarray, np.ndarray]:
    """Ids as small ints, equal for equal ids of query and gallery: int64 [Q], [G].

    Args:
        what: Name of the ids in error messages: pids or camids.
        query: Ids of the queries; list, numpy or torch.  [Q]
        gallery: Ids of the gallery, likewise.  [G]

    Raises:
        ValueError: if they are neither strings nor ints, or strings on one side only.
    """
    sides = []
    for side, ids in (("query", query), ("gallery", gallery)):
        ids = np.asarray(ids.tolist() if hasattr(ids, "tolist") else list(ids))
        if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "biuU"):
            raise ValueError(
                f"{side}_{what} must be a flat list of strings or of ints; got {ids.dtype} "
                f"{list(ids.shape)}"
            )
        sides.append(ids)
    if all(map(len, sides)) and len({ids.dtype.kind == "U" for ids in sides}) == 2:
        raise ValueError(
            f"query_{what} are {sides[0].dtype}, gallery_{what} {sides[1].dtype}: strings and ints "
            "never match; use the same type for both"
        )
    numbers: dict = {}
    return tuple(
        np.fromiter((numbers.setdefault(i, len(numbers)) for i in ids.tolist()), np.int64, len(ids))
        for ids in sides
    )


def check_shape(distances, queries: int | None, gallery: int) -> int:
    """Check the shape of distances, and return the number of rows.

    Args:
        distances: Array or tensor.
        queries: Expected number of rows; None = any.
        gallery: Expected number of columns.

    Raises:
        ValueError: if the shape is different.
    """
    shape = getattr(distances, "shape", None)
    if shape is None or len(shape) != 2:
        raise ValueError(
            "distances must be an array or tensor of shape [queries, gallery]; got "
            f"{type(distances).__name__}{'' if shape is None else f' of shape {list(shape)}'}"
        )
    if queries not in (None, shape[0]) or gallery != shape[1]:
        wanted = "" if queries is None else f"{queries} query and "
        raise ValueError(
            f"distances are {shape[0]} x {shape[1]}, but there are {wanted}{gallery} gallery ids"
        )
    return shape[0]


def as_finite_float32(distances, start: int):
    """A block as float32: an array if it is on the CPU, else a tensor on its device.

    Args:
        distances: Array or tensor.  [B, G]
        start: Index of the first query, for the error message.

    Raises:
        ValueError: if values are not real numbers, or not finite.
    """
    if hasattr(distances, "detach"):  # a tensor, checked without importing torch
        distances = distances.detach().float()
        if distances.device.type == "cpu":
            distances = distances.contiguous().numpy()
    elif distances.dtype.kind in "fiu":
        with np.errstate(over="ignore"):  # reported below
            distances = np.ascontiguousarray(distances, np.float32)
    else:
        raise ValueError(f"distances must be real numbers; got {distances.dtype}")
    # A minimum is NaN if any value is, so that no matrix of flags is needed.
    if len(distances) and not np.isfinite([float(distances.min()), float(distances.max())]).all():
        given = distances if isinstance(distances, np.ndarray) else distances.cpu().numpy()
        bad = np.argwhere(~np.isfinite(given))
        query, image = bad[0]
        raise ValueError(
            f"{len(bad)} distances are not finite, the first of query {start + int(query)} to "
            f"gallery image {int(image)} ({given[query, image]}): the features hold NaN or "
            "overflow; extract them again"
        )
    return distances
