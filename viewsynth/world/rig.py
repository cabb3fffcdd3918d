# SPDX-License-Identifier: Apache-2.0
"""The rig: thirteen cameras as in CARGO, and who is seen by which of them, when and from where.

seed, person -> `plan`, `instant` (this) -> `shots.take` -> pictures. Cameras 1 to 5 fly: the first
looks straight down, the others obliquely. 6 to 10 hang on poles and walls, 11 to 13 are worn. A
camera keeps its lens and its street; the light is that of one (person, camera).

A plan is a sequence that a longer one only continues, so more pictures of a person never change
those that there are.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

from viewsynth import cameras
from viewsynth.records import seed_of
from viewsynth.world import capture, scenes
from viewsynth.world.shots import Shot

STATURE, DEPTH = 1.72, 0.45  # metres: how long a person is seen from the side and from above
MIDDLE = STATURE / 2
LEG = 6  # pictures of one walk past a camera; then another walk begins
DRONE_PIXELS, GROUND_PIXELS = (28.0, 150.0), (80.0, 260.0)  # how high people are in the picture
QUERIES = (2, 3)  # places in a person's plan that become queries, one from above, one from below
# What of a place the hour decides.
LIGHT = ("weather", "sun", "sun_light", "sky_light", "penumbra", "dapple", "cover", "haze", "level")
# Elevations of the three drones of an instant, and which of them it may be.
BINS = {(25.0, 47.0): (2, 3), (47.0, 68.0): (4,), (68.0, 90.0): (5, 1)}


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera of the rig.

    Args:
        number: 1 to 13; 1 to 5 fly.
        elevation: Range of a drone, degrees.
        altitude: Range above the ground, metres.
        distance: Range along the ground of a camera that does not fly, metres.
    """

    number: int
    platform: str
    altitude: tuple[float, float]
    elevation: tuple[float, float] = (0.0, 0.0)
    distance: tuple[float, float] = (0.0, 0.0)

    @property
    def camid(self) -> str:
        """The name of the camera."""
        return f"Cam{self.number}"


def _drone(number: int, elevation: tuple, altitude: tuple) -> Camera:
    return Camera(number=number, platform="drone", elevation=elevation, altitude=altitude)


def _ground(number: int, platform: str, altitude: float, distance: tuple) -> Camera:
    heights = (altitude, altitude)
    return Camera(number=number, platform=platform, altitude=heights, distance=distance)


CAMERAS = (
    _drone(1, (85.0, 90.0), (10.0, 45.0)),
    _drone(2, (25.0, 40.0), (10.0, 30.0)),
    _drone(3, (35.0, 52.0), (15.0, 50.0)),
    _drone(4, (48.0, 64.0), (20.0, 80.0)),
    _drone(5, (58.0, 75.0), (30.0, 120.0)),
    _ground(6, "cctv", 2.5, (5.0, 9.0)),
    _ground(7, "cctv", 2.8, (5.0, 12.0)),
    _ground(8, "cctv", 3.1, (6.0, 13.0)),
    _ground(9, "cctv", 3.5, (7.0, 14.0)),
    _ground(10, "cctv", 4.0, (8.0, 15.0)),
    _ground(11, "wearable", 1.45, (2.5, 6.0)),
    _ground(12, "wearable", 1.55, (3.0, 7.0)),
    _ground(13, "wearable", 1.65, (3.5, 8.0)),
)
AERIAL = tuple(camera.number for camera in CAMERAS if camera.platform == "drone")


@functools.lru_cache(64)
def lens(seed: int, number: int) -> capture.Lens:
    """The lens of a camera: always the same one."""
    return capture.lens(_rng(seed, "lens", number), CAMERAS[number - 1].platform)


# ---- splits ----------------------------------------------------------------------------------


def people_split(number: int) -> str:
    """The split of a person: even numbers train, odd ones test."""
    return "test" if number % 2 else "train"


def split(number: int, place: int) -> str:
    """The split of the picture at a place of a person's plan.

    Half of the people of the test split are asked for, with one picture from above and one from
    below; the two before them in the plan come from two other cameras and stay in the gallery.
    """
    if people_split(number) == "train":
        return "train"
    return "query" if number % 4 == 1 and place in QUERIES else "gallery"


