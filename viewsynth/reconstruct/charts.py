# SPDX-License-Identifier: Apache-2.0
"""Charts: the crops themselves as the texture of a clothed surface.

surface -> this module -> `records.Surface`. Every triangle that a crop sees takes its colours from
that crop at its own resolution; all others take them from the atlas of the body. The pixels of a
crop are blended with those of the other crops that see the same point, by angle and resolution
(unstructured lumigraph, Buehler et al., SIGGRAPH 2001), so that two crops meet without a seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.sparse import csr_array
from torch import Tensor

from viewsynth.reconstruct.canonical import Canonical
from viewsynth.reconstruct.drawing import draw
from viewsynth.reconstruct.fill import MIRRORED
from viewsynth.reconstruct.fit import Fit, view_rotation
from viewsynth.reconstruct.surface import Shell
from viewsynth.reconstruct.texture import SIZE, Atlas
from viewsynth.reconstruct.warp import move
from viewsynth.records import Surface
from viewsynth.render.shade import vertex_normals

HIDDEN = 0.02  # metres behind the front, from which a vertex is hidden
GRAZING = 0.02  # cosine below which a crop does not see a surface
SURE = 0.15  # weight from which a point counts as observed
SHARP = 4  # exponent of the weights: with a larger one the best crop counts more
UNSEEN = 0.005  # weight below which a triangle takes its colours from the atlas
TORN = 0.04  # sides of the atlas: a triangle that spans more lies across a seam
BORDER = 2  # pixels of a chart around the person


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


def paint(
    shell: Shell,
    canonical: Canonical,
    body: tuple[Atlas, np.ndarray, np.ndarray],
    exposures: Sequence[Exposure],
    images: Sequence[np.ndarray],
    tones: Sequence,
) -> Surface:
    """Give a shell its texture.

    Args:
        shell: The clothed mesh.
        canonical: The body inside.
        body: The texels of the body, their completed colours, uint8 [T, T, 3], and their seen map,
            uint8 [T, T].
        exposures: What each crop sees of the shell, see `expose`.
        images: Colours of the crops, free of background.  float32 [H, W, 3] each
        tones: Of `tone.tones`, for the same crops.

    Returns:
        The surface; its texture shows the atlas at the left, then one chart per crop.
    """
    atlas, texture, seen = body
    texel = atlas.of_vertex[canonical.tree.query(shell.vertices)[1]]
    row, column = np.divmod(atlas.texel[texel], SIZE)
    fill, guess = texture[row, column].astype(np.float32), seen[row, column] / 255
    guess = np.minimum(guess, MIRRORED)
    toned = [
        tone(image.reshape(-1, 3), part.ravel()).reshape(image.shape)
        for tone, image, part in zip(
            tones, images, _parts(exposures, shell.faces, atlas.part[texel]), strict=True
        )
    ]
    weights = np.stack([one.weight for one in exposures])
    charts = [
        _chart(number, exposures, shell.faces, toned, weights, fill, guess)
        for number in range(len(exposures))
    ]
    whole, corners = _packed(np.dstack([texture, seen]), charts, exposures)
    places = np.stack([np.stack([column, row], 1) + 0.5, *(one.pixels for one in exposures)])
    uvs, face_uvs = _coordinates(shell.faces, weights, places + corners[:, None])
    uvs = uvs / whole.shape[1::-1]
    return Surface(
        vertices=shell.vertices,
        faces=_small(shell.faces),
        uvs=np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1).astype(np.float32),
        face_uvs=_small(face_uvs),
        texture=np.ascontiguousarray(whole[..., :3]),
        seen=np.ascontiguousarray(whole[..., 3]),
    )


def _small(index: np.ndarray) -> np.ndarray:
    """Indices in two bytes where they fit: they are half of a person file."""
    return index.astype(np.uint16 if index.max() < 1 << 16 else np.int32)


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


def _towards(pixels: Tensor, faces: Tensor) -> Tensor:
    """Index of the triangles whose outside a crop sees."""
    (ax, ay), (bx, by), (cx, cy) = (pixels[corner].T for corner in faces.T)
    return ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0).nonzero()[:, 0]


def _parts(exposures, faces: np.ndarray, part: np.ndarray) -> list[np.ndarray]:
    """Part of the body at every pixel of the crops, [H, W] each."""
    found = []
    for one in exposures:
        drawn = part[faces[np.maximum(one.face, 0), one.bary.argmax(-1)]]
        found.append(_extended(drawn, one.face >= 0))
    return found


def _extended(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Every pixel with the value of the nearest known one."""
    if not known.any():
        return values
    rows, columns = ndimage.distance_transform_edt(
        ~known, return_distances=False, return_indices=True
    )
    return values[rows, columns]


