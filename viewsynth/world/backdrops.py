# SPDX-License-Identifier: Apache-2.0
"""Backdrops of a place: walls, shop fronts, hedges, trees, fences and parked cars.

noise -> this module -> scenes, background. Walls are upright planes around the place, cars are
boxes; both are intersected with rays. As in `grounds`, colours are functions of position in which
detail finer than a pixel fades. Light is linear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from viewsynth.world.colours import linear_fast
from viewsynth.world.noise import cell, edge, line, noise

TONES = {
    "brick": ((0.52, 0.36, 0.30), (0.58, 0.46, 0.38), (0.44, 0.30, 0.26), (0.66, 0.60, 0.54)),
    "plaster": ((0.74, 0.71, 0.65), (0.68, 0.62, 0.52), (0.80, 0.79, 0.77), (0.58, 0.60, 0.62)),
    "shop": ((0.60, 0.56, 0.50), (0.48, 0.46, 0.45), (0.72, 0.70, 0.66)),
    "panels": ((0.56, 0.57, 0.58), (0.66, 0.66, 0.65), (0.46, 0.48, 0.52)),
    "hedge": ((0.26, 0.34, 0.16), (0.30, 0.36, 0.18), (0.22, 0.28, 0.14)),
    "trees": ((0.20, 0.27, 0.14), (0.26, 0.32, 0.17), (0.17, 0.22, 0.13)),
    "fence": ((0.90, 0.90, 0.88), (0.45, 0.36, 0.28), (0.30, 0.32, 0.33)),
}
WALLS = tuple(TONES)
# sRGB of shop signs and of cars.
SIGNS = (
    (0.70, 0.12, 0.12),
    (0.12, 0.25, 0.55),
    (0.15, 0.40, 0.25),
    (0.85, 0.80, 0.70),
    (0.12, 0.12, 0.13),
    (0.80, 0.60, 0.10),
)
CARS = (
    (0.85, 0.85, 0.85),
    (0.10, 0.10, 0.11),
    (0.50, 0.51, 0.53),
    (0.35, 0.36, 0.38),
    (0.45, 0.08, 0.09),
    (0.12, 0.20, 0.38),
    (0.66, 0.66, 0.64),
)


@dataclass(frozen=True, kw_only=True)
class Wall:
    """An upright plane that bounds the place.

    Args:
        kind: One of `WALLS`.
        heading: Direction from the origin of the place to the wall, degrees.
        distance: Distance from the origin, metres.
        height: Height, metres.
        tone, second: Reflectance of the wall and of its signs, linear light.  [3]
        salt: Seed of the random cells.
    """

    kind: str
    heading: float
    distance: float
    height: float
    tone: np.ndarray
    second: np.ndarray
    salt: int


@dataclass(frozen=True, kw_only=True)
class Car:
    """A parked car: boxes for hull, cabin and wheels.

    Args:
        at: Middle on the ground, metres (x, z).
        heading: Direction of its length, degrees.
        size: Length, width, height, metres.
        tone: Reflectance, linear light.  [3]
    """

    at: tuple[float, float]
    heading: float
    size: tuple[float, float, float]
    tone: np.ndarray


def sample_wall(rng: np.random.Generator, kind: str, heading: float, distance: float) -> Wall:
    """Sample a wall.

    Args:
        rng: Generator of all random choices.
        kind: One of `WALLS`.
        heading: See `Wall`.
        distance: See `Wall`.

    Returns:
        The wall.
    """
    tones = TONES[kind]
    heights = {"hedge": (0.8, 2.2), "trees": (6, 14), "fence": (0.7, 1.3), "shop": (5, 9)}
    low, high = heights.get(kind, (4, 12))
    return Wall(
        kind=kind,
        heading=heading,
        distance=distance,
        height=float(rng.uniform(low, high)),
        tone=linear_fast(np.float32(tones[rng.integers(len(tones))]) * rng.uniform(0.85, 1.1)),
        second=linear_fast(np.float32(SIGNS[rng.integers(len(SIGNS))])),
        salt=int(rng.integers(1 << 30)),
    )


def sample_car(rng: np.random.Generator, at: tuple[float, float], heading: float) -> Car:
    """Sample a parked car at a position (x, z) in metres and a heading in degrees."""
    return Car(
        at=at,
        heading=heading,
        size=(rng.uniform(3.8, 4.8), rng.uniform(1.65, 1.85), rng.uniform(1.4, 1.75)),
        tone=linear_fast(np.float32(CARS[rng.integers(len(CARS))]) * rng.uniform(0.9, 1.08)),
    )


def _height_at(w: Wall, u: np.ndarray) -> np.ndarray:
    """Height of the top of a wall, metres; uneven for hedges and trees, [N]."""
    if w.kind == "hedge":
        return w.height + 0.10 * noise("rough", u, 0 * u, 0.0, 4.0)
    if w.kind == "trees":
        return w.height * (1 + 0.22 * noise("cloud", u, 0 * u, 0.0, 30.0))
    return np.full(len(u), w.height, np.float32)


def cover(w: Wall, u: np.ndarray, y: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Share of each pixel that a wall covers.

    Args:
        w: The wall.
        u: Position along the wall, metres.  [N]
        y: Height, metres.  [N]
        span: Size of the pixel, metres.  [N]

    Returns:
        Shares in [0, 1].  [N]
    """
    share = edge(_height_at(w, u) - y, span) * edge(y, span)
    if w.kind == "fence":
        gap = (u / 0.13 % 1 - 0.5) * 0.13
        pales = line(gap, 0.040, span)
        rails = line(y - 0.25 * w.height, 0.03, span) + line(y - 0.8 * w.height, 0.03, span)
        post = line((u / 1.9 % 1 - 0.5) * 1.9, 0.06, span)
        share = share * np.clip(np.maximum.reduce([pales, rails, post]), 0, 1)
    if w.kind == "trees":  # sky shows through the crowns
        holes = noise("rough", u, y, span, 14.0) + 0.35 * (y / w.height - 0.6)
        share = share * (1 - 0.8 * np.clip((holes - 1.9) * 1.5, 0, 1) * (y > 2))
    return share


