# SPDX-License-Identifier: Apache-2.0
"""Takes the light of a photo out of its colours, as far as the photo shows it.

A lit person is brighter where the surface faces the light. Within each part of the body, the
logarithm of the light is regressed on the normals of the fitted body; what all parts agree on is
the light of the photo, what they do not agree on are clothes. The sun of a virtual camera then
does not shine on a shirt that the sun of the photo already lit from the other side.

Source: ours, after the first-order spherical harmonics of Ramamoorthi and Hanrahan (SIGGRAPH 2001).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from viewsynth.metrics.colours import linear, srgb

LUMA = (0.2126, 0.7152, 0.0722)  # of linear light
DARK = 0.01  # linear light that is added before logarithms
LEAST = 80  # pixels of a part that tell about the light
MOST = 0.5  # largest coefficient, natural logarithm
SMOOTH = 1.0  # pixels: normals beyond the outline are those of the nearest pixel
TURN = 0.15  # standard deviation of a part's normals below which it tells nothing of a direction


def removed(image: np.ndarray, normal: np.ndarray, part: np.ndarray) -> np.ndarray:
    """A crop without the shading that its light gives to the person.

    Args:
        image: The crop.  uint8 [H, W, 3]
        normal: Normals of the fitted body in the frame of the camera, extended beyond its outline.
            [H, W, 3]
        part: Part of the body at each pixel, -1 = beside the person.  int [H, W]

    Returns:
        uint8 [H, W, 3]; the mean brightness of the person is kept.
    """
    person = part >= 0
    if not person.any():
        return image
    direction = estimate(image, normal, part)
    shade = ndimage.gaussian_filter(normal @ direction, SMOOTH)
    factor = np.exp(shade[person].mean() - shade)
    return srgb(linear(image) * factor[..., None]).round().astype(np.uint8)


def estimate(image: np.ndarray, normal: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Direction of the light times its strength, natural logarithm of the light per unit normal.

    Args:
        image: See `removed`.
        normal: See `removed`.
        part: See `removed`.

    Returns:
        Shrunk by how little the parts agree, 0 = cannot be told.  [3]
    """
    light = np.log(linear(image) @ np.array(LUMA) + DARK)
    slopes, weights = [], []
    for number in range(part.max() + 1):
        mine = part == number
        if mine.sum() < LEAST:
            continue
        n, y = normal[mine], light[mine]
        n, y = n - n.mean(0), y - np.median(y)
        y = np.clip(y, *np.percentile(y, [10, 90]))
        spread = n.T @ n / len(n)
        slopes.append(np.linalg.solve(spread + TURN**2 * np.eye(3), n.T @ y / len(n)))
        weights.append(np.sqrt(len(n)) * np.diag(spread) / (np.diag(spread) + TURN**2))
    if len(slopes) < 3:
        return np.zeros(3)
    slopes, weights = np.stack(slopes), np.stack(weights)
    share = weights / weights.sum(0)
    middle = (share * slopes).sum(0)
    error = (share**2 * (slopes - middle) ** 2).sum(0) * len(slopes) / (len(slopes) - 1)
    certain = np.clip(1 - error / np.maximum(middle**2, 1e-12), 0, 1)
    return np.clip(certain * middle, -MOST, MOST)
