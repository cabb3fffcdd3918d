# SPDX-License-Identifier: Apache-2.0
"""Metrics of images, colours and intervals against published values and direct definitions."""

from __future__ import annotations

import numpy as np
import pytest

from viewsynth import metrics

# Lab 1, Lab 2, CIEDE2000: Sharma, Wu and Dalal 2005, table 1.
SHARMA = """
 50.0000   2.6772 -79.7751  50.0000   0.0000 -82.7485   2.0425
 50.0000   3.1571 -77.2803  50.0000   0.0000 -82.7485   2.8615
 50.0000   2.8361 -74.0200  50.0000   0.0000 -82.7485   3.4412
 50.0000  -1.3802 -84.2814  50.0000   0.0000 -82.7485   1.0000
 50.0000  -1.1848 -84.8006  50.0000   0.0000 -82.7485   1.0000
 50.0000  -0.9009 -85.5211  50.0000   0.0000 -82.7485   1.0000
 50.0000   0.0000   0.0000  50.0000  -1.0000   2.0000   2.3669
 50.0000  -1.0000   2.0000  50.0000   0.0000   0.0000   2.3669
 50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0009   7.1792
 50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0010   7.1792
 50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0011   7.2195
 50.0000   2.4900  -0.0010  50.0000  -2.4900   0.0012   7.2195
 50.0000  -0.0010   2.4900  50.0000   0.0009  -2.4900   4.8045
 50.0000  -0.0010   2.4900  50.0000   0.0010  -2.4900   4.8045
 50.0000  -0.0010   2.4900  50.0000   0.0011  -2.4900   4.7461
 50.0000   2.5000   0.0000  50.0000   0.0000  -2.5000   4.3065
 50.0000   2.5000   0.0000  73.0000  25.0000 -18.0000  27.1492
 50.0000   2.5000   0.0000  61.0000  -5.0000  29.0000  22.8977
 50.0000   2.5000   0.0000  56.0000 -27.0000  -3.0000  31.9030
 50.0000   2.5000   0.0000  58.0000  24.0000  15.0000  19.4535
 50.0000   2.5000   0.0000  50.0000   3.1736   0.5854   1.0000
 50.0000   2.5000   0.0000  50.0000   3.2972   0.0000   1.0000
 50.0000   2.5000   0.0000  50.0000   1.8634   0.5757   1.0000
 50.0000   2.5000   0.0000  50.0000   3.2592   0.3350   1.0000
 60.2574 -34.0099  36.2677  60.4626 -34.1751  39.4387   1.2644
 63.0109 -31.0961  -5.8663  62.8187 -29.7946  -4.0864   1.2630
 61.2901   3.7196  -5.3901  61.4292   2.2480  -4.9620   1.8731
 35.0831 -44.1164   3.7933  35.0232 -40.0716   1.5901   1.8645
 22.7233  20.0904 -46.6940  23.0331  14.9730 -42.5619   2.0373
 36.4612  47.8580  18.3852  36.2715  50.5065  21.2231   1.4146
 90.8027  -2.0831   1.4410  91.1528  -1.6435   0.0447   1.4441
 90.9257  -0.5406  -0.9208  88.6381  -0.8985  -0.7239   1.5381
  6.7747  -0.2908  -2.4247   5.8714  -0.0985  -2.2286   0.6377
  2.0776   0.0795  -1.1350   0.9033  -0.0636  -0.5514   0.9082
"""
SHARMA = np.array(SHARMA.split(), np.float64).reshape(-1, 7)


def test_delta_e_gives_the_published_pairs_both_ways():
    one, other, expected = SHARMA[:, :3], SHARMA[:, 3:6], SHARMA[:, 6]
    assert len(SHARMA) == 34
    assert np.allclose(metrics.delta_e(one, other), expected, atol=1e-4)
    assert np.allclose(metrics.delta_e(other, one), expected, atol=1e-4)


def test_lab_of_known_colours():
    known = {
        (255, 255, 255): (100, 0, 0),
        (0, 0, 0): (0, 0, 0),
        (255, 0, 0): (53.24, 80.09, 67.20),
        (0, 0, 255): (32.30, 79.19, -107.86),
        (119, 119, 119): (50.03, 0, 0),
    }
    for colour, expected in known.items():
        assert np.allclose(metrics.lab(np.array(colour)), expected, atol=0.02)


def brute_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM by its definition, window by window."""
    at = np.arange(11) - 5
    window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2, values = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for row in range(x.shape[0] - 10):
        for column in range(x.shape[1] - 10):
            a, b = (m[row : row + 11, column : column + 11].astype(float) for m in (x, y))
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            values.append(
                (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            )
    return float(np.mean(values))


def test_ssim_matches_its_definition():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (19, 16), dtype=np.uint8)
    other = np.clip(one + rng.normal(0, 30, one.shape), 0, 255).astype(np.uint8)
    assert metrics.ssim(one, other) == pytest.approx(brute_ssim(one, other), abs=1e-9)
    colour = np.stack([one, other, one], -1), np.stack([other, other, one], -1)
    assert metrics.ssim(*colour) == pytest.approx((brute_ssim(one, other) + 2) / 3, abs=1e-9)
    assert metrics.ssim(one, one) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        metrics.ssim(one[:10], other[:10])


def test_psnr():
    grey = np.full((4, 5, 3), 100, np.uint8)
    assert metrics.psnr(grey, grey + np.uint8(10)) == pytest.approx(20 * np.log10(25.5))
    assert metrics.psnr(grey, grey - np.uint8(10)) == pytest.approx(20 * np.log10(25.5))
    assert metrics.psnr(grey, grey) == metrics.BEST_PSNR
    with pytest.raises(ValueError, match="the same shape"):
        metrics.psnr(grey, grey[:2])


def test_iou():
    one, other = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert metrics.iou(one, other) == 1
    one[:2], other[1:3] = True, True
    assert metrics.iou(one, other) == pytest.approx(4 / 12)


def test_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        mean, low, high = metrics.interval(rng.normal(3, 1, 60), seed)
        assert low < mean < high
        inside += low <= 3 <= high
    assert 180 <= inside <= 198
    assert metrics.interval(np.array([1.0, np.nan, 3.0]))[0] == 2
    assert all(np.isnan(metrics.interval(np.array([np.nan]))))


def test_interval_of_a_share_matches_the_binomial():
    """Rank-1 is the mean of ones and zeros, for example."""
    mean, low, high = metrics.interval(np.arange(400) < 300)
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert mean == 0.75 and (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.005)


def test_a_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(2)
    person = rng.normal(20, 10, 80)
    one, other = person + rng.normal(0, 1, 80), person + 1 + rng.normal(0, 1, 80)
    mean, low, high = metrics.difference(one, other)
    assert low < mean < high < 0 and high - low < 1
    assert metrics.difference(one, other) == metrics.difference(one, other)
    apart = metrics.interval(one)
    assert apart[2] - apart[1] > 3
    with pytest.raises(ValueError, match=r"\(80,\) and \(79,\)"):
        metrics.difference(one, other[1:])
