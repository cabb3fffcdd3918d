# SPDX-License-Identifier: Apache-2.0
"""Colour and folds of cloth as functions of a point.

noise, prints, seams -> this module -> cloth (sampling), character (shading). Points are in *rest*
coordinates: the mean body with the arms held out sideways, metres. So patterns are as sharp as the
image and follow the pieces that clothes are sewn from: stripes run around the trunk at constant
height, and around a sleeve at constant distance from the shoulder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viewsynth.world import noise, prints, seams
from viewsynth.world.colours import Colour

KINDS = (
    *("plain", "heather", "stripes", "vertical", "checks", "gradient", "camouflage", "dots"),
    *("block", "raglan", "denim", "knit", "floral", "shoe"),
)
PRINTS = ("", "logo", "print", "band", "number")
CLOSINGS = ("", "buttons", "zip", "fly", "belt")

# The mean body: x at which sleeves begin; axis of the arm (height, depth, slope); depth of the axis
# of the trunk; radii; x of the axis of a leg; height of the crotch. Metres.
_SLEEVE, _ARM = seams.ARMHOLE, (1.529, 0.03, -0.148)
_TRUNK_Z, _TRUNK_R, _ARM_R, _LEG_R = 0.02, 0.17, 0.055, 0.09
_LEG_X, _CROTCH = 0.10, seams.CROTCH
# Strength and slant of folds: 14 steps of 5 cm along a sleeve from x = 0.15, then 18 of 10 cm up
# the body. Maxima are at armpit, elbow and cuff; at ankle, knee, crotch, waist and armpit.
_FOLDS = np.float32(
    [0.9, 0.7, 0.4, 0.35, 0.5, 0.9, 1.0, 0.9, 0.5, 0.4, 0.5, 0.8, 0.8, 0.8]
    + [0.9, 1.0, 0.7, 0.35, 0.5, 0.9, 0.6, 0.35, 0.7, 0.75, 0.8, 0.9, 0.6, 0.4, 0.6, 0.3, 0.3, 0.3]
)
_SLANT = np.float32(
    [0.25] * 14
    + [0.0, 0.0, 0.0, 0.3, 0.1, 0.0, 0.4, 0.8, 1.0, 0.6, 0.3, 0.1, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
)


@dataclass(frozen=True, kw_only=True)
class Fabric:
    """The material of a garment.

    Args:
        kind: Pattern, one of `KINDS`.
        colours: 1 to 4 colours, sRGB, the main one first; of a shoe: upper, sole, laces.
        scale: Period of the pattern, metres.
        seed: Seed of noise, folds and prints.
        front, back: Prints, each one of `PRINTS`.
        ink: Colour of prints, buttons and belts.
        weave: Strength of folds, 0 (none) to 1 (crisp creases), in revision 2 to 1.2.
        wear: Fading at knees, elbows and thighs, 0 to 1.
        drape: Strength of long vertical folds, 0 to 1 (skirts, dresses, coats).
        closing: Closing in front, one of `CLOSINGS`.
        seams: Darkness of seams, collar, cuffs and pockets, 0 (none) to 1.
        crease: Share of the light that is lost in creases, 0 to 1.
        quilt: Distance between the seams of quilted clothes, metres; 0 = not quilted.
    """

    kind: str = "plain"
    colours: tuple[Colour, ...]
    scale: float = 0.05
    seed: int = 0
    front: str = ""
    back: str = ""
    ink: Colour = (0.9, 0.9, 0.9)
    weave: float = 0.5
    wear: float = 0.0
    drape: float = 0.0
    closing: str = ""
    seams: float = 0.0
    crease: float = 0.0
    quilt: float = 0.0


def paint(fabric: Fabric, rest: np.ndarray, at: dict[str, np.ndarray]) -> np.ndarray:
    """Albedo of points of a fabric.

    Source: ours.

    Args:
        fabric: The fabric.
        rest: Rest coordinates, metres.  float32 [N, 3]
        at: Keypoints of the mean body in the rest pose by name, metres.

    Returns:
        sRGB in [0, 1].  float32 [N, 3]
    """
    colour = np.empty((len(rest), 3), np.float32)
    colour[:] = fabric.colours[0]
    p = _Points(rest, fabric.drape)
    match fabric.kind:
        case "stripes":
            _mix(colour, fabric.colours[1], _bars(p.along, fabric, 0.3, 0.55))
        case "vertical":
            _mix(colour, fabric.colours[1], _bars(p.across(), fabric, 0.12, 0.3))
        case "checks":
            _checks(colour, fabric, p)
        case "dots" | "floral":
            _scatter(colour, fabric, p)
        case "camouflage":
            _camouflage(colour, fabric, rest)
        case "gradient":
            top = at["left_shoulder"][1] - 0.1
            low = at["left_hip"][1] - 0.35 * (fabric.drape > 0)
            share = np.clip((np.float32(top) - p.y) / np.float32(top - low), 0, 1)
            _mix(colour, fabric.colours[1], share)
        case "block":
            _mix(colour, fabric.colours[1], _block(fabric, p))
        case "raglan":
            seam = p.wide > 0.06 + 0.76 * (1.53 - p.y)
            _mix(colour, fabric.colours[1], p.arm | (seam & (p.y > 1.33)))
        case "shoe":
            _shoe(colour, fabric, p)
        case "knit":
            colour *= (1 + 0.035 * np.sin(p.along * np.float32(2 * np.pi / 0.014)))[:, None]
    if fabric.seams and fabric.kind != "shoe":
        seams.sew(colour, p, fabric.seams, fabric.closing, fabric.seed)
    if fabric.quilt:
        colour *= seams.quilt(p.along, fabric.quilt)[0][:, None]
    if fabric.closing:
        _close(colour, fabric, p)
    if fabric.front or fabric.back:
        _print(colour, fabric, p)
    if fabric.kind in ("heather", "denim", "knit"):
        _speckle(colour, fabric, p)
    if fabric.wear > 0.05:
        _fade(colour, fabric, p, at)
    return np.clip(colour, 0, 1, out=colour)


class _Points:
    """Rest coordinates, and coordinates of the cloth: along limb or trunk, and around it.

    Attributes:
        x, y, z, wide: Coordinates and |x|, metres.  float32 [N] each
        arm: Whether a point is on a sleeve.  bool [N]
        along: Distance from the middle along a sleeve, height elsewhere, metres.  [N]
    """

    def __init__(self, rest: np.ndarray, drape: float):
        self.x, self.y, self.z = np.ascontiguousarray(rest.T, np.float32)
        self.wide, self.drape = np.abs(self.x), drape
        self.arm = (self.wide > _SLEEVE) & (self.y > 1.31)
        self.along = np.where(self.arm, self.wide, self.y)

    def across(self) -> np.ndarray:
        """Distance around trunk, arm or leg, metres; 0 in front, or above for an arm, [N]."""
        leg = (self.y < _CROTCH) & (self.drape < 0.5)
        side = np.where(leg, self.x - np.copysign(np.float32(_LEG_X), self.x), self.x)
        front = self.z - np.float32(_TRUNK_Z)
        radius = np.where(leg, np.float32(_LEG_R), np.float32(_TRUNK_R))
        arm = np.flatnonzero(self.arm)
        height, deep, slope = _ARM
        side[arm] = self.z[arm] - np.float32(deep)
        front[arm] = self.y[arm] - np.float32(height) - np.float32(slope) * self.wide[arm]
        radius[arm] = _ARM_R
        return np.arctan2(side, front) * radius


def folds(fabric: Fabric, rest: np.ndarray) -> np.ndarray:
    """Change of the unit normal by folds and creases.

    Source: ours: one ridged wave along each limb, bent and modulated by slower waves.

    Args:
        fabric: The fabric.
        rest: Rest coordinates, metres.  float32 [N, 3]

    Returns:
        Vectors to add to the normal, in the axes of a standing person with hanging arms; length 0
        to about 0.4.  float32 [N, 3]
    """
    out = np.zeros((len(rest), 3), np.float32)
    if fabric.weave < 0.02:
        return out
    p = _Points(rest, fabric.drape)
    x, y, z = p.x, p.y, p.z
    rng = np.random.default_rng(fabric.seed)
    p1, p2, p3, p4 = rng.uniform(0, 2 * np.pi, 4).astype(np.float32)
    period = np.float32(2 * np.pi / rng.uniform(0.06, 0.10))
    place = np.where(p.arm, (p.wide - np.float32(0.15)) * 20, y * 10 + np.float32(14))
    index = np.clip(place, 0, len(_FOLDS) - 1).astype(np.intp)
    strength, slant = _FOLDS[index], _SLANT[index] * np.float32(np.copysign(1, np.sin(p1) + 0.3))
    along = p.along + np.float32(0.6) * slant * p.wide
    bend = np.sin(x * 17 + z * 23 + p1) + np.float32(0.6) * np.sin(x * 31 - z * 15 + y * 9 + p2)
    phase = along * period + np.float32(1.2) * bend + p3
    patch = np.float32(0.5) + np.float32(0.5) * np.sin(y * 11 + x * 13 - z * 19 + p4 + bend)
    sine, cosine = np.sin(phase), np.cos(phase)
    slope = sine * (np.float32(0.65) + np.float32(0.35) * cosine) * strength * patch
    slope *= np.float32(0.75 * fabric.weave)
    if fabric.drape:
        slope *= np.where(y < 1.0, np.float32(1 - 0.85 * fabric.drape), np.float32(0.8))
    out[:, 1] = slope
    # Ridges are slanted: part of the slope faces sideways.
    out[:, 0] = slope * (slant * np.copysign(np.float32(0.4), x) + np.float32(0.35) * np.cos(bend))
    out[:, 2] = np.float32(0.2) * slope * cosine
    if fabric.drape:
        _hang(out, fabric, p, rng)
    if fabric.quilt:
        out *= np.float32(0.5)
        out[:, 1] += seams.quilt(p.along, fabric.quilt)[1]
    return out


def creased(fabric: Fabric, change: np.ndarray) -> np.ndarray:
    """Light that creases leave.

    The lower side of a fold sees less of the sky than its normal says, and cloth is darker there.

    Args:
        fabric: The fabric.
        change: Change of the normal, see `folds`.  float32 [N, 3]

    Returns:
        Factors of the colour in [0, 1].  float32 [N, 1]
    """
    lost = np.clip(np.float32(-1.6) * change[:, 1:2], 0, 0.7)
    return 1 - np.float32(fabric.crease) * lost


def _hang(out: np.ndarray, fabric: Fabric, p: _Points, rng: np.random.Generator) -> None:
    """Add long vertical folds below the waist, deeper towards the hem, to `out`."""
    low = np.flatnonzero(p.y < 1.05)
    x, y, z = p.x[low], p.y[low], p.z[low]
    turn = np.arctan2(x, z - np.float32(_TRUNK_Z))
    lobes, phase = int(rng.integers(9, 15)), rng.uniform(0, 2 * np.pi)
    wave = np.sin(lobes * turn + np.float32(1.3) * np.sin(3 * turn + 2.2 * y) + np.float32(phase))
    deep = np.clip((1.05 - y) / 0.45, 0, 1) * np.float32(0.4 * fabric.drape * (0.4 + fabric.weave))
    out[low, 0] += wave * deep * np.cos(turn)
    out[low, 2] -= wave * deep * np.sin(turn)


def _mix(colour: np.ndarray, other: Colour, share: np.ndarray) -> None:
    """Blend another colour into `colour`, in place."""
    share = share.astype(np.float32)[:, None]
    colour += (np.float32(other) - colour) * share


def _cycle(place: np.ndarray, period: float) -> np.ndarray:
    """Position within the period, 0 to 1 (much faster than `%`), [N]."""
    turns = place * np.float32(1 / period)
    return turns - np.floor(turns)


def _bars(along: np.ndarray, fabric: Fabric, narrow: float, wide: float) -> np.ndarray:
    """1 on bars, 0 between them, with edges softened by a twelfth of the period, [N]."""
    share = narrow + (wide - narrow) * (fabric.seed % 97) / 97
    place = np.abs(_cycle(along, fabric.scale) - np.float32(0.5))
    return np.clip((np.float32(share / 2 + 0.5 / 12) - place) * np.float32(12), 0, 1)


def _checks(colour: np.ndarray, fabric: Fabric, p: _Points) -> None:
    """Woven checks: broad bars in both directions, and thin lines of a third colour."""
    both = (p.along, p.across())
    broad = [_bars(way, fabric, 0.35, 0.6) for way in both]
    _mix(colour, fabric.colours[1], np.float32(0.5) * (broad[0] + broad[1]))
    if fabric.seed % 3:
        near = [np.abs(_cycle(way, fabric.scale) - np.float32(0.02)) < 0.05 for way in both]
        _mix(colour, fabric.colours[2], np.float32(0.6) * (near[0] | near[1]))


def _scatter(colour: np.ndarray, fabric: Fabric, p: _Points) -> None:
    """Dots on a staggered grid, or blossoms of several colours and sizes."""
    u, v = p.across() * np.float32(1 / fabric.scale), p.along * np.float32(1 / fabric.scale)
    row = np.floor(v)
    u = u + np.float32(0.5) * (row - 2 * np.floor(row * np.float32(0.5)))
    column = np.floor(u)
    du, dv = u - column - np.float32(0.5), v - row - np.float32(0.5)
    if fabric.kind == "dots":
        far = np.sqrt(du * du + dv * dv)
        _mix(colour, fabric.colours[1], np.clip((np.float32(0.28) - far) * 12, 0, 1))
        return
    salt = fabric.seed % 997
    one, two, three = (noise.cell(column, row, salt + k) for k in range(3))
    du += np.float32(0.5) * (one - np.float32(0.5))
    dv += np.float32(0.5) * (two - np.float32(0.5))
    far = np.sqrt(du * du + dv * dv)
    size = np.float32(0.2) + np.float32(0.24) * three
    near = np.flatnonzero(
        far < np.float32(1.25) * size
    )  # few points, so the following steps are cheap
    du, dv, far, size, one, two = (a[near] for a in (du, dv, far, size, one, two))
    petals = np.float32(1) + np.float32(0.25) * np.cos(5 * np.arctan2(du, dv) + 6 * one)
    bloom = far < size * petals
    tints = np.float32(fabric.colours[1:])
    tint = np.where(far < 0.3 * size, 1, np.minimum((two * 3).astype(np.intp), 2))
    colour[near[bloom]] = tints[tint[bloom]]


def _camouflage(colour: np.ndarray, fabric: Fabric, rest: np.ndarray) -> None:
    """Patches of the other colours, one layer over another."""
    rng = np.random.default_rng(fabric.seed)
    points = np.ascontiguousarray(rest, np.float32)
    for k, other in enumerate(fabric.colours[1:]):
        waves = rng.normal(0, 1, (3, 3)).astype(np.float32) * np.float32(3.5 / fabric.scale)
        waves[1] *= np.float32(1.5)  # patches are wider than high
        one, two, three = (points @ waves).T + rng.uniform(0, 6.28, (3, 1)).astype(np.float32)
        blot = np.sin(2 * np.sin(one) + two) + np.sin(three + np.float32(0.8) * two)
        _mix(colour, other, np.clip((blot - np.float32(0.45 + 0.25 * k)) * 6, 0, 1))


def _block(fabric: Fabric, p: _Points) -> np.ndarray:
    """Mask of the second colour: yoke and sleeves, lower half, or a broad bar over the chest."""
    match fabric.seed % 3:
        case 0:
            return (p.y > 1.37) | p.arm
        case 1:
            return (p.y < 1.24) & ~p.arm
    return (p.y > 1.24) & (p.y < 1.36) & ~p.arm


def _shoe(colour: np.ndarray, fabric: Fabric, p: _Points) -> None:
    """Sole and laces, and for some shoes a stripe on the side."""
    laces = (p.z > 0.06) & (p.z < 0.14) & (np.abs(p.wide - 0.078) < 0.022) & (p.y > 0.05)
    _mix(colour, fabric.colours[2], laces & (np.sin(p.z * 500) > -0.2))
    if fabric.seed % 3 == 0:
        _mix(colour, fabric.colours[2], np.abs(p.z - 0.07 - 0.6 * (p.y - 0.045)) < 0.012)
    _mix(colour, fabric.colours[1], p.y < 0.024)


def _close(colour: np.ndarray, fabric: Fabric, p: _Points) -> None:
    """Buttons, zips, flies and belts; pockets of garments with a zip or a fly."""
    front = p.z > 0.03
    dark = np.float32(fabric.colours[0]) * np.float32(0.6)
    match fabric.closing:
        case "buttons":
            colour[front & (np.abs(p.x - 0.017) < 0.003)] *= np.float32(0.8)
            dots = np.abs(_cycle(p.y, 0.085) - np.float32(0.5)) * np.float32(0.085)
            _mix(colour, fabric.ink, front & (p.x**2 + dots**2 < 0.0055**2))
        case "zip":
            pale = fabric.seed % 3 == 0
            metal = (0.42, 0.42, 0.43) if pale else tuple(dark.tolist())
            _mix(colour, metal, front & (p.wide < 0.004))
            pocket = np.abs(p.wide - 0.105 - 0.35 * (p.y - 1.04)) < 0.005
            _mix(colour, tuple(dark.tolist()), front & pocket & (np.abs(p.y - 1.04) < 0.07))
        case "fly" | "belt":
            pocket = np.abs(p.wide - 0.155 + 0.5 * (p.y - 0.97)) < 0.004
            colour[front & pocket & (np.abs(p.y - 0.99) < 0.05)] *= np.float32(0.7)
            colour[front & (np.abs(p.x - 0.004) < 0.003) & (p.y > 0.9)] *= np.float32(0.75)
            seat = ~front & (np.abs(p.wide - 0.085) < 0.055) & (np.abs(p.y - 0.965) < 0.06)
            rim = (np.abs(p.wide - 0.085) > 0.051) | (np.abs(p.y - 0.965) > 0.055)
            colour[seat & rim] *= np.float32(0.75)
            if fabric.closing == "belt":
                _mix(colour, fabric.ink, np.abs(p.y - 1.06) < 0.016)


def _print(colour: np.ndarray, fabric: Fabric, p: _Points) -> None:
    """Prints in front and on the back of the trunk, and on both sides of a bag in the hand."""
    held = p.y < -0.02  # rest coordinates of a bag in the hand are relative to the palm
    front = p.z > 0.03
    for name, side in ((fabric.front, "front"), (fabric.back, "back")):
        if not name:
            continue
        if name == "band":
            _mix(colour, fabric.ink, (np.abs(p.y - 1.32) < 0.035) & ~p.arm)
            continue
        trunk = (front == (side == "front")) & ~p.arm & (p.y > 1.0)
        here = np.flatnonzero(trunk | held)
        if not len(here):
            continue
        x, y, z = p.x[here], p.y[here], p.z[here]
        across = np.where(y < 0, z * np.sign(x), x if side == "front" else -x)
        share, tint = prints.ink_at(name, side, fabric.seed, across, np.where(y < 0, y + 1.69, y))
        inks = np.float32([fabric.ink, prints.second(fabric.ink, fabric.colours[0])])
        colour[here] += (inks[tint] - colour[here]) * share[:, None]


def _speckle(colour: np.ndarray, fabric: Fabric, p: _Points) -> None:
    """Yarn of several tones: fine grain, and coarse clouds that remain at a distance."""
    x, y, z = p.x, p.y, p.z
    grain = noise.cell(np.floor((x - z) * 330), np.floor((y + 0.3 * z) * 330), fabric.seed % 991)
    cloud = np.sin(x * 61 + np.sin(y * 37 + z * 20)) * np.sin(y * 53 - z * 31)
    deep = np.float32({"heather": 0.16, "denim": 0.10, "knit": 0.05}[fabric.kind])
    tone = 1 + deep * (grain - np.float32(0.5)) + np.float32(0.2) * deep * cloud
    colour *= tone[:, None]


def _fade(colour: np.ndarray, fabric: Fabric, p: _Points, at: dict[str, np.ndarray]) -> None:
    """Fading where cloth wears: thighs, knees and seat of trousers, elbows of tops."""
    knee, hip, elbow = (np.float32(at[f"left_{name}"]) for name in ("knee", "hip", "elbow"))
    beside = ((p.wide - knee[0]) / np.float32(0.05)) ** 2
    thigh = np.exp(-(((p.y - hip[1] + np.float32(0.2)) / np.float32(0.16)) ** 2) - beside)
    bent = np.exp(-(((p.y - knee[1]) / np.float32(0.07)) ** 2) - beside)
    spot = (thigh + np.float32(0.7) * bent) * np.clip(p.z * 12, 0, 1) * (p.y < hip[1] + 0.05)
    sleeve = p.arm * np.exp(-(((p.wide - elbow[0]) / np.float32(0.06)) ** 2))
    seat = np.clip(p.z * -8, 0, 1) * np.exp(-(((p.y - hip[1]) / np.float32(0.09)) ** 2))
    worn = np.minimum(spot + np.float32(0.6) * sleeve + np.float32(0.5) * seat, 1)
    pale = tuple((0.45 + 0.55 * np.float32(fabric.colours[0])).tolist())
    _mix(colour, pale, np.float32((0.42 if fabric.kind == "denim" else 0.15) * fabric.wear) * worn)
