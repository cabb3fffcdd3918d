# SPDX-License-Identifier: Apache-2.0
"""The benchmark of colours: which garments have a true colour, and errors by a common gain."""

import copy

import numpy as np
import pytest

from viewsynth.metrics.colours import linear, srgb

PLAIN = {"fabric": {"kind": "plain", "colours": [[0.2, 0.3, 0.4]]}, "length": 0.6}
PERSON = {
    "skin": [0.6, 0.4, 0.3],
    "hair": {"kind": "short", "colour": [0.1, 0.1, 0.1]},
    "outfit": {
        "headwear": None,
        "outer": None,
        "top": PLAIN,
        "bottom": PLAIN,
        "shoes": {"fabric": {"kind": "leather", "colours": [[0.9, 0.9, 0.9], [0, 0, 0]]}},
    },
}


@pytest.fixture(scope="module")
def tone(benchmarks):
    return benchmarks("tone")


def changed(**outfit) -> dict:
    person = copy.deepcopy(PERSON)
    person["outfit"].update(outfit)
    return person


def test_true_colours_are_those_of_the_fabrics(tone):
    found = tone.true_colours(PERSON)
    assert set(found) == set(tone.PARTS)
    assert np.allclose(found["upper"], np.array([0.2, 0.3, 0.4]) * 255)
    assert np.allclose(found["shoes"], 0.9 * 255)


@pytest.mark.parametrize(
    ("person", "missing"),
    [
        (changed(headwear={"kind": "cap"}), {"hair"}),
        ({**PERSON, "hair": {"kind": "bald", "colour": [0, 0, 0]}}, {"hair"}),
        (changed(top={"fabric": {"kind": "stripes", "colours": [[0] * 3] * 2}}), {"upper"}),
        (changed(outer={**PLAIN, "open": 0.4}), {"upper"}),
        (changed(outer={**PLAIN, "length": 0.9}), {"lower"}),
        (changed(bottom=None), {"lower"}),
    ],
)
def test_parts_without_one_colour_do_not_count(tone, person, missing):
    assert set(tone.PARTS) - set(tone.true_colours(person)) == missing


def test_a_gain_of_linear_light_is_no_error(tone):
    true = np.array([120.0, 90.0, 60.0])
    dark = srgb(linear(true) / 2)
    rows = [("way", "1", "upper", dark, true)]
    assert tone.errors(rows, 2.0)[0] == pytest.approx(0, abs=0.05)
    assert tone.errors(rows, 1.0)[0] > 9
