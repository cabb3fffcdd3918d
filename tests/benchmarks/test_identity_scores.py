# SPDX-License-Identifier: Apache-2.0
"""Scores of the identity benchmark; and its network, where openvino is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image


def units(rng, *shape: int) -> np.ndarray:
    values = rng.standard_normal(shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_scores_are_those_of_brute_force(scoring, people, seed):
    rng = np.random.default_rng(seed)
    gallery = units(rng, people, 5)
    queries = [units(rng, int(rng.integers(0, 4)), 5) for _ in range(people)]
    found = scoring.scores(queries, gallery)
    for person, own in enumerate(queries):
        values = []
        for query in own:
            cosine = [float(np.dot(query, one)) for one in gallery]
            order = sorted(range(people), key=lambda k: -cosine[k])
            others = [c for k, c in enumerate(cosine) if k != person]
            rank = order.index(person) + 1
            values.append((1 / rank, rank == 1, cosine[person] - np.mean(others)))
        wanted = np.mean(values, 0) if values else [np.nan] * 3
        np.testing.assert_allclose(found[person], wanted, atol=1e-6)


def test_people_count_alike_and_not_their_queries(scoring):
    gallery = np.eye(3, dtype=np.float32)
    queries = [np.repeat(gallery[:1], 9, 0), gallery[[2]], gallery[[2]]]
    found = scoring.scores(queries, gallery)  # the second is taken for the third
    np.testing.assert_allclose(found, [[1, 1, 1], [1 / 3, 0, -0.5], [1, 1, 1]])
    assert scoring.cells(found).startswith("0.778 [")


def test_equal_features_gain_nothing(scoring):
    same = np.ones((4, 1), np.float32)
    np.testing.assert_allclose(scoring.scores(list(same[:, None]), same), [[1 / 4, 0, 0]] * 4)


def test_a_share_is_paired_over_people(scoring):
    base = np.array([0.1, 0.5, 0.3, np.nan, 0.2])
    assert scoring.share(base, base) == (1, 1, 1)
    half, low, high = scoring.share(base / 2, base)
    assert (half, low) == pytest.approx((0.5, 0.5)) and high == pytest.approx(0.5)
    other = np.array([0.2, 0.1, np.nan, 9.0, 0.2])
    value, low, high = scoring.share(other, base)
    assert value == pytest.approx(0.5 / 0.8) and low < value < high
    assert scoring.share(other, base) == (value, low, high)  # the same resamples
    assert np.isnan(scoring.share(base, -base)).all()


def test_a_row_without_images_is_empty(scoring):
    nothing = np.full((3, 3), np.nan)
    assert scoring.cells(nothing, nothing) == "- | - | - | -"


# ---- network -------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path):
    """Writes an IR whose features are its input pixels: `network(name, shape)`."""
    openvino = pytest.importorskip("openvino")

    def write(name: str, *shapes: list[int]) -> Path:
        ops = openvino.opset13
        inputs = [ops.parameter(shape, np.float32) for shape in shapes]
        out = ops.concat([ops.reshape(one, [1, -1], False) for one in inputs], 1)
        openvino.save_model(openvino.Model([out], inputs, name), tmp_path / f"{name}.xml")
        return tmp_path / f"{name}.xml"

    return write


def test_features_are_those_of_bgr_and_mirror_images(scoring, network, ground):
    image = ground["0"][0]
    small = np.asarray(Image.fromarray(image).resize((4, 8), Image.Resampling.BILINEAR), float)
    both = (small + small[:, ::-1])[..., ::-1].transpose(2, 0, 1).ravel()
    wanted = np.concatenate([both / np.linalg.norm(both)] * 2) / np.sqrt(2)
    file = network("pixels", [1, 3, 8, 4])
    features = scoring.Network([file, file])
    np.testing.assert_allclose(features([image])[0], wanted, atol=1e-5)
    several = [own[0] for own in ground.values()]
    alone = np.concatenate([features([one]) for one in several])
    np.testing.assert_array_equal(features(several), alone)


def test_networks_that_cannot_be_used_are_refused(scoring, network, tmp_path):
    for files, message in (
        ([tmp_path / "none.xml"], "none.xml: there is no such file"),
        ([network("grey", [1, 1, 8, 4])], r"one input \[1,3,height,width\] .* got inputs \[1,1,8"),
        ([network("two", [1, 3, 8, 4], [1, 2])], "inputs .*, .* and outputs"),
    ):
        with pytest.raises(ValueError, match=message):
            scoring.Network(files)
    lost = network("lost", [1, 3, 8, 4])
    lost.with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match="lost.xml cannot be read .* .bin next to it"):
        scoring.Network([lost])
