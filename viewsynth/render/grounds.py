# SPDX-License-Identifier: Apache-2.0
"""Grounds from a folder of square textures, as `viewsynth match` writes them.

A texture repeats in both directions. Its scale stands in the file: the pHYs chunk of a PNG gives
pixels per metre. Sampling chooses a level of an image pyramid (Williams, SIGGRAPH 1983) by the size
of a pixel on the ground; one level per image, as a crop shows a small patch of ground.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viewsynth.render.options import Scene

INCH = 0.0254  # metres; Pillow gives the pHYs chunk in dots per inch
DENSITY = 80.0  # pixels per metre of a file that does not say it
SCREEN = 1000.0  # pixels per metre; more is the density of a screen or printer, not of a ground
LARGEST = 2048  # side of a texture, pixels


@dataclass(frozen=True)
class Texture:
    """A piece of ground.

    Args:
        levels: Pyramid of sRGB in [0, 1], each level half the size of the one before.
            float32 [S, S, 3] each
        density: Pixels per metre of the first level.
        turn: Direction of the texture on the ground, radians.
        shift: World point of its corner, metres.
    """

    levels: tuple[Tensor, ...]
    density: float
    turn: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)


@functools.lru_cache(maxsize=8)
def load(scene: Scene) -> tuple[Texture, ...]:
    """Read the textures of a scene, in the order of their names.

    Args:
        scene: With a folder of square PNG files.

    Raises:
        FileNotFoundError: If there is no PNG file in the folder.
        ValueError: If a file is not a square image.
    """
    return tuple(map(_read, scene.textures()))


def _read(path: Path) -> Texture:
    with Image.open(path) as file:
        side = file.size
        if side[0] != side[1] or not 8 <= side[0] <= LARGEST:
            raise ValueError(
                f"scene.grounds: {path} must be a square image of 8 to {LARGEST} pixels, got "
                f"{side[0]}x{side[1]}"
            )
        density = float(file.info.get("dpi", (0, 0))[0]) / INCH
        pixels = torch.from_numpy(np.array(file.convert("RGB"), np.float32) / 255)
    known = 1 <= density <= SCREEN
    return Texture(_pyramid(pixels), density if known else DENSITY)


def _pyramid(pixels: Tensor) -> tuple[Tensor, ...]:
    """Halve an image [S, S, 3] while its side is even."""
    levels = [pixels]
    while len(levels[-1]) % 2 == 0:
        fine = levels[-1]
        parts = [fine[i::2, j::2] for i in range(2) for j in range(2)]
        levels.append(sum(parts) / 4)
    return tuple(levels)


def colour(x: Tensor, z: Tensor, span: Tensor, texture: Texture) -> Tensor:
    """Colour of the ground at world points.

    Args:
        x: World x, metres.  [H, W]
        z: World z, metres.  [H, W]
        span: Metres that a pixel covers there.  [H, W]
        texture: The ground.

    Returns:
        sRGB [H, W, 3].
    """
    step = float(span.median()) * texture.density  # texture pixels per image pixel
    level = min(max(round(math.log2(max(step, 1e-6))), 0), len(texture.levels) - 1)
    pixels = texture.levels[level].to(x.device)
    scale, side = texture.density / 2**level, len(pixels)
    cos, sin = math.cos(texture.turn), math.sin(texture.turn)
    x, z = (t.nan_to_num(0, 0, 0).clamp(-1e4, 1e4) for t in (x, z))
    x, z = x - texture.shift[0], z - texture.shift[1]
    u, v = (x * cos + z * sin) * scale - 0.5, (z * cos - x * sin) * scale - 0.5
    column, row = u.floor(), v.floor()
    a, b = (u - column)[..., None], (v - row)[..., None]
    column, row = column.long() % side, row.long() % side
    right, under = (column + 1) % side, (row + 1) % side
    top = torch.lerp(pixels[row, column], pixels[row, right], a)
    bottom = torch.lerp(pixels[under, column], pixels[under, right], a)
    return torch.lerp(top, bottom, b)
