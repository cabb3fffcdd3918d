# SPDX-License-Identifier: Apache-2.0
"""Texture: project crops onto the fitted body, fuse them, and record what was seen per texel.

The weight of a texel in a crop is cos(normal, ray) ** 1.5 if it is visible and inside the person's
mask. Near the mask's edge, colours are taken from the nearest inner pixel, so that no background
bleeds in. Crops of one person are brought to one tone before they are fused, because exposures of
cameras differ by up to a factor of two. `viewsynth.reconstruct.fill` completes the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from viewsynth.bodies import KEYPOINTS, PARTS, Body, keypoints
from viewsynth.reconstruct.drawing import Front, draw
from viewsynth.reconstruct.fit import Fit, view_rotation
from viewsynth.render import shade

SIZE = 256  # texels along a side of the atlas
PRIOR = 10.0**2  # strength of the prior on an unchanged tone, grey levels squared
# Parts with one colour profile over height, left and right together.
GROUPS = ("head", "neck", "torso", "upper_arm", "forearm", "hand", "thigh", "shank", "foot")


@dataclass(frozen=True)
class Atlas:
    """The M valid texels of a body's atlas.

    Args:
        texel: Flat index into the T x T atlas.  [M]
        vertex: Corners of the triangle that each texel lies on.  [M, 3]
        weight: Barycentric weights of those corners.  [M, 3]
        position: On the standing mean body, metres.  [M, 3]
        group: Index into `GROUPS`.  [M]
        mirror: Index (0..M) of the texel on the other side of the body.  [M]
        hair: Whether it lies where hair grows (scalp, back of the head).  bool [M]
        gutter: Index (0..M) of the valid texel nearest to every texel of the atlas.  [T * T]
        of_vertex: Index (0..M) of a texel at every vertex of the body.  [V]
    """

    texel: np.ndarray
    vertex: np.ndarray
    weight: np.ndarray
    position: np.ndarray
    group: np.ndarray
    mirror: np.ndarray
    hair: np.ndarray
    gutter: np.ndarray
    of_vertex: np.ndarray

    @property
    def part(self) -> np.ndarray:
        """Index into `GROUPS` of every texel, with hair as a further one, [M]."""
        return np.where(self.hair, len(GROUPS), self.group)


def prepare(body: Body, size: int = SIZE) -> Atlas:
    """Prepare the atlas of a body.

    Args:
        body: The body.
        size: Texels along a side.
    """
    face, bary = (array.cpu().numpy() for array in shade.atlas(body.uvs, body.face_uvs, size))
    texel = np.flatnonzero(face.ravel() >= 0)
    vertex = body.faces.cpu().numpy()[face.ravel()[texel]]
    weight = bary.reshape(-1, 3)[texel].astype(np.float32)
    rest = body.vertices(body.shape_mean[None], 0 * body.pose_mean[None])
    position = (rest[0].cpu().numpy()[vertex] * weight[..., None]).sum(1)
    part = body.parts.cpu().numpy()[vertex[np.arange(len(vertex)), weight.argmax(1)]]
    names = [name.removeprefix("left_").removeprefix("right_") for name in PARTS]
    group = np.array([GROUPS.index(name) for name in names])[part]
    mirror = cKDTree(position).query(position * [-1, 1, 1])[1]
    _, (rows, columns) = ndimage.distance_transform_edt(face < 0, return_indices=True)
    number = np.full(size * size, -1)
    number[texel] = np.arange(len(texel))
    return Atlas(
        texel=texel,
        vertex=vertex,
        weight=weight,
        position=position.astype(np.float32),
        group=group,
        mirror=mirror,
        hair=hair_region(body, rest, position) & (group <= 1),
        gutter=number[(rows * size + columns).ravel()],
        of_vertex=cKDTree(position).query(rest[0].cpu().numpy())[1],
    )


def hair_region(body: Body, rest: Tensor, points: np.ndarray) -> np.ndarray:
    """Which points lie on the scalp or the back of the head, bool [M].

    Args:
        body: The body.
        rest: Vertices of the standing mean body, metres.  [1, V, 3]
        points: Points on it.  [M, 3]
    """
    key = dict(zip(KEYPOINTS, keypoints(body, rest)[0].cpu().numpy(), strict=True))
    eye, ear = key["left_eye"], key["left_ear"]
    top = float(rest[0, :, 1].max())
    above = points[:, 1] > eye[1] + 0.5 * (top - eye[1])
    behind = (points[:, 2] < ear[2] + 0.01) & (points[:, 1] > ear[1] - 0.055)
    return above | behind


@dataclass(frozen=True)
class Paint:
    """Texels as one crop, or several fused ones, show them.

    Args:
        colour: RGB in [0, 255].  float32 [M, 3]
        weight: 0 = not seen.  float32 [M]
    """

    colour: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Projection:
    """What one crop shows of the fitted body.

    Args:
        paint: Colours of the texels.
        front: The body drawn into the crop.
        overlap: IoU of the drawn body and the mask.
    """

    paint: Paint
    front: Front
    overlap: float


def project(
    body: Body,
    atlas: Atlas,
    fit: Fit,
    vertices: Tensor,
    images: list[np.ndarray],
    masks: list[np.ndarray],
) -> list[Projection]:
    """Read the colours of the texels from the crops.

    Args:
        body: The body.
        atlas: Its texels.
        fit: Cameras of the N crops.
        vertices: Posed and clothed, per crop.  [N, V, 3]
        images: The crops.  uint8 [H, W, 3] each
        masks: Person probability.  [H, W] each

    Returns:
        One per crop.
    """
    normals = shade.vertex_normals(vertices, body.faces)
    forward = view_rotation(fit.elevation, fit.azimuth)[:, 2]
    found = []
    for crop, (image, mask) in enumerate(zip(images, masks, strict=True)):
        at = torch.tensor([crop], device=vertices.device)
        pixels, depth = fit.project(vertices[crop : crop + 1], at)
        front = draw(pixels, depth, body.faces, image.shape[:2])
        facing = -(normals[crop] @ forward[crop]).cpu().numpy()
        place, distance = pixels[0].cpu().numpy(), depth[0].cpu().numpy() + 10
        paint = _read(atlas, place, distance, facing, front, image, mask)
        found.append(Projection(paint, front, _overlap(front, mask)))
    return found


def _overlap(front: Front, mask: np.ndarray) -> float:
    """Intersection over union of the drawn body and the mask."""
    body, person = front.covered, np.kron(mask > 0.5, np.ones((front.factor,) * 2, bool))
    return float((body & person).sum() / max((body | person).sum(), 1))


def _read(atlas: Atlas, place, distance, facing, front: Front, image, mask) -> Paint:
    """The paint of one crop; place, distance and facing are per vertex."""
    nearest = front.fragments.depth[0].cpu().numpy()
    mixed = [
        (array[atlas.vertex] * (atlas.weight[..., None] if array.ndim == 2 else atlas.weight)).sum(
            1
        )
        for array in (place, distance, facing)
    ]
    where, far, cosine = mixed
    at = np.floor(where * front.factor).astype(int)
    inside = ((at >= 0) & (at < nearest.shape[::-1])).all(1)
    at = np.clip(at, 0, np.array(nearest.shape[::-1]) - 1)
    visible = inside & (far < nearest[at[:, 1], at[:, 0]] + 0.015) & (cosine > 0.2)
    inner, trust = inner_colours(image, mask)
    coordinates = [where[:, 1] - 0.5, where[:, 0] - 0.5]
    colour = np.stack(
        [
            ndimage.map_coordinates(inner[..., k], coordinates, order=1, mode="nearest")
            for k in range(3)
        ],
        1,
    )
    trusted = ndimage.map_coordinates(trust, coordinates, order=1, mode="constant")
    weight = np.where(visible, np.maximum(cosine, 0) ** 1.5 * trusted, 0)
    return Paint(colour.astype(np.float32), weight.astype(np.float32))


def inner_colours(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace everything near or beyond the mask's edge by the nearest inner pixel.

    Args:
        image: The crop.  uint8 [H, W, 3]
        mask: Person probability.  [H, W]

    Returns:
        The colours, float32 [H, W, 3], and the trust in each pixel: 1 inside the mask, falling to
        0 a few pixels outside, float32 [H, W].
    """
    person = mask > 0.55
    depth = ndimage.distance_transform_edt(person)
    height = max(np.ptp(np.nonzero(person)[0]) if person.any() else 1, 1)
    # Thin limbs have no pixel that deep inside: they keep their innermost ones.
    ridge = ndimage.maximum_filter(depth, size=5)
    # Head and feet are a few pixels high: with a wider margin hair and shoes would be lost.
    rows = np.nonzero(person.any(1))[0]
    share = (np.arange(len(person)) - rows[0]) / height if len(rows) else np.zeros(len(person))
    margin = np.where((share < 0.17) | (share > 0.93), 0.8, 0.018 * height + 0.5)[:, None]
    inner = person & ((depth > margin) | ((depth >= ridge) & (depth > 0)))
    if not inner.any():
        return image.astype(np.float32), np.zeros(mask.shape, np.float32)
    _, (rows, columns) = ndimage.distance_transform_edt(~inner, return_indices=True)
    outside = ndimage.distance_transform_edt(~person)
    return image[rows, columns].astype(np.float32), np.clip(1 - outside / (0.025 * height), 0, 1)


