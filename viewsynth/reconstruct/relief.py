# SPDX-License-Identifier: Apache-2.0
"""Relief: what one crop says about the clothed surface, as maps over its pixels.

Source: ours; the idea of a front and a back sheet over a fitted body is that of ECON (Xiu et al.,
CVPR 2023), which predicts them with networks. Here, where the mask reaches beyond the drawn body,
the sheets lie around the middle of the nearest part, as thick as that part and round at the
outline. Arms are treated apart from the rest, so that no sheet joins an arm and the trunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from viewsynth.bodies import PARTS, Body
from viewsynth.reconstruct.canonical import Canonical, Volume
from viewsynth.reconstruct.drawing import Front
from viewsynth.reconstruct.fit import Fit
from viewsynth.reconstruct.warp import move
from viewsynth.render import zbuffer

SMOOTH = 0.02  # metres, standard deviation of all smoothing
THICK, WIDE = 0.06, 0.12  # metres: windows that find the thickness of a part and of a garment
LOOSE = 0.012  # metres beyond the body, from which the sheets are as thick as the part
PUFF = 0.7  # how much deeper a loose garment is than its part, relative to how much wider
WIDER = 0.05  # metres: what is wider still is a bag
FLAT = 1.3  # largest thickness of a garment, relative to its width in the crop
HIPS = 6  # share of the legs' rows, 1/6, at the hips, where every mask is closed
GAP = 0.007  # metres between the legs, from which they are seen apart
FLARE = (0.045, 0.065)  # metres of cloth beside the thighs, from trousers to a skirt
STRAIGHT = -0.5  # largest cosine between the directions to both legs of a point between them
NEARBY = 0.05  # metres that a sheet may be further from its body part than in the crop
THIN = 0.02  # metres, half the distance of the sheets of a tight garment


@dataclass(frozen=True)
class Relief:
    """Maps of one crop, on its pixels enlarged by `factor`.

    Args:
        factor: Map pixels per crop pixel.
        maps: Distance inside the outline, negative outside; depth of the middle between the sheets;
            half the distance of the sheets; distance from the drawn body. Metres.
            float32 [4, H, W]
        anchor: Canonical position of the nearest point of the drawn body.  float32 [3, H, W]
        overlap: IoU of the drawn body and the mask.
    """

    factor: int
    maps: np.ndarray
    anchor: np.ndarray
    overlap: float

    def distance(self, canonical: np.ndarray, pixels: Tensor, depth: np.ndarray):
        """Signed distances of points from the sheets and from the outline.

        Args:
            canonical: The points in the canonical pose.  float32 [M, 3]
            pixels: The same points in the crop.  float32 [M, 2]
            depth: Their depth, metres.  float32 [M]

        Returns:
            Distance from the sheets, metres, inside negative [M]; distance outside the outline,
            metres, NaN beyond the crop [M].
        """
        at = pixels * self.factor
        inside, middle, half, beyond = _sample(self.maps, at, "bilinear")
        towards = np.maximum(half - inside, 0)
        sheets = np.sqrt(towards**2 + (depth - middle) ** 2) - half
        away = np.linalg.norm(canonical.T - _sample(self.anchor, at, "nearest"), axis=0)
        sheets = np.maximum(sheets, away - (1.25 * beyond + half + NEARBY))
        size = torch.tensor(self.maps.shape[:0:-1])
        known = ((at > 1) & (at < size - 1)).all(1).cpu().numpy()
        return sheets, np.where(known, -inside, np.nan)


def relief(
    body: Body,
    canonical: Canonical,
    volume: Volume,
    fit: Fit,
    row: int,
    front: Front,
    motions: Tensor,
    mask: np.ndarray,
) -> Relief:
    """Compute the maps of one crop.

    Args:
        body: The body.
        canonical: Its canonical pose.
        volume: The points around it.
        fit: Cameras of the crops.
        row: Index of the crop in the fit.
        front: The body drawn into the crop, see `texture.project`.
        motions: Of its nodes, see `warp.Nodes.motions`.  float32 [G, 3, 4]
        mask: Person probability.  float32 [H, W]
    """
    factor, covered = front.factor, front.covered
    person = ndimage.zoom(mask, factor, order=1, grid_mode=True, mode="nearest") > 0.5
    metre = float(fit.scale[row]) * factor  # pixels
    medial = move(volume.medial, volume.medial_binding, motions)
    middle = fit.project(medial[None], torch.tensor([row]))[1][0]
    radius = torch.from_numpy(volume.radius).to(middle.device)
    values = torch.cat([middle[:, None], radius[:, None], canonical.vertices], 1)
    drawn = _interpolate(values, body.faces, front.fragments)
    limb = _limbs(body)[front.fragments.face[0].clamp_min(0)].cpu().numpy() * covered
    nearest = ndimage.distance_transform_edt(~(covered & person), return_indices=True)
    beyond, (rows, columns) = nearest[0] / metre, nearest[1]
    skirt = _skirt(drawn[:2], limb, limb[rows, columns], person, metre)
    drawn, group = drawn[:, rows, columns], np.minimum(limb, 3)[rows, columns] % 3
    inside = _signed(person) / metre
    width = ndimage.maximum_filter(inside * person, int(WIDE * metre) | 1)
    middle, half = _thickness(drawn[0], drawn[1], group, person, metre)
    share = skirt[0][:, None] * (group == 0)
    middle, half = (a + share * (b[:, None] - a) for a, b in ((middle, skirt[1]), (half, skirt[2])))
    gap = _gap(person, beyond, metre)
    half = half + PUFF * np.minimum(gap, WIDER)  # what is wide is deep as well
    half = np.minimum(half, FLAT * np.maximum(width, 0) + 0.005)
    thin = np.minimum(half, THIN)
    half = thin + (half - thin) * np.maximum(np.clip(gap / LOOSE, 0, 1), share)
    maps = np.stack([inside, middle, half, beyond]).astype(np.float32)
    overlap = (covered & person).sum() / max((covered | person).sum(), 1)
    return Relief(factor, maps, drawn[2:].astype(np.float32), float(overlap))


def _limbs(body: Body) -> Tensor:
    """Of every face 1 or 2 on the left or right arm, 3 or 4 on the leg, 0 elsewhere, [F]."""
    kinds = {"upper_arm": 1, "forearm": 1, "hand": 1, "thigh": 3, "shank": 3}
    numbers = [
        kinds.get(name.removeprefix("left_").removeprefix("right_"), 0)
        + (name.startswith("right") and not name.endswith("foot"))
        for name in PARTS
    ]
    return torch.tensor(numbers, device=body.parts.device)[body.parts[body.faces[:, 0]]]


def _skirt(
    drawn: np.ndarray, limb: np.ndarray, nearest: np.ndarray, person: np.ndarray, metre: float
) -> np.ndarray:
    """Cloth around both legs, as of a skirt or coat: wider than the thighs, with no gap between.

    Args:
        drawn: Depth of the middle and radius of the drawn body.  [2, H, W]
        limb: See `_limbs`; 0 off the body.  [H, W]
        nearest: The same, of the nearest point of the body.  [H, W]
        person: The mask.  bool [H, W]
        metre: Pixels per metre.

    Returns:
        Of every row: whether there is such cloth, [0, 1]; depth of the middle of both legs; half
        their thickness together, metres.  [3, H]
    """
    legs, height = limb >= 3, len(limb)
    if not ((limb == 3).any() and (limb == 4).any()):
        return np.zeros((3, height))
    here = np.indices(limb.shape)
    left, right = (
        ndimage.distance_transform_edt(limb != k, return_distances=False, return_indices=True)
        - here
        for k in (3, 4)
    )
    away = np.hypot(*left) * np.hypot(*right)
    between = (limb == 0) & ((left * right).sum(0) < STRAIGHT * away)
    rows = np.flatnonzero(legs.any(1))
    gap = ndimage.gaussian_filter1d((between & ~person).sum(1) / metre, SMOOTH * metre)
    thighs = rows[0] + len(rows) // HIPS
    hem = thighs + np.argmax(np.append(gap[thighs : rows[-1]] > GAP, True))
    outside = (person & (limb == 0) & (nearest >= 3) & ~between).sum(1) / metre
    share = np.zeros(height)
    if hem - thighs > len(rows) / HIPS:
        flare = outside[thighs : min(hem, rows[0] + len(rows) // 2)].mean()
        share[rows[0] : hem] = np.clip((flare - FLARE[0]) / (FLARE[1] - FLARE[0]), 0, 1)
    share = ndimage.gaussian_filter1d(share, SMOOTH * metre)
    front = np.where(legs, drawn[0] - drawn[1], np.inf).min(1)[rows]
    back = np.where(legs, drawn[0] + drawn[1], -np.inf).max(1)[rows]
    sides = np.stack([np.interp(np.arange(height), rows, one) for one in (front, back)])
    front, back = ndimage.gaussian_filter1d(sides, 2 * SMOOTH * metre, axis=1, mode="nearest")
    return np.stack([share, (front + back) / 2, (back - front) / 2])


def _interpolate(values: Tensor, faces: Tensor, front: zbuffer.Fragments) -> np.ndarray:
    """Values of the vertices at the pixels, [C, H, W]."""
    corner = faces[front.face[0].clamp_min(0).long()]
    mixed = (values[corner] * front.bary[0][..., None]).sum(-2)
    return mixed.movedim(-1, 0).cpu().numpy()


def _signed(person: np.ndarray) -> np.ndarray:
    """Distance from the outline, pixels, inside positive."""
    if person.all() or not person.any():
        return np.where(person, 1e3, -1e3)
    inside = ndimage.distance_transform_edt(person)
    outside = ndimage.distance_transform_edt(~person)
    return np.where(person, inside - 0.5, 0.5 - outside)


def _thickness(middle, radius, group, person, metre) -> tuple[np.ndarray, np.ndarray]:
    """Depth of the middle and half the thickness of the part at every pixel, smoothed, metres."""
    out = middle.copy(), radius.copy()
    window, blur = int(THICK * metre) | 1, SMOOTH * metre
    for number in range(3):
        here = person & (group == number)
        if not here.any():
            continue
        share = ndimage.gaussian_filter(here.astype(np.float32), blur)
        largest = ndimage.maximum_filter(np.where(here, radius, 0), window)
        for target, value in zip(out, (middle, largest), strict=True):
            mean = ndimage.gaussian_filter(np.where(here, value, 0), blur)
            target[here] = mean[here] / np.maximum(share[here], 1e-6)
    return out


def _gap(person: np.ndarray, beyond: np.ndarray, metre: float) -> np.ndarray:
    """How far the outline nearest to each pixel lies beyond the drawn body, smoothed, metres."""
    edge = person & ~ndimage.binary_erosion(person)
    if not edge.any():
        return np.zeros_like(beyond)
    rows, columns = ndimage.distance_transform_edt(
        ~edge, return_distances=False, return_indices=True
    )
    share = ndimage.gaussian_filter(person.astype(np.float32), SMOOTH * metre)
    gap = ndimage.gaussian_filter(beyond[rows, columns] * person, SMOOTH * metre)
    return gap / np.maximum(share, 1e-6)


def _sample(maps: np.ndarray, at: Tensor, mode: str) -> np.ndarray:
    """Values of maps at points, [C, M].

    Args:
        maps: float32 [C, H, W].
        at: Map pixels, (0, 0) is the outer corner.  [M, 2]
        mode: "bilinear" or "nearest".
    """
    height, width = maps.shape[1:]
    grid = at.cpu() / torch.tensor([width, height]) * 2 - 1
    found = torch.nn.functional.grid_sample(
        torch.from_numpy(maps)[None], grid[None, None], mode, "border", align_corners=False
    )
    return found[0, :, 0].numpy()
