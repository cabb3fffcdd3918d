# SPDX-License-Identifier: Apache-2.0
"""Latents: a feature as a small picture of four channels, which a UNet can denoise, and back.

Source: SD-ReID, section 2.1 of its release: 768 numbers, in their order, as 4 x 16 x 12. Ours: any
width; cells are as near to 4:3 as the width allows, zeros fill what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

CHANNELS = 4
RATIO, WIDEST = 4 / 3, 2.0  # height to width: wanted, at most


@dataclass(frozen=True)
class Grid:
    """Where the numbers of a feature lie.

    Args:
        width: Length of a feature.
        height, across: Cells of a latent.
    """

    width: int
    height: int
    across: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a latent."""
        return CHANNELS, self.height, self.across

    @property
    def numbers(self) -> int:
        """Numbers in a latent, those that fill it up included."""
        return CHANNELS * self.height * self.across

    def to_latent(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, 4, height, across]"""
        return functional.pad(features, (0, self.numbers - self.width)).unflatten(1, self.shape)

    def to_feature(self, latents: Tensor) -> Tensor:
        """[B, 4, height, across] -> [B, D]"""
        return latents.flatten(1)[:, : self.width]


def grid(width: int) -> Grid:
    """The grid of a width: least filling first, then the ratio nearest to 4:3.

    Raises: ValueError: if the width is too small for a UNet.
    """
    cells = -(-width // CHANNELS)
    if cells < 4:
        raise ValueError(f"a feature of {width} numbers is too short to be denoised; 16 at least")
    shapes = [
        (tall, across)
        for across in range(1, cells + 1)
        for tall in (max(-(-cells // across), across),)
        if tall <= WIDEST * across
    ]
    tall, across = min(shapes, key=lambda s: (s[0] * s[1], abs(s[0] / s[1] - RATIO)))
    return Grid(width, tall, across)
