# SPDX-License-Identifier: Apache-2.0
"""Surface: one closed mesh of a clothed person, from the reliefs of all crops.

relief -> this module -> charts. In the volume around the canonical body, the clothed person is the
union of the body and of every crop's sheets, cut by the outlines of all crops (visual hull,
Laurentini, 1994). Outlines from the same or the opposite side, which should agree, are averaged as
truncated signed distances (Curless and Levoy, SIGGRAPH 1996).
The surface is found by marching cubes (Lewiner et al., 2003; scikit-image).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from viewsynth.reconstruct.canonical import CORE, VOXEL, Volume
from viewsynth.reconstruct.fit import Fit
from viewsynth.reconstruct.guess import Guess
from viewsynth.reconstruct.relief import Relief
from viewsynth.reconstruct.warp import move

INSIDE, OUTSIDE = 0.03, 0.10  # metres: how much a single outline can say for and against a point
ALIKE = 8  # exponent of the cosine of the angle between crops whose outlines are averaged
DOUBT = 0.05  # metres by which the outline of a crop without any trust is moved outwards
BLEND = 0.02  # metres over which body and sheets pass into each other
SMOOTH = 0.6  # voxels, standard deviation
ROOM = 4  # voxels around the person that the smoothing needs
REACH = 0.09  # metres from the middle of a brick to its corners, and some more
WHOLE = 0.6  # smallest volume of a person, relative to the canonical body
LEAST = 0.02  # share of the vertices, below which a separate piece is dropped


@dataclass(frozen=True)
class Shell:
    """A closed mesh around the canonical body.

    Args:
        vertices: In the canonical pose, metres.  float32 [V, 3]
        faces: Counter-clockwise seen from outside.  int64 [F, 3]
    """

    vertices: np.ndarray
    faces: np.ndarray


def fuse(
    volume: Volume,
    fit: Fit,
    rows: Sequence[int],
    reliefs: Sequence[Relief],
    motions: Tensor,
    trust: Sequence[float],
    guesses: Sequence[Guess | None],
) -> Shell | None:
    """Fuse the crops of one person.

    Args:
        volume: The points around the canonical body.
        fit: Cameras of the crops.
        rows: Index of each crop in the fit.
        reliefs: Of each crop.
        motions: Of the nodes in each crop.  float32 [K, G, 3, 4]
        trust: Weight of each crop.
        guesses: Of completion for each crop, or None.

    Returns:
        The mesh; None if the outlines leave less than a person.
    """
    crops = list(zip(rows, reliefs, motions, trust, guesses, strict=True))
    coarse = _solid(volume, volume.centre, fit, crops)
    near = np.flatnonzero((np.abs(coarse) < CORE + REACH)[volume.brick])
    solid = np.where(coarse > 0, CORE, -CORE).astype(np.float32)[volume.brick]
    solid[near] = _solid(volume, near, fit, crops)
    return _mesh(volume, solid)


def _solid(volume: Volume, chosen: np.ndarray, fit: Fit, crops: list) -> np.ndarray:
    """Signed distances of the chosen points from the clothed person, metres, inside negative."""
    points, binding = volume.points[chosen], volume.binding[chosen]
    sheets, outside = np.full(len(points), np.inf, np.float32), []
    most = max(weight for *_, weight, _ in crops)
    trunk = np.flatnonzero(~volume.arm[chosen])
    guessed, share = np.zeros(len(trunk)), np.zeros(len(trunk))
    for row, relief, motion, weight, guess in crops:
        pixels, depth = fit.project(move(points, binding, motion)[None], torch.tensor([row]))
        away = depth[0].cpu().numpy()
        own, beyond = relief.distance(points, pixels[0], away)
        if guess is not None:
            found, sure = guess.distance(points[trunk], pixels[0][trunk], away[trunk])
            own[trunk[sure > 0]] = np.inf
            guessed += weight * sure * found
            share += weight * sure
        np.minimum(sheets, own, out=sheets)
        outside.append(np.clip(beyond - (1 - weight / most) * DOUBT, -INSIDE, OUTSIDE))
    mean = np.where(share > 0, guessed / np.maximum(share, 1e-9), np.inf)
    sheets[trunk] = np.minimum(sheets[trunk], mean)
    solid = _union(volume.distance[chosen], sheets)
    azimuth = np.deg2rad([float(fit.azimuth[row]) for row, *_ in crops])
    alike = np.cos(azimuth[:, None] - azimuth) ** ALIKE * [weight for *_, weight, _ in crops]
    known = np.isfinite(outside)
    share = alike @ known
    mean = (alike @ np.nan_to_num(outside)) / np.maximum(share, 1e-9)
    return np.maximum(solid, np.where(share > 1e-3, mean, -INSIDE).max(0))


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smooth minimum of two distances (Quilez' polynomial)."""
    share = np.clip(0.5 + 0.5 * (b - a) / BLEND, 0, 1)
    return b * (1 - share) + a * share - BLEND * share * (1 - share)


def _mesh(volume: Volume, solid: np.ndarray) -> Shell | None:
    """Marching cubes over the distances of the active points; None if too little is inside."""
    from skimage.measure import marching_cubes

    field = np.full(np.prod(volume.shape), CORE, np.float32)
    field[volume.core] = -CORE
    field[volume.active] = np.clip(solid, -CORE, CORE)
    field = field.reshape(volume.shape)
    if (field < 0).sum() < WHOLE * ((volume.distance < 0).sum() + len(volume.core)):
        return None
    (box,) = ndimage.find_objects((field < 0).astype(int))
    box = tuple(slice(max(side.start - ROOM, 0), side.stop + ROOM) for side in box)
    field = ndimage.gaussian_filter(field[box], SMOOTH, mode="nearest")
    vertices, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="descent")
    faces = faces.astype(np.int64)
    edges = sparse.coo_matrix(
        (np.ones(2 * len(faces)), (faces[:, :2].T.ravel(), faces[:, 1:].T.ravel())),
        shape=(len(vertices),) * 2,
    )
    _, piece = connected_components(edges, directed=False)
    kept = (np.bincount(piece) > LEAST * len(vertices))[piece]
    number = np.cumsum(kept) - 1
    faces = number[faces[kept[faces[:, 0]]]]
    vertices = (vertices[kept] + [side.start for side in box]) * VOXEL + volume.origin
    return Shell(vertices.astype(np.float32), faces)
