# SPDX-License-Identifier: Apache-2.0
"""Textures of the ground from the backgrounds of the crops, by image quilting.

Source: Efros and Freeman, SIGGRAPH 2001: blocks that fit their neighbours in an overlap, joined
along the cut of least error. Ours takes the blocks from the free corners of many crops, and closes
the texture in both directions with the same cut.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from viewsynth.match.crops import Crop
from viewsynth.metrics import colours
from viewsynth.records import seed_of
from viewsynth.render.grounds import INCH
from viewsynth.render.options import Sensor, span
from viewsynth.render.sensor import LUMA, encoded, linear

BLOCK, OVERLAP = 14, 5  # pixels
SIDE = 256  # of a texture, pixels
AWAY = 0.09  # distance from the person, as a share of the longer side of the person's box
FEWEST, MOST = 24, 300  # blocks that a texture is made of
DONORS = 8  # crops that a texture may take blocks from
TOLERANCE = 1.15  # blocks whose error is at most so many times the least are drawn from
PERSON = 1.75  # metres: longer side of a person's box
SOFTEN = 0.7  # pixels: takes away noise and sharpening, which the virtual sensor adds again


def free(mask: np.ndarray) -> np.ndarray:
    """Background well away from the person: bool [H, W].

    Args:
        mask: Alpha of the person, [0, 1].  [H, W]
    """
    taken = mask > 0.05
    if not taken.any():
        return np.zeros_like(taken)
    rows, columns = (np.flatnonzero(taken.any(axis)) for axis in (1, 0))
    reach = max(AWAY * max(np.ptp(rows), np.ptp(columns)), 3)
    return ndimage.distance_transform_edt(~taken) > reach


def blocks(image: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Blocks of plain ground inside the allowed pixels.

    Blocks that differ from the crop's ground (other people, shadows, lines) are left out: those
    whose mean colour is far from the median block's, or whose contrast is far above it.

    Args:
        image: sRGB.  uint8 [H, W, 3]
        allowed: bool [H, W].

    Returns:
        uint8 [N, BLOCK, BLOCK, 3].
    """
    height, width = allowed.shape
    if min(height, width) < BLOCK:
        return np.zeros((0, BLOCK, BLOCK, 3), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(allowed, (BLOCK, BLOCK))[::3, ::3]
    corners = 3 * np.argwhere(windows.all((2, 3)))
    if not len(corners):
        return np.zeros((0, BLOCK, BLOCK, 3), np.uint8)
    found = np.stack([image[y : y + BLOCK, x : x + BLOCK] for y, x in corners])
    lab = colours.lab(found)
    mean, contrast = lab.mean((1, 2)), lab[..., 0].std((1, 2))
    away = np.linalg.norm(mean - np.median(mean, 0), axis=1)
    plain = (away <= max(2.5 * np.median(away), 4)) & (contrast <= 2 * np.median(contrast) + 1)
    return found[plain]


def quilt(source: np.ndarray, seed: int, side: int = SIDE) -> np.ndarray:
    """A texture that repeats in both directions.

    Args:
        source: Blocks.  [N, BLOCK, BLOCK, 3]
        seed: Of the draws.
        side: Of the texture, pixels.

    Returns:
        float64 [side, side, 3], in the values of the blocks.
    """
    rng, source = np.random.default_rng(seed), np.asarray(source, np.float64)
    step = BLOCK - OVERLAP
    count = -(-(side + OVERLAP) // step) + 1
    made = np.zeros((count * step + OVERLAP,) * 2 + (3,))
    for row in range(count):
        for column in range(count):
            y, x = row * step, column * step
            here = made[y : y + BLOCK, x : x + BLOCK]
            cost = np.zeros(len(source))
            if column:
                cost += ((source[:, :, :OVERLAP] - here[:, :OVERLAP]) ** 2).sum((1, 2, 3))
            if row:
                cost += ((source[:, :OVERLAP] - here[:OVERLAP]) ** 2).sum((1, 2, 3))
            near = np.flatnonzero(cost <= TOLERANCE * cost.min() + 1e-6)
            block = source[rng.choice(near)].copy()
            if column:
                block[:, :OVERLAP] = _joined(here[:, :OVERLAP], block[:, :OVERLAP])
            if row:
                upper = here[:OVERLAP].swapaxes(0, 1)
                block[:OVERLAP] = _joined(upper, block[:OVERLAP].swapaxes(0, 1)).swapaxes(0, 1)
            made[y : y + BLOCK, x : x + BLOCK] = block
    for _ in range(2):  # what follows the last column meets the first one
        made[:, :OVERLAP] = _joined(made[:, side : side + OVERLAP], made[:, :OVERLAP])
        made = made[:, :side].swapaxes(0, 1)
    return made


def _joined(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Join two strips [H, W, 3] along the vertical cut of least error."""
    error = ((left - right) ** 2).sum(-1)
    total = error.copy()
    for row in range(1, len(error)):
        padded = np.pad(total[row - 1], 1, constant_values=np.inf)
        total[row] += np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    joined, at = right.copy(), int(total[-1].argmin())
    for row in reversed(range(len(error))):
        if row < len(error) - 1:
            first = max(at - 1, 0)
            at = first + int(total[row, first : at + 2].argmin())
        joined[row, :at] = left[row, :at]
    return joined


def textures(
    crops: Sequence[Crop], sensor: Sensor, most: int, seed: int
) -> list[tuple[np.ndarray, float]]:
    """Textures of the grounds of crops, as before the sensor.

    Args:
        crops: Filmed people, whose grounds are stretched to be seen from straight above.
        sensor: Estimated; its tone is taken out.
        most: Largest number of textures.
        seed: Of the draws.

    Returns:
        sRGB, uint8 [SIDE, SIDE, 3], and pixels per metre of each. Fewer, or none, if the crops
        show too little ground.
    """
    sources = []
    for crop in crops:
        elevation = np.clip(crop.elevation or 45.0, 20, 90)
        stretch = 1 / np.sin(np.radians(elevation))
        rows = round(len(crop.image) * stretch)
        image = Image.fromarray(crop.image).resize((crop.image.shape[1], rows))
        allowed = ndimage.zoom(free(crop.mask), (rows / len(crop.mask), 1), order=0)
        found = blocks(np.asarray(image), allowed[:rows])
        density = max(crop.framing["tall"], crop.framing["wide"]) / PERSON
        if len(found):
            tone = colours.lab(found).reshape(-1, 3)
            sources.append((crop.name, found, density, np.r_[tone.mean(0), tone[:, 0].std()]))
    # A random order: textures stand for all grounds, not for the crops with the most of it.
    sources.sort(key=lambda one: seed_of(seed, one[0]))
    made = []
    for name, _, density, tone in sources:
        alike = [one for one in sources if 0.75 < one[2] / density < 1.33]
        alike.sort(key=lambda one: (float(np.linalg.norm(one[3] - tone)), one[0]))
        near = [one for one in alike if np.linalg.norm(one[3] - tone) < 12][:DONORS]
        every = np.concatenate([one[1] for one in near])
        if len(every) < FEWEST:
            continue
        rng = np.random.default_rng(seed_of(seed, name, "blocks"))
        some = every[np.sort(rng.permutation(len(every))[:MOST])]
        made.append((undeveloped(_even(quilt(some, seed_of(seed, name))), sensor), density))
        if len(made) == most:
            break
    return made


def _even(texture: np.ndarray) -> np.ndarray:
    """Less noise, and no light and dark quarters, which would repeat."""
    soft = ndimage.gaussian_filter(texture, (SOFTEN, SOFTEN, 0), mode="wrap")
    broad = ndimage.gaussian_filter(texture, (40, 40, 0), mode="wrap")
    return np.clip(soft - 0.7 * (broad - broad.mean((0, 1))), 0, 255)


def undeveloped(texture: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Take the tone of a sensor out of an image, so that it is not applied twice.

    Args:
        texture: sRGB from 0 to 255.  [H, W, 3]
        sensor: The middles of its ranges are inverted: saturation, contrast, haze, white balance
            and exposure.

    Returns:
        uint8 [H, W, 3].
    """

    def middle(name: str) -> float:
        return sum(span(getattr(sensor, name))) / 2

    image = torch.from_numpy(np.asarray(texture, np.float32) / 255).permute(2, 0, 1)
    grey = (torch.tensor(LUMA)[:, None, None] * image).sum(0, keepdim=True)
    image = (grey + (image - grey) / max(middle("saturation"), 0.2)).clamp(0, 1)
    slope = 1 / middle("contrast")
    image = image**slope / (image**slope + (1 - image) ** slope)
    light, haze = linear(image), middle("haze")
    # The scattered light is that of the whole image, of which the ground is the most.
    light = light - haze / (1 + haze) * 0.1
    warmth, tint = middle("warmth"), middle("tint")
    balance = torch.tensor([1 + warmth, 1 + tint, 1 - warmth])[:, None, None]
    image = encoded((light / balance / 2 ** middle("exposure")).clamp(0, 1))
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def png(texture: np.ndarray, density: float) -> bytes:
    """A texture as a PNG that carries its scale.

    Args:
        texture: uint8 [S, S, 3].
        density: Pixels per metre.
    """
    file, dots = io.BytesIO(), density * INCH
    Image.fromarray(texture).save(file, "PNG", dpi=(dots, dots))
    return file.getvalue()
