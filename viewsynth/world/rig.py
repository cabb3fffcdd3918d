# SPDX-License-Identifier: Apache-2.0
"""The rig: thirteen cameras as in CARGO, and which of them see a person, when and from where.

seed and person -> `plan`, `instant` (this module) -> `shots.take` -> images. Cameras 1 to 5 are
drones, of which the first looks straight down; 6 to 10 are fixed (CCTV), 11 to 13 are worn. A
camera keeps its lens and its street; the light depends on the person and the camera.

A longer plan starts with the shorter one, so more images of a person do not change existing ones.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

from viewsynth import cameras
from viewsynth.records import seed_of
from viewsynth.world import revisions, scenes, sensor
from viewsynth.world.capture import Station
from viewsynth.world.shots import Shot

STATURE, DEPTH = 1.72, 0.45  # extent of a person seen from the side and from above, metres
MIDDLE = STATURE / 2
WALK = 6  # images that a camera takes of one walk; then another walk begins
GROUND_PIXELS = (80.0, 260.0)  # height of people in the image of a ground camera
QUERIES = (2, 3)  # positions in a person's plan that become queries, one aerial, one ground
# Fields of a place that depend on the time of day.
LIGHT = (
    "weather",
    "sun",
    "sun_light",
    "sky_light",
    "penumbra",
    "dapple",
    "cover",
    "haze",
    "level",
    "glare",
)
# Elevations of the three drones of an instant, degrees, and the cameras they are chosen from.
BINS = {(25.0, 47.0): (2, 3), (47.0, 68.0): (4,), (68.0, 90.0): (5, 1)}


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera of the rig.

    Args:
        number: 1 to 13; 1 to 5 are drones.
        platform: One of `sensor.PLATFORMS`.
        altitude: Range of the height above the ground, metres.
        elevation: Range of the elevation of a drone, degrees.
        distance: Range of the distance along the ground of a ground camera, metres.
    """

    number: int
    platform: str
    altitude: tuple[float, float]
    elevation: tuple[float, float] = (0.0, 0.0)
    distance: tuple[float, float] = (0.0, 0.0)

    @property
    def camid(self) -> str:
        """Name of the camera."""
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
def lens(seed: int, number: int, revision: int = revisions.NEWEST) -> sensor.Lens:
    """Lens of a camera, the same for all its images.

    Args:
        seed: Seed of the world.
        number: Number of the camera.
        revision: Of the world.

    Returns:
        The lens.
    """
    rng, platform = _rng(seed, "lens", number), CAMERAS[number - 1].platform
    if revision == 1:
        return sensor.sample_lens(rng, platform, revision)
    # Latin hypercube: the cameras of a platform cover the range of each parameter in every rig.
    alike = [camera.number for camera in CAMERAS if camera.platform == platform]
    quantiles = {}
    for name in (*sensor.RANGES[revision], "exposure"):
        order = _rng(seed, "latin", platform, name).permutation(len(alike))
        quantiles[name] = float(order[alike.index(number)] + rng.uniform(0.1, 0.9)) / len(alike)
    return sensor.sample_lens(rng, platform, revision, quantiles)


# ---- splits ----------------------------------------------------------------------------------


def people_split(number: int) -> str:
    """Split of a person: even numbers "train", odd numbers "test"."""
    return "test" if number % 2 else "train"


def split(number: int, index: int) -> str:
    """Split of an image of a person's plan.

    Half of the test people have queries: one aerial and one ground image. The two images before
    them in the plan come from two other cameras and are in the gallery.

    Args:
        number: Number of the person.
        index: Position of the image in the plan.

    Returns:
        "train", "query" or "gallery".
    """
    if people_split(number) == "train":
        return "train"
    return "query" if number % 4 == 1 and index in QUERIES else "gallery"


# ---- which cameras see a person --------------------------------------------------------------


