# SPDX-License-Identifier: Apache-2.0
"""Shells: sheets of triangles around a body that are cut and offset into garments.

A shell is given in the body's template pose. Each vertex has the skinning weights that move it, and
*rest* coordinates, on which fabrics and borders of garments depend (see `mannequin`). Garments are
cut along the zero line of a field, so that hems are straight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

SLACK = 1e-6  # field values closer to zero count as inside, to avoid sliver triangles
STEPS = 12  # smoothing steps, which make cloth bridge hollows


@dataclass(frozen=True)
class Shell:
    """A sheet of triangles that moves with the body.

    Args:
        points: Vertices in the template pose of one identity, metres.  float32 [N, 3]
        rest: Coordinates on the mean body in the rest pose, metres.  float32 [N, 3]
        skin: Skinning weights.  float32 [N, C]
        faces: Counter-clockwise seen from outside.  int64 [F, 3]
    """

    points: np.ndarray
    rest: np.ndarray
    skin: np.ndarray
    faces: np.ndarray

    def part(self, keep: np.ndarray) -> Shell:
        """The triangles of a mask [F], without unused vertices."""
        used, faces = np.unique(self.faces[keep], return_inverse=True)
        return Shell(self.points[used], self.rest[used], self.skin[used], faces.reshape(-1, 3))

    def moved(self, points: np.ndarray) -> Shell:
        """The same shell with other template points."""
        return replace(self, points=points.astype(np.float32))


def cut(shell: Shell, field: np.ndarray) -> Shell:
    """The part of a shell where a field is positive; triangles on its border are cut.

    Source: marching triangles; ours.

    Args:
        shell: The shell.
        field: One value per vertex, linear between vertices.  [N]

    Returns:
        The part.
    """
    field = np.where(np.abs(field) < SLACK, SLACK, field)
    inside = field[shell.faces] > 0
    count = inside.sum(1)
    whole = shell.faces[count == 3]
    pieces, edges = [whole], []
    base = len(shell.points)

    def crossing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Numbers of new vertices on the edges a-b: from `base`, in the order of `edges`."""
        start = base + sum(len(e) for e in edges)
        edges.append(np.stack([a, b], 1))
        return start + np.arange(len(a))

    for wanted in (1, 2):
        some = shell.faces[count == wanted]
        lone = (inside[count == wanted] == (wanted == 1)).argmax(1)  # the corner alone on its side
        a, b, c = (np.take_along_axis(some, ((lone + k) % 3)[:, None], 1)[:, 0] for k in range(3))
        ab, ac = crossing(a, b), crossing(a, c)
        if wanted == 1:
            pieces.append(np.stack([a, ab, ac], 1))
        else:
            pieces += [np.stack([ab, b, c], 1), np.stack([ab, c, ac], 1)]
    pair = np.concatenate(edges)
    low, high = pair.min(1), pair.max(1)
    share = (field[low] / (field[low] - field[high]))[:, None].astype(np.float32)

    def grown(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, values[low] * (1 - share) + values[high] * share])

    faces = np.concatenate(pieces)
    # Merge the vertices that both triangles at an edge create.
    keys = np.concatenate([np.arange(base), base + low * base + high])
    _, once, number = np.unique(keys, return_index=True, return_inverse=True)
    grown_shell = Shell(
        grown(shell.points)[once], grown(shell.rest)[once], grown(shell.skin)[once], number[faces]
    )
    return grown_shell.part(np.ones(len(faces), bool))


def normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Smooth unit normals, weighted by area, [N, 3], [F, 3] -> [N, 3]."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    flat, total = faces.T.ravel(), np.empty((len(points), 3), np.float32)
    for k in range(3):
        total[:, k] = np.bincount(flat, np.tile(across[:, k], 3), len(points))
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)


def averaging(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """Matrix that maps vertex values to the mean of the neighbours, [count, count]."""
    a = np.concatenate([faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()])
    b = np.concatenate([faces[:, [1, 2, 0]].ravel(), faces[:, [0, 1, 2]].ravel()])
    links = sparse.coo_matrix((np.ones(len(a), np.float32), (a, b)), (count, count)).tocsr()
    links.data[:] = 1
    degree = np.asarray(links.sum(1)).ravel()
    return sparse.diags((1 / np.maximum(degree, 1)).astype(np.float32)) @ links


def swell(
    points: np.ndarray,
    normal: np.ndarray,
    thickness: np.ndarray,
    hang: np.ndarray,
    mean: sparse.csr_matrix,
) -> np.ndarray:
    """Offset cloth from a surface and let it bridge hollows.

    Args:
        points: Vertices of the surface, metres.  [N, 3]
        normal: Its unit normals.  [N, 3]
        thickness: Smallest distance along the normal, metres.  [N]
        hang: Looseness of the cloth, 0 = skin-tight, 1 = loose.  [N]
        mean: See `averaging`.

    Returns:
        Vertices of the cloth, at least `thickness` above the surface.  [N, 3]
    """
    cloth = points + normal * thickness[:, None]
    share = (0.7 * hang)[:, None].astype(np.float32)
    for _ in range(STEPS):
        cloth = cloth + share * (mean @ cloth - cloth)
        lack = thickness - ((cloth - points) * normal).sum(1)
        cloth = cloth + normal * np.maximum(lack, 0)[:, None]
    return cloth.astype(np.float32)
