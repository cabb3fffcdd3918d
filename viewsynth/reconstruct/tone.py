# SPDX-License-Identifier: Apache-2.0
"""Tone: bring the crops of one person to one light.

Source: ours. Cameras differ in exposure by up to a factor of two, in haze and in white balance. All
of it acts on linear light, so it is undone there. Haze is estimated from the darkest light of the
whole crop (dark channel prior, He et al., CVPR 2009, one value a crop) and taken out in part, since
it is not certain; so is white balance, from the mean colour (grey world). Exposure is taken out as
far as the completion network knows it. Then each crop gets gains that make the parts which several
crops show agree in the median over parts, so that a bag or a clipped shirt does not decide. What
still differs within a part is removed, unless front and back really differ; the crop that is
exposed best and clips least there has the most say.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from viewsynth.metrics.colours import linear, srgb
from viewsynth.reconstruct.texture import GROUPS, Atlas, Paint

HAZE = 0.6  # share of the darkest light (0.5 %) that is taken away
GREY_WORLD = 0.25  # exponent with which the mean colour of a crop is removed
COLOUR = 0.2  # how far gains differ between channels, 1 = freely
UNLIKE = 0.8  # difference within a part, natural logarithm, from which it is a real one
DARK = 0.01  # linear light that is added before logarithms
CLIPPED = (232, 252)  # grey levels over which the say of a clipped part falls to `CLIPPED_SAY`
CLIPPED_SAY = 0.35
SURE = 0.15  # weight of a texel from which its colour counts
OVER = 4.0  # exponent of the share of pixels that are not overexposed, in how good an exposure is
SHIRT = [GROUPS.index("torso"), GROUPS.index("upper_arm")]
LEAST = 60  # texels of a part that a crop must show


@dataclass(frozen=True)
class Tone:
    """The change of one crop's colours.

    Args:
        black: Linear light that is taken away.  [3]
        gains: Factors of the rest, for every part, see `Atlas.part`.  [P, 3]
    """

    black: np.ndarray
    gains: np.ndarray

    def __call__(self, colour: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Colours in the common tone.

        Args:
            colour: RGB in [0, 255].  [N, 3]
            part: Part of the body that each shows.  [N]

        Returns:
            float32 [N, 3].
        """
        light = np.maximum(linear(colour) - self.black, 0) * self.gains[part]
        return srgb(light).astype(np.float32)


def tones(
    paints: Sequence[Paint],
    images: Sequence[np.ndarray],
    atlas: Atlas,
    trust: Sequence[float],
    exposures: Sequence[float],
) -> list[Tone]:
    """Find what brings the crops of one person to one tone.

    Args:
        paints: Of each crop.
        images: The whole crops.  uint8 [H, W, 3] each
        atlas: The texels.
        trust: In each crop, on any scale.
        exposures: Exposure of each crop, stops; 0 = that of a typical crop, or not known.

    Returns:
        The change of each crop.
    """
    cameras = [_camera(*one) for one in zip(images, exposures, strict=True)]
    blacks, gains = zip(*cameras, strict=True)
    count = int(atlas.part.max()) + 1
    found = [
        _medians(paint, Tone(black, np.tile(gain, (count, 1))), atlas, count)
        for paint, black, gain in zip(paints, blacks, gains, strict=True)
    ]
    medians, clear = (np.stack(each) for each in zip(*found, strict=True))
    exposed = [
        _contrast(paint) * weight * _unclipped(image) ** OVER
        for paint, weight, image in zip(paints, trust, images, strict=True)
    ]
    between = _between_crops(medians, exposed)[:, None]
    logs = medians + between
    shown = np.isfinite(logs)
    share = np.where(shown, (np.asarray(exposed)[:, None] * clear)[..., None], 0)
    middle = np.nansum(share * logs, 0) / np.maximum(share.sum(0), 1e-9)
    apart = np.where(shown, middle - logs, 0)
    alike = np.clip(2 - 2 * np.abs(apart).max((0, 2)) / UNLIKE, 0, 1)
    alike[SHIRT] = alike[SHIRT].min()  # a sleeve has the tone of its shirt
    alike[-1] = 1.0  # hair looks alike from all sides
    change = between + alike[:, None] * apart
    return [
        Tone(black, gain * np.exp(one))
        for black, gain, one in zip(blacks, gains, change, strict=True)
    ]


def _camera(image: np.ndarray, exposure: float) -> tuple[np.ndarray, np.ndarray]:
    """Haze and light of a crop: what is taken away [3], and factors of the rest [3]."""
    light = linear(image.reshape(-1, 3))
    black = HAZE * np.percentile(light, 0.5, axis=0)
    mean = np.maximum(light - black, 0).mean(0) + 1e-3
    return black, (mean / mean.mean()) ** -GREY_WORLD * 2.0**-exposure


def _medians(paint: Paint, tone: Tone, atlas: Atlas, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the median light of each part [P, 3], NaN = not shown; how unclipped [P]."""
    (low, high), parts = CLIPPED, atlas.part
    found, clear = np.full((count, 3), np.nan), np.zeros(count)
    for part in range(count):
        mine = (paint.weight > SURE) & (parts == part)
        if mine.sum() > LEAST:
            median = np.median(paint.colour[mine], axis=0, keepdims=True)
            light = np.maximum(linear(median) - tone.black, 0) * tone.gains[part]
            found[part] = np.log(light[0] + DARK)
            clear[part] = np.clip((high - median.max()) / (high - low), CLIPPED_SAY, 1)
    return found, clear


def _contrast(paint: Paint) -> float:
    """How well exposed a crop is: the range of its person's brightness, grey levels."""
    sure = paint.weight > 0.1
    light = paint.colour[sure].mean(1) if sure.any() else np.zeros(1)
    return float(np.subtract(*np.percentile(light, [92, 8]))) + 1


def _unclipped(image: np.ndarray) -> float:
    """Share of a crop's pixels that are not overexposed."""
    return float((image.max(2) < CLIPPED[1]).mean()) + 0.01


def _between_crops(medians: Sequence[np.ndarray], contrast: Sequence[float]) -> np.ndarray:
    """Logarithms of the gains that make the crops agree, [K, 3].

    Least squares over all pairs, with a weak prior on no change. Their mean, weighted by how well
    each crop is exposed, is 0: the tone lies between those of the crops, nearer to the best.
    """
    count = len(medians)
    share = np.asarray(contrast) / np.sum(contrast)
    rows, values = [30 * share, *(0.5 * np.eye(count))], [np.zeros(3)] * (count + 1)
    for i, j in itertools.combinations(range(count), 2):
        both = np.isfinite(medians[i] + medians[j]).all(1)
        if both.any():
            weight = np.sqrt(both.sum())
            rows.append(weight * (np.eye(count)[j] - np.eye(count)[i]))
            values.append(weight * np.median(medians[i][both] - medians[j][both], axis=0))
    gains = np.linalg.lstsq(np.stack(rows), np.stack(values), rcond=None)[0]
    grey = gains.mean(1, keepdims=True)
    return grey + COLOUR * (gains - grey)
