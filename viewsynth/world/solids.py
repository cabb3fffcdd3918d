# SPDX-License-Identifier: Apache-2.0
"""Solid things of an image (people, props): rasterized with several samples per pixel and shaded.

capture -> this module -> capture. A thing has `vertices` [V, 3], `faces` [F, 3] and
`shade(face, bary)`, which returns albedo, unit normal and label of surface points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from viewsynth import cameras
from viewsynth.render import zbuffer
from viewsynth.world import LABELS, lights, scenes
from viewsynth.world.colours import linear_fast

OCCLUDER = LABELS.index("occluder")


@dataclass(frozen=True)
class Samples:
    """What each sample of the crop sees of the solid things.

    Args:
        thing: Index of the thing, -1 = none.  int16 [H * s, W * s]
        face, bary, depth: As in `zbuffer.Fragments`, of that thing.
        occluded: Whether the sample sees another thing in front of the person.  bool
        per_side: Samples along each side of a pixel, s.
        near: Per thing, whether it is near enough to be seen or to cast a shadow into the crop.
        occlusion: See `capture.Photo`.
    """

    thing: np.ndarray
    face: np.ndarray
    bary: np.ndarray
    depth: np.ndarray
    occluded: np.ndarray
    per_side: int
    near: tuple[bool, ...]
    occlusion: float


def rasterize(
    things: list, frame: cameras.Cameras, body: np.ndarray, box: np.ndarray, size: tuple[int, int]
) -> Samples:
    """Rasterize all things; the first is the person.

    The canvas also covers those parts of the person that the crop cuts off, for the occlusion.

    Args:
        things: The person, then everything else.
        frame: Camera of the full frame.
        body: Bounding box of the person: left, top, right, bottom, pixels of the frame.  [4]
        box: The crop, likewise, whole pixels.  [4]
        size: Height and width of the crop, pixels.

    Returns:
        The samples of the crop.
    """
    per_side = 2 if size[0] >= 112 else 3 if size[0] >= 64 else 4
    outer = _canvas_box(body, box, size)
    canvas = int(outer[3] - outer[1]) * per_side, int(outer[2] - outer[0]) * per_side
    view = frame.window(torch.from_numpy(outer).float()[None], canvas)
    top, left = (int(v) * per_side for v in (box[1] - outer[1], box[0] - outer[0]))
    inner = (slice(top, top + size[0] * per_side), slice(left, left + size[1] * per_side))
    thing, (face, bary, depth), person_depth, near = _nearest(things, view, canvas)
    silhouette = np.isfinite(person_depth)
    middle = float(np.median(person_depth[silhouette])) if silhouette.any() else 0.0
    occluded = (thing > 0) & (depth < np.where(silhouette, person_depth, middle))
    seen = int((thing[inner] == 0).sum())
    return Samples(
        thing[inner],
        face[inner],
        bary[inner],
        depth[inner],
        occluded[inner],
        per_side,
        near,
        1 - seen / max(1, int(silhouette.sum())),
    )


def _canvas_box(body: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The crop extended to the whole person, by at most two crop sizes to each side, [4]."""
    low = np.minimum(box[:2], np.floor(body[:2]))
    high = np.maximum(box[2:], np.ceil(body[2:]))
    reach = 2 * np.array(size[::-1])
    return np.clip(
        np.concatenate([low, high]), np.tile(box[:2] - reach, 2), np.tile(box[2:] + reach, 2)
    )


def _nearest(
    things: list, view: cameras.Cameras, canvas: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, tuple[bool, ...]]:
    """The nearest thing of each sample.

    Returns:
        Its index [H, W]; its face, bary and depth; depth of the person without the others [H, W];
        which things are near.
    """
    index = np.full(canvas, -1, np.int16)
    near, best = [], None
    for number, thing in enumerate(things):
        pixels, depth = view.project(torch.from_numpy(thing.vertices)[None])
        low, high = pixels[0].amin(0), pixels[0].amax(0)
        close = bool(
            -0.5 * canvas[1] < high[0]
            and low[0] < 1.5 * canvas[1]
            and -0.5 * canvas[0] < high[1]
            and low[1] < 1.5 * canvas[0]
            and depth.amin() > 0.3
        )
        near.append(close or number == 0)
        inside = (high > 0).all() and low[0] < canvas[1] and low[1] < canvas[0]
        if number and not (close and bool(inside)):
            continue
        found = zbuffer.rasterize(pixels, depth, torch.from_numpy(thing.faces), canvas)
        found = [t[0].numpy() for t in (found.face, found.bary, found.depth)]
        if best is None:
            best, person_depth = found, found[2].copy()
            index[found[0] >= 0] = 0
            continue
        won = (found[0] >= 0) & (found[2] < best[2])
        index[won] = number
        for kept, new in zip(best, found, strict=True):
            kept[won] = new[won]
    return index, best, person_depth, tuple(near)


