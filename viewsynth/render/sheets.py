# SPDX-License-Identifier: Apache-2.0
"""Sheets: the nearest and the farthest surface of a mesh, as two depth maps.

Source: after the two depth maps of Moulding Humans (Gabeur et al., ICCV 2019). A mesh from which
parts were left out, such as a body without arms, has holes; the sheets are continued over them.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from viewsynth.render import zbuffer


def draw(
    pixels: Tensor, depth: Tensor, faces: Tensor, size: tuple[int, int]
) -> tuple[zbuffer.Fragments, zbuffer.Fragments]:
    """Draw the nearest and the farthest surface, see `zbuffer.rasterize`."""
    near = zbuffer.rasterize(pixels, depth, faces, size)
    return near, zbuffer.farthest(pixels, depth, faces, size)


def depths(pair: tuple[zbuffer.Fragments, zbuffer.Fragments]) -> np.ndarray:
    """Depths of N canvases, metres, NaN = nothing, float32 [N, 2, H, W]."""
    both = torch.stack([one.depth for one in pair], 1)
    return torch.where(both.isfinite(), both, torch.nan).cpu().numpy()


def closed(
    pair: tuple[zbuffer.Fragments, zbuffer.Fragments],
    pixels: Tensor,
    faces: Tensor,
    cover: np.ndarray,
) -> np.ndarray:
    """Depths of an open mesh, with membranes over its holes.

    A hole is where a sheet shows the inside of the mesh, and where lines of sight pass through two
    holes. There the depth solves Laplace's equation.

    Args:
        pair: The sheets of N canvases.
        pixels: Vertices on the canvases.  [N, V, 2]
        faces: Counter-clockwise seen from outside.  int64 [F, 3]
        cover: Where the left out parts or the rest are.  bool [N, H, W]

    Returns:
        Metres, NaN = nothing.  float32 [N, 2, H, W]
    """
    (ax, ay), (bx, by), (cx, cy) = (pixels[:, corner].unbind(-1) for corner in faces.T)
    outside = ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0).cpu().numpy()  # towards us
    found = depths(pair)
    for k, sheets in enumerate(found):
        hit = np.isfinite(sheets[0])
        through = ndimage.binary_fill_holes(hit) & ~hit & cover[k]
        for sheet, one, right in zip(sheets, pair, (True, False), strict=True):
            wrong = hit & (outside[k][one.face[k].cpu().numpy()] != right)
            _close(sheet, wrong | through)
        sheets[:, np.isnan(sheets).any(0)] = np.nan  # holes that nothing surrounds
    return found


def _close(sheet: np.ndarray, hole: np.ndarray) -> None:
    """Give each pixel of the holes the mean of its neighbours, in place."""
    sheet[hole] = np.nan
    number = np.full(np.add(sheet.shape, 2), -1)
    number[1:-1, 1:-1][hole] = np.arange(hole.sum())
    value = np.pad(sheet, 1, constant_values=np.nan)
    rows, columns = np.nonzero(number >= 0)
    if not len(rows) or not np.isfinite(sheet).any():
        return
    total, count, links = np.zeros(len(rows)), np.zeros(len(rows)), []
    for down, across in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        other, given = (t[rows + down, columns + across] for t in (number, value))
        total += np.nan_to_num(given)
        count += np.isfinite(given) | (other >= 0)
        here = np.flatnonzero(other >= 0)
        links.append((here, other[here]))
    here, other = np.concatenate(links, 1)
    shape = (len(rows), len(rows))
    matrix = sparse.csr_array((-np.ones(len(here)), (here, other)), shape)
    matrix = matrix + sparse.diags_array(np.maximum(count, 1) + 1e-9)
    filled = spsolve(matrix.tocsc(), total)
    sheet[rows - 1, columns - 1] = np.where(filled == 0, np.nan, filled)  # 0: no neighbour at all
