# SPDX-License-Identifier: Apache-2.0
"""Measures: one method's picture against the true one -> one row of figures.

Where something stands before the person nothing is measured. The colour of a part is compared on
the pixels that are that part in truth and the person in the method's picture. Where the method
covers less than a tenth of a part, what it shows there counts, mostly the grey around it: a part
that is not there cannot be right. Seen and unseen pixels are those of the rendering, where it shows
the person and the person truly is: the same ones for a rendering and for what was made of it.
"""

from __future__ import annotations

import numpy as np

from viewsynth import metrics
from viewsynth.evaluate.fidelity.baselines import bounds
from viewsynth.evaluate.fidelity.methods import GREY, Made
from viewsynth.world import LABELS
from viewsynth.world.truth import OCCLUDER, Picture

PARTS = {
    "head": ("face", "hair", "headwear"),
    "top": ("top",),
    "arms": ("arms",),
    "bottom": ("bottom",),
    "legs": ("legs",),
    "shoes": ("shoes",),
    "carried": ("carried",),
}
BINS = ((25, 40), (40, 55), (55, 70), (70, 90.001))  # degrees of elevation
OTHER = "other"  # outside all of them
LEAST, COVERED = 8, 0.1  # pixels of a part that are worth a figure; share that is covered
SEEN = 0.75  # a pixel whose seen value is at least this was seen: 1 is, 0.5 is a mirror image


def bin_of(elevation: float) -> str:
    """The elevation bin of a view, e.g. "25-40"; "other" outside all."""
    for low, high in BINS:
        if low <= elevation < high:
            return f"{low}-{int(high)}"
    return OTHER


def compare(true: Picture, made: Made, base: Made | None = None) -> dict[str, float]:
    """Figures of one picture.

    Args:
        base: The rendering whose seen pixels count; None = the picture is one itself.

    Returns:
        iou: of the outlines.
        psnr, ssim: in the person's box, both on mid-grey; decibels and at most 1.
        de: mean of the parts' colour errors, weighted by the parts' true size; CIEDE2000.
        de_tone: the same after the best gain a channel, so without what exposure and white
            balance of the drone do.
        de_pixel: mean colour error over the pixels that both have.
        de_<part>: colour error of a part's mean colour; dp_<part>: mean over its pixels.
        psnr_seen, ssim_seen, de_seen: over the pixels where the texture was seen; psnr_unseen,
            ssim_unseen, de_unseen: elsewhere on the body.
        seen: share of the rendering's pixels that was seen.
        missing: share of the true person that the method leaves bare.
        height_error: per cent of the true size, signed.
    """
    valid = true.labels != OCCLUDER
    mine, theirs = made.mask & valid, true.mask
    both = mine & theirs
    truth, own = (metrics.lab(image) for image in (true.image, made.image))
    apart = metrics.delta_e(truth, own)
    row = {"iou": metrics.iou(mine, theirs), **_similar(true, made, valid)}
    row["missing"] = float((theirs & ~mine).sum() / max(theirs.sum(), 1))
    row |= _by_part(true, made, both, truth, own, apart)
    if both.any():
        row["de_pixel"] = float(apart[both].mean())
    row |= _split(true, made, base or made, valid)
    if made.height_error is not None:
        row["height_error"] = made.height_error
    return row


def _split(true: Picture, made: Made, base: Made, valid: np.ndarray) -> dict[str, float]:
    """Figures of the pixels that the rendering had from a photo, and of the others.

    No outline of the made picture is needed: these pixels are the person's.
    """
    mine = base.mask & valid
    shared = mine & true.mask
    if base.seen is None or not shared.any():
        return {}
    known = base.seen >= SEEN
    row = {"seen": float(known[mine].mean())}
    picture = made.image if made is base else made.whole
    images = [np.where(shared[..., None], image, np.uint8(GREY)) for image in (true.image, picture)]
    apart = metrics.delta_e(*(metrics.lab(image) for image in images))
    reach = metrics.WINDOW // 2
    around = [
        np.pad(image, ((reach,) * 2, (reach,) * 2, (0, 0)), constant_values=GREY)
        for image in images
    ]
    alike = metrics.ssim_map(*around)
    for name, where in (("seen", shared & known), ("unseen", shared & ~known)):
        if where.sum() >= LEAST:
            row[f"psnr_{name}"] = metrics.psnr(*(image[where] for image in images))
            row[f"ssim_{name}"] = float(alike[where].mean())
            row[f"de_{name}"] = float(apart[where].mean())
    return row


def _similar(true: Picture, made: Made, valid: np.ndarray) -> dict[str, float]:
    """PSNR and SSIM on mid-grey in the true person's box."""
    reach = metrics.WINDOW // 2  # grey around the box, so that every pixel of it has its window
    left, top, right, bottom = bounds(true.mask)
    images = []
    for image, mask in ((true.image, true.mask), (made.image, made.mask & valid)):
        cut = np.where(mask[..., None], image, GREY)[top:bottom, left:right].astype(np.uint8)
        images.append(np.pad(cut, ((reach,) * 2, (reach,) * 2, (0, 0)), constant_values=GREY))
    inner = [image[reach:-reach, reach:-reach] for image in images]
    return {"psnr": metrics.psnr(*inner), "ssim": metrics.ssim(*images)}


def _by_part(true: Picture, made: Made, both, truth, own, apart) -> dict[str, float]:
    row, sizes, tones = {}, {}, []
    for name, labels in PARTS.items():
        whole = np.isin(true.labels, [LABELS.index(label) for label in labels])
        if whole.sum() < LEAST:
            continue
        shared = whole & both
        if shared.sum() < max(COVERED * whole.sum(), LEAST / 2):
            shared = whole
        sizes[name] = int(whole.sum())
        row[f"de_{name}"] = float(metrics.delta_e(truth[shared].mean(0), own[shared].mean(0)))
        row[f"dp_{name}"] = float(apart[shared].mean())
        tones.append((true.image[shared].mean(0), made.image[shared].mean(0), sizes[name]))
    if sizes:
        weight = np.array(list(sizes.values()), np.float64)
        row["de"] = float(np.average([row[f"de_{name}"] for name in sizes], weights=weight))
        a, b, _ = (np.stack([np.atleast_1d(tone[k]) for tone in tones]) for k in range(3))
        gain = (weight[:, None] * a * b).sum(0) / np.maximum((weight[:, None] * b * b).sum(0), 1)
        toned = np.clip(b * np.clip(gain, 0.4, 2.5), 0, 255)
        errors = metrics.delta_e(metrics.lab(a), metrics.lab(toned))
        row["de_tone"] = float(np.average(errors, weights=weight))
    return row
