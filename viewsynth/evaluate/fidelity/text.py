# SPDX-License-Identifier: Apache-2.0
"""Formats the results of `table` and `sets` as Markdown with aligned columns."""

from __future__ import annotations

import numpy as np

from viewsynth.evaluate.fidelity import methods, repair
from viewsynth.evaluate.fidelity.measures import OTHER, PHOTO_NAMES
from viewsynth.evaluate.fidelity.table import (
    ALL,
    ANGLE_NAMES,
    BASELINES,
    COLOURS,
    DETAILS,
    EARLIER,
    MEASURES,
    NAMES,
    REID,
    REPAIRS,
    SPLIT,
)

METHODS = {**methods.METHODS, **repair.METHODS}
SPLIT_METHODS = ("ours", "repair", "source_only", "true_pose", "repair_true")
EARLIER_PAIRS = [(name, f"{EARLIER}{name}") for name in ("ours", "true_pose")]
EARLIER_BINS = (ALL, *NAMES, *ANGLE_NAMES, *PHOTO_NAMES)
SETS = {"floor": "true, two halves of the people", "ground": "true ground images"}


def markdown(
    found: list[dict],
    differences: list[dict],
    notes: list[str],
    repaired: list[dict] = (),
    sets: list[dict] = (),
    earlier: list[dict] = (),
) -> str:
    """Write all tables as Markdown.

    Args:
        found: Result of `table.summary`.
        differences: Result of `table.gains_over_baselines`.
        notes: Lines above the tables.
        repaired: Result of `table.gains_of_repair`.
        sets: Result of `sets.compare`.
        earlier: Result of `table.gains_over_run`.
    """
    cells = {(c["method"], c["bin"], c["measure"]): c for c in found}
    present = {c["method"] for c in found}
    lines = ["# Fidelity of synthesised drone views", "", *notes, ""]
    lines += [f"- `{name}`: {words}" for name, words in METHODS.items() if name in present]
    lines += [
        "",
        "Mean [95 % interval over people]. Rank by ΔE, IoU and identity: PSNR and SSIM reward "
        "blur and come second.",
    ]
    for name in (ALL, *NAMES, *ANGLE_NAMES, *PHOTO_NAMES):
        many = [c for c in found if c["bin"] == name and c["measure"] == "iou"]
        if many:
            title = "All elevations" if name == ALL else f"Elevation {_degrees(name)}"
            if name in ANGLE_NAMES:
                title = f"{name.removesuffix(' off')}° from the nearest ground crop"
            if name in PHOTO_NAMES:
                title = name.capitalize()
            lines += ["", f"## {title} ({many[0]['people']} people, {many[0]['pictures']} views)"]
            lines += ["", *_grid(cells, name, MEASURES)]
    lines += ["", "## Colour error ΔE by part, all elevations", "", *_grid(cells, ALL, COLOURS)]
    lines += ["", "## Seen, bare and size, all elevations", "", *_grid(cells, ALL, DETAILS)]
    lines += ["", "## Pixels that the rendering had from a photo, and the others", ""]
    lines += _split(cells)
    if any(c["measure"] in REID for c in found):
        lines += ["", "## Whole images in the ReID model, all elevations", ""]
        lines += _grid(cells, ALL, REID)
    if sets:
        lines += ["", "## Whole images as sets: KID against the true drone images", ""]
        lines += _sets(sets)
    lines += ["", "## Ours against each baseline (positive = ours is better)", ""]
    lines += _differences(differences, [("ours", name) for name in BASELINES], MEASURES)
    if repaired:
        lines += ["", "## What the diffusion changes (positive = it is better)", ""]
        lines += _differences(repaired, REPAIRS, MEASURES)
        lines += ["", *_differences(repaired, REPAIRS, {**SPLIT, **REID})]
    if earlier:
        lines += ["", "## Against the other run (positive = this run is better)", ""]
        for which in (MEASURES, COLOURS, SPLIT, DETAILS):
            lines += [*_differences(earlier, EARLIER_PAIRS, which, EARLIER_BINS), ""]
    return "\n".join(lines) + "\n"


def _grid(cells: dict, name: str, which: dict) -> list[str]:
    which = {m: about for m, about in which.items() if any(key[2] == m for key in cells)}
    rows = [
        [method, *(_cell(cells.get((method, name, m)), which[m]) for m in which)]
        for method in METHODS
    ]
    rows = [row for row in rows if any(row[1:])]
    return _aligned([["method", *(heading for heading, *_ in which.values())], *rows])


def _split(cells: dict) -> list[str]:
    rows = [["method", "elevation", *(heading for heading, *_ in SPLIT.values())]]
    for method in SPLIT_METHODS:
        for name in (*NAMES, ALL):
            row = [_cell(cells.get((method, name, m)), about) for m, about in SPLIT.items()]
            if any(row):
                rows.append([method, name, *row])
    return [
        *_aligned(rows),
        "",
        "The pixels are those where the rendering (of ours, or in the true "
        "pose) shows the person and the person truly is, whatever the method shows there.",
    ]


def _sets(sets: list[dict]) -> list[str]:
    about = ("", False, 3)
    names = [n for n in (ALL, *NAMES) if n != OTHER or any(c["bin"] == n for c in sets)]
    rows = [["features", "images", *map(_degrees, names)]]
    for space in dict.fromkeys(c["space"] for c in sets):
        mine = [c for c in sets if c["space"] == space]
        for key in dict.fromkeys((c["method"], c["baseline"]) for c in mine):
            row = []
            for name in names:
                cell = next(
                    (c for c in mine if (c["method"], c["baseline"], c["bin"]) == (*key, name)),
                    None,
                )
                row.append(_cell(cell, about) + (_mark(cell) if key[1] else ""))
            method, baseline = key
            words = f"gain of {method} over {baseline}" if baseline else SETS.get(method, method)
            rows.append([space, words, *row])
    return [
        *_aligned(rows),
        "",
        "0 = no difference to be found; the halves of the people show what "
        "chance makes of it, the ground images how far the views are apart. Gains: positive = "
        "better, ~ = the interval holds zero.",
    ]


def _degrees(name: str) -> str:
    return name if name in (ALL, OTHER) else f"{name}°"


def _differences(differences: list[dict], pairs, measures: dict, bins=(*NAMES, ALL)) -> list[str]:
    cells = {(c["method"], c["baseline"], c["bin"], c["measure"]): c for c in differences}
    measures = {m: about for m, about in measures.items() if any(key[3] == m for key in cells)}
    one = len({method for method, _ in pairs}) == 1
    rows = [["baseline" if one else "", "elevation", *(about[0] for about in measures.values())]]
    for method, baseline in pairs:
        for name in bins:
            row = []
            for measure, about in measures.items():
                cell = cells.get((method, baseline, name, measure))
                row.append(_cell(cell, about) + (_mark(cell) if cell else ""))
            if any(row):
                rows.append([baseline if one else f"{method} − {baseline}", name, *row])
    return [*_aligned(rows), "", "~ = the interval holds zero."]


def _cell(cell: dict | None, measure: tuple) -> str:
    if cell is None or np.isnan(cell["mean"]):
        return ""
    d = measure[2]
    return f"{cell['mean']:.{d}f} [{cell['low']:.{d}f}, {cell['high']:.{d}f}]"


def _mark(cell: dict | None) -> str:
    return {True: "", None: " ~", False: " LOSES"}[cell["better"]] if cell else ""


def _aligned(rows: list[list[str]]) -> list[str]:
    """Markdown table with aligned columns."""
    width = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, width, strict=True)) + " |"
        for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in width) + "|", *lines[1:]]
