# SPDX-License-Identifier: Apache-2.0
"""Judge: the only place that decides keep, weight or reject, with reasons.

Reconstruction measures and flags; this module reads the figures. Short here: it looks at the body
and at how much of it was seen. Weights say how far a picture may be believed in training.
"""

from __future__ import annotations

import math

import numpy as np

from viewsynth.records import Person, Reject, Verdict, View

LEAST_SEEN = 0.12  # share of the body's texels that some crop must have seen
LEAST_OVERLAP = 0.45  # of the fitted body with the mask
SMALLEST = 12  # pixels of the shorter side of a picture
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
FIT = ("error", "silhouette", "spread", "doubt", "aspect")  # flags of the fit: each costs alike
OTHER_WEIGHT = {"riding": 0.5, "sitting": 0.5, "cut": 0.7, "mixed": 0.5, "elevation": 0.8}


def judge_person(person: Person) -> Verdict:
    """Whether a reconstructed person is good enough to be rendered.

    Two flags of FitQuality already cost the fitted pose (the fallback); rejected are people of whom
    too little was seen, or whose body has nothing to do with the outline.
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
    scores = {
        key: quality[key]
        for key in (
            "error",
            "silhouette",
            "spread",
            "vote",
            "presence",
            "aspect",
            "overlap",
            "seen_texels",
            "pixels",
            "found",
        )
        if key in quality
    }
    weight = FALLBACK_WEIGHT[person.fallback] / (1 + 0.25 * len(misfits))
    weight *= math.prod(OTHER_WEIGHT.get(flag, 1.0) for flag in flags)
    if "pixels" in quality:  # people of before revision 3 have none
        weight *= resolution(quality["pixels"])
    return Verdict(
        keep=not reasons,
        weight=round(weight, 4),
        reasons=tuple(reasons),
        scores={**scores, "flags": flags},
    )


def resolution(pixels: float) -> float:
    """How much of a person a source of that height still tells, in [0, 1].

    Source: ours; crops of 23 real people were shrunk, and a network that was trained on real people
    compared them with aerial pictures. Of its margin between right and wrong people 0.96, 0.90,
    0.84, 0.76, 0.67, 0.49 were left at heights of 56, 45, 35, 28, 22 and 18 pixels.

    Args:
        pixels: Effective height of the person, see `reconstruct.crop_flags`.
    """
    return min(1.0, 1.05 * pixels**2 / (pixels**2 + 18.0**2))


def judge_view(view: View, person: Person) -> Verdict:
    """Whether a picture goes into the data set, and with which weight.

    The weight is the person's, times a half to one with the share of the pixels that were seen.
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
    """Why no picture is made of somebody, or "".

    Args:
        person: What the reconstruction made of the crops; None = nothing.
        rejects: Its reasons, if it made nothing.
    """
    if person is None:
        return "; ".join(reject.reason for reject in rejects)
    verdict = judge_person(person)
    return "" if verdict.keep else "; ".join(verdict.reasons)
