# SPDX-License-Identifier: Apache-2.0
"""Parse a crop: skeleton, depth hints, mask, and how far several passes agree.

Source: MediaPipe's `pose_landmark_full` (BlazePose GHUM, Google, Apache-2.0), run without its
detector: a crop of a person already is the region of interest. A pass costs a few milliseconds, so
several are made (scales, shifts, mirrored or not); they vote on the facing, and the result is the
median skeleton of those that agree. The model's own "visibility" is of no use for back views.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import matting

SIDE = 256  # the model's input
INDEX = {name: k for k, name in enumerate(KEYPOINTS)}
# Landmarks of the model in the order of `KEYPOINTS`.
LANDMARKS = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 31, 29, 32, 30)
SWAP = tuple(
    KEYPOINTS.index(
        name.replace("left", "right") if "left" in name else name.replace("right", "left")
    )
    for name in KEYPOINTS
)
SHOULDERS = (KEYPOINTS.index("left_shoulder"), KEYPOINTS.index("right_shoulder"))
# scale of the square relative to the person's height, shift in heights, mirrored
PASSES = (
    (1.25, 0.00, False),
    (1.25, 0.00, True),
    (1.10, 0.03, False),
    (1.10, -0.03, True),
    (1.40, -0.04, False),
    (1.40, 0.04, True),
)


@dataclass(frozen=True, kw_only=True)
class Parse:
    """Result of the pose model for one crop.

    Args:
        points: `KEYPOINTS` in crop pixels.  float32 [K, 2]
        length: Points in metres relative to the hips (x right, y down, z away from the camera; z is
            damped later, in `targets`).  float32 [K, 3]
        spread: Standard deviation of each point over the passes, in person heights.  float32 [K]
        mask: Alpha of the person, see `matting`.  float32 [H, W]
        soft: Person probability by the pose model, about two pixels too soft.  float32 [H, W]
        presence: The model's confidence that there is a person, median over passes, [0, 1].
        vote: Agreement of the passes on the facing, 0 = none, 1 = unanimous.
        front: Whether the person faces the camera.
        height: Height of the person in the crop, pixels.
    """

    points: np.ndarray
    length: np.ndarray
    spread: np.ndarray
    mask: np.ndarray
    soft: np.ndarray
    presence: float
    vote: float
    front: bool
    height: float


@dataclass(frozen=True)
class _Pass:
    """Result of one pass over a square of `side` pixels at `corner`, mirrored back."""

    points: np.ndarray
    world: np.ndarray
    mask: np.ndarray
    corner: np.ndarray
    side: float
    presence: float
    mirrored: bool


def parse(image: np.ndarray, model) -> Parse:
    """Parse one crop.

    Args:
        image: RGB crop of one person.  uint8 [H, W, 3]
        model: The pose model, see `viewsynth.reconstruct.tflite.Model`.
    """
    found = unrefined(image, model)
    return replace(found, mask=matting.refine(image, found))


def unrefined(image: np.ndarray, model) -> Parse:
    """Parse one crop; the mask is the soft one of the pose model.

    Args:
        image: RGB crop of one person.  uint8 [H, W, 3]
        model: The pose model.
    """
    height, width = image.shape[:2]
    first = _run(image, model, np.array([width / 2, height / 2]), 1.25 * max(height, width), False)
    centre, size = _region(first, (height, width))
    passes = [first]
    for scale, shift, mirrored in PASSES:
        passes.append(_run(image, model, centre + [0, shift * size], scale * size, mirrored))
    return _combine(passes, (height, width))


def middle(points: np.ndarray, name: str) -> np.ndarray:
    """The midpoint of a left and a right keypoint.

    Args:
        points: `KEYPOINTS`.  [K, ...]
        name: Without the side, e.g. "hip".
    """
    return (points[INDEX[f"left_{name}"]] + points[INDEX[f"right_{name}"]]) / 2


def locate(image: np.ndarray, model, centre: np.ndarray, side: float) -> tuple[np.ndarray, float]:
    """Run a single pass, to locate a person.

    Args:
        image: uint8 [H, W, 3].
        model: The pose model.
        centre: Centre of the square that is examined, (x, y) pixels.
        side: Side of the square, pixels.

    Returns:
        `KEYPOINTS` in crop pixels, float32 [K, 2], and the presence in [0, 1].
    """
    one = _run(image, model, centre, side, False)
    return one.points, one.presence


def _run(image, model, centre: np.ndarray, side: float, mirrored: bool) -> _Pass:
    """Run a pass over the square around `centre`; beyond the crop its edge is repeated."""
    corner = centre - side / 2
    square = _square(image, corner, side)
    if mirrored:
        square = square[:, ::-1]
    outputs = model((square.astype(np.float32) / 255)[None])
    mask = 1 / (1 + np.exp(-np.clip(outputs["mask"], -30, 30)))
    points = outputs["landmarks"][list(LANDMARKS), :2] / SIDE
    world = outputs["world"][list(LANDMARKS)]
    presence = float(outputs["presence"][0])
    if mirrored:
        mask = mask[:, ::-1]
        points = points[list(SWAP)] * [-1, 1] + [1, 0]
        world = world[list(SWAP)] * [-1, 1, 1]
    return _Pass(points * side + corner, world, mask, corner, side, presence, mirrored)


def _square(image: np.ndarray, corner: np.ndarray, side: float) -> np.ndarray:
    """The square region, resampled to the model's input size, with repeated edges."""
    pad = int(np.ceil(max(0, -corner.min(), *(corner + side - image.shape[1::-1])))) + 1
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    left, top = corner + pad
    return np.asarray(
        Image.fromarray(padded).resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
        )
    )


