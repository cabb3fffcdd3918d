# SPDX-License-Identifier: Apache-2.0
"""Augmentation of the images of a training batch.

reid.pixels -> `augment` -> reid.methods. The augmentation of an image is a function of (seed, step,
slot), independent of the rest of the batch and of the process. Random numbers are generated on the
CPU and each operation has its own columns, so enabling one does not change the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from viewsynth.records import seed_of
from viewsynth.reid.options import Augmentation

MEAN = (0.485, 0.456, 0.406)  # ImageNet mean, the colour of erased rectangles
AREA, RATIO = (0.02, 0.33), (0.3, 3.3)  # erased rectangle: share of the image, height : width
TRIES = 4  # to find a rectangle that fits; the last one is cut to fit

HEIGHT = (28, 150)  # height of a person in a drone's image, pixels
BLUR = 0.12  # largest share of a low-resolution pixel that comes from each of its neighbours
LEAN = (20.0, 65.0)  # degrees by which the top of the image leans towards the camera
TURN = 10.0  # largest turn to either side, degrees
DISTANCE = (2.0, 6.0)  # distance of the camera, in image heights

# Columns of the random numbers, uniform in [0, 1).
FLIP, DOWN, RIGHT, ERASE, TOP, LEFT = range(6)
DEGRADE, COARSE, SOFT, PERSPECTIVE, LEANING, TURNING, FAR = range(6, 13)
SHAPES = 13  # first of the columns with area and ratio of each try
COLUMNS = SHAPES + 2 * TRIES


def augment(
    images: Tensor, seed: int, step: int, slots: Sequence[int] | np.ndarray, recipe: Augmentation
) -> Tensor:
    """Augment the images of a batch.

    Source: fast-reid's recipe as used by VDT (CVPR 2024): padding and random crop, flip, random
    erasing of Zhong et al. 2017 (arXiv 1708.04896). The control experiments, low resolution and
    perspective, are ours.

    Args:
        images: RGB, on any device.  uint8 [B, H, W, 3]
        seed: Seed of the run.
        step: Step of the run, >= 0.
        slots: Position of each image in the global batch of that step, >= 0.  [B]
        recipe: Probabilities of the operations.

    Returns:
        RGB in [0, 1], not normalised, on the same device.  float32 [B, 3, H, W]
    """
    uniform = draws(seed, step, slots)
    images = _controlled(images, uniform, recipe)
    height, width = images.shape[1:3]
    cropped = _cropped(images, uniform, recipe.flip, round(recipe.pad * height / 256))
    # contiguous before float: a strided uint8 -> float copy is several times as slow.
    out = cropped.permute(0, 3, 1, 2).contiguous().float().div_(255)
    mean = torch.tensor(MEAN, device=out.device)[:, None, None]
    for row, (top, left, bottom, right) in _erased(uniform, recipe.erase, height, width):
        out[row, :, top:bottom, left:right] = mean
    return out


def draws(seed: int, step: int, slots: Sequence[int] | np.ndarray) -> np.ndarray:
    """Random numbers of slots; those of a slot do not depend on the other slots requested.

    Args:
        seed: Seed of the run.
        step: Step of the run, >= 0.
        slots: Positions in the global batch, >= 0.  [B]

    Returns:
        Uniform in [0, 1).  float64 [B, COLUMNS]
    """
    slots = np.asarray(slots, np.int64)
    rng = np.random.default_rng(seed_of(seed, "augment", step))
    return rng.random((int(slots.max(initial=-1)) + 1, COLUMNS))[slots]


def _cropped(images: Tensor, uniform: np.ndarray, flip: float, pad: int) -> Tensor:
    """Pad with black, flip some images, and crop to the original size at a random position."""
    count, height, width = images.shape[:3]
    high, wide = height + 2 * pad, width + 2 * pad
    both = images.new_zeros(2, count, high, wide, 3)  # unchanged, and flipped
    inner = both[:, :, pad : pad + height, pad : pad + width]
    inner[0] = images
    inner[1] = images.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1)
    top, left = ((uniform[:, column] * (2 * pad + 1)).astype(np.int64) for column in (DOWN, RIGHT))
    which = (uniform[:, FLIP] < flip) * count + np.arange(count)
    rows = which[:, None] * high + top[:, None] + np.arange(height)
    starts = torch.from_numpy(rows * wide + left[:, None]).to(images.device)
    # A pixel row of the result is contiguous in `both`, so it is one row of this unfolded view.
    runs = both.view(-1).unfold(0, 3 * width, 3)
    return runs.index_select(0, starts.view(-1)).view(count, height, width, 3)


def _erased(uniform: np.ndarray, erase: float, height: int, width: int):
    """Yield the row and the erased rectangle (top, left, bottom, right) of the images with one."""
    for row in np.flatnonzero(uniform[:, ERASE] < erase).tolist():
        for area, ratio in uniform[row, SHAPES:].reshape(TRIES, 2):
            pixels = (AREA[0] + area * (AREA[1] - AREA[0])) * height * width
            shape = np.exp(np.log(RATIO[0]) + ratio * np.log(RATIO[1] / RATIO[0]))
            high, wide = round((pixels * shape) ** 0.5), round((pixels / shape) ** 0.5)
            if high < height and wide < width:
                break
        high, wide = min(max(high, 1), height), min(max(wide, 1), width)
        top = int(uniform[row, TOP] * (height - high + 1))
        left = int(uniform[row, LEFT] * (width - wide + 1))
        yield row, (top, left, top + high, left + wide)


# ---- control experiments: effects of an aerial view that plain augmentation can imitate ---------


def _controlled(images: Tensor, uniform: np.ndarray, recipe: Augmentation) -> Tensor:
    """Apply perspective and low resolution to the images that they are sampled for."""
    leaning = np.flatnonzero(uniform[:, PERSPECTIVE] < recipe.perspective)
    coarse = np.flatnonzero(uniform[:, DEGRADE] < recipe.degrade)
    if not len(leaning) + len(coarse):
        return images
    images = images.clone()
    for row in leaning.tolist():
        far = DISTANCE[0] * (DISTANCE[1] / DISTANCE[0]) ** uniform[row, FAR]
        lean = LEAN[0] + uniform[row, LEANING] * (LEAN[1] - LEAN[0])
        images[row] = tilted(images[row], lean, (2 * uniform[row, TURNING] - 1) * TURN, far)
    for row in coarse.tolist():
        pixels = HEIGHT[0] + uniform[row, COARSE] * (HEIGHT[1] - HEIGHT[0])
        images[row] = degraded(images[row], round(pixels), BLUR * uniform[row, SOFT])
    return images


def degraded(image: Tensor, pixels: int, blur: float = 0.0) -> Tensor:
    """An image at lower resolution, with unchanged colours and geometry.

    Args:
        image: RGB.  uint8 [H, W, 3]
        pixels: Height that the image is reduced to (area) and enlarged from (bicubic), > 0.
        blur: Share of each reduced pixel that comes from each of its neighbours, [0, 0.33].
    """
    height, width = image.shape[:2]
    if pixels >= height:
        return image
    small = functional.interpolate(
        image.permute(2, 0, 1)[None].float(),
        (pixels, max(1, round(width * pixels / height))),
        mode="area",
    )
    if blur:
        padded = functional.pad(small, (1, 1, 1, 1), mode="replicate")
        lines = (1 - 2 * blur) * padded[:, :, 1:-1] + blur * (padded[:, :, :-2] + padded[:, :, 2:])
        small = (1 - 2 * blur) * lines[..., 1:-1] + blur * (lines[..., :-2] + lines[..., 2:])
    back = functional.interpolate(small, (height, width), mode="bicubic", align_corners=False)
    return back[0].permute(1, 2, 0).round_().clamp_(0, 255).byte()


def tilted(image: Tensor, lean: float, turn: float, distance: float) -> Tensor:
    """An image as a flat board that leans and turns, cropped to the board: a homography.

    Cropping removes the foreshortening, as a tight crop does, and keeps the perspective: near parts
    are larger. Corners outside the board are filled by reflection.

    Args:
        image: RGB.  uint8 [H, W, 3]
        lean: Degrees by which the top moves towards the camera, as seen from above, (-90, 90).
        turn: Degrees by which the left side moves towards the camera, (-90, 90).
        distance: Distance of the camera from the middle, in image heights, > 1.
    """
    height, width = image.shape[:2]
    matrix = torch.from_numpy(_homography(width / height, lean, turn, distance)).float()
    y = (torch.arange(height, device=image.device) * 2 + 1) / height - 1
    x = (torch.arange(width, device=image.device) * 2 + 1) / width - 1
    y, x = torch.meshgrid(y, x, indexing="ij")
    place = torch.stack([x, y, torch.ones_like(x)], -1) @ matrix.T.to(image.device)
    found = functional.grid_sample(
        image.permute(2, 0, 1)[None].float(),
        (place[..., :2] / place[..., 2:])[None],
        padding_mode="reflection",
        align_corners=False,
    )
    return found[0].permute(1, 2, 0).round_().clamp_(0, 255).byte()


def _homography(aspect: float, lean: float, turn: float, distance: float) -> np.ndarray:
    """Matrix from positions in the result to positions in the image, both in [-1, 1], y down.

    Returns:
        [3, 3]
    """
    a, b = np.deg2rad([lean, turn])
    half = np.diag([aspect / 2, 0.5, 1.0])  # half sizes of the board, in image heights
    turned = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    leant = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    # Columns: the board's x and y axes in camera space, and its middle, on the optical axis.
    view = np.column_stack([(leant @ turned)[:, 0], (leant @ turned)[:, 1], [0, 0, distance]])
    forward = view @ half
    corners = forward @ np.array([[-1, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]], float)
    corners = corners[:2] / corners[2]
    low, high = corners.min(1), corners.max(1)
    cut = np.array(
        [
            [(high[0] - low[0]) / 2, 0, (high[0] + low[0]) / 2],
            [0, (high[1] - low[1]) / 2, (high[1] + low[1]) / 2],
            [0, 0, 1],
        ]
    )
    return np.linalg.inv(forward) @ cut
