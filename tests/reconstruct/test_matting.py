# SPDX-License-Identifier: Apache-2.0
"""Refined masks and rim colours, on drawn people whose outline and colours are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import matting
from viewsynth.reconstruct.parse import Parse

SHAPE, HEIGHT = (150, 80), 120.0
PERSON, OTHER = np.array([150.0, 60, 50]), np.array([90.0, 110, 130])
# (x, y) of the keypoints from the middle of the feet, person heights
STANDING = {
    **{"nose": (0.0, -0.93), "left_eye": (0.02, -0.95), "right_eye": (-0.02, -0.95)},
    **{"left_ear": (0.04, -0.94), "right_ear": (-0.04, -0.94)},
    **{"left_shoulder": (0.1, -0.82), "right_shoulder": (-0.1, -0.82)},
    **{"left_elbow": (0.12, -0.65), "right_elbow": (-0.12, -0.65)},
    **{"left_wrist": (0.12, -0.52), "right_wrist": (-0.12, -0.52)},
    **{"left_hip": (0.07, -0.52), "right_hip": (-0.07, -0.52)},
    **{"left_knee": (0.07, -0.28), "right_knee": (-0.07, -0.28)},
    **{"left_ankle": (0.07, -0.04), "right_ankle": (-0.07, -0.04)},
    **{"left_heel": (0.07, -0.01), "right_heel": (-0.07, -0.01)},
    **{"left_big_toe": (0.09, 0.0), "right_big_toe": (-0.09, 0.0)},
}


def person(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Exact alpha of a standing person and its keypoints; 8x8 samples per pixel."""
    points = np.array([STANDING[name] for name in KEYPOINTS], np.float32)
    points = points * HEIGHT + [SHAPE[1] / 2 + shift, 138]
    fine = (np.indices((SHAPE[0] * 8, SHAPE[1] * 8))[::-1] + 0.5) / 8
    x, y = (fine[0] - SHAPE[1] / 2 - shift) / HEIGHT, (fine[1] - 138) / HEIGHT
    head = np.hypot(x / 0.06, (y + 0.93) / 0.08) < 1
    trunk = (abs(x) < 0.15) & (y > -0.86) & (y < -0.45)
    legs = (abs(abs(x) - 0.07) < 0.05) & (y >= -0.5) & (y < 0.01)
    whole = (head | trunk | legs).astype(np.float32)
    return whole.reshape(SHAPE[0], 8, SHAPE[1], 8).mean((1, 3)), points


def painted(alpha: np.ndarray, noise: float = 3.0) -> np.ndarray:
    """An image of the person with some noise, uint8."""
    mean = alpha[..., None] * PERSON + (1 - alpha[..., None]) * OTHER
    mean = mean + np.random.default_rng(0).normal(0, noise, mean.shape)
    return mean.round().clip(0, 255).astype(np.uint8)


def parsed(soft: np.ndarray, points: np.ndarray, height: float = HEIGHT) -> Parse:
    count = len(KEYPOINTS)
    return Parse(
        points=points.astype(np.float32),
        length=np.zeros((count, 3), np.float32),
        spread=np.zeros(count, np.float32),
        mask=soft,
        soft=soft,
        presence=1.0,
        vote=1.0,
        front=True,
        height=height,
    )


def blurred(alpha: np.ndarray, sigma: float = 1.5) -> np.ndarray:
    return ndimage.gaussian_filter(alpha, sigma)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.5])
def test_a_wide_mask_is_drawn_back_to_the_outline_within_half_a_pixel(shift):
    alpha, points = person(shift)
    wide = blurred(ndimage.grey_dilation(alpha, (5, 5)))
    found = matting.refine(painted(alpha), parsed(wide, points))
    assert np.abs(wide - alpha).sum() > 4 * np.abs(found - alpha).sum()
    rows = slice(60, 80)  # the trunk: its width is known to a fraction of a pixel
    assert found[rows].sum(1).mean() == pytest.approx(alpha[rows].sum(1).mean(), abs=1.0)
    centres = [(a[rows] * np.arange(SHAPE[1])).sum() / a[rows].sum() for a in (found, alpha)]
    assert centres[0] == pytest.approx(centres[1], abs=0.15)


def test_the_gap_between_the_legs_opens_and_a_lost_foot_returns():
    alpha, points = person()
    soft = blurred(alpha)
    soft[75:137, 36:44] = np.maximum(soft[75:137, 36:44], 0.6)
    soft[130:, 40:] *= 0.4
    found = matting.refine(painted(alpha), parsed(soft, points))
    gap, foot = np.s_[95:135, 39:41], np.s_[130:137, 44:52]
    assert alpha[gap].max() == 0
    assert soft[gap].mean() > 0.5
    assert found[gap].mean() < 0.1
    assert found[foot].mean() > 0.9


def test_the_edge_is_one_pixel_wide():
    alpha, points = person()
    found = matting.refine(painted(alpha), parsed(blurred(alpha, 3), points))
    between = ((found > 0.02) & (found < 0.98)).sum()
    outline = ((found > 0.5) & ~ndimage.binary_erosion(found > 0.5)).sum()
    assert between < 1.6 * outline


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_a_good_mask_is_not_made_worse(sigma):
    alpha, points = person()
    soft = blurred(alpha, sigma)
    found = matting.refine(painted(alpha, 8), parsed(soft, points))
    assert iou(found > 0.5, alpha > 0.5) >= iou(soft > 0.5, alpha > 0.5) - 0.01


