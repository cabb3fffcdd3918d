# SPDX-License-Identifier: Apache-2.0
"""Rules by which a person or a view is kept, with which weight, or rejected and why."""

from __future__ import annotations

import math

import numpy as np

from viewsynth.records import MESH, Person, Reject, Verdict, View

LEAST_SEEN = 0.12  # share of the body's texels that must be observed in a crop
LEAST_OVERLAP = 0.45  # IoU of the fitted body and the mask
SMALLEST = 12  # pixels of the shorter side of a view
FALLBACK_WEIGHT = {"": 1.0, "body": 0.9, "walk": 0.7, "mean": 0.4}
FLAG_TEXT = {
    "error": "the joints of the fitted body are far from the detected landmarks",
    "silhouette": "the outline of the fitted body does not match the mask",
    "spread": "the detected landmarks differ between passes",
    "doubt": "it is unclear whether the person is seen from the front or the back",
    "aspect": "the crop seems stretched",
    "riding": "the person rides a bicycle or a scooter, but is rendered walking",
    "sitting": "the person sits, but is rendered standing",
    "cut": "the crops show only part of the person; the rest is invented",
    "small": "the crops have too few pixels for details",
    "mixed": "the crops seem to show different people",
    "outline": "the outlines of the crops contradict each other",
    "elevation": "the given elevation is implausible and was replaced by an estimate",
    "unobserved": "a mesh without photos: nothing of the person was observed",
}
FIT = ("error", "silhouette", "spread", "doubt", "aspect")  # flags of the fit, of equal weight
SCORES = (
    "error",
    "silhouette",
    "spread",
    "vote",
    "presence",
    "aspect",
    "overlap",
    "drawn",
    "seen_texels",
    "pixels",
    "found",
)
OTHER_WEIGHT = {
    "riding": 0.5,
    "sitting": 0.5,
    "cut": 0.7,
    "mixed": 0.5,
    "outline": 0.9,
    "elevation": 0.8,
}


def judge_person(person: Person) -> Verdict:
    """Decide whether a reconstructed person is rendered.

    A person is rejected if too little of the body was observed or the fit failed: a low overlap
    with the mask, or three or more flags of the fit. (With two, reconstruction has already replaced
    the fitted pose by a fallback, which lowers the weight.) A mesh of the user's own is rejected
    only for a low overlap with the masks of its photos; what no photo shows lowers the weight of
    its views.

    Args:
        person: Reconstructed person with its FitQuality.

    Returns:
        Verdict with the weight of the person, in [0, 1].
    """
    quality = person.quality
    flags = quality.get("flags", [])
    misfits = [flag for flag in flags if flag in FIT]
    reasons = []
    if quality["seen_texels"] < LEAST_SEEN and person.body != MESH:
        reasons.append(
            f"only {quality['seen_texels']:.0%} of the body was seen, "
            f"at least {LEAST_SEEN:.0%} is required"
        )
    if person.body == MESH:
        if quality.get("overlap", 1.0) < LEAST_OVERLAP:
            reasons.append(
                f"the mesh does not match the photos: its outline and the person's overlap by "
                f"{quality['overlap']:.0%}, at least {LEAST_OVERLAP:.0%} is required; check that "
                "the file shows this person, standing"
            )
    elif quality["overlap"] < LEAST_OVERLAP or len(misfits) >= 3:
        what = "; ".join(FLAG_TEXT[flag] for flag in misfits) or FLAG_TEXT["silhouette"]
        reasons.append(f"the fit failed: {what}")
    scores = {key: quality[key] for key in SCORES if key in quality}
    weight = FALLBACK_WEIGHT[person.fallback] / (1 + 0.25 * len(misfits))
    weight *= math.prod(OTHER_WEIGHT.get(flag, 1.0) for flag in flags)
    if "pixels" in quality:  # missing in files written before revision 3
        weight *= resolution(quality["pixels"])
    return Verdict(
        keep=not reasons,
        weight=round(weight, 4),
        reasons=tuple(reasons),
        scores={**scores, "flags": flags},
    )


def resolution(pixels: float) -> float:
    """Weight of a person by the resolution of the source images.

    Source: ours; a fit to a measurement in which crops of 23 real people were shrunk and compared
    with aerial images by a network trained on real people. At heights of 56, 45, 35, 28, 22 and 18
    pixels, 0.96, 0.90, 0.84, 0.76, 0.67 and 0.49 of its margin between right and wrong people were
    left.

    Args:
        pixels: Effective height of the person, see `reconstruct.crop_flags`.

    Returns:
        Weight in [0, 1].
    """
    return min(1.0, 1.05 * pixels**2 / (pixels**2 + 18.0**2))


def judge_view(view: View, person: Person) -> Verdict:
    """Decide whether a view is kept in the data set, and with which weight.

    The weight is that of the person, times 0.5 + 0.5 * the mean of the view's seen map.

    Args:
        view: Rendered view with its mask and seen map.
        person: The person that it shows.
    """
    height, width = view.image.shape[:2]
    reasons = []
    if min(height, width) < SMALLEST:
        reasons.append(f"{width}x{height} pixels is too small, at least {SMALLEST} are required")
    if not view.mask.any():
        reasons.append("the person is outside the image")
    seen = float(view.seen[view.mask].mean() / 255) if view.mask.any() else 0.0
    contrast = float(np.std(view.image[view.mask])) if view.mask.any() else 0.0
    whole = judge_person(person)
    return Verdict(
        keep=not reasons,
        weight=round(whole.weight * (0.5 + 0.5 * seen), 4),
        reasons=tuple(reasons),
        scores={**whole.scores, "seen": round(seen, 4), "contrast": round(contrast, 2)},
    )


def rejection_reason(person: Person | None, rejects: list[Reject]) -> str:
    """Reason why a person is not rendered; "" if the person is.

    Args:
        person: Reconstructed person; None = the reconstruction failed.
        rejects: Rejects of the reconstruction, if it failed.
    """
    if person is None:
        return "; ".join(reject.reason for reject in rejects)
    verdict = judge_person(person)
    return "" if verdict.keep else "; ".join(verdict.reasons)
