# SPDX-License-Identifier: Apache-2.0
"""Latents: a feature vector reshaped to the four-channel image that a UNet denoises, and back.

Source: the release of SD-ReID reshapes 768 values, in their order, to 4 x 16 x 12. Ours: features
of any length; the aspect ratio is as close to 4:3 as possible, and the rest is padded with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

CHANNELS = 4
RATIO, TALLEST = 4 / 3, 2.0  # height to width: preferred, largest


@dataclass(frozen=True)
class Grid:
    """Shape of the latents of a feature.

    Args:
        width: Length of a feature, D.
        height: Height of a latent, h.
        across: Width of a latent, w.
    """

    width: int
    height: int
    across: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a latent, (4, h, w)."""
        return CHANNELS, self.height, self.across

    @property
    def numbers(self) -> int:
        """Number of values in a latent, including padding."""
        return CHANNELS * self.height * self.across

    def to_latent(self, features: Tensor) -> Tensor:
        """Reshape features to latents.  [B, D] -> [B, 4, h, w]."""
        return functional.pad(features, (0, self.numbers - self.width)).unflatten(1, self.shape)

    def to_feature(self, latents: Tensor) -> Tensor:
        """Reshape latents to features.  [B, 4, h, w] -> [B, D]."""
        return latents.flatten(1)[:, : self.width]


def grid(width: int) -> Grid:
    """The latent shape with the least padding and, among these, the ratio closest to 4:3.

    Args:
        width: Length of a feature.

    Raises:
        ValueError: If the feature is too short for a UNet.
    """
    cells = -(-width // CHANNELS)
    if cells < 4:
        raise ValueError(
            f"a feature of {width} values is too short to be denoised; use a backbone with "
            "features of 16 or more"
        )
    shapes = [
        (height, across)
        for across in range(1, cells + 1)
        for height in (max(-(-cells // across), across),)
        if height <= TALLEST * across
    ]
    height, across = min(shapes, key=lambda s: (s[0] * s[1], abs(s[0] / s[1] - RATIO)))
    return Grid(width, height, across)
