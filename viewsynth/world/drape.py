# SPDX-License-Identifier: Apache-2.0
"""Drape skirts, dresses and coat tails around the legs of a posed person.

garments (tubes) -> this module -> character. At each height the cross-section of the cloth is the
convex hull of the legs at that height or the cloth falling from above, whichever is wider. This
needs no simulation, follows each step and lets no leg through.
"""

from __future__ import annotations

import numpy as np

from viewsynth.world.forms import grid
from viewsynth.world.garments import Tube

ANGLES = 40  # columns of a tube
ROW = 0.045  # distance between the rows of a tube, metres
TURN = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False).astype(np.float32)  # 0 = front, then left
AROUND = np.stack([np.sin(TURN), np.cos(TURN)])  # [2, A]
ROOM = 0.003  # distance of a tube from the surface inside it, metres
SHORT, LEAN = 0.3, 0.5  # tubes shorter than SHORT metres widen by at most LEAN per metre
REST_RADIUS = 0.17  # radius of a tube in rest coordinates, metres


def rows(tube: Tube) -> int:
    """Number of rings of vertices of a tube."""
    return max(3, int(np.ceil((tube.top - tube.end) / ROW)) + 1)


def rest(tube: Tube) -> np.ndarray:
    """Rest coordinates of a tube's vertices, ring by ring, [rows * ANGLES, 3]."""
    heights = np.linspace(tube.top, tube.end, rows(tube), dtype=np.float32)
    ring = np.stack([AROUND[0], 0 * TURN, AROUND[1]], 1) * REST_RADIUS + np.float32([0, 0, 0.02])
    return (ring[None] + np.float32([0, 1, 0]) * heights[:, None, None]).reshape(-1, 3)


def faces(tube: Tube) -> np.ndarray:
    """Triangles of a tube, seen from outside, without those of the opening, [F, 3]."""
    count = rows(tube)
    turn = np.rad2deg(TURN + np.pi / ANGLES)
    shut = np.minimum(turn, 360 - turn) > tube.open
    return grid(count, ANGLES, closed=True)[np.tile(shut, 2 * (count - 1))]


def hang(
    tube: Tube, length: float, inner: np.ndarray, pelvis: np.ndarray, top: float, seed: int
) -> np.ndarray:
    """Vertices of a tube around a posed person.

    Source: ours.

    Args:
        tube: The tube.
        length: Length of the tube along the body, metres.
        inner: Points that it must enclose: hips, legs, and what is worn on them.  [N, 3]
        pelvis: Axes of the pelvis in the world frame, columns left, up, front.  [3, 3]
        top: Height of the upper ring, metres.
        seed: Seed of the folds.

    Returns:
        Vertices in the order of `rest`.  [rows * ANGLES, 3]
    """
    count = rows(tube)
    heading = np.arctan2(pelvis[0, 2], pelvis[2, 2])
    turn = TURN + heading
    aim = np.stack([np.sin(turn), np.cos(turn)]).astype(np.float32)  # [2, A]
    heights = np.linspace(top, top - length, count).astype(np.float32)
    flat = inner[:, [0, 2]]
    upper = np.abs(inner[:, 1] - top) < 0.05
    middle = (flat[upper].min(0) + flat[upper].max(0)) / 2
    reach = (flat - middle) @ aim  # [N, A]
    support = _support(tube, length, heights, inner, reach)
    support[0] -= tube.tuck
    # From the support function of a convex outline to its radius in each direction.
    gap = turn[:, None] - turn[None]
    cos = np.cos(gap)
    radius = np.where(cos > 0.2, support[:, None, :] / np.where(cos > 0.2, cos, 1), np.inf).min(2)
    below = np.linspace(0, 1, count)[:, None]
    rng = np.random.default_rng(seed)
    lobes, phase = rng.integers(6, 11), rng.uniform(0, 2 * np.pi)
    wave = np.sin(lobes * TURN + phase) + 0.5 * np.sin((2 * lobes + 1) * TURN + 2 * phase)
    radius = radius * (1 + tube.ripple * below**1.5 * (0.5 + 0.5 * wave))
    points = np.empty((count, ANGLES, 3), np.float32)
    points[..., [0, 2]] = middle + radius[..., None] * aim.T
    points[..., 1] = heights[:, None]
    return points.reshape(-1, 3)


def _support(
    tube: Tube, length: float, heights: np.ndarray, inner: np.ndarray, reach: np.ndarray
) -> np.ndarray:
    """Support function of the outline of each ring of a tube.

    Args:
        tube: The tube.
        length: Length of the tube along the body, metres.
        heights: Height of each ring, metres.  [R]
        inner: Points that the tube must enclose.  [N, 3]
        reach: Extent of each point in each direction, metres.  [N, ANGLES]

    Returns:
        Extent of the outline in each direction, metres.  [R, ANGLES]
    """
    step = length / (len(heights) - 1)
    support = np.empty((len(heights), ANGLES), np.float32)
    away = np.abs(heights[:, None] - inner[None, :, 1])
    for ring in range(len(heights)):
        near = away[ring] < max(0.03, 0.75 * step)
        at = reach[near].max(0) + ROOM if near.any() else np.full(ANGLES, -1.0, np.float32)
        if ring > 1:
            at = np.maximum(at, support[ring - 1] + tube.flare * step)
        if ring and length < SHORT:  # the hem of a shirt lies on a raised thigh, not around it
            at = np.minimum(at, support[ring - 1] + LEAN * step)
        support[ring] = at
    return support
