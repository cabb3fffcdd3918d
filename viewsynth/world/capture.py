# SPDX-License-Identifier: Apache-2.0
"""Capture: a camera looks at a dressed person in a plain place; a photo and its truth come out.

Sun with cast shadows (a shadow map), sky light, a paved or grassy ground, a wall or a hedge behind;
then what sensor and detector do: crop with a margin, exposure, white balance, blur, noise, JPEG.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from viewsynth import cameras
from viewsynth.render import shade, zbuffer
from viewsynth.world import garments

OVERSAMPLE = 2
VFOV = 40.0  # degrees, of the whole camera picture; the crop is a part of it
CANVAS = (1080, 1920)
SHADOW = 384  # side of the shadow map, pixels
REACH = 2.4  # metres about the person that the shadow map covers


@dataclass(frozen=True)
class Place:
    """Where and in what light a camera stands, drawn from its own seed.

    Args:
        sun: Direction towards the sun, unit.  [3]
        strength: Share of the light that is the sun's, [0, 1).
        ground, wall: sRGB in [0, 1].  [3]
        paving: Side of the slabs, metres; 0 = none.
        wall_distance, wall_height: Of the wall or hedge behind the person, metres.
        rough: How uneven the wall's brightness is; a hedge's is more than a house's.
        gain: Exposure and white balance of the camera, a factor a channel.  [3]
        grain: Table of random numbers that all textures are made of.  [64, 64]
    """

    sun: np.ndarray
    strength: float
    ground: np.ndarray
    paving: float
    wall: np.ndarray
    wall_distance: float
    wall_height: float
    rough: float
    gain: np.ndarray
    grain: np.ndarray


def place(rng: np.random.Generator) -> Place:
    """A place: light, ground, what is behind, and the camera's colours."""
    azimuth_rad, elevation_rad = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(35, 62))
    flat = np.cos(elevation_rad)
    sun = [flat * np.sin(azimuth_rad), np.sin(elevation_rad), flat * np.cos(azimuth_rad)]
    grounds = [(0.52, 0.50, 0.47), (0.40, 0.40, 0.41), (0.60, 0.55, 0.48), (0.36, 0.42, 0.26)]
    walls = [(0.55, 0.52, 0.47), (0.48, 0.33, 0.27), (0.24, 0.32, 0.18), (0.62, 0.62, 0.60)]
    ground, wall = rng.integers(len(grounds)), rng.integers(len(walls))
    return Place(
        sun=np.float32(sun), strength=float(rng.choice([0.12, 0.35, 0.5])),
        ground=np.float32(grounds[ground]), paving=0.0 if ground == 3 else rng.uniform(0.4, 0.9),
        wall=np.float32(walls[wall]), wall_distance=rng.uniform(4, 12),
        wall_height=rng.uniform(2.5, 5), rough=0.45 if wall == 2 else 0.15,
        gain=np.float32(rng.normal(1, [0.03, 0.015, 0.04])) * np.float32(rng.uniform(0.9, 1.12)),
        grain=rng.random((64, 64), dtype=np.float32),
    )  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """One crop and its truth.

    Args:
        image: RGB.  uint8 [H, W, 3]
        mask: Pixels of the person.  bool [H, W]
        keypoints: `bodies.KEYPOINTS` on the crop, pixels.  float32 [K, 2]
        box: The crop in the camera's picture of `CANVAS` size, (left, top, right, bottom), pixels.
    """

    image: np.ndarray
    mask: np.ndarray
    keypoints: np.ndarray
    box: tuple[float, float, float, float]


