# SPDX-License-Identifier: Apache-2.0
"""Table: rows of figures -> means with 95 % intervals by method, elevation bin and measure.

A person is the unit: the mean of the person's pictures in a bin is one value, and the intervals
are bootstraps over people. Whether ours is better than a baseline is a paired difference.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from viewsynth import metrics
from viewsynth.fidelity.measures import BINS, PARTS, bin_of
from viewsynth.fidelity.methods import METHODS

# name: (heading, whether higher is better, decimals); in the order of their rank
MEASURES = {
    "de": ("ΔE parts", False, 1), "de_tone": ("ΔE after gain", False, 1),
    "iou": ("IoU", True, 3), "map": ("identity mAP", True, 3),
    "rank1": ("rank-1", True, 3), "own_view": ("own view mAP", True, 3),
    "cosine": ("cosine", True, 3),
    "elevation_error": ("elevation error °", False, 1), "psnr": ("PSNR dB", True, 1),
    "ssim": ("SSIM", True, 3),
}  # fmt: skip
COLOURS = {
    **{f"de_{name}": (name, False, 1) for name in PARTS},
    "de_pixel": ("per pixel", False, 1),
}  # fmt: skip
DETAILS = {
    "de_seen": ("ΔE seen", False, 1), "de_invented": ("ΔE invented", False, 1),
    "seen": ("share seen", True, 2), "missing": ("bare", False, 3),
    "height_error": ("size error %", False, 1), "height_apart": ("|size error| %", False, 1),
}  # fmt: skip
ALL = "all"
BASELINES = ("resized", "warped", "mean_body")
NAMES = tuple(f"{low}-{int(high)}" for low, high in BINS)


def identify(rows: list[dict]) -> None:
    """Add what the observer says of identity to every row, in place, from the rows' embeddings.

    The gallery is every true drone view. For `map` and `rank1` a query's own true view is left out
    of it, so it has to find the person in pictures from other cameras; for `own_view` it has to
    find that very view among those of all other people. `cosine` is the likeness to that view.
    """
    true = [row for row in rows if row["method"] == "true"]
    gallery = np.array([row["embedding"] for row in true], np.float32)
    pid, view = (np.array([row[key] for row in true]) for key in ("pid", "view"))
    for row in rows:
        similarity = gallery @ np.array(row["embedding"], np.float32)
        own = view == row["view"]
        match = (pid == row["pid"])[~own]
        if row["method"] != "true":
            row["cosine"] = round(float(similarity[own][0]), 4)
            others = own | (pid != row["pid"])
            row["own_view"] = round(_find(similarity[others], own[others])[0], 4)
        if match.any():
            value, first = _find(similarity[~own], match)
            row["map"], row["rank1"] = round(value, 4), float(first)


def _find(similarity: np.ndarray, match: np.ndarray) -> tuple[float, bool]:
    """Average precision of one query, and whether its nearest picture is a match.  [G] each"""
    apart = np.ones(len(match), int)  # no picture is left out for its camera
    found = metrics.rank_rows(-similarity[None], [True], match, [0], apart)
    return float(found.ap[0]), bool(found.rank[0] == 1)


def summary(rows: list[dict]) -> list[dict]:
    """Mean and interval of every measure by method and elevation bin.

    Args:
        rows: After `identify`.
    Returns: dicts of method, bin, measure, mean, low, high, people, pictures.
    """
    for row in rows:
        if "height_error" in row:
            row["height_apart"] = abs(row["height_error"])
    values = _by_person(rows)
    counts = defaultdict(int)
    for row in rows:
        for name in (ALL, bin_of(row["elevation"])):
            counts[row["method"], name] += 1
    found = []
    for (method, name, measure), people in values.items():
        mean, low, high = metrics.interval(np.array(list(people.values())))
        found.append(
            {
                "method": method, "bin": name, "measure": measure, "mean": mean, "low": low,
                "high": high, "people": len(people), "pictures": counts[method, name],
            }
        )  # fmt: skip
    return found


def against(rows: list[dict]) -> list[dict]:
    """How much better ours is than each baseline, paired by person.

    Returns: dicts of baseline, bin, measure, mean, low, high, people and `better`: True, False, or
        None where the interval holds zero. Positive = ours is better, whatever the measure.
    """
    values = _by_person(rows)
    found = []
    for baseline in BASELINES:
        for name in (*NAMES, ALL):
            for measure, (_, higher, _) in MEASURES.items():
                one = values.get(("ours", name, measure), {})
                other = values.get((baseline, name, measure), {})
                both = sorted(set(one) & set(other))
                if not both:
                    continue
                pair = [np.array([which[pid] for pid in both]) for which in (one, other)]
                mean, low, high = metrics.difference(*(pair if higher else pair[::-1]))
                better = True if low > 0 else False if high < 0 else None
                found.append(
                    {
                        "baseline": baseline, "bin": name, "measure": measure, "mean": mean,
                        "low": low, "high": high, "people": len(both), "better": better,
                    }
                )  # fmt: skip
    return found


def _by_person(rows: list[dict]) -> dict[tuple[str, str, str], dict[str, float]]:
    """(method, bin, measure) -> person -> mean over the person's pictures."""
    every = {**MEASURES, **COLOURS, **DETAILS}
    lists: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for measure in every:
            if measure in row:
                for name in (ALL, bin_of(row["elevation"])):
                    lists[row["method"], name, measure][row["pid"]].append(row[measure])
    return {
        key: {pid: float(np.mean(values)) for pid, values in people.items()}
        for key, people in lists.items()
    }