def plan(seed: int, number: int, count: int, revision: int = revisions.NEWEST) -> list[Shot]:
    """The shots of a person outside the instants.

    Two or three drones and three to five ground cameras see each person, in turns; each takes
    `WALK` images of a short walk, then of another walk.

    Args:
        seed: Seed of the world.
        number: Number of the person.
        count: Number of shots, > 0.
        revision: Of the world.

    Returns:
        The shots.
    """
    chosen = cameras_of(seed, number)
    return [
        _shot(seed, number, CAMERAS[chosen[k % len(chosen)] - 1], k // len(chosen), revision)
        for k in range(count)
    ]


def cameras_of(seed: int, number: int) -> tuple[int, ...]:
    """Numbers of the cameras that see a person, in the order of their turns.

    Two of the first four are drones; the third and fourth see the person from above and from
    below, see `QUERIES`.

    Args:
        seed: Seed of the world.
        number: Number of the person.

    Returns:
        Numbers of cameras.
    """
    rng = _rng(seed, "plan", number)
    above = rng.permutation(AERIAL)[: rng.integers(2, 4)].tolist()
    below = rng.permutation(np.arange(len(AERIAL) + 1, len(CAMERAS) + 1))
    below = below[: rng.integers(3, 6)].tolist()
    first = [camera for pair in zip(above[:2], below[:2], strict=True) for camera in pair]
    return (*first, *rng.permutation(above[2:] + below[2:]).tolist())


def _shot(seed: int, number: int, camera: Camera, index: int, revision: int) -> Shot:
    """Image `index` that a camera takes of a person."""
    walk = f"{camera.camid}-{index // WALK}"
    optics = lens(seed, camera.number, revision)
    station = _station(_rng(seed, "walk", number, walk), camera, optics, revision)
    place = _place(seed, number, camera, walk, station, revision)
    rng = _rng(seed, "shot", number, camera.number, index)
    if camera.platform == "drone":
        station = _drifted(rng, camera, station)
    return Shot(
        name=f"{camera.camid}_{index}",
        camera=camera.number,
        camid=camera.camid,
        platform=camera.platform,
        index=index,
        moment=walk,
        time=(index % WALK - (WALK - 1) / 2) * 0.7 + float(rng.uniform(-0.2, 0.2)),
        station=_framed(rng, camera, station),
        lens=optics,
        place=place,
        busy=True,
        revision=revision,
    )


def _place(
    seed: int, number: int, camera: Camera, walk: str, station: Station, revision: int
) -> scenes.Place:
    """The street of a camera, in the light in which a person passes it."""
    place = _street(seed, camera.number, revision)
    hour = scenes.sample_place(_rng(seed, "light", number, camera.number), revision=revision)
    place = replace(place, **{name: getattr(hour, name) for name in LIGHT})
    rng = _rng(seed, "way", number, walk)
    if camera.platform != "cctv":
        return scenes.standing(place, tuple(rng.uniform(-4, 4, 2)), rng.uniform(0, 360))
    # A fixed camera keeps its position in the street: the position of the person follows from it.
    view = _rng(seed, "view", camera.number).uniform(0, 360)
    towards = view + rng.uniform(-20, 20)
    ground, far = station.distance * math.cos(math.radians(station.elevation)), camera.distance
    at = np.array([_unit(view), _unit(towards)]) * [[sum(far) / 2], [-ground]]
    return scenes.standing(place, tuple(at.sum(0)), towards - station.azimuth)


@functools.lru_cache(64)
def _street(seed: int, number: int, revision: int) -> scenes.Place:
    return scenes.sample_place(_rng(seed, "street", number), revision=revision)


def _unit(heading: float) -> tuple[float, float]:
    """A heading, degrees from +z towards +x, as (x, z)."""
    return math.sin(math.radians(heading)), math.cos(math.radians(heading))


def instant(seed: int, number: int, n: int, revision: int = revisions.NEWEST) -> list[Shot]:
    """Moment `n` of a person, seen by five cameras at once.

    Two on the ground, one fixed and one worn, roughly opposite each other, one in front of the
    person and one behind; three drones, at low, middle and high elevation.

    Args:
        seed: Seed of the world.
        number: Number of the person.
        n: 0, 1, ...
        revision: Of the world.

    Returns:
        Five shots.
    """
    rng = _rng(seed, "instant", number, n)
    place_rng = _rng(seed, "instant place", number, n)
    place = scenes.sample_place(place_rng, revision=revision)
    place = scenes.standing(place, tuple(rng.uniform(-4, 4, 2)), rng.uniform(0, 360))
    fixed = CAMERAS[int(rng.integers(6, 11)) - 1]
    worn = CAMERAS[int(rng.integers(11, 14)) - 1]
    front = rng.uniform(-45, 45)
    back = front + 180 + rng.uniform(-35, 35)
    around = (front, back) if rng.random() < 0.5 else (back, front)
    views = [(fixed, around[0], None), (worn, around[1], None)]
    for (low, high), drones in BINS.items():
        elevation = float(rng.uniform(low, high))
        views.append((_nearest(drones, elevation), rng.uniform(0, 360), elevation))
    shots = []
    for camera, azimuth, elevation in views:
        own = _rng(seed, "instant shot", number, n, camera.number)
        optics = lens(seed, camera.number, revision)
        station = _station(own, camera, optics, revision, azimuth, elevation)
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
                lens=optics,
                place=place,
                busy=True,
                instant=str(n),
                revision=revision,
            )
        )
    return shots


