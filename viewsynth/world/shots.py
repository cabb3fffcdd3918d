# SPDX-License-Identifier: Apache-2.0
"""Shots: one person, one camera, one moment -> a picture with its truth.

people, gait, garments, scenes, capture -> this -> the demo (`write`), the tests (`one`) and, with
the cameras of `rig`, the world that `viewsynth world` writes. A picture is a function of (seed,
person, shot): the same call gives the same bytes, whatever else is drawn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from viewsynth.records import seed_of
from viewsynth.runtime import files, images
from viewsynth.world import capture, gait, of_person, people, scenes, stride
from viewsynth.world.character import Character, Dressed
from viewsynth.world.mannequin import mannequin

STRANGERS = 1_000_000  # numbers from here on are people who only pass by
TURNS = 50  # how often a simple picture is drawn again because something stands before the person
POSTURES = {
    "": gait.KINDS,
    "walk": ("walk", "stand"),
    "run": ("run",),
    "cycle": ("cycle",),
    "sit": ("stand",),
}
PHONE = ("text", "text2", "ear")  # what an arm does that holds a telephone
WHOLE = 0.02  # share of a person that may be hidden in a simple picture
COMPANY = 0.15  # share of busy shots in which somebody else stands near


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One camera and one moment.

    Args:
        name: Unique among the shots of a person; the picture's own draws hang on it.
        camera: Number in the rig; 0 = none of its cameras.
        camid, platform: See `records.Sample`.
        index: Counts the pictures of this person and camera.
        station: Where the camera is about the target when `time` is 0.
        lens: What takes the picture.
        where: Street and light, and where in it the person is when `time` is 0.
        moment: Shots of one moment show one motion of the person.
        time: Seconds from the middle of that motion; who walks, passes a camera that does not fly.
        busy: Whether others may stand about, and the person may run or cycle.
        instant: Name of the instant that several cameras saw; "" = none.
        posture: One of `POSTURES`, whose hands are then free; "" = whatever the person does.
    """

    name: str
    camera: int = 0
    camid: str
    platform: str
    index: int = 0
    station: capture.Station
    lens: capture.Lens
    where: scenes.Place
    moment: str = ""
    time: float = 0.0
    busy: bool = False
    instant: str = ""
    posture: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture and everything that is true of it.

    Args:
        station: Where the camera was; elevation and azimuth in degrees, distance in metres.
        altitude: Of the camera above the ground, metres.
        photo: Pixels, part map, keypoints and camera, see `capture.Photo`.
        joints: `bodies.KEYPOINTS` in the world frame, metres.  float32 [K, 3]
        motion, pose, lift: What the person did; pose float32 [P, 3], see `gait`.
    """

    identity: people.Identity
    shot: Shot
    station: capture.Station
    altitude: float
    photo: capture.Photo
    joints: np.ndarray
    motion: gait.Motion
    pose: np.ndarray
    lift: float

    @property
    def image(self) -> np.ndarray:
        """RGB.  uint8 [H, W, 3]"""
        return self.photo.image

    @property
    def mask(self) -> np.ndarray:
        """Pixels of the person.  bool [H, W]"""
        return of_person(self.photo.labels)

    @property
    def pid(self) -> str:
        """Who it is."""
        return self.identity.pid

    @property
    def view(self) -> str:
        """See `records.VIEWS`."""
        return "aerial" if self.shot.platform == "drone" else "ground"


def take(seed: int, number: int, shots: Sequence[Shot]) -> list[Picture]:
    """Take pictures of one person.

    Args:
        seed: Of the world.
        number: Of the person.
        shots: With names of their own.
    """
    return [picture(seed, number, shot) for shot in shots]


def picture(seed: int, number: int, shot: Shot) -> Picture:
    """Take one picture of one person; their dressed body is kept for the next one."""
    character = _character(seed, number)
    calm, moment = not (shot.busy or shot.posture), shot.moment or shot.name
    motion = _later(_motion(seed, character, moment, calm, shot.posture), shot.time)
    person, pose, lift = _posed(character, motion, shot.posture == "sit")
    station, way = shot.station, motion.speed * shot.time
    if shot.platform != "drone":
        station = passed(station, way)
    turn_rad = math.radians(shot.where.heading)
    x, z = np.add(shot.where.at, (way * math.sin(turn_rad), way * math.cos(turn_rad))).tolist()
    where = scenes.standing(shot.where, (x, z), shot.where.heading)
    rng = _rng(seed, "picture", number, shot.name)
    others = _others(seed, number, shot, rng) if shot.busy else ()
    photo = capture.photograph(person, station, where, shot.lens, rng, others)
    e_rad = math.radians(station.elevation)
    return Picture(
        identity=character.who,
        shot=shot,
        station=station,
        photo=photo,
        joints=person.keypoints,
        altitude=photo.target_height + station.distance * math.sin(e_rad),
        motion=motion,
        pose=pose,
        lift=lift,
    )


def passed(station: capture.Station, way: float) -> capture.Station:
    """Where a camera that stays is about a person who has gone on by so many metres."""
    if not way:
        return station
    e_rad, a_rad = math.radians(station.elevation), math.radians(station.azimuth)
    ground, up = station.distance * math.cos(e_rad), station.distance * math.sin(e_rad)
    x, z = ground * math.sin(a_rad), ground * math.cos(a_rad) - way
    near = max(math.hypot(x, z), 0.75 * ground)  # nobody runs into a camera
    return replace(
        station,
        elevation=math.degrees(math.atan2(up, near)),
        azimuth=math.degrees(math.atan2(x, z)) % 360,
        distance=math.hypot(near, up),
    )


def _later(motion: gait.Motion, seconds: float) -> gait.Motion:
    """A motion some time later."""
    turned = motion.phase + gait.rate(motion, mannequin().body) * seconds
    return replace(motion, phase=round(turned % 360, 2) % 360)


def _motion(
    seed: int, character: Character, moment: str, calm: bool = False, posture: str = ""
) -> gait.Motion:
    """What a person does at a moment.

    Args:
        calm: Neither runs nor cycles.
        posture: See `Shot`.
    """
    rng = _rng(seed, "motion", character.who.number, moment)
    hand, kinds = "" if posture else character.hand, POSTURES[posture]
    while (motion := gait.motion(rng, hand)).kind not in kinds or (
        calm and motion.kind in ("run", "cycle")
    ):
        pass
    return motion


def _posed(
    character: Character, motion: gait.Motion, sits: bool = False
) -> tuple[Dressed, np.ndarray, float]:
    body = mannequin().body
    if sits:
        pose = gait.seated(motion, body)
        return character.posed(pose, 0.0, ""), pose.numpy(), 0.0
    pose, lift = gait.pose(motion, body), gait.lift(motion, stride.legs_of(body).length)
    talks = [side for side, arm in zip(("left", "right"), motion.arms, strict=True) if arm in PHONE]
    return character.posed(pose, lift, talks[0] if talks else ""), pose.numpy(), lift


def _others(seed: int, number: int, shot: Shot, rng: np.random.Generator) -> tuple:
    """Who else stands or walks near: [(person, (x, z), heading)]."""
    if rng.random() >= COMPANY:
        return ()
    # Two strangers a person: their clothes need not be made anew for every picture.
    stranger = STRANGERS + 2 * number + int(rng.integers(2))
    character = _character(seed, stranger)
    person, _, _ = _posed(character, _motion(seed, character, f"{number} {shot.name}", calm=True))
    away, around = rng.uniform(0.6, 2.5), rng.uniform(0, 2 * math.pi)
    heading = rng.normal(0, 20) + (180 if rng.random() < 0.3 else 0)
    return ((person, (away * math.sin(around), away * math.cos(around)), float(heading)),)


@functools.lru_cache(4)
def _character(seed: int, number: int) -> Character:
    """A person, dressed; the last few are kept."""
    return Character(people.identity(seed, number))


def _rng(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, "shots", *names))


# ---- single pictures, for the demo and the tests ---------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Simple:
    """A shot in plain words: a person in the middle of the picture, with nobody else near.

    Args:
        elevation, azimuth, distance: Of the camera; degrees and metres.
        jitter: Half range of a random change of the azimuth per person, degrees.
        height: Of a standing person in a level picture, margins included, pixels.
        moment: Shots of one moment show the same pose; "" = a moment of its own.
        posture: See `Shot`.
    """

    name: str
    elevation: float
    azimuth: float
    platform: str = "wearable"
    camid: str = ""
    jitter: float = 0.0
    distance: float = 8.0
    height: int = 240
    moment: str = ""
    posture: str = ""


SHOTS = (
    Simple(name="front", elevation=5, azimuth=15, camid="w1", jitter=25),
    Simple(
        name="back", elevation=12, azimuth=190, platform="cctv", camid="c1", jitter=35, distance=10
    ),
)


def draw(
    count: int, seed: int = 0, shots: tuple[Simple, ...] = SHOTS, first: int = 0
) -> list[Picture]:
    """Pictures of people, person by person, in the order of the shots.

    Args:
        count: How many people, numbers `first` to `first + count - 1`.
        seed: Of the whole population.
    """
    return [one(number, seed, shot) for number in range(first, first + count) for shot in shots]


def one(number: int, seed: int, simple: Simple) -> Picture:
    """One picture of one person."""
    camid = simple.camid or simple.name
    rng = _rng(seed, "one", number, simple.name)
    azimuth = (simple.azimuth + rng.uniform(-1, 1) * simple.jitter) % 360
    lens = capture.lens(_rng(seed, "lens", camid), simple.platform)
    # So many pixels that a person of 1.75 m with margins of a tenth is as high as asked for.
    focal = simple.height * simple.distance / 1.95
    rows = round(2 * focal * math.tan(math.radians(lens.vfov) / 2))
    lens = replace(lens, picture=(rows, round(rows * 16 / 9)))
    station = capture.Station(
        elevation=float(simple.elevation),
        azimuth=float(azimuth),
        distance=float(simple.distance),
        off=(0.0, 0.0),
        roll=0.0,
    )
    shot = Shot(
        name=simple.name,
        camid=camid,
        platform=simple.platform,
        station=station,
        lens=lens,
        where=scenes.place(_rng(seed, "street", camid, number)),
        moment=simple.moment or simple.name,
        posture=simple.posture,
    )
    for turn in range(TURNS):  # until nothing hides or cuts off the person
        drawn = picture(seed, number, replace(shot, name=f"{simple.name}{turn * '+'}"))
        if drawn.photo.occlusion < WHOLE:
            return replace(drawn, shot=shot)
    raise ValueError(
        f"the shot {simple.name!r} of person {number} was hidden in {TURNS} draws; take another "
        "elevation or distance"
    )


def write(
    root: str | Path, count: int = 6, seed: int = 0, shots: tuple[Simple, ...] = SHOTS
) -> Path:
    """Draw people into a folder that `data.folder` reads: `<pid>/<name>.jpg` and `metadata.jsonl`.

    Returns: The folder.
    """
    root, rows = Path(root), []
    for number in range(count):
        for drawn in draw(1, seed, shots, first=number):
            name = f"{drawn.pid}/{drawn.shot.name}.jpg"
            files.write(root / name, images.jpeg(drawn.image, images.DRAWN))
            rows.append(
                {
                    "file_name": name,
                    "pid": drawn.pid,
                    "camid": drawn.shot.camid,
                    "platform": drawn.shot.platform,
                    "view": drawn.view,
                    "elevation": drawn.station.elevation,
                    "source": "synthetic",
                }
            )
    rows.sort(key=lambda row: row["file_name"])
    files.write(root / "metadata.jsonl", files.lines(rows))
    return root
