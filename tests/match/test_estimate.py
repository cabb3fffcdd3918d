# SPDX-License-Identifier: Apache-2.0
"""A sensor of known values is found again from its own images of other people."""

import dataclasses

import numpy as np
import pytest
import tiny_crops

from viewsynth.match import estimate, measures
from viewsynth.render.options import Sensor, span

TRUTH = Sensor(
    exposure=(-0.1, 0.2),
    haze=(0.02, 0.05),
    blur=(0.7, 0.9),
    noise=(0.008, 0.014),
    chroma_noise=(0.004, 0.008),
    denoising=0.005,
    sharpening=(1.2, 1.8),
    halo=(1.1, 1.3),
    contrast=(1.25, 1.45),
    saturation=(1.1, 1.3),
    warmth=(0.02, 0.06),
    tint=(-0.01, 0.02),
    jpeg=(65.0, 80.0),
)
# Largest distance of the middle of a range from the truth; haze hides part of the contrast.
TOLERANCE = {
    **{"exposure": 0.25, "blur": 0.25, "noise": 0.006, "chroma_noise": 0.006},
    **{"sharpening": 1.0, "contrast": 0.35, "saturation": 0.3, "warmth": 0.05, "jpeg": 15.0},
}


@pytest.fixture(scope="module")
def kit():
    """Clean images, figures of filmed ones, and the estimate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "SIMULATED", 480)
        patch.setattr(estimate, "MATCHED", 32)
        clean = tiny_crops.clean(0, 8, 4)
        figures = [one.figures for one in tiny_crops.filmed(TRUTH, tiny_crops.clean(8, 16, 4))]
        found = estimate.estimate(figures, clean, Sensor(), seed=3)
        moved = estimate.corrected(found, figures, clean, seed=3)
    return clean, figures, found, moved


@pytest.mark.parametrize("name", TOLERANCE)
def test_known_values_are_found(kit, name):
    low, high = span(getattr(kit[2].sensor, name))
    truth = sum(span(getattr(TRUTH, name))) / 2
    assert abs((low + high) / 2 - truth) <= TOLERANCE[name], (low, high, truth)
    assert low <= high <= low + 1.0 * np.ptp(estimate.PRIOR[name])


def test_the_order_of_the_images_does_not_matter(kit, monkeypatch):
    monkeypatch.setattr(estimate, "SIMULATED", 40)
    clean, figures = kit[:2]
    one, other = (
        estimate.estimate(some, clean, Sensor(), seed=3) for some in (figures, figures[::-1])
    )
    assert one != other and one.sensor == other.sensor


def test_the_look_agrees_after_the_last_steps(kit):
    clean, figures, _, moved = kit
    made = estimate.look(moved.sensor, clean, 3)
    aim = [np.median([row[f"aim.{key}"] for row in figures]) for key in measures.AIMS]
    for key, one, other in zip(measures.AIMS, made, aim, strict=True):
        assert abs(one - other) <= max(0.1 * other, 3.0), (key, one, other)


def test_known_values_stay(kit, monkeypatch):
    monkeypatch.setattr(estimate, "SIMULATED", 200)
    start = Sensor(jpeg=(70.0, 72.0))
    found = estimate.estimate(kit[1], kit[0], start, ["jpeg"])
    assert found.sensor.jpeg == (70.0, 72.0) and "jpeg" not in found.error


def test_sharpening_below_none_is_blur():
    one = Sensor(sharpening=(0.2, 0.4), blur=(0.5, 0.6))
    soft = estimate.move(one, "sharpening", -1.0)
    assert soft.sharpening == (0, 0) and soft.blur[0] > 0.6
    more = estimate.move(one, "sharpening", 0.5)
    assert more == dataclasses.replace(one, sharpening=(0.7, 0.9))


def test_too_little_is_refused(kit):
    with pytest.raises(ValueError, match="at least 4 people, got 1 crops and 1 people"):
        estimate.estimate(kit[1][:1], kit[0][:2], Sensor())