def _chart(number: int, exposures, faces, toned, weights, fill, guess) -> np.ndarray:
    """Blended colours and seen values at the pixels of one crop, uint8 [H, W, 4]."""
    own = exposures[number]
    shown = own.face >= 0
    share = own.values(weights.T, faces)
    colour, total = np.zeros((len(share), 3)), np.zeros(len(share))
    for k, (other, image) in enumerate(zip(exposures, toned, strict=True)):
        strength = share[:, k] ** SHARP
        if k == number:
            mine = image[shown]
        else:
            place = own.values(other.pixels, faces) - 0.5
            mine = np.stack(
                [
                    ndimage.map_coordinates(image[..., c], place.T[::-1], order=1, mode="nearest")
                    for c in range(3)
                ],
                1,
            )
        colour += strength[:, None] * mine
        total += strength
    sure = np.clip(share.max(1) / SURE, 0, 1)[:, None]
    colour = colour / np.maximum(total, 1e-12)[:, None] * sure
    colour += own.values(fill, faces) * (1 - sure)
    seen = sure + own.values(guess[:, None], faces) * (1 - sure)
    out = np.zeros((*shown.shape, 4), np.uint8)
    out[shown] = np.concatenate([colour, 255 * seen], 1).clip(0, 255).round()
    return _extended(out, shown)


def _packed(
    atlas: np.ndarray, charts: Sequence[np.ndarray], exposures: Sequence[Exposure]
) -> tuple[np.ndarray, np.ndarray]:
    """The atlas and the parts of the charts with the person, side by side.

    Returns:
        uint8 [H, W, 4], and what is to be added to the pixels (x, y) of each, [1 + K, 2].
    """
    sheets, corners, left = [atlas], [(0, 0)], atlas.shape[1]
    for chart, exposure in zip(charts, exposures, strict=True):
        shown = np.argwhere(exposure.face >= 0)
        if not len(shown):
            shown = np.zeros((1, 2), int)
        top, start = np.maximum(shown.min(0) - BORDER, 0)
        bottom, end = shown.max(0) + 1 + BORDER
        sheets.append(chart[top:bottom, start:end])
        corners.append((left - start, -top))
        left += sheets[-1].shape[1]
    whole = np.zeros((max(len(sheet) for sheet in sheets), left, 4), np.uint8)
    left = 0
    for sheet in sheets:
        whole[: len(sheet), left : left + sheet.shape[1]] = sheet
        left += sheet.shape[1]
    return whole, np.array(corners)


def _coordinates(
    faces: np.ndarray, weights: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give every triangle to the atlas or to one chart.

    Args:
        faces: [F, 3].
        weights: How well each of K crops sees the vertices.  [K, V]
        places: Of the vertices in the texture, pixels, for the atlas and each chart.  [1 + K, V, 2]

    Returns:
        Places [U, 2] and, for every corner of the triangles, an index into them [F, 3].
    """
    a, b, c = faces.T
    by_face = np.minimum(np.minimum(weights[:, a], weights[:, b]), weights[:, c])
    sheet = np.where(by_face.max(0) > UNSEEN, by_face.argmax(0) + 1, 0)
    corner = [axis[faces.T] for axis in places[0].T]
    span = [np.maximum.reduce(axis) - np.minimum.reduce(axis) for axis in corner]
    torn = (np.maximum(*span) > TORN * SIZE) & (sheet == 0)
    corner = np.where(torn[:, None], faces[:, :1], faces)  # across a seam one colour is taken
    count = weights.shape[1]
    used, index = np.unique(corner + sheet[:, None] * count, return_inverse=True)
    return places.reshape(-1, 2)[used], index.reshape(-1, 3)
