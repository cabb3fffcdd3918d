# SPDX-License-Identifier: Apache-2.0
"""Scenes: where a person stands, in what light, and what a camera sees around them.

A place has its own frame (metres, y up); a person stands in it at a point and faces a heading, so
that all cameras of one moment, and all people of one camera, share one place. The ground is a plane
with a pattern (`grounds`), bounded by upright backdrops (`backdrops`); light is linear and 1 means
what falls on level open ground by day.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from viewsynth.world import backdrops, grounds
from viewsynth.world.backdrops import Car, Wall
from viewsynth.world.grounds import Ground
from viewsynth.world.noise import noise

WEATHERS = ("sun", "hazy", "overcast", "dusk")
# What may lie under people, roughly as often as under those of surveillance cameras.
USUAL = (
    "paving",
    "slabs",
    "flagstones",
    "flagstones",
    "planks",
    "tiles",
    "concrete",
    "concrete",
    "asphalt",
    "asphalt",
    "crossing",
    "grass",
    "sand",
)
SKY = {
    "sun": ((0.30, 0.48, 0.85), (0.75, 0.86, 1.0)),
    "hazy": ((0.62, 0.74, 0.92), (0.95, 0.97, 1.0)),
    "overcast": ((0.80, 0.84, 0.90), (0.95, 0.97, 1.0)),
    "dusk": ((0.16, 0.24, 0.42), (0.62, 0.52, 0.46)),
}
FAR = 400.0  # metres; where the world ends
AIR = np.float32([0.74, 0.80, 0.88])  # light that haze adds


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and in what light a person stands.

    Args:
        weather: One of `WEATHERS`.
        ground: What is underfoot.
        walls: What bounds the place, at most a few.
        cars: Parked cars.
        sun: Direction towards the sun (at dusk: the brightest part of the sky), unit.  [3]
        sun_light: Light of the sun on a surface that faces it, linear.  [3]
        sky_light: Light of the whole sky on level ground, linear.  [3]
        penumbra: Metres over which the shadow of a person's edge softens on the ground.
        dapple: Share of the sun that leaves of trees take away, in patches; 0 = no trees.
        cover: Heading (degrees) and distance (metres) beyond which a building shades the sun.
        haze: Share of light that the air adds per 100 m.
        level: Light of the place against day; below 1 cameras turn up their gain.
        salt: Of the sky and the patches.
        at: Where the person stands in the place, metres (x, z).
        heading: Where the person faces in the place, degrees from +z towards +x.
    """

    weather: str
    ground: Ground
    walls: tuple[Wall, ...]
    cars: tuple[Car, ...]
    sun: np.ndarray
    sun_light: np.ndarray
    sky_light: np.ndarray
    penumbra: float
    dapple: float
    cover: tuple[float, float]
    haze: float
    level: float
    salt: int
    at: tuple[float, float] = (0.0, 0.0)
    heading: float = 0.0

    def turn(self) -> np.ndarray:
        """Rotation of the person's frame into the place's.  float32 [3, 3]"""
        rad = math.radians(self.heading)
        cos, sin = math.cos(rad), math.sin(rad)
        return np.float32([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])

    def inward(self, points: np.ndarray) -> np.ndarray:
        """Points of the person's frame in the place's, metres.  [N, 3]"""
        return points @ self.turn().T + np.float32([self.at[0], 0, self.at[1]])

    def own_sun(self) -> np.ndarray:
        """Direction towards the sun in the person's frame.  float32 [3]"""
        return self.turn().T @ self.sun


def standing(where: Place, at: tuple[float, float], heading: float) -> Place:
    """The same place with a person at another point and facing another way.

    Args:
        at: In the place, metres (x, z).
        heading: Degrees from the place's +z towards its +x.
    """
    return dataclasses.replace(where, at=at, heading=float(heading) % 360)


def place(rng: np.random.Generator, ground: str | None = None, weather: str | None = None) -> Place:
    """Draw a place.

    Source: ours.

    Args:
        rng: Of all of it.
        ground: One of `grounds.GROUNDS`; None = drawn.
        weather: One of `WEATHERS`; None = drawn.
    Raises: ValueError: if the ground or the weather is unknown.
    """
    drawn = str(rng.choice(USUAL)), str(rng.choice(WEATHERS, p=(0.42, 0.22, 0.28, 0.08)))
    ground, weather = ground or drawn[0], weather or drawn[1]
    if weather not in WEATHERS:
        raise ValueError(f"weather must be one of {', '.join(WEATHERS)}; got {weather!r}")
    street = float(rng.uniform(0, 360))
    walls, cars = _bounds(rng, street)
    return Place(
        ground=_bordered(rng, grounds.ground(rng, ground), street),
        walls=walls,
        cars=cars,
        weather=weather,
        salt=int(rng.integers(1 << 20)),
        **_light(rng, weather),
    )


