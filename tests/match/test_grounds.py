# SPDX-License-Identifier: Apache-2.0
"""Textures of the ground: they repeat, keep the ground's tone, and show no person."""

import dataclasses
import io

import numpy as np
import pytest
import tiny_crops
from PIL import Image

from viewsynth.match import grounds
from viewsynth.match.crops import Crop
from viewsynth.match.measures import framing
from viewsynth.render.grounds import load
from viewsynth.render.options import CHIP, LENS, Scene, Sensor

OFF = Sensor(**LENS, **CHIP)


def crop(number: int, ground=(120, 118, 110), passer: bool = False) -> Crop:
    """A red person on a grey ground, and perhaps a second one whom the mask leaves out."""
    image, mask = tiny_crops.board(ground, seed=number), np.zeros((150, 100))
    mask[30:120, 35:65] = 1
    image[mask > 0] = (220, 20, 30)
    if passer:
        image[5:60, 80:96] = (220, 20, 30)
    return Crop(f"{number}", image, mask, framing(mask), {}, None, 60.0)


@pytest.mark.parametrize("passer", [False, True])
def test_no_texture_shows_a_person(passer):
    made = grounds.textures([crop(k, passer=passer) for k in range(4)], OFF, 2, 0)
    assert len(made) == 2
    for texture, density in made:
        assert texture.shape == (grounds.SIDE, grounds.SIDE, 3) and texture.dtype == np.uint8
        red = texture[..., 0].astype(int) - texture[..., 1]
        assert red.max() < 40, "grey ground only"
        assert np.abs(texture.mean((0, 1)) - (120, 118, 110)).max() < 6
        assert density == pytest.approx(90 / grounds.PERSON)


def test_free_ground_is_away_from_the_person():
    one = crop(0)
    allowed = grounds.free(one.mask)
    rows, columns = np.nonzero(allowed)
    apart = np.maximum(np.maximum(30 - rows, rows - 119), np.maximum(35 - columns, columns - 64))
    assert apart.min() >= 5 and allowed.mean() > 0.2
    assert not grounds.free(np.zeros((40, 40))).any()


def test_a_texture_repeats_without_a_seam():
    rng = np.random.default_rng(0)
    wave = 100 + 60 * np.sin(np.arange(60)[:, None] / 4) + rng.normal(0, 4, (60, 60))
    source = grounds.blocks(
        np.repeat(wave[..., None], 3, 2).astype(np.uint8), np.ones((60, 60), bool)
    )
    texture = grounds.quilt(source, 1, 64)[..., 0]
    assert texture.shape == (64, 64)
    for axis in (0, 1):
        steps = np.abs(np.diff(texture, axis=axis, append=texture.take([0], axis))).mean(1 - axis)
        assert steps[-1] < 2.0 * steps[:-1].mean() + 2


def test_the_tone_of_a_sensor_is_taken_out():
    from viewsynth.render.sensor import expose

    sensor = dataclasses.replace(
        OFF, contrast=1.5, saturation=1.3, exposure=0.3, warmth=0.05, tint=-0.02
    )
    before = tiny_crops.board((130, 110, 90), 5)
    import torch

    image = torch.from_numpy(before).permute(2, 0, 1).float() / 255
    after = expose(image, sensor, 0)
    assert np.abs(after.astype(int) - before).mean() > 10
    assert np.abs(grounds.undeveloped(after, sensor).astype(int) - before).mean() < 1.5


def test_a_texture_keeps_its_scale_in_its_file(tmp_path):
    texture = np.full((64, 64, 3), 90, np.uint8)
    data = grounds.png(texture, 73.0)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), texture)
    (tmp_path / "00.png").write_bytes(data)
    [found] = load(Scene(grounds=tmp_path))
    assert found.density == pytest.approx(73, abs=1)


def test_order_does_not_matter_and_too_little_ground_makes_none():
    some = [crop(k, ground=(100 + 5 * k,) * 3) for k in range(5)]
    one, other = (grounds.textures(rows, OFF, 2, 0) for rows in (some, some[::-1]))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(one, other, strict=True))
    narrow = dataclasses.replace(
        some[0], image=some[0].image[28:122, 34:66], mask=some[0].mask[28:122, 34:66]
    )
    assert grounds.textures([narrow], OFF, 2, 0) == []
