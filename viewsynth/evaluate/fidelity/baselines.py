# SPDX-License-Identifier: Apache-2.0
"""Baselines that transform a ground crop without reconstructing the person.

They receive more information than our methods: the true bounding box (resized), or both true
cameras and thereby the person's size (warped). Masks of the ground crops come from the pose model.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import Tools
from viewsynth.reconstruct.fill import SKIN
from viewsynth.reconstruct.parse import Parse, parse
from viewsynth.reconstruct.texture import GROUPS, Atlas
from viewsynth.render import scene, zbuffer
from viewsynth.world.truth import TrueImage

# Angle by which the board leans back, degrees. A body is about a quarter as deep as it is high, and
# tan 14 degrees = 0.25, so board and body have the same height in the image at every elevation.
LEAN = 14.0
SUPERSAMPLING = 3  # samples along each side of a pixel of the board
# Body part of each line between two joints; a pixel belongs to the part of the nearest line.
LINES = (
    ("torso", "left_shoulder", "left_hip"),
    ("torso", "right_shoulder", "right_hip"),
    ("torso", "left_shoulder", "right_hip"),
    ("torso", "right_shoulder", "left_hip"),
    *(
        (part, f"{side}_{a}", f"{side}_{b}")
        for side in ("left", "right")
        for part, a, b in (
            ("upper_arm", "shoulder", "elbow"),
            ("forearm", "elbow", "wrist"),
            ("thigh", "hip", "knee"),
            ("shank", "knee", "ankle"),
            ("foot", "heel", "big_toe"),
        )
    ),
)


def parse_all(ground: list[TrueImage], tools: Tools) -> list[Parse]:
    """Keypoints and masks of the ground images from the pose model."""
    return [parse(picture.image, tools.pose_model) for picture in ground]


def nearest(true: TrueImage, ground: list[TrueImage]) -> int:
    """Index of the ground image with the most similar azimuth."""
    turn = [(g.row["azimuth"] - true.row["azimuth"] + 180) % 360 - 180 for g in ground]
    return int(np.argmin(np.abs(turn)))


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Bounding box of a mask: left, top, right, bottom; the whole image for an empty mask."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return 0, 0, mask.shape[1], mask.shape[0]
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def pasted_crop(true: TrueImage, source: TrueImage, parsed: Parse) -> Tensor:
    """The person of a ground crop, resized to the true bounding box.

    Args:
        true: Drone image with the true mask.
        source: Ground crop.
        parsed: Result of the pose model for the crop.

    Returns:
        Layers like those of a rendered body, see `methods.on_grey`.  float32 [5, H, W]
    """
    left, top, right, bottom = bounding_box(parsed.mask > 0.5)
    cut = _layers(source.image, parsed.mask)[:, top:bottom, left:right]
    a, b, c, d = bounding_box(true.mask)
    small = torch.nn.functional.interpolate(
        cut[None], (d - b, c - a), mode="bilinear", antialias=True, align_corners=False
    )[0]
    out = torch.zeros(5, *true.mask.shape)
    out[:, b:d, a:c] = small
    return out


def warped(true: TrueImage, source: TrueImage, parsed: Parse, lean: float = LEAN) -> Tensor:
    """The ground crop on a flat board in the scene, seen by the drone: a planar homography.

    Source: ours; similar to the warps that cross-view papers compare with. The crop is projected to
    an upright board through the person's axis that faces the ground camera. The board is then
    turned to face the drone and leans back about its middle, so that it stays visible from above.

    Args:
        true: Drone image with the true camera.
        source: Ground crop with the true camera.
        parsed: Result of the pose model for the crop.
        lean: Angle by which the board leans back, degrees.

    Returns:
        Layers like those of a rendered body.  float32 [5, H, W]
    """
    half, height = 1.2, 2.4  # of the board, metres
    across, up = torch.meshgrid(
        torch.linspace(-half, half, 25), torch.linspace(-0.2, height, 27), indexing="ij"
    )
    flat = torch.stack([across.reshape(-1), up.reshape(-1)], 1)
    azimuth_rad = np.deg2rad([source.row["azimuth"], true.row["azimuth"]])
    right = torch.tensor([[np.cos(a), 0, -np.sin(a)] for a in azimuth_rad]).float()
    towards = torch.tensor([[np.sin(a), 0, np.cos(a)] for a in azimuth_rad]).float()
    upright = torch.tensor([0.0, 1.0, 0.0])
    photo, _ = source.camera.project((flat[:, :1] * right[0] + flat[:, 1:] * upright)[None])
    middle = float(true.row["target_height"])
    lean_rad = np.deg2rad(lean)
    top = np.cos(lean_rad) * upright - np.sin(lean_rad) * towards[1]
    board = flat[:, :1] * right[1] + middle * upright + (flat[:, 1:] - middle) * top
    size = tuple(SUPERSAMPLING * side for side in true.camera.size)
    box = torch.tensor([[0.0, 0.0, true.camera.size[1], true.camera.size[0]]])
    pixels, depth = true.camera.window(box, size).project(board[None])
    hit = zbuffer.rasterize(pixels, depth, _grid(25, 27), size)
    corner = _grid(25, 27)[hit.face[0].clamp_min(0).long()]
    place = (photo[0][corner] * hit.bary[0][..., None]).sum(-2)
    seen = _layers(source.image, parsed.mask)
    span = torch.tensor([seen.shape[2], seen.shape[1]])
    image = torch.nn.functional.grid_sample(
        seen[None], (place / span * 2 - 1)[None], align_corners=False, padding_mode="zeros"
    )
    return scene.shrink(image * (hit.face[0] >= 0), SUPERSAMPLING)[0]


def _grid(wide: int, tall: int) -> Tensor:
    """Triangles of a grid whose vertices are numbered column by column."""
    i, j = torch.meshgrid(torch.arange(wide - 1), torch.arange(tall - 1), indexing="ij")
    one = (i * tall + j).reshape(-1)
    right, above = one + tall, one + 1
    return torch.cat(
        [torch.stack([one, right, right + 1], 1), torch.stack([one, right + 1, above], 1)]
    )


def _layers(image: np.ndarray, mask: np.ndarray) -> Tensor:
    """Layers, float32 [5, H, W]: RGB times coverage, coverage, and coverage as seen map."""
    share = torch.from_numpy((mask > 0.5).astype(np.float32))[None]
    colour = torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255
    return torch.cat([colour * share, share, share])


def mean_colours(ground: list[TrueImage], parsed: list[Parse], atlas: Atlas) -> np.ndarray:
    """Texture in which every body part has its mean colour in the ground crops.

    Args:
        ground: Ground crops.
        parsed: Results of the pose model for the crops.
        atlas: UV atlas of the body.

    Returns:
        Texture.  uint8 [T, T, 3]
    """
    total: dict[str, np.ndarray] = {}
    for picture, found in zip(ground, parsed, strict=True):
        part = body_parts(found)
        for name in set(part[part != ""]):
            pixels = picture.image[part == name].astype(np.float64)
            total[name] = total.get(name, 0) + np.append(pixels.sum(0), len(pixels))
    colour = {name: sums[:3] / sums[3] for name, sums in total.items()}
    skin = colour.get("face", SKIN)
    colour = {"neck": skin, "hand": skin, "head": skin, "hair": 0.35 * skin} | colour
    whole = np.mean([colour[name] for name in ("torso", "thigh") if name in colour] or [skin], 0)
    texel = np.stack([colour.get(name, whole) for name in GROUPS])[atlas.group]
    texel[atlas.hair] = colour["hair"]
    side = int(np.sqrt(len(atlas.gutter)))
    return texel[atlas.gutter].reshape(side, side, 3).round().astype(np.uint8)


def body_parts(found: Parse) -> np.ndarray:
    """Body part of every pixel of a crop.

    A pixel belongs to the nearest limb of the skeleton. Above the shoulders it is hair if it lies
    above the eyes or the person faces away, else face.

    Args:
        found: Result of the pose model for the crop.

    Returns:
        A name of `GROUPS`, "hair", "face", or "" outside the person.  str [H, W]
    """
    at = dict(zip(KEYPOINTS, found.points, strict=True))
    inside = ndimage.binary_erosion(found.mask > 0.5)
    rows, columns = np.nonzero(inside)
    point = np.stack([columns + 0.5, rows + 0.5], 1)
    distance = np.stack([_to_line(point, at[a], at[b]) for _, a, b in LINES], 1)
    name = np.array([line[0] for line in LINES], dtype="<U9")[distance.argmin(1)]
    shoulder, ear, eye = (
        (at[f"left_{k}"][1] + at[f"right_{k}"][1]) / 2 for k in ("shoulder", "ear", "eye")
    )
    head = point[:, 1] < 0.6 * shoulder + 0.4 * ear
    name[head] = np.where(
        (point[head, 1] < eye - 0.03 * found.height) | (not found.front), "hair", "face"
    )
    part = np.full(inside.shape, "", dtype="<U9")
    part[rows, columns] = name
    return part


def _to_line(point: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of points, [N, 2], to the line between two joints, [N]."""
    along = b - a
    share = np.clip((point - a) @ along / max(float(along @ along), 1e-6), 0, 1)
    return np.linalg.norm(point - a - share[:, None] * along, axis=1)
