# SPDX-License-Identifier: Apache-2.0
"""Rows of `people.jsonl` and `truth.jsonl`: the ground truth of a world as plain JSON types.

people, words, shots -> this module -> writer. README describes the fields.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from viewsynth.world import rig, words
from viewsynth.world.people import Identity
from viewsynth.world.shots import Picture


def person_row(identity: Identity) -> dict:
    """Row of `people.jsonl`.

    Args:
        identity: The person.

    Returns:
        Plain JSON types.
    """
    return {
        "pid": identity.pid,
        "split": rig.people_split(identity.number),
        "phenotype": _plain(identity.phenotype),
        "local": _plain(identity.local),
        "scale": _plain(identity.scale),
        "skin": _plain(identity.skin),
        "hair": _plain(asdict(identity.hair)),
        "outfit": _plain(asdict(identity.outfit)),
        "words": words.words(identity),
        "caption": words.caption(identity),
        "attributes": words.attributes(identity).tolist(),
    }


def image_row(rendered: Picture, name: str, split: str, seed: int) -> dict:
    """Row of `truth.jsonl`.

    Args:
        rendered: The image.
        name: File name of the image.
        split: Its split.
        seed: Seed of the world.

    Returns:
        Plain JSON types.
    """
    shot, photo, identity = rendered.shot, rendered.photo, rendered.identity
    return {
        "file_name": name,
        "pid": rendered.pid,
        "camid": shot.camera,
        "platform": shot.platform,
        "view": rendered.view,
        "split": split,
        "index": shot.index,
        "instant": shot.instant,
        **_camera(rendered),
        "keypoints": [
            [round(float(x), 2), round(float(y), 2), int(v)] for x, y, v in photo.keypoints
        ],
        "joints": _plain(rendered.joints),
        "occlusion": _plain(photo.occlusion),
        "parts": f"parts/{name.removesuffix('.jpg')}.png",
        "pose": _plain(asdict(rendered.motion)),
        "pose_vector": _plain(rendered.pose.ravel(), 5),
        "lift": _plain(rendered.lift),
        "phenotype": _plain(identity.phenotype),
        "words": words.words(identity),
        "place": {
            "ground": shot.place.ground.kind,
            "weather": shot.place.weather,
            "sun": _plain(shot.place.own_sun()),
        },
        "seed": seed,
    }


def _camera(rendered: Picture) -> dict:
    """Fields of the camera and the crop."""
    photo, station = rendered.photo, rendered.station
    height, width = photo.image.shape[:2]
    return {
        "elevation": _plain(station.elevation, 3),
        "azimuth": _plain(station.azimuth, 3),
        "distance": _plain(station.distance),
        "altitude": _plain(rendered.altitude),
        "target_height": _plain(photo.target_height),
        "vfov": _plain(rendered.shot.lens.vfov),
        "box": _plain(photo.box, 2),
        "width": width,
        "height": height,
        "world_to_camera": _plain(photo.world_to_camera.ravel(), 7),
        "intrinsics": _plain(photo.intrinsics.ravel(), 5),
        "k1": _plain(photo.k1, 6),
    }


def _plain(value, digits: int = 4):
    """Numbers, arrays and nested containers as plain types, rounded to keep the JSON short."""
    if isinstance(value, dict):
        return {key: _plain(item, digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), digits)
    if isinstance(value, list | tuple):
        return [_plain(item, digits) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), digits)
    return value.item() if isinstance(value, np.generic) else value
