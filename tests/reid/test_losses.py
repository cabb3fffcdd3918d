# SPDX-License-Identifier: Apache-2.0
"""Losses: compared with brute force; the effect of weights and masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from viewsynth.reid import losses
from viewsynth.reid.heads import BNNeck


def batch(seed: int = 0, people: int = 4, pictures: int = 3, width: int = 6):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(people).repeat_interleave(pictures)
    features = torch.randn(len(labels), width, generator=rng, dtype=torch.float64).float()
    weights = torch.rand(len(labels), generator=rng)
    return features, labels[torch.randperm(len(labels), generator=rng)], weights


def brute_force(features, labels, weights, negatives) -> float:
    """The triplet loss in plain Python, anchor by anchor."""
    rows, total = features.double().tolist(), 0.0
    everyone = range(len(rows))
    for a in everyone:
        mined = [n for n in everyone if weights[n] > 0 and n != a]
        positives = [n for n in mined if labels[n] == labels[a]]
        others = [n for n in mined if labels[n] != labels[a] and negatives[n]]
        if positives and others:
            far = max(positives, key=lambda n: math.dist(rows[a], rows[n]))
            near = min(others, key=lambda n: math.dist(rows[a], rows[n]))
            gap = math.dist(rows[a], rows[far]) - math.dist(rows[a], rows[near])
            least = min(float(weights[n]) for n in (a, far, near))
            total += least * math.log(1 + math.exp(gap))
    return total / len(rows)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    people=st.integers(1, 4),
    pictures=st.integers(1, 4),
    zeros=st.integers(0, 4),
    hidden=st.integers(0, 6),
)
def test_triplet_equals_brute_force(seed, people, pictures, zeros, hidden):
    features, labels, weights = batch(seed, people, pictures)
    weights[:zeros] = 0
    negatives = torch.ones(len(labels), dtype=torch.bool)
    negatives[:hidden] = False
    found = losses.triplet(features, labels, weights, negatives)
    assert found.item() == pytest.approx(brute_force(features, labels, weights, negatives), 1e-5)


def test_weights_of_one_give_the_plain_losses():
    features, labels, _ = batch()
    ones = torch.ones(len(labels))
    for smoothing in (0.0, 0.1):
        torch.testing.assert_close(
            losses.classification(features, labels, ones, smoothing),
            functional.cross_entropy(features, labels, label_smoothing=smoothing),
        )
    plain = brute_force(features, labels, ones, ones.bool())
    assert losses.triplet(features, labels, ones).item() == pytest.approx(plain, 1e-5)
    cosine = functional.cosine_similarity(features, features.flip(1))
    torch.testing.assert_close(
        losses.orthogonality(features, features.flip(1), ones), cosine.abs().mean()
    )


def every(features, labels, weights):
    return {
        "classification": losses.classification(features, labels, weights, 0.1),
        "triplet": losses.triplet(features, labels, weights),
        "orthogonality": losses.orthogonality(features, features.flip(1), weights),
    }


@pytest.mark.parametrize("name", every(*batch()))
def test_weights(name):
    features, labels, weights = batch(1)
    # Double weights give a double loss: it is not divided by their sum.
    one, two = (every(features, labels, some)[name] for some in (weights, 2 * weights))
    torch.testing.assert_close(2 * one, two)
    # Weight 0: no gradient, and the gradients of the others are as without that sample.
    weights[0] = 0
    features.requires_grad_()
    (gradient,) = torch.autograd.grad(every(features, labels, weights)[name], features)
    assert (gradient[0] == 0).all() and (gradient[1:] != 0).any()
    without = features.detach()[1:].requires_grad_()
    (rest,) = torch.autograd.grad(every(without, labels[1:], weights[1:])[name], without)
    torch.testing.assert_close(gradient[1:] * len(labels), rest * (len(labels) - 1))
    assert every(features, labels, torch.zeros(len(labels)))[name] == 0


def test_masked_samples_get_no_gradient():
    features = torch.tensor([[0.0, 0], [1, 0], [1.5, 0], [9, 0], [9, 1]], requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 1])  # the third is the nearest negative of the first two
    weights = torch.tensor([1.0, 1, 1, 0, 0])  # and is not an anchor: it has no positive
    for real, moved in ((torch.ones(5).bool(), True), (torch.tensor([1, 1, 0, 1, 1]) > 0, False)):
        loss = losses.triplet(features, labels, weights, real)
        (gradient,) = torch.autograd.grad(loss, features)
        assert bool(gradient[2].any()) == moved


def test_gradients_of_equal_features_are_finite():
    features = torch.zeros(4, 3, requires_grad=True)
    loss = losses.triplet(features, torch.tensor([0, 0, 1, 1]), torch.ones(4))
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.item() == pytest.approx(math.log(2)) and torch.isfinite(gradient).all()


def test_half_precision_is_computed_in_float32():
    features, labels, weights = batch(3)
    for name, loss in every(features.bfloat16() * 100, labels, weights).items():
        assert loss.dtype == torch.float32, name
    low = losses.triplet((features * 100).bfloat16(), labels, weights)
    same = losses.triplet((features * 100).bfloat16().float(), labels, weights)
    assert low == same


def test_neck():
    neck = BNNeck(64, 500)
    assert 0.009 < neck.classifier.weight.std() < 0.011 and neck.classifier.bias is None
    features = torch.randn(32, 64) * 5 + 3
    normal = neck.norm(features)
    torch.testing.assert_close(normal.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
    functional.cross_entropy(neck(features), torch.arange(32)).backward()
    assert neck.norm.bias.grad is None and neck.norm.weight.grad is not None
