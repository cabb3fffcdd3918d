# SPDX-License-Identifier: Apache-2.0
"""Summarises the rows of a comparison: means with 95 % intervals by method, bin and measure.

rows -> this module -> `text`. The unit is a person: the mean over the person's views in a bin is
one value, and intervals are bootstrapped over people. Methods are compared by paired differences.
`sets` compares whole sets of images.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from viewsynth import metrics
from viewsynth.evaluate.fidelity.measures import (
    ANGLES,
    BINS,
    COVERAGE,
    OTHER,
    PARTS,
    PHOTO_NAMES,
    angle_bin,
    bin_of,
)

# name: (heading, whether higher is better, decimals), most important first
MEASURES = {
    "de": ("ΔE parts", False, 1),
    "de_tone": ("ΔE after gain", False, 1),
    "iou": ("IoU", True, 3),
    "map": ("identity mAP", True, 3),
    "rank1": ("rank-1", True, 3),
    "own_view": ("own view mAP", True, 3),
    "cosine": ("cosine", True, 3),
    "elevation_error": ("elevation error °", False, 1),
    "psnr": ("PSNR dB", True, 1),
    "ssim": ("SSIM", True, 3),
}
COLOURS = {
    **{f"de_{name}": (name, False, 1) for name in PARTS},
    "de_pixel": ("per pixel", False, 1),
}
SPLIT = {
    "psnr_seen": ("PSNR dB seen", True, 1),
    "psnr_unseen": ("PSNR dB unseen", True, 1),
    "ssim_seen": ("SSIM seen", True, 3),
    "ssim_unseen": ("SSIM unseen", True, 3),
    "de_seen": ("ΔE seen", False, 1),
    "de_unseen": ("ΔE unseen", False, 1),
}
REID = {
    "reid_map": ("mAP", True, 3),
    "reid_rank1": ("rank-1", True, 3),
    "reid_own_view": ("own view mAP", True, 3),
    "reid_cosine": ("cosine", True, 3),
}
DETAILS = {
    "seen": ("share seen", True, 2),
    "missing": ("bare", False, 3),
    **{f"covered_{name}": (f"{name} covered", True, 2) for name in COVERAGE},
    "height_error": ("size error %", False, 1),
    "height_apart": ("|size error| %", False, 1),
    "iou_grown": ("IoU grown", True, 3),
    "iou_possible": ("IoU possible", True, 3),
}
EVERY = {**MEASURES, **COLOURS, **SPLIT, **REID, **DETAILS}
ALL, EARLIER = "all", "earlier "
BASELINES = ("resized", "warped", "mean_body")
REPAIRS = (("repair", "ours"), ("source_only", "ours"), ("repair_true", "true_pose"))
NAMES = (*(f"{low}-{int(high)}" for low, high in BINS), OTHER)
ANGLE_NAMES = tuple(angle_bin(low) for low, _ in ANGLES)


def identify(rows: list[dict], space: str = "") -> None:
    """Add identity measures to every row, in place, from the rows' feature vectors.

    The gallery consists of all true drone views. For `map` and `rank1` the true view of the query
    is left out, so that the match must be an image from another camera; for `own_view` the match is
    the true view, among the views of all other people. `cosine` is the similarity to the true view.

    Args:
        rows: Rows of the comparison.
        space: "" = the observer, with vectors in "embedding"; "reid" = the ReID model, with vectors
            in "features" of some rows, whose measures have the prefix `reid_`.
    """
    rows = [row for row in rows if not space or space in row.get("features", {})]
    if not rows:
        return
    vectors = [row["features"][space] if space else row["embedding"] for row in rows]
    vectors = np.array(vectors, np.float32)
    if space:  # the observer's vectors are normalised already
        vectors = metrics.normalise(vectors, "features of the ReID model").numpy()
    is_true = np.array([row["method"] == "true" for row in rows])
    gallery = vectors[is_true]
    true = [row for row in rows if row["method"] == "true"]
    pid, view = (np.array([row[key] for row in true]) for key in ("pid", "view"))
    names = {
        key: f"{space}_{key}" if space else key for key in ("map", "rank1", "own_view", "cosine")
    }
    for row, vector in zip(rows, vectors, strict=True):
        similarity = gallery @ vector
        own = view == row["view"]
        match = (pid == row["pid"])[~own]
        if row["method"] != "true":
            row[names["cosine"]] = round(float(similarity[own][0]), 4)
            others = own | (pid != row["pid"])
            row[names["own_view"]] = round(_find(similarity[others], own[others])[0], 4)
        if match.any():
            value, first = _find(similarity[~own], match)
            row[names["map"]], row[names["rank1"]] = round(value, 4), float(first)


def _find(similarity: np.ndarray, match: np.ndarray) -> tuple[float, bool]:
    """Average precision of a query, and whether the first rank is a match; arguments [G] each."""
    cameras = np.ones(len(match), int)  # other than the query's, so that no image is left out
    found = metrics.rank_rows(-similarity[None], [True], match, [0], cameras)
    return float(found.ap[0]), bool(found.rank[0] == 1)


def summary(rows: list[dict]) -> list[dict]:
    """Mean and interval of every measure by method and elevation bin.

    Args:
        rows: Rows of the comparison, after `identify`.

    Returns:
        Dicts of method, bin, measure, mean, low, high, people, pictures.
    """
    for row in rows:
        if "height_error" in row:
            row["height_apart"] = abs(row["height_error"])
    values = _by_person(rows)
    counts = defaultdict(int)
    for row in rows:
        for name in bins_of(row):
            counts[row["method"], name] += 1
    found = []
    for (method, name, measure), people in values.items():
        mean, low, high = metrics.interval(np.array(list(people.values())))
        found.append(
            {
                "method": method,
                "bin": name,
                "measure": measure,
                "mean": mean,
                "low": low,
                "high": high,
                "people": len(people),
                "pictures": counts[method, name],
            }
        )
    return found


def gains_over_baselines(rows: list[dict]) -> list[dict]:
    """Gains of our method over each baseline, paired by person.

    Args:
        rows: Rows of the comparison, after `identify`.

    Returns:
        Dicts of method ("ours"), baseline, bin, measure, mean, low, high, people and `better`:
        True, False, or None if the interval contains zero. Positive = better, for every measure.
    """
    return _paired(rows, [("ours", baseline) for baseline in BASELINES], MEASURES)


def gains_of_repair(rows: list[dict]) -> list[dict]:
    """Gains of repaired views over the renderings, paired by person.

    Args:
        rows: Rows of the comparison, after `identify`.

    Returns:
        As `gains_over_baselines`, for the pairs of `REPAIRS`; empty without a diffusion model.
    """
    return _paired(rows, REPAIRS, {**MEASURES, **SPLIT, **REID})


def gains_over_run(rows: list[dict], earlier: list[dict]) -> list[dict]:
    """Gains over another run on the same world, paired by person.

    Args:
        rows: Rows of the comparison, after `identify`.
        earlier: Rows of the other run, of its `fidelity.jsonl`.

    Returns:
        As `gains_over_baselines`, for "ours" and "true_pose" over those of the other run, whose
        names begin with "earlier "; people who are missing in one run are left out.
    """
    both = {row["view"] for row in rows} & {row["view"] for row in earlier}
    renamed = [row | {"method": f"{EARLIER}{row['method']}"} for row in earlier]
    rows = [row for row in (*rows, *renamed) if row["view"] in both]
    pairs = [(name, f"{EARLIER}{name}") for name in ("ours", "true_pose")]
    return _paired(rows, pairs, EVERY, (*NAMES, *ANGLE_NAMES, *PHOTO_NAMES, ALL))


def _paired(rows: list[dict], pairs, measures: dict, bins=(*NAMES, ALL)) -> list[dict]:
    values = _by_person(rows)
    found = []
    for method, baseline in pairs:
        for name in bins:
            for measure, (_, higher, _) in measures.items():
                one = values.get((method, name, measure), {})
                other = values.get((baseline, name, measure), {})
                both = sorted(set(one) & set(other))
                if not both:
                    continue
                pair = [np.array([values_of[pid] for pid in both]) for values_of in (one, other)]
                mean, low, high = metrics.difference(*(pair if higher else pair[::-1]))
                found.append(
                    {
                        "method": method,
                        "baseline": baseline,
                        "bin": name,
                        "measure": measure,
                        "mean": mean,
                        "low": low,
                        "high": high,
                        "people": len(both),
                        "better": better(low, high),
                    }
                )
    return found


def better(low: float, high: float) -> bool | None:
    """Whether an interval lies above zero (True), below zero (False) or contains it (None)."""
    return True if low > 0 else False if high < 0 else None


def bins_of(row: dict) -> tuple[str, ...]:
    """The bins of a view: all, elevation, angle to the nearest crop, side of an only photo."""
    angle = (angle_bin(row["angle"]),) if "angle" in row else ()
    photo = (row["photo"],) if "photo" in row else ()
    return ALL, bin_of(row["elevation"]), *angle, *photo


def _by_person(rows: list[dict]) -> dict[tuple[str, str, str], dict[str, float]]:
    """(method, bin, measure) -> person -> mean over the person's views."""
    lists: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for measure in EVERY:
            if measure in row:
                for name in bins_of(row):
                    lists[row["method"], name, measure][row["pid"]].append(row[measure])
    return {
        key: {pid: float(np.mean(values)) for pid, values in people.items()}
        for key, people in lists.items()
    }
