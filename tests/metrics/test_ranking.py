# SPDX-License-Identifier: Apache-2.0
"""Rank metrics against their definition; ties count as the worst order that they allow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from own_pictures import refusal

from viewsynth import metrics
from viewsynth.metrics import ranking


def in_order(hits: list[bool]) -> tuple[float, float, int]:
    """AP, INP and rank of the first match of one order of images."""
    ranks = [rank for rank, hit in enumerate(hits, 1) if hit]
    precision = [found / rank for found, rank in enumerate(ranks, 1)]
    return sum(precision) / len(ranks), len(ranks) / ranks[-1], ranks[0]


def brute(row, pid, camid, pids, camids):
    """Metrics of one query by their definition; None if nothing matches."""
    kept = [
        (float(distance), other == pid)
        for distance, other, camera in zip(row, pids, camids, strict=True)
        if not (other == pid and camera == camid)
    ]
    if not any(hit for _, hit in kept):
        return None
    matches = {distance for distance, hit in kept if hit}
    tied = any(distance in matches for distance, hit in kept if not hit)
    return *in_order([hit for _, hit in sorted(kept)]), tied  # False before True


def agree(rows: metrics.RankRows, distances, query_pids, gallery_pids, query_camids, camids):
    """Assert that rows equal `brute`."""
    assert len(rows) == len(distances)
    for k, row in enumerate(distances):
        expected = brute(row, query_pids[k], query_camids[k], gallery_pids, camids)
        assert rows.valid[k] == (expected is not None)
        if expected is None:
            assert np.isnan(rows.ap[k]) and np.isnan(rows.inp[k])
            assert rows.rank[k] == 0 and not rows.tied[k]
        else:
            assert (rows.ap[k], rows.inp[k]) == pytest.approx(expected[:2], abs=1e-12)
            assert (rows.rank[k], rows.tied[k]) == expected[2:]


@st.composite
def tasks(draw):
    """Distances with many ties, ids of strings or ints, cameras."""
    queries, gallery = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    ids = draw(st.sampled_from((["p/1", "p/10", "p/2"], [3, -1, 2**60])))
    cameras = draw(st.sampled_from((["1", "2"], [0, 1])))

    def many(values, count):
        return draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))

    flat = many([0.0, -0.0, 0.25, 1.0, 3.0], queries * gallery)
    distances = np.array(flat, np.float32).reshape(queries, gallery)
    pids, camids = many(ids, queries + gallery), many(cameras, queries + gallery)
    return distances, pids[:queries], pids[queries:], camids[:queries], camids[queries:]


@given(tasks())
def test_ranking_matches_its_definition(task):
    rows = metrics.rank_rows(*task)
    agree(rows, *task)
    if not rows.valid.any():
        with pytest.raises(ValueError, match="none of the .* queries has a match"):
            metrics.rank_metrics(*task)
        return
    found = metrics.rank_metrics(*task, max_rank=5)
    valid = [brute(*each, *(task[2], task[4])) for each in zip(*task[:2], task[3], strict=True)]
    valid = [each for each in valid if each is not None]
    assert found.valid_queries == len(valid) == rows.valid.sum()
    assert found.tied_queries == sum(each[3] for each in valid)
    assert (found.mAP, found.mINP) == pytest.approx(np.mean([each[:2] for each in valid], axis=0))
    expected = [np.mean([each[2] <= k for each in valid]) for k in range(1, 6)]
    assert found.cmc.shape == (5,) and found.cmc.dtype == np.float64
    assert found.cmc == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_count_as_the_worst_order(images):
    if not any(hit for _, hit in images):
        return
    every = [
        in_order([hit for _, hit in order])
        for order in itertools.permutations(images)
        if all(a[0] <= b[0] for a, b in itertools.pairwise(order))
    ]
    distances = np.array([[distance for distance, _ in images]])
    match = [hit for _, hit in images]
    rows = metrics.rank_rows(distances, [True], match, ["a"], ["b"] * len(match))
    assert rows.ap[0] == pytest.approx(min(ap for ap, _, _ in every))
    assert rows.inp[0] == pytest.approx(min(inp for _, inp, _ in every))
    assert rows.rank[0] == max(rank for _, _, rank in every)
    assert rows.tied[0] == (len({ap for ap, _, _ in every}) > 1)


def large(levels: int | None = None) -> tuple:
    """2,400 gallery images of people with 1 to 700 images; near, middling and far matches."""
    rng = np.random.default_rng(5)
    sizes = {"one": 1, "two": 2, "few": 6, "some": 40, "many": 700}
    pids = [name for name, count in sizes.items() for _ in range(count)]
    pids += ["nobody"] * (2400 - len(pids))
    camids = rng.integers(0, 3, len(pids)).astype(str).tolist()
    query_pids = [*sizes, *sizes, *sizes, "stranger"]
    distances = rng.random((len(query_pids), len(pids)), np.float32) + 1
    for row, pid, nearer in zip(distances, query_pids, np.repeat([1, 0.5, 0], 5), strict=False):
        row[np.array(pids) == pid] -= np.float32(nearer)
    if levels:
        distances = np.round(distances * levels) / np.float32(levels)
    return distances, query_pids, pids, ["0"] * len(query_pids), camids


@pytest.mark.parametrize("levels", [None, 5, 500])
def test_all_ways_to_count_match_the_definition(levels):
    """Few matches are counted, many are searched in a sorted row, far images are dropped first."""
    task = large(levels)
    rows = metrics.rank_rows(*task)
    agree(rows, *task)
    assert rows.valid.sum() >= 12 and not rows.valid[-1]
    assert rows.tied.any() == (levels is not None)


@pytest.mark.parametrize("levels", [None, 5])
def test_counting_on_a_device_equals_counting_on_a_cpu(levels):
    distances, *ids = large(levels)
    labels = ranking.Labels(*ids)
    people = [labels._person(query) for query in range(len(labels))]
    found, junk = ranking.count_on_device(torch.from_numpy(distances), people)
    for row, (own, removed), counts, out in zip(distances, people, found, junk, strict=True):
        expected = ranking._counted(row, own)
        assert (counts is None) == (expected is None)
        for one, other in zip(counts or (), expected or (), strict=True):
            assert np.array_equal(one, other)
        assert np.array_equal(out, row[removed])


def same(one: metrics.RankRows, other: metrics.RankRows) -> bool:
    names = ("valid", "ap", "inp", "rank", "tied")
    return all(np.array_equal(getattr(one, n), getattr(other, n), equal_nan=True) for n in names)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("levels", [None, 5])
def test_a_gpu_gives_the_same_values(levels):
    distances, *ids = large(levels)
    assert same(
        metrics.rank_rows(torch.from_numpy(distances).cuda(), *ids),
        metrics.rank_rows(distances, *ids),
    )


def test_inputs_of_any_type_give_the_same():
    rng = np.random.default_rng(0)
    distances = rng.integers(0, 9, (7, 40)).astype(np.float32)
    ids = [rng.integers(0, 4, 7), rng.integers(0, 4, 40)]
    ids += [rng.integers(0, 3, 7), rng.integers(0, 3, 40)]
    expected = metrics.rank_rows(distances, *ids)
    assert expected.tied.any()
    wide = np.repeat(distances, 2, axis=1)[:, ::2]
    kinds = [np.float16, np.float64, np.int64, np.uint8]
    for given_distances in (*(distances.astype(kind) for kind in kinds), wide, wide.T.copy().T):
        assert same(metrics.rank_rows(given_distances, *ids), expected)
    tensor = torch.from_numpy(distances)
    kinds = (tensor, tensor.half(), tensor.bfloat16(), tensor.double().requires_grad_(), tensor.T)
    for one in kinds:
        one = one if one.shape == (7, 40) else one.contiguous().T
        assert same(metrics.rank_rows(one, *ids), expected)
    for change in (
        list,
        torch.from_numpy,
        lambda i: torch.from_numpy(i).int(),
        lambda i: i.astype(str),
        lambda i: i.astype(str).astype(object),
        lambda i: list(torch.from_numpy(i)),
        lambda i: tuple(f"set/{k}" for k in i),
    ):
        assert same(metrics.rank_rows(distances, *map(change, ids)), expected)


def test_float64_distances_tie_like_float32():
    distances = np.array([[0.5, 0.5 + 1e-12]])
    rows = metrics.rank_rows(distances, ["a"], ["a", "b"], ["1"], ["2", "2"])
    assert rows.tied[0] and rows.rank[0] == 2


def test_the_order_of_the_gallery_does_not_matter():
    distances, query_pids, pids, query_camids, camids = large(20)
    order = np.random.default_rng(1).permutation(len(pids))
    turned = metrics.rank_rows(
        distances[:, order],
        query_pids,
        np.array(pids)[order],
        query_camids,
        np.array(camids)[order],
    )
    assert same(turned, metrics.rank_rows(*large(20)))


# ---- blocks --------------------------------------------------------------------------------------


def features(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 24)).astype(np.float32)


def test_blocks_are_independent_of_the_number_of_processes():
    query, gallery = features(0, 2 * metrics.BLOCK + 77), features(1, 300)
    rng = np.random.default_rng(2)
    ids = [rng.integers(0, 20, n) for n in (len(query), len(gallery))]
    ids += [rng.integers(0, 3, n) for n in (len(query), len(gallery))]
    labels, block = metrics.Labels(*ids), metrics.BLOCK
    alone = [labels.rows(some, start) for start, some in metrics.blocks(query, gallery)]
    assert [len(rows) for rows in alone] == [block, block, 77]
    alone = metrics.RankRows.join(alone)
    for workers in (1, 2, 3, 5):
        parts = {}
        for worker in reversed(range(workers)):
            starts = range(worker * block, len(query), workers * block)
            for start, some in metrics.blocks(query, gallery, starts):
                assert some.dtype == np.float32 and some.shape[1] == len(gallery)
                parts[start] = labels.rows(some, start)
        assert same(metrics.RankRows.join([parts[start] for start in sorted(parts)]), alone)
    whole = metrics.cosine_distances(query, gallery)
    found = metrics.rank_metrics(whole, *ids)
    assert found.mAP == pytest.approx(np.nanmean(alone.ap), abs=1e-7)
    assert np.array_equal(found.rows.rank, alone.rank)
    assert same(metrics.rank_metrics(torch.from_numpy(whole), *ids).rows, found.rows)
    assert found.mAP == metrics.summarise(metrics.rank_rows(whole, *ids)).mAP


def test_cosine_distance_matches_its_definition():
    query, gallery = features(3, 5), 7 * features(4, 6)
    found = metrics.cosine_distances(query, gallery)
    for a, b in itertools.product(range(5), range(6)):
        one, other = query[a].astype(float), gallery[b].astype(float)
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert found[a, b] == pytest.approx(1 - cosine, abs=1e-6)
    half = torch.from_numpy(query).half()
    assert metrics.cosine_distances(half, gallery) == pytest.approx(found, abs=1e-2)
    assert np.array_equal(metrics.cosine_distances(query.astype(float), gallery), found)
    ((start, block),) = metrics.blocks(query, gallery)
    assert start == 0 and block == pytest.approx(found - 1, abs=1e-6)
    query.flags.writeable = False  # like an array read from a file
    assert np.array_equal(metrics.cosine_distances(query, gallery), found)


def test_features_whose_squares_overflow_are_normalised():
    one = np.array([[3e30, 4e30], [3e-30, 4e-30]], np.float32)
    assert metrics.normalise(one).numpy() == pytest.approx(np.array([[0.6, 0.8]] * 2))


def test_rows_can_be_selected_for_bins():
    task = large(20)
    rows = metrics.rank_rows(*task)
    mask = np.arange(len(rows)) % 2 == 0
    some = metrics.summarise(rows[mask], 3)
    assert len(rows[mask]) == mask.sum() and some.valid_queries == rows.valid[mask].sum()
    assert some.mAP == np.nanmean(rows.ap[mask]) and some.cmc.shape == (3,)
    assert some.cmc[0] == (rows.rank[mask & rows.valid] == 1).mean()
    assert same(metrics.RankRows.join([rows[:3], rows[3:]]), rows)
    assert some.mAP == metrics.interval(rows.ap[mask])[0]


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_distance_that_is_not_finite(value, kind):
    distances = np.ones((300, 4), np.float32)
    distances[270, 2] = distances[299, 0] = value
    ids = np.zeros(300, int), np.zeros(4, int), np.zeros(300, int), np.ones(4, int)
    message = refusal(metrics.rank_metrics, kind(distances), *ids)
    assert message.startswith("2 distances ") and "query 270 to gallery image 2" in message


ABC = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": np.zeros(3)}, r"shape \[queries, gallery\].*\[3\]"),
        ({"distances": [[1.0, 2.0, 3.0]]}, "array or tensor.*list"),
        ({"distances": np.zeros((3, 2))}, "distances are 3 x 2, but there are 2 query and 3"),
        ({"distances": np.zeros((2, 3), bool)}, "real numbers; got bool"),
        ({"query_pids": ABC}, "3 query_pids and 2 query_camids"),
        ({"gallery_camids": [1]}, "3 gallery_pids and 1 gallery_camids"),
        ({"query_pids": [1, 2]}, "strings and ints never match"),
        ({"query_pids": [1.0, 2.0], "gallery_pids": [1.0] * 3}, "strings or of ints; got float64"),
        ({"query_pids": [["a"], ["b"]]}, "flat list"),
        ({"query_camids": [None, 1]}, "query_camids must be .*object"),
        ({"query_pids": ["x", "y"]}, "none of the 2 queries has a match"),
        ({"query_camids": [1, 1]}, "none of the 2 queries has a match"),
        ({"gallery_pids": [], "gallery_camids": [], "distances": np.zeros((2, 0))}, "is empty"),
        ({"query_pids": [], "query_camids": [], "distances": np.zeros((0, 3))}, "no queries"),
        ({"max_rank": 0}, "max_rank must be at least 1; got 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    task = {
        "distances": np.zeros((2, 3), np.float32),
        "query_pids": ["a", "b"],
        "gallery_pids": ABC,
        "query_camids": [0, 0],
        "gallery_camids": [1, 1, 1],
    }
    assert metrics.rank_metrics(**task).valid_queries == 2
    with pytest.raises(ValueError, match=message):
        metrics.rank_metrics(**task | change)


def test_a_block_that_does_not_fit():
    labels = metrics.Labels(ABC, ABC, [0, 0, 0], [1, 1, 1])
    assert len(labels.rows(np.zeros((0, 3), np.float32), 3)) == 0
    with pytest.raises(ValueError, match="block of 2 queries from 2 on does not fit in 3"):
        labels.rows(np.zeros((2, 3), np.float32), 2)
    with pytest.raises(ValueError, match="multiple of 256 from 0 to below 24; got 24"):
        metrics.blocks(features(0, 24), features(1, 3), [0, 24])


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize(("value", "why"), [(0.0, "zero"), (np.nan, "not finite")])
def test_features_without_a_direction(value, why, tensor):
    bad = features(0, 9)
    bad[4] = bad[7] = value
    bad = torch.from_numpy(bad) if tensor else bad
    message = refusal(metrics.blocks, features(1, 3), bad)
    assert f"2 of 9 rows of the gallery features are {why}" in message and " row 4" in message


def test_features_of_another_shape():
    for bad in (np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0)), np.ones((2, 2), complex), ["a"]):
        assert "real numbers of shape" in refusal(metrics.normalise, bad)
    message = refusal(metrics.blocks, features(0, 3), features(0, 3)[:, 1:])
    assert "have 24 and 23 values" in message
