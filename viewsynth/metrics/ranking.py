# SPDX-License-Identifier: Apache-2.0
"""Ranking: distances and identities -> CMC, mAP and mINP, exact, without sorting the gallery.

distances (`distances.blocks`, `reranking.rerank` or a matrix) -> `Labels.rows`, one block at a time
-> `RankRows.join` -> `summarise`. `rank_metrics` does all of it for a whole matrix.

The rules: gallery pictures of the query's person from the query's camera are removed; a query
without a match in what is left is no valid query: left out, and counted; among equal distances
non-matches come first (source: ours; the loops of the field leave ties to their sort), so that
equal features gain nothing and no digit hangs on an order. AP is the mean over the matches of
k / (rank of the k-th match), INP = matches / rank of the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from viewsynth.metrics.distances import BLOCK

# Counting what is nearer takes one pass a match, sorting one n log n: the count wins up to here.
MOST_COUNTED = 96  # matches
SHARE_COUNTED = 300  # gallery pictures a match
NEAR = 8  # compressing a row to its nearest pays if at most an eighth of it is left

_SIDES = ("left", "right")  # what is nearer than a distance, and what is at most as far
# Sorted distances of the matches; how many gallery pictures are nearer, and how many at most as far
Counts = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class RankRows:
    """What was found, query by query; `rows[mask]` selects, e.g. an elevation bin.

    Args:
        valid: Whether the query has a match.  bool [Q]
        ap: Average precision, NaN where not valid.  float64 [Q]
        inp: Inverse negative penalty, NaN where not valid.  float64 [Q]
        rank: Rank of the first match, from 1; 0 where not valid.  int64 [Q]
        tied: Whether a match and a non-match are equally far.  bool [Q]
    """

    valid: np.ndarray
    ap: np.ndarray
    inp: np.ndarray
    rank: np.ndarray
    tied: np.ndarray

    def __len__(self) -> int:
        return len(self.valid)

    def __getitem__(self, which: slice | np.ndarray) -> RankRows:
        return RankRows(*(getattr(self, field.name)[which] for field in fields(self)))

    @staticmethod
    def join(parts: Sequence[RankRows]) -> RankRows:
        """Blocks, in the order of their queries, as one."""
        names = [field.name for field in fields(RankRows)]
        return RankRows(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class RankMetrics:
    """The figures of one protocol, means over the valid queries, in [0, 1].

    Args:
        cmc: Share of queries whose first match is among the nearest k + 1.  float64 [max_rank]
        mAP: Mean average precision.
        mINP: Mean inverse negative penalty (Ye et al., IEEE TPAMI 2021).
        valid_queries: How many have a match.
        tied_queries: How many of them have a match and a non-match at one distance.
        rows: Query by query, for intervals and bins.
    """

    cmc: np.ndarray
    mAP: float
    mINP: float
    valid_queries: int
    tied_queries: int
    rows: RankRows


def rank_metrics(
    distances, query_pids, gallery_pids, query_camids, gallery_camids, max_rank: int = 50
) -> RankMetrics:
    """CMC, mAP and mINP of a whole distance matrix.

    Args:
        distances: Of every query to every gallery picture; numpy or torch, see `Labels.rows`.
            [Q, G]
        query_pids, gallery_pids: Identities: strings or ints; list, numpy or torch.  [Q], [G]
        query_camids, gallery_camids: What plays the camera, likewise.  [Q], [G]
        max_rank: Length of the CMC.
    Raises: ValueError: if a distance is not finite, the lengths do not fit, the gallery is empty or
        no query has a match.
    """
    labels = Labels(query_pids, gallery_pids, query_camids, gallery_camids)
    _check_shape(distances, len(labels), labels.gallery)
    starts = range(0, len(labels), BLOCK)
    rows = [labels.rows(distances[start : start + BLOCK], start) for start in starts]
    if not rows:
        raise ValueError("there are no queries: distances has no row")
    return summarise(RankRows.join(rows), max_rank)


def rank_rows(distances, query_pids, gallery_pids, query_camids, gallery_camids) -> RankRows:
    """What the queries of one block find; none of them need be valid.

    Many blocks of one gallery are quicker with `Labels`, which reads the identities only once.

    Args: See `rank_metrics`.  distances [B, G], query_pids [B]
    """
    labels = Labels(query_pids, gallery_pids, query_camids, gallery_camids)
    _check_shape(distances, len(labels), labels.gallery)
    return labels.rows(distances)


def summarise(rows: RankRows, max_rank: int = 50) -> RankMetrics:
    """The means over queries.

    Raises: ValueError: if none of them is valid.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1; got {max_rank}")
    valid = int(rows.valid.sum())
    if not valid:
        raise ValueError(
            f"none of the {len(rows)} queries has a match in the gallery from another camera: "
            "check that pids of query and gallery are written alike, and what plays the camera"
        )
    first = np.bincount(rows.rank[rows.valid].clip(max=max_rank + 1), minlength=max_rank + 2)
    return RankMetrics(
        cmc=np.cumsum(first[1:-1]) / valid,
        mAP=float(rows.ap[rows.valid].mean()),
        mINP=float(rows.inp[rows.valid].mean()),
        valid_queries=valid,
        tied_queries=int(rows.tied.sum()),
        rows=rows,
    )


