# SPDX-License-Identifier: Apache-2.0
"""FitQuality: measurements that reveal a bad reconstruction, and the fallback for one.

None of the obvious signals (presence, overlap, the residual of a flipped fit) separates good from
bad alone; two of the five below together do. Thresholds were set on real crops of people. Flags
of the crop itself (`crop_flags`, `foreign`) are recorded as well and do not count as a bad fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from viewsynth.reconstruct import crop_flags
from viewsynth.reconstruct.fit import Fit
from viewsynth.reconstruct.parse import Parse

# A flag is set beyond its limit.
LIMITS = {"error": 0.021, "silhouette": 1.0, "spread": 0.06, "doubt": 0.3, "aspect": 1.4}
CONSISTENT = 0.75  # IoU of surface and mask, below which a crop contradicts the others
POSTURE = ("riding", "sitting")
WHOLE = ("cut", "small")  # other crops of the person compensate for these


def unusable(found: Parse, image: np.ndarray, model) -> str:
    """Why a crop cannot be reconstructed at all, or "".

    Args:
        found: Its parse.
        image: The crop.  uint8 [H, W, 3]
        model: The pose model.
    """
    share = float((found.mask > 0.5).mean())
    if found.presence < 0.3 and crop_flags.is_turned(image, model):
        return (
            "the person lies, or the image is rotated by 90 degrees: only people who are upright "
            "can be reconstructed; rotate the image"
        )
    if found.presence < 0.3:
        return "no person found in the crop; crop tightly around one whole person"
    if share < 0.04:
        return f"the person covers {share:.0%} of the crop; crop tightly around one person"
    if found.height < 24:
        return f"the person is {found.height:.0f} pixels high; at least 24 are needed"
    return ""


def of_crop(crop, fit: Fit, row: int, overlap: float) -> dict:
    """FitQuality of one crop.

    Args:
        crop: With its `parse`, `flags` and `pixels`, see `crop_flags`.
        fit: The result of the chunk.
        row: Index of the crop in the fit.
        overlap: IoU of the fitted body and the mask.

    Returns:
        `error` (mean keypoint error, heights), `silhouette` (loss), `spread` (median over the
        points of the standard deviation between passes, heights), `vote`, `presence`, `doubt`
        (1 - vote x presence), `aspect` (stretch, >= 1), `overlap` (IoU), `flags` (measurements
        beyond their limit, then the flags of the crop), `trust` in (0, 1] and `pixels`.
    """
    found = crop.parse
    aspect = float(fit.aspect[row])
    scores = {
        "error": round(float(fit.error[row]), 5),
        "silhouette": round(float(fit.silhouette[row]), 4),
        "spread": round(float(np.median(found.spread)), 4),
        "vote": round(found.vote, 4),
        "presence": round(found.presence, 4),
        "doubt": round(1 - found.vote * found.presence, 4),
        "aspect": round(max(aspect, 1 / aspect), 4),
        "overlap": round(overlap, 4),
    }
    flags = [name for name, limit in LIMITS.items() if scores[name] > limit]
    trust = round(1 / (1 + len(flags)), 4)
    return {**scores, "flags": flags + crop.flags, "trust": trust, "pixels": round(crop.pixels, 1)}


def set_drawn(scores: dict, drawn: float) -> None:
    """Add how well the person's clothed surface fits the mask of a crop, and flag a bad fit.

    Args:
        scores: Of `of_crop`; changed in place.
        drawn: IoU of the surface of all crops and the mask of this one.
    """
    scores["drawn"] = round(drawn, 4)
    if drawn < CONSISTENT:
        scores["flags"] = [*scores["flags"], "outline"]


def misfits(scores: dict) -> int:
    """The number of flags that concern the fit.

    Args:
        scores: Of `of_crop`.
    """
    return sum(flag in LIMITS for flag in scores["flags"])


def rank(scores: dict) -> tuple[int, float]:
    """Sort key of crops: the first one gives the person's pose.

    Args:
        scores: Of `of_crop`.
    """
    spoilt = sum(flag in LIMITS or flag in POSTURE for flag in scores["flags"])
    return spoilt, scores["error"]


def of_person(best: dict, used: Sequence[dict]) -> dict:
    """Measurements of a person, which replace or extend those of the crop that gave the pose.

    Args:
        best: Scores of that crop.
        used: Scores of all crops of the texture.

    Returns:
        `flags`, without those that another crop compensates for and with those that matter on any
        crop; `pixels` of the largest crop; `crops`, their number; and `found`, the number of people
        in the source image, which the caller corrects.
    """
    own = [flag for flag in best["flags"] if flag not in (*WHOLE, "mixed", "elevation")]
    own += [flag for flag in WHOLE if all(flag in one["flags"] for one in used)]
    own += [flag for flag in ("mixed", "elevation") if any(flag in one["flags"] for one in used)]
    pixels = max(one["pixels"] for one in used)
    return {"flags": own, "pixels": pixels, "crops": len(used), "found": 1}


def fallback(scores: dict) -> str:
    """What replaces a bad fit: "" = nothing, "walk" = its pose, "mean" = its shape as well.

    Args:
        scores: Of the best crop.
    """
    if misfits(scores) >= 4 or scores["error"] > 0.05:
        return "mean"
    return "walk" if misfits(scores) >= 2 else ""
