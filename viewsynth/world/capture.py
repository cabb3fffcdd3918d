# SPDX-License-Identifier: Apache-2.0
"""Capture: a camera looks at a dressed person in a place; a picture and its exact truth come out.

people -> character (geometry) + scenes (place) -> this -> shots, rig. Everything solid is drawn by
the z-buffer with several samples a pixel; ground and backdrops filter themselves and are drawn once
a pixel. The crop lies on the whole picture's own pixels, as a detector cuts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from viewsynth import bodies, cameras
from viewsynth.render import zbuffer
from viewsynth.world import LABELS, lights, props, scenes, sensor
from viewsynth.world.colours import linear
from viewsynth.world.sensor import Lens, lens

__all__ = ["Lens", "Photo", "Station", "lens", "photograph", "whole"]

OCCLUDER = LABELS.index("occluder")
STEEP = 60.0  # degrees; from there on cameras hang from a gimbal and are not levelled
# Depth of a keypoint under the surface that it is a keypoint of, metres, with clothes.
DEEP = dict.fromkeys(bodies.KEYPOINTS, 0.10) | {
    "nose": 0.05,
    "left_eye": 0.05,
    "right_eye": 0.05,
    "left_ear": 0.06,
    "right_ear": 0.06,
    "left_hip": 0.17,
    "right_hip": 0.17,
    "left_shoulder": 0.13,
    "right_shoulder": 0.13,
}


@dataclass(frozen=True, kw_only=True)
class Station:
    """Where a camera is and how it looks.

    Args:
        elevation, azimuth: Of the camera about the target, degrees; see `viewsynth.cameras`.
        distance: To the target, metres.
        off: Where in the whole picture the target is, from the middle, in widths and heights to
            the right and down.
        roll: About the line of sight, degrees, clockwise turn of the picture's contents.
    """

    elevation: float
    azimuth: float
    distance: float
    off: tuple[float, float] = (0.0, 0.0)
    roll: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One crop and its truth.

    Args:
        image: RGB.  uint8 [H, W, 3]
        labels: Index into `LABELS` of what takes most of a pixel.  uint8 [H, W]
        keypoints: `bodies.KEYPOINTS` on the crop: x, y in pixels, 1 visible or 0 hidden or outside.
            float32 [K, 3]
        box: The crop in the whole picture, (left, top, right, bottom), pixels; whole numbers.
        world_to_camera: float32 [4, 4]
        intrinsics: Of the crop, pixels.  float32 [3, 3]
        k1: Radial distortion; `cameras.Cameras` of these three projects world points to the crop.
        target_height: Height of the target above the ground, metres.
        occlusion: Share of the person's whole silhouette that is hidden or outside the crop.
    """

    image: np.ndarray
    labels: np.ndarray
    keypoints: np.ndarray
    box: tuple[float, float, float, float]
    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    k1: float
    target_height: float
    occlusion: float


def whole(station: Station, camera: Lens, target_height: float) -> cameras.Cameras:
    """The camera's whole picture, before anything is cut out of it.

    The camera turns so that the target comes to lie at `off`. Below `STEEP` it is levelled first
    (its x axis is horizontal) where that can be; then `roll` turns it about the line of sight.

    Args:
        target_height: Height of the target above the ground, metres.
    """
    height, width = camera.picture
    focal = cameras.focal_length(camera.vfov, height)
    bent = torch.tensor([station.off[0] * width, station.off[1] * height]).double() / focal
    flat = cameras.undistort(bent, torch.tensor(camera.k1, dtype=torch.float64))
    sight = np.append(flat.numpy(), 1.0)
    sight /= np.linalg.norm(sight)
    aim = _shortest(sight)
    spin_rad = 0.0
    steep_rad = math.radians(station.elevation)
    if station.elevation < STEEP:
        # x axis . up = 0 for the turn about the line of sight: a sin(t) - b cos(t) = c tan(e).
        want = aim[0, 2] * math.tan(steep_rad) / math.hypot(aim[0, 0], aim[0, 1])
        if abs(want) <= 1:
            spin_rad = math.asin(want) + math.atan2(aim[0, 1], aim[0, 0])
    spin_rad += math.radians(station.roll)
    cos, sin = math.cos(spin_rad), math.sin(spin_rad)
    turn = np.eye(4)
    turn[:3, :3] = aim @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    numbers = (station.elevation, station.azimuth, station.distance, target_height)
    pose = cameras.orbit(*(torch.tensor([float(v)], dtype=torch.float64) for v in numbers))
    pose = torch.from_numpy(turn @ pose[0].double().numpy())[None].float()
    matrix = cameras.pinhole(torch.tensor([focal]), camera.picture)
    return cameras.Cameras(pose, matrix, camera.picture, torch.tensor([camera.k1]))


