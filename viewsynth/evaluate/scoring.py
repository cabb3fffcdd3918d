# SPDX-License-Identifier: Apache-2.0
"""Scoring: ranks queries by their features and reports rates by protocol, camera and elevation.

`protocols`, `features` -> this module -> `viewsynth evaluate`. A result carries everything that it
depends on (data set and its fingerprint, protocol, direction, camera rule, re-ranking, tie rule,
model) and its numbers of queries: results that differ in these are not comparable. All rates are
fractions in [0, 1], except in leaderboard rows, which are in per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from viewsynth import metrics
from viewsynth.data.frames import has_frames
from viewsynth.evaluate.features import Features
from viewsynth.records import Dataset, Protocol

RANKS = (1, 5, 10)
RERANKING = {"k1": 20, "k2": 6, "weight": 0.3}  # see `metrics.rerank`
# Bins of aerial queries: their edges in degrees and metres, and their names. The first bin lies
# below the first edge, the last one begins at the last edge.
EDGES = {"elevation": (0, 25, 40, 55, 70, 90.001), "altitude": (0, 20, 40, 60, 80)}
BINS = {
    "elevation": ("below 0", "0-25", "25-40", "40-55", "55-70", "70-90", "above 90"),
    "altitude": ("below 0", "0-20", "20-40", "40-60", "60-80", "80 and more"),
}
UNKNOWN = "unknown"  # bin of queries without a value
UNITS = {"camera": "", "elevation": "°", "altitude": " m"}
# Names and directions of github.com/kailashhambarde/Aerial-Ground-Person-ReID, data/datasets.yaml.
LEADERBOARD = (
    "dataset",
    "protocol",
    "direction",
    "method",
    "backbone",
    "rank1",
    "map",
    "reranking",
    "result_type",
    "source",
)
PRINTED = {
    "cargo": "CARGO",
    "ag_reid_v1": "AG-ReID",
    "ag_reid_v2": "AG-ReID.v2",
    "lagper": "LAGPeR",
    "g2aps_reid": "G2APS-ReID",
    "market1501": "Market-1501",
    "ag_reid_challenge": "AG-ReID 2023",
    "cp2108": "CP2108",
    "agid": "AGID",
    "cvpair": "CVPair",
}


# ---- metrics -------------------------------------------------------------------------------------


def rank(
    protocol: Protocol,
    query: np.ndarray,
    gallery: np.ndarray,
    reranking: bool = False,
    process: int = 0,
    processes: int = 1,
    gather: Callable[[list], list] = list,
) -> metrics.RankRows:
    """Rank the gallery for each query; blocks of queries are distributed over processes.

    Args:
        protocol: Query, gallery and camera rule.
        query: Features of the queries, in the order of the protocol.  float32 [Q, D]
        gallery: Features of the gallery, likewise.  float32 [G, D]
        reranking: Whether to apply k-reciprocal re-ranking with `RERANKING`.
        process: Index of this process.
        processes: Number of processes.
        gather: Joins the lists of all processes, e.g. `accelerate.utils.gather_object`.

    Returns:
        Rows of all queries, in their order, the same in every process.
    """
    sides = (protocol.query, protocol.gallery)
    people = [[sample.pid for sample in side] for side in sides]
    labels = metrics.Labels(*people, *(list(map(protocol.place, side)) for side in sides))

    def share(count: int) -> range:
        return range(process * metrics.BLOCK, count, processes * metrics.BLOCK)

    if reranking:
        samples = share(len(query) + len(gallery))
        k1, k2 = RERANKING["k1"], RERANKING["k2"]
        nearest = gather(list(metrics.neighbours(query, gallery, k1, k2, samples)))
        found = metrics.rerank(
            query, gallery, **RERANKING, starts=share(len(query)), nearest=nearest
        )
    else:
        found = metrics.blocks(query, gallery, share(len(query)))
    parts = gather([(start, labels.rows(block, start)) for start, block in found])
    parts.sort(key=lambda part: part[0])
    return metrics.RankRows.join([rows for _, rows in parts])


def summary(rows: metrics.RankRows) -> dict:
    """Counts and rates of a set of queries.

    Args:
        rows: Ranking results of the queries.

    Returns:
        Counts, and mAP, mINP and rank-k rates as [value, low, high] with the 95 % bootstrap
        interval over queries; a rate is None if no query is valid.
    """
    valid = rows.valid
    rates = {"mAP": rows.ap[valid], "mINP": rows.inp[valid]}
    rates |= {f"rank{k}": rows.rank[valid] <= k for k in RANKS}
    return {
        "queries": len(valid),
        "valid_queries": int(valid.sum()),
        "tied_queries": int(rows.tied[valid].sum()),
        **{
            name: list(metrics.interval(values)) if valid.any() else None
            for name, values in rates.items()
        },
    }


def bins(protocol: Protocol, rows: metrics.RankRows) -> list[dict]:
    """Counts and rates by camera, and by elevation and altitude of aerial queries.

    Bins split the queries; the gallery is always complete. Every query is in one camera bin. Aerial
    queries are also in one bin of elevation and of altitude, if the data set has such values; the
    elevation of ground queries is not informative.

    Args:
        protocol: Query and gallery.
        rows: Ranking results of its queries.

    Returns:
        One dict per bin: `by`, `bin` and the keys of `summary`.
    """
    found = []
    cameras = np.array([sample.camid for sample in protocol.query])
    for camera in sorted(set(cameras), key=lambda c: (len(c), c)):
        found.append(("camera", camera, cameras == camera))
    above = np.array([sample.view == "aerial" for sample in protocol.query], bool)
    for by in EDGES:
        values = [getattr(sample, by) for sample in protocol.query]
        found += [(by, name, mask) for name, mask in binned(by, values, above)]
    return [{"by": by, "bin": name, **summary(rows[mask])} for by, name, mask in found]


def binned(
    by: str, values: Iterable[float | None], above: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """Assign aerial queries to bins, each to exactly one.

    Args:
        by: A key of `EDGES`.
        values: Elevation or altitude of all queries; None, NaN and infinity = unknown.
        above: Which queries are aerial.  bool [Q]

    Returns:
        Name and mask, bool [Q], of every bin that is not empty, in order; no bins if all values are
        unknown.
    """
    known = np.array([np.nan if value is None else value for value in values], np.float64)
    where = np.where(np.isfinite(known), np.digitize(known, EDGES[by]), len(BINS[by]))
    masks = [(name, above & (where == n)) for n, name in enumerate((*BINS[by], UNKNOWN))]
    found = [(name, mask) for name, mask in masks if mask.any()]
    return [] if [name for name, _ in found] == [UNKNOWN] else found


def bin_words(by: str, name: str) -> str:
    """Name of a bin with its unit, e.g. "25-40°"."""
    return name if name == UNKNOWN else name + UNITS[by]


def result(
    dataset: Dataset,
    protocol: Protocol,
    features: Features,
    rows: metrics.RankRows,
    reranking: bool,
    left_out: int,
) -> dict:
    """Result of one protocol, with everything that it depends on.

    Args:
        dataset: Data set of the protocol.
        protocol: Query and gallery.
        features: Features that were ranked.
        rows: Ranking results of the queries.
        reranking: Whether the rows were re-ranked.
        left_out: Images of the protocol that could not be read and are not counted.
    """
    tracklets = any(map(has_frames, (*protocol.query, *protocol.gallery)))
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "split": "test",
        "protocol": protocol.name,
        "direction": direction(protocol),
        "media": "tracklet" if tracklets else "image",
        "camera_rule": protocol.camera,
        "reranking": reranking and RERANKING,
        "ties": "pessimistic",
        "model": features.model,
        "features": features.fingerprint,
        "gallery": len(protocol.gallery),
        "left_out": left_out,
        **summary(rows),
        "bins": bins(protocol, rows),
    }


def queries(protocol: Protocol, rows: metrics.RankRows, reranking: bool) -> list[dict]:
    """Results of the single queries, for comparing models query by query.

    Args:
        protocol: Query and gallery.
        rows: Ranking results of the queries.
        reranking: Whether the rows were re-ranked.

    Returns:
        One dict per query, in the order of the protocol: `elevation` in degrees, None = unknown;
        `valid` = has a match; `ap` and `inp` in [0, 1] and the `rank` of the first match, from 1,
        which are None for invalid queries.
    """
    found = []
    for n, sample in enumerate(protocol.query):
        valid = bool(rows.valid[n])
        values = (float(rows.ap[n]), float(rows.inp[n]), int(rows.rank[n]))
        query = {key: getattr(sample, key) for key in ("name", "pid", "camid", "view", "elevation")}
        scores = dict(zip(("ap", "inp", "rank"), values if valid else [None] * 3, strict=True))
        key = {"protocol": protocol.name, "reranking": reranking}
        found.append(key | query | {"valid": valid} | scores)
    return found


def direction(protocol: Protocol) -> str:
    """Views of query and gallery in words, because "A-G" is ambiguous in the literature."""
    query, gallery = (
        " and ".join(sorted({sample.view for sample in some}))
        for some in (protocol.query, protocol.gallery)
    )
    if protocol.camera == "view":
        return f"two-way: {query} queries, whole gallery, matches from the other view only"
    free = "; no camera rule" if protocol.camera == "none" else ""
    if query == gallery:
        return (f"within {query}" if " " not in query else "all views") + free
    return f"one-way: {query} queries, {gallery} gallery{free}"


def _after(found: dict) -> str:
    """What was done to features and ranking besides comparing: "no" if nothing."""
    done = ["yes"] if found["reranking"] else []
    done += [f"expansion by {found['expand']}"] if found.get("expand") else []
    return " + ".join([*done, *(["mirror images"] if found.get("flip") else [])]) or "no"


def leaderboard(found: dict, method: str, backbone: str) -> dict:
    """Format a result as a leaderboard row.

    Source: schema of github.com/kailashhambarde/Aerial-Ground-Person-ReID, leaderboards/README.md.

    Args:
        found: Result, see `result`.
        method: Name of the method.
        backbone: Name of the backbone.

    Returns:
        Texts by the keys of `LEADERBOARD`; rates in per cent. `source`, the address of the
        published result, is left empty.
    """
    two_way = found["protocol"] == "A<->G"
    arrow = "A2G and G2A" if two_way else found["protocol"].replace("<->", "2").replace("->", "2")
    values = (
        PRINTED.get(found["dataset"], found["dataset"]),
        f"{found['split']}; {found['protocol']}, {found['direction']}; {found['valid_queries']} "
        f"valid of {found['queries']} queries",
        arrow,
        method,
        backbone,
        f"{100 * found['rank1'][0]:.2f}",
        f"{100 * found['mAP'][0]:.2f}",
        _after(found),
        "reproduced",
        "",
    )
    return dict(zip(LEADERBOARD, values, strict=True))


# ---- tables --------------------------------------------------------------------------------------


def table(results: list[dict], notes: list[str]) -> str:
    """Results as a Markdown table, in per cent.

    Args:
        results: Results of one data set and model.
        notes: Remarks printed above the table.
    """
    names = ["mAP", "mINP", *(f"rank{k}" for k in RANKS)]
    head = ["protocol", "direction", "valid / queries", "gallery", "tied", "re-ranking"]
    lines = [f"# {results[0]['dataset']}: {results[0]['model']}", ""]
    lines += ["Per cent [95 % interval over queries]; ties count against the model.", ""]
    lines += [*(f"- {note}" for note in notes), ""] if notes else []
    lines += [_row([*head, *names]), _row(["---"] * (len(head) + len(names)))]
    for one in results:
        again = one["reranking"]
        words = ", ".join(f"{k} {v}" for k, v in again.items()) if again else "no"
        counts = [f"{one['valid_queries']} / {one['queries']}", one["gallery"], one["tied_queries"]]
        rates = [_rate(one[name]) for name in names]
        lines.append(_row([one["protocol"], one["direction"], *counts, words, *rates]))
    return "\n".join([*lines, ""])


def details(results: list[dict]) -> str:
    """Bins of the results as a Markdown table, in per cent."""
    lines = ["", "## By camera, elevation and altitude of the query", ""]
    lines += [_row(["protocol", "re-ranking", "query", "valid / queries", "mAP", "rank1"])]
    lines += [_row(["---"] * 6)]
    for one in results:
        for part in one["bins"]:
            where = f"{part['by']} {bin_words(part['by'], part['bin'])}"
            counts = f"{part['valid_queries']} / {part['queries']}"
            again, rates = "yes" if one["reranking"] else "no", (part["mAP"], part["rank1"])
            lines.append(_row([one["protocol"], again, where, counts, *map(_rate, rates)]))
    return "\n".join([*lines, ""])


def _row(cells: Iterable) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _rate(rate: list[float] | None) -> str:
    if rate is None:
        return "–"
    value, low, high = (100 * number for number in rate)
    return f"{value:.2f} [{low:.1f}, {high:.1f}]"
