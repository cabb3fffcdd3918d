# SPDX-License-Identifier: Apache-2.0
"""Measures of one predicted view against the true image.

Occluded pixels are ignored. The colour of a part is compared on the pixels that show this part in
the true image and the person in the predicted one. If less than a tenth of a part is covered, all
its pixels are compared, so that a missing part counts as an error. Seen and unseen pixels are those
of the rendering that lie on the true person; a repaired view is measured on the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from viewsynth import metrics
from viewsynth.evaluate.fidelity.baselines import bounding_box
from viewsynth.evaluate.fidelity.methods import GREY, Prediction
from viewsynth.world import LABELS
from viewsynth.world.truth import OCCLUDER, TrueImage

PARTS = {
    "head": ("face", "hair", "headwear"),
    "top": ("top",),
    "arms": ("arms",),
    "bottom": ("bottom",),
    "legs": ("legs",),
    "shoes": ("shoes",),
    "carried": ("carried",),
}
# What clothes, hair and bags add to a body.
COVERAGE = {
    "hair": ("hair", "headwear"),
    "top": ("top",),
    "bottom": ("bottom",),
    "carried": ("carried",),
}
BINS = ((25, 40), (40, 55), (55, 70), (70, 90.001))  # degrees of elevation
ANGLES = ((0, 30), (30, 60), (60, 90), (90, 180.001))  # degrees from the nearest crop
PHOTOS = ((0, 45), (45, 135), (135, 180.001))  # degrees between the front and the only photo
PHOTO_NAMES = ("front photo", "side photo", "back photo")
OTHER = "other"  # name of the bin for all other elevations
MIN_PIXELS = 8  # smallest number of pixels that is measured
COVERED = 0.1  # minimum share of a part that the prediction must cover
SEEN = 0.75  # threshold of the seen map: 1 = observed, 0.5 = from mirror symmetry


def bin_of(elevation: float) -> str:
    """Name of the elevation bin of a view, e.g. "25-40", or "other"."""
    for low, high in BINS:
        if low <= elevation < high:
            return f"{low}-{int(high)}"
    return OTHER


def angle_bin(angle: float) -> str:
    """Name of the bin of a view by its angle to the nearest crop, e.g. "0-30 off"."""
    low, high = next((low, high) for low, high in ANGLES if angle < high)
    return f"{low}-{int(high)} off"


def nearest_angle(azimuth: float, crops: Sequence[float]) -> float:
    """Smallest difference in azimuth to one of the crops, degrees in [0, 180].

    Args:
        azimuth: Of a view, degrees.
        crops: Azimuths of the crops, degrees.
    """
    return float(min(abs((azimuth - crop + 180) % 360 - 180) for crop in crops))


def photo_bin(azimuth: float) -> str:
    """Name of the bin of a view by its person's only photo, e.g. "side photo".

    Args:
        azimuth: Of the photo, degrees.
    """
    away = abs((azimuth + 180) % 360 - 180)
    return next(name for name, (_, high) in zip(PHOTO_NAMES, PHOTOS, strict=True) if away < high)


def compare(
    true: TrueImage, predicted: Prediction, base: Prediction | None = None
) -> dict[str, float]:
    """Measure one predicted view.

    Args:
        true: True image of the drone.
        predicted: View of a method.
        base: Rendering that defines the seen pixels; None = `predicted` itself.

    Returns:
        iou: IoU of the masks.
        psnr, ssim: inside the person's box, both on mid-grey; PSNR in decibels.
        de: mean colour error of the parts, weighted by their true size; CIEDE2000.
        de_tone: the same after the best gain of each channel, which removes differences in
            exposure and white balance.
        de_pixel: mean colour error over the pixels of the person in both images.
        de_<part>: error of a part's mean colour; dp_<part>: mean error over its pixels.
        psnr_seen, ssim_seen, de_seen: over the pixels with observed texture; psnr_unseen,
            ssim_unseen, de_unseen: over the other pixels of the body.
        seen: share of observed pixels in the rendering.
        missing: share of the true person that the prediction does not cover.
        covered_<part>: share of the pixels of hair, top, bottom or carried things that it covers.
        height_error: error of the body size, per cent of the true size, signed.
    """
    valid = true.labels != OCCLUDER
    mask = predicted.mask & valid
    both = mask & true.mask
    true_lab, lab = (metrics.lab(image) for image in (true.image, predicted.image))
    error = metrics.delta_e(true_lab, lab)
    row = {"iou": metrics.iou(mask, true.mask), **_similarity(true, predicted, valid)}
    row["missing"] = float((true.mask & ~mask).sum() / max(true.mask.sum(), 1))
    for name, labels in COVERAGE.items():
        part = np.isin(true.labels, [LABELS.index(label) for label in labels])
        if part.sum() >= MIN_PIXELS:
            row[f"covered_{name}"] = float((part & mask).sum() / part.sum())
    row |= _by_part(true, predicted, both, true_lab, lab, error)
    if both.any():
        row["de_pixel"] = float(error[both].mean())
    row |= _by_observation(true, predicted, base or predicted, valid)
    if predicted.height_error is not None:
        row["height_error"] = predicted.height_error
    return row


def _by_observation(
    true: TrueImage, predicted: Prediction, base: Prediction, valid: np.ndarray
) -> dict[str, float]:
    """Measures of the pixels whose texture was observed in a photo, and of the others.

    The mask of the predicted view is not needed: these pixels belong to the person.
    """
    mask = base.mask & valid
    shared = mask & true.mask
    if base.seen is None or not shared.any():
        return {}
    observed = base.seen >= SEEN
    row = {"seen": float(observed[mask].mean())}
    image = predicted.image if predicted is base else predicted.whole
    images = [np.where(shared[..., None], one, np.uint8(GREY)) for one in (true.image, image)]
    error = metrics.delta_e(*(metrics.lab(one) for one in images))
    reach = metrics.WINDOW // 2
    padded = [
        np.pad(one, ((reach,) * 2, (reach,) * 2, (0, 0)), constant_values=GREY) for one in images
    ]
    ssim = metrics.ssim_map(*padded)
    for name, where in (("seen", shared & observed), ("unseen", shared & ~observed)):
        if where.sum() >= MIN_PIXELS:
            row[f"psnr_{name}"] = metrics.psnr(*(one[where] for one in images))
            row[f"ssim_{name}"] = float(ssim[where].mean())
            row[f"de_{name}"] = float(error[where].mean())
    return row


def _similarity(true: TrueImage, predicted: Prediction, valid: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM on mid-grey inside the true person's box."""
    reach = metrics.WINDOW // 2  # grey margin, so that every pixel of the box has a full window
    left, top, right, bottom = bounding_box(true.mask)
    images = []
    for image, mask in ((true.image, true.mask), (predicted.image, predicted.mask & valid)):
        cut = np.where(mask[..., None], image, GREY)[top:bottom, left:right].astype(np.uint8)
        images.append(np.pad(cut, ((reach,) * 2, (reach,) * 2, (0, 0)), constant_values=GREY))
    inner = [image[reach:-reach, reach:-reach] for image in images]
    return {"psnr": metrics.psnr(*inner), "ssim": metrics.ssim(*images)}


