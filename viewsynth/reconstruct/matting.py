# SPDX-License-Identifier: Apache-2.0
"""Refine the person mask of a crop, and free the colours of its rim from the background.

The pose model's mask has 256x256 pixels for a square around the person: it is soft, its edge does
not follow the image, and it loses bags, hair and shoes. Here the probability of every pixel is
estimated anew from features (`FEATURES`): the model's probability, the distance to the skeleton,
how much more often the pixel's colour occurs nearby in the person than in the background, its
place between the mean colours on both sides of the edge, and the probability after edge-aware
smoothing. A logistic regression combines them; its result gives better colour models, so this is
done `STAGES` times. A last edge-aware filter and a ramp one pixel wide give the alpha.

Sources: local colour models, Bai et al., Video SnapCut, SIGGRAPH 2009, here as joint histograms of
place and colour; guided filter, He et al., PAMI 2013; a cascade of classifiers that see the last
one's result, Tu, Auto-context, CVPR 2008. `benchmarks/masks.py --fit-to` fits the coefficients on
people of seeds 1 and 2 of the world and reports results on those of seed 0.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array

from viewsynth.bodies import KEYPOINTS

if TYPE_CHECKING:
    from viewsynth.reconstruct.parse import Parse

COEFFICIENTS = Path(__file__).with_name("matting.json")
FEATURES = (
    *("prior", "skeleton", "colour", "colour at the head", "feet", "colour at the feet"),
    *("between narrow", "between wide", "smooth", "contrast"),
)
STAGES = 2
SURE = 0.002  # probabilities are kept this far from 0 and 1
REACH = 0.15  # how far from the prior mask the person may extend, person heights
FREE, DOUBT = 0.02, 150.0  # heights from prior and skeleton, logits per height beyond them
STEP, ALIKE = 14.0, 9.0  # of the colours of a palette; difference of colours that are alike
FAINT = 1e-3  # likeness of two colours that counts as none
AROUND = 0.25  # sigma of the colour models, person heights
NARROW, WIDE = 0.012, 0.03  # sigma of the mean colours on both sides of the edge, person heights
EDGE = 1e-3  # variance of colours in [0, 1] that the guided filter takes for an edge
HEAD, FOOT = (0.09, 0.13), (0.02, 0.06)  # heights from ears or feet where the part surely is, ends
LEAST = 20.0  # pixels, of a person that can be refined
BLUR, RIM = 0.7, 1.5  # sigma of an image's edges, and of the window of rim colours; pixels
PIECE = 0.02  # smallest share of the person's area of a separate piece that is kept
# (from, to, radius in person heights) of the capsules around the limbs
LIMBS = (
    *(("shoulder", "elbow", 0.035), ("elbow", "wrist", 0.028), ("hip", "knee", 0.05)),
    *(("knee", "ankle", 0.038), ("heel", "big_toe", 0.025), ("shoulder", "hip", 0.05)),
)


def refine(image: np.ndarray, found: Parse) -> np.ndarray:
    """The mask of the person at the crop's own resolution.

    Args:
        image: RGB crop.  uint8 [H, W, 3]
        found: Its parse; `soft` is the prior.

    Returns:
        Alpha in [0, 1] with an edge one pixel wide; the prior where there is too little to go by.
        float32 [H, W]
    """
    prior = np.clip(np.nan_to_num(found.soft.astype(np.float32)), 0, 1)
    window = window_of(prior, found.height)
    if window is None:
        return prior
    crop = Crop(image, found, window)
    share = crop.prior
    for weights in coefficients():
        share = crop.classify(crop.features(share), weights)
    out = np.zeros_like(prior)
    out[window] = _pieces(_crisp(crop.guided(share, crop.radius(NARROW))), crop.prior)
    return out


def window_of(prior: np.ndarray, height: float) -> tuple[slice, slice] | None:
    """Rows and columns that the person may reach; None if there is no person to refine.

    Args:
        prior: Person probability.  float32 [H, W]
        height: Of the person, pixels.
    """
    rows, columns = np.nonzero(prior > 0.5)
    if len(rows) < LEAST or not np.isfinite(height) or len(rows) > 0.98 * prior.size:
        return None
    pad = int(np.ceil(REACH * _height(height, prior.shape))) + 2
    return (
        slice(max(rows.min() - pad, 0), rows.max() + 1 + pad),
        slice(max(columns.min() - pad, 0), columns.max() + 1 + pad),
    )


def _height(height: float, shape: tuple[int, int]) -> float:
    return float(np.clip(height, LEAST, 2 * max(shape)))


@functools.cache
def coefficients() -> np.ndarray:
    """Weights of `FEATURES` in every stage, float32 [STAGES, 10]."""
    with COEFFICIENTS.open(encoding="utf-8") as file:
        stored = json.load(file)
    if tuple(stored["features"]) != FEATURES or len(stored["weights"]) != STAGES:
        raise ValueError(
            f"{COEFFICIENTS} has the features {stored['features']}, expected {FEATURES}; fit it "
            "again with benchmarks/masks.py --fit-to"
        )
    return np.asarray(stored["weights"], np.float32)


class Crop:
    """What the stages of the refinement share for one crop.

    Args:
        image: The whole crop.  uint8 [H, W, 3]
        found: Its parse.
        window: The part that is examined, see `window_of`.
    """

    def __init__(self, image: np.ndarray, found: Parse, window: tuple[slice, slice]):
        image = image[window]
        self.image = np.moveaxis(image, -1, 0).astype(np.float32) / 255
        self.prior = np.clip(np.nan_to_num(found.soft[window].astype(np.float32)), 0, 1)
        self.height, prior = _height(found.height, found.soft.shape), self.prior
        corner = (window[1].start, window[0].start)
        points = np.nan_to_num(found.points.astype(np.float64)) - corner
        self.skeleton = _skeleton(points, prior.shape, self.height)
        ears, feet = (
            points[[name.endswith(ends) for name in KEYPOINTS]]
            for ends in ("ear", ("big_toe", "heel"))
        )
        self.head = _around(ears.mean(0, keepdims=True), prior.shape, self.height, HEAD)
        self.feet = _around(feet, prior.shape, self.height, FOOT)
        outside = ndimage.distance_transform_edt(prior <= 0.5) / self.height
        # Beyond `FREE` the person ends somewhere, however alike the colours are.
        away = np.maximum(np.minimum(outside, self.skeleton) - FREE, 0)
        self.rejected = (DOUBT * away).astype(np.float32)
        self.open = (outside < REACH) | (self.skeleton < 0.03)
        self.palette = _Palette(image, max(2, round(self.height / 20)))
        self._moments = {}

    def radius(self, sigma: float) -> int:
        """Radius in pixels of a box filter like a Gaussian of `sigma` person heights."""
        return max(2, round(1.7 * sigma * self.height))

    def features(self, share: np.ndarray) -> np.ndarray:
        """`FEATURES` of all pixels, float32 [10, H, W].

        Args:
            share: Person probability so far.  float32 [H, W]
        """
        person, other = (
            np.where(share > 0.5, share, 0) ** 2,
            np.where(share < 0.5, 1 - share, 0) ** 2,
        )
        sigma = AROUND * self.height
        ours, theirs = (self.palette.frequency(weight, sigma) for weight in (person, other))
        colour = ours - theirs
        narrow, _ = self._between(share, self.radius(NARROW))
        wide, contrast = self._between(share, self.radius(WIDE))
        return np.stack(
            [
                _logit(self.prior),
                20 * np.clip(self.skeleton, -0.04, 0.12),
                colour,
                self.head * np.minimum(colour, 0),  # dark hair before dark trees
                self.feet,
                self.feet * colour,
                narrow,
                wide,
                _logit(self.guided(share, self.radius(WIDE))),
                contrast,  # a bias only where the colours say something
            ]
        )

    def classify(self, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Person probability by the regression, 0 where the person cannot be."""
        score = np.tensordot(weights, features, 1) - self.rejected
        return np.where(self.open, 1 / (1 + np.exp(-np.clip(score, -30, 30))), 0).astype(np.float32)

    def _between(self, share: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """Place of the colour between the local means of background and person, and their contrast.

        The place is about -2 to 2, and near 0 where one of the two is not near, where both look
        alike, or where the colour is off the line between them. The contrast is 0 to 1.
        """
        person, other = np.clip(2 * share - 1, 0, 1) ** 2, np.clip(1 - 2 * share, 0, 1) ** 2
        mean = _box(
            np.concatenate([self.image * person, self.image * other, [person, other]]), radius
        )
        ours, theirs = mean[:3] / (mean[6] + 1e-4), mean[3:6] / (mean[7] + 1e-4)
        step = ours - theirs
        apart = (step**2).sum(0)
        place = np.clip(((self.image - theirs) * step).sum(0) / (apart + 5e-4), -0.3, 1.3)
        off = ((self.image - theirs - np.clip(place, 0, 1) * step) ** 2).sum(0)
        both = np.clip(np.minimum(mean[6], mean[7]) / 0.02, 0, 1)
        trust = apart / (apart + 2 * off + 3e-3)
        return 4 * (place - 0.5) * trust * both, apart / (apart + 3e-3) * both

    def guided(self, share: np.ndarray, radius: int) -> np.ndarray:
        """Guided filter with the colour image as the guide.

        Args:
            share: What is smoothed.  float32 [H, W]
            radius: Of the box, pixels.
        """
        if radius not in self._moments:
            pairs = [self.image[i] * self.image[j] for i in range(3) for j in range(i, 3)]
            means = _box(np.concatenate([self.image, pairs]), radius)
            self._moments[radius] = means[:3], _inverse(means)
        mean, inverse = self._moments[radius]
        both = _box(np.concatenate([self.image * share, [share]]), radius)
        slope = np.einsum("ijhw,jhw->ihw", inverse, both[:3] - mean * both[3])
        offset = both[3] - (slope * mean).sum(0)
        line = _box(np.concatenate([slope, [offset]]), radius)
        return np.clip((line[:3] * self.image).sum(0) + line[3], 0, 1)


def _inverse(means: np.ndarray) -> np.ndarray:
    """Inverse of the regularised covariance of colours, [3, 3, H, W], by cofactors."""
    r, g, b, rr, rg, rb, gg, gb, bb = means
    rr, gg, bb = rr - r * r + EDGE, gg - g * g + EDGE, bb - b * b + EDGE
    rg, rb, gb = rg - r * g, rb - r * b, gb - g * b
    a, d, f = gg * bb - gb * gb, rr * bb - rb * rb, rr * gg - rg * rg
    c, e, h = rb * gb - rg * bb, rg * gb - rb * gg, rg * rb - rr * gb
    return np.stack([a, c, e, c, d, h, e, h, f]).reshape(3, 3, *r.shape) / (
        rr * a + rg * c + rb * e
    )


def _box(values: np.ndarray, radius: int) -> np.ndarray:
    """Mean over a square, of every channel of [C, H, W]."""
    size = 2 * radius + 1
    return ndimage.uniform_filter(values, (0, size, size), mode="nearest")


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, SURE, 1 - SURE)
    return np.log(share / (1 - share))