def tones(paints: list[Paint], atlas: Atlas, quality: list[float]) -> list[Callable]:
    """Find what brings the crops of one person to one tone.

    Source: ours. Haze or low exposure is undone by out = gain * (in - black), fitted robustly to
    the medians of the parts that both crops show, with a weak prior on no change. The remaining
    difference of a part is then removed as well, unless it is so large that front and back must
    really differ (a backpack). Parts are matched to the tone of the crop with the best exposure;
    the result lies between its tone and those of the others, because no single one is the truth.

    Args:
        paints: Of each crop.
        atlas: The texels.
        quality: Trust in each crop, on any scale.

    Returns:
        For each crop a function `tone(colour, part)` that changes colours [N, 3] of the parts [N]
        (see `Atlas.part`).
    """
    if len(paints) == 1:
        return [lambda colour, part: colour]
    medians = [_medians(paint, atlas) for paint in paints]
    contrast = []
    for paint, trust in zip(paints, quality, strict=True):
        sure = paint.weight > 0.1
        light = paint.colour[sure].mean(1) if sure.any() else np.zeros(1)
        contrast.append(float(np.subtract(*np.percentile(light, [92, 8]))) * trust)
    best = int(np.argmax(contrast))
    share = np.maximum(contrast, 1e-6) / max(sum(contrast), 1e-6)
    curves = [
        (share[k], _common_curve(medians[best], medians[k]))
        for k in range(len(paints))
        if k != best
    ]

    def tone(colour: np.ndarray, part: np.ndarray, own: dict) -> np.ndarray:
        if own is not medians[best]:
            colour = _retone(colour, part, own, medians[best])
        return _between(colour, curves)

    return [functools.partial(tone, own=own) for own in medians]


