# SPDX-License-Identifier: Apache-2.0
"""Colours of clothes and hair: palettes, variation and names.

this module -> people, outfits, cloth, words, and all that convert sRGB to linear light. A sampled
colour is a named one with jitter, and its name is recovered from the colour itself, so that words
agree with images. Palettes: ours, after street and campus images of person ReID data sets.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect
from itertools import accumulate

import numpy as np

from viewsynth import metrics

Colour = tuple[float, float, float]  # sRGB in [0, 1]

# name: (family, sRGB in percent)
NAMED = {
    "black": ("black", (13, 13, 14)),
    "dark grey": ("grey", (27, 28, 30)),
    "grey": ("grey", (45, 46, 47)),
    "light grey": ("grey", (69, 69, 69)),
    "white": ("white", (90, 90, 88)),
    "cream": ("beige", (85, 79, 67)),
    "beige": ("beige", (69, 60, 47)),
    "khaki": ("beige", (52, 46, 33)),
    "light brown": ("brown", (51, 36, 23)),
    "brown": ("brown", (32, 20, 13)),
    "dark brown": ("brown", (21, 15, 12)),
    "navy blue": ("blue", (14, 17, 28)),
    "dark blue": ("blue", (18, 24, 37)),
    "blue": ("blue", (21, 35, 58)),
    "denim blue": ("blue", (30, 38, 51)),
    "light blue": ("blue", (57, 68, 80)),
    "teal": ("green", (12, 40, 42)),
    "green": ("green", (15, 42, 24)),
    "dark green": ("green", (13, 23, 17)),
    "olive green": ("green", (31, 32, 19)),
    "light green": ("green", (58, 68, 50)),
    "red": ("red", (62, 10, 12)),
    "burgundy": ("red", (31, 8, 14)),
    "pink": ("pink", (82, 60, 65)),
    "bright pink": ("pink", (76, 22, 42)),
    "purple": ("purple", (31, 17, 43)),
    "lilac": ("purple", (64, 57, 73)),
    "orange": ("orange", (80, 37, 11)),
    "yellow": ("yellow", (84, 71, 20)),
    "mustard": ("yellow", (65, 48, 14)),
}
FAMILIES = tuple(dict.fromkeys(family for family, _ in NAMED.values()))

# Colours of hair, sRGB in percent.
HAIR = {
    "black": (10, 9, 8),
    "dark brown": (16, 11, 8),
    "brown": (26, 17, 11),
    "light brown": (40, 28, 17),
    "blond": (62, 48, 29),
    "red": (42, 18, 8),
    "grey": (56, 55, 54),
    "white": (80, 79, 77),
    "dark red": (30, 8, 13),
    "pink": (75, 40, 52),
    "blue": (16, 28, 48),
}


class Table:
    """A categorical distribution.

    Args:
        shares: Weight by category; the weights need not sum to 1.
    """

    def __init__(self, shares: dict[str | None, float]):
        self.things = tuple(shares)
        self.upto = [*accumulate(shares.values())]

    def pick(self, rng: np.random.Generator) -> str | None:
        """Sample a category."""
        row = bisect(self.upto, rng.random() * self.upto[-1])
        return self.things[min(row, len(self.things) - 1)]


def table(text: str) -> Table:
    """Parse a table such as "black 20, white 17"; "none" stands for None."""
    rows = (row.strip().rsplit(" ", 1) for row in text.split(","))
    return Table({None if name == "none" else name: float(share) for name, share in rows})


def linear_fast(colour) -> np.ndarray:
    """Convert sRGB in [0, 1] to linear light by a cubic, error < 0.005, float32, any shape."""
    c = np.asarray(colour, np.float32)
    return c * (c * (c * np.float32(0.305306) + np.float32(0.682171)) + np.float32(0.012523))


def _nearest(known: dict[str, tuple], colour: Colour) -> str:
    """Name of the nearest colour in L*a*b*; lightness has less weight."""
    step = _lab_of(tuple(known.values())) - metrics.lab(np.multiply(colour, 255))
    step = step * [0.7, 1.0, 1.0]
    return tuple(known)[int((step**2).sum(1).argmin())]


@functools.cache
def _lab_of(percent: tuple) -> np.ndarray:
    return metrics.lab(np.array(percent) * 2.55)


_CLOTHES = {name: value for name, (_, value) in NAMED.items()}


def name(colour: Colour) -> str:
    """Name of the colour of a garment: a key of `NAMED`, without "denim"."""
    return _nearest(_CLOTHES, colour).replace("denim ", "")


def hair_name(colour: Colour) -> str:
    """Name of the colour of hair: a key of `HAIR`."""
    return _nearest(HAIR, colour)


def family(colour: Colour) -> str:
    """Family of the colour of a garment: one of `FAMILIES`."""
    return NAMED[name(colour)][0]


def jitter(
    rng: np.random.Generator, base: tuple[float, float, float], amount: float = 1.0
) -> Colour:
    """Vary a colour, mostly in lightness and saturation, slightly in hue.

    Args:
        rng: Generator of the variation.
        base: sRGB in percent.
        amount: Strength; 1 = the variation of garments with the same colour name.

    Returns:
        The varied colour.
    """
    n = rng.standard_normal(5).tolist()
    grey = sum(base) / 3
    dull = min(max(amount * (0.13 + 0.13 * n[0]), -0.05), 0.55)
    light = math.exp(0.13 * amount * n[1])
    out = []
    for value, jitter in zip(base, n[2:], strict=True):
        value = (value + dull * (grey - value)) * light * (1 + 0.022 * amount * jitter)
        out.append(min(max((value + 0.8 * amount * jitter) / 100, 0.03), 0.93))
    return tuple(out)


def sample_colour(rng: np.random.Generator, palette: Table) -> Colour:
    """Sample a colour of a palette of names in `NAMED`, with jitter."""
    return jitter(rng, NAMED[palette.pick(rng)][1])


def lightness(colour: Colour) -> float:
    """Luma in [0, 1], a cheap measure of lightness."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def contrasting(rng: np.random.Generator, palette: Table, to: Colour, gap: float) -> Colour:
    """Sample a colour of a palette that contrasts with another one.

    Args:
        rng: Generator of the colour.
        palette: Palette of names in `NAMED`.
        to: The other colour.
        gap: Smallest difference in at least one channel, [0, 0.4].

    Returns:
        The colour; near white or black if the palette has none.
    """
    for _ in range(12):
        colour = sample_colour(rng, palette)
        if max(abs(a - b) for a, b in zip(colour, to, strict=True)) > gap:
            return colour
    return (0.88, 0.88, 0.86) if lightness(to) < 0.45 else (0.09, 0.09, 0.1)
