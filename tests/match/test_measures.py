# SPDX-License-Identifier: Apache-2.0
"""Figures of a crop: each follows what it is named after, and the files' own tables are read."""

import dataclasses
import io

import numpy as np
import pytest
import tiny_crops
from PIL import Image

from viewsynth.match import measures
from viewsynth.metrics import colours
from viewsynth.render.options import CHIP, LENS, Sensor
from viewsynth.render.sensor import expose

OFF = Sensor(**LENS, **CHIP)


def mean(figure: str, **values) -> float:
    """Mean of a figure over images with these values of the sensor, all others off."""
    some = tiny_crops.clean(0, 6, 2)
    sensor = dataclasses.replace(OFF, **values)
    return float(
        np.mean(
            [
                measures.measure(expose(c.image, sensor, k), c.mask)[figure]
                for k, c in enumerate(some)
            ]
        )
    )


@pytest.mark.parametrize(
    ("figure", "less", "more"),
    [
        ("power6", {"blur": 1.2}, {"blur": 0.3}),
        ("edge.light1", {"sharpening": 0.0}, {"sharpening": 3.0, "halo": 1.0}),
        ("noise.fine", {"noise": 0.005}, {"noise": 0.02}),
        ("noise.red", {"chroma_noise": 0.005}, {"chroma_noise": 0.02}),
        ("person.chroma", {"saturation": 0.6}, {"saturation": 1.4}),
        ("person.b", {"warmth": -0.05}, {"warmth": 0.05}),
        ("look.range", {"contrast": 0.9}, {"contrast": 1.6}),
        ("look.lightness", {"exposure": -0.3}, {"exposure": 0.3}),
        ("person.light2", {"haze": 0.0}, {"haze": 0.15}),
    ],
)
def test_a_figure_follows_its_value(figure, less, more):
    assert mean(figure, **less) < mean(figure, **more)


def test_the_look_of_a_plain_image_is_known():
    image = np.full((40, 20, 3), (90, 120, 150), np.uint8)
    light, a, b = colours.lab(image[0, 0])
    found = measures.look(image)
    assert list(found.values()) == pytest.approx([light, 0, np.hypot(a, b), 0], abs=1e-6)


def test_framing_is_exact():
    mask = np.zeros((100, 60))
    mask[10:90, 20:45] = 1
    found = measures.framing(mask)
    assert [found[k] for k in ("height", "width", "tall", "wide")] == [100, 60, 80, 25]
    assert [found[k] * 80 for k in ("left", "top", "right", "bottom")] == [20, 10, 15, 10]
    assert measures.framing(np.zeros((100, 60))) == {}


@pytest.mark.parametrize("quality", [35, 60, 85, 97])
@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:2", "4:2:0"])
def test_compression_is_read_from_the_file(quality, chroma):
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "JPEG", quality=quality, subsampling=chroma)
    assert measures.compression(file.getvalue()) == (quality, chroma)


def test_other_files_have_no_compression():
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    assert measures.compression(file.getvalue()) is None
    assert measures.compression(b"no image") is None


@pytest.mark.parametrize("size", [(16, 8), (33, 90), (300, 200)])
def test_all_figures_are_finite(size):
    rng = np.random.default_rng(1)
    for image in (rng.integers(0, 256, (*size, 3), np.uint8), np.zeros((*size, 3), np.uint8)):
        for mask in (np.zeros(size), np.ones(size), rng.random(size)):
            found = measures.measure(image, mask)
            assert all(np.isfinite(value) for value in found.values())
            assert list(found) == list(measures.measure(image[:, ::-1], mask))