def _bordered(rng: np.random.Generator, inner: Ground, street: float) -> Ground:
    """Let some grounds end near the person in a kerb, stairs or another ground."""
    draw, heading = rng.random(3), street + 90.0 * rng.integers(4)
    near = rng.uniform(0.5, 1.6) if draw[0] < 0.45 else rng.uniform(2, 9)
    others = ("asphalt", "grass", "paving", "concrete", "sand", "grass", "slabs")
    other = grounds.ground(rng, str(rng.choice(others)))
    border = str(rng.choice(("plain", "kerb", "kerb", "stairs", "strip")))
    if inner.kind in ("grass", "sand") and border == "stairs":
        border = "plain"
    inner = dataclasses.replace(inner, turn=street + float(rng.normal(0, 3)))
    if draw[1] < 0.25:  # some patterns lie askew
        inner = dataclasses.replace(inner, turn=street + float(rng.uniform(0, 180)))
    if draw[2] > 0.6:
        return inner
    return dataclasses.replace(
        inner, border=border, border_heading=heading, border_at=float(near), beyond=other
    )


def _bounds(rng: np.random.Generator, street: float) -> tuple[tuple[Wall, ...], tuple[Car, ...]]:
    """Four sides of a place, some open, some with a fence in front, and cars along one of them."""
    kinds = ("brick", "plaster", "shop", "panels", "hedge", "trees", "trees", "open")
    walls, cars = [], []
    for side in range(4):
        heading = street + 90 * side + rng.normal(0, 4)
        kind, distance = str(rng.choice(kinds)), float(rng.uniform(6, 20))
        fence = backdrops.wall(rng, "fence", heading, float(rng.uniform(4.5, 9)))
        if kind == "open":
            kind, distance = "trees", float(rng.uniform(35, 70))
        walls.append(backdrops.wall(rng, kind, heading, distance))
        if rng.random() < 0.2 and fence.distance < distance - 1:
            walls.append(fence)
    side_rad = math.radians(street + 90 * int(rng.integers(4)))
    out, offset = rng.uniform(4.0, 7.0), rng.uniform(0, 5.5)
    for slot in (-2, -1, 0, 1, 2) if rng.random() < 0.5 else ():
        along = slot * 5.4 + offset
        at = (
            out * math.sin(side_rad) + along * math.cos(side_rad),
            out * math.cos(side_rad) - along * math.sin(side_rad),
        )
        parked = backdrops.car(rng, at, math.degrees(side_rad) + 90 + float(rng.normal(0, 2)))
        if rng.random() < 0.75:
            cars.append(parked)
    return tuple(walls), tuple(cars)


def _light(rng: np.random.Generator, weather: str) -> dict:
    """Sun, sky and air."""
    high_rad, way_rad = math.radians(rng.uniform(24, 68)), rng.uniform(0, 2 * math.pi)
    # Sun on level ground against the sky; the colours of both; softness; air.
    ratio, warm, blue, soft, haze = {
        "sun": (rng.uniform(2.8, 5.5), 0.16, 0.16, rng.uniform(0.012, 0.03), rng.uniform(0, 0.06)),
        "hazy": (
            rng.uniform(0.7, 1.6),
            0.10,
            0.06,
            rng.uniform(0.04, 0.09),
            rng.uniform(0.04, 0.14),
        ),
        "overcast": (rng.uniform(0.0, 0.2), 0.0, 0.03, 0.3, rng.uniform(0.01, 0.08)),
        "dusk": (rng.uniform(0.15, 0.5), 0.30, 0.10, 0.3, rng.uniform(0.02, 0.1)),
    }[weather]
    high_rad = min(high_rad, math.radians(24)) if weather == "dusk" else high_rad
    flat = math.cos(high_rad)
    sun = [flat * math.sin(way_rad), math.sin(high_rad), flat * math.cos(way_rad)]
    warm *= 1.4 - math.sin(high_rad)
    sun_light = (
        ratio
        / (1 + ratio)
        / max(math.sin(high_rad), 0.35)
        * np.float32([1 + 0.5 * warm, 1.0, 1 - warm])
    )
    patch = rng.random(4)
    clear = weather in ("sun", "hazy")
    return {
        "sun": np.float32(sun),
        "sun_light": sun_light.astype(np.float32),
        "sky_light": np.float32([1 - blue, 1.0, 1 + blue]) / np.float32(1 + ratio),
        "penumbra": float(soft),
        "haze": float(haze),
        "dapple": float(rng.uniform(0.8, 1.0)) if clear and patch[0] < 0.16 else 0.0,
        "cover": (float(rng.uniform(0, 360)), float(rng.uniform(-3.0, 2.5)))
        if clear and patch[1] < 0.2
        else (0.0, math.inf),
        "level": float(rng.uniform(0.08, 0.25)) if weather == "dusk" else 1.0,
    }


