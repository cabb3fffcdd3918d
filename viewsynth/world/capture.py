# SPDX-License-Identifier: Apache-2.0
"""Render one camera's crop of one person in a place, with exact ground truth.

character (people), scenes (place), sensor -> this module -> shots. Solid things are rasterized with
several samples per pixel (`solids`); ground and backdrops are antialiased analytically and are
evaluated once per pixel. The crop lies on whole pixels of the full frame, as a detector cuts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from viewsynth import bodies, cameras
from viewsynth.world import background, lights, props, revisions, scenes, sensor, solids

STEEP = 60.0  # degrees of elevation from which a camera hangs from a gimbal and is not levelled
# Depth of each keypoint below the clothed surface, metres.
DEPTH = dict.fromkeys(bodies.KEYPOINTS, 0.10) | {
    **dict.fromkeys(("nose", "left_eye", "right_eye"), 0.05),
    **dict.fromkeys(("left_ear", "right_ear"), 0.06),
    **dict.fromkeys(("left_hip", "right_hip"), 0.17),
    **dict.fromkeys(("left_shoulder", "right_shoulder"), 0.13),
}


@dataclass(frozen=True, kw_only=True)
class Station:
    """Position and orientation of a camera relative to the person.

    Args:
        elevation, azimuth: Of the camera about the target, degrees; see `viewsynth.cameras`.
        distance: To the target, metres.
        offset: Position of the target in the full frame relative to its middle, to the right and
            down, as shares of the frame's width and height.
        roll: About the line of sight, degrees; positive turns the image contents clockwise.
    """

    elevation: float
    azimuth: float
    distance: float
    offset: tuple[float, float] = (0.0, 0.0)
    roll: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One crop and its ground truth.

    Args:
        image: RGB.  uint8 [H, W, 3]
        labels: Index into `LABELS` of what covers most of a pixel.  uint8 [H, W]
        keypoints: `bodies.KEYPOINTS` on the crop: x, y in pixels, and 1 = visible, 0 = hidden or
            outside.  float32 [K, 3]
        box: The crop in the full frame: left, top, right, bottom, whole pixels.
        world_to_camera: float32 [4, 4]
        intrinsics: Of the crop, pixels.  float32 [3, 3]
        k1: Radial distortion; `cameras.Cameras` with these three projects world points to the crop.
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


def frame_camera(station: Station, lens: sensor.Lens, target_height: float) -> cameras.Cameras:
    """The camera of the full frame, before the crop.

    The camera is turned so that the target lies at `offset`. Below `STEEP` it is levelled first
    (its x axis is horizontal) where that is possible; then `roll` turns it about the line of sight.

    Args:
        station: Position and orientation.
        lens: The camera's lens.
        target_height: Height of the target above the ground, metres.

    Returns:
        One camera, in the frame of the person.
    """
    height, width = lens.frame
    focal = cameras.focal_length(lens.vfov, height)
    bent = torch.tensor([station.offset[0] * width, station.offset[1] * height]).double() / focal
    flat = cameras.undistort(bent, torch.tensor(lens.k1, dtype=torch.float64))
    sight = np.append(flat.numpy(), 1.0)
    sight /= np.linalg.norm(sight)
    aim = _rotation_to(sight)
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
    matrix = cameras.pinhole(torch.tensor([focal]), lens.frame)
    return cameras.Cameras(pose, matrix, lens.frame, torch.tensor([lens.k1]))


def passed(station: Station, way: float) -> Station:
    """Position of a fixed camera relative to a person who has walked on.

    Args:
        station: Position before the walk.
        way: Length of the walk towards +z, metres.

    Returns:
        The position after the walk.
    """
    if not way:
        return station
    e_rad, a_rad = math.radians(station.elevation), math.radians(station.azimuth)
    ground, up = station.distance * math.cos(e_rad), station.distance * math.sin(e_rad)
    x, z = ground * math.sin(a_rad), ground * math.cos(a_rad) - way
    near = max(math.hypot(x, z), 0.75 * ground)  # a person does not walk into the camera
    return replace(
        station,
        elevation=math.degrees(math.atan2(up, near)),
        azimuth=math.degrees(math.atan2(x, z)) % 360,
        distance=math.hypot(near, up),
    )


def _rotation_to(sight: np.ndarray) -> np.ndarray:
    """The shortest rotation of the z axis into a unit direction, [3, 3]."""
    x, y, z = sight
    cross = np.array([[0, 0, x], [0, 0, y], [-x, -y, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + z)


def photograph(
    person,
    station: Station,
    place: scenes.Place,
    lens: sensor.Lens,
    rng: np.random.Generator,
    others: tuple = (),
    revision: int = revisions.NEWEST,
) -> Photo:
    """Render one crop of one person.

    Source: ours.

    Args:
        person: A `character.Dressed`: vertices, normals, faces, keypoints and `shade`.
        station: Position and orientation of the camera.
        place: The place, with the person standing in it (see `scenes.standing`).
        lens: The camera's lens.
        rng: Generator of this image: detector box, props, sensor.
        others: Other people: (Dressed, (x, z) in metres from the person, heading in degrees).
        revision: Of the world; it changes the number of props.

    Returns:
        The crop and its ground truth.
    """
    target = float(person.vertices[:, 1].max()) / 2
    frame = frame_camera(station, lens, target)
    pixels, _ = frame.project(torch.from_numpy(person.vertices)[None])
    body = torch.cat([pixels[0].amin(0), pixels[0].amax(0)]).double().numpy()
    box = _detector_box(body, lens, rng)
    size = (int(box[3] - box[1]), int(box[2] - box[0]))
    things = [person, *(solids.moved(*other) for other in others)]
    numbers = revisions.of(revision)
    shares = (numbers.front, numbers.behind)
    things += props.sample_props(rng, station.azimuth, station.elevation, shares)
    crop = frame.window(torch.from_numpy(box).float()[None], size)
    samples = solids.rasterize(things, frame, body, box, size)
    near = [thing for thing, used in zip(things, samples.near, strict=True) if used]
    light = lights.light(place, near, station.distance / float(frame.intrinsics[0, 0, 0]))
    radiance, labels, share = solids.shade(things, samples, light, crop)
    angle = 1 / float(crop.intrinsics[0, 0, 0])  # radians between neighbouring pixels
    behind, _ = background.render(place, *_pixel_rays(crop), angle, light.ground)
    radiance += behind.reshape(*size, 3) * (1 - share)[..., None]
    return Photo(
        image=sensor.sense(radiance, lens, place.level, rng, place.glare),
        labels=labels,
        keypoints=_keypoints(person.keypoints, crop, samples),
        box=tuple(float(v) for v in box),
        world_to_camera=crop.world_to_camera[0].numpy(),
        intrinsics=crop.intrinsics[0].numpy(),
        k1=lens.k1,
        target_height=target,
        occlusion=samples.occlusion,
    )


def _detector_box(body: np.ndarray, lens: sensor.Lens, rng: np.random.Generator) -> np.ndarray:
    """A detector's box around a person: rarely exact, and sometimes it cuts off a part.

    Args:
        body: Bounding box of the person: left, top, right, bottom, pixels.  [4]
        lens: The camera's lens.
        rng: Generator of this image.

    Returns:
        Left, top, right, bottom: whole pixels within the frame, at least 8 x 8.  [4]
    """
    side = np.array([body[2] - body[0], body[3] - body[1]])
    margin = rng.uniform(0.01, 0.08) + lens.room + rng.normal(0, 0.018, 4)
    draw, cut = rng.random(), rng.uniform(0.05, 1.0)
    for chance, edge, most in lens.cuts:
        if draw < chance:
            margin[edge] = -cut * most
            break
    reach = np.where(margin > 0, max(0.7 * side.max(), side.min()), np.tile(side, 2))
    box = np.round(body + margin * reach * [-1, -1, 1, 1])
    limit = np.array([lens.frame[1], lens.frame[0]], float)
    low = np.clip(box[:2], 0, limit - 8)
    return np.concatenate([low, np.clip(box[2:], low + 8, limit)])


def _keypoints(points: np.ndarray, crop: cameras.Cameras, samples: solids.Samples) -> np.ndarray:
    """Keypoints on the crop; visible = inside it, with nothing in front of their body part."""
    pixels, depth = crop.project(torch.from_numpy(points)[None])
    pixels, depth = pixels[0].numpy(), depth[0].numpy()
    sample = np.floor(pixels * samples.per_side).astype(np.int64)
    height, width = samples.thing.shape
    inside = (sample >= 0).all(1) & (sample[:, 0] < width) & (sample[:, 1] < height)
    column, row = np.clip(sample[:, 0], 0, width - 1), np.clip(sample[:, 1], 0, height - 1)
    deep = np.float32([DEPTH[name] for name in bodies.KEYPOINTS])
    clear = (samples.depth[row, column] > depth - deep) & ~samples.occluded[row, column]
    return np.concatenate([pixels, (inside & clear)[:, None]], 1).astype(np.float32)


def _pixel_rays(crop: cameras.Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Camera centre [3] and unit rays through the pixel centres, row by row, float32 [N, 3]."""
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
    return solids.camera_centre(crop), rays
