# SPDX-License-Identifier: Apache-2.0
"""Canvas: crops and the bodies fitted to them on one grid of fixed size, as completion sees them.

fit -> this module -> completion. The fitted body stands in the middle of the canvas, `METRE` pixels
a metre, so that distance and stretch of the crop are taken out. Depths are along the line of sight
of the fitted camera, which is orthographic, in metres of the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from viewsynth.bodies import PARTS, Body
from viewsynth.reconstruct.fit import Fit, view_rotation
from viewsynth.render import sheets, zbuffer

SIZE = (96, 64)  # height and width, pixels
METRE = 48  # pixels
SMOOTH = 0.02  # metres, standard deviation of the smoothing of the reference
TALL = 1.7  # metres, height of a person before a body is fitted
FAR = 10.0  # metres that are added to depths, because the rasterizer draws positive ones only
ARMS = ("arm", "hand")  # last words of the parts that are not the trunk
HEAD, TORSO, LEGS = 1, 2, 3  # values of `Canvas.parts`, to which these are added:
ARM_BEFORE, ARM_BEHIND = 4, 8


@dataclass(frozen=True)
class Canvas:
    """One crop and its fitted body. The trunk is the body without arms.

    Args:
        box: The canvas in the crop: left, top, right, bottom, pixels.  float64 [4]
        image: The crop; beyond its border the nearest pixel.  uint8 [H, W, 3]
        mask: Person probability, 0 beyond the border.  float32 [H, W]
        inside: Share of every pixel that lies in the crop.  float32 [H, W]
        middle: See `reference`, of the trunk.  float32 [H, W]
        half: Half the thickness of the trunk, metres; 0 = no trunk.  float32 [H, W]
        parts: `HEAD`, `TORSO` or `LEGS` for what is in front of the trunk, 0 = no trunk; more where
            an arm is before or behind it.  uint8 [H, W]
        faces: Triangle of the body at the nearest and the farthest surface of the trunk, -1 = none.
            int32 [2, H, W]
        angles: Elevation and azimuth of the fitted camera, degrees.
        detail: Crop pixels per canvas pixel, vertically.
    """

    box: np.ndarray
    image: np.ndarray
    mask: np.ndarray
    inside: np.ndarray
    middle: np.ndarray
    half: np.ndarray
    parts: np.ndarray
    faces: np.ndarray
    angles: tuple[float, float]
    detail: float


def canvases(
    body: Body,
    fit: Fit,
    rows: Sequence[int],
    vertices: Tensor,
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
) -> list[Canvas]:
    """Put crops on their canvases.

    Args:
        body: The body.
        fit: Cameras of the crops.
        rows: Index of each of the n crops in the fit.
        vertices: Posed and clothed body of each, metres.  float32 [n, V, 3]
        images: The crops.  uint8 [h, w, 3] each
        masks: Person probability.  float32 [h, w] each

    Returns:
        One per crop, which does not depend on the others.
    """
    at = torch.as_tensor(list(rows), device=vertices.device)
    local = vertices @ view_rotation(fit.elevation[at], fit.azimuth[at]).mT
    flat, depth = local[..., :2], local[..., 2] + FAR
    centre = (flat.amin(1) + flat.amax(1)) / 2
    half = torch.tensor(SIZE[::-1], device=flat.device) / 2
    pixels = (flat - centre[:, None]) * METRE + half
    scale = torch.stack([fit.scale * fit.aspect, fit.scale], 1)[at]
    middle, reach = centre * scale + fit.shift[at], half / METRE * scale
    boxes = torch.cat([middle - reach, middle + reach], 1).double().cpu().numpy()
    trunk, parts, faces = _drawn(body, pixels, depth)
    made = []
    for k, (row, image, mask) in enumerate(zip(rows, images, masks, strict=True)):
        made.append(
            Canvas(
                box=boxes[k],
                image=resampled(image, boxes[k], "edge"),
                mask=resampled(mask.astype(np.float32), boxes[k], "constant"),
                inside=resampled(np.ones(mask.shape, np.float32), boxes[k], "constant"),
                middle=reference(trunk[k]),
                half=np.nan_to_num((trunk[k][1] - trunk[k][0]) / 2),
                parts=parts[k],
                faces=faces[k],
                angles=(float(fit.elevation[row]), float(fit.azimuth[row])),
                detail=float(fit.scale[row]) / METRE,
            )
        )
    return made


def rough(image: np.ndarray, mask: np.ndarray, points: np.ndarray) -> Canvas:
    """A canvas without a body, before one is fitted; the person is taken to be `TALL` metres.

    Args:
        image: The crop.  uint8 [h, w, 3]
        mask: Person probability.  float32 [h, w]
        points: Keypoints, pixels; may lie beyond the crop.  float32 [K, 2]
    """
    rows, columns = np.nonzero(mask > 0.5)
    shown = np.stack([columns, rows], 1) + 0.5
    found = np.concatenate([points, shown])
    low, high = found.min(0).astype(np.float64), found.max(0).astype(np.float64)
    pixel = max(high[1] - low[1], 1.0) / (TALL * METRE)  # crop pixels per canvas pixel
    middle, reach = (low + high) / 2, np.array(SIZE[::-1]) / 2 * pixel
    box, empty = np.concatenate([middle - reach, middle + reach]), np.zeros(SIZE, np.float32)
    return Canvas(
        box=box,
        image=resampled(image, box, "edge"),
        mask=resampled(mask.astype(np.float32), box, "constant"),
        inside=resampled(np.ones(mask.shape, np.float32), box, "constant"),
        middle=empty,
        half=empty,
        parts=empty.astype(np.uint8),
        faces=np.full((2, *SIZE), -1, np.int32),
        angles=(0.0, 0.0),
        detail=pixel,
    )


def tensors(canvases: Sequence[Canvas]) -> dict[str, Tensor]:
    """Canvases as one batch, see `complete.stack`; the types are those of `completion.stored`.

    Args:
        canvases: At least one.
    """
    arrays = {
        "image": np.stack([one.image for one in canvases]),
        "mask": np.stack([(255 * one.mask).round().astype(np.uint8) for one in canvases]),
        "inside": np.stack([(255 * one.inside).round().astype(np.uint8) for one in canvases]),
        "body": np.stack([np.stack([one.middle, one.half]) for one in canvases]),
        "parts": np.stack([one.parts for one in canvases]),
        "angles": np.float32([one.angles for one in canvases]),
        "detail": np.float32([one.detail for one in canvases]),
    }
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


def reference(trunk: np.ndarray) -> np.ndarray:
    """The smooth middle between the sheets of a trunk, continued beyond them.

    Args:
        trunk: Depth of the nearest and of the farthest surface, metres, NaN = none.  [2, H, W]

    Returns:
        Metres, float32 [H, W]; zeros if there is no surface.
    """
    hit = np.isfinite(trunk[0])
    if not hit.any():
        return np.zeros(hit.shape, np.float32)
    rows, columns = ndimage.distance_transform_edt(
        ~hit, return_distances=False, return_indices=True
    )
    middle = trunk.mean(0)[rows, columns]
    return ndimage.gaussian_filter(middle, SMOOTH * METRE, mode="nearest").astype(np.float32)


def resampled(picture: np.ndarray, box: np.ndarray, beyond: str) -> np.ndarray:
    """A box of a picture on the canvas.

    Args:
        picture: uint8 [h, w, 3] or float32 [h, w].
        box: Left, top, right, bottom, pixels; may reach beyond the picture.  [4]
        beyond: "edge" or "constant": nearest pixel, or 0, beyond the border.

    Returns:
        The same type, [H, W, 3] or [H, W].
    """
    height, width = picture.shape[:2]
    left, top = np.floor(box[:2]).astype(int) - 1
    right, bottom = np.ceil(box[2:]).astype(int) + 1
    columns, rows = np.arange(left, right), np.arange(top, bottom)
    part = picture[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
    if beyond == "constant":
        known = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
        part = np.where(known, part, np.zeros_like(part))
    place = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    sized = Image.fromarray(part).resize(SIZE[::-1], Image.Resampling.BILINEAR, box=place)
    return np.asarray(sized)


def _drawn(body: Body, pixels: Tensor, depth: Tensor) -> tuple[np.ndarray, ...]:
    """Sheets of the trunk [n, 2, H, W], `Canvas.parts` [n, H, W] and `.faces` [n, 2, H, W]."""
    arm = _faces_of(body, ARMS)
    arms = sheets.depths(sheets.draw(pixels, depth, body.faces[arm], SIZE))
    rest = body.faces[~arm]
    pair = sheets.draw(pixels, depth, rest, SIZE)
    trunk = sheets.closed(pair, pixels, rest, np.isfinite(arms[:, 0]))
    parts = np.where(np.isfinite(trunk[:, 0]), _regions(body, rest, pair[0]), 0)
    none = np.where(np.isfinite(trunk), trunk, np.float32([np.inf, -np.inf])[:, None, None])
    before, behind = arms[:, 0] < none[:, 0], arms[:, 1] > none[:, 1]
    parts = parts + ARM_BEFORE * before + ARM_BEHIND * behind
    number = torch.cat([(~arm).nonzero()[:, 0], torch.tensor([-1], device=arm.device)])
    faces = number[torch.stack([one.face for one in pair], 1).long()]
    return trunk - FAR, parts.astype(np.uint8), faces.int().cpu().numpy()


def _faces_of(body: Body, words: Sequence[str]) -> Tensor:
    """Triangles of the parts whose names end with one of the words, bool [F]."""
    chosen = [k for k, name in enumerate(PARTS) if name.endswith(tuple(words))]
    chosen = torch.tensor(chosen, device=body.parts.device)
    return torch.isin(body.parts[body.faces], chosen).any(1)


def _regions(body: Body, faces: Tensor, front: zbuffer.Fragments) -> np.ndarray:
    """`HEAD`, `TORSO` or `LEGS` of what is in front; `TORSO` in holes, uint8 [n, H, W]."""
    number = torch.full((len(PARTS),), LEGS, dtype=torch.uint8, device=faces.device)
    for region, names in ((HEAD, ("head", "neck")), (TORSO, ("torso",))):
        number[[PARTS.index(name) for name in names]] = region
    found = number[body.parts[faces[front.face.clamp_min(0).long(), 0]]]
    return torch.where(front.face >= 0, found, TORSO).cpu().numpy()
