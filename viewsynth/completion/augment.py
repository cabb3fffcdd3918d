# SPDX-License-Identifier: Apache-2.0
"""Augmentation of completion examples: crops as real cameras and detectors make them.

The world's cameras already differ in sharpness, exposure and noise. Real crops are worse: blurred,
hazy, overexposed, in one-sided light, cut off, hidden by things and people. Truth stays as it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from viewsynth.training.rows import Draws

# Probability of each, per example.
FLIP, LIGHT, HAZE, SLOPE, BLUR, NOISE = 0.5, 0.8, 0.3, 0.4, 0.5, 0.5
HIDE, CUT, MASK = 0.25, 0.2, 0.5
NO_BODY = 0.2  # examples without the fitted body, from which the azimuth is learned
ZOOM, SHIFT = 0.2, 0.08  # by which their canvas is off: logarithm of the size; share of the canvas


def augmented(examples: dict[str, Tensor], draws: Draws) -> dict[str, Tensor]:
    """Degrade a batch at random.

    Args:
        examples: See `Stored.batch`; images as there.
        draws: Random numbers of these rows.

    Returns:
        The same names; "image" uint8, and "bodiless", bool [B]: these are examples for the azimuth
        only, because their crop is placed roughly on the canvas, as before a body is fitted.
    """
    found = _flipped(dict(examples), draws.uniform() < FLIP)
    image = found["image"].movedim(-1, 1).float() / 255
    image = _lit(image, draws)
    image, hidden = _hidden(image, draws)
    image = _sensed(image, draws)
    mask = _unsure(found["mask"].float() / 255, draws)
    image, inside = _cut(image, found["inside"].float() / 255, draws)
    found["bodiless"] = draws.uniform() < NO_BODY
    image, mask, inside = _placed(image, mask * inside * ~hidden, inside, found["bodiless"], draws)
    found["image"] = (255 * image.clamp(0, 1)).round().byte().movedim(1, -1)
    found["mask"] = (255 * mask).round().byte()
    found["inside"] = (255 * inside).round().byte()
    return found


def _placed(
    image: Tensor, mask: Tensor, inside: Tensor, here: Tensor, draws: Draws
) -> tuple[Tensor, Tensor, Tensor]:
    """Some crops at another place of the canvas, and of another size."""
    number = 2 * draws.uniform(3) - 1
    if not here.any():
        return image, mask, inside
    size, shift = (ZOOM * number[here, 0]).exp(), 2 * SHIFT * number[here, 1:]
    way = torch.cat([torch.diag_embed(size[:, None].expand(-1, 2)), shift[..., None]], 2)
    maps = torch.cat([image, mask[:, None], inside[:, None]], 1)
    moved = []
    for one, affine in zip(maps[here], way, strict=True):
        grid = functional.affine_grid(affine[None], [1, *one.shape], align_corners=False)
        shown = functional.grid_sample(one[None], grid, padding_mode="border", align_corners=False)
        known = functional.grid_sample(one[None, 3:], grid, align_corners=False)
        moved.append(torch.cat([shown[0, :3], known[0]]))
    maps[here] = torch.stack(moved)
    return maps[:, :3], maps[:, 3], maps[:, 4]


def _flipped(found: dict[str, Tensor], flip: Tensor) -> dict[str, Tensor]:
    """Mirror images of some examples: left and right, and the azimuths."""
    for name, value in found.items():
        if name in ("angles", "true_angles"):
            turned = value * value.new_tensor([1.0, -1.0])
        elif value.ndim < 3:
            continue
        else:
            turned = value.flip(-2 if name in ("image", "colour") else -1)
        found[name] = torch.where(flip.view(-1, *[1] * (value.ndim - 1)), turned, value)
    return found


def _chosen(draws: Draws, chance: float, *shape: int) -> tuple[Tensor, Tensor]:
    """Which rows are changed, [B, 1, 1, 1]; and numbers in [0, 1), [B, *shape, 1, 1]."""
    here = draws.uniform() < chance
    numbers = draws.uniform(*shape)
    return here[:, None, None, None], numbers[..., None, None]


def _lit(image: Tensor, draws: Draws) -> Tensor:
    """Exposure, contrast, white balance, haze, and light from one side."""
    here, number = _chosen(draws, LIGHT, 5)
    gain = 2 ** (1.8 * number[:, :1] - 0.9)
    balance = 2 ** (0.5 * (number[:, 2:5] - 0.5))
    changed = (image * gain * balance).clamp(0, 1) ** (2 ** (1.2 * (number[:, 1:2] - 0.5)))
    image = torch.where(here, changed, image)
    here, number = _chosen(draws, HAZE, 2)
    share = 0.45 * number[:, :1]
    image = torch.where(here, image * (1 - share) + share * (0.4 + 0.6 * number[:, 1:]), image)
    here, number = _chosen(draws, SLOPE, 2)
    angle = 2 * math.pi * number[:, :1]
    rows = torch.linspace(-1, 1, image.shape[2])[:, None]
    columns = torch.linspace(-1, 1, image.shape[3])[None]
    slope = (angle.cos() * columns + angle.sin() * rows) * 0.5 * number[:, 1:]
    return torch.where(here, image * (1 + slope), image)


def _sensed(image: Tensor, draws: Draws) -> Tensor:
    """Lost resolution and noise."""
    here, number = _chosen(draws, BLUR, 1)
    factors = 1 + 1.5 * number.flatten()
    sized = []
    for one, factor, yes in zip(image, factors.tolist(), here.flatten().tolist(), strict=True):
        if yes:
            small = [max(round(side / factor), 8) for side in one.shape[1:]]
            few = functional.interpolate(one[None], small, mode="area")
            one = functional.interpolate(few, one.shape[1:], mode="bilinear")[0]
        sized.append(one)
    image = torch.stack(sized)
    here, number = _chosen(draws, NOISE, 1)
    noise = draws.normal(*image.shape[1:]) * 0.04 * number
    return torch.where(here, image + noise, image)


def _boxes(draws: Draws, shape: tuple[int, int], least: float, most: float) -> Tensor:
    """A random rectangle of each row, bool [B, H, W]; sides are shares of the canvas."""
    number = draws.uniform(4)[..., None]
    rows, columns = (torch.arange(side)[None] / side for side in shape)
    size = least + (most - least) * number[:, :2]
    corner = number[:, 2:] * (1 - size)
    down = (rows >= corner[:, 0]) & (rows < corner[:, 0] + size[:, 0])
    across = (columns >= corner[:, 1]) & (columns < corner[:, 1] + size[:, 1])
    return down[:, :, None] & across[:, None]


def _hidden(image: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Something in front, of one colour or several."""
    box = _boxes(draws, image.shape[2:], 0.08, 0.5)
    here, number = _chosen(draws, HIDE, 3)
    here = here[:, 0] & box
    patches = functional.interpolate(draws.uniform(3, 6, 4), image.shape[2:], mode="bilinear")
    thing = number + (patches - 0.5) * number.flip(1)
    return torch.where(here[:, None], thing, image), here