def _common_curve(mine: dict, theirs: dict):
    """The tone curve from one crop to another, or None if they share too little."""
    common = sorted(set(mine) & set(theirs))
    return _tone_curve(mine, theirs, common) if len(common) > 1 else None


def _between(colour: np.ndarray, curves: list) -> np.ndarray:
    """Move colours towards the tones of other crops, by the share of each."""
    moved = colour.copy()
    for share, curve in curves:
        if curve is not None:
            gain, middle, aim = curve
            moved += share * (gain * (colour - middle) + aim - colour)
    return np.clip(moved, 0, 255).astype(np.float32)


def _medians(paint: Paint, atlas: Atlas) -> dict[int, np.ndarray]:
    """Median colour of every part that the crop shows, hair included."""
    found = {}
    for number in range(len(GROUPS) + 1):
        mine = (atlas.part == number) & (paint.weight > 0.15)
        if mine.sum() > 60:
            found[number] = np.median(paint.colour[mine], axis=0)
    return found


def _retone(colour: np.ndarray, part: np.ndarray, mine: dict, theirs: dict) -> np.ndarray:
    """Colours of a crop in the tone of another one, from the medians of their parts."""
    torso = GROUPS.index("torso")
    common = sorted(set(mine) & set(theirs))
    if len(common) < 2:
        return colour
    bag = np.clip((_bag(mine, theirs) - 0.3) / 0.2, 0, 1) if torso in common else 0.0
    gain, middle, aim = _tone_curve(mine, theirs, [p for p in common if bag < 0.5 or p != torso])
    toned = gain * (colour - middle) + aim
    for number in common:
        whole = part == number
        if number == torso:  # a bag keeps part of its own tone
            toned[whole] += 0.6 * bag * (colour[whole] - toned[whole])
        row = gain * (mine[number] - middle) + aim
        rest = theirs[number] - row
        same = np.clip((110 - np.abs(rest).max()) / 40, 0, 1)
        if number == len(GROUPS):
            same = 1.0  # hair looks alike from all sides
        elif number == torso:
            same *= 1 - bag
        near = np.exp(-((np.abs(toned[whole] - row).max(1) / 70) ** 2))  # not belts and hems
        toned[whole] += same * near[:, None] * rest
    return np.clip(0.9 * toned + 0.1 * colour, 0, 255).astype(np.float32)