class _Palette:
    """The crop in few colours, to count them by place.

    Args:
        image: uint8 [H, W, 3].
        cell: Side of the cells of the counts, pixels.
    """

    def __init__(self, image: np.ndarray, cell: int):
        tones = _tones(ndimage.gaussian_filter(image.astype(np.float32), (0.7, 0.7, 0)))
        bins = np.round(tones / STEP).astype(np.int64) @ (1 << 20, 1 << 10, 1)
        index, counts = np.unique(bins, return_inverse=True, return_counts=True)[1:]
        index = index.reshape(bins.shape)
        sums = [np.bincount(index.ravel(), tone.ravel()) for tone in np.moveaxis(tones, -1, 0)]
        colours = (np.stack(sums, 1) / counts[:, None]).astype(np.float32)
        apart = ((colours[:, None] - colours[None]) ** 2).sum(-1)
        alike = np.exp(-apart / (2 * ALIKE**2))
        self.alike = csr_array(np.where(alike > FAINT, alike, 0))
        rows, columns = np.indices(index.shape)
        self.cell, self.shape = cell, tuple(-(-side // cell) for side in index.shape)
        self.cells = rows // cell * self.shape[1] + columns // cell
        self.keys = index * (self.shape[0] * self.shape[1]) + self.cells
        places = ((rows + 0.5) / cell - 0.5, (columns + 0.5) / cell - 0.5)
        self.places = np.stack([index, *places]).astype(np.float32)

    def frequency(self, weight: np.ndarray, sigma: float) -> np.ndarray:
        """Log frequency of every pixel's colour among the pixels near it, float32 [H, W].

        Args:
            weight: Of the pixels that are counted.  float32 [H, W]
            sigma: Of "near", pixels.
        """
        count, area = self.alike.shape[0], self.shape[0] * self.shape[1]
        table = np.bincount(self.keys.ravel(), weight.ravel(), count * area).astype(np.float32)
        table = (self.alike @ table.reshape(count, area)).reshape(count, *self.shape)
        total = np.bincount(self.cells.ravel(), weight.ravel(), area).reshape(1, *self.shape)
        spread = (0, sigma / self.cell, sigma / self.cell)
        every = np.concatenate([table, total.astype(np.float32)])
        every = ndimage.gaussian_filter(every, spread, mode="constant", truncate=2)
        ratio = every[:-1] / (every[-1:] + 1e-3)
        return np.log(0.01 + ndimage.map_coordinates(ratio, self.places, order=1, mode="nearest"))


def _tones(image: np.ndarray) -> np.ndarray:
    """Lightness and two colour differences, about 0 to 255; [H, W, 3]."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return np.stack(
        [
            (red + 2 * green + blue) / 4,
            128 + (red - green),
            128 + 0.8 * ((red + green) / 2 - blue),
        ],
        -1,
    )


def _skeleton(points: np.ndarray, shape: tuple[int, int], height: float) -> np.ndarray:
    """Signed distance to capsules around limbs, trunk and head, person heights; [H, W]."""
    at = {name: points[k] for k, name in enumerate(KEYPOINTS)}
    ears, shoulders = ((at[f"left_{n}"] + at[f"right_{n}"]) / 2 for n in ("ear", "shoulder"))
    lines = [(ears - 0.25 * (ears - shoulders), ears + 0.2 * (ears - shoulders), 0.055)]
    lines.append((at["left_shoulder"], at["right_hip"], 0.05))
    for start, end, radius in LIMBS:
        for side in ("left", "right"):
            a, b = at[f"{side}_{start}"], at[f"{side}_{end}"]
            lines.append((a, b + 0.35 * (b - a) if end == "wrist" else b, radius))
    place = np.indices(shape, np.float32)[::-1] + 0.5
    nearest = np.full(shape, np.inf, np.float32)
    for a, b, radius in lines:
        offset, line = place - a.astype(np.float32)[:, None, None], (b - a).astype(np.float32)
        along = np.tensordot(line, offset, 1) / max(float(line @ line), 1e-6)
        offset -= np.clip(along, 0, 1) * line[:, None, None]
        np.minimum(nearest, np.sqrt((offset**2).sum(0)) - radius * height, out=nearest)
    return nearest / height


def _around(points: np.ndarray, shape: tuple[int, int], height: float, reach) -> np.ndarray:
    """1 near points, 0 far away, a ramp between the two distances of `reach`; float32 [H, W]."""
    rows, columns = (np.arange(side, dtype=np.float32) + 0.5 for side in shape)
    away = [np.hypot(columns - x, (rows - y)[:, None]) for x, y in points.astype(np.float32)]
    near, far = (height * value for value in reach)
    return np.clip((far - np.min(away, axis=0)) / (far - near), 0, 1)


def _crisp(share: np.ndarray) -> np.ndarray:
    """The share with a ramp one pixel wide at its level 0.5."""
    slope = np.hypot(*np.gradient(share)) if min(share.shape) > 1 else 0.0
    return np.clip(0.5 + (share - 0.5) / np.maximum(slope, 0.1), 0, 1).astype(np.float32)


def _pieces(alpha: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The alpha without pieces that are small or lie where the prior saw no person."""
    labels, count = ndimage.label(alpha > 0.25, np.ones((3, 3)))
    if count == 0:
        return prior
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    mass = np.bincount(labels.ravel(), (alpha * (prior > 0.5)).ravel(), count + 1)
    mass[0] = areas[0] = 0
    good = (mass > PIECE * mass.max()) & (mass > 0.4 * areas)
    good[mass.argmax()] = True
    good[0] = False
    near = ndimage.binary_dilation(good[labels]) & ((labels == 0) | good[labels])
    return alpha * near


def foreground_colours(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours of the person, without the background's share at the rim, and continued outside it.

    Source: blur fusion, Forte, Approximate Fast Foreground Colour Estimation, ICIP 2021, in one
    pass with a small window. The alpha is softened first, because the edges of real images are
    wider than one pixel; and at the rim the difference along the line between both sides' colours
    is left out, because it tells how wrong alpha is, not the colour. Outside, every pixel gets the
    colour of the nearest pixel of the person.

    Args:
        image: RGB.  uint8 [H, W, 3]
        alpha: Share of the person in every pixel, [0, 1].  float32 [H, W]

    Returns:
        float32 [H, W, 3], 0 to 255.
    """
    values = np.moveaxis(image, -1, 0).astype(np.float32)
    alpha = np.clip(np.nan_to_num(alpha.astype(np.float32)), 0, 1)
    soft = np.minimum(ndimage.gaussian_filter(alpha, BLUR, mode="nearest"), alpha)
    if soft.max() < 0.5:
        return np.ascontiguousarray(image, np.float32)
    ours, theirs = soft**4, (1 - soft) ** 4  # the purest pixels tell the colours of both sides
    sums = np.concatenate([values * ours, values * theirs, [ours, theirs]])
    sums = ndimage.gaussian_filter(sums, (0, RIM, RIM), mode="nearest", truncate=3)
    person, other = sums[:3] / (sums[6] + 1e-6), sums[3:6] / (sums[7] + 1e-6)
    share = np.where(sums[7] > 1e-3, soft, 1)
    apart, step = values - share * person - (1 - share) * other, person - other
    along = (apart * step).sum(0) / ((step**2).sum(0) + 1) * step
    out = person + share * (apart - (1 - share**8) * along)
    nearest = ndimage.distance_transform_edt(
        soft < 0.5, return_distances=False, return_indices=True
    )
    return np.moveaxis(np.clip(out, 0, 255)[:, nearest[0], nearest[1]], 0, -1)