def test_without_contrast_the_mask_stays_as_it_was():
    alpha, points = person()
    image = np.full((*SHAPE, 3), 120, np.uint8)
    soft = blurred(alpha)
    found = matting.refine(image, parsed(soft, points))
    assert iou(found > 0.5, soft > 0.5) > 0.93


def test_another_person_is_not_taken_in():
    alpha, points = person(-12)
    both = painted(np.maximum(alpha, np.roll(alpha, 38, 1)))
    found = matting.refine(both, parsed(blurred(alpha), points))
    assert found[:, 62:].sum() < 0.02 * alpha.sum()
    assert iou(found > 0.5, alpha > 0.5) > 0.93


def test_the_same_input_gives_the_same_bytes():
    alpha, points = person()
    given = painted(alpha), parsed(blurred(alpha), points)
    assert matting.refine(*given).tobytes() == matting.refine(*given).tobytes()
    first, second = (matting.foreground_colours(given[0], alpha) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_the_place_of_the_person_in_the_crop_does_not_matter():
    alpha, points = person()
    image, soft = painted(alpha), blurred(alpha)
    found = matting.refine(image, parsed(soft, points))
    pad = ((20, 20), (40, 40))  # multiples of all cells of the colour counts
    wide = np.pad(image, (*pad, (0, 0)), mode="edge")
    moved = matting.refine(wide, parsed(np.pad(soft, pad), points + [40, 20]))
    assert np.abs(moved[20:-20, 40:-40] - found).mean() < 0.01


def masks() -> dict[str, np.ndarray]:
    """Priors that a pose model should not give, but might."""
    grid = np.indices(SHAPE).sum(0)
    empty, full = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    line, torn = empty.copy(), empty.copy()
    line[20:140, 40] = 1
    torn[grid % 17 < 5] = 1
    frame = full.copy()
    frame[:, 30:40] = 0
    speck = empty.copy()
    speck[70, 40] = 1
    half = np.full(SHAPE, 0.5, np.float32)
    broken = np.full(SHAPE, np.nan, np.float32)
    return {
        **{"empty": empty, "full": full, "line": line, "torn": torn, "frame": frame},
        **{"speck": speck, "half": half, "broken": broken},
    }


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("constant", [False, True])
def test_bad_masks_give_a_mask(name, constant):
    alpha, points = person()
    image = np.full((*SHAPE, 3), 255, np.uint8) if constant else painted(alpha)
    soft = masks()[name]
    for where in (points, np.full_like(points, np.nan), points * 1e4):
        found = matting.refine(image, parsed(soft, where))
        assert found.shape == SHAPE
        assert found.dtype == np.float32
        assert ((found >= 0) & (found <= 1)).all()
        colours = matting.foreground_colours(image, found)
        assert colours.shape == image.shape
        assert np.isfinite(colours).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9), st.floats(0.0, 500.0))
def test_any_size_is_accepted(height, width, seed, tall):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    soft = (rng.random((height, width)) > 0.3).astype(np.float32)
    points = rng.normal(20, 20, (len(KEYPOINTS), 2))
    found = matting.refine(image, parsed(soft, points, tall))
    assert found.shape == soft.shape
    assert np.isfinite(matting.foreground_colours(image, found)).all()


def test_rim_colours_are_those_of_the_person():
    alpha, _ = person(0.4)
    image = painted(alpha, 0)
    colours = matting.foreground_colours(image, alpha)
    rim = (alpha > 0.1) & (alpha < 0.9)
    assert np.abs(image[rim] - PERSON).mean() > 15
    assert np.abs(colours[rim] - PERSON).max() < 6
    assert np.abs(colours - PERSON).max() < 6  # also far outside
    inside = ndimage.binary_erosion(alpha == 1, iterations=4)
    assert np.abs(colours[inside] - image[inside]).max() < 1


def test_rim_colours_keep_the_pattern_of_clothes():
    alpha, _ = person()
    stripes = np.where((np.arange(SHAPE[0]) // 12 % 2)[:, None, None], PERSON, PERSON[::-1])
    mean = alpha[..., None] * stripes + (1 - alpha[..., None]) * OTHER
    colours = matting.foreground_colours(mean.round().astype(np.uint8), alpha)
    rim = (alpha > 0.05) & (alpha < 1)
    rim[[k for k in range(SHAPE[0]) if k % 12 in (0, 1, 2, 9, 10, 11)]] = False
    apart = np.abs(colours - stripes)[rim]
    assert apart.mean() < 6


def test_wrong_coefficients_are_an_error(tmp_path, monkeypatch):
    path = tmp_path / "matting.json"
    path.write_text('{"features": ["prior"], "weights": [[1.0]]}')
    monkeypatch.setattr(matting, "COEFFICIENTS", path)
    matting.coefficients.cache_clear()
    alpha, points = person()
    try:
        with pytest.raises(ValueError, match="fit it again"):
            matting.refine(painted(alpha), parsed(blurred(alpha), points))
    finally:
        matting.coefficients.cache_clear()


def test_the_prior_decides_where_it_is_alone():
    """A parse whose mask and prior differ is refined from the prior."""
    alpha, points = person()
    found = parsed(blurred(alpha), points)
    other = replace(found, mask=np.zeros_like(alpha))
    image = painted(alpha)
    assert np.array_equal(matting.refine(image, found), matting.refine(image, other))
