# SPDX-License-Identifier: Apache-2.0
"""Re-ranking against a dense, slow implementation of the paper's description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from own_pictures import refusal

from viewsynth import metrics

BLOCK = metrics.BLOCK


def crowd(seed: int, queries: int, gallery: int, people: int = 9, noise: float = 0.8):
    """Features and identities of queries and gallery."""
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, people, queries + gallery)
    features = rng.normal(size=(people, 12))[pids] + noise * rng.normal(size=(len(pids), 12))
    features = features.astype(np.float32)
    return features[:queries], features[queries:], pids[:queries], pids[queries:]


def dense(query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float) -> np.ndarray:
    """Zhong et al. 2017, sections 3.2 to 3.5, with sets and whole matrices."""
    every = np.concatenate([query, gallery]).astype(np.float64)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    total = len(every)
    squared = 2 - 2 * every @ every.T
    scaled = squared / np.maximum(squared.max(1, keepdims=True), 1e-6)
    ranked = []
    for p in range(total):
        distance = squared[p].copy()
        distance[p] = -1  # an image is its own nearest
        ranked.append(np.argsort(distance, kind="stable").tolist())

    def reciprocal(p: int, k: int) -> set[int]:
        return {g for g in ranked[p][: k + 1] if p in ranked[g][: k + 1]}

    encoding = np.zeros((total, total))
    for p in range(total):
        own = reciprocal(p, k1)
        full = set(own)
        for q in own:
            theirs = reciprocal(q, round(k1 / 2))
            if len(own & theirs) > 2 / 3 * len(theirs):
                full |= theirs
        for g in full:
            encoding[p, g] = np.exp(-scaled[p, g])
        encoding[p] /= encoding[p].sum()
    encoding = np.array([encoding[ranked[p][:k2]].mean(0) for p in range(total)])
    found = np.zeros((len(query), len(gallery)))
    for p in range(len(query)):
        for g in range(len(gallery)):
            one, other = encoding[p], encoding[len(query) + g]
            jaccard = 1 - np.minimum(one, other).sum() / np.maximum(one, other).sum()
            found[p, g] = (1 - weight) * jaccard + weight * scaled[p, len(query) + g]
    return found


def whole(blocks) -> np.ndarray:
    return np.concatenate([np.asarray(distances) for _, distances in blocks])


@pytest.mark.parametrize("seed", range(6))
def test_reranking_matches_the_paper(seed):
    query, gallery, _, _ = crowd(seed, 15, 85, noise=0.4 + 0.2 * seed)
    found = whole(metrics.rerank(query, gallery))
    assert found.dtype == np.float32 and found.shape == (15, 85)
    assert found == pytest.approx(dense(query, gallery, 20, 6, 0.3), abs=1e-5)


@pytest.mark.parametrize(
    ("k1", "k2", "weight"),
    [(1, 1, 0.3), (5, 1, 0.0), (6, 2, 0.3), (7, 3, 0.5), (4, 9, 0.3), (20, 6, 1.0)],
)
def test_other_settings(k1, k2, weight):
    query, gallery, _, _ = crowd(7, 10, 50)
    found = whole(metrics.rerank(query, gallery, k1, k2, weight))
    assert found == pytest.approx(dense(query, gallery, k1, k2, weight), abs=1e-5)


@pytest.mark.parametrize(("queries", "gallery"), [(1, 1), (1, 4), (3, 9), (8, 13)])
def test_fewer_images_than_neighbours(queries, gallery):
    query, others, _, _ = crowd(3, queries, gallery, people=3)
    found = whole(metrics.rerank(query, others))
    assert found == pytest.approx(dense(query, others, 20, 6, 0.3), abs=1e-5)


def test_copies_of_images():
    """Equal distances are ordered by index; nothing is divided by zero."""
    rng = np.random.default_rng(0)
    # A single 1 in each row: products are exact, so equal distances are equal on any machine.
    features = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 70)]
    found = whole(metrics.rerank(features[:10], features[10:], 6, 3))
    assert found == pytest.approx(dense(features[:10], features[10:], 6, 3, 0.3), abs=1e-5)
    for part in metrics.neighbours(features[:10], features[10:], 6, 3):
        own, similarity = part.index, features @ features.T
        for image, row in enumerate(own):
            keys = [(k != image, -similarity[image, k], k) for k in range(70)]
            assert row.tolist() == [k for *_, k in sorted(keys)][:7]
    alike = features[[0] * 30]
    found = whole(metrics.rerank(alike[:4], alike[4:]))
    assert found == pytest.approx(dense(alike[:4], alike[4:], 20, 6, 0.3), abs=1e-5)


def test_any_number_of_processes_gives_the_same_values():
    query, gallery, _, _ = crowd(1, BLOCK + 30, BLOCK + 200, people=60)
    total, alone = len(query) + len(gallery), list(metrics.rerank(query, gallery))
    assert [start for start, _ in alone] == [0, BLOCK]
    for workers in (2, 3):
        every = [
            part
            for worker in reversed(range(workers))
            for part in metrics.neighbours(
                query, gallery, starts=range(worker * BLOCK, total, workers * BLOCK)
            )
        ]
        parts = {}
        for worker in range(workers):
            starts = range(worker * BLOCK, len(query), workers * BLOCK)
            parts |= dict(metrics.rerank(query, gallery, starts=starts, nearest=every))
        assert sorted(parts) == [0, BLOCK]
        assert all(np.array_equal(parts[start], distances) for start, distances in alone)


def test_inputs_of_any_type_give_the_same():
    query, gallery, _, _ = crowd(2, 6, 40)
    expected = whole(metrics.rerank(query, gallery))
    for change in (torch.from_numpy, np.float64, lambda f: f * np.float32(4)):
        assert np.array_equal(whole(metrics.rerank(change(query), change(gallery))), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_close():
    query, gallery, _, _ = crowd(2, 40, 400, people=30)
    on_gpu = (torch.from_numpy(features).cuda() for features in (query, gallery))
    found = whole(metrics.rerank(*on_gpu))
    assert np.abs(found - whole(metrics.rerank(query, gallery))).mean() < 1e-4


def test_reranking_raises_the_map():
    query, gallery, query_pids, pids = crowd(0, 60, 400, people=20, noise=1.2)
    ids = query_pids, pids, np.zeros(60, int), np.ones(400, int)
    plain = metrics.rank_metrics(metrics.cosine_distances(query, gallery), *ids)
    again = metrics.rank_metrics(whole(metrics.rerank(query, gallery)), *ids)
    assert again.mAP > plain.mAP + 0.05


def test_bad_input_is_refused():
    query, gallery, _, _ = crowd(0, 5, 20)
    for bad in ({"k1": 0}, {"k2": 0}, {"weight": 1.1}, {"weight": float("nan")}):
        message = refusal(metrics.rerank, query, gallery, **bad)
        assert "k1 and k2 of at least 1 and a weight in" in message
    with pytest.raises(ValueError, match="row 3"):
        metrics.rerank(query, np.where(np.arange(20)[:, None] == 3, np.nan, gallery))
    with pytest.raises(ValueError, match="lacks 25 of 25 images"):
        metrics.rerank(query, gallery, nearest=[])
    few = list(metrics.neighbours(query, gallery, 3, 2))
    with pytest.raises(ValueError, match="other k1, k2: 4 neighbours.*21 of 25 are needed"):
        metrics.rerank(query, gallery, nearest=few)
    with pytest.raises(ValueError, match="multiple of 256"):
        metrics.neighbours(query, gallery, starts=[7])
