# SPDX-License-Identifier: Apache-2.0
"""Texture: project crops onto the fitted body, fuse them, and record what was seen per texel.

The weight of a texel in a crop is cos(normal, ray) ** 1.5 if it is visible and inside the person's
mask. Near the mask's edge, colours are taken from the nearest inner pixel, so that no background
bleeds in. Crops of one person are brought to one tone (`tone`) before they are fused.
`viewsynth.reconstruct.fill` completes the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from viewsynth.bodies import KEYPOINTS, PARTS, Body, keypoints
from viewsynth.reconstruct import shading
from viewsynth.reconstruct.drawing import Front, draw
from viewsynth.reconstruct.fit import Fit, view_rotation
from viewsynth.render import shade

SIZE = 256  # texels along a side of the atlas
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
    group = _groups(body)[vertex[np.arange(len(vertex)), weight.argmax(1)]]
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


def _groups(body: Body) -> np.ndarray:
    """Index into `GROUPS` of every vertex, [V]."""
    names = [name.removeprefix("left_").removeprefix("right_") for name in PARTS]
    return np.array([GROUPS.index(name) for name in names])[body.parts.cpu().numpy()]


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
        image: The crop without the shading of its light, see `shading`.  uint8 [H, W, 3]
    """

    paint: Paint
    front: Front
    overlap: float
    image: np.ndarray


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
    rotation = view_rotation(fit.elevation, fit.azimuth)
    group = _groups(body)
    found = []
    for crop, (image, mask) in enumerate(zip(images, masks, strict=True)):
        at = torch.tensor([crop], device=vertices.device)
        pixels, depth = fit.project(vertices[crop : crop + 1], at)
        front = draw(pixels, depth, body.faces, image.shape[:2])
        turned = (normals[crop] @ rotation[crop].mT).cpu().numpy()
        image = shading.removed(image, *_pixels(front, body, turned, group, mask))
        facing = -turned[:, 2]
        place, distance = pixels[0].cpu().numpy(), depth[0].cpu().numpy() + 10
        paint = _read(atlas, place, distance, facing, front, image, mask)
        found.append(Projection(paint, front, _overlap(front, mask), image))
    return found


def _pixels(
    front: Front, body: Body, normal: np.ndarray, group: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Normal [H, W, 3] at each pixel of a crop, and part [H, W], -1 = beside the person."""
    middle = slice(front.factor // 2, None, front.factor)  # the centres of the crop's pixels
    face, bary = (
        plane[0, middle, middle].cpu().numpy()
        for plane in (front.fragments.face, front.fragments.bary)
    )
    drawn = face >= 0
    if not drawn.any():
        return np.zeros((*face.shape, 3)), np.full(face.shape, -1)
    rows, columns = ndimage.distance_transform_edt(~drawn, return_indices=True)[1]
    corners = body.faces.cpu().numpy()[face[rows, columns]]
    weight = bary[rows, columns]
    part = group[np.take_along_axis(corners, weight.argmax(-1)[..., None], -1)[..., 0]]
    mixed = (normal[corners] * weight[..., None]).sum(2)
    return mixed, np.where(drawn & (mask > 0.5), part, -1)


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


def fuse(paints: list[Paint], tones: list[Callable], atlas: Atlas) -> Paint:
    """Fuse the paints of one person; the crop that shows a texel best counts most.

    Args:
        paints: Of each crop; colours are averaged by their squared weights.
        tones: Of `tone.tones`, for the same crops.
        atlas: The texels.
    """
    weight = np.stack([paint.weight for paint in paints])
    share = weight**2 / np.maximum((weight**2).sum(0), 1e-9)
    colour = sum(
        part[:, None] * tone(paint.colour, atlas.part)
        for part, paint, tone in zip(share, paints, tones, strict=True)
    )
    return Paint(colour.astype(np.float32), weight.max(0))
