# SPDX-License-Identifier: Apache-2.0
"""Judge: the only place that decides keep, weight or reject, with reasons.

Reconstruction measures and flags; this module reads the figures. Short here: it looks at the body
and at how much of it was seen. Weights say how far a picture may be believed in training.
"""

from __future__ import annotations

import numpy as np

from viewsynth.records import Person, Verdict, View

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
}


def judge_person(person: Person) -> Verdict:
    """Whether a reconstructed person is good enough to be rendered.

    Two flags of FitQuality already cost the fitted pose (the fallback); rejected are people of whom
    too little was seen, or whose body has nothing to do with the outline.
    """
    quality = person.quality
    flags = quality.get("flags", [])
    reasons = []
    if quality["seen_texels"] < LEAST_SEEN:
        reasons.append(
            f"only {quality['seen_texels']:.0%} of the body was seen, "
            f"at least {LEAST_SEEN:.0%} is needed"
        )
    if quality["overlap"] < LEAST_OVERLAP or len(flags) >= 3:
        what = "; ".join(FLAG_TEXT[flag] for flag in flags) or "the body misses the outline"
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
        )
    }
    weight = FALLBACK_WEIGHT[person.fallback] / (1 + 0.25 * len(flags))
    return Verdict(
        keep=not reasons,
        weight=round(weight, 4),
        reasons=tuple(reasons),
        scores={**scores, "flags": flags},
    )


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