def _shortest(sight: np.ndarray) -> np.ndarray:
    """The shortest rotation of the z axis into a unit direction.  [3, 3]"""
    x, y, z = sight
    cross = np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + z)


def photograph(
    person,
    station: Station,
    where: scenes.Place,
    camera: Lens,
    rng: np.random.Generator,
    others: tuple = (),
) -> Photo:
    """Take one picture of one person.

    Source: ours.

    Args:
        person: A `character.Dressed`: vertices, normals, faces, keypoints and `shade`.
        station: Where the camera is.
        where: The place, with the person standing in it (`scenes.standing`).
        rng: Of this picture: the detector's box, things in the way, the sensor.
        others: Other people: (Dressed, (x, z) metres from the person, heading in degrees).
    """
    target = float(person.vertices[:, 1].max()) / 2
    eye = whole(station, camera, target)
    pixels, _ = eye.project(torch.from_numpy(person.vertices)[None])
    body = torch.cat([pixels[0].amin(0), pixels[0].amax(0)]).double().numpy()
    box = _detect(body, camera.picture, rng)
    size = (int(box[3] - box[1]), int(box[2] - box[0]))
    things = [_moved(*other) for other in others]
    things += props.around(rng, station.azimuth, station.elevation)
    coarse = station.distance / float(eye.intrinsics[0, 0, 0])
    crop = eye.window(torch.from_numpy(box).float()[None], size)
    layers = _draw([person, *things], eye, body, box, size)
    near = [t for t, seen in zip([person, *things], layers.used, strict=True) if seen]
    people = tuple(t.keypoints for t in near if hasattr(t, "keypoints"))
    light = lights.light(where, near, people, coarse)
    picture, labels, share = _shade([person, *things], layers, light, crop)
    background, _ = scenes.surroundings(where, *_rays(crop), _pixel(crop), light.ground)
    picture += background.reshape(*size, 3) * (1 - share)[..., None]
    return Photo(
        image=sensor.sense(picture, camera, where.level, rng),
        labels=labels,
        keypoints=_visible(person.keypoints, crop, layers),
        box=tuple(float(v) for v in box),
        world_to_camera=crop.world_to_camera[0].numpy(),
        intrinsics=crop.intrinsics[0].numpy(),
        k1=camera.k1,
        target_height=target,
        occlusion=layers.occlusion,
    )


@dataclass(frozen=True)
class _Layers:
    """What every sample of the crop sees of solid things.

    Args:
        who: Index of the thing, -1 = none.  int16 [H * s, W * s]
        face, bary, depth: Of that thing, as `zbuffer.Fragments`.
        before: The thing is not the person and stands nearer than the person.  bool
        samples: Samples along a side of a pixel, s.
        used: Which things were near enough to be drawn or to cast shadows.
        occlusion: See `Photo`.
    """

    who: np.ndarray
    face: np.ndarray
    bary: np.ndarray
    depth: np.ndarray
    before: np.ndarray
    samples: int
    used: tuple[bool, ...]
    occlusion: float


