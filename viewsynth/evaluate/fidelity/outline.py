# SPDX-License-Identifier: Apache-2.0
"""Segments the person in a repaired view, without using the ground truth.

A repaired view has its own background, and its person may have hair, a coat or a bag that the
rendering lacks. The segmentation therefore starts from the mask of the rendering and is decided by
colours near its outline. Without a rendering it starts from an ellipse, because every crop has its
person in the middle.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from viewsynth import metrics

# Width of the band in which colours decide, softness of the initial mask, and range of a colour, as
# shares of the square root of the mask's area. On 26 true drone images of a world's training people
# the IoU with the true mask rose from 0.75 to 0.78 for a body rendered in the true pose, from 0.70
# to 0.75 for the same shifted by some pixels, and from 0.63 to 0.73 for an ellipse.
NEAR, LOOSE = (0.09, 0.05, 0.25), (0.25, 0.3, 0.5)
COLOUR = 8.0  # distance in L*a*b* that counts as much as the range of a colour
NEIGHBOURS, MAX_EVIDENCE = 5, 3.0
SMOOTH = 0.8  # standard deviation of the smoothing, pixels
HALF = (0.8, 0.75)  # semi-axes of the ellipse, shares of half the height and width
MIN_KNOWN = 20  # pixels of person and background that are taken as known


def outline(image: np.ndarray, start: np.ndarray | None) -> np.ndarray:
    """Segment the person in an image.

    Source: ours; like Rother et al. (GrabCut, SIGGRAPH 2004), colours decide in a narrow band
    around an initial outline, here by the nearest known pixels in L*a*b* and position.

    Args:
        image: RGB.  uint8 [H, W, 3]
        start: Mask of the rendered person; None = unknown.  bool [H, W]

    Returns:
        Mask of one connected part without holes; empty if `start` is.  bool [H, W]
    """
    reach, softness, scale = LOOSE if start is None else NEAR
    start = ellipse(image.shape[:2]) if start is None else start
    if not start.any() or start.all():
        return start.copy()
    size = float(np.sqrt(start.sum()))
    depth = depths(start)
    colours = ndimage.gaussian_filter(metrics.lab(image), (0.7, 0.7, 0)) / COLOUR
    place = np.stack(np.indices(start.shape), -1) / (scale * size)
    points = np.concatenate([colours, place], -1)
    near = max(reach * size, 1.0)
    band = (depth <= near) & (depth >= -2 * near)  # other pixels keep the initial mask
    inside, outside = (_distance_to_known(points, side, near, band) for side in (depth, -depth))
    score = depth / (softness * size)
    score[band] += np.clip(outside - inside, -MAX_EVIDENCE, MAX_EVIDENCE)
    found = ndimage.gaussian_filter(score, SMOOTH) > 0
    found = np.where(band, found, start)
    parts, count = ndimage.label(found)
    if count > 1:
        found = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return ndimage.binary_fill_holes(found)


def depths(mask: np.ndarray) -> np.ndarray:
    """Signed distance to the outline, positive inside, pixels.

    Args:
        mask: bool [H, W]

    Returns:
        Distance of absolute value >= 0.5.  float64 [H, W]
    """
    inside, outside = (ndimage.distance_transform_edt(side) for side in (mask, ~mask))
    return np.where(mask, inside - 0.5, 0.5 - outside)


def grown_to(mask: np.ndarray, area: int) -> np.ndarray:
    """Grow or shrink a mask evenly to a given area.

    Args:
        mask: bool [H, W]
        area: Number of pixels, reached approximately.

    Returns:
        bool [H, W]
    """
    depth = depths(mask)
    return depth >= np.sort(depth, axis=None)[-max(min(area, depth.size), 1)]


def ellipse(shape: tuple[int, int]) -> np.ndarray:
    """Mask, bool [H, W], of an ellipse in the middle: the prior for a person in a crop."""
    down, across = (
        (np.arange(side) + 0.5 - side / 2) / (half * side / 2)
        for side, half in zip(shape, HALF, strict=True)
    )
    return down[:, None] ** 2 + across[None] ** 2 < 1


def _distance_to_known(
    points: np.ndarray, depth: np.ndarray, reach: float, which: np.ndarray
) -> np.ndarray:
    """Mean distance, [N], of the selected pixels to the nearest pixels deeper than `reach`."""
    limit = np.sort(depth, axis=None)[-min(MIN_KNOWN, depth.size)]
    sure = depth >= min(reach, max(limit, 0.25))  # depths inside the mask are at least 0.5
    near, _ = cKDTree(points[sure]).query(points[which], min(NEIGHBOURS, int(sure.sum())))
    return near.reshape(int(which.sum()), -1).mean(1)