def _cut(image: Tensor, inside: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """A detector's box that ends within the person, at one side."""
    here, number = _chosen(draws, CUT, 2)
    side = (4 * number[:, 0]).long().flatten().tolist()
    share = (0.05 + 0.35 * number[:, 1]).flatten().tolist()
    image, inside = image.clone(), inside.clone()
    for k, yes in enumerate(here.flatten().tolist()):
        if not yes:
            continue
        axis, first = divmod(side[k], 2)
        one, known = image[k].movedim(1 + axis, 0), inside[k].movedim(axis, 0)
        length = max(int(share[k] * len(one)), 1)
        gone = slice(0, length) if first else slice(len(one) - length, None)
        one[gone] = one[length if first else len(one) - length - 1].clone()
        known[gone] = 0
    return image, inside


def _unsure(mask: Tensor, draws: Draws) -> Tensor:
    """A mask that is wider or narrower here and there."""
    here, number = _chosen(draws, MASK, 1)
    soft = functional.avg_pool2d(mask[:, None], 5, 1, 2)
    coarse = draws.normal(1, 12, 8)
    wave = functional.interpolate(coarse, mask.shape[1:], mode="bilinear")
    changed = ((soft - 0.5 + 0.25 * number * wave) * 4 + 0.5).clamp(0, 1)
    return torch.where(here, changed, mask[:, None])[:, 0]
