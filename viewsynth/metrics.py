# SPDX-License-Identifier: Apache-2.0
"""Metrics: figures of merit that need nothing but arrays.

Image fidelity (PSNR, SSIM, silhouette overlap, CIEDE2000), retrieval, and 95 % intervals over
people. `viewsynth.fidelity` decides what is compared with what; nothing here reads a file.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

BEST_PSNR = 99.0  # decibels that two equal pictures get: a mean of infinities says nothing
WINDOW, SIGMA = 11, 1.5  # of SSIM, pixels
DRAWS = 2000  # resamples of a bootstrap

# ---- pictures ------------------------------------------------------------------------------------


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal to noise ratio, decibels, higher is better.

    Args:
        one, other: uint8, one shape.
    Returns: at most `BEST_PSNR`.
    """
    _same_shape(one, other)
    error = np.square(one.astype(np.float64) - other).mean()
    return BEST_PSNR if error == 0 else float(min(10 * np.log10(255**2 / error), BEST_PSNR))


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity, mean over windows and channels, at most 1.

    Source: Wang et al., IEEE TIP 2004: Gaussian windows of 11 x 11 pixels, sigma 1.5, K1 = 0.01,
        K2 = 0.03, only windows that lie whole in the picture.
    Args:
        one, other: uint8 [H, W] or [H, W, C], at least 11 pixels a side.
    Raises: ValueError: if a side is shorter.
    """
    _same_shape(one, other)
    if min(one.shape[:2]) < WINDOW:
        raise ValueError(f"ssim needs pictures of at least {WINDOW} pixels a side, got {one.shape}")
    x, y = (array.reshape(*array.shape[:2], -1).astype(np.float64) for array in (one, other))
    mean_x, mean_y = _windows(x), _windows(y)
    var_x, var_y = _windows(x * x) - mean_x**2, _windows(y * y) - mean_y**2
    both = _windows(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


def _windows(values: np.ndarray) -> np.ndarray:
    """Gaussian means over all whole windows.  [H, W, C] -> [H - 10, W - 10, C]"""
    reach = WINDOW // 2
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SIGMA) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        values = ndimage.correlate1d(values, kernel, axis)
    return values[reach:-reach, reach:-reach]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks; 1 where both are empty.  bool [...] each"""
    _same_shape(one, other)
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0


def _same_shape(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape:
        raise ValueError(f"two arrays of one shape are compared, got {one.shape} and {other.shape}")


# ---- colours -------------------------------------------------------------------------------------

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65


def lab(srgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours.

    Source: IEC 61966-2-1 and CIE 15.
    Args:
        srgb: 0 to 255, any type.  [..., 3]
    Returns: L* in [0, 100], a*, b*.  float64 [..., 3]
    """
    value = np.asarray(srgb, np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def delta_e(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIEDE2000 colour difference; about 1 can just be seen, 10 is another shade, 50 another hue.

    Source: Sharma, Wu and Dalal, Color Research & Application 30(1), 2005; kL = kC = kH = 1.
    Args:
        one, other: CIE L*a*b*, see `lab`.  [..., 3]
    Returns: float64 [...].
    """
    (l1, a1, b1), (l2, a2, b2) = (
        np.moveaxis(np.asarray(c, np.float64), -1, 0) for c in (one, other)
    )
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    grey = c1 * c2 == 0
    turn = np.where(grey, 0, (h2 - h1 + 180) % 360 - 180)
    turn = np.where(~grey & (h2 - h1 == 180), 180, turn)  # the standard's sign of half a turn
    total = h1 + h2
    apart = np.abs(h1 - h2) > 180
    middle = np.where(apart, np.where(total < 360, total + 360, total - 360), total) / 2
    hue = np.radians(np.where(grey, total, middle))
    light, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1 - 0.17 * np.cos(hue - np.radians(30)) + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.radians(6)) - 0.20 * np.cos(4 * hue - np.radians(63))
    )  # fmt: skip
    s_l = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    swing = 30 * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    r_t = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(2 * np.radians(swing))
    d_l, d_c = (l2 - l1) / s_l, (c2 - c1) / s_c
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2) / s_h
    return np.sqrt(np.maximum(d_l**2 + d_c**2 + d_h**2 + r_t * d_c * d_h, 0))


# ---- retrieval -----------------------------------------------------------------------------------


def average_precision(similarity: np.ndarray, match: np.ndarray) -> tuple[float, bool]:
    """How well one query finds its own.

    Among equally similar ones those of others come first, so a constant embedding gains nothing.
    Args:
        similarity: Of the query to every gallery picture, higher = nearer.  [G]
        match: Which of them show the query's person.  bool [G]
    Returns: average precision in [0, 1], and whether the nearest one is a match.
    Raises: ValueError: if nothing matches.
    """
    if not match.any():
        raise ValueError("the gallery holds no picture of the query's person")
    order = np.lexsort((match, -similarity))
    hits = match[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()), bool(hits[0])


# ---- intervals -----------------------------------------------------------------------------------


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean and its 95 % interval: percentile bootstrap over people.

    Source: Efron, Annals of Statistics 1979.
    Args:
        values: One a person (the mean of his pictures): pictures of one person are not independent.
            NaN = that person has none.  [P]
    Returns: mean, low, high, in the unit of the values; NaN where nobody has a value.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return (float("nan"),) * 3
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def difference(one: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of one - other and its 95 % interval: paired bootstrap over the people who have both.

    Args:
        one, other: One value a person, in one order.  [P]
    """
    _same_shape(np.asarray(one), np.asarray(other))
    return interval(np.asarray(one, np.float64) - np.asarray(other, np.float64), seed)