def photograph(
    person: garments.Dressed,
    outfit: garments.Outfit,
    mannequin: garments.Mannequin,
    where: Place,
    view: tuple[float, float, float],
    height: int,
    rng: np.random.Generator,
) -> Photo:
    """Take one picture of one person.

    Source: ours.
    Args:
        person, outfit, mannequin: See `garments.dress`.
        where: Light and surroundings.
        view: Elevation and azimuth in degrees, distance in metres, about the middle of the person.
        height: Of the crop, pixels; the width follows from the person's box.
        rng: For the crop's margins and the sensor's noise.
    """
    stature = torch.tensor([person.vertices[person.faces, 1].max() / 2])
    pose = cameras.orbit(*(torch.tensor([float(v)]) for v in view), stature)
    focal = torch.tensor([CANVAS[0] / 2 / np.tan(np.deg2rad(VFOV) / 2)], dtype=torch.float32)
    whole = cameras.Cameras(pose, cameras.pinhole(focal, CANVAS), CANVAS)
    used = torch.from_numpy(person.vertices)[None]
    seen, _ = whole.project(used[:, np.unique(person.faces)])
    low, high = seen[0].amin(0), seen[0].amax(0)
    margin = torch.from_numpy(rng.uniform(0.04, 0.11, (2, 2)).astype(np.float32))
    side = (high - low).max() * torch.tensor([0.7, 1.0])
    low, high = low - margin[0] * side, high + margin[1] * side
    size = (height, max(8, round(height * float((high - low)[0] / (high - low)[1]))))
    box = torch.cat([low, high])[None]
    crop = whole.window(box, (size[0] * OVERSAMPLE, size[1] * OVERSAMPLE))
    pixels, depth = crop.project(used)
    hit = zbuffer.rasterize(pixels, depth, torch.from_numpy(person.faces), crop.size)
    colour, mask = _shade(person, outfit, mannequin, where, crop, hit)
    points, _ = whole.window(box, size).project(torch.from_numpy(person.keypoints)[None])
    share = mask.reshape(size[0], OVERSAMPLE, size[1], OVERSAMPLE).mean((1, 3))
    return Photo(
        image=_sense(colour, size, where, rng), mask=share > 0.5,
        keypoints=points[0].numpy(), box=tuple(box[0].tolist()),
    )  # fmt: skip


def _shade(person, outfit, mannequin, where, crop, hit) -> tuple[np.ndarray, np.ndarray]:
    """Linear light of every pixel, and which pixels are the person's."""
    origin, rays = _rays(crop)
    face, bary = hit.face[0].numpy(), hit.bary[0].numpy()
    mask = face >= 0
    shadow = _shadow_map(person, where.sun)
    light, points = _background(origin, rays, where)
    light *= _sunlit(points, shadow, where, 0.0)[..., None]
    corner, weight = person.faces[face[mask]], bary[mask]

    def at(values: np.ndarray) -> np.ndarray:
        return (values[corner] * weight[..., None]).sum(1)

    mesh = torch.from_numpy(person.vertices)[None]
    smooth = shade.vertex_normals(mesh, torch.from_numpy(person.faces))[0].numpy()
    rest, normal, world = at(person.rest), at(smooth), at(person.vertices)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    layer = person.layer[face[mask]]
    turned = (normal * rays[mask]).sum(1) > 0
    normal[turned] *= -1
    colour = garments.albedo(rest, layer, outfit, mannequin) ** 2.2
    cloth = np.where((layer == garments.SUIT) | (layer == garments.SKIRT), 1.0, 0.25)
    folds = 1 + cloth * _folds(rest, where.grain)
    sky = 0.62 + 0.3 * normal[:, 1] + 0.08 * (normal * -rays[mask]).sum(1)
    facing = np.clip((normal @ where.sun + 0.1) / 1.1, 0, 1)
    near = world + normal * 0.015
    sun = facing * _visible(near, shadow, 0.012)
    light[mask] = (
        colour * (folds * ((1 - where.strength) * sky * 1.15 + where.strength * 1.9 * sun))[:, None]
    )
    return light, mask


