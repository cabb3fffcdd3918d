# SPDX-License-Identifier: Apache-2.0
"""Summarises a comparison: means, differences and gap closures of arms with intervals.

runs -> `summarise` -> table.json, `table`, `plots`. Rates are fractions in [0, 1]; a value with its
interval is [value, low, high].
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from viewsynth.evaluate.compare import resampling
from viewsynth.evaluate.compare.runs import Runs, Task
from viewsynth.evaluate.scoring import binned

MEASURES = {"mAP": "ap", "rank1": "hit"}  # name of the metric -> field of a task
CLEAR = 2  # minimum gap between floor and ceiling, in half-widths of its interval


@dataclass(frozen=True)
class Roles:
    """Roles of the arms, and how the comparison is evaluated.

    Args:
        floor: Name of the arm without the treatment.
        ceiling: Name of the arm with the best possible data; "" = none.
        treated: Name of the arm that is evaluated; "" = none.
        protocol: Protocol whose mAP must separate the ceiling from the floor.
        unit: Unit of the bootstrap: people with all their queries, or single queries, which gives
            too narrow intervals if people have several.
    """

    floor: str
    ceiling: str
    treated: str = ""
    protocol: str = "A<->G"
    unit: Literal["person", "query"] = "person"


def summarise(runs: Runs, parts: Roles) -> dict:
    """Compute all values of a comparison, as JSON types.

    Args:
        runs: Results of all arms and seeds.
        parts: Roles of the arms.

    Returns:
        `verdict` (whether the gap between floor and ceiling is clear; None without a ceiling) and
        `tasks`, each with `arms`, `differences` of all pairs, `gap` (ceiling - floor, if there is a
        ceiling), and the same for each of its `bins` of elevation.

    Raises:
        ValueError: If an arm or the protocol is missing.
    """
    for part in ("floor", "ceiling", "treated"):
        arm = getattr(parts, part)
        if arm not in runs.arms and (arm or part == "floor"):
            raise ValueError(f"{part}: there is no arm {arm!r}; there are {', '.join(runs.arms)}")
    if parts.floor == parts.ceiling:
        raise ValueError(f"floor and ceiling must be two arms; got {parts.floor!r} twice")
    names = [task.name for task in runs.tasks]
    if parts.protocol not in names:
        raise ValueError(
            f"protocol: {parts.protocol!r} was not evaluated; there are {', '.join(names)}"
        )
    tasks = [_task(task, runs, parts) for task in runs.tasks]
    judged = tasks[names.index(parts.protocol)]["gap"].get("mAP")
    return {
        "arms": runs.arms,
        "seeds": runs.seeds,
        "parts": dict(parts.__dict__),
        "notes": runs.notes,
        "verdict": judged and {"protocol": parts.protocol, "measure": "mAP", **judged},
        "tasks": tasks,
    }


def _task(task: Task, runs: Runs, parts: Roles) -> dict:
    bins = []
    for name, inside in binned("elevation", task.elevation, task.above):
        bins.append({"bin": name, **_compare(task, inside, runs, parts)})
    all_queries = np.ones(len(task.queries), bool)
    head = {"protocol": task.name, "direction": task.direction}
    return {**head, **_compare(task, all_queries, runs, parts), "bins": bins}


def _compare(task: Task, which: np.ndarray, runs: Runs, parts: Roles) -> dict:
    """Values of a subset of the queries."""
    count = int(which.sum())
    people = np.unique(task.people[which], return_inverse=True)[1]
    groups = people if parts.unit == "person" else np.arange(count)
    arms: list[dict] = [{"arm": arm} for arm in runs.arms]
    pairs = list(itertools.permutations(range(len(runs.arms)), 2))
    differences: list[dict] = [{"one": runs.arms[i], "other": runs.arms[j]} for i, j in pairs]
    place = [runs.arms.index(arm) for arm in (parts.floor, parts.ceiling) if arm]
    gap = {}
    for measure, key in MEASURES.items():
        values = getattr(task, key)[:, :, which]
        means, draws = values.mean((1, 2)), resampling.resample(values, groups)
        for n, arm in enumerate(arms):
            arm[measure] = resampling.interval(means[n], draws[:, n])
            arm[f"{measure}_by_seed"] = values[n].mean(1).tolist()
        for pair, (i, j) in zip(differences, pairs, strict=True):
            pair[measure] = resampling.interval(means[i] - means[j], draws[:, i] - draws[:, j])
        if not parts.ceiling:
            continue
        gap[measure] = _gap(means, draws, *place)
        for n, arm in enumerate(arms):
            if gap[measure]["clear"] and n not in place:
                three = [place[0], n, place[1]]
                arm[f"{measure}_closure"] = resampling.gap_closure(means[three], draws[:, three])
    counts = {"queries": count, "people": int(people.max()) + 1}
    return {**counts, "arms": arms, "gap": gap, "differences": differences}


def _gap(means: np.ndarray, draws: np.ndarray, floor: int, ceiling: int) -> dict:
    """Ceiling - floor, and whether it exceeds `CLEAR` half-widths of its interval."""
    found = resampling.interval(means[ceiling] - means[floor], draws[:, ceiling] - draws[:, floor])
    half = resampling.half_width(found)
    return {"difference": found, "half": half, "clear": bool(found[0] > CLEAR * half)}
