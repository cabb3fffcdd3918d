# SPDX-License-Identifier: Apache-2.0
"""Compares sets of predicted and true drone images, including their background, by KID.

rows with the features of their whole images -> KID by feature space, method and elevation bin. As a
reference, "floor" compares two halves of the true people, and "ground" compares the true ground
images with the true drone images of the same people.
"""

from __future__ import annotations

import numpy as np

from viewsynth import metrics
from viewsynth.evaluate.fidelity.measures import bin_of
from viewsynth.evaluate.fidelity.table import ALL, NAMES, REPAIRS, better

MIN_PEOPLE = 8  # smallest number of people in a bin
PREDICTED = ("ours", "true_pose", "repair", "source_only", "repair_true")


def compare(rows: list[dict], ground: list[dict], seed: int = 0) -> list[dict]:
    """KID of every method's whole images against the true drone images of the same views.

    Args:
        rows: Rows of the comparison; those of whole images have "features", space -> vector.
        ground: Pid and features of the true ground images.
        seed: Seed of the subsets.

    Returns:
        Dicts of space, method ("floor" and "ground" are true images), baseline, bin, mean, low,
        high, people, pictures. With a baseline, the value is the gain over it, positive = closer to
        the truth, and there is `better` as in `table.gains_over_baselines`.
    """
    rows = [row for row in rows if "features" in row]
    found = []
    for space in sorted({space for row in rows for space in row["features"]}):
        true = [row for row in rows if row["method"] == "true"]
        scale = _scale([row["features"][space] for row in true])
        for name in (ALL, *NAMES):
            chosen = [row for row in rows if name in (ALL, bin_of(row["elevation"]))]
            found += [
                {"space": space, "bin": name, **cell}
                for cell in _bin(chosen, ground, space, scale, seed)
            ]
    order = {(method, ""): k for k, method in enumerate(("floor", *PREDICTED, "ground"))}
    return sorted(found, key=lambda c: (c["space"], order.get((c["method"], c["baseline"]), 99)))


def _bin(rows: list[dict], ground: list[dict], space: str, scale: float, seed: int) -> list[dict]:
    by_method: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["view"]] = row
    true = by_method.get("true", {})
    views = sorted(true)
    people = [true[view]["pid"] for view in views]
    if len(set(people)) < MIN_PEOPLE:
        return []

    def stacked(chosen: list[dict]) -> np.ndarray:
        return np.array([row["features"][space] for row in chosen], np.float64) * scale

    real = stacked([true[view] for view in views])
    present = set(people)
    others = [row for row in ground if row["pid"] in present and space in row["features"]]
    about = {"baseline": "", "people": len(present)}
    cells = [_cell("floor", metrics.kid_floor(real, people, seed), about, len(views))]
    if others:
        far = metrics.kid(real, stacked(others), people, [row["pid"] for row in others], seed)
        cells.append(_cell("ground", far, about, len(others)))
    predicted = {
        method: stacked([by_method[method][view] for view in views])
        for method in PREDICTED
        if set(by_method.get(method, {})) == set(views)
    }
    for method, features in predicted.items():
        value = metrics.kid(real, features, people, people, seed)
        cells.append(_cell(method, value, about, len(views)))
    for method, baseline in REPAIRS:
        if method in predicted and baseline in predicted:
            pair = predicted[method], predicted[baseline]
            gain = metrics.kid_difference(real, *pair, people, seed)
            cell = _cell(method, gain, about | {"baseline": baseline}, len(views))
            cells.append(cell | {"better": better(*gain[1:])})
    return cells


def _cell(method: str, value: tuple[float, float, float], about: dict, pictures: int) -> dict:
    mean, low, high = value
    return {"method": method, **about, "mean": mean, "low": low, "high": high, "pictures": pictures}


def _scale(features: list[list[float]]) -> float:
    """Factor that normalises the mean square of the true features to 1 in every space."""
    return float(1 / np.sqrt(np.square(np.array(features, np.float64)).mean()))
