# SPDX-License-Identifier: Apache-2.0
"""Rules that decide whether a person or a view is kept, and its training weight."""

from __future__ import annotations

import math

import numpy as np

from viewsynth.records import Person, Reject, Verdict, View

LEAST_SEEN = 0.12  # share of the body's texels that must be observed in some crop
LEAST_OVERLAP = 0.45  # intersection over union of the fitted body and the mask
SMALLEST = 12  # pixels of the shorter side of a view
FALLBACK_WEIGHT = {"": 1.0, "walk": 0.7, "mean": 0.4}
FLAG_TEXT = {
    "error": "the body does not reach the skeleton",
    "silhouette": "the body does not fill the outline",
    "spread": "the skeleton differs from pass to pass",
    "doubt": "front and back cannot be told apart",
    "aspect": "the crop seems stretched",
    "riding": "the person rides a bicycle or a scooter, and is drawn walking",
    "sitting": "the person sits, and is drawn standing",
    "cut": "the crops cut the person off, and what they do not show is invented",
    "small": "the crops are too small to show much",
    "mixed": "the crops do not look like one person",
    "elevation": "the given elevation cannot be, and was estimated instead",
}
FIT = ("error", "silhouette", "spread", "doubt", "aspect")  # flags of the fit, of equal weight
SCORES = (  # entries of `Person.quality` that a verdict repeats
    *("error", "silhouette", "spread", "vote", "presence", "aspect"),
    *("overlap", "seen_texels", "pixels", "found"),
)
OTHER_WEIGHT = {"riding": 0.5, "sitting": 0.5, "cut": 0.7, "mixed": 0.5, "elevation": 0.8}


def judge_person(person: Person) -> Verdict:
    """Decide whether a reconstructed person is rendered, and the weight of its views.

    A person is rejected if too little of the body was observed or if the fit failed. From two
    flags of the fit on, reconstruction has replaced the fitted pose already (`Person.fallback`).

    Args:
        person: The reconstructed person.

    Returns:
        The verdict.
    """
    quality = person.quality
    flags = quality.get("flags", [])
    misfits = [flag for flag in flags if flag in FIT]
    reasons = []
    if quality["seen_texels"] < LEAST_SEEN:
        reasons.append(
            f"only {quality['seen_texels']:.0%} of the body was seen, "
            f"at least {LEAST_SEEN:.0%} is needed"
        )
    if quality["overlap"] < LEAST_OVERLAP or len(misfits) >= 3:
        what = "; ".join(FLAG_TEXT[flag] for flag in misfits) or "the body misses the outline"
        reasons.append(f"the fit failed: {what}")
    scores = {key: quality[key] for key in SCORES if key in quality}
    weight = FALLBACK_WEIGHT[person.fallback] / (1 + 0.25 * len(misfits))
    weight *= math.prod(OTHER_WEIGHT.get(flag, 1.0) for flag in flags)
    if "pixels" in quality:  # absent in person files from before revision 3
        weight *= resolution(quality["pixels"])
    return Verdict(
        keep=not reasons,
        weight=round(weight, 4),
        reasons=tuple(reasons),
        scores={**scores, "flags": flags},
    )


def resolution(pixels: float) -> float:
    """Weight of a person by the resolution of the best source image.

    Source: ours. Crops of 23 real people were downscaled, and a ReID model trained on real people
    compared them with aerial images. Of its margin between right and wrong people, 0.96, 0.90,
    0.84, 0.76, 0.67 and 0.49 were left at heights of 56, 45, 35, 28, 22 and 18 pixels.

    Args:
        pixels: Effective height of the person, see `reconstruct.crop_flags`.

    Returns:
        A number in [0, 1].
    """
    return min(1.0, 1.05 * pixels**2 / (pixels**2 + 18.0**2))


def judge_view(view: View, person: Person) -> Verdict:
    """Decide whether a view goes into the data set, and its training weight.

    The weight is that of the person times (1 + s) / 2, where s is the mean of the seen map.

    Args:
        view: The rendered view.
        person: The person in it.

    Returns:
        The verdict.
    """
    height, width = view.image.shape[:2]
    reasons = []
    if min(height, width) < SMALLEST:
        reasons.append(f"{width}x{height} pixels is too small, at least {SMALLEST} are needed")
    if not view.mask.any():
        reasons.append("the person is not in the picture")
    seen = float(view.seen[view.mask].mean() / 255) if view.mask.any() else 0.0
    contrast = float(np.std(view.image[view.mask])) if view.mask.any() else 0.0
    whole = judge_person(person)
    return Verdict(
        keep=not reasons,
        weight=round(whole.weight * (0.5 + 0.5 * seen), 4),
        reasons=tuple(reasons),
        scores={**whole.scores, "seen": round(seen, 4), "contrast": round(contrast, 2)},
    )


def refusal(person: Person | None, rejects: list[Reject]) -> str:
    """The reasons why a person is not rendered.

    Args:
        person: The reconstructed person; None = reconstruction failed.
        rejects: Rejects of the reconstruction, used if it failed.

    Returns:
        The reasons, "" if the person is rendered.
    """
    if person is None:
        return "; ".join(reject.reason for reject in rejects)
    verdict = judge_person(person)
    return "" if verdict.keep else "; ".join(verdict.reasons)
