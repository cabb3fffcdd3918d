# SPDX-License-Identifier: Apache-2.0
"""Shots: one camera looking at one person at one moment, rendered with its ground truth.

people, motions, gait, character, scenes, capture -> this module -> the demo (`write_folder`), tests
(`render_one`) and, with the cameras of `rig`, the world that `viewsynth world` writes. An image
depends on (seed, person, shot) alone: the same call gives the same bytes, whatever else is
rendered.
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
from viewsynth.world import (
    capture,
    gait,
    motions,
    of_person,
    people,
    revisions,
    scenes,
    sensor,
    stride,
)
from viewsynth.world.character import Character, Dressed
from viewsynth.world.mannequin import mannequin

STRANGERS = 1_000_000  # first number of people who appear only near other people
ATTEMPTS = 50  # renderings of a simple shot until the person is not hidden
# Posture of a shot: the kinds of motion that show it; "sit" is a standing person, seated.
POSTURES = {
    "": motions.KINDS,
    "walk": ("walk", "stand"),
    "run": ("run",),
    "cycle": ("cycle",),
    "sit": ("stand",),
}
PHONE = ("text", "text2", "ear")  # poses of an arm that holds a telephone
WHOLE = 0.02  # share of a person that may be hidden in a simple shot


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One camera and one moment.

    Args:
        name: Unique among the shots of a person; seeds the random choices of the image.
        camera: Number in the rig; 0 = none of its cameras.
        camid, platform: See `records.Sample`.
        index: Counts the images of this person and camera.
        station: Position of the camera relative to the person when `time` is 0.
        lens: The camera's lens.
        place: Place and light, with the position of the person when `time` is 0.
        moment: Name of the motion: shots of one moment show one motion; "" = that of `name`.
        time: Seconds from the middle of the motion; a walking person passes a ground camera, and a
            drone follows.
        busy: Whether other people may be near, and the person may run or cycle.
        instant: Name of the instant that several cameras see at once; "" = none.
        posture: One of `POSTURES`, with free hands; "" = any motion.
        revision: Of the world.
    """

    name: str
    camera: int = 0
    camid: str
    platform: str
    index: int = 0
    station: capture.Station
    lens: sensor.Lens
    place: scenes.Place
    moment: str = ""
    time: float = 0.0
    busy: bool = False
    instant: str = ""
    posture: str = ""
    revision: int = revisions.NEWEST


@dataclass(frozen=True, kw_only=True)
class RenderedShot:
    """One rendered image and its ground truth.

    Args:
        identity: The person.
        shot: The shot.
        station: Position of the camera relative to the person.
        altitude: Height of the camera above the ground, metres.
        photo: Pixels, part map, keypoints and camera.
        joints: `bodies.KEYPOINTS` in the world frame, metres.  float32 [K, 3]
        motion: Motion of the person.
        pose: Rotation vectors, radians, see `gait.pose`.  float32 [P, 3]
        lift: Height of the lowest point of the person above the ground, metres.
    """

    identity: people.Identity
    shot: Shot
    station: capture.Station
    altitude: float
    photo: capture.Photo
    joints: np.ndarray
    motion: motions.Motion
    pose: np.ndarray
    lift: float

    @property
    def image(self) -> np.ndarray:
        """RGB, uint8 [H, W, 3]."""
        return self.photo.image

    @property
    def mask(self) -> np.ndarray:
        """Pixels of the person, bool [H, W]."""
        return of_person(self.photo.labels)

    @property
    def pid(self) -> str:
        """Identity of the person."""
        return self.identity.pid

    @property
    def view(self) -> str:
        """One of `records.VIEWS`."""
        return "aerial" if self.shot.platform == "drone" else "ground"


def take(seed: int, number: int, shots: Sequence[Shot]) -> list[RenderedShot]:
    """Render several shots of one person.

    Args:
        seed: Seed of the world.
        number: Number of the person.
        shots: Shots with different names.

    Returns:
        One image per shot.
    """
    return [render_shot(seed, number, shot) for shot in shots]


