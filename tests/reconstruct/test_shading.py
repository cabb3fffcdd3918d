# SPDX-License-Identifier: Apache-2.0
"""Shading of a photo: a person made of ellipses, lit from a known side."""

import numpy as np
import pytest

from viewsynth.metrics.colours import linear, srgb
from viewsynth.reconstruct import shading

SIZE = 96


@pytest.fixture(scope="module")
def person() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normals [H, W, 3], parts [H, W] and unlit light [H, W, 3] of four balls."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    normal, part = np.zeros((SIZE, SIZE, 3)), np.full((SIZE, SIZE), -1)
    rng = np.random.default_rng(0)
    light = np.full((SIZE, SIZE, 3), 0.2)
    for number, (y, x) in enumerate([(24, 24), (24, 72), (72, 24), (72, 72)]):
        across, down = (columns - x) / 20, (rows - y) / 20
        inside = across**2 + down**2 < 1
        depth = np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))
        normal[inside] = np.stack([across, down, -depth], -1)[inside]
        part[inside] = number
        cloth = rng.uniform(0.05, 0.5, 3)
        light[inside] = cloth * rng.uniform(0.9, 1.1, (int(inside.sum()), 1))
    return normal, part, light


def lit(light, normal, direction) -> np.ndarray:
    return srgb(light * np.exp(normal @ np.array(direction))[..., None]).round().astype(np.uint8)


@pytest.mark.parametrize("direction", [(0.3, 0, 0), (0, -0.35, 0), (-0.2, -0.25, 0.1)])
def test_the_direction_of_the_light_is_found(person, direction):
    normal, part, light = person
    found = shading.estimate(lit(light, normal, direction), normal, part)
    assert np.abs(found - direction).max() < 0.12
    assert found @ direction > 0.7 * np.dot(direction, direction)


def test_removing_it_brings_the_clothes_nearer_to_their_colours(person):
    normal, part, light = person
    image = lit(light, normal, (0.3, -0.3, 0))
    made, seen = shading.removed(image, normal, part), part >= 0

    def spread(pixels):
        grey = np.log(linear(pixels).mean(-1) + 0.01)
        return np.mean([grey[part == k].std() for k in range(4)])

    assert spread(made) < 0.6 * spread(image)
    before, after = linear(image)[seen].mean(), linear(made)[seen].mean()
    assert abs(after / before - 1) < 0.06


def test_prints_and_bags_are_not_taken_for_light(person):
    """One part that is lighter on one side says nothing about the others."""
    normal, part, light = person
    light = light.copy()
    light[(part == 0) & (normal[..., 0] > 0)] *= 4
    image = lit(light, normal, (0, 0, 0))
    assert np.abs(shading.estimate(image, normal, part)).max() < 0.1


def test_without_a_person_nothing_changes(person):
    normal, part, light = person
    image = lit(light, normal, (0.3, 0, 0))
    assert shading.removed(image, normal, np.full_like(part, -1)) is image
    few = np.where(part == 0, part, -1)
    assert (shading.estimate(image, normal, few) == 0).all()
