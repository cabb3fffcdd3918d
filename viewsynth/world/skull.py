# SPDX-License-Identifier: Apache-2.0
"""The skull of a person on a grid of directions from the middle of the head, and the hairline.

mannequin -> this module -> hair, faces. The ears are not part of the skull.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage

from viewsynth.world.forms import grid
from viewsynth.world.mannequin import Mannequin
from viewsynth.world.shells import Shell, cut

ROWS, COLUMNS = 26, 56
LOW = np.deg2rad(150)  # angle from the crown to the last row of the grid
# Height of the hairline above the ears, metres, from the back of the head to the tip of the nose;
# positions along z, 0 = the ears, 1 = the tip of the nose.
HAIRLINE = (-0.055, -0.045, 0.0, 0.045, 0.075, 0.095)
HAIRLINE_AT = (-0.8, -0.3, 0.0, 0.25, 0.5, 0.8)


class Skull:
    """The head of one person on the grid of directions.

    Args:
        m: The mannequin.
        template: The person's base mesh, see `Mannequin.template`.  [V, 3]

    Attributes:
        centre: Middle of the head in the template, metres.  [3]
        middle: Middle of the head in rest coordinates, metres.  [3]
        radius: Distance from the centre to the skin, metres.  [ROWS * COLUMNS]
        rest: The skull of the mean body in rest coordinates.  [ROWS * COLUMNS, 3]
    """

    def __init__(self, m: Mannequin, template: np.ndarray):
        self.m, self.template = m, template
        corner, weight, empty, self.rest, self.middle = _directions(m)
        head = template[_head(m)]
        self.centre = (head.min(0) + head.max(0)) / 2
        hit = ((template[corner] - self.centre) * weight[..., None]).sum(1)
        self.radius = _filled(np.linalg.norm(hit, axis=1), empty)

    def cap(self, thickness: np.ndarray, line: np.ndarray) -> Shell:
        """The skull offset by `thickness` where `line` is positive, [ROWS * COLUMNS] each."""
        points = self.centre + DIRECTIONS * (self.radius + thickness)[:, None]
        mesh = points, grid(ROWS, COLUMNS, closed=True)
        shell = self.m.bound(mesh, self.rest, "head")
        return cut(shell, line)


def _grid_directions() -> np.ndarray:
    down = np.linspace(0.001, LOW, ROWS)[:, None]
    turn = np.linspace(0, 2 * np.pi, COLUMNS, endpoint=False)[None]
    ring = np.stack(
        [np.sin(down) * np.sin(turn), np.cos(down) + 0 * turn, np.sin(down) * np.cos(turn)], -1
    )
    return ring.reshape(-1, 3).astype(np.float32)


DIRECTIONS = _grid_directions()


@functools.lru_cache(maxsize=1)
def _head(m: Mannequin) -> np.ndarray:
    """Vertices of the upper head without ears and nose; their box is that of the skull."""
    used = np.unique(m.skin_faces)
    nose = m.at["nose"]
    high = used[(m.rest[used, 1] > nose[1] + 0.03) & (np.abs(m.rest[used, 0]) < 0.1)]
    return high[~_auricle(m.rest[high], m)]


def _auricle(rest: np.ndarray, m: Mannequin) -> np.ndarray:
    sides = np.abs(rest) * [1, 1, 0] + rest * [0, 0, 1]
    return np.linalg.norm(sides - m.line("ear") - [0.012, 0.0, -0.01], axis=1) < 0.034


@functools.lru_cache(maxsize=1)
def _directions(m: Mannequin):
    """Points at which rays from the middle leave the head of the mean body.

    Returns:
        Corners of the triangle hit [N, 3], their weights [N, 3], whether a ray hits nothing or only
        an ear [N], the mean skull in rest coordinates [N, 3], its middle [3].
    """
    head = m.rest[_head(m)]
    centre = (head.min(0) + head.max(0)) / 2
    near = m.skin_faces[(m.rest[m.skin_faces, 1] > m.at["nose"][1] - 0.16).all(1)]
    near = near[(np.abs(m.rest[near, 0]) < 0.12).all(1) & ~_auricle(m.rest[near], m).any(1)]
    a, b, c = (m.rest[near[:, k]] - centre for k in range(3))
    volume = np.einsum("fk,fk->f", a, np.cross(b, c))
    # Weights of the corners of each triangle in each direction, as ratios of volumes.
    parts = [DIRECTIONS @ np.cross(p, q).T for p, q in ((b, c), (c, a), (a, b))]
    total = sum(parts)
    inside = (np.minimum(np.minimum(*parts[:2]), parts[2]) >= -1e-9) & (total > 1e-9)
    far = np.where(inside, volume / np.where(inside, total, 1), -1)
    best, every = far.argmax(1), np.arange(len(far))
    empty = far[every, best] <= 0
    weight = np.stack([p[every, best] for p in parts], 1) / total[every, best][:, None]
    weight[empty] = 1 / 3
    radius = _filled(far[every, best], empty)
    rest = (centre + DIRECTIONS * radius[:, None]).astype(np.float32)
    return near[best], weight.astype(np.float32), empty, rest, centre


def _filled(radius: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Radii with holes filled from their neighbours, slightly smoothed, [ROWS * COLUMNS]."""
    value = np.where(empty, 0, radius).reshape(ROWS, COLUMNS)
    known = (~empty).astype(float).reshape(ROWS, COLUMNS)
    blurred = [ndimage.gaussian_filter(x, 2.0, mode=("nearest", "wrap")) for x in (value, known)]
    value = np.where(known > 0, value, blurred[0] / (blurred[1] + 1e-6))
    smooth = ndimage.gaussian_filter(value, 0.8, mode=("nearest", "wrap"))
    return np.maximum(smooth, value - 0.002).ravel().astype(np.float32)


def hairline(
    rest: np.ndarray, m: Mannequin, lower: float = 0.0, over_ears: bool = False
) -> np.ndarray:
    """Height of points of the head above the hairline.

    Args:
        rest: Rest coordinates, metres.  [N, 3]
        m: The mannequin.
        lower: Length of a fringe on the forehead, metres.
        over_ears: Whether the hair covers the ears.

    Returns:
        Metres, negative below the hairline.  [N]
    """
    ear, nose = m.line("ear"), m.at["nose"]
    forward = (rest[:, 2] - ear[2]) / (nose[2] - ear[2])
    line = np.interp(forward, HAIRLINE_AT, HAIRLINE)
    line -= lower * np.clip((forward - 0.2) / 0.4, 0, 1)
    if over_ears:
        line = np.minimum(line, np.where(forward < 0.3, -0.05, line))
        return rest[:, 1] - ear[1] - line
    sides = np.abs(rest) * [1, 1, 0] + rest * [0, 0, 1]
    auricle = np.linalg.norm((sides - ear) * [0.6, 0.8, 1.0], axis=1) - 0.03
    return np.minimum(rest[:, 1] - ear[1] - line, auricle)
