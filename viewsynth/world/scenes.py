# SPDX-License-Identifier: Apache-2.0
"""Places in which people stand: ground, backdrops, parked cars, sun, sky and air.

grounds, backdrops -> this module -> lights, background, capture. A place has its own frame (metres,
y up); a person stands in it at a point and faces a heading, so that all cameras of one moment, and
all people of one camera, share one place. Light is linear; 1 is the light on level open ground by
day.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from viewsynth.world import backdrops, grounds, revisions
from viewsynth.world.backdrops import Car, Wall
from viewsynth.world.grounds import Ground
from viewsynth.world.noise import noise

WEATHERS = ("sun", "hazy", "overcast", "dusk")
# Grounds from which one is chosen, by revision; repeated by how often cameras see them.
USUAL_1 = (
    *("paving", "slabs", "flagstones", "flagstones", "planks", "tiles", "concrete", "concrete"),
    *("asphalt", "asphalt", "crossing", "grass", "sand"),
)
USUAL_2 = (
    *("paving", "paving", "slabs", "slabs", "flagstones", "flagstones", "flagstones", "planks"),
    *("concrete", "concrete", "concrete", "asphalt", "asphalt", "asphalt", "crossing", "tiles"),
    *("grass",),
)
USUAL = {1: USUAL_1, 2: USUAL_2}
AIR = np.float32([0.74, 0.80, 0.88])  # linear light of the haze


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and in what light a person stands.

    Args:
        weather: One of `WEATHERS`.
        ground: The ground.
        walls: Upright backdrops around the place.
        cars: Parked cars.
        sun: Direction to the sun (at dusk: to the brightest part of the sky), unit.  [3]
        sun_light: Light of the sun on a surface that faces it, linear.  [3]
        sky_light: Light of the whole sky on level ground, linear.  [3]
        penumbra: Width over which the edge of a person's shadow softens on the ground, metres.
        dapple: Share of the sunlight that leaves of trees take away, in patches; 0 = no trees.
        cover: Heading (degrees) and distance (metres) beyond which a building shades the sun.
        haze: Share of light that the air adds per 100 m.
        level: Light relative to daylight; below 1 cameras raise their gain.
        salt: Seed of the clouds and of the leaf shadows.
        glare: Share of the light that lens and air scatter over an image of this hour.
        at: Position of the person in the place, metres (x, z).
        heading: Direction that the person faces in the place, degrees from +z towards +x.
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
    glare: float = 0.0

    def turn(self) -> np.ndarray:
        """Rotation from the person's frame to the frame of the place, float32 [3, 3]."""
        rad = math.radians(self.heading)
        cos, sin = math.cos(rad), math.sin(rad)
        return np.float32([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])

    def inward(self, points: np.ndarray) -> np.ndarray:
        """Points of the person's frame in the frame of the place, metres, [N, 3] -> [N, 3]."""
        return points @ self.turn().T + np.float32([self.at[0], 0, self.at[1]])

    def own_sun(self) -> np.ndarray:
        """Direction to the sun in the person's frame, float32 [3]."""
        return self.turn().T @ self.sun


def standing(place: Place, at: tuple[float, float], heading: float) -> Place:
    """The same place with the person at another point and another heading.

    Args:
        place: The place.
        at: Position in the place, metres (x, z).
        heading: Degrees from the place's +z towards its +x.

    Returns:
        The place, otherwise unchanged.
    """
    return dataclasses.replace(place, at=at, heading=float(heading) % 360)


def sample_place(
    rng: np.random.Generator,
    ground: str | None = None,
    weather: str | None = None,
    revision: int = revisions.NEWEST,
) -> Place:
    """Sample a place.

    Source: ours.

    Args:
        rng: Generator of all random choices.
        ground: One of `grounds.GROUNDS`; None = random.
        weather: One of `WEATHERS`; None = random.
        revision: Of the world; it changes weather and sun.

    Returns:
        The place, with the person at its origin.

    Raises:
        ValueError: If the ground or the weather is unknown.
    """
    numbers = revisions.of(revision)
    random = str(rng.choice(USUAL[revision])), str(rng.choice(WEATHERS, p=numbers.weathers))
    ground, weather = ground or random[0], weather or random[1]
    if weather not in WEATHERS:
        raise ValueError(f"weather must be one of {', '.join(WEATHERS)}; got {weather!r}")
    street = float(rng.uniform(0, 360))
    walls, cars = _bounds(rng, street)
    return Place(
        ground=_bordered(rng, grounds.sample_ground(rng, ground), street),
        walls=walls,
        cars=cars,
        weather=weather,
        salt=int(rng.integers(1 << 20)),
        **_light(rng, weather, numbers.low_sun),
        glare=min(float(rng.exponential(numbers.glare)), 0.4) if numbers.glare else 0.0,
    )