def _nearest(numbers: tuple[int, ...], elevation: float) -> Camera:
    """The camera whose range of elevations is centred nearest to an elevation."""
    return min(
        (CAMERAS[number - 1] for number in numbers),
        key=lambda camera: abs(sum(camera.elevation) / 2 - elevation),
    )


# ---- position of a camera --------------------------------------------------------------------


def _station(
    rng: np.random.Generator,
    camera: Camera,
    lens: sensor.Lens,
    revision: int,
    azimuth: float | None = None,
    elevation: float | None = None,
) -> Station:
    """Position of a camera relative to a person in the middle of a walk; None = random."""
    azimuth = rng.uniform(0, 360) if azimuth is None else azimuth
    focal = cameras.focal_length(lens.vfov, lens.frame[0])
    if camera.platform == "drone":
        elevation = rng.uniform(*camera.elevation) if elevation is None else elevation
        e_rad = math.radians(elevation)
        length = focal * (STATURE * math.cos(e_rad) + DEPTH * math.sin(e_rad))
        limits = tuple((height - MIDDLE) / math.sin(e_rad) for height in camera.altitude)
        distance = _distance(rng, limits, length, revisions.of(revision).drone_pixels)
    else:
        ground = _distance(rng, camera.distance, focal * STATURE, GROUND_PIXELS)
        distance, elevation = _level(ground, camera.altitude[0])
    return Station(elevation=float(elevation), azimuth=float(azimuth % 360), distance=distance)


def _distance(
    rng: np.random.Generator,
    limits: tuple[float, float],
    length: float,
    pixels: tuple[float, float],
) -> float:
    """Sample a distance at which a person is neither too small nor too large in the image.

    Args:
        rng: Generator of the distance.
        limits: Range of the distance, metres.
        length: Height of the person in the image at a distance of one metre, pixels.
        pixels: Range of the height in the image.

    Returns:
        Metres, log-uniform; the nearest limit if the ranges do not meet.
    """
    low, high = max(limits[0], length / pixels[1]), min(limits[1], length / pixels[0])
    if low >= high:
        return float(np.clip(low, *limits))
    return float(low * (high / low) ** rng.uniform())


def _level(ground: float, height: float) -> tuple[float, float]:
    """Distance to and elevation about the target, from metres along and above the ground."""
    return math.hypot(ground, height - MIDDLE), math.degrees(math.atan2(height - MIDDLE, ground))


def _drifted(rng: np.random.Generator, camera: Camera, station: Station) -> Station:
    """Position of a drone that follows the person, with some drift."""
    low, high = camera.elevation
    elevation = float(np.clip(station.elevation + rng.normal(0, 1.5), low, high))
    azimuth = (station.azimuth + rng.normal(0, 6 if camera.number > 1 else 20)) % 360
    distance = station.distance * float(rng.uniform(0.95, 1.05))
    return replace(station, elevation=elevation, azimuth=float(azimuth), distance=distance)


def _framed(rng: np.random.Generator, camera: Camera, station: Station) -> Station:
    """The station with a random position of the target in the frame and a random roll."""
    high = 0.36 if camera.platform == "drone" else 0.12
    tilt = {"drone": 1.5, "cctv": 0.8, "wearable": 2.5}[camera.platform]
    return replace(
        station,
        offset=(float(rng.uniform(-0.36, 0.36)), float(rng.uniform(-high, high))),
        roll=float(np.clip(rng.normal(0, tilt), -3 * tilt, 3 * tilt)),
    )


def _rng(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, "rig", *names))
