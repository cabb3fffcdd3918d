# SPDX-License-Identifier: Apache-2.0
"""Antialiased patterns: noise, random cells, lines and edges.

this module -> grounds, backdrops, background, props, scenes, fabrics. A table of periodic noise
with a given spectrum is computed once per process, with a mipmap pyramid; a look-up uses the level
whose texels are as large as the pixel. One look-up contains all octaves, without detail finer than
a pixel.
"""

from __future__ import annotations

import functools

import numpy as np

SIDE = 512  # texels along a side of the finest level
# Exponent with which the amplitude falls with the frequency; 0 = white noise.
SLOPES = {"grain": 0.25, "rough": 0.9, "cloud": 1.5}


@functools.cache
def _pyramid(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """All levels of a table in one flat array, and the start of each level."""
    rng = np.random.default_rng(sorted(SLOPES).index(kind))
    down = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    radius = np.hypot(down[:, None], np.arange(SIDE // 2 + 1)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((SIDE, SIDE)))
    spectrum *= np.where(radius > 2, np.maximum(radius, 1.0) ** -SLOPES[kind], 0)
    table = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    table = (table / table.std()).astype(np.float32)
    levels = [table]
    while len(levels[-1]) > 8:
        half = levels[-1].reshape(len(levels[-1]) // 2, 2, -1, 2)
        levels.append(half.mean((1, 3), dtype=np.float32))
    starts = np.cumsum([0] + [t.size for t in levels])[:-1]
    return np.concatenate([t.ravel() for t in levels]), starts.astype(np.int32)


def noise(
    kind: str, u: np.ndarray, v: np.ndarray, span: np.ndarray | float, tile: float
) -> np.ndarray:
    """Noise of mean 0 and, before filtering, variance 1.

    Source: ours; the levels are Williams' mipmaps, SIGGRAPH 1983.

    Args:
        kind: A key of `SLOPES`.
        u: First coordinate, metres.  float32 [N]
        v: Second coordinate, metres.  float32 [N]
        span: Size of a pixel at each point, metres.  [N] or a number
        tile: Period of the noise, metres.

    Returns:
        float32 [N]
    """
    flat, starts = _pyramid(kind)
    scale = np.float32(SIDE / tile)
    level = np.log2(np.maximum(np.asarray(span, np.float32) * scale, 1.0)) + np.float32(0.5)
    level = np.minimum(level.astype(np.int32), len(starts) - 1)
    side = np.int32(SIDE) >> level
    shrink = scale / (np.int32(1) << level).astype(np.float32)
    x, y = u * shrink - np.float32(0.5), v * shrink - np.float32(0.5)
    i, j = np.floor(x), np.floor(y)
    a, b = x - i, y - j
    mask = side - 1
    i, j = i.astype(np.int32) & mask, j.astype(np.int32) & mask
    row = starts[level] + j * side
    under = starts[level] + ((j + 1) & mask) * side
    right = (i + 1) & mask
    top = flat.take(row + i)
    top += (flat.take(row + right) - top) * a
    low = flat.take(under + i)
    low += (flat.take(under + right) - low) * a
    return top + (low - top) * b


def cell(i: np.ndarray, j: np.ndarray, salt: int) -> np.ndarray:
    """Random number in [0, 1) of the grid cell that contains each point (i, j), float32 [N]."""
    h = np.floor(i).astype(np.int32).view(np.uint32) + np.uint32(salt * 0x27D4EB2F & 0xFFFFFFFF)
    for more in (np.floor(j).astype(np.int32).view(np.uint32), np.uint32(0x9E3779B1)):
        h = h * np.uint32(0x85EBCA77)
        h ^= h >> np.uint32(15)
        h *= np.uint32(0x2C1B3C6D)
        h ^= h >> np.uint32(13)
        h += more
    h *= np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def line(distance: np.ndarray, half: float, span: np.ndarray) -> np.ndarray:
    """Share of a pixel that a line covers; lines narrower than a pixel fade.

    Args:
        distance: Signed distance from the middle of the line, metres.  [N]
        half: Half width of the line, metres.
        span: Size of the pixel, metres.  [N]

    Returns:
        Shares in [0, 1].  [N]
    """
    wide = 0.5 * span
    low = np.clip(distance - wide, -half, half)
    high = np.clip(distance + wide, -half, half)
    return (high - low) / np.maximum(2 * wide, 1e-6)


def edge(distance: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Share of a pixel on the positive side of an edge; signed distance and pixel size, metres."""
    return np.clip(distance / np.maximum(span, 1e-6) + 0.5, 0, 1)
