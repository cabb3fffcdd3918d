# SPDX-License-Identifier: Apache-2.0
"""Colours: conversion to CIE L*a*b*, and the CIEDE2000 colour difference."""

from __future__ import annotations

import numpy as np

_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65


def linear(srgb: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values.

    Source: IEC 61966-2-1.

    Args:
        srgb: Values from 0 to 255, any type and shape.

    Returns:
        float64 in [0, 1], of the same shape.
    """
    value = np.asarray(srgb, np.float64) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb(light: np.ndarray) -> np.ndarray:
    """Encode linear light as sRGB, the inverse of `linear`.

    Source: IEC 61966-2-1.

    Args:
        light: Values, clipped to [0, 1], any shape.

    Returns:
        float64 in [0, 255], of the same shape.
    """
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def lab(srgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB colours.

    Source: IEC 61966-2-1 and CIE 15.

    Args:
        srgb: Values from 0 to 255, any type.  [..., 3]

    Returns:
        L* in [0, 100], a*, b*.  float64 [..., 3]
    """
    ratio = linear(srgb) @ _TO_XYZ.T / _WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def delta_e(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """CIEDE2000 colour difference; 1 is just noticeable, 10 another shade, 50 another hue.

    Source: Sharma, Wu and Dalal, Color Research & Application 30(1), 2005; kL = kC = kH = 1.

    Args:
        one: CIE L*a*b* colours, see `lab`.  [..., 3]
        other: Colours to compare with.  [..., 3]

    Returns:
        Differences, >= 0.  float64 [...]
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
        1
        - 0.17 * np.cos(hue - np.radians(30))
        + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.radians(6))
        - 0.20 * np.cos(4 * hue - np.radians(63))
    )
    s_l = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    s_c, s_h = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    swing = 30 * np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    r_t = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(2 * np.radians(swing))
    d_l, d_c = (l2 - l1) / s_l, (c2 - c1) / s_c
    d_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2) / s_h
    return np.sqrt(np.maximum(d_l**2 + d_c**2 + d_h**2 + r_t * d_c * d_h, 0))
