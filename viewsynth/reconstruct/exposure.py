# SPDX-License-Identifier: Apache-2.0
"""Exposure: what a crop sees of a shell, and what would be seen of it from behind.

surface -> this module -> charts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import csr_array
from torch import Tensor

from viewsynth.reconstruct.canvas import FAR, SIZE
from viewsynth.reconstruct.drawing import draw
from viewsynth.reconstruct.fit import Fit, view_rotation
from viewsynth.reconstruct.guess import Guess
from viewsynth.reconstruct.surface import Shell
from viewsynth.reconstruct.warp import move
from viewsynth.render import zbuffer
from viewsynth.render.shade import vertex_normals

HIDDEN = 0.02  # metres behind the front, from which a vertex is hidden
GRAZING = 0.02  # cosine below which a crop does not see a surface


@dataclass(frozen=True)
class Exposure:
    """What one crop sees of a shell.

    Args:
        pixels: Of the vertices in the crop.  float32 [V, 2]
        weight: How well it sees them; 0 = not at all.  float32 [V]
        face: Triangle at every pixel, -1 = none.  [H, W]
        bary: Barycentric coordinates there.  [H, W, 3]
    """

    pixels: np.ndarray
    weight: np.ndarray
    face: np.ndarray
    bary: np.ndarray

    def values(self, of_vertex: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Values of vertices, [V, C], at the pixels that show the shell, [K, C]."""
        shown = self.face >= 0
        corners, shares = faces[self.face[shown]].T, self.bary[shown].T[..., None]
        return sum(of_vertex[at] * share for at, share in zip(corners, shares, strict=True))

    def overlap(self, mask: np.ndarray) -> float:
        """IoU of the drawn shell and the mask of the crop."""
        drawn, person = self.face >= 0, mask > 0.5
        return float((drawn & person).sum() / max((drawn | person).sum(), 1))


def expose(
    shell: Shell,
    binding: csr_array,
    fit: Fit,
    row: int,
    motions: Tensor,
    mask: np.ndarray,
    trust: float,
) -> Exposure:
    """Project a shell into one crop and find what the crop sees of it.

    Args:
        shell: The clothed mesh.
        binding: Of its vertices, see `warp.Nodes.bind`.
        fit: Cameras of the crops.
        row: Index of the crop in the fit.
        motions: Of the nodes in this crop.  float32 [G, 3, 4]
        mask: Person probability.  float32 [H, W]
        trust: Trust in the crop, (0, 1].
    """
    faces = torch.from_numpy(shell.faces)
    vertices = move(shell.vertices, binding, motions)
    pixels, depth = fit.project(vertices[None], torch.tensor([row]))
    towards = _towards(pixels[0], faces)  # the mesh is closed: the others are hidden
    front = draw(pixels, depth, faces[towards], mask.shape)
    factor, fine = front.factor, front.fragments
    middle = slice(factor // 2, None, factor)  # about the centres of the crop's pixels
    face, bary = (image[0, middle, middle].cpu().numpy() for image in (fine.face, fine.bary))
    face = np.where(face < 0, -1, towards.cpu().numpy()[face])
    forward = view_rotation(fit.elevation[row : row + 1], fit.azimuth[row : row + 1])[0, 2]
    cosine = -(vertex_normals(vertices[None], faces)[0] @ forward).cpu().numpy()
    place, far = pixels[0].cpu().numpy(), depth[0].cpu().numpy() + 10
    at = np.floor(place * factor).astype(int)
    front = fine.depth[0].cpu().numpy()
    inside = ((at >= 0) & (at < front.shape[::-1])).all(1)
    at = np.clip(at, 0, np.array(front.shape[::-1]) - 1)
    # A vertex on the outline lies just beside the drawn pixels: their neighbours decide.
    front = ndimage.maximum_filter(np.where(np.isfinite(front), front, -np.inf), 3)
    visible = inside & (far < front[at[:, 1], at[:, 0]] + HIDDEN) & (cosine > GRAZING)
    person = ndimage.map_coordinates(mask, (place[:, ::-1] - 0.5).T, order=1, mode="constant")
    weight = np.where(visible, np.clip(cosine, 0, 1) * trust * (person > 0.3), 0)
    return Exposure(place, weight.astype(np.float32), face, bary)


def from_behind(
    shell: Shell,
    binding: csr_array,
    fit: Fit,
    row: int,
    motions: Tensor,
    guess: Guess,
    trust: float,
) -> Exposure:
    """What is seen of a shell from behind, on the canvas of a crop's guess.

    Args:
        shell: The clothed mesh.
        binding: Of its vertices, see `warp.Nodes.bind`.
        fit: Cameras of the crops.
        row: Index of the crop in the fit.
        motions: Of the nodes in this crop.  float32 [G, 3, 4]
        guess: What completion says of the crop.
        trust: Trust in the crop, (0, 1].
    """
    faces = torch.from_numpy(shell.faces)
    vertices = move(shell.vertices, binding, motions)
    pixels, depth = fit.project(vertices[None], torch.tensor([row]))
    place = guess.places(pixels[0])
    away = torch.ones(len(faces), dtype=torch.bool)
    away[_towards(pixels[0], faces)] = False
    away = away.nonzero()[:, 0]
    found = zbuffer.farthest(place[None].float(), depth + FAR, faces[away], SIZE)
    face, bary = found.face[0].cpu().numpy(), found.bary[0].cpu().numpy()
    face = np.where(face < 0, -1, away.cpu().numpy()[face])
    forward = view_rotation(fit.elevation[row : row + 1], fit.azimuth[row : row + 1])[0, 2]
    cosine = (vertex_normals(vertices[None], faces)[0] @ forward).cpu().numpy()
    place, far = place.cpu().numpy().astype(np.float32), depth[0].cpu().numpy() + FAR
    at = np.floor(place).astype(int)
    inside = ((at >= 0) & (at < SIZE[::-1])).all(1)
    at = np.clip(at, 0, np.array(SIZE[::-1]) - 1)
    back = found.depth[0].cpu().numpy()
    back = ndimage.minimum_filter(np.where(np.isfinite(back), back, np.inf), 3)
    visible = inside & (far > back[at[:, 1], at[:, 0]] - HIDDEN) & (cosine > GRAZING)
    sure = guess.certainty[at[:, 1], at[:, 0]]
    weight = np.where(visible, np.clip(cosine, 0, 1) * trust * sure, 0)
    return Exposure(place, weight.astype(np.float32), face, bary)


def _towards(pixels: Tensor, faces: Tensor) -> Tensor:
    """Index of the triangles whose outside a crop sees."""
    (ax, ay), (bx, by), (cx, cy) = (pixels[corner].T for corner in faces.T)
    return ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0).nonzero()[:, 0]