def _tone_curve(mine: dict, theirs: dict, parts: list[int]):
    """Robust fit of theirs = gain * (mine - middle) + aim to the medians of parts, [3] each."""
    x, y = (np.stack([medians[part] for part in parts]) for medians in (mine, theirs))
    weight = np.ones(len(parts))
    for _ in range(10):
        w = weight[:, None] / weight.sum()
        middle, aim = (w * x).sum(0), (w * y).sum(0)
        x0, y0 = w * (x - middle), y - aim
        pooled = ((x0 * y0).sum() / 3 + PRIOR) / ((x0 * (x - middle)).sum() / 3 + PRIOR)
        gain = ((x0 * y0).sum(0) + 3 * PRIOR * pooled) / ((x0 * (x - middle)).sum(0) + 3 * PRIOR)
        gain = np.clip(gain, 0.5, 2.2)
        miss = np.abs(gain * (x - middle) + aim - y).max(1)
        weight = 1 / (1 + (miss / 25) ** 2)
    return gain, middle, aim


def _bag(mine: dict, theirs: dict) -> float:
    """How much darker the trunk is in one crop than in the other: evidence of a dark bag.

    Relative to the sleeves, in natural logarithms; 0 where it is not darker.
    """
    torso, sleeve = GROUPS.index("torso"), GROUPS.index("upper_arm")
    if sleeve not in mine or sleeve not in theirs:
        return 0.0
    ratio = [np.log(m[torso].mean() + 4) - np.log(m[sleeve].mean() + 4) for m in (mine, theirs)]
    return max(float(ratio[1] - ratio[0]), 0.0)


def fuse(paints: list[Paint], tones: list[Callable], atlas: Atlas) -> Paint:
    """Fuse the paints of one person; the crop that shows a texel best counts most.

    Args:
        paints: Of each crop; colours are averaged by their squared weights.
        tones: Of `tones`, for the same crops.
        atlas: The texels.
    """
    weight = np.stack([paint.weight for paint in paints])
    share = weight**2 / np.maximum((weight**2).sum(0), 1e-9)
    colour = sum(
        part[:, None] * tone(paint.colour, atlas.part)
        for part, paint, tone in zip(share, paints, tones, strict=True)
    )
    return Paint(colour.astype(np.float32), weight.max(0))
