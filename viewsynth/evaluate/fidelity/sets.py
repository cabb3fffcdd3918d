# SPDX-License-Identifier: Apache-2.0
"""Sets: whether all made pictures together look like drone pictures, background and all.

rows with the features of their whole pictures -> KID by space of features, method and elevation
bin. The floor is what two halves of the true people differ by, the ceiling how far the true ground
pictures of the same people are from the true drone pictures.
"""

from __future__ import annotations

import numpy as np

from viewsynth import metrics
from viewsynth.evaluate.fidelity.measures import bin_of
from viewsynth.evaluate.fidelity.table import ALL, NAMES, REPAIRS, better

LEAST = 8  # people of a bin that are worth a figure
MADE = ("ours", "true_pose", "repair", "source_only", "repair_true")


def compare(rows: list[dict], ground: list[dict], seed: int = 0) -> list[dict]:
    """KID of every method's whole pictures against the true drone pictures of the same views.

    Args:
        rows: Those with "features" have a whole picture: space -> vector.
        ground: pid and features of true ground pictures.
        seed: Of the subsets.
    Returns: dicts of space, method ("floor" and "ground" are true pictures), baseline, bin, mean,
        low, high, people, pictures. Where there is a baseline the figure is the gain over it,
        positive = nearer to the truth, and `better` as in `table.against`.
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
    order = {(method, ""): k for k, method in enumerate(("floor", *MADE, "ground"))}
    return sorted(found, key=lambda c: (c["space"], order.get((c["method"], c["baseline"]), 99)))


def _bin(rows: list[dict], ground: list[dict], space: str, scale: float, seed: int) -> list[dict]:
    by_method: dict[str, dict[str, dict]] = {}
    for row in rows:
        by_method.setdefault(row["method"], {})[row["view"]] = row
    true = by_method.get("true", {})
    views = sorted(true)
    people = [true[view]["pid"] for view in views]
    if len(set(people)) < LEAST:
        return []

    def stacked(some: list[dict]) -> np.ndarray:
        return np.array([row["features"][space] for row in some], np.float64) * scale

    real = stacked([true[view] for view in views])
    who = set(people)
    others = [row for row in ground if row["pid"] in who and space in row["features"]]
    about = {"baseline": "", "people": len(who)}
    cells = [_cell("floor", metrics.kid_floor(real, people, seed), about, len(views))]
    if others:
        far = metrics.kid(real, stacked(others), people, [row["pid"] for row in others], seed)
        cells.append(_cell("ground", far, about, len(others)))
    made = {
        method: stacked([by_method[method][view] for view in views])
        for method in MADE
        if set(by_method.get(method, {})) == set(views)
    }
    for method, features in made.items():
        value = metrics.kid(real, features, people, people, seed)
        cells.append(_cell(method, value, about, len(views)))
    for method, baseline in REPAIRS:
        if method in made and baseline in made:
            gain = metrics.kid_difference(real, made[method], made[baseline], people, seed)
            cell = _cell(method, gain, about | {"baseline": baseline}, len(views))
            cells.append(cell | {"better": better(*gain[1:])})
    return cells


def _cell(method: str, value: tuple[float, float, float], about: dict, pictures: int) -> dict:
    mean, low, high = value
    return {"method": method, **about, "mean": mean, "low": low, "high": high, "pictures": pictures}


def _scale(features: list[list[float]]) -> float:
    """What makes the mean square of the true features 1: the kernel's 1 then means the same in
    every space.
    """
    return float(1 / np.sqrt(np.square(np.array(features, np.float64)).mean()))
