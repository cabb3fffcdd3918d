# SPDX-License-Identifier: Apache-2.0
"""What is sewn onto clothes: seams, collars, cuffs, pockets, and the seams of quilting.

this module -> fabrics. Positions are in rest coordinates, see `fabrics`. A seam is as wide as its
shadow, about 6 mm; from a drone it is a faint line, but two dark coats differ by such lines.
"""

from __future__ import annotations

import numpy as np

SIDE = 0.02  # z of the side seams, metres
ARMHOLE, WRIST, CROTCH = 0.19, 0.70, 0.86  # |x| of armhole and cuff, height of the crotch, metres
COLLAR = 1.525  # height at which a collar begins, metres
HALF = 0.003  # half width of a seam, metres
TROUSERS = ("fly", "belt")  # closings of bottoms


def sew(colour: np.ndarray, p, strength: float, closing: str, seed: int) -> None:
    """Darken seams, collar, cuffs and pockets of a garment, in place.

    Source: ours.

    Args:
        colour: sRGB.  float32 [N, 3]
        p: Coordinates of the points: `x`, `y`, `z`, `wide` and `arm`, see `fabrics`.
        strength: Darkness, 0 to 1.
        closing: Closing of the garment, one of `fabrics.CLOSINGS`.
        seed: Seed of the fabric; it chooses the pockets.
    """
    dark = np.zeros(len(colour), np.float32)
    dark[np.abs(p.z - SIDE) < HALF] = 0.45
    low = p.y < CROTCH
    if closing in TROUSERS or low.all():
        dark[(np.abs(p.y - 1.05) < 0.004) | (low & (p.wide < 0.012))] = 0.4  # band, inner seam
    else:
        dark[(np.abs(p.wide - ARMHOLE) < HALF) & (p.y > 1.31)] = 0.5
        dark[p.arm & (p.wide > WRIST)] = 0.16
        collar = (p.y > COLLAR) & ~p.arm
        dark[collar] = 0.14 + 0.2 * (seed % 2)
        _pockets(dark, p, closing, seed)
    colour *= (1 - np.float32(strength) * dark)[:, None]


def _pockets(dark: np.ndarray, p, closing: str, seed: int) -> None:
    """Breast pockets, or one pocket over the belly; a yoke on some backs."""
    front = (p.z > 0.03) & ~p.arm
    match seed % 5:
        case 0 | 1 if closing:
            both = p.wide if seed % 2 else p.x
            _rim(dark, front, both - 0.078, p.y - 1.345, 0.048, 0.055)
        case 2 if not closing:
            _rim(dark, front, p.x, p.y - 1.12, 0.125, 0.07)
        case 3:
            dark[~front & ~p.arm & (np.abs(p.y - 1.42) < HALF) & (p.z < 0)] = 0.45
            dark[~front & (p.wide < HALF) & (p.z < 0)] = 0.4


def _rim(dark: np.ndarray, where: np.ndarray, x, y, wide: float, tall: float) -> None:
    """Darken the rim of a rectangle around x = y = 0."""
    across, along = np.abs(x), np.abs(y)
    inside = where & (across < wide) & (along < tall)
    dark[inside & ((across > wide - 0.006) | (along > tall - 0.006))] = 0.5


def quilt(along: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
    """Shape of quilted cloth: seams, and the slope of what bulges between them.

    Args:
        along: Position across the seams, metres.  float32 [N]
        period: Distance between the seams, metres.

    Returns:
        Light that is left in the seams, 0.5 to 1, and slope along `along`; float32 [N] each.
    """
    turn = along * np.float32(1 / period)
    turn -= np.floor(turn)
    near = np.minimum(turn, 1 - turn) * np.float32(period)
    left = 1 - np.float32(0.5) * np.exp(-((near / np.float32(0.006)) ** 2))
    # A bulge: the slope is steepest beside the seams.
    bulge = np.float32(2) * turn - 1
    return left, np.float32(0.55) * bulge * np.abs(bulge)