# ---- who is seen by whom ---------------------------------------------------------------------


def plan(seed: int, number: int, count: int) -> list[Shot]:
    """The pictures of a person: which cameras, and what each of them takes.

    Two or three flying cameras and three to five others see everyone, in turns; each takes
    pictures of a short walk, `LEG` of them, then of another one.

    Args:
        seed: Of the world.
        number: Of the person.
        count: Pictures, > 0.
    """
    chosen = seen_by(seed, number)
    return [
        _shot(seed, number, CAMERAS[chosen[k % len(chosen)] - 1], k // len(chosen))
        for k in range(count)
    ]


def seen_by(seed: int, number: int) -> tuple[int, ...]:
    """Numbers of the cameras that see a person, in the order of their turns.

    Of the first four two fly; the next two see the person from above and from below.
    """
    rng = _rng(seed, "plan", number)
    above = rng.permutation(AERIAL)[: rng.integers(2, 4)].tolist()
    below = rng.permutation(np.arange(len(AERIAL) + 1, len(CAMERAS) + 1))
    below = below[: rng.integers(3, 6)].tolist()
    first = [camera for pair in zip(above[:2], below[:2], strict=True) for camera in pair]
    return (*first, *rng.permutation(above[2:] + below[2:]).tolist())


def _shot(seed: int, number: int, camera: Camera, index: int) -> Shot:
    """Picture `index` that a camera takes of a person."""
    walk = f"{camera.camid}-{index // LEG}"
    station = _station(_rng(seed, "walk", number, walk), camera, lens(seed, camera.number))
    where = street(seed, number, camera, walk, station)
    own = _rng(seed, "shot", number, camera.number, index)
    if camera.platform == "drone":
        station = _hover(own, camera, station)
    return Shot(
        name=f"{camera.camid}_{index}",
        camera=camera.number,
        camid=camera.camid,
        platform=camera.platform,
        index=index,
        moment=walk,
        time=(index % LEG - (LEG - 1) / 2) * 0.7 + float(own.uniform(-0.2, 0.2)),
        station=_framed(own, camera, station),
        lens=lens(seed, camera.number),
        where=where,
        busy=True,
    )


def street(
    seed: int, number: int, camera: Camera, walk: str, station: capture.Station
) -> scenes.Place:
    """Where a camera stands, in the light of the day on which a person passes."""
    where = _street(seed, camera.number)
    hour = scenes.place(_rng(seed, "light", number, camera.number))
    where = replace(where, **{name: getattr(hour, name) for name in LIGHT})
    rng = _rng(seed, "way", number, walk)
    if camera.platform != "cctv":
        return scenes.standing(where, tuple(rng.uniform(-4, 4, 2)), rng.uniform(0, 360))
    # A fixed camera stays where it is in the street: who passes is where it says, not the reverse.
    view = _rng(seed, "view", camera.number).uniform(0, 360)
    towards = view + rng.uniform(-20, 20)
    ground, far = station.distance * math.cos(math.radians(station.elevation)), camera.distance
    at = np.array([_unit(view), _unit(towards)]) * [[sum(far) / 2], [-ground]]
    return scenes.standing(where, tuple(at.sum(0)), towards - station.azimuth)


@functools.lru_cache(64)
def _street(seed: int, number: int) -> scenes.Place:
    return scenes.place(_rng(seed, "street", number))


def _unit(heading: float) -> tuple[float, float]:
    """A heading, degrees from +z towards +x, as (x, z)."""
    return math.sin(math.radians(heading)), math.cos(math.radians(heading))


def instant(seed: int, number: int, n: int) -> list[Shot]:
    """Moment `n` of a person, seen by five cameras at once.

    Two on the ground, a fixed one and a worn one, about opposite each other, one rather in front
    and one rather behind; three drones, low, middle and high.

    Args:
        n: 0, 1, ...
    """
    rng = _rng(seed, "instant", number, n)
    where = scenes.place(_rng(seed, "instant place", number, n))
    where = scenes.standing(where, tuple(rng.uniform(-4, 4, 2)), rng.uniform(0, 360))
    fixed = CAMERAS[int(rng.integers(6, 11)) - 1]
    worn = CAMERAS[int(rng.integers(11, 14)) - 1]
    front = rng.uniform(-45, 45)
    back = front + 180 + rng.uniform(-35, 35)
    around = (front, back) if rng.random() < 0.5 else (back, front)
    found = [(fixed, around[0], None), (worn, around[1], None)]
    for (low, high), flying in BINS.items():
        elevation = float(rng.uniform(low, high))
        found.append((_nearest(flying, elevation), rng.uniform(0, 360), elevation))
    shots = []
    for camera, azimuth, elevation in found:
        own = _rng(seed, "instant shot", number, n, camera.number)
        station = _station(own, camera, lens(seed, camera.number), azimuth, elevation)
        shots.append(
            Shot(
                name=f"{n}_{camera.camid}",
                camera=camera.number,
                camid=camera.camid,
                platform=camera.platform,
                index=n,
                moment=f"instant-{n}",
                time=0.0,
                station=_framed(own, camera, station),
                lens=lens(seed, camera.number),
                where=where,
                busy=True,
                instant=str(n),
            )
        )
    return shots


def _nearest(numbers: tuple[int, ...], elevation: float) -> Camera:
    """The camera whose range is nearest to an elevation."""
    return min(
        (CAMERAS[number - 1] for number in numbers),
        key=lambda camera: abs(sum(camera.elevation) / 2 - elevation),
    )


# ---- where a camera is -----------------------------------------------------------------------


def _station(
    rng: np.random.Generator,
    camera: Camera,
    eye: capture.Lens,
    azimuth: float | None = None,
    elevation: float | None = None,
) -> capture.Station:
    """Where a camera is when a person is in the middle of a walk."""
    azimuth = rng.uniform(0, 360) if azimuth is None else azimuth
    focal = cameras.focal_length(eye.vfov, eye.picture[0])
    if camera.platform == "drone":
        elevation = rng.uniform(*camera.elevation) if elevation is None else elevation
        e_rad = math.radians(elevation)
        length = focal * (STATURE * math.cos(e_rad) + DEPTH * math.sin(e_rad))
        away = tuple((height - MIDDLE) / math.sin(e_rad) for height in camera.altitude)
        distance = _within(rng, away, length, DRONE_PIXELS)
    else:
        ground = _within(rng, camera.distance, focal * STATURE, GROUND_PIXELS)
        distance, elevation = _level(ground, camera.altitude[0])
    return capture.Station(
        elevation=float(elevation),
        azimuth=float(azimuth % 360),
        distance=distance,
        off=(0.0, 0.0),
        roll=0.0,
    )


def _within(rng, away: tuple[float, float], length: float, pixels: tuple[float, float]) -> float:
    """A distance in a range, metres, at which something is neither too small nor too large.

    Args:
        length: In pixels at one metre.
    """
    low, high = max(away[0], length / pixels[1]), min(away[1], length / pixels[0])
    if low >= high:
        return float(np.clip(low, *away))
    return float(low * (high / low) ** rng.uniform())  # as many twice as large as half as large


def _level(ground: float, height: float) -> tuple[float, float]:
    """Distance and elevation about the target, from metres along the ground and above it."""
    return math.hypot(ground, height - MIDDLE), math.degrees(math.atan2(height - MIDDLE, ground))


def _hover(rng: np.random.Generator, camera: Camera, station: capture.Station) -> capture.Station:
    """A drone follows the person, and drifts."""
    low, high = camera.elevation
    elevation = float(np.clip(station.elevation + rng.normal(0, 1.5), low, high))
    azimuth = (station.azimuth + rng.normal(0, 6 if camera.number > 1 else 20)) % 360
    distance = station.distance * float(rng.uniform(0.95, 1.05))
    return replace(station, elevation=elevation, azimuth=float(azimuth), distance=distance)


def _framed(rng: np.random.Generator, camera: Camera, station: capture.Station) -> capture.Station:
    """Nobody stands in the middle of a picture, and few cameras are level."""
    high = 0.36 if camera.platform == "drone" else 0.12
    tilt = {"drone": 1.5, "cctv": 0.8, "wearable": 2.5}[camera.platform]
    return replace(
        station,
        off=(float(rng.uniform(-0.36, 0.36)), float(rng.uniform(-high, high))),
        roll=float(np.clip(rng.normal(0, tilt), -3 * tilt, 3 * tilt)),
    )


def _rng(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, "rig", *names))
