# SPDX-License-Identifier: Apache-2.0
"""Evaluation: protocols x features -> results that say what they are results of.

`features` -> here -> `viewsynth evaluate`. A result carries its whole key (data set and its
fingerprint, protocol, direction, camera rule, re-ranking, tie rule, model) and counts the queries,
since numbers with another key are not comparable. All rates are fractions in [0, 1], but those of
the leaderboard rows, which are per cent as the field prints them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viewsynth import metrics
from viewsynth.records import Dataset, Protocol, Sample
from viewsynth.reid.features import Features

RANKS = (1, 5, 10)
RERANKING = {"k1": 20, "k2": 6, "weight": 0.3}  # see `metrics.rerank`
# Bins of the queries from above; the first two edges in degrees, then in metres.
BINS = {
    "elevation": ((0, 25), (25, 40), (40, 55), (55, 70), (70, 90.001)),
    "altitude": ((0, 20), (20, 40), (40, 60), (60, 80), (80, 1e6)),
}
# Names and directions of github.com/kailashhambarde/Aerial-Ground-Person-ReID, data/datasets.yaml.
LEADERBOARD = ("dataset", "protocol", "direction", "method", "backbone", "rank1", "map",
               "reranking", "result_type", "source")  # fmt: skip
PRINTED = {
    "cargo": "CARGO", "ag_reid_v1": "AG-ReID", "ag_reid_v2": "AG-ReID.v2", "lagper": "LAGPeR",
    "g2aps_reid": "G2APS-ReID", "market1501": "Market-1501",
}  # fmt: skip


# ---- before anything is computed -----------------------------------------------------------------


def choose(dataset: Dataset, names: Sequence[str]) -> list[Protocol]:
    """The protocols of these names; none = all.

    Raises: ValueError: if there is none, or none of that name.
    """
    known = ", ".join(f'"{name}"' for name in dataset.protocols)
    if not known:
        raise ValueError(
            f"data: {dataset.root} offers no protocol: evaluation needs a query and a gallery; see "
            f"what there is with `viewsynth data {dataset.name} ROOT`"
        )
    for name in names:
        if name not in dataset.protocols:
            trap = (
                '; quote the names, as in --protocols "A->G": the shell takes an unquoted > (or <) '
                "for a redirection, and what follows it for a file"
                if name.rstrip("-") in "AGCW" else ""
            )  # fmt: skip
            raise ValueError(
                f"protocols: {dataset.name} has no protocol {name!r}; there are {known}{trap}"
            )
    return [dataset.protocols[name] for name in dict.fromkeys(names or dataset.protocols)]


def refuse(dataset: Dataset, protocols: Iterable[Protocol], learnt: dict[str, str]) -> None:
    """Refuse protocols whose numbers would mean nothing.

    Args:
        learnt: Identities that the model has learnt from -> where that is said.
    Raises: ValueError: if query or gallery is empty or holds what is synthetic or was learnt from,
        or no query has a match.
    """
    learnt = learnt | {sample.pid: "the split train" for sample in dataset.train}
    for protocol in protocols:
        where = f"the protocol {protocol.name} of {dataset.name}"
        for what in ("query", "gallery"):
            samples: Sequence[Sample] = getattr(protocol, what)
            if not samples:
                raise ValueError(f"{where} has an empty {what} in {dataset.root}")
            made = [sample.name for sample in samples if sample.source != "real"]
            if made:
                raise ValueError(
                    f"{where} has {len(made)} synthetic pictures in its {what}, e.g. {made[0]}: "
                    "real pictures only are evaluated; move them to train"
                )
            shared = sorted({sample.pid for sample in samples if sample.pid in learnt})
            if shared:
                raise ValueError(
                    f"{where}: {len(shared)} identities of the {what} were learnt from, e.g. "
                    f"{', '.join(shared[:3])}, by {learnt[shared[0]]}; train and test must not "
                    "share any"
                )
        if not protocol.valid_queries:
            raise ValueError(
                f"{where}: none of its {len(protocol.query)} queries has a match in the gallery "
                f"with another {protocol.camera}"
            )


def learnt_from(paths: Iterable[Path], dataset: str) -> dict[str, str]:
    """Identities that manifests name, and which manifest does.

    Args:
        paths: metadata.jsonl of a run (or its folder), rows with "pid"; or text, a pid a line,
            with or without the data set's name before it.
        dataset: Name of the data set.
    Raises: FileNotFoundError, ValueError: if one cannot be read or names nobody.
    """
    found: dict[str, str] = {}
    for path in paths:
        file = path / "metadata.jsonl" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"trained_on: there is no file {file}")
        try:
            rows = [row.strip() for row in file.read_text(encoding="utf-8-sig").splitlines()]
            if file.suffix == ".jsonl":
                pids = [str(json.loads(row)["pid"]) for row in rows if row]
            else:
                pids = [pid for row in rows if row for pid in {row, f"{dataset}/{row}"}]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'trained_on: {file} must have rows {{"pid": ...}} (.jsonl) or a pid a line '
                f"(text): {type(error).__name__} {error}"
            ) from error
        if not pids:
            raise ValueError(f"trained_on: {file} names nobody")
        found |= dict.fromkeys(pids, str(file))
    return found


def without(protocol: Protocol, lost: set[str]) -> Protocol:
    """The protocol without some samples, by name."""
    return replace(
        protocol,
        query=[sample for sample in protocol.query if sample.name not in lost],
        gallery=[sample for sample in protocol.gallery if sample.name not in lost],
    )


# ---- the numbers ---------------------------------------------------------------------------------


def rank(
    protocol: Protocol, query: np.ndarray, gallery: np.ndarray, reranking: bool = False,
    process: int = 0, processes: int = 1, gather: Callable[[list], list] = list,
) -> metrics.RankRows:  # fmt: skip
    """Where each query finds its person; blocks of queries are shared among processes.

    Args:
        query, gallery: Features, in the order of the protocol.  float32 [Q, D], [G, D]
        process, processes: Which one of how many this is.
        gather: Joins the lists of all processes, e.g. `accelerate.utils.gather_object`.
    Returns: the rows of all queries, in their order, the same in every process.
    """
    ids = [
        [getattr(sample, key) for sample in samples]
        for key in ("pid", protocol.camera)
        for samples in (protocol.query, protocol.gallery)
    ]
    labels = metrics.Labels(*ids)

    def share(count: int) -> range:
        return range(process * metrics.BLOCK, count, processes * metrics.BLOCK)

    if reranking:
        everyone = share(len(query) + len(gallery))
        k1, k2 = RERANKING["k1"], RERANKING["k2"]
        nearest = gather(list(metrics.neighbours(query, gallery, k1, k2, everyone)))
        found = metrics.rerank(
            query, gallery, **RERANKING, starts=share(len(query)), nearest=nearest
        )
    else:
        found = metrics.blocks(query, gallery, share(len(query)))
    parts = gather([(start, labels.rows(block, start)) for start, block in found])
    parts.sort(key=lambda part: part[0])
    return metrics.RankRows.join([rows for _, rows in parts])


def summary(rows: metrics.RankRows) -> dict:
    """Counts and rates of some queries; a rate is [value, low, high], bootstrapped by query."""
    valid = rows.valid
    rates = {"mAP": rows.ap[valid], "mINP": rows.inp[valid]}
    rates |= {f"rank{k}": rows.rank[valid] <= k for k in RANKS}
    return {
        "queries": len(valid), "valid_queries": int(valid.sum()),
        "tied_queries": int(rows.tied[valid].sum()),
        **{name: list(metrics.interval(values)) for name, values in rates.items()},
    }  # fmt: skip


def bins(protocol: Protocol, rows: metrics.RankRows) -> list[dict]:
    """The same by the camera of the query, and by elevation and altitude of queries from above.

    A query belongs to the bin that it was taken in, and keeps the whole gallery. Queries from the
    ground have no elevation that tells anything, and are in the bins of their cameras only.
    """
    found = []
    cameras = np.array([sample.camid for sample in protocol.query])
    for camera in sorted(set(cameras), key=lambda c: (len(c), c)):
        found.append(("camera", camera, cameras == camera))
    for by, edges in BINS.items():
        known = [getattr(s, by) if s.view == "aerial" else None for s in protocol.query]
        values = np.array([np.nan if value is None else value for value in known], np.float64)
        for low, high in edges:
            name = f"{low}-{high:.0f}" if high < 1e6 else f"{low} and more"
            found.append((by, name, (low <= values) & (values < high)))
    return [
        {"by": by, "bin": name, **summary(rows[mask])}
        for by, name, mask in found
        if rows.valid[mask].any()
    ]


def result(
    dataset: Dataset, protocol: Protocol, features: Features, rows: metrics.RankRows,
    reranking: bool, left_out: int,
) -> dict:  # fmt: skip
    """One result with its key.

    Args:
        reranking: Whether the rows were re-ranked.
        left_out: Pictures of the protocol that could not be read, and are in none of the counts.
    """
    tracklets = any(len(s.paths) > 1 for s in (*protocol.query, *protocol.gallery))
    return {
        "dataset": dataset.name, "fingerprint": dataset.fingerprint, "split": "test",
        "protocol": protocol.name, "direction": direction(protocol),
        "media": "tracklet" if tracklets else "image", "camera_rule": protocol.camera,
        "reranking": reranking and RERANKING, "ties": "pessimistic",
        "model": features.model, "features": features.fingerprint,
        "gallery": len(protocol.gallery), "left_out": left_out,
        **summary(rows), "bins": bins(protocol, rows),
    }  # fmt: skip


def queries(protocol: Protocol, rows: metrics.RankRows, reranking: bool) -> list[dict]:
    """What each query found, for who compares models query by query.

    Returns: one a query, in the order of the protocol; `elevation` in degrees, None where the data
        does not say; `ap` and `inp` in [0, 1] and `rank` of the first match, from 1, None where the
        query has no match (`valid`).
    """
    found = []
    for n, sample in enumerate(protocol.query):
        valid = bool(rows.valid[n])
        figures = (float(rows.ap[n]), float(rows.inp[n]), int(rows.rank[n]))
        known = {key: getattr(sample, key) for key in ("name", "pid", "camid", "view", "elevation")}
        told = dict(zip(("ap", "inp", "rank"), figures if valid else [None] * 3, strict=True))
        key = {"protocol": protocol.name, "reranking": reranking}
        found.append(key | known | {"valid": valid} | told)
    return found


def direction(protocol: Protocol) -> str:
    """Who looks for whom, in words: a bare "A-G" has meant different things."""
    query, gallery = (
        " and ".join(sorted({sample.view for sample in some}))
        for some in (protocol.query, protocol.gallery)
    )
    if protocol.camera == "view":
        return f"two-way: {query} queries, whole gallery, matches from the other view only"
    if query == gallery:
        return f"within {query}" if " " not in query else "all views"
    return f"one-way: {query} queries, {gallery} gallery"


def leaderboard(found: dict, method: str, backbone: str) -> dict:
    """A result as a row in the schema of the field's leaderboards.

    Source: github.com/kailashhambarde/Aerial-Ground-Person-ReID, leaderboards/README.md.
    Returns: text under `LEADERBOARD`; rates in per cent; `source`, the address of the result, is
        for whoever publishes it to fill in.
    """
    two_way = found["protocol"] == "A<->G"
    arrow = "A2G and G2A" if two_way else found["protocol"].replace("<->", "2").replace("->", "2")
    values = (
        PRINTED.get(found["dataset"], found["dataset"]),
        f"{found['split']}; {found['protocol']}, {found['direction']}; {found['valid_queries']} "
        f"valid of {found['queries']} queries",
        arrow, method, backbone, f"{100 * found['rank1'][0]:.2f}", f"{100 * found['mAP'][0]:.2f}",
        "yes" if found["reranking"] else "no", "reproduced", "",
    )  # fmt: skip
    return dict(zip(LEADERBOARD, values, strict=True))


# ---- the table -----------------------------------------------------------------------------------


def table(results: list[dict], notes: list[str]) -> str:
    """The results in Markdown, in per cent; every row says what it is of."""
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
    """The bins of the results in Markdown."""
    lines = ["", "## By camera, elevation and altitude of the query", ""]
    lines += [_row(["protocol", "re-ranking", "query", "valid / queries", "mAP", "rank1"])]
    lines += [_row(["---"] * 6)]
    units = {"camera": "", "elevation": "°", "altitude": " m"}
    for one in results:
        for part in one["bins"]:
            where = f"{part['by']} {part['bin']}{units[part['by']]}"
            counts = f"{part['valid_queries']} / {part['queries']}"
            again, rates = "yes" if one["reranking"] else "no", (part["mAP"], part["rank1"])
            lines.append(_row([one["protocol"], again, where, counts, *map(_rate, rates)]))
    return "\n".join([*lines, ""])


def _row(cells: Iterable) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _rate(rate: list[float]) -> str:
    value, low, high = (100 * number for number in rate)
    return f"{value:.2f} [{low:.1f}, {high:.1f}]"
