# SPDX-License-Identifier: Apache-2.0
"""Sheets: what a camera would see of a person from the front and, through the person, from behind.

character -> this module -> the pairs that completion learns from. On the pixels of a camera: depth
of the nearest and of the farthest surface, what they are, and their colours without light, of the
person alone. Arms hide the trunk, so there are sheets without them as well, and those of the body
without clothes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from viewsynth import bodies, cameras
from viewsynth.render import sheets, zbuffer
from viewsynth.world import LABELS
from viewsynth.world.character import Dressed
from viewsynth.world.mannequin import mannequin

# What a surface is; the index is the stored value.
KINDS = ("none", "skin", "hair", "hat", "top", "bottom", "skirt", "coat", "bag", "shoe")
LOOSE = ("skirt", "coat")  # kinds that go around both legs
AROUND = 1  # pixels around a place where legs overlap, which count as such
PER_SIDE = 3  # samples of colour along each side of a pixel
ARMPIT = 0.25  # metres below the shoulders, in rest coordinates, above which arms are
_BY_LABEL = {
    **dict.fromkeys(("face", "arms", "legs"), "skin"),
    **{"hair": "hair", "headwear": "hat", "top": "top", "bottom": "bottom"},
    **{"shoes": "shoe", "carried": "bag"},
}


@dataclass(frozen=True)
class Sheets:
    """The sheets of one person on the H x W pixels of a camera.

    Index 0 of the first axis is the sheet in front, index 1 the one behind. Depths are along the
    optical axis, metres, NaN = no surface.

    Args:
        depth: Of the whole person.  float32 [2, H, W]
        trunk: Of the person without arms and sleeves.  float32 [2, H, W]
        bare: Of the body without arms and without clothes.  float32 [2, H, W]
        colour: Of the whole person without light, sRGB.  uint8 [2, H, W, 3]
        kind: Of the whole person, index into `KINDS`.  uint8 [2, H, W]
        apart: Where a part of a leg is before another one, with nothing around both.  bool [H, W]
    """

    depth: np.ndarray
    trunk: np.ndarray
    bare: np.ndarray
    colour: np.ndarray
    kind: np.ndarray
    apart: np.ndarray

    @property
    def hidden(self) -> np.ndarray:
        """How far the trunk lies behind what hides it, metres; 0 = visible, [2, H, W]."""
        return np.nan_to_num(np.abs(self.trunk - self.depth))


def draw(person: Dressed, camera: cameras.Cameras) -> Sheets:
    """Draw the sheets of a person.

    Args:
        person: The person in the world frame.
        camera: One camera; the sheets lie on its canvas.

    Returns:
        The sheets; other people and things around have no part in them.
    """
    faces, arm = torch.from_numpy(person.faces), torch.from_numpy(_arms(person))
    whole = _Drawing(person.vertices, faces, camera)
    depth = sheets.depths(whole.pair)[0]
    fine = _Drawing(person.vertices, faces, _finer(camera))
    looks = [_looks(person, one) for one in fine.pair]
    kind = np.where(np.isfinite(depth), np.stack([kind for _, kind in looks]), 0)
    bare = _Drawing(person.bare, _bare_trunk(), camera)
    legs = [_legs()[one.face[0].clamp_min(0).long()] * (one.face[0] >= 0) for one in bare.pair]
    apart = ((legs[0] != legs[1]) & (legs[0] * legs[1] > 0)).numpy()
    loose = np.isin(kind, [KINDS.index(name) for name in LOOSE]).any(0)
    return Sheets(
        depth=depth,
        trunk=_Drawing(person.vertices, faces[~arm], camera).closed(depth),
        bare=bare.closed(depth),
        colour=np.stack([colour for colour, _ in looks]),
        kind=kind.astype(np.uint8),
        apart=ndimage.binary_dilation(apart, iterations=AROUND) & ~loose,
    )


class _Drawing:
    """The two sheets of a mesh, see `sheets.draw`."""

    def __init__(self, vertices: np.ndarray, faces: torch.Tensor, camera: cameras.Cameras):
        self.pixels, depth = camera.project(torch.from_numpy(vertices)[None])
        self.faces = faces
        self.pair = sheets.draw(self.pixels, depth, faces, camera.size)

    def closed(self, depth: np.ndarray) -> np.ndarray:
        """See `sheets.closed`; `depth` is that of the whole person, [2, H, W]."""
        return sheets.closed(self.pair, self.pixels, self.faces, np.isfinite(depth[:1]))[0]


def _finer(camera: cameras.Cameras) -> cameras.Cameras:
    """The same view on a canvas with more pixels."""
    height, width = camera.size
    return camera.window(
        torch.tensor([[0.0, 0, width, height]]), (height * PER_SIDE, width * PER_SIDE)
    )


def _bare_trunk() -> torch.Tensor:
    """Triangles of the body without arms, [F, 3]."""
    body = mannequin().body
    arms = [k for k, name in enumerate(bodies.PARTS) if name.endswith(("arm", "hand"))]
    return body.faces[~torch.isin(body.parts[body.faces], torch.tensor(arms)).any(1)]


def _legs() -> torch.Tensor:
    """Of the triangles of `_bare_trunk` the part of a leg, counted from 1, 0 elsewhere, [F]."""
    legs = ("thigh", "shank", "foot")
    number = [name.endswith(legs) * (1 + k) for k, name in enumerate(bodies.PARTS)]
    return torch.tensor(number)[mannequin().body.parts[_bare_trunk()[:, 0]]]


def _arms(person: Dressed) -> np.ndarray:
    """Which triangles are arms or sleeves: in rest coordinates they are held out sideways, [F]."""
    shoulder, rest = mannequin().line("shoulder"), person.rest
    out = (np.abs(rest[:, 0]) > shoulder[0]) & (rest[:, 1] > shoulder[1] - ARMPIT)
    bag = np.array([LABELS[piece.label] == "carried" for piece in person.pieces])
    return out[person.faces].all(1) & ~bag[person.piece]


def _looks(person: Dressed, one: zbuffer.Fragments) -> tuple[np.ndarray, np.ndarray]:
    """Colour, the mean over the samples of a pixel that hit, and their most frequent kind."""
    face, bary = one.face[0].numpy(), one.bary[0].numpy()
    hit = face >= 0
    albedo, _, label = person.shade(face[hit].astype(np.int64), bary[hit])
    colour, kind = np.zeros((*face.shape, 3), np.float32), np.zeros(face.shape, np.uint8)
    colour[hit], kind[hit] = albedo, _kinds(person, face[hit], bary[hit], label)
    share = _samples(hit).mean(0)
    mean = _samples(colour).mean(0) / np.maximum(share, 1e-6)[..., None]
    votes = (_samples(kind)[..., None] == np.arange(1, len(KINDS))).sum(0)
    kind = np.where(votes.any(-1), votes.argmax(-1) + 1, 0)
    return (255 * mean).round().astype(np.uint8), kind


def _samples(fine: np.ndarray) -> np.ndarray:
    """The samples of each pixel, [S, H, W, ...] of [H s, W s, ...]."""
    s = PER_SIDE
    height, width = fine.shape[0] // s, fine.shape[1] // s
    split = fine.reshape(height, s, width, s, *fine.shape[2:])
    return np.moveaxis(split, (1, 3), (0, 1)).reshape(s * s, height, width, *fine.shape[2:])


def _kinds(person: Dressed, face: np.ndarray, bary: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Index into `KINDS` of surface points, uint8 [N]."""
    by_label = np.array([KINDS.index(_BY_LABEL.get(name, "none")) for name in LABELS], np.uint8)
    kind = by_label[label]
    name = np.array([piece.name for piece in person.pieces])[person.piece[face]]
    corner = person.faces[face]
    height = sum(person.rest[corner[:, k], 1] * bary[:, k] for k in range(3))
    below = height < mannequin().line("hip")[1]
    kind[(name == "skirt") | ((name == "dress") & below)] = KINDS.index("skirt")
    kind[name == "coat"] = KINDS.index("coat")
    return kind