def shade(
    things: list, samples: Samples, light: lights.Light, crop: cameras.Cameras
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Light and labels of the solid things, averaged over the samples of each pixel.

    Args:
        things: As in `rasterize`.
        samples: Of the crop.
        light: The light of the image.
        crop: Camera of the crop.

    Returns:
        Linear light of the solid share of each pixel [H, W, 3], labels [H, W], share [H, W].
    """
    height, width = crop.size
    s = samples.per_side
    # Samples of a pixel lie one image apart: sums over them run along the memory.
    order = np.arange(samples.thing.size, dtype=np.int32).reshape(height, s, width, s)
    order = order.transpose(1, 3, 0, 2).reshape(s * s, -1)
    index = samples.thing.ravel()[order]
    share = (index >= 0).sum(0, dtype=np.float32) / np.float32(s * s)
    weight = sample_weights(index)
    order, index, weight = (t.reshape(-1) for t in (order, index, weight))
    total = np.zeros((3, len(index)), np.float32)
    label = np.zeros(len(index), np.uint8)
    centre = camera_centre(crop)
    for number in np.unique(index[index >= 0]):
        thing, here = things[number], np.flatnonzero((index == number) & (weight > 0))
        at = order[here]
        face = samples.face.ravel()[at].astype(np.int64)
        bary = samples.bary.reshape(-1, 3)[at]
        radiance, kind = _radiance(thing, face, bary, light, centre)
        total[:, here] = radiance.T * weight[here]
        label[here] = kind if number == 0 else 0
    label[samples.occluded.ravel()[order]] = OCCLUDER
    ballots = np.tile(np.arange(height * width), s * s) + label.astype(np.int64) * (height * width)
    votes = np.bincount(ballots, weight, height * width * len(LABELS))
    labels = votes.reshape(len(LABELS), height, width).argmax(0).astype(np.uint8)
    mean = total.reshape(3, s * s, height, width).sum(1)
    return np.ascontiguousarray(mean.transpose(1, 2, 0)), labels, share.reshape(height, width)


def _radiance(
    thing, face: np.ndarray, bary: np.ndarray, light: lights.Light, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Linear light that surface points send to the camera [N, 3], and their labels [N]."""
    albedo, normal, label = thing.shade(face, bary)
    corner = thing.faces[face]
    points = sum(thing.vertices[corner[:, k]] * bary[:, k : k + 1] for k in range(3))
    to_camera = centre - points
    normal = np.where((np.einsum("ij,ij->i", normal, to_camera) < 0)[:, None], -normal, normal)
    radiance = linear_fast(albedo) * light.surface(points, normal)
    if light.place.haze:
        metres = float(np.linalg.norm(to_camera.mean(0)))
        radiance += (scenes.AIR - radiance) * np.float32(
            1 - math.exp(-light.place.haze * metres / 100)
        )
    return radiance, label


def sample_weights(index: np.ndarray) -> np.ndarray:
    """Weight of each sample in its pixel; samples of weight 0 need no colour.

    Where one thing fills a pixel, one sample in each row and each column of it is used.

    Args:
        index: Index of the thing, -1 = none, s * s samples per pixel.  [s * s, P]

    Returns:
        Weights that sum to 1 in each pixel.  float32 [s * s, P]
    """
    s = math.isqrt(len(index))
    rooks = {2: (0, 3), 3: (1, 5, 6), 4: (1, 7, 8, 14)}[s]
    few = np.zeros(s * s, np.float32)
    few[list(rooks)] = 1 / s
    full = (index == index[:1]).all(0)
    return np.where(full, few[:, None], np.float32(1 / (s * s)))


def camera_centre(camera: cameras.Cameras) -> np.ndarray:
    """Position of one camera, metres, float32 [3]."""
    pose = camera.world_to_camera[0].double().numpy()
    return (-pose[:3, :3].T @ pose[:3, 3]).astype(np.float32)


def moved(other, offset: tuple[float, float], heading: float) -> _Moved:
    """Another person, turned to a heading and placed in the frame of the first one.

    Args:
        other: A `character.Dressed`.
        offset: Position (x, z), metres.
        heading: Degrees from +z towards +x.

    Returns:
        A thing with keypoints.
    """
    rad = math.radians(heading)
    cos, sin = math.cos(rad), math.sin(rad)
    turn = np.float32([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    shift = np.float32([offset[0], 0, offset[1]])
    return _Moved(other, other.vertices @ turn + shift, other.keypoints @ turn + shift, turn)


@dataclass(frozen=True)
class _Moved:
    """Another `character.Dressed` in the frame of the person."""

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
