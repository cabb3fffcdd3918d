# SPDX-License-Identifier: Apache-2.0
"""Time and memory of ranking at the size of MSMT17, compared with two common implementations.

    python benchmarks/ranking.py [--queries 512] [--rerank]
    python benchmarks/ranking.py --query 1000 --gallery 8000 --people 300 --rerank   # in seconds

Uses one core. Features are random and clustered: one mean vector per person, noise, 15 cameras. The
rows are `metrics.Labels.rows`; a plain loop (argsort, mask and cumulative sum per query); and the
Python path of fast-reid, written after its description (argsort of the matrix, ordered identities
and a mask per query, precision by a list comprehension over the gallery). All receive the same
blocks of distances; the matrix product is timed separately. The slow implementations process the
first `--queries` queries and are extrapolated. Times are CPU seconds, which depend least on other
load. The results of every query must agree, except where a match is tied with a non-match, because
the loops leave the order of ties to the sort. Memory is that of a new process, above imports and
features.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
import tyro  # noqa: E402
from render import machine  # noqa: E402

from viewsynth import metrics  # noqa: E402

CAMERAS = 15
RANKS = 50
Found = tuple[float, float, int] | None  # AP, INP, rank of the first match


def crowd(query: int, gallery: int, people: int, width: int, noise: float) -> dict:
    """Random features with person and camera ids; the noise differs between people."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((people, width), np.float32)
    spread = noise * rng.uniform(0.6, 1.4, people).astype(np.float32)
    made = {}
    for name, count in (("query", query), ("gallery", gallery)):
        pids = rng.integers(0, people, count)
        features = rng.standard_normal((count, width), np.float32)
        features *= spread[pids, None]
        features += means[pids]
        made |= {f"{name}_pids": pids, f"{name}_camids": rng.integers(0, CAMERAS, count)}
        made[f"{name}_features"] = features
    return made


# ---- comparisons ---------------------------------------------------------------------------------


def plain(distances: np.ndarray, data: dict, start: int) -> list[Found]:
    """Rank the gallery of each query by argsort."""
    found = []
    for row, pid, camid in zip(distances, *_queries(data, start), strict=False):
        order = np.argsort(row)
        same = data["gallery_pids"][order] == pid
        hits = same[~(same & (data["gallery_camids"][order] == camid))]
        if not hits.any():
            found.append(None)
            continue
        rank = np.flatnonzero(hits) + 1
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        found.append((float(precision[hits].mean()), len(rank) / int(rank[-1]), int(rank[0])))
    return found


def listed(distances: np.ndarray, data: dict, start: int) -> list[Found]:
    """Rank like fast-reid without its compiled extension, after its description."""
    found, orders, curves = [], np.argsort(distances, axis=1), []
    for order, pid, camid in zip(orders, *_queries(data, start), strict=False):
        removed = (data["gallery_pids"][order] == pid) & (data["gallery_camids"][order] == camid)
        hits = (data["gallery_pids"][order] == pid).astype(np.int32)[np.invert(removed)]
        if not np.any(hits):
            found.append(None)
            continue
        curve = hits.cumsum()
        last = int(np.max(np.where(hits == 1)))
        inp = float(curve[last] / (last + 1.0))
        curve[curve > 1] = 1
        curves.append(curve[:RANKS])
        precision = [x / (i + 1.0) for i, x in enumerate(hits.cumsum())]
        ap = float((np.asarray(precision) * hits).sum() / hits.sum())
        found.append((ap, inp, int(np.argmax(curve)) + 1))
    return found


def _queries(data: dict, start: int) -> tuple[np.ndarray, np.ndarray]:
    return data["query_pids"][start:], data["query_camids"][start:]


# ---- timing --------------------------------------------------------------------------------------


def rank(data: dict, queries: int) -> None:
    """Print the table of ranking."""
    total = len(data["query_pids"])
    seconds = {"ours": 0.0, "plain argsort loop": 0.0, "fast-reid, Python path": 0.0}
    ways = dict(zip(list(seconds)[1:], (plain, listed), strict=True))
    slow: dict[str, list[Found]] = {name: [] for name in ways}
    began = time.process_time()
    labels, rows = metrics.Labels(*_ids(data)), []
    seconds["ours"] += time.process_time() - began
    product = time.process_time()
    for start, distances in metrics.blocks(data["query_features"], data["gallery_features"]):
        product_end = time.process_time()
        rows.append(labels.rows(distances, start))
        seconds["ours"] += time.process_time() - product_end
        if start < queries:
            for name, way in ways.items():
                began = time.process_time()
                slow[name] += way(distances, data, start)
                seconds[name] += time.process_time() - began
        product += time.process_time() - product_end
    product = time.process_time() - product
    joined = metrics.RankRows.join(rows)
    found = metrics.summarise(joined, RANKS)
    print(
        f"mAP {found.mAP:.4f}, mINP {found.mINP:.4f}, rank-1 {found.cmc[0]:.4f}, "
        f"{found.valid_queries:,} valid queries, {found.tied_queries:,} tied\n"
    )
    print(f"{'ranking':>24} {'queries':>8} {'ms/query':>9} {'s for all':>10} {'x ours':>11}")
    each = {name: seconds[name] / len(slow.get(name, joined)) for name in seconds}
    for name, one in each.items():
        count = len(slow.get(name, joined))
        scaled = "" if count == total else " *"
        print(
            f"{name:>24} {count:8,} {1e3 * one:9.3f} {one * total:10.1f} "
            f"{one / each['ours']:11.1f}{scaled}"
        )
    print(f"{'product (not in these)':>24} {total:8,} {1e3 * product / total:9.3f} {product:10.1f}")
    print("* scaled to all queries\n")
    for name, other in slow.items():
        compare(name, joined, other)