# ---- as text -------------------------------------------------------------------------------------


def markdown(found: list[dict], differences: list[dict], notes: list[str]) -> str:
    """The tables as Markdown.

    Args:
        found: From `summary`.
        differences: From `against`.
        notes: Lines that stand above the tables.
    """
    cells = {(c["method"], c["bin"], c["measure"]): c for c in found}
    lines = ["# Fidelity of synthesised drone views", "", *notes, ""]
    lines += [f"- `{name}`: {said}" for name, said in METHODS.items()]
    lines += [
        "", "Mean [95 % interval over people]. Rank by ΔE, IoU and identity: PSNR and SSIM reward "
        "blur and come second.",
    ]  # fmt: skip
    for name in (ALL, *NAMES):
        many = [c for c in found if c["bin"] == name and c["measure"] == "iou"]
        if many:
            title = "All elevations" if name == ALL else f"Elevation {name}°"
            lines += ["", f"## {title} ({many[0]['people']} people, {many[0]['pictures']} views)"]
            lines += ["", *_grid(cells, name, MEASURES)]
    lines += ["", "## Colour error ΔE by part, all elevations", "", *_grid(cells, ALL, COLOURS)]
    lines += ["", "## Seen, bare and size, all elevations", "", *_grid(cells, ALL, DETAILS)]
    lines += ["", "## Ours against each baseline (positive = ours is better)", ""]
    lines += _differences(differences)
    return "\n".join(lines) + "\n"


def _grid(cells: dict, name: str, which: dict) -> list[str]:
    rows = [[method, *(_cell(cells.get((method, name, m)), which[m]) for m in which)]
            for method in METHODS]  # fmt: skip
    rows = [row for row in rows if any(row[1:])]
    return _aligned([["method", *(heading for heading, *_ in which.values())], *rows])


def _cell(cell: dict | None, measure: tuple) -> str:
    if cell is None or np.isnan(cell["mean"]):
        return ""
    d = measure[2]
    return f"{cell['mean']:.{d}f} [{cell['low']:.{d}f}, {cell['high']:.{d}f}]"


def _differences(differences: list[dict]) -> list[str]:
    cells = {(c["baseline"], c["bin"], c["measure"]): c for c in differences}
    rows = [["baseline", "elevation", *(heading for heading, *_ in MEASURES.values())]]
    for baseline in BASELINES:
        for name in (*NAMES, ALL):
            row = []
            for measure, about in MEASURES.items():
                cell = cells.get((baseline, name, measure))
                mark = {True: "", None: " ~", False: " LOSES"}[cell["better"]] if cell else ""
                row.append(_cell(cell, about) + mark)
            if any(row):
                rows.append([baseline, name, *row])
    return [*_aligned(rows), "", "~ = the interval holds zero."]


def _aligned(rows: list[list[str]]) -> list[str]:
    """A Markdown table whose columns line up in a terminal too."""
    width = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, width, strict=True)) + " |"
             for row in rows]  # fmt: skip
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *lines[1:]]
