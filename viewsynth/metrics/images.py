# SPDX-License-Identifier: Apache-2.0
"""Image similarity: PSNR, SSIM, and the overlap of silhouettes.

`viewsynth.evaluate.fidelity` decides which images are compared.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

BEST_PSNR = 99.0  # decibels of two equal images, instead of infinity, so that means stay finite
WINDOW, SIGMA = 11, 1.5  # side and sigma of the SSIM window, pixels


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio, decibels, higher is better.

    Args:
        one: Image.  uint8 [...]
        other: Image of the same shape.  uint8 [...]

    Returns:
        At most `BEST_PSNR`.
    """
    _same_shape(one, other)
    error = np.square(one.astype(np.float64) - other).mean()
    return BEST_PSNR if error == 0 else float(min(10 * np.log10(255**2 / error), BEST_PSNR))


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity (SSIM), mean over windows and channels, at most 1.

    Source: Wang et al., IEEE TIP 2004: Gaussian windows of 11 x 11 pixels, sigma 1.5, K1 = 0.01,
    K2 = 0.03, only windows that are completely inside the image.

    Args:
        one: Image, at least 11 pixels a side.  uint8 [H, W] or [H, W, C]
        other: Image of the same shape.

    Raises:
        ValueError: if a side is shorter, or the shapes differ.
    """
    return float(ssim_map(one, other).mean())


def ssim_map(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Structural similarity of every complete window, mean over channels, see `ssim`.

    Args:
        one: Image, at least 11 pixels a side.  uint8 [H, W] or [H, W, C]
        other: Image of the same shape.

    Returns:
        The first value is that of the window around pixel (5, 5).  float64 [H - 10, W - 10]
    """
    _same_shape(one, other)
    if min(one.shape[:2]) < WINDOW:
        raise ValueError(f"ssim needs images of at least {WINDOW} pixels a side, got {one.shape}")
    x, y = (array.reshape(*array.shape[:2], -1).astype(np.float64) for array in (one, other))
    mean_x, mean_y = _windows(x), _windows(y)
    var_x, var_y = _windows(x * x) - mean_x**2, _windows(y * y) - mean_y**2
    both = _windows(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return (top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean(-1)


def _windows(values: np.ndarray) -> np.ndarray:
    """Gaussian means over all complete windows: [H, W, C] -> [H - 10, W - 10, C]."""
    reach = WINDOW // 2
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SIGMA) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        values = ndimage.correlate1d(values, kernel, axis)
    return values[reach:-reach, reach:-reach]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks; 1 if both are empty.

    Args:
        one: Mask.  bool [...]
        other: Mask of the same shape.
    """
    _same_shape(one, other)
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0


def _same_shape(one: np.ndarray, other: np.ndarray) -> None:
    if one.shape != other.shape:
        raise ValueError(f"arrays must have the same shape, got {one.shape} and {other.shape}")