def render_shot(seed: int, number: int, shot: Shot) -> RenderedShot:
    """Render one shot of one person; the dressed body is cached for the next shot.

    Args:
        seed: Seed of the world.
        number: Number of the person.
        shot: The shot.

    Returns:
        The image and its ground truth.
    """
    motion, (person, pose, lift) = _moment(seed, number, shot)
    station, way = shot.station, motion.speed * shot.time
    if shot.platform != "drone":
        station = capture.passed(station, way)
    turn_rad = math.radians(shot.place.heading)
    x, z = np.add(shot.place.at, (way * math.sin(turn_rad), way * math.cos(turn_rad))).tolist()
    place = scenes.standing(shot.place, (x, z), shot.place.heading)
    rng = _rng(seed, "picture", number, shot.name)
    others = _others(seed, number, shot, rng) if shot.busy else ()
    photo = capture.photograph(person, station, place, shot.lens, rng, others, shot.revision)
    e_rad = math.radians(station.elevation)
    return RenderedShot(
        identity=person.identity,
        shot=shot,
        station=station,
        photo=photo,
        joints=person.keypoints,
        altitude=photo.target_height + station.distance * math.sin(e_rad),
        motion=motion,
        pose=pose,
        lift=lift,
    )


def dressed(seed: int, number: int, shot: Shot) -> Dressed:
    """The posed person of a shot in the world frame; for the arguments see `render_shot`."""
    return _moment(seed, number, shot)[1][0]


def _moment(
    seed: int, number: int, shot: Shot
) -> tuple[motions.Motion, tuple[Dressed, np.ndarray, float]]:
    """Motion of the person of a shot, and the person, pose and lift that follow from it."""
    character = _character(seed, number, shot.revision)
    calm, moment = not (shot.busy or shot.posture), shot.moment or shot.name
    motion = _later(_motion(seed, character, moment, calm, shot.posture), shot.time)
    return motion, _posed(character, motion, shot.posture == "sit")


def _later(motion: motions.Motion, seconds: float) -> motions.Motion:
    """The motion some seconds later."""
    turned = motion.phase + gait.rate(motion, mannequin().body) * seconds
    return replace(motion, phase=round(turned % 360, 2) % 360)


def _motion(
    seed: int, character: Character, moment: str, calm: bool = False, posture: str = ""
) -> motions.Motion:
    """Sample the motion of a person at a moment; a calm person neither runs nor cycles."""
    rng = _rng(seed, "motion", character.identity.number, moment)
    hand, kinds = "" if posture else character.hand, POSTURES[posture]
    while (motion := motions.sample_motion(rng, hand)).kind not in kinds or (
        calm and motion.kind in ("run", "cycle")
    ):
        pass
    return motion


def _posed(
    character: Character, motion: motions.Motion, sits: bool = False
) -> tuple[Dressed, np.ndarray, float]:
    body = mannequin().body
    if sits:
        pose = gait.seated(motion, body)
        return character.posed(pose, 0.0, ""), pose.numpy(), 0.0
    pose, lift = gait.pose(motion, body), gait.lift(motion, stride.legs_of(body).length)
    talks = [side for side, arm in zip(("left", "right"), motion.arms, strict=True) if arm in PHONE]
    return character.posed(pose, lift, talks[0] if talks else ""), pose.numpy(), lift


def _others(seed: int, number: int, shot: Shot, rng: np.random.Generator) -> tuple:
    """Other people near: [(person, (x, z) in metres, heading in degrees)]."""
    numbers = revisions.of(shot.revision)
    if rng.random() >= numbers.company:
        return ()
    # Two strangers per person, so that their geometry can be cached.
    first = int(rng.integers(2))
    count = 1 if numbers.companions == 1 else int(rng.integers(1, numbers.companions + 1))
    others = []
    for k in range(count):
        character = _character(seed, STRANGERS + 2 * number + (first + k) % 2, shot.revision)
        moment = f"{number} {shot.name}" + k * "+"
        person, _, _ = _posed(character, _motion(seed, character, moment, calm=True))
        away, around = rng.uniform(0.6, 2.5), rng.uniform(0, 2 * math.pi)
        heading = rng.normal(0, 20) + (180 if rng.random() < 0.3 else 0)
        at = (away * math.sin(around), away * math.cos(around))
        others.append((person, at, float(heading)))
    return tuple(others)


@functools.lru_cache(4)
def _character(seed: int, number: int, revision: int) -> Character:
    """A dressed person; the last few are cached."""
    return Character(people.identity(seed, number, revision))


def _rng(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, "shots", *names))


