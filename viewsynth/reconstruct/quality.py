# SPDX-License-Identifier: Apache-2.0
"""FitQuality: the numbers that tell a bad reconstruction, and what a bad one falls back to.

None of the obvious signals (presence, overlap, the energy of a flipped fit) separates good from bad
alone; two of these five firing together does. Thresholds come from real crops of people.
"""

from __future__ import annotations

import numpy as np

from viewsynth.reconstruct.fit import Fit
from viewsynth.reconstruct.parse import Parse

# A flag fires beyond its limit.
LIMITS = {"error": 0.021, "silhouette": 0.7, "spread": 0.06, "doubt": 0.3, "aspect": 1.4}


def unusable(found: Parse) -> str:
    """Why a crop cannot be reconstructed at all, or ""."""
    share = float((found.mask > 0.5).mean())
    if found.presence < 0.3:
        return "no person found in the crop; crop tightly around one whole person"
    if share < 0.04:
        return f"the person covers {share:.0%} of the crop; crop tightly around one person"
    if found.height < 24:
        return f"the person is {found.height:.0f} pixels high; at least 24 are needed"
    return ""


def of_crop(found: Parse, fit: Fit, row: int, overlap: float) -> dict:
    """FitQuality of one crop.

    Returns: `error` (mean keypoint error, heights), `silhouette` (loss), `spread` (median over the
        points of the standard deviation between passes, heights), `vote`, `presence`, `doubt`
        (1 - vote x presence), `aspect` (stretch, >= 1), `overlap` (IoU), `flags` (names of those
        beyond their limit) and `trust` in (0, 1].
    """
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
    return {**scores, "flags": flags, "trust": round(1 / (1 + len(flags)), 4)}


def fallback(scores: dict) -> str:
    """ "" = the fit stands, "walk" = its pose does not, "mean" = its shape does not either."""
    if len(scores["flags"]) >= 4 or scores["error"] > 0.05:
        return "mean"
    return "walk" if len(scores["flags"]) >= 2 else ""
