# SPDX-License-Identifier: Apache-2.0
"""Draw meshes into crops, to find what a crop sees of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from viewsynth.render import zbuffer

TALL, MOST = 300, 3  # pixels: height that crops are enlarged to, by at most this factor


@dataclass(frozen=True)
class Front:
    """The triangles that one crop sees, on its pixels enlarged by `factor`.

    Args:
        factor: See `enlargement`.
        fragments: One canvas; depths are 10 m larger than those of `Fit.project`.
    """

    factor: int
    fragments: zbuffer.Fragments

    @property
    def covered(self) -> np.ndarray:
        """The canvas pixels with a triangle, bool [H * factor, W * factor]."""
        return self.fragments.face[0].cpu().numpy() >= 0

    @property
    def coverage(self) -> np.ndarray:
        """The covered share of every pixel of the crop, float32 [H, W]."""
        fine, factor = self.covered, self.factor
        shape = (fine.shape[0] // factor, factor, fine.shape[1] // factor, factor)
        return fine.reshape(shape).mean((1, 3), dtype=np.float32)


def enlargement(height: int) -> int:
    """Factor by which a crop of that height, pixels, is enlarged to draw a mesh into it."""
    return int(np.clip(round(TALL / height), 1, MOST))


def draw(pixels: Tensor, depth: Tensor, faces: Tensor, size: tuple[int, int]) -> Front:
    """Draw a mesh into a crop.

    Args:
        pixels: Of its vertices in the crop.  [1, V, 2]
        depth: Their depth, metres, as of `Fit.project`.  [1, V]
        faces: int64 [F, 3]
        size: Height and width of the crop, pixels.
    """
    factor = enlargement(size[0])
    canvas = (size[0] * factor, size[1] * factor)
    return Front(factor, zbuffer.rasterize(pixels * factor, depth + 10, faces, canvas))