def compare(name: str, rows: metrics.RankRows, other: list[Found]) -> None:
    """Print the differences of another implementation from ours; raise if there are any."""
    rows = rows[: len(other)]
    assert [found is not None for found in other] == rows.valid.tolist(), name
    theirs = np.array([found or (np.nan, np.nan, 0) for found in other])
    apart = np.abs(theirs - np.stack([rows.ap, rows.inp, rows.rank], 1))[rows.valid]
    free = ~rows.tied[rows.valid]
    means = np.abs(
        np.mean(theirs[rows.valid, :2] - np.stack([rows.ap, rows.inp], 1)[rows.valid], axis=0)
    )
    print(
        f"{name}: largest difference of AP, INP, rank in {free.sum():,} queries without a tie: "
        f"{', '.join(f'{value:.1e}' for value in apart[free].max(0))}; "
        f"of mAP, mINP over all {len(free):,}: {means[0]:.1e}, {means[1]:.1e}"
    )
    assert (apart[free].max(0) < 1e-9).all() and (means < 1e-6).all(), "results differ"


def _ids(data: dict) -> list[np.ndarray]:
    names = ("query_pids", "gallery_pids", "query_camids", "gallery_camids")
    return [data[name] for name in names]


# ---- memory --------------------------------------------------------------------------------------


def fresh(what: Callable, folder: str) -> dict:
    """Call a function in a new process; returns its result with time and memory."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measured, args=(what, folder, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def _measured(what: Callable, folder: str, queue) -> None:
    data = {path.stem: np.load(path) for path in sorted(Path(folder).glob("*.npy"))}
    before, began = peak(), (time.perf_counter(), time.process_time())
    found = what(data)
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    queue.put({"wall": wall, "cpu": cpu, "before": before, "above": peak() - before, **found})


def peak() -> float:
    """Peak memory of this process so far, GB."""
    status = Path("/proc/self/status")  # on Linux, children inherit `ru_maxrss` of their parent
    if status.exists():
        (line,) = (at for at in status.read_text().splitlines() if at.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    import resource

    scale = 1 if sys.platform == "darwin" else 1024  # bytes there, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


def chunked(data: dict) -> dict:
    """Ranking from features, block by block."""
    return _ranked(data, metrics.blocks(data["query_features"], data["gallery_features"]))


def reranked(data: dict) -> dict:
    """The same with k-reciprocal re-ranking."""
    features = data["query_features"], data["gallery_features"]
    began = time.process_time()
    nearest = list(metrics.neighbours(*features))
    searched = time.process_time() - began
    blocks = metrics.rerank(*features, nearest=nearest)
    encoded = time.process_time() - began - searched
    return {"searched": searched, "encoded": encoded, **_ranked(data, blocks)}


def _ranked(data: dict, blocks) -> dict:
    labels = metrics.Labels(*_ids(data))
    rows = [labels.rows(distances, start) for start, distances in blocks]
    found = metrics.summarise(metrics.RankRows.join(rows))
    return {"mAP": found.mAP, "rank1": float(found.cmc[0])}


def main(
    query: int = 11_659,
    gallery: int = 82_161,
    people: int = 3_060,
    width: int = 512,
    noise: float = 2.6,
    queries: int = 512,
    rerank: bool = False,
) -> None:
    """Print the tables.

    Args:
        query: Number of query images.
        gallery: Number of gallery images.
        people: Number of identities.
        width: Dimension of the features.
        noise: Standard deviation within a person, relative to that between people.
        queries: Queries of the slow implementations, rounded up to blocks.
        rerank: Whether to measure re-ranking as well (minutes at full size).
    """
    torch.set_num_threads(1)
    print(machine())
    data = crowd(query, gallery, people, width, noise)
    print(f"{query:,} x {gallery:,}, {width} values, {people:,} people, {CAMERAS} cameras, 1 core")
    rank(data, queries)
    with tempfile.TemporaryDirectory() as folder:
        for name, values in data.items():
            np.save(Path(folder) / f"{name}.npy", values)
        data.clear()
        heads = f"{'s':>8} {'CPU s':>8} {'GB before':>10} {'GB above':>9} {'mAP':>7}"
        print(f"\n{'in a new process':>24} {heads}")
        for name, what in (("blocks + ranking", chunked), ("re-ranking + ranking", reranked)):
            if what is chunked or rerank:
                found = fresh(what, folder)
                print(
                    f"{name:>24} {found['wall']:8.1f} {found['cpu']:8.1f} "
                    f"{found['before']:10.2f} {found['above']:9.2f} {found['mAP']:7.4f}",
                    flush=True,
                )
        if rerank:
            print(
                f"re-ranking: nearest neighbours {found['searched']:.1f} CPU s, encodings "
                f"{found['encoded']:.1f}, the rest is distances and ranking"
            )


if __name__ == "__main__":
    tyro.cli(main)
