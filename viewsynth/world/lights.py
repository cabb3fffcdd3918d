# SPDX-License-Identifier: Apache-2.0
"""Light on people and on the ground around them: sun with cast shadows, sky, bounce, contact.

The sun's shadows come from a depth map that the z-buffer draws along the sun; how much sky a point
sees from heights around it; how dark the ground is under people from the solid angle of upright
cylinders. Everything is in the person's frame, metres; light is linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from viewsynth import bodies
from viewsynth.render import zbuffer
from viewsynth.world import scenes

TEXEL = 0.012  # metres of the shadow map
TEXELS = 420  # at most, along a side
CELL = 0.03  # metres of the height map
HARD = 0.2  # penumbra (metres) up to which the sun casts a shadow of its own
DISC = np.float32([[-0.9, -0.4], [-0.3, 0.9], [0.4, -0.9], [0.9, 0.4], [-0.2, -0.2], [0.2, 0.2]])
TRUNK, LEG = (0.17, 1.45), (0.065, 0.8)  # radius and height of the cylinders, metres
AT = {name: k for k, name in enumerate(bodies.KEYPOINTS)}


@dataclass(frozen=True)
class Shadow:
    """What the sun sees.

    Args:
        near: Nearness of what it meets first, metres along it, -inf = nothing.  [H, W]
        dark: Softened share of the sun that is taken from the ground.  [H, W]
        axes: Right, up and towards the sun, unit, rows.  [3, 3]
        corner: Of the map, metres along the first two axes.  [2]
        texel: Metres.
    """

    near: np.ndarray
    dark: np.ndarray
    axes: np.ndarray
    corner: np.ndarray
    texel: float


@dataclass(frozen=True)
class Light:
    """The light of one picture.

    Args:
        where: The place.
        sun: Direction towards it in the person's frame.  [3]
        shadow: None where the sun casts none.
        heights: Highest point over each cell of the floor, metres.  [H, W]
        corner: Of that map, metres (x, z).  [2]
        people: Keypoints of everyone near.  [K, 3] each
    """

    where: scenes.Place
    sun: np.ndarray
    shadow: Shadow | None
    heights: np.ndarray
    corner: np.ndarray
    people: tuple[np.ndarray, ...]

    def ground(self, points: np.ndarray) -> np.ndarray:
        """Light on points of the ground.  [M, 3] -> float32 [M, 3]"""
        open_sky = np.ones(len(points), np.float32)
        for keypoints in self.people:
            middle = keypoints.mean(0)
            away = np.maximum(np.abs(points[:, 0] - middle[0]), np.abs(points[:, 2] - middle[2]))
            near = np.flatnonzero(away < 2.0)
            open_sky[near] *= _around_feet(points[near], keypoints)
        sun = np.full(len(points), self.sun[1] if self.shadow else max(self.sun[1], 0.35))
        sun = (sun * scenes.sun_share(self.where, points)).astype(np.float32)
        if self.shadow:
            sun *= 1 - _cast(self.shadow, points)
        else:
            sun *= open_sky
        return self.where.sky_light * open_sky[:, None] + self.where.sun_light * sun[:, None]

    def surface(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Light on points of people and things with unit normals.  [N, 3] -> float32 [N, 3]"""
        up = normals[:, 1]
        sky = (0.52 + 0.48 * up) * self._open(points, normals)
        facing = normals @ self.sun
        if self.shadow:
            sun = np.clip(facing, 0, 1)
            lit = np.flatnonzero(sun > 0)
            sun[lit] *= _unshaded(self.shadow, points[lit] + 0.012 * normals[lit])
            share = scenes.sun_share(self.where, points)
            sun *= share
            below = float(np.mean(share))
        else:  # a bright side of the sky
            sun, below = np.clip(0.45 + 0.55 * facing, 0, 1) * 0.6, 1.0
        floor = self.where.ground.tone * (
            self.where.sky_light + self.where.sun_light * (self.sun[1] * below)
        )
        bounce = (0.5 - 0.5 * up) * (0.75 + 0.25 * np.clip(points[:, 1], 0, 1))
        return (
            self.where.sky_light * sky[:, None]
            + self.where.sun_light * sun[:, None]
            + floor.astype(np.float32) * bounce[:, None]
        )

    def _open(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Share of the sky that bodies leave open, looking outward along the normal.  [N]"""
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


def light(where: scenes.Place, meshes: list, people: tuple[np.ndarray, ...], coarse: float):
    """Prepare the light of one picture.

    Args:
        meshes: Everything that casts a shadow: objects with `vertices` and `faces`.
        people: Keypoints of the people among them.
        coarse: Metres that a pixel covers on the person: no shadow need be finer.
    """
    vertices = np.concatenate([m.vertices for m in meshes])
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes])
    faces = np.concatenate([m.faces + s for m, s in zip(meshes, starts[:-1], strict=True)])
    sun, shadow = where.own_sun(), None
    if where.penumbra <= HARD:
        shadow = _shadow(vertices, faces, sun, where.penumbra, max(TEXEL, 0.7 * coarse))
    heights, corner = _heights(meshes[0].vertices)
    return Light(where, sun, shadow, heights, corner, people)


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
    lit = faces[ab[:, 0] * ac[:, 1] > ab[:, 1] * ac[:, 0]]  # the rest lies behind these
    drawn = zbuffer.rasterize(
        torch.from_numpy(flat)[None],
        torch.from_numpy(top - local[:, 2])[None],
        torch.from_numpy(lit),
        (int(size[1]), int(size[0])),
    )
    near = top - drawn.depth[0].numpy()
    dark = ndimage.gaussian_filter(np.isfinite(near).astype(np.float32), penumbra / texel)
    return Shadow(near.astype(np.float32), dark, axes, corner, texel)


def _cast(shadow: Shadow, points: np.ndarray) -> np.ndarray:
    """Darkness of cast shadows on the ground, where everything is above: no depth needed.  [M]"""
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
    """Share of the sun that other parts leave to points of a surface.  [N]"""
    local = points @ shadow.axes.T
    centre = (local[:, :2] - shadow.corner) / np.float32(shadow.texel)
    height, width = shadow.near.shape
    depth, flat = local[:, 2] + np.float32(0.015), shadow.near.ravel()
    total = np.zeros(len(points), np.float32)
    for tap in DISC * np.float32(1.3):
        cell = (centre + tap).astype(np.int32)
        column, row = np.clip(cell[:, 0], 0, width - 1), np.clip(cell[:, 1], 0, height - 1)
        # Half a texel of slope on either side: an edge of light, not a step.
        total += np.clip((depth - flat.take(row * width + column)) * 60 + 0.5, 0, 1)
    return total / np.float32(len(DISC))


def _heights(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest vertex over each cell of the floor, closed over gaps, and the map's corner."""
    flat = vertices[:, [0, 2]]
    corner = flat.min(0) - 3 * CELL
    cell = ((flat - corner) / CELL).astype(np.int64)
    shape = cell.max(0) + 4
    heights = np.full(int(shape[0] * shape[1]), -1.0, np.float32)
    np.maximum.at(heights, cell[:, 1] * shape[0] + cell[:, 0], vertices[:, 1])
    heights = heights.reshape(int(shape[1]), int(shape[0]))
    return ndimage.grey_closing(heights, (3, 3)), corner


def _around_feet(points: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Share of the sky that the ground near a person still sees.  [M]

    An upright cylinder of radius r and height h at distance d hides asin(r / d) / pi of the
    directions around, up to the elevation of its top: h^2 / (h^2 + d^2) of their light.
    """
    floor = points[:, [0, 2]]
    hips = keypoints[[AT["left_hip"], AT["right_hip"]]]
    light = _beside(floor, hips.mean(0), TRUNK, 0.6)
    for side in ("left", "right"):
        ankle, heel = keypoints[AT[f"{side}_ankle"]], keypoints[AT[f"{side}_heel"]]
        toe = keypoints[AT[f"{side}_big_toe"]]
        light *= _beside(floor, ankle, LEG, max(0.0, 1 - 4 * float(ankle[1] - 0.08)))
        bone = toe[[0, 2]] - heel[[0, 2]]
        along = np.clip((floor - heel[[0, 2]]) @ bone / max(float(bone @ bone), 1e-6), 0, 1)
        far = np.hypot(*(floor - heel[[0, 2]] - along[:, None] * bone).T)
        lift = heel[1] + along * (toe[1] - heel[1])
        light *= 1 - 0.8 * np.exp(-((far / 0.075) ** 2) - np.clip(lift - 0.02, 0, 1) / 0.05)
    return light


def _beside(floor: np.ndarray, foot: np.ndarray, cylinder: tuple[float, float], strength: float):
    """What an upright cylinder leaves of the sky.  [M]"""
    far = np.hypot(floor[:, 0] - foot[0], floor[:, 1] - foot[2])
    radius, height = cylinder
    around = np.arcsin(np.minimum(radius / np.maximum(far, radius), 0.999)) / np.pi
    return 1 - strength * around * height**2 / (height**2 + far**2)