def _region(first: _Pass, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Centre and height of the person, from mask and skeleton of the first pass."""
    mask = main_component(to_crop(first, shape) > 0.4, first.points)
    rows, columns = np.nonzero(mask)
    low, high = first.points.min(0), first.points.max(0)
    if len(rows) > 20:
        low = np.minimum(low, [columns.min(), rows.min()])
        high = np.maximum(high, [columns.max() + 1, rows.max() + 1])
    limit = 0.15 * np.array(shape[::-1])
    low, high = np.maximum(low, -limit), np.minimum(high, np.array(shape[::-1]) + limit)
    return (low + high) / 2, float(max(high[1] - low[1], 0.4 * shape[0]))


def to_crop(one: _Pass, shape: tuple[int, int]) -> np.ndarray:
    """The mask of one pass in crop pixels, float32 [H, W].

    Args:
        one: The pass.
        shape: Height and width of the crop.
    """
    scale = SIDE / one.side
    rows = (np.arange(shape[0]) + 0.5 - one.corner[1]) * scale - 0.5
    columns = (np.arange(shape[1]) + 0.5 - one.corner[0]) * scale - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(one.mask.astype(np.float32), grid, order=1)


def main_component(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The component of a mask with most points of the trunk, else the largest; bool [H, W].

    Args:
        mask: bool [H, W].
        points: `KEYPOINTS` in its pixels.  [K, 2]
    """
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    trunk = [
        KEYPOINTS.index(f"{side}_{name}")
        for side in ("left", "right")
        for name in ("shoulder", "hip")
    ]
    inside = np.clip(points[trunk].astype(int), 0, np.array(mask.shape[::-1]) - 1)
    hits = np.bincount(labels[inside[:, 1], inside[:, 0]], minlength=count + 1)
    hits[0] = 0
    if hits.max() == 0:
        hits = np.bincount(labels.ravel())
        hits[0] = 0
    return labels == hits.argmax()


def _combine(passes: list[_Pass], shape: tuple[int, int]) -> Parse:
    """Vote on the facing, then combine the passes that agree: median skeleton, one soft mask."""
    left, right = SHOULDERS
    ballots = np.array([np.sign(one.points[left, 0] - one.points[right, 0]) for one in passes])
    weights = np.array([one.presence for one in passes]) + 1e-3
    verdict = float((ballots * weights).sum() / weights.sum())
    front = verdict >= 0
    agreeing = [one for one, ballot in zip(passes, ballots, strict=True) if (ballot >= 0) == front]
    stack = np.stack([one.points for one in agreeing])
    points = np.median(stack, axis=0)
    world = np.median(np.stack([one.world for one in agreeing]), axis=0)
    extent = max(float(np.ptp(points[:, 1])), 1.0)
    spread = stack.std(axis=0).max(axis=1) / extent
    # A mean of masks loses feet on bright ground: the passes nearest to the median skeleton keep
    # them. Both together lose least; what is too much, `matting` takes away.
    misfit = [np.abs(one.points - points).mean() / extent - 0.05 * one.presence for one in agreeing]
    masks = [to_crop(agreeing[k], shape) for k in np.argsort(misfit)[:3]]
    best = np.sort(np.stack(masks), axis=0)[-2 if len(masks) > 1 else -1]
    mean = np.mean([to_crop(one, shape) for one in passes], axis=0)
    soft = _alone(np.maximum(_alone(best, points), mean), points).astype(np.float32)
    return Parse(
        points=points.astype(np.float32),
        length=world.astype(np.float32),
        spread=spread.astype(np.float32),
        mask=soft,
        soft=soft,
        presence=float(np.median([one.presence for one in passes])),
        vote=abs(verdict),
        front=bool(front),
        height=extent,
    )


def _alone(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mask without other people: what is connected with the trunk."""
    return mask * main_component(mask > 0.3, points)