def _by_part(
    true: TrueImage, predicted: Prediction, both, true_lab, lab, error
) -> dict[str, float]:
    """Colour errors of the body parts, and their weighted means."""
    row, sizes, tones = {}, {}, []
    for name, labels in PARTS.items():
        whole = np.isin(true.labels, [LABELS.index(label) for label in labels])
        if whole.sum() < MIN_PIXELS:
            continue
        shared = whole & both
        if shared.sum() < max(COVERED * whole.sum(), MIN_PIXELS / 2):
            shared = whole
        sizes[name] = int(whole.sum())
        row[f"de_{name}"] = float(metrics.delta_e(true_lab[shared].mean(0), lab[shared].mean(0)))
        row[f"dp_{name}"] = float(error[shared].mean())
        tones.append((true.image[shared].mean(0), predicted.image[shared].mean(0), sizes[name]))
    if sizes:
        weight = np.array(list(sizes.values()), np.float64)
        row["de"] = float(np.average([row[f"de_{name}"] for name in sizes], weights=weight))
        a, b, _ = (np.stack([np.atleast_1d(tone[k]) for tone in tones]) for k in range(3))
        gain = (weight[:, None] * a * b).sum(0) / np.maximum((weight[:, None] * b * b).sum(0), 1)
        toned = np.clip(b * np.clip(gain, 0.4, 2.5), 0, 255)
        errors = metrics.delta_e(metrics.lab(a), metrics.lab(toned))
        row["de_tone"] = float(np.average(errors, weights=weight))
    return row
