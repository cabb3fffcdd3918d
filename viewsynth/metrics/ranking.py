# SPDX-License-Identifier: Apache-2.0
"""Rank metrics (CMC, mAP, mINP) from distances and identities, exact for any order of the gallery.

distances (`distances.blocks`, `reranking.rerank` or a matrix) -> `Labels.rows`, one block at a time
-> `RankRows.join` -> `summarise`. `rank_metrics` does all of this for a whole matrix.

Rules: gallery images of the query's person from the query's camera are removed. A query without a
match among the rest is not valid: it is left out and counted. Among equal distances, non-matches
come first (source: ours; the usual evaluation loops leave ties to the sort), so that equal features
gain nothing and results are independent of the order. AP is the mean over the matches of
k / (rank of the k-th match); INP is the number of matches / rank of the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from viewsynth.metrics.distances import BLOCK
from viewsynth.metrics.ranking_inputs import as_finite_float32, check_shape, integer_ids

# Counting nearer images takes one pass for each match, sorting n log n once: counting is faster up
# to these limits.
MOST_COUNTED = 96  # matches
SHARE_COUNTED = 300  # gallery images per match
NEAR = 8  # reducing a row to its nearest images is faster if at most an eighth of it remains

_SIDES = ("left", "right")  # of `searchsorted`: count nearer images, or also equally far ones
# Sorted distances of the matches, number of nearer gallery images, number of at most as far ones.
Counts = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class RankRows:
    """Results of each query; `rows[mask]` selects queries, e.g. an elevation bin.

    Args:
        valid: Whether the query has a match.  bool [Q]
        ap: Average precision, NaN if not valid.  float64 [Q]
        inp: Inverse negative penalty, NaN if not valid.  float64 [Q]
        rank: Rank of the first match, from 1; 0 if not valid.  int64 [Q]
        tied: Whether a match and a non-match have the same distance.  bool [Q]
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
        """Concatenate blocks.

        Args:
            parts: The blocks, in the order of their queries.
        """
        names = [field.name for field in fields(RankRows)]
        return RankRows(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class RankMetrics:
    """Metrics of one protocol: means over the valid queries, in [0, 1].

    Args:
        cmc: Share of queries with a match among the nearest k + 1 images.  float64 [max_rank]
        mAP: Mean average precision.
        mINP: Mean inverse negative penalty (Ye et al., IEEE TPAMI 2021).
        valid_queries: Number of queries with a match.
        tied_queries: Number of those with a match and a non-match at the same distance.
        rows: Results of each query, for intervals and bins.
    """

    cmc: np.ndarray
    mAP: float  # noqa: N815 - the field's spelling
    mINP: float  # noqa: N815
    valid_queries: int
    tied_queries: int
    rows: RankRows


def rank_metrics(
    distances, query_pids, gallery_pids, query_camids, gallery_camids, max_rank: int = 50
) -> RankMetrics:
    """CMC, mAP and mINP of a whole distance matrix.

    Args:
        distances: Distance of every query to every gallery image; numpy or torch, see
            `Labels.rows`.  [Q, G]
        query_pids: Identities, strings or ints; list, numpy or torch.  [Q]
        gallery_pids: Likewise.  [G]
        query_camids: Cameras, or what replaces them in the protocol; likewise.  [Q]
        gallery_camids: Likewise.  [G]
        max_rank: Length of the CMC.

    Raises:
        ValueError: if a distance is not finite, lengths do not fit, the gallery is empty or no
            query has a match.
    """
    labels = Labels(query_pids, gallery_pids, query_camids, gallery_camids)
    check_shape(distances, len(labels), labels.gallery)
    starts = range(0, len(labels), BLOCK)
    rows = [labels.rows(distances[start : start + BLOCK], start) for start in starts]
    if not rows:
        raise ValueError("there are no queries: distances has no rows")
    return summarise(RankRows.join(rows), max_rank)


def rank_rows(distances, query_pids, gallery_pids, query_camids, gallery_camids) -> RankRows:
    """Results of each query of one block; invalid queries are allowed.

    For many blocks of one gallery `Labels` is faster: it processes the identities only once.

    Args:
        distances: See `rank_metrics`.  [B, G]
        query_pids: See `rank_metrics`.  [B]
        gallery_pids: See `rank_metrics`.  [G]
        query_camids: See `rank_metrics`.  [B]
        gallery_camids: See `rank_metrics`.  [G]
    """
    labels = Labels(query_pids, gallery_pids, query_camids, gallery_camids)
    check_shape(distances, len(labels), labels.gallery)
    return labels.rows(distances)


def summarise(rows: RankRows, max_rank: int = 50) -> RankMetrics:
    """Means over the valid queries.

    Args:
        rows: Results of each query.
        max_rank: Length of the CMC.

    Raises:
        ValueError: if no query is valid.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1; got {max_rank}")
    valid = int(rows.valid.sum())
    if not valid:
        raise ValueError(
            f"none of the {len(rows)} queries has a match in the gallery from another camera: "
            "check that query and gallery spell their pids alike, and which camids they have"
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
    """Identities and cameras of query and gallery, processed once for all blocks of a protocol.

    Args:
        query_pids: See `rank_metrics`.  [Q]
        gallery_pids: See `rank_metrics`.  [G]
        query_camids: See `rank_metrics`.  [Q]
        gallery_camids: See `rank_metrics`.  [G]

    Raises:
        ValueError: if lengths differ, the gallery is empty, ids are neither strings nor ints, or
            are strings on one side only.
    """

    def __init__(self, query_pids, gallery_pids, query_camids, gallery_camids):
        query, gallery = integer_ids("pids", query_pids, gallery_pids)
        self._query_cameras, self._cameras = integer_ids("camids", query_camids, gallery_camids)
        for side, pids, cameras in (
            ("query", query, self._query_cameras),
            ("gallery", gallery, self._cameras),
        ):
            if len(pids) != len(cameras):
                raise ValueError(
                    f"each {side} image needs a pid and a camid, but there are {len(pids)} "
                    f"{side}_pids and {len(cameras)} {side}_camids"
                )
        if not len(gallery):
            raise ValueError("the gallery is empty: no query can have a match")
        self.gallery = len(gallery)
        self._order = np.argsort(gallery, kind="stable")  # groups the images of each person
        self._ends = [np.searchsorted(gallery[self._order], query, side) for side in _SIDES]

    def __len__(self) -> int:
        return len(self._query_cameras)

    def rows(self, distances, start: int = 0) -> RankRows:
        """Results of each query of a block.

        On a CPU, the images nearer than each match are counted row by row; on another device, rows
        are sorted there and only the counts are copied. Both give the same values.

        Args:
            distances: Distances of the queries from `start` on, smaller = nearer; numpy or torch.
                Other types are converted to float32, float64 as well, so that ties do not depend on
                the type in which distances were stored.  [B, G]
            start: Index of the first query.

        Raises:
            ValueError: if a distance is not finite or the shape does not fit.
        """
        count = check_shape(distances, None, self.gallery)
        if start < 0 or start + count > len(self):
            raise ValueError(
                f"a block of {count} queries from {start} on does not fit in {len(self)} queries"
            )
        distances = as_finite_float32(distances, start)
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
        """Indices of the gallery images that match a query, and of those removed for it."""
        first, last = (end[query] for end in self._ends)
        same = self._order[first:last]
        removed = self._cameras[same] == self._query_cameras[query]
        return same[~removed], same[removed]


def _counted(row: np.ndarray, own: np.ndarray) -> Counts | None:
    """Count the images nearer than each match in one row; None if there is no match.

    Args:
        row: Distances of the query.  float32 [G]
        own: Indices of its matches.  int [M]
    """
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
    """Like `_counted`, for a whole block on the device of its tensor.

    Args:
        distances: Tensor on any device.  float32 [B, G]
        people: For each row, the gallery indices of the matches and of the removed images.

    Returns:
        For each row its `Counts` or None, and for each row the distances of the removed images.
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
    """AP, INP, rank of the first match, and whether the query is tied.

    Args:
        matches: Sorted distances of the matches.  [M]
        nearer: Number of gallery images nearer than each match.  [M]
        within: Number of gallery images at most as far as each match.  [M]
        removed: Distances of the removed images.
    """
    removed = np.sort(removed)
    others_nearer, others_within = (
        count - np.searchsorted(matches, matches, side) - np.searchsorted(removed, matches, side)
        for count, side in zip((nearer, within), _SIDES, strict=True)
    )
    place = np.arange(1, len(matches) + 1)
    rank = others_within + place  # pessimistic: non-matches of the same distance come first
    tied = bool((others_within > others_nearer).any())
    return float((place / rank).mean()), len(matches) / int(rank[-1]), int(rank[0]), tied
