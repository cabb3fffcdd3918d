# SPDX-License-Identifier: Apache-2.0
"""Grounds of a place: reflectance of points of the plane y = 0.

noise -> this module -> scenes, background. A ground is a function of position and pixel size in
metres. Detail finer than a pixel fades, so one evaluation per pixel of the final image suffices.
Reflectances are in linear light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from viewsynth.world.colours import linear_fast
from viewsynth.world.noise import cell, edge, line, noise

# sRGB tones of each kind.
TONES = {
    "paving": ((0.60, 0.58, 0.55), (0.55, 0.47, 0.43), (0.50, 0.50, 0.52), (0.66, 0.62, 0.55)),
    "slabs": ((0.63, 0.63, 0.63), (0.66, 0.62, 0.57), (0.55, 0.56, 0.58), (0.70, 0.69, 0.66)),
    "flagstones": ((0.60, 0.58, 0.61), (0.64, 0.62, 0.64), (0.66, 0.61, 0.53), (0.52, 0.52, 0.54)),
    "planks": ((0.66, 0.58, 0.52), (0.60, 0.57, 0.56), (0.55, 0.50, 0.46)),
    "tiles": ((0.80, 0.79, 0.75), (0.74, 0.70, 0.62)),
    "concrete": ((0.68, 0.67, 0.65), (0.62, 0.62, 0.62), (0.58, 0.57, 0.55), (0.72, 0.71, 0.70)),
    "asphalt": ((0.38, 0.38, 0.39), (0.44, 0.44, 0.45), (0.50, 0.50, 0.49), (0.33, 0.33, 0.35)),
    "crossing": ((0.36, 0.36, 0.38), (0.42, 0.42, 0.43)),
    "grass": ((0.38, 0.46, 0.20), (0.44, 0.50, 0.24), (0.34, 0.42, 0.20), (0.52, 0.52, 0.32)),
    "sand": ((0.74, 0.67, 0.55), (0.66, 0.58, 0.46), (0.78, 0.73, 0.64)),
}
# Strength of specks and stains.
GRAIN = {
    "paving": (0.07, 0.10),
    "slabs": (0.06, 0.10),
    "flagstones": (0.09, 0.12),
    "planks": (0.08, 0.10),
    "tiles": (0.05, 0.08),
    "concrete": (0.07, 0.12),
    "asphalt": (0.14, 0.10),
    "crossing": (0.13, 0.10),
    "grass": (0.26, 0.20),
    "sand": (0.12, 0.14),
}
GROUNDS = tuple(TONES)
BORDERS = ("none", "plain", "kerb", "stairs", "strip")
PAINT = linear_fast((0.86, 0.86, 0.83))  # road marks


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A ground.

    Args:
        kind: One of `GROUNDS`.
        tone, second: Mean and second reflectance, linear light.  [3]
        unit: Length and width of a slab, brick, plank or stripe, metres.
        turn: Direction of the pattern, degrees.
        contrast: Strength of stains, joints and differences between slabs; about 1.
        joint: Half width of the joints, metres.
        salt: Seed of the random cells.
        shift: Position of the origin in the pattern, metres (u, v).
        border: How the ground ends, one of `BORDERS`.
        border_heading, border_at: Direction (degrees) and distance (metres) of the border.
        beyond: The ground beyond the border.
    """

    kind: str
    tone: np.ndarray
    second: np.ndarray
    unit: tuple[float, float]
    turn: float
    contrast: float
    joint: float
    salt: int
    shift: tuple[float, float]
    border: str = "none"
    border_heading: float = 0.0
    border_at: float = 0.0
    beyond: Ground | None = None