# ---- single images, for the demo and the tests -----------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SimpleShot:
    """A shot of a person in the middle of the frame, without other people.

    Args:
        name: Unique among the shots of a person.
        elevation, azimuth: Of the camera, degrees.
        platform, camid: See `records.Sample`; "" = the name.
        jitter: Half range of a random change of the azimuth per person, degrees.
        distance: From the camera to the target, metres.
        height: Height of a standing person seen at elevation 0, margins included, pixels.
        moment: Shots of one moment show the same pose; "" = a moment of its own.
        posture, revision: See `Shot`.
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
    revision: int = revisions.NEWEST


SHOTS = (
    SimpleShot(name="front", elevation=5, azimuth=15, camid="w1", jitter=25),
    SimpleShot(
        name="back", elevation=12, azimuth=190, platform="cctv", camid="c1", jitter=35, distance=10
    ),
)


def render(
    count: int, seed: int = 0, shots: tuple[SimpleShot, ...] = SHOTS, first: int = 0
) -> list[RenderedShot]:
    """Render people, person by person, in the order of the shots.

    Args:
        count: Number of people.
        seed: Seed of the population.
        shots: Shots of each person.
        first: Number of the first person.

    Returns:
        `count * len(shots)` images.
    """
    return [
        render_one(number, seed, shot) for number in range(first, first + count) for shot in shots
    ]


def render_one(number: int, seed: int, simple: SimpleShot) -> RenderedShot:
    """Render one image of one person.

    Args:
        number: Number of the person.
        seed: Seed of the population.
        simple: The shot.

    Returns:
        The image, in which nothing hides or cuts off the person.

    Raises:
        ValueError: If the person was hidden in all attempts.
    """
    camid = simple.camid or simple.name
    rng = _rng(seed, "one", number, simple.name)
    azimuth = (simple.azimuth + rng.uniform(-1, 1) * simple.jitter) % 360
    lens = sensor.sample_lens(_rng(seed, "lens", camid), simple.platform, simple.revision)
    # A person of 1.75 m with margins of a tenth is `height` pixels high.
    focal = simple.height * simple.distance / 1.95
    rows = round(2 * focal * math.tan(math.radians(lens.vfov) / 2))
    lens = replace(lens, frame=(rows, round(rows * 16 / 9)))
    station = capture.Station(
        elevation=float(simple.elevation),
        azimuth=float(azimuth),
        distance=float(simple.distance),
    )
    shot = Shot(
        name=simple.name,
        camid=camid,
        platform=simple.platform,
        station=station,
        lens=lens,
        place=scenes.sample_place(_rng(seed, "street", camid, number), revision=simple.revision),
        moment=simple.moment or simple.name,
        posture=simple.posture,
        revision=simple.revision,
    )
    for attempt in range(ATTEMPTS):
        rendered = render_shot(seed, number, replace(shot, name=f"{simple.name}{attempt * '+'}"))
        if rendered.photo.occlusion < WHOLE:
            return replace(rendered, shot=shot)
    raise ValueError(
        f"in the shot {simple.name!r}, person {number} was hidden in all {ATTEMPTS} renderings; "
        "use another elevation or distance"
    )


def write_folder(
    root: str | Path, count: int = 6, seed: int = 0, shots: tuple[SimpleShot, ...] = SHOTS
) -> Path:
    """Render people into a folder that `data.folder` reads.

    Args:
        root: The folder; it gets `<pid>/<name>.jpg` and `metadata.jsonl`.
        count: Number of people.
        seed: Seed of the population.
        shots: Shots of each person.

    Returns:
        The folder.
    """
    root, rows = Path(root), []
    for number in range(count):
        for rendered in render(1, seed, shots, first=number):
            name = f"{rendered.pid}/{rendered.shot.name}.jpg"
            files.write(root / name, images.jpeg(rendered.image, images.RENDERED))
            rows.append(
                {
                    "file_name": name,
                    "pid": rendered.pid,
                    "camid": rendered.shot.camid,
                    "platform": rendered.shot.platform,
                    "view": rendered.view,
                    "elevation": rendered.station.elevation,
                    "source": "synthetic",
                }
            )
    rows.sort(key=lambda row: row["file_name"])
    files.write(root / "metadata.jsonl", files.to_jsonl(rows))
    return root
