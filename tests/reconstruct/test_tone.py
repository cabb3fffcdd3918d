# SPDX-License-Identifier: Apache-2.0
"""Tone: crops of one person whose exposure, haze and colours are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from viewsynth.metrics.colours import delta_e, lab, linear, srgb
from viewsynth.reconstruct import tone
from viewsynth.reconstruct.texture import GROUPS, Paint

PART = np.repeat(np.arange(len(GROUPS) + 1), 100)
ATLAS = SimpleNamespace(part=PART)
TORSO, SLEEVE, THIGH, HAIR = 2, 3, 6, len(GROUPS)
rng = np.random.default_rng(0)
CLOTHES = rng.uniform(30, 200, (len(GROUPS) + 1, 3))
CLOTHES[SLEEVE] = CLOTHES[TORSO]


def crop(clothes=CLOTHES, gain=1.0, haze=0.0, weight=1.0) -> tuple[Paint, np.ndarray]:
    """A paint and its crop: all parts, before a background from black to white."""
    light = linear(clothes[PART]) * gain * (1 - haze) + haze
    background = linear(np.tile(np.linspace(0, 255, 400)[:, None], 3)) * gain * (1 - haze) + haze
    pixels = srgb(np.concatenate([light, background])).round()
    paint = Paint(pixels[: len(PART)].astype(np.float32), np.full(len(PART), weight, np.float32))
    return paint, pixels.reshape(-1, 20, 3).astype(np.uint8)


def toned(*crops, exposures=None) -> list[np.ndarray]:
    """Colour of every part in each crop after the tones.  [P, 3] each"""
    paints, images = zip(*crops, strict=True)
    exposures = exposures or [0.0] * len(crops)
    found = tone.tones(paints, images, ATLAS, [1.0] * len(crops), exposures)
    return [
        np.stack([np.median(one(p.colour, PART)[k == PART], 0) for k in range(len(CLOTHES))])
        for one, p in zip(found, paints, strict=True)
    ]


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return delta_e(lab(one), lab(other))


@pytest.mark.parametrize("gain", [0.4, 0.7])
def test_exposures_are_brought_together(gain):
    first, second = crop(), crop(gain=gain)
    assert apart(first[0].colour, second[0].colour).mean() > 7
    made = toned(first, second)
    assert apart(*made).max() < 2


def test_a_known_exposure_is_taken_out():
    dark = crop(gain=2**-1.5)
    [right], [unknown], [known] = toned(crop()), toned(dark), toned(dark, exposures=[-1.5])
    assert apart(known, right).max() < 2 < 5 < apart(unknown, right).min()
    # Whatever is said of each crop, they agree, and the tone lies between.
    one, other = toned(dark, dark, exposures=[-1.5, -1.0])
    assert apart(one, other).max() < 2
    assert (one < right + 1).all() and (one > toned(dark, exposures=[-1.0])[0] - 1).all()


def test_haze_is_taken_out_in_part():
    clear, hazy = crop(), crop(haze=0.1)
    before, after = apart(clear[0].colour, hazy[0].colour), apart(*toned(clear, hazy))
    assert after.max() < 3 < 0.4 * before.mean()
    [alone], [true] = toned(hazy), toned(clear)
    dark = CLOTHES.mean(1).argsort()[:3]
    assert apart(alone, true)[dark].mean() < 0.7 * before.reshape(len(CLOTHES), -1)[dark].mean()


def test_a_bag_keeps_its_colour():
    carried = CLOTHES.copy()
    carried[TORSO] = 20, 20, 25
    bright = CLOTHES.copy()
    bright[[TORSO, SLEEVE]] = 210, 200, 190
    carried[SLEEVE] = bright[SLEEVE]
    front, back = toned(crop(bright), crop(carried, gain=0.7))
    assert apart(front, back)[TORSO] > 40
    assert apart(front, back)[[SLEEVE, THIGH, HAIR]].max() < 2


def test_a_clipped_shirt_takes_the_tone_of_the_crop_that_shows_it():
    shirt = CLOTHES.copy()
    shirt[[TORSO, SLEEVE]] = 170, 175, 205
    over, under = crop(shirt, gain=2.6), crop(shirt, gain=0.8)
    assert over[0].colour[PART == TORSO].max() == 255
    front, back = toned(over, under)
    assert apart(front, back)[[TORSO, SLEEVE]].max() < 6
    assert np.ptp(back[TORSO]) > 15  # still blue: white did not win


def test_hair_looks_alike_from_all_sides():
    other = CLOTHES.copy()
    other[HAIR] = CLOTHES[HAIR] * 0.3
    before = apart(CLOTHES, other)[HAIR]
    assert apart(*toned(crop(), crop(other)))[HAIR] < 0.4 * before and before > 10


def test_crops_that_share_nothing_or_show_nothing():
    first, second = crop(), crop(gain=0.5)
    upper, lower = first[0].weight.copy(), second[0].weight.copy()
    upper[PART > SLEEVE], lower[PART <= SLEEVE] = 0, 0
    halves = (Paint(first[0].colour, upper), first[1]), (Paint(second[0].colour, lower), second[1])
    black = Paint(np.zeros((len(PART), 3), np.float32), np.zeros(len(PART), np.float32))
    for crops in (halves, (first, (black, np.zeros((9, 9, 3), np.uint8)))):
        made = toned(*crops)
        assert all(np.isfinite(one).all() and one.min() >= 0 and one.max() <= 255 for one in made)