def sample_ground(rng: np.random.Generator, kind: str) -> Ground:
    """Sample a ground without a border.

    Args:
        rng: Generator of all random choices.
        kind: One of `GROUNDS`.

    Returns:
        The ground.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in GROUNDS:
        raise ValueError(f"ground must be one of {', '.join(GROUNDS)}; got {kind!r}")
    tones = TONES[kind]
    first, other = rng.integers(len(tones), size=2)
    vary = rng.uniform(0.85, 1.12) * rng.uniform(0.97, 1.03, 3)
    low, high, shape = {
        "paving": (0.09, 0.16, 2.0),
        "slabs": (0.35, 0.8, 1.5),
        "flagstones": (0.45, 0.9, 1.0),
        "planks": (0.10, 0.16, 14.0),
        "tiles": (0.06, 0.12, 1.0),
        "concrete": (1.5, 3.0, 1.3),
        "crossing": (0.45, 0.55, 7.0),
    }.get(kind, (1.0, 1.0, 1.0))
    width = rng.uniform(low, high)
    return Ground(
        kind=kind,
        tone=linear_fast(np.clip(np.float32(tones[first]) * vary, 0, 0.95)),
        second=linear_fast(np.float32(tones[other]) * rng.uniform(0.85, 1.1)),
        unit=(width * rng.uniform(1.0, max(1.0, shape)), width),
        turn=float(rng.uniform(0, 180)),
        contrast=float(rng.uniform(0.7, 1.3)),
        joint=float(rng.uniform(0.002, 0.007)),
        salt=int(rng.integers(1 << 30)),
        shift=tuple(rng.uniform(0, 6, 2).tolist()),
    )


def paint(g: Ground, x: np.ndarray, z: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Reflectance of ground points.

    Args:
        g: The ground.
        x: First coordinate in the place, metres.  float32 [N]
        z: Second coordinate in the place, metres.  float32 [N]
        span: Size of a pixel at each point, metres.  float32 [N]

    Returns:
        Reflectance in [0, 1], linear light.  float32 [N, 3]
    """
    if g.border == "none" or g.beyond is None:
        return _surface(g, x, z, span)
    heading_rad = math.radians(g.border_heading)
    out = (x * math.sin(heading_rad) + z * math.cos(heading_rad) - g.border_at).astype(np.float32)
    side = (x * math.cos(heading_rad) - z * math.sin(heading_rad)).astype(np.float32)
    inner, outer = out < span, out > -span
    colour = np.zeros((len(x), 3), np.float32)
    colour[inner] = _surface(g, x[inner], z[inner], span[inner])
    share = edge(out[outer], span[outer])[:, None]
    colour[outer] *= 1 - share
    colour[outer] += share * _beyond(g, x[outer], z[outer], out[outer], side[outer], span[outer])
    return colour


def _beyond(g: Ground, x, z, out, side, span) -> np.ndarray:
    """Reflectance `out` metres beyond the border; the first decimetres are the border itself."""
    match g.border:
        case "kerb":  # a stone's top, its shaded face and the gutter
            colour = _surface(g.beyond, x, z, span)
            colour *= 1 - 0.65 * line(out - 0.19, 0.035, span)[:, None]
            stone = (
                0.30
                + 0.10 * cell(side / 0.9, 0 * side, g.salt)
                + 0.04 * noise("rough", side, out, span, 2.0)
            )
            stone *= 1 - 0.5 * line((side / 0.9 % 1 - 0.5) * 0.9, 0.006, span)
            return _over(colour, stone[:, None], line(out - 0.08, 0.075, span))
        case "stairs":  # treads with a bright nosing and a dark riser
            colour = _surface(g, x, z, span)
            within = (out / 0.34 % 1) * 0.34
            dark = line(within - 0.02, 0.02, span) * 0.6 + np.float32(0.12) * (within < 0.17)
            bright = line(within - 0.31, 0.022, span) * 0.30
            steps = np.clip(0.34 / np.maximum(span, 1e-6) - 1, 0, 1)
            return colour * (1 + (bright - dark) * steps)[:, None]
        case "strip":
            colour = _surface(g.beyond, x, z, span)
            stone = g.second * (1 + 0.2 * (cell(side / 0.4, 0 * side, g.salt) - 0.5))[:, None]
            stone = stone * (1 - 0.35 * line((side / 0.4 % 1 - 0.5) * 0.4, 0.006, span))[:, None]
            return _over(colour, stone, line(out - 0.15, 0.15, span))
        case _:
            return _surface(g.beyond, x, z, span)


def _over(colour, top, share) -> np.ndarray:
    return colour + (top - colour) * share[:, None]


def _surface(g: Ground, x, z, span) -> np.ndarray:
    """Reflectance of a ground without its border, [N, 3]."""
    turn_rad = math.radians(g.turn)
    cos, sin = np.float32(math.cos(turn_rad)), np.float32(math.sin(turn_rad))
    u, v = x * cos + z * sin + np.float32(g.shift[0]), z * cos - x * sin + np.float32(g.shift[1])
    specks, stains = GRAIN[g.kind]
    stain = noise("cloud", u, v, span, 11.0)
    speck = noise("grain", u, v, span, 2.6)
    value = 1 + g.contrast * (stains * stain + specks * speck)
    hue = 0.03 * noise("cloud", v, u, span, 7.0)
    match g.kind:
        case "paving" | "slabs" | "concrete" | "planks":
            tone, gap = _rows(g, u, v, span)
            value = value * (1 + 0.16 * g.contrast * tone * _strength(g.kind)) * (1 - gap)
            hue = hue + 0.10 * tone * _strength(g.kind)
        case "flagstones":
            tone, tint, gap = _flags(g, u, v, span)
            value = value * (1 + 0.30 * g.contrast * tone) * (1 - gap)
            hue = hue + 0.16 * tint
        case "tiles":  # light stones in a dark bed, or dark dots in a light one
            return _tiles(g, u, v, span, value)
        case "grass":
            value = value + 0.22 * noise("rough", u, v, span, 4.0)
            value = value * (1 + 0.06 * np.sin(v * 4.2) * (g.salt % 2))
            hue = 3 * hue + 0.05 * speck
        case "sand":
            value = value + 0.10 * noise("rough", u, 0.6 * v, span, 3.0)
        case "asphalt" | "crossing":
            patch = cell(u / 3.1, v / 4.3, g.salt)
            value = np.where(patch > 0.8, 0.88 * value, value)
    colour = g.tone * value.clip(0.15, 2)[:, None]
    colour *= 1 + hue[:, None] * np.float32([1, 0.1, -1.1])
    if g.kind in ("asphalt", "crossing"):
        worn = 0.85 - 0.25 * np.clip(noise("rough", u, v, span, 3.0) - 0.3, 0, 2)
        colour = _over(colour, PAINT * (1 + 0.05 * speck)[:, None], _marks(g, u, v, span) * worn)
    return colour.clip(0.01, 0.95)


