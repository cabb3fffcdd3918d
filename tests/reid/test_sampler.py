# SPDX-License-Identifier: Apache-2.0
"""PK sampler: content of the batches, which depend on seed and step only."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from viewsynth.records import Sample
from viewsynth.reid.pool import Pool, build
from viewsynth.reid.sampler import Plan


def pool_of(ground=(4,) * 10, aerial=(2,) * 10, synthetic=(6,) * 10) -> Pool:
    """A pool with these numbers of images of each person, alternating between three cameras."""
    samples = []
    for person, counts in enumerate(zip(ground, aerial, synthetic, strict=True)):
        for kind, count in zip(("ground", "aerial", "synthetic"), counts, strict=True):
            for number in range(count):
                source = "synthetic" if kind == "synthetic" else "real"
                name = f"{person}/{kind}{number}"
                samples.append(
                    Sample(
                        paths=(Path(name),),
                        pid=f"{person:03d}",
                        name=name,
                        source=source,
                        camid=f"{kind}{number % 3}",
                        view="ground" if kind == "ground" else "aerial",
                    )
                )
    return build(samples)


def plan(pool=None, people=4, pictures=4, steps=200, **options) -> Plan:
    return Plan(pool=pool or pool_of(), people=people, pictures=pictures, steps=steps, **options)


COUNTS = st.integers(3, 12).flatmap(
    lambda n: st.tuples(
        *(st.lists(st.integers(low, 6), min_size=n, max_size=n) for low in (1, 0, 0))
    )
)


@settings(deadline=None, max_examples=60)
@given(
    counts=COUNTS,
    people=st.integers(1, 12),
    pictures=st.integers(1, 7),
    added=st.integers(0, 4),
    synthetic=st.floats(0, 0.5),
    until=st.floats(0, 1),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 60),
)
def test_content_of_a_batch(counts, people, pictures, added, synthetic, until, seed, step):
    pool = pool_of(*counts)
    people = min(people, pool.classes)
    assume(pictures > 1 or not (synthetic and pool.synthetic.any()))
    each = pictures + added
    assume(each == 1 or np.bincount(pool.labels[~pool.synthetic]).max() > 1)
    options = {"added": added, "synthetic": synthetic, "until": until, "seed": seed}
    batch = plan(pool, people, pictures, 61, **options).batch(step)
    assert batch.shape == (people * each,) and batch.dtype == np.int64
    groups = batch.reshape(people, each)
    labels = pool.labels[groups]
    assert (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == people
    for group, label in zip(groups, labels[:, 0], strict=True):
        real = group[~pool.synthetic[group]]
        other = group[pool.synthetic[group]]
        own = np.flatnonzero((pool.labels == label) & ~pool.synthetic)
        made = np.flatnonzero((pool.labels == label) & pool.synthetic)
        assert 2 * len(real) >= pictures and len(real) + len(other) == each
        if len(made) and step <= 60 * until:  # before the fall, all added ones are synthetic
            assert added <= len(other) <= added + math.ceil(synthetic * pictures)
        assert len(set(real)) == min(len(real), len(own))  # repeated only after all are used
        assert len(set(other)) == min(len(other), len(made))
        if len(real) > 1:
            assert set(pool.views[real]) == set(pool.views[own])
    if step == 60 and until < 1:
        assert not pool.synthetic[batch].any()
    again = plan(pool, people, pictures, 61, **options)
    again.batch(3)
    assert (again.batch(step) == batch).all()


def test_each_identity_once_in_an_epoch():
    one = plan(pool_of((4,) * 11, (2,) * 11, (6,) * 11))
    assert one.epoch == 3
    orders = []
    for epoch in range(20):
        labels = [one.pool.labels[one.batch(step)[::4]] for step in range(epoch * 3, epoch * 3 + 3)]
        assert len(set(np.concatenate(labels[:2]))) == 8
        assert set(np.concatenate(labels)) == set(range(11))
        assert len(set(labels[2])) == 4  # the three remaining ones, and one to fill up
        orders.append(tuple(np.concatenate(labels)))
    assert len(set(orders)) == 20


@pytest.mark.parametrize(("pictures", "synthetic"), [(4, 0.5), (4, 0.3), (5, 0.2), (8, 0.4)])
def test_share_follows_the_schedule(pictures, synthetic):
    one = plan(pictures=pictures, synthetic=synthetic, until=0.5, steps=1001)
    shares = np.array([one.pool.synthetic[one.batch(step)].mean() for step in range(1001)])
    assert shares[:500].mean() == pytest.approx(synthetic, abs=0.01)
    assert shares[700:801].mean() == pytest.approx(synthetic / 2, abs=0.03)
    assert shares[1000] == 0 and one.share(1000) == 0 and one.share(500) == synthetic
    assert plan(until=1, steps=10).share(9) == 0.5  # constant
    assert plan(steps=1).share(0) == 0.5


@pytest.mark.parametrize(("added", "synthetic"), [(2, 0), (1, 0.25), (3, 0.5)])
def test_added_images_follow_the_schedule(added, synthetic):
    one = plan(added=added, synthetic=synthetic, until=0.5, steps=1001)
    expected = 4 * synthetic + added
    groups = np.array([one.pool.synthetic[one.batch(n)].reshape(4, -1) for n in range(1001)])
    assert groups.shape == (1001, 4, 4 + added)
    assert (groups[:501].sum(2) == expected).all()  # whole numbers here: nothing is rounded
    assert groups[700:801].sum(2).mean() == pytest.approx(expected / 2, abs=0.1)
    assert not groups[1000].any() and one.share(1000) == 0
    assert one.share(500) == pytest.approx(expected / (4 + added))


def test_without_synthetic_images_added_ones_are_real():
    nothing = pool_of(synthetic=(0,) * 10)
    added, real = plan(nothing, added=2, synthetic=0.5), plan(nothing, pictures=6)
    some = plan(pool_of(synthetic=(0, 5) * 5), added=2, synthetic=0)
    for step in range(30):
        assert (added.batch(step) == real.batch(step)).all()
        made = some.pool.synthetic[some.batch(step)].reshape(4, 6).sum(1)
        labels = some.pool.labels[some.batch(step)[::6]]
        assert (made == np.where(labels % 2, 2, 0)).all()


def test_all_images_are_used_equally_often():
    one = plan(pool_of((3,) * 10, (6,) * 10, (6,) * 10), steps=2000, until=1.0)
    seen = Counter(np.concatenate([one.batch(step) for step in range(2000)]).tolist())
    assert set(seen) == set(range(len(one.pool.samples)))
    # Two of four images are synthetic, and one is real of each view.
    for kind, own in (("ground", 3), ("aerial", 6), ("synthetic", 6)):
        counts = [seen[n] for n, s in enumerate(one.pool.samples) if kind in s.name]
        expected = 2000 * 4 / 10 * (2 if kind == "synthetic" else 1) / own
        assert np.mean(counts) == pytest.approx(expected, rel=0.01)
        assert max(counts) < 1.35 * expected and min(counts) > 0.65 * expected


def test_images_alternate_between_cameras():
    one = plan(pool_of((9,) * 10, (0,) * 10, (0,) * 10), pictures=3)
    for step in range(50):
        cameras = one.pool.cameras[one.batch(step)].reshape(4, 3)
        assert all(len(set(row)) == 3 for row in cameras)


def test_real_images_replace_missing_synthetic_ones():
    one = plan(pool_of((3,) * 10, (0,) * 10, (0,) * 10), synthetic=0.5)
    batch = one.batch(0).reshape(4, 4)
    assert all(len(set(group)) == 3 for group in batch)  # all three, and one repeated


@pytest.mark.parametrize("added", [0, 3])
def test_parts_divide_the_batch(added):
    one = plan(added=added)
    for parts in (1, 2):
        split = [one.batch(7)[one.part(n, parts)] for n in range(parts)]
        assert (np.concatenate(split) == one.batch(7)).all()
        people = [one.pool.labels[some] for some in split]
        assert sum(len(set(some)) for some in people) == 4  # whole identities
    with pytest.raises(ValueError, match="4 people cannot be shared by 3 processes"):
        one.part(0, 3)


def test_batches_differ_between_seeds_and_steps():
    batches = {tuple(plan(seed=seed).batch(step)) for seed in range(3) for step in range(30)}
    assert len(batches) == 90


def test_impossible_plans():
    with pytest.raises(ValueError, match="11 people cannot be drawn from 10 identities"):
        plan(people=11)
    single = pool_of((1,) * 10, (0,) * 10, (0,) * 10)
    with pytest.raises(ValueError, match="every identity has one image, but a batch takes 4"):
        plan(single)
    assert len(plan(single, pictures=1).batch(0)) == 4
    extended = pool_of((1,) * 10, (0,) * 10, (3,) * 10)
    with pytest.raises(ValueError, match="every identity has one image"):
        plan(extended, synthetic=0)
    assert extended.synthetic[plan(extended).batch(0)].sum() == 8
    with pytest.raises(ValueError, match="every identity has one image, but a batch takes 2"):
        plan(single, pictures=1, added=1)
    assert extended.synthetic[plan(extended, pictures=1, added=1, synthetic=0).batch(0)].sum() == 4
    for key, value in (
        ("synthetic", 0.6),
        ("until", 1.1),
        ("people", 0),
        ("pictures", 0),
        ("added", -1),
        ("steps", 0),
    ):
        with pytest.raises(ValueError, match=f"{key} must be in"):
            plan(**{key: value})
