# SPDX-License-Identifier: Apache-2.0
"""Augment: pictures of a batch as the network sees them in training.

pixels -> `augment` -> method. What happens to a picture is drawn from (seed, step, slot) alone: not
from what else is in the batch, nor from the process that has it. The draws are made on the CPU and
have a column each, so that switching a control on changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from viewsynth.records import seed_of
from viewsynth.reid.options import Augmentation

MEAN = (0.485, 0.456, 0.406)  # of ImageNet: what is erased becomes this
AREA, RATIO = (0.02, 0.33), (0.3, 3.3)  # of what is erased: share of the picture, height : width
TRIES = 4  # to find such a rectangle that fits; after the last it is cut to fit

HEIGHT = (28, 150)  # pixels that a person has in a drone's picture
BLUR = 0.12  # at most this much of a coarse pixel comes from each neighbour
LEAN = (20.0, 65.0)  # degrees by which the top of the picture leans towards the camera
TURN = 10.0  # degrees to either side
DISTANCE = (2.0, 6.0)  # of the camera, in heights of the picture

# The columns of the draws, uniform in [0, 1).
FLIP, DOWN, RIGHT, ERASE, TOP, LEFT = range(6)
DEGRADE, COARSE, SOFT, PERSPECTIVE, LEANING, TURNING, FAR = range(6, 13)
SHAPES = 13  # area and ratio of every try, in turn
COLUMNS = SHAPES + 2 * TRIES


def augment(
    images: Tensor, seed: int, step: int, slots: Sequence[int] | np.ndarray, recipe: Augmentation
) -> Tensor:
    """Vary the pictures of a batch.

    Source: fast-reid's recipe as VDT (CVPR 2024) uses it: padding and random crop, flip, random
    erasing of Zhong et al. 2017 (arXiv 1708.04896). The controls are ours.

    Args:
        images: RGB, on any device.  uint8 [B, H, W, 3]
        seed: Of the run.
        step: Of the run, >= 0.
        slots: Of each picture in the global batch of that step, >= 0.  [B]
    Returns: RGB in [0, 1], not normalised, on the same device.  float32 [B, 3, H, W]
    """
    drawn = draws(seed, step, slots)
    images = _controlled(images, drawn, recipe)
    height, width = images.shape[1:3]
    moved = _cropped(images, drawn, recipe.flip, round(recipe.pad * height / 256))
    # Planes first: a strided uint8 -> float copy is several times as slow.
    out = moved.permute(0, 3, 1, 2).contiguous().float().div_(255)
    mean = torch.tensor(MEAN, device=out.device)[:, None, None]
    for row, (top, left, bottom, right) in _erased(drawn, recipe.erase, height, width):
        out[row, :, top:bottom, left:right] = mean
    return out


def draws(seed: int, step: int, slots: Sequence[int] | np.ndarray) -> np.ndarray:
    """The random numbers of these slots; those of a slot do not hang on which others are asked for.

    Returns: uniform in [0, 1).  float64 [B, COLUMNS]
    """
    slots = np.asarray(slots, np.int64)
    rng = np.random.default_rng(seed_of(seed, "augment", step))
    return rng.random((int(slots.max(initial=-1)) + 1, COLUMNS))[slots]


def _cropped(images: Tensor, drawn: np.ndarray, flip: float, pad: int) -> Tensor:
    """Pad with black, flip some, cut the old size at a random place."""
    count, height, width = images.shape[:3]
    high, wide = height + 2 * pad, width + 2 * pad
    both = images.new_zeros(2, count, high, wide, 3)  # as it is, and flipped
    inner = both[:, :, pad : pad + height, pad : pad + width]
    inner[0] = images
    inner[1] = images.permute(0, 3, 1, 2).flip(3).permute(0, 2, 3, 1)
    top, left = ((drawn[:, column] * (2 * pad + 1)).astype(np.int64) for column in (DOWN, RIGHT))
    which = (drawn[:, FLIP] < flip) * count + np.arange(count)
    rows = which[:, None] * high + top[:, None] + np.arange(height)
    starts = torch.from_numpy(rows * wide + left[:, None]).to(images.device)
    # A row of the result is a run of bytes in `both`: every such run is a row of this view.
    runs = both.view(-1).unfold(0, 3 * width, 3)
    return runs.index_select(0, starts.view(-1)).view(count, height, width, 3)


def _erased(drawn: np.ndarray, erase: float, height: int, width: int):
    """Row and rectangle (top, left, bottom, right) of the pictures that lose one."""
    for row in np.flatnonzero(drawn[:, ERASE] < erase).tolist():
        for area, ratio in drawn[row, SHAPES:].reshape(TRIES, 2):
            pixels = (AREA[0] + area * (AREA[1] - AREA[0])) * height * width
            shape = np.exp(np.log(RATIO[0]) + ratio * np.log(RATIO[1] / RATIO[0]))
            high, wide = round((pixels * shape) ** 0.5), round((pixels / shape) ** 0.5)
            if high < height and wide < width:
                break
        high, wide = min(max(high, 1), height), min(max(wide, 1), width)
        top = int(drawn[row, TOP] * (height - high + 1))
        left = int(drawn[row, LEFT] * (width - wide + 1))
        yield row, (top, left, top + high, left + wide)


# ---- controls: what a plain augmentation can imitate of a view from above -----------------------


def _controlled(images: Tensor, drawn: np.ndarray, recipe: Augmentation) -> Tensor:
    """Apply the controls to the pictures that they were drawn for, one by one."""
    leaning = np.flatnonzero(drawn[:, PERSPECTIVE] < recipe.perspective)
    coarse = np.flatnonzero(drawn[:, DEGRADE] < recipe.degrade)
    if not len(leaning) + len(coarse):
        return images
    images = images.clone()
    for row in leaning.tolist():
        far = DISTANCE[0] * (DISTANCE[1] / DISTANCE[0]) ** drawn[row, FAR]
        lean = LEAN[0] + drawn[row, LEANING] * (LEAN[1] - LEAN[0])
        images[row] = tilted(images[row], lean, (2 * drawn[row, TURNING] - 1) * TURN, far)
    for row in coarse.tolist():
        pixels = HEIGHT[0] + drawn[row, COARSE] * (HEIGHT[1] - HEIGHT[0])
        images[row] = degraded(images[row], round(pixels), BLUR * drawn[row, SOFT])
    return images


def degraded(image: Tensor, pixels: int, blur: float = 0.0) -> Tensor:
    """A picture with the resolution of a smaller one: neither colours nor geometry change.

    Args:
        image: RGB.  uint8 [H, W, 3]
        pixels: Height that it is brought to (area) and back from (bicubic), > 0.
        blur: Share of each coarse pixel that comes from each of its neighbours, in [0, 0.33].
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
    """A picture as a flat board that leans and turns, cut to the board again: a homography.

    The cut takes away the foreshortening, as a tight crop does; what stays is that near things are
    larger. Corners that the board does not fill mirror it.

    Args:
        image: RGB.  uint8 [H, W, 3]
        lean: Degrees by which the top comes towards the camera: as seen from above, (-90, 90).
        turn: Degrees by which the left side comes towards the camera, (-90, 90).
        distance: Of the camera from the middle, in heights of the picture, > 1.
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
    """From places of the result to places of the picture, both in [-1, 1], y down.  [3, 3]"""
    a, b = np.deg2rad([lean, turn])
    half = np.diag([aspect / 2, 0.5, 1.0])  # the board, in its own heights
    turned = np.array([[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]])
    leant = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    # Columns: the board's x and y axes in space, and its middle, straight ahead of the camera.
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