def _draw(things: list, eye: cameras.Cameras, body, box, size) -> _Layers:
    """Draw everything solid; the canvas also holds what the crop cuts off of the person."""
    samples = 2 if size[0] >= 112 else 3 if size[0] >= 64 else 4
    outer = np.array(
        [*np.minimum(box[:2], np.floor(body[:2])), *np.maximum(box[2:], np.ceil(body[2:]))]
    )
    outer = np.clip(
        outer,
        np.tile(box[:2] - 2 * np.array(size[::-1]), 2),
        np.tile(box[2:] + 2 * np.array(size[::-1]), 2),
    )
    canvas = int(outer[3] - outer[1]) * samples, int(outer[2] - outer[0]) * samples
    view = eye.window(torch.from_numpy(outer).float()[None], canvas)
    top, left = (int(v) * samples for v in (box[1] - outer[1], box[0] - outer[0]))
    inner = (slice(top, top + size[0] * samples), slice(left, left + size[1] * samples))
    who = np.full(canvas, -1, np.int16)
    used, best = [], None
    for number, thing in enumerate(things):
        pixels, depth = view.project(torch.from_numpy(thing.vertices)[None])
        low, high = pixels[0].amin(0), pixels[0].amax(0)
        near = bool(
            -0.5 * canvas[1] < high[0]
            and low[0] < 1.5 * canvas[1]
            and -0.5 * canvas[0] < high[1]
            and low[1] < 1.5 * canvas[0]
            and depth.amin() > 0.3
        )
        used.append(near or number == 0)
        inside = (high > 0).all() and low[0] < canvas[1] and low[1] < canvas[0]
        if number and not (near and bool(inside)):
            continue
        found = zbuffer.rasterize(pixels, depth, torch.from_numpy(thing.faces), canvas)
        found = [t[0].numpy() for t in (found.face, found.bary, found.depth)]
        if best is None:
            best, alone = found, found[2].copy()
            who[found[0] >= 0] = 0
            continue
        won = (found[0] >= 0) & (found[2] < best[2])
        who[won] = number
        for kept, new in zip(best, found, strict=True):
            kept[won] = new[won]
    silhouette = np.isfinite(alone)
    middle = float(np.median(alone[silhouette])) if silhouette.any() else 0.0
    before = (who > 0) & (best[2] < np.where(silhouette, alone, middle))
    seen = int((who[inner] == 0).sum())
    return _Layers(
        who[inner],
        best[0][inner],
        best[1][inner],
        best[2][inner],
        before[inner],
        samples,
        tuple(used),
        1 - seen / max(1, int(silhouette.sum())),
    )


def _shade(things: list, layers: _Layers, light: lights.Light, crop: cameras.Cameras):
    """Light and labels of everything solid.

    Returns: linear light of the solid share of each pixel [H, W, 3], labels [H, W], share [H, W].
    """
    height, width = crop.size
    s = layers.samples
    # Samples of a pixel lie one image apart: sums over them run along the memory.
    order = np.arange(layers.who.size, dtype=np.int32).reshape(height, s, width, s)
    order = order.transpose(1, 3, 0, 2).reshape(s * s, -1)
    who = layers.who.ravel()[order]
    share = (who >= 0).sum(0, dtype=np.float32) / np.float32(s * s)
    weight = _weights(who)
    order, who, weight = (t.reshape(-1) for t in (order, who, weight))
    total = np.zeros((3, len(who)), np.float32)
    label = np.zeros(len(who), np.uint8)
    centre = _centre(crop)
    for number in np.unique(who[who >= 0]):
        thing, here = things[number], np.flatnonzero((who == number) & (weight > 0))
        at = order[here]
        face = layers.face.ravel()[at].astype(np.int64)
        bary = layers.bary.reshape(-1, 3)[at]
        albedo, normal, kind = thing.shade(face, bary)
        corner = thing.faces[face]
        points = sum(thing.vertices[corner[:, k]] * bary[:, k : k + 1] for k in range(3))
        away = centre - points
        normal = np.where((np.einsum("ij,ij->i", normal, away) < 0)[:, None], -normal, normal)
        shone = linear(albedo) * light.surface(points, normal)
        if light.where.haze:
            metres = float(np.linalg.norm(away.mean(0)))
            shone += (scenes.AIR - shone) * np.float32(
                1 - math.exp(-light.where.haze * metres / 100)
            )
        total[:, here] = shone.T * weight[here]
        label[here] = kind if number == 0 else 0
    label[layers.before.ravel()[order]] = OCCLUDER
    ballots = np.tile(np.arange(height * width), s * s) + label.astype(np.int64) * (height * width)
    votes = np.bincount(ballots, weight, height * width * len(LABELS))
    labels = votes.reshape(len(LABELS), height, width).argmax(0).astype(np.uint8)
    mean = total.reshape(3, s * s, height, width).sum(1)
    return np.ascontiguousarray(mean.transpose(1, 2, 0)), labels, share.reshape(height, width)


def _weights(who: np.ndarray) -> np.ndarray:
    """How much each sample counts in its pixel; those that count nothing need no colour.

    Where one thing fills a pixel, a sample in every row and every column of it does.

    Args:
        who: Index of the thing, -1 = none, s * s samples a pixel.  [s * s, P]
    Returns: float32 [s * s, P]; sums to 1.
    """
    s = math.isqrt(len(who))
    rooks = {2: (0, 3), 3: (1, 5, 6), 4: (1, 7, 8, 14)}[s]
    few = np.zeros(s * s, np.float32)
    few[list(rooks)] = 1 / s
    full = (who == who[:1]).all(0)
    return np.where(full, few[:, None], np.float32(1 / (s * s)))


