# SPDX-License-Identifier: Apache-2.0
"""Charts: the crops themselves as the texture of a clothed surface.

surface -> this module -> `records.Surface`. Every triangle that a crop sees takes its colours from
that crop at its own resolution; of the others, those that are seen from behind take the colours
that completion guesses for the back of a crop, and the rest those of the body's atlas. The pixels
of a crop are blended with those of the other crops that see the same point, by angle and resolution
(unstructured lumigraph, Buehler et al., SIGGRAPH 2001), so that two crops meet without a seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from viewsynth.reconstruct.canonical import Canonical
from viewsynth.reconstruct.exposure import Exposure
from viewsynth.reconstruct.fill import MIRRORED
from viewsynth.reconstruct.guess import Guess
from viewsynth.reconstruct.surface import Shell
from viewsynth.reconstruct.texture import SIZE, Atlas
from viewsynth.records import Surface

SURE = 0.15  # weight from which a point counts as observed
SHARP = 4  # exponent of the weights: with a larger one the best crop counts more
UNSEEN = 0.005  # weight below which a triangle takes its colours from the atlas
TORN = 0.04  # sides of the atlas: a triangle that spans more lies across a seam
BORDER = 2  # pixels of a chart around the person


def paint(
    shell: Shell,
    canonical: Canonical,
    body: tuple[Atlas, np.ndarray, np.ndarray],
    exposures: Sequence[Exposure],
    images: Sequence[np.ndarray],
    tones: Sequence,
    guesses: Sequence[tuple[Exposure, Guess] | None],
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
        guesses: Of the same crops, what is seen of the shell from behind, and what completion says.

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
    seen_by = list(zip(exposures, toned, strict=True))
    behind = [
        (guess[0], np.dstack([guess[1].toned(image), guess[1].certainty]))
        for guess, image in zip(guesses, toned, strict=True)
        if guess is not None
    ]
    under = _Under(behind, shell.faces, fill, guess)
    every = [*exposures, *(one for one, _ in behind)]
    charts = [_chart(own, seen_by, under) for own in every]
    whole, corners = _packed(np.dstack([texture, seen]), charts, every)
    places = np.stack([np.stack([column, row], 1) + 0.5, *(one.pixels for one in every)])
    weights = [np.array([one.weight for one, _ in some]) for some in (seen_by, behind)]
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


def _chart(own: Exposure, seen_by: list, under: _Under) -> np.ndarray:
    """Blended colours and seen values at the pixels of one exposure, uint8 [H, W, 4]."""
    shown = own.face >= 0
    colour, share = _blended(own, seen_by, under.faces)
    sure = np.clip(share / SURE, 0, 1)[:, None]
    guessed, guess = under.at(own)
    out = np.zeros((*shown.shape, 4), np.uint8)
    colour = colour * sure + guessed * (1 - sure)
    seen = sure + guess * (1 - sure)
    out[shown] = np.concatenate([colour, 255 * seen], 1).clip(0, 255).round()
    return _extended(out, shown)


def _blended(own: Exposure, seen_by: list, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What several exposures show at the pixels of one, blended.

    Args:
        own: The exposure whose pixels are asked for.
        seen_by: The exposures, each with its image of C channels.
        faces: Of the shell.

    Returns:
        Colours [K, C], and the largest weight that an exposure has there [K].
    """
    share = own.values(np.stack([one.weight for one, _ in seen_by]).T, faces)
    channels = range(seen_by[0][1].shape[2])
    colour, total = np.zeros((len(share), len(channels))), np.zeros(len(share))
    for k, (other, image) in enumerate(seen_by):
        strength = share[:, k] ** SHARP
        if other is own:
            mine = image[own.face >= 0]
        else:
            place = own.values(other.pixels, faces) - 0.5
            mine = np.stack(
                [
                    ndimage.map_coordinates(image[..., c], place.T[::-1], order=1, mode="nearest")
                    for c in channels
                ],
                1,
            )
        colour += strength[:, None] * mine
        total += strength
    return colour / np.maximum(total, 1e-12)[:, None], share.max(1)


@dataclass(frozen=True)
class _Under:
    """Colours where no crop sees the shell.

    Args:
        behind: What is seen of the shell from behind, of each crop, with the guessed image and the
            certainty in a fourth channel.
        faces: Of the shell.
        fill: Colours of the body's atlas at the vertices.  [V, 3]
        seen: Its seen values there.  [V]
    """

    behind: list
    faces: np.ndarray
    fill: np.ndarray
    seen: np.ndarray

    def at(self, own: Exposure) -> tuple[np.ndarray, np.ndarray]:
        """Colours [K, 3] and seen values [K, 1] at the pixels of an exposure."""
        colour = own.values(self.fill, self.faces)
        seen = own.values(self.seen[:, None], self.faces)
        if not self.behind:
            return colour, seen
        guessed, share = _blended(own, self.behind, self.faces)
        sure = np.clip(share / SURE, 0, 1)[:, None]
        mixed = guessed[:, :3] * sure + colour * (1 - sure)
        return mixed, MIRRORED * guessed[:, 3:] * sure + seen * (1 - sure)


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
    faces: np.ndarray, weights: Sequence[np.ndarray], places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give every triangle to the atlas or to one chart.

    Args:
        faces: [F, 3].
        weights: How well the crops, and then the guesses of their backs, see the vertices; a guess
            is used only where no crop sees.  [K, V] each
        places: Of the vertices in the texture, pixels, for the atlas and each chart.  [1 + C, V, 2]

    Returns:
        Places [U, 2] and, for every corner of the triangles, an index into them [F, 3].
    """
    a, b, c = faces.T
    sheet, first = np.zeros(len(faces), np.int64), 1
    for some in weights:
        if len(some):
            by_face = np.minimum(np.minimum(some[:, a], some[:, b]), some[:, c])
            here = (sheet == 0) & (by_face.max(0) > UNSEEN)
            sheet[here] = by_face.argmax(0)[here] + first
        first += len(some)
    corner = [axis[faces.T] for axis in places[0].T]
    span = [np.maximum.reduce(axis) - np.minimum.reduce(axis) for axis in corner]
    torn = (np.maximum(*span) > TORN * SIZE) & (sheet == 0)
    corner = np.where(torn[:, None], faces[:, :1], faces)  # across a seam one colour is taken
    count = places.shape[1]
    used, index = np.unique(corner + sheet[:, None] * count, return_inverse=True)
    return places.reshape(-1, 2)[used], index.reshape(-1, 3)
