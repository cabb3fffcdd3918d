# SPDX-License-Identifier: Apache-2.0
"""Pseudo-labels against scikit-learn, loops and brute force."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from viewsynth.reid import backbones, clusters, methods
from viewsynth.reid.methods import uagrpg


def unit(count: int, width: int = 4, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, width, generator=rng)
    rows = centres[torch.arange(count) % 5] + 0.4 * torch.randn(count, width, generator=rng)
    return torch.nn.functional.normalize(rows, dim=1)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_neighbourhoods_and_distances_by_loops(total, count, seed):
    rows = unit(total, seed=seed)
    nearest = [set((rows @ row).topk(min(count, total)).indices.tolist()) for row in rows]
    own = [{b for b in nearest[a] if a in nearest[b]} | {a} for a in range(total)]
    found = clusters.neighbourhoods(rows, count)
    assert [set(found[a].indices.tolist()) for a in range(total)] == own
    assert (found.data == 1).all()
    apart = clusters.distances(found)
    for a, b in itertools.product(range(total), repeat=2):
        both, either = len(own[a] & own[b]), len(own[a] | own[b])
        stored = b in apart[a].indices
        assert stored == bool(both)
        assert not stored or apart[a, b] == pytest.approx(1 - both / either, abs=1e-6)


def test_blocks_do_not_matter(monkeypatch):
    rows = unit(50)
    whole = clusters.neighbourhoods(rows, 6).toarray()
    monkeypatch.setattr(clusters, "BLOCK", 7)
    np.testing.assert_array_equal(clusters.neighbourhoods(rows, 6).toarray(), whole)


@given(st.integers(1, 60), st.floats(0.05, 0.6), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_clusters_are_those_of_scikit_learn(total, reach, least, seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 5, (total, 2)) + 0.3 * rng.random((total, 2))
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    expected = DBSCAN(eps=reach, min_samples=least, metric="precomputed").fit_predict(apart)
    row, column = np.nonzero(apart < 1)  # pairs that are not stored are out of reach
    stored = sparse.csr_matrix((apart[row, column], (row, column)), shape=apart.shape)
    np.testing.assert_array_equal(clusters.dbscan(stored, reach, least), expected)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (5, 2), (1, 1)])
def test_matching_against_brute_force(shape):
    alike = np.random.default_rng(0).random(shape)
    pairs = clusters.match(alike)
    small, large = sorted(shape)
    assert len(pairs) == large
    for side in range(2):
        counts = np.bincount(pairs[:, side], minlength=shape[side])
        assert counts.min() >= 1 and (shape[side] < large or counts.max() == 1)
    values = alike[pairs[:, 0], pairs[:, 1]]
    assert (np.diff(values) <= 0).all()
    if shape[0] == shape[1]:
        best = max(alike[range(large), list(p)].sum() for p in itertools.permutations(range(large)))
        assert values.sum() == pytest.approx(best)
    assert clusters.match(np.zeros((0, 3))).shape == (0, 2)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(uagrpg, "LEAST", 2)
    monkeypatch.setattr(uagrpg, "NEAREST", 3)
    backbone = backbones.load("small", (32, 16))
    return methods.build("uagrpg", backbone, 12)


def test_rebuilt_clusters(model):
    """Two groups in each view; the features of a group are alike in both views."""
    kinds = torch.tensor([0, 0, 0, 1, 1, 1] * 2)
    views = torch.tensor([0] * 6 + [1] * 6)
    torch.manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(2, 256), dim=1)
    rows = centres[kinds] + 0.01 * torch.randn(12, 256)
    model.rebuild(rows, torch.arange(12), views, torch.ones(12))
    assert model.count.tolist() == [2, 2]
    assert model.cluster.tolist() == kinds.tolist()
    mean = torch.nn.functional.normalize(rows, dim=1)[3:6].mean(0)
    torch.testing.assert_close(model.centres[0, 1], mean / mean.norm())
    assert (model.partner >= 0).sum() == 2  # one pair of clusters in the first epoch, both ways
    for _ in range(uagrpg.GRADUAL):
        model.rebuild(rows, torch.arange(12), views, torch.ones(12))
    assert model.partner[0, 1, :2].tolist() == model.partner[1, 0, :2].tolist() == [0, 1]


def test_losses_image_by_image(model):
    torch.manual_seed(1)
    model.eval()
    images, views = torch.rand(4, 3, 32, 16), torch.tensor([0, 1, 0, 1])
    model.cluster[:4] = torch.tensor([0, 1, -1, 0])
    model.count[:] = torch.tensor([1, 2])
    model.centres[:] = torch.nn.functional.normalize(torch.randn_like(model.centres), dim=2)
    model.partner[0, 1, 0], model.partner[1, 0, 1] = 1, 0
    weights = torch.tensor([1.0, 0.5, 1, 1])
    given = SimpleNamespace(images=images, views=views, weights=weights, indices=torch.arange(4))
    rows = torch.nn.functional.normalize(model.features(images), dim=1).detach()
    expected = {"identity": 0.0, "matched": 0.0, "soft": 0.0}
    for n in (0, 1, 3):  # the third is in no cluster
        view, own = int(views[n]), int(model.cluster[n])
        other, share = 1 - view, float(weights[n]) / 4
        logs = [(uagrpg.SCALE * model.used(v) @ rows[n]).log_softmax(0) for v in (0, 1)]
        expected["identity"] -= share * float(logs[view][own])
        if (partner := int(model.partner[view, other, own])) >= 0:
            expected["matched"] -= share * float(logs[other][partner])
        soft = (model.used(other) @ model.centres[view, own] / uagrpg.SHARP).softmax(0)
        expected["soft"] -= uagrpg.SOFT * share * float(soft @ logs[other])
    found = {key: float(value.detach()) for key, value in model.losses(given).items()}
    assert found == pytest.approx(expected, rel=1e-4)