def _detect(body: np.ndarray, picture: tuple[int, int], rng) -> np.ndarray:
    """A detector's box about a person's: seldom exact, now and then a part is cut off.

    Args:
        body: left, top, right, bottom of the person, pixels.
    Returns: whole pixels within the picture, at least 8 x 8.
    """
    side = np.array([body[2] - body[0], body[3] - body[1]])
    margin = rng.uniform(0.01, 0.08) + rng.normal(0, 0.018, 4)
    draw, cut = rng.random(), rng.uniform(0.05, 1.0)
    # Feet out of sight, head cut, or a side: share of the height or the width.
    for chance, edge, most in ((0.06, 3, 0.22), (0.09, 1, 0.07), (0.13, 0, 0.18), (0.17, 2, 0.18)):
        if draw < chance:
            margin[edge] = -cut * most
            break
    reach = np.where(margin > 0, max(0.7 * side.max(), side.min()), np.tile(side, 2))
    box = np.round(body + margin * reach * [-1, -1, 1, 1])
    limit = np.array([picture[1], picture[0]], float)
    low = np.clip(box[:2], 0, limit - 8)
    return np.concatenate([low, np.clip(box[2:], low + 8, limit)])


def _moved(other, offset: tuple[float, float], heading: float):
    """Another person, turned to a heading (degrees) and set down at (x, z), metres."""
    rad = math.radians(heading)
    cos, sin = math.cos(rad), math.sin(rad)
    turn = np.float32([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    shift = np.float32([offset[0], 0, offset[1]])
    return _Moved(other, other.vertices @ turn + shift, other.keypoints @ turn + shift, turn)


@dataclass(frozen=True)
class _Moved:
    """Someone else's Dressed in the person's frame."""

    other: object
    vertices: np.ndarray
    keypoints: np.ndarray
    turn: np.ndarray

    @property
    def faces(self) -> np.ndarray:
        return self.other.faces

    def shade(self, face: np.ndarray, bary: np.ndarray):
        albedo, normal, label = self.other.shade(face, bary)
        return albedo, normal @ self.turn, label


def _visible(points: np.ndarray, crop: cameras.Cameras, layers: _Layers) -> np.ndarray:
    """Keypoints on the crop; visible = inside it and nothing in front of the part they lie in."""
    pixels, depth = crop.project(torch.from_numpy(points)[None])
    pixels, depth = pixels[0].numpy(), depth[0].numpy()
    sample = np.floor(pixels * layers.samples).astype(np.int64)
    height, width = layers.who.shape
    inside = (sample >= 0).all(1) & (sample[:, 0] < width) & (sample[:, 1] < height)
    column, row = np.clip(sample[:, 0], 0, width - 1), np.clip(sample[:, 1], 0, height - 1)
    deep = np.float32([DEEP[name] for name in bodies.KEYPOINTS])
    clear = (layers.depth[row, column] > depth - deep) & ~layers.before[row, column]
    return np.concatenate([pixels, (inside & clear)[:, None]], 1).astype(np.float32)


def _centre(crop: cameras.Cameras) -> np.ndarray:
    """Where the camera is.  float32 [3]"""
    pose = crop.world_to_camera[0].double().numpy()
    return (-pose[:3, :3].T @ pose[:3, 3]).astype(np.float32)


def _rays(crop: cameras.Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Camera centre [3] and unit rays through the pixel centres, row by row.  float32 [N, 3]"""
    matrix = crop.intrinsics[0].double().numpy()
    height, width = crop.size
    flat = np.empty((height, width, 2), np.float32)
    flat[..., 0] = (np.arange(width) + 0.5 - matrix[0, 2]) / matrix[0, 0]
    flat[..., 1] = ((np.arange(height) + 0.5 - matrix[1, 2]) / matrix[1, 1])[:, None]
    flat = flat.reshape(-1, 2)
    if float(crop.k1[0]):
        flat = cameras.undistort(torch.from_numpy(flat), crop.k1).numpy()
    axes = crop.world_to_camera[0, :3, :3].numpy()
    rays = flat[:, :1] * axes[0] + flat[:, 1:] * axes[1] + axes[2]
    rays *= 1 / np.sqrt(np.einsum("ij,ij->i", rays, rays))[:, None]
    return _centre(crop), rays


def _pixel(crop: cameras.Cameras) -> float:
    """Radians between neighbouring pixels, near the middle of the picture."""
    return 1 / float(crop.intrinsics[0, 0, 0])
