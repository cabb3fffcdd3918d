# SPDX-License-Identifier: Apache-2.0
"""Sensor model: every step against a slow reference, ranges, and bad options."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from viewsynth.metrics import colours
from viewsynth.render import sensor
from viewsynth.render.options import CHIP, LENS, Sensor, span

OFF = Sensor(**LENS, **CHIP)
STEPS = sorted({**LENS, **CHIP})
DRAWN = Sensor(exposure=(-0.3, 0.3), blur=(0.4, 0.9), jpeg=(60.0, 90.0), margin=(0.0, 0.2))


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """Smooth patches with edges, far from black and white.  [3, 40, 30]"""
    rng = np.random.default_rng(0)
    patches = np.kron(rng.uniform(0.3, 0.7, (3, 5, 3)), np.ones((1, 8, 10)))
    return torch.from_numpy(patches + rng.uniform(-0.03, 0.03, patches.shape)).float()


def exposed(image: torch.Tensor, seed: int = 1, **values) -> np.ndarray:
    """The image with only the given steps, as shares of full scale.  [H, W, 3]"""
    return sensor.expose(image, dataclasses.replace(OFF, **values), seed) / 255


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).double().numpy()


def to_srgb(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def close(made: np.ndarray, expected: np.ndarray) -> bool:
    return np.abs(made - np.clip(expected, 0, 1)).max() <= 0.51 / 255 + 1e-5


def test_with_every_step_off_nothing_changes():
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    stored = sensor.expose(image, OFF, 0)
    assert (stored == (image * 255).round().permute(1, 2, 0).byte().numpy()).all()


def test_light_is_linear(image):
    light = colours.linear(pixels(image) * 255)
    made = exposed(image, exposure=0.5, warmth=0.1, tint=-0.05)
    assert close(made, to_srgb(light * 2**0.5 * [1.1, 0.95, 0.9]))


def test_haze_adds_the_mean_light(image):
    light = colours.linear(pixels(image) * 255)
    expected = 0.8 * light + 0.2 * (light.mean((0, 1)) + 0.1)
    assert close(exposed(image, haze=0.2), to_srgb(expected))


def test_the_lens_blurs_light(image):
    light = colours.linear(pixels(image) * 255)
    blurred = ndimage.gaussian_filter(light, (1.2, 1.2, 0), mode="nearest", radius=(4, 4, 0))
    assert close(exposed(image, blur=1.2), to_srgb(blurred))


def test_sharpening_is_an_unsharp_mask_with_a_limited_halo(image):
    grey = pixels(image) @ [0.299, 0.587, 0.114]
    detail = grey - ndimage.gaussian_filter(grey, 1.1, mode="nearest", radius=4)
    expected = pixels(image) + np.clip(1.5 * detail, -0.28, 0.22)[..., None]
    assert close(exposed(image, sharpening=1.5, halo=1.1), expected)
    overshoot = exposed(image, sharpening=1.5, halo=1.1).max() - pixels(image).max()
    assert overshoot > 0.03


def test_denoising_smooths_weak_detail_alone(image):
    grey = pixels(image) @ [0.299, 0.587, 0.114]
    detail = grey - ndimage.gaussian_filter(grey, 1.0, mode="nearest", radius=3)
    kept = np.minimum(np.abs(detail) / 0.04, 1)
    expected = pixels(image) + ((kept * 1.8 - 1) * detail).clip(-0.28, 0.22)[..., None]
    assert close(exposed(image, denoising=0.04, sharpening=0.8, halo=1.0), expected)


def test_contrast_turns_about_black_grey_and_white(image):
    value = pixels(image)
    expected = value**1.4 / (value**1.4 + (1 - value) ** 1.4)
    assert close(exposed(image, contrast=1.4), expected)
    fixed = torch.tensor([0.0, 0.5, 1.0]).expand(3, 1, 3)
    assert close(exposed(fixed, contrast=1.4), pixels(fixed))
    step = torch.tensor([0.49, 0.51]).expand(3, 1, 2)
    curve = sensor._toned(step, dataclasses.replace(OFF, contrast=1.4))
    assert float(curve[0, 0, 1] - curve[0, 0, 0]) / 0.02 == pytest.approx(1.4, rel=0.01)


def test_saturation_keeps_the_brightness(image):
    grey = (pixels(image) @ [0.299, 0.587, 0.114])[..., None]
    assert close(exposed(image, saturation=0.6), grey + 0.6 * (pixels(image) - grey))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_compression_is_that_of_the_file(image, subsampling):
    file = io.BytesIO()
    stored = Image.fromarray((pixels(image) * 255).round().astype(np.uint8))
    stored.save(file, "JPEG", quality=70, subsampling=subsampling)
    made = exposed(image, jpeg=70, chroma=subsampling)
    assert (made * 255 == np.asarray(Image.open(file))).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_noise_has_the_given_strength_at_middle_grey(seed):
    grey = torch.full((3, 200, 200), 0.5)
    luma = exposed(grey, seed, noise=0.03)
    assert abs(luma.mean() - 0.5) < 0.002
    assert luma.std() == pytest.approx(0.03, rel=0.1)
    assert np.ptp(luma, axis=2).max() <= 1 / 255, "noise of the brightness has no colour"
    both = exposed(grey, seed, chroma_noise=0.03)
    assert (both @ [0.299, 0.587, 0.114]).std() < 0.003, "noise of the colour has no brightness"
    assert 0.015 < both.std() < 0.04


def test_noise_grows_with_the_light():
    dark, bright = (
        colours.linear(255 * exposed(torch.full((3, 200, 200), value), noise=0.02)).std()
        for value in (0.3, 0.8)
    )
    assert dark < bright
    assert np.array_equal(exposed(torch.full((3, 9, 9), 0.5), 4, noise=0.1).shape, (9, 9, 3))


def test_noise_is_that_of_the_seed(image):
    one, again, other = (exposed(image, seed, noise=0.02) for seed in (3, 3, 4))
    assert (one == again).all()
    assert (one != other).any()


def test_light_and_lens_then_the_chip_are_the_whole(image):
    steps = {"sharpening": 1.2, "contrast": 1.2, "exposure": (0.1, 0.3)}
    whole = Sensor(noise=0.0, chroma_noise=0.0, jpeg=0.0, **steps)
    first = torch.from_numpy(sensor.expose(image, whole.without_chip(), 5)).permute(2, 0, 1) / 255
    parts = sensor.expose(first, whole.chip(), 5).astype(int)
    assert np.abs(parts - sensor.expose(image, whole, 5)).max() <= 5  # rounded in between


# ---- ranges and options --------------------------------------------------------------------------


@given(st.integers(0, 2**32))
def test_values_are_drawn_from_their_ranges(seed):
    drawn = DRAWN.draw(seed)
    for name, value in vars(DRAWN).items():
        if name not in ("margin", "distance", "chroma"):
            low, high = span(value)
            assert low <= getattr(drawn, name) <= high


def test_a_value_depends_on_its_own_range_alone():
    one = DRAWN.draw(7)
    other = dataclasses.replace(DRAWN, blur=0.0, pixels=(60.0, 90.0)).draw(7)
    changed = {name for name, value in vars(one).items() if value != getattr(other, name)}
    assert changed == {"blur", "pixels"}
    assert one.draw(8) == one, "single numbers are not drawn again"


@pytest.mark.parametrize("step", STEPS)
def test_every_step_does_something(image, step):
    value = {"jpeg": 60.0, "blur": 0.8, "contrast": 1.3, "saturation": 1.3}.get(step, 0.1)
    assert (exposed(image, **{step: value}) != exposed(image)).any()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pixels", 2),
        ("pixels", (100, 2000)),
        ("vfov", 0),
        ("blur", -1),
        ("blur", (0.9, 0.4)),
        ("noise", float("nan")),
        ("noise", (0.0, float("nan"))),
        ("jpeg", 101),
        ("jpeg", 3),
        ("jpeg", (0, 90)),
        ("distance", 0.5),
        ("picture_height", 10),
        ("margin", -0.5),
        ("contrast", 0),
        ("chroma", "4:1:0"),
    ],
)
def test_bad_options_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"sensor\.{field} must"):
        Sensor(**{field: value})


def test_a_camera_inside_the_person_is_refused():
    with pytest.raises(ValueError, match="lower sensor.pixels"):
        Sensor(pixels=1700, vfov=100).distance_to(1.7)


def test_blur_is_gaussian():
    image = torch.rand(1, 2, 15, 9, generator=torch.Generator().manual_seed(0))
    expected = ndimage.gaussian_filter(image[0, 1].numpy(), 1.2, mode="nearest", radius=4)
    assert np.allclose(sensor.gaussian(image, 1.2)[0, 1].numpy(), expected, atol=1e-5)