def _rays(crop: cameras.Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Camera centre [3] and the unit ray through every pixel [H, W, 3]."""
    pose, k = crop.world_to_camera[0].double().numpy(), crop.intrinsics[0].double().numpy()
    row, column = np.mgrid[0 : crop.size[0], 0 : crop.size[1]] + 0.5
    local = np.stack(
        [(column - k[0, 2]) / k[0, 0], (row - k[1, 2]) / k[1, 1], np.ones_like(row)], -1
    )
    rays = local @ pose[:3, :3]
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return -pose[:3, :3].T @ pose[:3, 3], rays.astype(np.float32)


def _background(
    origin: np.ndarray, rays: np.ndarray, where: Place
) -> tuple[np.ndarray, np.ndarray]:
    """Ground, wall and sky in linear light, and the world point of every pixel (far = sky)."""
    ahead = -origin[[0, 2]] / max(1e-6, np.hypot(origin[0], origin[2]))
    towards = rays[..., 0] * ahead[0] + rays[..., 2] * ahead[1]
    reach = where.wall_distance - (origin[0] * ahead[0] + origin[2] * ahead[1])
    to_wall = np.where(towards > 1e-4, reach / np.maximum(towards, 1e-4), np.inf)
    to_ground = np.where(rays[..., 1] < -1e-4, origin[1] / np.maximum(-rays[..., 1], 1e-4), np.inf)
    distance = np.minimum(np.minimum(to_wall, to_ground), 200.0).astype(np.float32)
    points = origin.astype(np.float32) + rays * distance[..., None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    across = x * ahead[1] - z * ahead[0]
    floor = 1 + 0.22 * (_noise(where.grain, x * 3, z * 3) - 0.5)
    floor += 0.25 * (_noise(where.grain, x * 31, z * 31) - 0.5) * np.clip(12 / distance, 0, 1)
    if where.paving:
        joints = np.minimum(x / where.paving % 1, z / where.paving % 1) < 0.025
        floor = floor - 0.18 * joints
    colour = where.ground * floor[..., None]
    rough = 1 + where.rough * (_noise(where.grain, across * 2.3, y * 2.3) - 0.5)
    rough += where.rough * (_noise(where.grain, across * 9, y * 9) - 0.5)
    rough *= 0.75 + 0.25 * np.clip(y / 2.5, 0, 1)
    colour = np.where((to_wall < to_ground)[..., None], where.wall * rough[..., None], colour)
    sky = (to_wall < to_ground) & (y > where.wall_height)
    colour[sky] = np.float32([0.80, 0.86, 0.92])
    return colour.clip(0.02, 1).astype(np.float32) ** 2.2, points


def _noise(grain: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth periodic noise in [0, 1] from a table."""
    where = np.stack([u.ravel(), v.ravel()]).astype(np.float32) % 64
    return ndimage.map_coordinates(grain, where, order=1, mode="grid-wrap").reshape(u.shape)


def _folds(rest: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """Brightness changes of creased cloth, in rest coordinates, about +-0.15."""
    x, y, z = rest.T
    slow = _noise(grain, x * 9 + z * 14, y * 11) - 0.5
    fast = _noise(grain, x * 24 - z * 18 + y * 9, y * 15) - 0.5
    return (0.16 * slow + 0.12 * fast).astype(np.float32)


def _shadow_map(person: garments.Dressed, sun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height of the surface that the sun sees, towards the sun, and the map's axes [3, 3]."""
    right = np.cross([0, 1, 0], sun)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(sun, right), sun]).astype(np.float32)
    local = torch.from_numpy((person.vertices - [0, 0.8, 0]).astype(np.float32) @ axes.T)
    pixels = (local[:, :2] / REACH + 0.5) * SHADOW
    faces = torch.from_numpy(person.faces)
    hit = zbuffer.rasterize(pixels[None], 10 - local[None, :, 2], faces, (SHADOW, SHADOW))
    return (10 - hit.depth[0].numpy()), axes


def _visible(points: np.ndarray, shadow: tuple[np.ndarray, np.ndarray], bias: float) -> np.ndarray:
    """Share of the sun's disc that reaches the points, [0, 1].  [N, 3] -> [N]"""
    surface, axes = shadow
    local = (points - np.float32([0, 0.8, 0])) @ axes.T
    centre = (local[:, :2] / REACH + 0.5) * SHADOW
    total = np.zeros(len(points), np.float32)
    for dx in (-2, -0.7, 0.7, 2):
        for dy in (-2, -0.7, 0.7, 2):
            column = np.clip(centre[:, 0] + dx, 0, SHADOW - 1).astype(int)
            row = np.clip(centre[:, 1] + dy, 0, SHADOW - 1).astype(int)
            total += surface[row, column] < local[:, 2] + bias
    return total / 16


def _sunlit(points: np.ndarray, shadow, where: Place, bias: float) -> np.ndarray:
    """Light on the ground: sun with cast shadow, and the dark of the sky that a person hides."""
    flat = points.reshape(-1, 3)
    near = np.abs(flat).max(1) < 4
    light = np.ones(len(flat), np.float32)
    light[near] -= where.strength * 1.3 * (1 - _visible(flat[near], shadow, bias))
    feet = np.hypot(flat[:, 0], flat[:, 2]) + 3 * flat[:, 1].clip(0)
    return (light * (1 - 0.3 * np.exp(-((feet / 0.35) ** 2)))).reshape(points.shape[:2])


def _sense(light: np.ndarray, size: tuple[int, int], where: Place, rng) -> np.ndarray:
    """Linear light at `OVERSAMPLE` to what a cheap camera stores."""
    sigma = OVERSAMPLE * rng.uniform(0.35, 0.7)
    light = ndimage.gaussian_filter(light * where.gain, (sigma, sigma, 0))
    light = light.reshape(size[0], OVERSAMPLE, size[1], OVERSAMPLE, 3).mean((1, 3))
    picture = light.clip(0, 1) ** (1 / 2.2) * 255
    picture += rng.normal(0, rng.uniform(1.0, 3.0), picture.shape)
    stored = io.BytesIO()
    quality = int(rng.integers(78, 93))
    Image.fromarray(picture.clip(0, 255).round().astype(np.uint8)).save(
        stored, "jpeg", quality=quality
    )
    return np.asarray(Image.open(stored).convert("RGB"))
