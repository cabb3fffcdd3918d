# SPDX-License-Identifier: Apache-2.0
"""Small parametric meshes for hair, hats, bags and signs."""

from __future__ import annotations

import numpy as np

Mesh = tuple[np.ndarray, np.ndarray]  # points float32 [N, 3] and triangles int64 [F, 3]


def grid(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Triangles of a grid of points, row by row.

    They face outward if the rows go down and the columns counter-clockwise seen from above.

    Args:
        rows: Number of rows.
        columns: Points per row.
        closed: Whether the last column is joined to the first.

    Returns:
        int64 [F, 3]
    """
    last = columns if closed else columns - 1
    row, column = np.mgrid[0 : rows - 1, 0:last].reshape(2, -1)
    a, b = row * columns + column, row * columns + (column + 1) % columns
    return np.concatenate(
        [np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)]
    )


def block(centre, half, roundness: float = 0.5, rows: int = 9, columns: int = 20) -> Mesh:
    """A superellipsoid: a box with round edges or an ellipsoid.

    Args:
        centre: Middle, metres.  [3]
        half: Half sizes, metres.  [3]
        roundness: 1 = ellipsoid, towards 0 = box.
        rows: Rows of vertices from top to bottom.
        columns: Vertices per row.

    Returns:
        The mesh.
    """
    down = np.linspace(0, np.pi, rows)[:, None]
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]

    def power(x):
        return np.sign(x) * np.abs(x) ** roundness

    ring = power(np.sin(down))
    points = np.stack(
        [ring * power(np.sin(turn)), power(np.cos(down)) + 0 * turn, ring * power(np.cos(turn))], -1
    )
    points = points.reshape(-1, 3) * np.float64(half) + np.float64(centre)
    return points.astype(np.float32), grid(rows, columns, closed=True)


def sweep(path: np.ndarray, radii: np.ndarray, sides: int = 10) -> Mesh:
    """A round tube along a path; its ends are open unless their radius is 0.

    Args:
        path: Metres.  [N, 3]
        radii: Metres, one per point, or two for an oval (across, along z).  [N] or [N, 2]
        sides: Vertices around each point.

    Returns:
        The mesh.
    """
    path, radii = np.float64(path), np.float64(radii).reshape(len(path), -1)
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    hint = np.where(np.abs(along[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    side = np.cross(hint, along)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(side, along)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = (
        side[:, None] * np.cos(turn)[None, :, None] * radii[:, :1, None]
        + other[:, None] * np.sin(turn)[None, :, None] * radii[:, -1:, None]
    )
    points = (path[:, None] + ring).reshape(-1, 3)
    return points.astype(np.float32), grid(len(path), sides, closed=True)


def merge(*meshes: Mesh) -> Mesh:
    """Several meshes as one."""
    first = np.cumsum([0] + [len(points) for points, _ in meshes])
    faces = [f + start for (_, f), start in zip(meshes, first, strict=False)]
    return np.concatenate([points for points, _ in meshes]), np.concatenate(faces)
