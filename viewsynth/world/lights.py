# SPDX-License-Identifier: Apache-2.0
"""Light on people and on the ground around them: sun with shadows, sky, and light from the ground.

scenes (place) -> this module -> solids, background. Shadows of the sun come from a shadow map that
the z-buffer renders; occlusion of the sky on surfaces from a height map of the person; occlusion of
the sky on the ground from the solid angle of upright cylinders. Coordinates are in the person's
frame, metres; light is linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from viewsynth import bodies
from viewsynth.render import zbuffer
from viewsynth.world import scenes

TEXEL = 0.012  # smallest texel of the shadow map, metres
TEXELS = 420  # most texels of the shadow map along a side
CELL = 0.03  # cell of the height map, metres
HARD = 0.2  # widest penumbra for which the sun casts a shadow, metres
# Offsets of the shadow map's look-ups, in texels.
DISC = np.float32([[-0.9, -0.4], [-0.3, 0.9], [0.4, -0.9], [0.9, 0.4], [-0.2, -0.2], [0.2, 0.2]])
TRUNK, LEG = (0.17, 1.45), (0.065, 0.8)  # radius and height of the cylinders, metres
ROW = {name: k for k, name in enumerate(bodies.KEYPOINTS)}


@dataclass(frozen=True)
class Shadow:
    """Shadow map of the sun.

    Args:
        near: Coordinate towards the sun of the first surface that the sun meets, metres, -inf =
            none.  [H, W]
        dark: Blurred share of the sunlight that does not reach the ground.  [H, W]
        axes: Right, up and towards the sun, unit vectors in rows.  [3, 3]
        corner: Corner of the map along the first two axes, metres.  [2]
        texel: Side of a texel, metres.
    """

    near: np.ndarray
    dark: np.ndarray
    axes: np.ndarray
    corner: np.ndarray
    texel: float


@dataclass(frozen=True)
class Light:
    """Light of one image.

    Args:
        place: The place.
        sun: Direction to the sun in the person's frame.  [3]
        shadow: Shadow map; None if the sun casts no shadow.
        heights: Height map of the person: highest point over each cell of the ground, metres.
            [H, W]
        corner: Corner of the height map, metres (x, z).  [2]
        people: Keypoints of each person near.  [K, 3] each
    """

    place: scenes.Place
    sun: np.ndarray
    shadow: Shadow | None
    heights: np.ndarray
    corner: np.ndarray
    people: tuple[np.ndarray, ...]

    def ground(self, points: np.ndarray) -> np.ndarray:
        """Light on points of the ground, [M, 3] -> float32 [M, 3]."""
        open_sky = np.ones(len(points), np.float32)
        for keypoints in self.people:
            middle = keypoints.mean(0)
            away = np.maximum(np.abs(points[:, 0] - middle[0]), np.abs(points[:, 2] - middle[2]))
            near = np.flatnonzero(away < 2.0)
            open_sky[near] *= _around_feet(points[near], keypoints)
        sun = np.full(len(points), self.sun[1] if self.shadow else max(self.sun[1], 0.35))
        sun = (sun * scenes.sun_share(self.place, points)).astype(np.float32)
        if self.shadow:
            sun *= 1 - _cast(self.shadow, points)
        else:
            sun *= open_sky
        return self.place.sky_light * open_sky[:, None] + self.place.sun_light * sun[:, None]

    def surface(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Light on points of people and things with unit normals, [N, 3] -> float32 [N, 3]."""
        up = normals[:, 1]
        sky = (0.52 + 0.48 * up) * self._open(points, normals)
        facing = normals @ self.sun
        if self.shadow:
            sun = np.clip(facing, 0, 1)
            lit = np.flatnonzero(sun > 0)
            sun[lit] *= _unshaded(self.shadow, points[lit] + 0.012 * normals[lit])
            share = scenes.sun_share(self.place, points)
            sun *= share
            below = float(np.mean(share))
        else:  # one side of the sky is brighter
            sun, below = np.clip(0.45 + 0.55 * facing, 0, 1) * 0.6, 1.0
        floor = self.place.ground.tone * (
            self.place.sky_light + self.place.sun_light * (self.sun[1] * below)
        )
        bounce = (0.5 - 0.5 * up) * (0.75 + 0.25 * np.clip(points[:, 1], 0, 1))
        return (
            self.place.sky_light * sky[:, None]
            + self.place.sun_light * sun[:, None]
            + floor.astype(np.float32) * bounce[:, None]
        )

    def _open(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Share of the sky that the body does not occlude, looked for along the normal, [N]."""
        hidden = np.zeros(len(points), np.float32)
        limit = np.int32(self.heights.shape) - 1
        flat = self.heights.ravel()
        for reach in (0.03, 0.10, 0.20):
            at = points[:, [0, 2]] + normals[:, [0, 2]] * np.float32(reach) - self.corner
            cell = (at / np.float32(CELL)).astype(np.int32)
            column, row = np.clip(cell[:, 0], 0, limit[1]), np.clip(cell[:, 1], 0, limit[0])
            above = flat.take(row * (limit[1] + 1) + column) - points[:, 1] - np.float32(0.05)
            hidden += np.clip(above * np.float32(4), 0, 1)
        return 1 - np.float32(0.62 / 3) * hidden


def light(place: scenes.Place, meshes: list, metres_per_pixel: float) -> Light:
    """Prepare the light of one image.

    Args:
        place: The place.
        meshes: Everything that casts a shadow, the person first: objects with `vertices`, `faces`
            and, for people, `keypoints`.
        metres_per_pixel: Size of a pixel on the person; it limits the texels of the shadow map.

    Returns:
        The light.
    """
    vertices = np.concatenate([m.vertices for m in meshes])
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes])
    faces = np.concatenate([m.faces + s for m, s in zip(meshes, starts[:-1], strict=True)])
    sun, shadow = place.own_sun(), None
    if place.penumbra <= HARD:
        shadow = _shadow(vertices, faces, sun, place.penumbra, max(TEXEL, 0.7 * metres_per_pixel))
    heights, corner = _heights(meshes[0].vertices)
    people = tuple(mesh.keypoints for mesh in meshes if hasattr(mesh, "keypoints"))
    return Light(place, sun, shadow, heights, corner, people)


def _shadow(vertices, faces, sun, penumbra: float, texel: float) -> Shadow:
    right = np.cross([0, 1, 0], sun)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(sun, right), sun]).astype(np.float32)
    local = vertices @ axes.T
    low, high = local[:, :2].min(0), local[:, :2].max(0)
    texel = max(texel, float((high - low).max()) / TEXELS)
    pad = 3 * penumbra + 3 * texel
    corner = low - pad
    size = np.ceil((high - low + 2 * pad) / texel).astype(int)
    top = local[:, 2].max() + 1
    flat = (local[:, :2] - corner) / np.float32(texel)
    one, two, three = (flat[faces[:, k]] for k in range(3))
    ab, ac = two - one, three - one
    lit = faces[ab[:, 0] * ac[:, 1] > ab[:, 1] * ac[:, 0]]  # those that face the sun
    hit = zbuffer.rasterize(
        torch.from_numpy(flat)[None],
        torch.from_numpy(top - local[:, 2])[None],
        torch.from_numpy(lit),
        (int(size[1]), int(size[0])),
    )
    near = top - hit.depth[0].numpy()
    dark = ndimage.gaussian_filter(np.isfinite(near).astype(np.float32), penumbra / texel)
    return Shadow(near.astype(np.float32), dark, axes, corner, texel)


def _cast(shadow: Shadow, points: np.ndarray) -> np.ndarray:
    """Share of the sunlight that shadows take from ground points: all casters lie above, [M]."""
    at = (points @ shadow.axes[:2].T - shadow.corner) / np.float32(shadow.texel) - np.float32(0.5)
    (height, width), dark = shadow.dark.shape, np.zeros(len(points), np.float32)
    x, y = at.T
    near = np.flatnonzero((x > 0) & (y > 0) & (x < width - 2) & (y < height - 2))
    whole = np.floor(at[near])
    a, b = (at[near] - whole).T
    start = (whole[:, 1] * width + whole[:, 0]).astype(np.int64)
    flat = shadow.dark.ravel()
    top = flat.take(start) * (1 - a) + flat.take(start + 1) * a
    low = flat.take(start + width) * (1 - a) + flat.take(start + width + 1) * a
    dark[near] = top * (1 - b) + low * b
    return dark


def _unshaded(shadow: Shadow, points: np.ndarray) -> np.ndarray:
    """Share of the sunlight that reaches surface points past other surfaces, [N]."""
    local = points @ shadow.axes.T
    centre = (local[:, :2] - shadow.corner) / np.float32(shadow.texel)
    height, width = shadow.near.shape
    depth, flat = local[:, 2] + np.float32(0.015), shadow.near.ravel()
    total = np.zeros(len(points), np.float32)
    for tap in DISC * np.float32(1.3):
        cell = (centre + tap).astype(np.int32)
        column, row = np.clip(cell[:, 0], 0, width - 1), np.clip(cell[:, 1], 0, height - 1)
        # A ramp instead of a step: the edge of the shadow is antialiased.
        total += np.clip((depth - flat.take(row * width + column)) * 60 + 0.5, 0, 1)
    return total / np.float32(len(DISC))


def _heights(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height map of a mesh with its gaps closed [H, W], and its corner (x, z) [2]."""
    flat = vertices[:, [0, 2]]
    corner = flat.min(0) - 3 * CELL
    cell = ((flat - corner) / CELL).astype(np.int64)
    shape = cell.max(0) + 4
    heights = np.full(int(shape[0] * shape[1]), -1.0, np.float32)
    np.maximum.at(heights, cell[:, 1] * shape[0] + cell[:, 0], vertices[:, 1])
    heights = heights.reshape(int(shape[1]), int(shape[0]))
    return ndimage.grey_closing(heights, (3, 3)), corner


def _around_feet(points: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Share of the sky that ground points near a person see, [M].

    An upright cylinder of radius r and height h at distance d hides asin(r / d) / pi of the
    directions around, up to the elevation of its top: h^2 / (h^2 + d^2) of their light.
    """
    floor = points[:, [0, 2]]
    hips = keypoints[[ROW["left_hip"], ROW["right_hip"]]]
    light = _beside(floor, hips.mean(0), TRUNK, 0.6)
    for side in ("left", "right"):
        ankle, heel = keypoints[ROW[f"{side}_ankle"]], keypoints[ROW[f"{side}_heel"]]
        toe = keypoints[ROW[f"{side}_big_toe"]]
        light *= _beside(floor, ankle, LEG, max(0.0, 1 - 4 * float(ankle[1] - 0.08)))
        bone = toe[[0, 2]] - heel[[0, 2]]
        along = np.clip((floor - heel[[0, 2]]) @ bone / max(float(bone @ bone), 1e-6), 0, 1)
        far = np.hypot(*(floor - heel[[0, 2]] - along[:, None] * bone).T)
        lift = heel[1] + along * (toe[1] - heel[1])
        light *= 1 - 0.8 * np.exp(-((far / 0.075) ** 2) - np.clip(lift - 0.02, 0, 1) / 0.05)
    return light


def _beside(floor: np.ndarray, foot: np.ndarray, cylinder: tuple[float, float], strength: float):
    """Share of the sky that ground points see past an upright cylinder, [M]."""
    far = np.hypot(floor[:, 0] - foot[0], floor[:, 1] - foot[2])
    radius, height = cylinder
    around = np.arcsin(np.minimum(radius / np.maximum(far, radius), 0.999)) / np.pi
    return 1 - strength * around * height**2 / (height**2 + far**2)
