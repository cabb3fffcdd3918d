# SPDX-License-Identifier: Apache-2.0
"""A crop of another person among those of one person is rejected; correct ones are kept."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import ResNetConfig, ResNetModel

from viewsynth import reconstruct
from viewsynth.commands import generate
from viewsynth.generate import chunk
from viewsynth.generate.worker import Job
from viewsynth.reconstruct import foreign
from viewsynth.reconstruct.parse import parse
from viewsynth.records import Sample
from viewsynth.reid import likeness
from viewsynth.world import shots

SIDE = shots.SimpleShot(name="side", elevation=6, azimuth=100, platform="cctv", camid="c2")
# The checks were fitted to revision 1, whose people 0, 9 and 14 wear different clothes.
VIEWS = tuple(dataclasses.replace(shot, revision=1) for shot in (*shots.SHOTS, SIDE))


@pytest.fixture(scope="module")
def rendered() -> list[list[shots.RenderedShot]]:
    """Three crops of each of three people, who wear different clothes."""
    return [shots.render(1, seed=6, shots=VIEWS, first=number) for number in (0, 9, 14)]


@pytest.fixture(scope="module")
def looks(rendered, pose_model) -> list[list[foreign.Appearance]]:
    return [
        [foreign.appearance(p.image, parse(p.image, pose_model)) for p in some] for some in rendered
    ]


def test_the_foreign_one_of_three_stands_alone(looks):
    for number, own in enumerate(looks):
        other = looks[(number + 1) % len(looks)][0]
        for place in range(3):
            some = [*own[:place], other, *own[place + 1 :]]
            found = foreign.groups(foreign.log_odds(some))
            assert found == [[k for k in range(3) if k != place], [place]], (number, place)


def test_correct_crops_stay_together(looks):
    for own in looks:
        for some in (own, own[:2], own[1:], own[::2]):
            assert len(foreign.groups(foreign.log_odds(some))) == 1


def test_ties_form_separate_groups(looks):
    two = foreign.groups(foreign.log_odds([*looks[0][:2], *looks[2][:2]]))
    three = foreign.groups(foreign.log_odds([some[0] for some in looks]))
    assert two == [[0, 1], [2, 3]] and three == [[0], [1], [2]]


def test_odds_are_symmetric_and_independent_of_other_crops(looks):
    every = [look for some in looks for look in some]
    odds = foreign.log_odds(every)
    assert np.array_equal(odds, odds.T) and not odds.diagonal().any()
    part = foreign.log_odds(every[3:6])
    assert np.array_equal(part, odds[3:6, 3:6])


def test_exposure_changes_the_odds_less_than_another_person(rendered, pose_model, looks):
    image = rendered[0][0].image
    darker = (image * 0.7).astype(np.uint8)
    same = foreign.log_odds([looks[0][0], foreign.appearance(darker, parse(darker, pose_model))])[
        0, 1
    ]
    others = foreign.log_odds([some[0] for some in looks])[0, 1:]
    assert same > others.max()


def test_invisible_parts_give_finite_odds(looks):
    look = looks[0][0]
    blind = foreign.Appearance(
        np.full_like(look.colours, np.nan), look.spread * 0, look.front, look.sure
    )
    values = foreign.features(look, blind)
    assert np.isfinite(values).all() and np.isfinite(foreign.log_odds([look, blind])).all()


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_every_crop_is_in_one_group(count, seed):
    odds = np.random.default_rng(seed).normal(0, 3, (count, count))
    found = foreign.groups((odds + odds.T) / 2)
    assert sorted(k for group in found for k in group) == list(range(count))
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)


def test_of_equally_large_groups_the_best_is_kept():
    pairs = np.full((5, 5), -9.0)
    pairs[0, 1] = pairs[1, 0] = pairs[2, 3] = pairs[3, 2] = 9.0
    choice = foreign.decide(pairs, [60, 60, 60, 90, 200])
    assert choice == foreign.Choice([2, 3], [0, 1, 4], True)
    assert foreign.decide(pairs[:3, :3], [60, 60, 200]) == foreign.Choice([0, 1], [2], False)
    assert foreign.decide(np.zeros((1, 1)), [5]) == foreign.Choice([0], [], False)


# ---- in the reconstruction -----------------------------------------------------------------------


def samples(tmp_path, names: list[str], pid: str = "p") -> list[Sample]:
    return [Sample(paths=(tmp_path / name,), pid=pid, name=name) for name in names]


def test_a_foreign_crop_affects_neither_shape_nor_texture(tmp_path, rendered, tools):
    right = [rendered[0][k].image for k in (0, 1)]
    names = ["front", "back", "other"]
    with_other = reconstruct.reconstruct(
        [samples(tmp_path, names)], [[*right, rendered[2][0].image]], tools
    )[0]
    alone = reconstruct.reconstruct([samples(tmp_path, names[:2])], [right], tools)[0]
    (reject,) = with_other.rejects
    assert (reject.source, reject.stage) == ("other", "compare") and "'p'" in reject.reason
    assert np.array_equal(with_other.person.texture, alone.person.texture)
    assert np.array_equal(with_other.person.shape, alone.person.shape)


def test_two_strangers_are_flagged_and_not_fused(tmp_path, rendered, tools):
    images = [rendered[0][0].image, rendered[2][1].image]
    outcome = reconstruct.reconstruct([samples(tmp_path, ["a", "b"])], [images], tools)[0]
    assert "mixed" in outcome.person.quality["flags"] and outcome.person.quality["crops"] == 1
    (reject,) = outcome.rejects
    used = outcome.person.sources[0]["file"]
    assert {reject.source, used} == {"a", "b"} and used in reject.reason


def test_log_odds_of_the_caller_are_added(tmp_path, rendered, tools):
    images = [rendered[0][k].image for k in range(3)]
    asked = []

    def nobody_alike(images, owners):
        asked.append((len(images), owners))
        return np.full((len(images),) * 2, -50.0)

    people = [samples(tmp_path, ["a", "b", "c"])]
    outcome = reconstruct.reconstruct(people, [images], tools, alike=nobody_alike)[0]
    assert asked == [(3, [0, 0, 0])] and "mixed" in outcome.person.quality["flags"]


def test_an_implausible_elevation_is_estimated_and_flagged(tmp_path, rendered, tools):
    (sample,), image = samples(tmp_path, ["a"]), rendered[0][0].image
    given = {
        e: reconstruct.reconstruct(
            [[Sample(paths=sample.paths, pid="p", name="a", elevation=e)]], [[image]], tools
        )[0].person
        for e in (None, 5.0, 65.0, -52.0)
    }
    for wrong in (65.0, -52.0):
        assert "elevation" in given[wrong].quality["flags"]
        (source,) = given[wrong].sources
        assert source["elevation_given"] == wrong
        assert source["elevation"] == given[None].sources[0]["elevation"]
        assert np.array_equal(given[wrong].texture, given[None].texture)
    assert "elevation" not in given[5.0].quality["flags"]


# ---- by a ReID model -----------------------------------------------------------------------------


def cosines(owners: np.ndarray, faces: np.ndarray, seed: int = 0) -> np.ndarray:
    """Cosines of features of the people `faces`, labelled as `owners`."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(faces.max() + 1, 32))
    rows = centre[faces] + 0.5 * rng.normal(size=(len(faces), 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_odds_reveal_the_foreign_crop():
    owners = np.repeat(np.arange(6), 3)
    faces = owners.copy()
    faces[4] = 5  # labelled as person 1, shows person 5
    odds = likeness.odds(cosines(owners, faces), owners)
    assert odds[3, 5] > 2 and odds[4, 3] < -2 and odds[4, 5] < -2 and odds[4, 15] > 2
    assert np.array_equal(odds, odds.T) and np.abs(odds).max() <= likeness.LARGEST


def test_odds_are_zero_for_too_few_crops_or_a_useless_model():
    two = np.array([0, 0, 1])
    assert not likeness.odds(cosines(two, two), two).any()
    owners = np.repeat(np.arange(6), 3)
    blind = np.full((18, 18), 0.9)
    assert not likeness.odds(blind, owners).any()


def test_the_model_of_a_user_is_loaded_by_the_workers(tmp_path, rendered):
    small = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])
    torch.manual_seed(0)
    ResNetModel(small).save_pretrained(tmp_path / "reid")
    given = generate.Weights(identity=str(tmp_path / "reid"))
    models, revisions, _ = generate.models_of(generate.Config(weights=given))
    assert models["identity"] == given.identity and len(revisions["identity"]) == 64
    job = Job(tmp_path, tmp_path, generate.Config(weights=given), "cpu", models, revisions, {})
    alike = chunk.load_tools(job).alike
    images = [p.image for some in rendered for p in some for _ in range(2)]
    owners = np.repeat(np.arange(3), 6).tolist()
    odds = alike(images, owners)
    assert odds.shape == (18, 18) and np.allclose(odds, odds.T) and not odds.diagonal().any()
    assert odds[0, 1] == odds[0].max() > 0  # the same image twice
    missing = generate.Config(weights=generate.Weights(identity=str(tmp_path / "none")))
    with pytest.raises(FileNotFoundError, match="none"):
        generate.models_of(missing)


def test_another_camera_is_not_taken_for_another_person():
    owners = np.repeat(np.arange(8), 3)
    rng = np.random.default_rng(0)
    same = owners[:, None] == owners
    table = np.where(same, 0.95 + 0.01 * rng.normal(size=same.shape), 0.45)
    table += np.where(same, 0, 0.1 * rng.normal(size=same.shape))
    table[0, 1:3] = table[1:3, 0] = 0.78
    odds = likeness.odds((table + table.T) / 2, owners)
    assert odds[0, 1] > 0 and odds[0, 2] > 0 and odds[0, 3:].max() < odds[0, 1]


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_odds_grow_with_the_cosine(a, b):
    owners = np.repeat(np.arange(6), 3)
    table, low, high = cosines(owners, owners), *sorted((a, b))
    found = []
    for value in (low, high):
        changed = table.copy()
        changed[0, 17] = changed[17, 0] = value
        found.append(likeness.odds(changed, owners)[0, 17])
    assert found[0] <= found[1] + 0.3  # the pair itself moves the quartiles a little