def sun_share(where: Place, points: np.ndarray) -> np.ndarray | float:
    """Share of the sun that reaches points past the place's trees and buildings.

    Args:
        points: In the person's frame, metres.  [N, 3]
    """
    if not where.dapple and math.isinf(where.cover[1]):
        return 1.0
    points = where.inward(points)
    foot = points[:, [0, 2]] - points[:, 1:2] * (where.sun[[0, 2]] / where.sun[1])
    share = np.ones(len(points), np.float32)
    if where.dapple:
        leaf = noise("cloud", foot[:, 0] + where.salt % 97, foot[:, 1], 0.05, 9.0)
        leaf += 0.5 * noise("rough", foot[:, 0], foot[:, 1], 0.05, 5.0)
        share *= 1 - where.dapple * np.clip(leaf * 1.6 + 0.9, 0, 1)
    if not math.isinf(where.cover[1]):
        rad = math.radians(where.cover[0])
        past = foot[:, 0] * math.sin(rad) + foot[:, 1] * math.cos(rad) - where.cover[1]
        share *= np.clip(0.5 - past / (8 * where.penumbra), 0, 1)
    return share


def surroundings(
    where: Place,
    origin: np.ndarray,
    rays: np.ndarray,
    pixel: float,
    lit: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """What a camera sees when nobody is there.

    Args:
        origin, rays: Camera centre [3] and unit rays float32 [N, 3], in the person's frame, metres.
        pixel: Radians between neighbouring rays.
        lit: Light on ground points of the person's frame, [M, 3] -> [M, 3].
    Returns: linear light float32 [N, 3], distance to what is seen, metres [N].
    """
    turn = where.turn()
    rays_in = rays @ turn.T
    origin_in = (where.inward(origin[None].astype(np.float32)))[0]
    down = np.maximum(-rays[:, 1], np.float32(1e-5))
    reach = np.where(rays[:, 1] < -1e-5, np.float32(origin[1]) / down, np.inf).astype(np.float32)
    met = [_meet(w, origin_in, rays_in, reach, pixel) for w in where.walls]
    met = [m for m in met if m is not None]
    # Ground behind a wall that covers a pixel wholly need not be painted.
    hidden = np.full(len(rays), np.inf, np.float32)
    for _, seen, away, _, share in met:
        full = share > 0.999
        hidden[seen[full]] = np.minimum(hidden[seen[full]], away[full])
    light = np.zeros((len(rays), 3), np.float32)
    floor = np.flatnonzero((reach < FAR) & (reach < hidden * 1.001))
    sky = np.flatnonzero(reach >= FAR)
    light[sky] = _sky(where, rays_in[sky])
    if len(floor):
        points = origin.astype(np.float32) + rays[floor] * reach[floor, None]
        span = reach[floor] * np.float32(pixel) / np.sqrt(np.maximum(down[floor], 0.03))
        inside = where.inward(points)
        albedo = grounds.paint(where.ground, inside[:, 0], inside[:, 2], span)
        light[floor] = albedo * lit(points) * _under_cars(where, inside)[:, None]
    distance = np.minimum(reach, np.float32(FAR))
    for wall in sorted(met, key=lambda m: -m[0].distance):
        _put_wall(where, wall, light, distance, pixel)
    _put_cars(where, origin_in, rays_in, pixel, light, distance)
    if where.haze:
        veil = (1 - np.exp(-where.haze * distance / 100))[:, None]
        light += (AIR - light) * veil
    return light, distance


def _meet(w: Wall, origin, rays, reach, pixel):
    """A wall along the rays that come to it before they come to the ground.

    Returns: the wall, which rays [M], their length [M], metres along and up it [2, M], share of the
        pixel [M]; None if there are none, or the camera is behind the wall: places have no backs.
    """
    rad = math.radians(w.heading)
    out = np.float32([math.sin(rad), 0, math.cos(rad)])
    gap = np.float32(w.distance - float(out @ origin))
    towards = rays @ out
    far = np.minimum(reach * (1 + pixel) + 0.1, np.float32(FAR))
    seen = np.flatnonzero(towards * far > gap) if gap > 0.5 else np.empty(0)
    if not len(seen):
        return None
    away = gap / towards[seen]
    y = origin[1] + rays[seen, 1] * away
    along = (origin[0] + rays[seen, 0] * away) * out[2] - (origin[2] + rays[seen, 2] * away) * out[
        0
    ]
    share = backdrops.cover(w, along, y, away * np.float32(pixel))
    kept = np.flatnonzero(share > 0)
    flat = np.stack([along[kept], y[kept]])
    return (w, seen[kept], away[kept], flat, share[kept]) if len(kept) else None


def _put_wall(where: Place, met: tuple, light, distance, pixel: float) -> None:
    """Draw a wall over what is farther away, in place."""
    w, seen, away, (u, y), share = met
    rad = math.radians(w.heading)
    facing = max(0.0, -float(where.sun @ np.float32([math.sin(rad), 0, math.cos(rad)])))
    open_ = np.flatnonzero(away <= distance[seen] * 1.001 + 0.05)
    seen, away, u, y, share = seen[open_], away[open_], u[open_], y[open_], share[open_]
    shade = backdrops.colour(w, u, y, away * np.float32(pixel))
    sun = where.sun_light * facing * (0.7 if math.isinf(where.cover[1]) else 0.0)
    corner = 0.55 + 0.45 * np.clip(y / 1.2, 0, 1) ** 0.5
    shade = shade * (0.62 * where.sky_light * corner[:, None] + 0.12 * where.sun_light + sun)
    light[seen] += (shade - light[seen]) * share[:, None]
    near = seen[share > 0.5]
    distance[near] = np.minimum(distance[near], away[share > 0.5])


def _put_cars(where: Place, origin, rays, pixel, light, distance) -> None:
    """Draw the cars that stand behind the person, in place."""
    person = np.float32([where.at[0], 1.0, where.at[1]])
    ahead = person - origin
    if ahead[1] < -0.8 * np.linalg.norm(ahead):
        return  # from high above a crop of a person never reaches them
    middle = rays.mean(0)
    spread = (rays @ middle).min() / np.linalg.norm(middle)
    for parked in where.cars:
        away = np.float32([parked.at[0], 0.7, parked.at[1]]) - origin
        metres = np.linalg.norm(away)
        beyond = (away @ ahead) / (ahead @ ahead)
        angle = math.acos(min(1.0, float(away @ middle / metres / np.linalg.norm(middle))))
        if beyond < 1.0 or angle > math.acos(spread) + 2.6 / metres:
            continue
        share, reach, shade = backdrops.meet_car(
            parked,
            origin,
            rays,
            pixel,
            where.sky_light + where.sun_light * where.sun[1],
            0.55 * where.sky_light + 0.2 * where.sun_light,
        )
        seen = (share > 0) & (reach < distance)
        light[seen] += (shade[seen] - light[seen]) * share[seen, None]
        distance[seen] = reach[seen]


def _under_cars(where: Place, points: np.ndarray) -> np.ndarray:
    """The dark under parked cars.  [N]"""
    light = np.ones(len(points), np.float32)
    for parked in where.cars:
        rad = math.radians(parked.heading)
        x, z = points[:, 0] - parked.at[0], points[:, 2] - parked.at[1]
        along = np.abs(x * math.sin(rad) + z * math.cos(rad)) - parked.size[0] / 2
        across = np.abs(x * math.cos(rad) - z * math.sin(rad)) - parked.size[1] / 2
        light *= 1 - 0.75 * np.clip(0.6 - np.maximum(along, across) / 0.5, 0, 1)
    return light


def _sky(where: Place, rays: np.ndarray) -> np.ndarray:
    """The sky along rays, brightest near the horizon, with clouds.  [N, 3]"""
    up = np.clip(rays[:, 1], 0, 1)
    zenith, horizon = (np.float32(c) for c in SKY[where.weather])
    colour = horizon + (zenith - horizon) * (up**0.5)[:, None]
    if where.weather in ("sun", "hazy"):
        flat = rays[:, [0, 2]] / (up + 0.12)[:, None] + where.salt % 89
        cloud = np.clip(noise("cloud", flat[:, 0], flat[:, 1], 0.02, 9.0) * 0.8 + 0.1, 0, 1)
        colour += (1.05 - colour) * cloud[:, None]
    return colour * (1.25 if where.level == 1.0 else 0.9)