class Labels:
    """Who is who in query and gallery, read once for all blocks of a protocol.

    Args: See `rank_metrics`.
    Raises: ValueError: if lengths differ, the gallery is empty, or ids are neither strings nor ints
        or are strings on one side only.
    """

    def __init__(self, query_pids, gallery_pids, query_camids, gallery_camids):
        query, gallery = _codes("pids", query_pids, gallery_pids)
        self._query_cameras, self._cameras = _codes("camids", query_camids, gallery_camids)
        for side, pids, cameras in (
            ("query", query, self._query_cameras),
            ("gallery", gallery, self._cameras),
        ):
            if len(pids) != len(cameras):
                raise ValueError(
                    f"each {side} picture has a pid and a camid, but there are {len(pids)} "
                    f"{side}_pids and {len(cameras)} {side}_camids"
                )
        if not len(gallery):
            raise ValueError("the gallery is empty: there is nothing to find a query in")
        self.gallery = len(gallery)
        self._order = np.argsort(gallery, kind="stable")  # pictures of a person side by side
        self._ends = [np.searchsorted(gallery[self._order], query, side) for side in _SIDES]

    def __len__(self) -> int:
        return len(self._query_cameras)

    def rows(self, distances, start: int = 0) -> RankRows:
        """What the queries of a block find.

        On a CPU, what is nearer than each match is counted, row by row; on another device the rows
        are sorted there, and only the counts come back. Both give the same digits.

        Args:
            distances: Of the queries from `start` on, smaller = nearer; numpy or torch. Of other
                types than float32 it is made float32 (float64 too: that ties are equal float32
                distances must not hang on the type that somebody saved them in).  [B, G]
            start: Index of the first query.
        Raises: ValueError: if a distance is not finite or the shape does not fit.
        """
        count = _check_shape(distances, None, self.gallery)
        if start < 0 or start + count > len(self):
            raise ValueError(
                f"a block of {count} queries from {start} on does not fit in {len(self)} queries"
            )
        distances = _finite(distances, start)
        people = [self._person(query) for query in range(start, start + count)]
        if isinstance(distances, np.ndarray):
            found = (_counted(row, own) for row, (own, _) in zip(distances, people, strict=True))
            junk = (row[removed] for row, (_, removed) in zip(distances, people, strict=True))
        else:
            found, junk = count_on_device(distances, people)
        rows = RankRows(
            np.zeros(count, bool),
            np.full(count, np.nan),
            np.full(count, np.nan),
            np.zeros(count, np.int64),
            np.zeros(count, bool),
        )
        for k, (counts, removed) in enumerate(zip(found, junk, strict=True)):
            if counts is not None:
                rows.valid[k] = True
                rows.ap[k], rows.inp[k], rows.rank[k], rows.tied[k] = _score(*counts, removed)
        return rows

    def _person(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Gallery pictures that match a query, and those that are removed for it."""
        first, last = (end[query] for end in self._ends)
        same = self._order[first:last]
        removed = self._cameras[same] == self._query_cameras[query]
        return same[~removed], same[removed]


def _counted(row: np.ndarray, own: np.ndarray) -> Counts | None:
    """How many pictures are nearer than each match.  row float32 [G], own int [M]"""
    if not len(own):
        return None
    matches = np.sort(row[own])
    within = row <= matches[-1]
    near = row[within] if np.count_nonzero(within) * NEAR <= len(row) else row
    if len(matches) > min(MOST_COUNTED, len(near) // SHARE_COUNTED):
        near = np.sort(near)
        return matches, *(np.searchsorted(near, matches, side) for side in _SIDES)
    nearer = np.array([np.count_nonzero(near < match) for match in matches])
    return matches, nearer, np.array([np.count_nonzero(near <= match) for match in matches])


def count_on_device(distances, people: list[tuple[np.ndarray, np.ndarray]]):
    """`_counted` of a whole block where its tensor lies.

    Args:
        distances: Tensor on any device.  float32 [B, G]
        people: For each row the gallery indices that match and those that are removed.
    Returns: for each row its `Counts` or None, and for each the distances of what is removed.
    """
    import torch

    same = [np.concatenate(both) for both in people]
    index = np.zeros((len(same), max((len(some) for some in same), default=0)), np.int64)
    for row, some in zip(index, same, strict=True):
        row[: len(some)] = some
    wanted = distances.gather(1, torch.from_numpy(index).to(distances.device))
    ordered = distances.sort(1).values
    sides = [torch.searchsorted(ordered, wanted, side=side) for side in _SIDES]
    wanted, *sides = (tensor.cpu().numpy() for tensor in (wanted, *sides))
    found, junk = [], []
    for k, (own, removed) in enumerate(people):
        order = np.argsort(wanted[k, : len(own)], kind="stable")
        counts = (wanted[k, order], *(side[k, order] for side in sides))
        found.append(counts if len(own) else None)
        junk.append(wanted[k, len(own) : len(own) + len(removed)])
    return found, junk


def _score(
    matches: np.ndarray, nearer: np.ndarray, within: np.ndarray, removed: np.ndarray
) -> tuple[float, float, int, bool]:
    """AP, INP, rank of the first match, tied; from `Counts` and the distances of the removed."""
    removed = np.sort(removed)
    others_nearer, others_within = (
        count - np.searchsorted(matches, matches, side) - np.searchsorted(removed, matches, side)
        for count, side in zip((nearer, within), _SIDES, strict=True)
    )
    place = np.arange(1, len(matches) + 1)
    rank = others_within + place  # pessimistic: the others of one distance stand before
    tied = bool((others_within > others_nearer).any())
    return float((place / rank).mean()), len(matches) / int(rank[-1]), int(rank[0]), tied


# ---- what comes in -------------------------------------------------------------------------------


def _codes(what: str, query, gallery) -> tuple[np.ndarray, np.ndarray]:
    """Ids of any kind as small ints, the same for the same id on both sides.  int64 [Q], [G]"""
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
            "never match; write both alike"
        )
    codes: dict = {}
    return tuple(
        np.fromiter((codes.setdefault(i, len(codes)) for i in ids.tolist()), np.int64, len(ids))
        for ids in sides
    )


def _check_shape(distances, queries: int | None, gallery: int) -> int:
    """How many rows there are.

    Raises: ValueError: if they are not `queries` (None = any number) of `gallery` distances each.
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


def _finite(distances, start: int):
    """The block as float32: an array if it lies on the CPU, else the tensor where it is.

    Raises: ValueError: if it is no number, or not finite.
    """
    if hasattr(distances, "detach"):  # a tensor, without importing torch to ask
        distances = distances.detach().float()
        if distances.device.type == "cpu":
            distances = distances.contiguous().numpy()
    elif distances.dtype.kind in "fiu":
        with np.errstate(over="ignore"):  # found below
            distances = np.ascontiguousarray(distances, np.float32)
    else:
        raise ValueError(f"distances must be real numbers; got {distances.dtype}")
    # A minimum is NaN if anything is, so that no matrix of flags is needed.
    if len(distances) and not np.isfinite([float(distances.min()), float(distances.max())]).all():
        given = distances if isinstance(distances, np.ndarray) else distances.cpu().numpy()
        bad = np.argwhere(~np.isfinite(given))
        query, picture = bad[0]
        raise ValueError(
            f"{len(bad)} distances are not finite, the first of query {start + int(query)} to "
            f"gallery picture {int(picture)} ({given[query, picture]}): the features hold NaN or "
            "overflow; extract them again"
        )
    return distances
