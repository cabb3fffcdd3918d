# SPDX-License-Identifier: Apache-2.0
"""The preset: `generate` reads it back as it was; framing and shadows of the crops."""

import dataclasses

import numpy as np
import pytest
import tiny_crops

from viewsynth import config
from viewsynth.commands import generate
from viewsynth.commands import match as command
from viewsynth.match import preset
from viewsynth.match.crops import Crop
from viewsynth.match.estimate import Found
from viewsynth.match.measures import framing
from viewsynth.render.options import Scene, Sensor


def crops(count=20, tables=None) -> list[Crop]:
    made = []
    for number in range(count):
        mask = np.zeros((150, 100))
        mask[20 : 120 + number % 3, 30:70] = 1
        image = tiny_crops.board((150, 150, 150), seed=number)
        table = tables[number % len(tables)] if tables else None
        made.append(Crop(f"{number}", image, mask, framing(mask), {}, table))
    return made


def test_a_preset_is_read_back_as_it_was(tmp_path):
    sensor = Sensor(pixels=(80.0, 130.5), contrast=(1.31, 1.5), jpeg=(62.0, 71.0), chroma="4:4:4")
    scene = Scene(grounds=tmp_path / "drone_grounds", shadow=(0.41, 0.66), overcast=0.2)
    found = Found(sensor, {"contrast": 0.03}, {"contrast": 0.6})
    text = preset.comments(crops(), found, 3) + config.dump(command.Preset(sensor, scene))
    assert "20 aerial images" in text and "contrast          0.19      0.03" in text
    (tmp_path / "drone.yaml").write_text(text)
    read = config.parse(generate.Config, [str(tmp_path / "drone.yaml"), "--sensor.noise", "0.01"])
    assert read.sensor == dataclasses.replace(sensor, noise=0.01) and read.scene == scene
    assert (read.views, read.seed) == (generate.Config().views, 0)


def test_framing_and_tables_of_the_crops():
    start, fixed = preset.start(crops(tables=[(70, "4:2:0"), (80, "4:2:0"), (75, "4:4:4")]), 93)
    assert fixed == ["jpeg"] and start.jpeg == (70, 80) and start.chroma == "4:2:0"
    assert start.pixels == (100, 102)
    assert start.margin == pytest.approx((0.196, 0.3), abs=0.02)
    for tables in (None, [(98, "4:4:4")]):
        start, fixed = preset.start(crops(tables=tables), 93)
        assert fixed == [] and start.jpeg == Sensor().jpeg
    smaller = np.zeros((80, 40))
    smaller[10:61, 10:20] = 1
    assert preset.rescaled(start, crops(), [smaller]).pixels == pytest.approx((198, 202), abs=1)


def test_shadows_are_told_where_they_are_clear():
    plain = crops()
    assert preset.scene(plain, Sensor()) == Scene()
    dark = []
    for one in plain:
        image = one.image.copy()
        image[100:, 70:] = image[100:, 70:] // 2
        image[100:, :30] = image[100:, :30] // 2
        dark.append(dataclasses.replace(one, image=image))
    found = preset.scene(dark, Sensor(contrast=1.0))
    assert found.overcast == 0 and found.shadow == pytest.approx((0.5, 0.5), abs=0.04)
    steep = preset.scene(dark, Sensor(contrast=1.5))
    assert steep.shadow[1] < found.shadow[0]  # a steep tone curve makes shadows darker
