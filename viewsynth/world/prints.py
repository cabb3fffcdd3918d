# SPDX-License-Identifier: Apache-2.0
"""Prints on clothes: emblems, lines of letters, numbers and landscapes.

this module -> fabrics. A print is a small bitmap that depends on a seed alone; no real mark, word
or logo is shown.
"""

from __future__ import annotations

import functools

import numpy as np

from viewsynth.world.colours import Colour, lightness

SIDE = 32  # cells along a side of a bitmap
# (print, side): middle across, middle in height, half width, half height, metres; across points to
# the right of a viewer.
PLACES = {
    ("logo", "front"): (0.075, 1.39, 0.036, 0.030),
    ("logo", "back"): (0.0, 1.43, 0.055, 0.028),
    ("print", "front"): (0.0, 1.325, 0.115, 0.115),
    ("print", "back"): (0.0, 1.31, 0.14, 0.16),
    ("number", "front"): (0.0, 1.33, 0.085, 0.075),
    ("number", "back"): (0.0, 1.30, 0.125, 0.115),
}
# Bitmaps of the digits 0 to 9: 5 rows from the top, 3 columns.
DIGITS = (
    "111 101 101 101 111",
    "010 110 010 010 111",
    "111 001 111 100 111",
    "111 001 111 001 111",
    "101 101 111 001 001",
    "111 100 111 001 111",
    "111 100 111 101 111",
    "111 001 010 010 010",
    "111 101 111 101 111",
    "111 101 111 001 111",
)


def ink_at(
    name: str, side: str, seed: int, across: np.ndarray, height: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ink of a print at points.

    Args:
        name: "logo", "print" or "number".
        side: "front" or "back".
        seed: Seed of the print.
        across: Distance to the viewer's right of the middle, metres.  float32 [N]
        height: Height in rest coordinates, metres.  float32 [N]

    Returns:
        Amount of ink in [0, 1], float32 [N]; index of the ink, 0 or 1, int [N].
    """
    x0, y0, half, tall = PLACES[name, side]
    if name == "logo" and side == "front" and seed % 4 == 0:
        x0, half, tall = 0.0, 0.075, 0.030  # a word across the chest
    if name == "print":
        grow = 0.75 + 0.4 * (seed % 89) / 89
        half, tall = half * grow, tall * grow
    bitmap = _bitmap(name, side, seed)
    column = ((across - x0) / (2 * half) + 0.5) * SIDE
    row = (0.5 - (height - y0) / (2 * tall)) * SIDE
    inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
    row, column = (np.clip(at, 0, SIDE - 1).astype(np.intp) for at in (row, column))
    cell = bitmap[row, column]
    return (inside * (cell > 0)).astype(np.float32), (cell > 1).astype(np.intp)


def second(ink: Colour, cloth: Colour) -> Colour:
    """Colour of the second ink: between the first ink and the cloth, or dark if both are bright."""
    if lightness(ink) > 0.5 and lightness(cloth) > 0.5:
        return (0.15, 0.15, 0.17)
    return tuple(0.55 * a + 0.45 * b for a, b in zip(ink, cloth, strict=True))


@functools.lru_cache(maxsize=512)
def _bitmap(name: str, side: str, seed: int) -> np.ndarray:
    """Bitmap of a print: 0 = cloth, 1 and 2 = inks, uint8 [SIDE, SIDE]."""
    # Front and back have the same number; other prints differ.
    rng = np.random.default_rng([seed, 0 if name == "number" else len(side)])
    if name == "number":
        return _number(int(rng.integers(1, 100)))
    if name == "logo":
        return _emblem(rng) if seed % 4 and rng.random() < 0.6 else _letters(rng, 1)
    kind = rng.random()
    if kind < 0.3:
        return _letters(rng, int(rng.integers(1, 4)))
    if kind < 0.65:
        emblem, below = _emblem(rng), _letters(rng, 1)
        out = np.zeros((SIDE, SIDE), np.uint8)
        out[2:18, 8:24] = emblem[::2, ::2]
        out[22:30] = below[12:20]
        return out
    return _emblem(rng) if kind < 0.85 else _landscape(rng)


def _number(value: int) -> np.ndarray:
    out = np.zeros((SIDE, SIDE), np.uint8)
    digits = str(value)
    left = (SIDE - 15 * len(digits) + 3) // 2
    for digit in digits:
        bits = np.array([list(row) for row in DIGITS[int(digit)].split()], np.uint8)
        out[1:31, left : left + 12] = np.kron(bits, np.ones((6, 4), np.uint8))
        left += 15
    return out


def _letters(rng: np.random.Generator, lines: int) -> np.ndarray:
    """Lines of blocks that look like letters from a distance."""
    out = np.zeros((SIDE, SIDE), np.uint8)
    tall = 8 if lines < 3 else 6
    top = (SIDE - lines * (tall + 2)) // 2 + 1
    for line in range(lines):
        column, end = int(rng.integers(0, 5)), SIDE - int(rng.integers(0, 5))
        while column + 4 <= end:
            bits = (rng.random((4, 3)) < 0.62).astype(np.uint8)
            bits[:, 0] = 1
            sign = np.kron(bits, np.ones((tall // 4, 1), np.uint8))
            row = top + line * (tall + 2)
            out[row : row + len(sign), column : column + 3] = sign * (1 + (line == 1))
            column += 4 if rng.random() < 0.85 else 6
    return out


def _emblem(rng: np.random.Generator) -> np.ndarray:
    """A disc, shield, ring, triangle or symmetric pattern."""
    y, x = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) / (SIDE / 2)
    inner = rng.uniform(0.3, 0.7)
    kind = int(rng.integers(5))
    if kind == 0:
        radius = np.hypot(x, y)
        shape, core = radius < 0.95, radius < inner
    elif kind == 1:
        shape = (np.abs(x) < 0.85) & (y > -0.9) & (np.abs(x) < 1.25 * (0.95 - y))
        core = (np.abs(x) < 0.12 + 0.2 * inner) | (np.abs(y + 0.2) < 0.2)
    elif kind == 2:
        shape = (np.hypot(x, y) < 0.95) & (np.hypot(x, y) > inner)
        core = np.abs(y) < 0.18
    elif kind == 3:
        shape = (np.abs(x) < 0.5 * (y + 1)) & (y < 0.85)
        core = np.abs(x - 0.25) < 0.35 * (y + 0.4)
    else:
        cells = np.kron(rng.random((8, 4)) < 0.55, np.ones((4, 4), bool))
        shape = np.concatenate([cells[:, ::-1], cells], 1)
        core = np.roll(shape, 3, 0)
    return (shape + (shape & core)).astype(np.uint8)


def _landscape(rng: np.random.Generator) -> np.ndarray:
    """A rectangle with a landscape of three tones."""
    out = np.ones((SIDE, SIDE), np.uint8)
    line = 16 + np.cumsum(rng.normal(0, 1.3, SIDE)).round().astype(int)
    out[np.arange(SIDE)[:, None] > np.clip(line, 8, 26)[None]] = 2
    y, x = np.mgrid[:SIDE, :SIDE]
    out[np.hypot(y - 8, x - rng.integers(6, 26)) < 4] = 0
    return out