def _bordered(rng: np.random.Generator, inner: Ground, street: float) -> Ground:
    """Let some grounds end near the person in a kerb, stairs or another ground."""
    draw, heading = rng.random(3), street + 90.0 * rng.integers(4)
    near = rng.uniform(0.5, 1.6) if draw[0] < 0.45 else rng.uniform(2, 9)
    others = ("asphalt", "grass", "paving", "concrete", "sand", "grass", "slabs")
    other = grounds.sample_ground(rng, str(rng.choice(others)))
    border = str(rng.choice(("plain", "kerb", "kerb", "stairs", "strip")))
    if inner.kind in ("grass", "sand") and border == "stairs":
        border = "plain"
    inner = dataclasses.replace(inner, turn=street + float(rng.normal(0, 3)))
    if draw[1] < 0.25:  # some patterns are not aligned with the street
        inner = dataclasses.replace(inner, turn=street + float(rng.uniform(0, 180)))
    if draw[2] > 0.6:
        return inner
    return dataclasses.replace(
        inner, border=border, border_heading=heading, border_at=float(near), beyond=other
    )


def _bounds(rng: np.random.Generator, street: float) -> tuple[tuple[Wall, ...], tuple[Car, ...]]:
    """Walls on four sides, some far away, some behind a fence, and cars along one side."""
    kinds = ("brick", "plaster", "shop", "panels", "hedge", "trees", "trees", "open")
    walls, cars = [], []
    for side in range(4):
        heading = street + 90 * side + rng.normal(0, 4)
        kind, distance = str(rng.choice(kinds)), float(rng.uniform(6, 20))
        fence = backdrops.sample_wall(rng, "fence", heading, float(rng.uniform(4.5, 9)))
        if kind == "open":
            kind, distance = "trees", float(rng.uniform(35, 70))
        walls.append(backdrops.sample_wall(rng, kind, heading, distance))
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
        heading = math.degrees(side_rad) + 90 + float(rng.normal(0, 2))
        parked = backdrops.sample_car(rng, at, heading)
        if rng.random() < 0.75:
            cars.append(parked)
    return tuple(walls), tuple(cars)


def _light(rng: np.random.Generator, weather: str, low: float) -> dict:
    """The fields of `Place` that describe sun, sky and air."""
    u = rng.uniform
    high_rad, way_rad = math.radians(u(low, 68)), u(0, 2 * math.pi)
    # Ratio of sunlight to skylight on level ground, warmth of the sun, blueness of the sky,
    # penumbra, haze. All weathers are sampled, so that the weather changes no later choice.
    ratio, warm, blue, soft, haze = {
        "sun": (u(2.8, 5.5), 0.16, 0.16, u(0.012, 0.03), u(0, 0.06)),
        "hazy": (u(0.7, 1.6), 0.10, 0.06, u(0.04, 0.09), u(0.04, 0.14)),
        "overcast": (u(0.0, 0.2), 0.0, 0.03, 0.3, u(0.01, 0.08)),
        "dusk": (u(0.15, 0.5), 0.30, 0.10, 0.3, u(0.02, 0.1)),
    }[weather]
    high_rad = min(high_rad, math.radians(24)) if weather == "dusk" else high_rad
    high, flat = math.sin(high_rad), math.cos(high_rad)
    warm *= 1.4 - high
    sun_light = ratio / (1 + ratio) / max(high, 0.35) * np.float32([1 + 0.5 * warm, 1.0, 1 - warm])
    patch = rng.random(4)
    clear = weather in ("sun", "hazy")
    dapple = float(u(0.8, 1.0)) if clear and patch[0] < 0.16 else 0.0
    covered = clear and patch[1] < 0.2
    return {
        "sun": np.float32([flat * math.sin(way_rad), high, flat * math.cos(way_rad)]),
        "sun_light": sun_light.astype(np.float32),
        "sky_light": np.float32([1 - blue, 1.0, 1 + blue]) / np.float32(1 + ratio),
        "penumbra": float(soft),
        "haze": float(haze),
        "dapple": dapple,
        "cover": (float(u(0, 360)), float(u(-3.0, 2.5))) if covered else (0.0, math.inf),
        "level": float(u(0.08, 0.25)) if weather == "dusk" else 1.0,
    }


def sun_share(place: Place, points: np.ndarray) -> np.ndarray | float:
    """Share of the sunlight that reaches points past the trees and buildings of the place.

    Args:
        place: The place.
        points: In the person's frame, metres.  [N, 3]

    Returns:
        Shares in [0, 1], [N], or 1.0 where nothing shades the sun.
    """
    if not place.dapple and math.isinf(place.cover[1]):
        return 1.0
    points = place.inward(points)
    foot = points[:, [0, 2]] - points[:, 1:2] * (place.sun[[0, 2]] / place.sun[1])
    share = np.ones(len(points), np.float32)
    if place.dapple:
        leaf = noise("cloud", foot[:, 0] + place.salt % 97, foot[:, 1], 0.05, 9.0)
        leaf += 0.5 * noise("rough", foot[:, 0], foot[:, 1], 0.05, 5.0)
        share *= 1 - place.dapple * np.clip(leaf * 1.6 + 0.9, 0, 1)
    if not math.isinf(place.cover[1]):
        rad = math.radians(place.cover[0])
        past = foot[:, 0] * math.sin(rad) + foot[:, 1] * math.cos(rad) - place.cover[1]
        share *= np.clip(0.5 - past / (8 * place.penumbra), 0, 1)
    return share
