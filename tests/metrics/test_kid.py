# SPDX-License-Identifier: Apache-2.0
"""KID against its definition, and the coverage of its intervals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from viewsynth import metrics


def brute(real, made, people, others) -> float:
    """Squared MMD, pair by pair, without pairs of one person."""

    def kernel(x, y) -> float:
        return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def mean(one, other, rows, columns) -> float:
        pairs = itertools.product(range(len(one)), range(len(other)))
        values = [kernel(one[i], other[j]) for i, j in pairs if rows[i] != columns[j]]
        return sum(values) / len(values)

    return (
        mean(real, real, people, people)
        + mean(made, made, others, others)
        - 2 * mean(real, made, people, others)
    )


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (14, 5)), rng.normal(0.4, 1.2, (11, 5))


def test_it_is_the_unbiased_estimate(sets):
    """Without people: the mean over all pairs i != j, as in the paper."""
    real, made = sets
    names = [f"r{k}" for k in range(14)], [f"m{k}" for k in range(11)]
    value, low, high = metrics.kid(real, made)
    assert value == pytest.approx(brute(real, made, *names), rel=1e-9)
    assert low < value < high


def test_pairs_of_one_person_are_left_out(sets):
    real, made = sets
    people, others = [f"{k // 3}" for k in range(14)], [f"{k % 4}" for k in range(11)]
    value, *_ = metrics.kid(real, made, people, others)
    assert value == pytest.approx(brute(real, made, people, others), rel=1e-9)
    order = np.random.default_rng(1).permutation(14)
    turned = metrics.kid(real[order], made, [people[k] for k in order], others)
    assert turned == pytest.approx(metrics.kid(real, made, people, others))


def test_the_block_size_does_not_matter(sets, monkeypatch):
    real, made = sets
    people, others = [f"{k // 3}" for k in range(14)], [f"{k % 4}" for k in range(11)]
    whole = metrics.kid(real, made, people, others)
    monkeypatch.setattr("viewsynth.metrics.kernel_distance.BLOCK", 4)
    assert metrics.kid(real, made, people, others) == pytest.approx(whole)


def features(rng, people: int, shift: float = 0.0, each: int = 3):
    """Features of people, with less variation within than between people."""
    own = rng.normal(0, 1, (people, 8)).repeat(each, 0)
    return own + rng.normal(shift, 0.3, own.shape), np.arange(people).repeat(each).astype(str)


def test_the_interval_has_its_nominal_coverage():
    """Two samples of one population: the true KID is 0."""
    inside, values = 0, []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        (one, people), (other, others) = features(rng, 40), features(rng, 40)
        value, low, high = metrics.kid(one, other, people, [f"other {w}" for w in others])
        inside += low <= 0 <= high
        values.append(value)
    assert 51 <= inside <= 60
    assert abs(np.mean(values)) < 2.5 * np.std(values) / np.sqrt(60)


def test_a_shift_is_found_and_the_nearer_set_wins():
    rng = np.random.default_rng(0)
    real, people = features(rng, 60)
    near, far = (real + rng.normal(shift, 0.2, real.shape) for shift in (0.1, 0.6))
    value, low, _ = metrics.kid(real, far, people, people)
    assert low > 0
    gain, low, high = metrics.kid_difference(real, near, far, people)
    assert gain == pytest.approx(value - metrics.kid(real, near, people, people)[0]) and low > 0
    assert high > gain > low
    assert metrics.kid_difference(real, near, near, people) == (0, 0, 0)


def test_the_floor_is_about_zero():
    real, people = features(np.random.default_rng(0), 60)
    mean, low, high = metrics.kid_floor(real, people)
    assert low < 0 < high and abs(mean) < 0.1 * (high - low)
    far = real + 0.6
    assert metrics.kid(real, far, people, people)[0] > high


def test_bad_input_is_refused(sets):
    real, made = sets
    assert np.isfinite(metrics.kid(real, made)).all()
    with pytest.raises(ValueError, match="5 and 4 values"):
        metrics.kid(real, made[:, :4])
    with pytest.raises(ValueError, match="at least two people"):
        metrics.kid(real, made, ["a"] * 14, ["b"] * 11)
    with pytest.raises(ValueError, match="of both sets, or of neither"):
        metrics.kid(real, made, ["a"] * 14)
    made[3, 2] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        metrics.kid(real, made)