def colour(w: Wall, u: np.ndarray, y: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Reflectance of points of a wall.

    Args:
        w: The wall.
        u: Position along the wall, metres.  [N]
        y: Height, metres.  [N]
        span: Size of the pixel, metres.  [N]

    Returns:
        Linear light.  [N, 3]
    """
    stain = noise("cloud", u, y, span, 12.0)
    match w.kind:
        case "hedge" | "trees":
            return _leaves(w, u, y, span, stain)
        case "brick":
            value = 1 + 0.06 * stain + _bricks(w, u, y, span)
            return _windows(w, u, y, span, w.tone * value[:, None])
        case "shop":
            return _shop(w, u, y, span, w.tone * (1 + 0.08 * stain)[:, None])
        case "panels":
            tone = cell(u / 1.8, y / 1.2, w.salt) - 0.5
            joints = np.maximum(
                line((u / 1.8 % 1 - 0.5) * 1.8, 0.012, span),
                line((y / 1.2 % 1 - 0.5) * 1.2, 0.012, span),
            )
            value = (1 + 0.05 * stain + 0.12 * tone) * (1 - 0.6 * joints)
            return _windows(w, u, y, span, w.tone * value[:, None])
        case "fence":
            return w.tone * (1 + 0.05 * stain)[:, None]
        case _:
            plinth = 1 - 0.35 * edge(0.45 - y, span)
            value = (1 + 0.09 * stain + 0.03 * noise("grain", u, y, span, 3.0)) * plinth
            return _windows(w, u, y, span, w.tone * value[:, None])


def _leaves(w: Wall, u, y, span, stain) -> np.ndarray:
    """Foliage: lit tufts over deep shade; trees also have trunks and a dark understorey."""
    size = 3.0 if w.kind == "hedge" else 9.0
    tuft = noise("rough", u, y, span, size)
    leaf = noise("grain", u, y, span, 4.0)
    value = np.exp(0.55 * tuft + 0.45 * leaf + 0.3 * stain)
    if w.kind == "trees":
        value *= 0.16 + 0.84 * np.clip((y - 1.2) / 4.5, 0, 1)
    green = w.tone * value[:, None] * (1 + 0.10 * tuft[:, None] * np.float32([1, 0.2, -0.6]))
    if w.kind == "trees":
        which = np.floor(u / 2.7)
        middle = (which + 0.2 + 0.6 * cell(which, 0 * u, w.salt)) * 2.7
        trunk = line(u - middle - 0.03 * y, 0.14, span) * (y < 0.45 * w.height)
        bark = 0.16 * (1 + 0.3 * noise("rough", u * 3, y, span, 3.0))
        green += (bark[:, None] * np.float32([1.05, 1, 0.9]) - green) * trunk[:, None]
    return green.clip(0.004, 0.6)


def _bricks(w: Wall, u, y, span) -> np.ndarray:
    row = np.floor(y / 0.075)
    along = u / 0.225 + 0.5 * (row % 2)
    tone = (cell(along, row, w.salt) - 0.5) / (1 + (span / 0.1) ** 2)
    gap = np.maximum(
        line((y / 0.075 - row - 0.5) * 0.075, 0.005, span),
        line((along % 1 - 0.5) * 0.225, 0.005, span),
    )
    return 0.4 * tone + 0.45 * gap


def _windows(w: Wall, u, y, span, base) -> np.ndarray:
    """Add rows of windows, and some doors, to the reflectance `base` of a wall, [N, 3]."""
    wide, tall = 2.2 + w.salt % 3 * 0.6, 2.9
    column, storey = np.floor(u / wide), np.floor(y / tall)
    x, v = (u / wide - column - 0.5) * wide, (y / tall - storey) * tall
    there = cell(column, storey, w.salt + 3) < 0.75
    door = (storey == 0) & (cell(column, 0 * u, w.salt + 4) < 0.25)
    low = np.where(door, np.float32(0), np.float32(0.95))
    across = 0.62 - np.abs(x)
    share = edge(across, span) * edge(v - low, span) * edge(2.25 - v, span) * there
    inside = edge(across - 0.07, span) * edge(v - low - 0.07, span) * edge(2.18 - v, span) * there
    base = base + (0.45 - base) * share[:, None]
    return base + (_glass(u, y, span) - base) * inside[:, None]


def _glass(u, y, span) -> np.ndarray:
    """Window panes: reflections over dark rooms, [N, 3]."""
    room = 0.05 + 0.10 * np.clip(noise("cloud", u * 2, y, span, 9.0), 0, 2)
    mirrored = 0.12 * np.clip(y / 6, 0, 1) * (1 + 0.5 * noise("cloud", u, y * 2, span, 16.0))
    return (room + mirrored)[:, None] * np.float32([0.95, 1.0, 1.05])


def _shop(w: Wall, u, y, span, base) -> np.ndarray:
    """A row of shop fronts: panes with goods behind them, mullions, a sign over each, [N, 3]."""
    wide = 4.5
    shop = np.floor(u / wide)
    x = (u / wide - shop - 0.5) * wide
    hue = cell(shop, 0 * u, w.salt)[:, None]
    sign = w.second * (0.4 + 0.9 * hue) + 0.25 * hue[:, ::-1] * np.float32([0.2, 0.5, 0.9])
    letters = (cell(u / 0.22, y * 0, w.salt + 5) < 0.6) & (np.abs(y - 3.0) < 0.13)
    letters = letters & (np.abs(x) < 1.4)
    sign = sign + (0.75 - sign) * (letters * np.clip(0.1 / span, 0, 1))[:, None]
    goods = 0.10 + 0.5 * cell(u / 0.45, y / 0.6, w.salt + 7) ** 3 * (y < 2.0)
    tint = cell(u / 0.45, y / 0.6, w.salt + 8)[:, None] * np.float32([0.5, 0.1, -0.5]) + 1
    pane = 0.5 * _glass(u, y, span) + 0.45 * goods[:, None] * tint
    bars = line((u / 1.5 % 1 - 0.5) * 1.5, 0.035, span)[:, None]
    pane = pane + (0.10 - pane) * bars
    front = edge(2.0 - np.abs(x), span) * edge(y - 0.4, span) * edge(2.6 - y, span)
    base = base + (pane - base) * front[:, None]
    board = edge(0.3 - np.abs(y - 3.0), span) * edge(2.1 - np.abs(x), span)
    base = base + (sign - base) * board[:, None]
    above = _windows(w, u, y - 3.6, span, base)
    return base + (above - base) * edge(y - 3.6, span)[:, None]


def meet_car(
    c: Car,
    origin: np.ndarray,
    rays: np.ndarray,
    pixel: float,
    up_light: np.ndarray,
    side_light: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Intersect a car with rays.

    Args:
        c: The car.
        origin: Camera centre in the place, metres.  [3]
        rays: Unit rays in the place.  [N, 3]
        pixel: Angle between neighbouring rays, radians.
        up_light: Light on the roof, linear.  [3]
        side_light: Light on the sides, linear.  [3]

    Returns:
        Share of the pixel [N], distance in metres [N], linear light [N, 3].
    """
    turn_rad = math.radians(c.heading)
    cos, sin = math.cos(turn_rad), math.sin(turn_rad)
    turn = np.float32([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])  # place -> car, z along it
    local = np.float32(turn @ (origin - np.float32([c.at[0], 0, c.at[1]])))
    along = rays @ turn.T
    long, wide, tall = c.size
    hull = _box(local, along, [-wide / 2, 0.22, -long / 2], [wide / 2, 0.58 * tall, long / 2])
    cabin = _box(
        local, along, [-0.42 * wide, 0.5 * tall, -0.28 * long], [0.42 * wide, tall, 0.22 * long]
    )
    wheels = _box(local, along, [-0.47 * wide, 0, -0.37 * long], [0.47 * wide, 0.5, 0.37 * long])
    share = np.zeros(len(rays), np.float32)
    first = np.full(len(rays), np.inf, np.float32)
    light = np.zeros((len(rays), 3), np.float32)
    for (enter, leave, axis), part in ((wheels, "wheel"), (hull, "hull"), (cabin, "cabin")):
        chord = np.where(enter > 0, leave - enter, 0)
        part_share = np.clip(chord / (1.5 * pixel * np.maximum(enter, 0.1)), 0, 1)
        nearer = (part_share > 0) & (enter < first)
        point = local + along * np.where(nearer, enter, 0)[:, None]
        side = side_light * np.where(axis == 0, np.float32(0.85), np.float32(1))[:, None]
        lit = np.where((axis == 1)[:, None], up_light, side)
        base, there = _coat(c, part, point, axis)
        part_share = part_share * there
        nearer &= there
        light[nearer] = (base * lit)[nearer]
        share = np.maximum(share, part_share)
        first = np.where(nearer, enter, first)
    return share, first, light


def _coat(c: Car, part: str, point: np.ndarray, axis: np.ndarray):
    """Reflectance of points of a car [N, 3], and which points exist [N]: wheels are round.

    Args:
        c: The car.
        part: "wheel", "hull" or "cabin".
        point: Points in the frame of the car, z along it, metres.  [N, 3]
        axis: Normal axis of the face of each point.  [N]
    """
    long, wide, tall = c.size
    base, there = np.tile(c.tone, (len(point), 1)), np.ones(len(point), bool)
    side = axis != 1
    if part == "cabin":
        y = (point[:, 1] - 0.58 * tall) / (0.42 * tall)
        base[side & (y > 0.08) & (y < 0.85)] = (0.05, 0.055, 0.06)
    elif part == "hull":
        lamp = (axis == 2) & (np.abs(point[:, 0]) > 0.3 * wide) & (point[:, 1] > 0.35 * tall)
        base[lamp] = (0.45, 0.30, 0.25)
        base[side & (point[:, 1] < 0.33)] *= np.float32(0.3)
    else:
        hub = np.minimum(np.abs(point[:, 2] - 0.3 * long), np.abs(point[:, 2] + 0.3 * long))
        rim = np.hypot(hub, point[:, 1] - 0.31)
        base[:] = 0.02
        base[rim < 0.18] = 0.25
        there = rim < 0.31
    return base, there


def _box(origin: np.ndarray, rays: np.ndarray, low, high):
    """Distances at which rays enter and leave a box, and axis of the face they enter, [N] each."""
    safe = np.where(np.abs(rays) < 1e-6, np.float32(1e-6), rays)
    a, b = (np.float32(low) - origin) / safe, (np.float32(high) - origin) / safe
    (x, y, z), far = np.minimum(a, b).T, np.maximum(a, b).T
    axis = np.where((x > y) & (x > z), 0, np.where(y > z, 1, 2))
    return np.maximum(np.maximum(x, y), z), far.min(0), axis