def _strength(kind: str) -> float:
    return 0.35 if kind == "concrete" else 1.0


def _rows(g: Ground, u, v, span):
    """Rows of stones: a tone in [-0.5, 0.5] per stone, and darkness of the joints, [N] each."""
    long, short = g.unit
    row = np.floor(v / short)
    bond = {"planks": cell(row, 0 * row, g.salt), "concrete": 0.0}.get(g.kind, row * 0.5 % 1)
    along = u / long + bond
    column = np.floor(along)
    fade = 1 / (1 + (span / short) ** 2)
    tone = (cell(column, row, g.salt) - 0.5) * fade
    across = (v / short - row - 0.5) * short
    ends = (along - column - 0.5) * long
    joint = g.joint * (0.6 if g.kind == "planks" else 1.0)
    gap = np.maximum(
        line(0.5 * short - np.abs(across), joint, span),
        line(0.5 * long - np.abs(ends), joint, span),
    )
    return tone, np.clip((0.35 + 0.25 * g.contrast) * gap, 0, 0.9)


def _flags(g: Ground, u, v, span):
    """Irregular stones, as cells of jittered points: tone, tint, darkness of joints, [N] each."""
    size = g.unit[1]
    u, v = u / size, v / size
    i, j = np.floor(u), np.floor(v)
    first = np.full(len(u), 9.0, np.float32)
    second, tone, tint = first.copy(), np.zeros_like(first), np.zeros_like(first)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            p, q = i + di, j + dj
            a, b = cell(p, q, g.salt), cell(q, p, g.salt + 1)
            # A slanted metric results in long stones with straight edges.
            du, dv = p + 0.1 + 0.8 * a - u, q + 0.1 + 0.8 * b - v
            far = np.maximum(np.abs(du + 0.4 * dv), np.abs(dv - 0.25 * du)) + 0.3 * np.abs(du)
            nearer = far < first
            second = np.minimum(np.maximum(first, far), second)
            tone, tint = np.where(nearer, a, tone), np.where(nearer, b, tint)
            first = np.minimum(first, far)
    fade = 1 / (1 + (span / size) ** 2)
    gap = line((second - first) * 0.5 * size, 1.6 * g.joint, span)
    depth = 0.3 + 0.4 * np.clip(0.5 + 0.5 * noise("cloud", u * size, v * size, span, 5.0), 0, 1)
    return (tone - 0.5) * fade, (tint - 0.5) * fade, g.contrast * depth * gap


def _tiles(g: Ground, u, v, span, value) -> np.ndarray:
    """A fine grid of light stones with wide dark joints, in bands between plain strips, [N, 3]."""
    size = g.unit[1]
    near = np.maximum(np.abs(u / size % 1 - 0.5), np.abs(v / size % 1 - 0.5)) * size
    stone = edge(0.36 * size - near, span)
    # Share of the stones once a pixel covers several of them.
    blend = np.clip(span / size - 0.5, 0, 1)
    stone = stone * (1 - blend) + 0.52 * blend
    band = (v / (9 * size) % 1) < (0.7 if g.salt % 2 else 1.0)
    stone = np.where(band, stone, 1.0)
    dark = 0.05 + 0.05 * (g.salt % 3)
    light = g.tone * (1 + 0.12 * (cell(u / size, v / size, g.salt) - 0.5))[:, None]
    return ((dark + (light - dark) * stone[:, None]) * value[:, None]).clip(0.01, 0.95)


def _marks(g: Ground, u, v, span) -> np.ndarray:
    """Share of road paint: lane markings on asphalt, bars on a crossing, [N]."""
    if g.kind == "crossing":
        bar = g.unit[1]
        within = (u / (2 * bar) % 1 - 0.5) * 2 * bar
        share = edge(0.5 * bar - np.abs(within), span)
        blend = np.clip(span / (2 * bar) - 0.5, 0, 1)
        share = share * (1 - blend) + 0.5 * blend
        return share * edge(2.0 - np.abs((v - g.shift[1]) % 9 - 4.5 + 2.5), span)
    lane = u % 3.4
    solid = line(lane - 0.3, 0.06, span) * (np.floor(u / 3.4) % 2 == 0)
    dashed = line(lane - 0.3, 0.06, span) * (np.floor(u / 3.4) % 2 == 1)
    return np.maximum(solid, dashed * edge(1.5 - np.abs(v % 6 - 3), span))
