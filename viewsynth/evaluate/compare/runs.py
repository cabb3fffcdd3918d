# SPDX-License-Identifier: Apache-2.0
"""Reads the results of `evaluate` for every arm and seed of a comparison.

`FOLDER/<arm>/seed<k>/{queries.jsonl, results.json}` -> `read` -> `summary`. All arms must have been
evaluated with the same data set, seeds, protocols and queries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

QUERIES, RESULTS = "queries.jsonl", "results.json"
SEED = re.compile(r"seed(\d+)", re.ASCII)
RERANKED = " re-ranked"

Rows = dict[str, dict[str, dict]]  # task -> name of a query -> row


@dataclass(frozen=True, eq=False)
class Task:
    """Valid queries of one protocol, with or without re-ranking, in all arms and seeds.

    Args:
        name: Name of the protocol, with the suffix `RERANKED` after re-ranking.
        direction: Views of query and gallery, in words.
        queries: Names of the queries, sorted.  [Q]
        people: Number of the person in each query.  int64 [Q]
        above: Which queries are aerial.  bool [Q]
        elevation: Elevation of the queries, degrees; NaN = unknown.  float64 [Q]
        ap: Average precision, in [0, 1].  float64 [A, S, Q]
        hit: Whether the first rank is a match, 0 or 1.  float64 [A, S, Q]
    """

    name: str
    direction: str
    queries: list[str]
    people: np.ndarray
    above: np.ndarray
    elevation: np.ndarray
    ap: np.ndarray
    hit: np.ndarray


@dataclass(frozen=True, eq=False)
class Runs:
    """Results of all arms and seeds.

    Args:
        arms: Names of the arms, the first axis of the arrays of a task.
        seeds: Seeds, the second axis of the arrays of a task.
        tasks: Tasks in the order of `evaluate`.
        notes: Remarks of `evaluate` about data set and backbones.
    """

    arms: list[str]
    seeds: list[int]
    tasks: list[Task]
    notes: list[str]


def read(folder: Path, arms: Sequence[str] = ()) -> Runs:
    """Read the outputs of `evaluate` in a folder.

    Args:
        folder: Folder that contains `<arm>/seed<k>`.
        arms: Names of the arms, in the order of the table; empty = all, sorted.

    Raises:
        FileNotFoundError: if an arm or one of its files is missing.
        ValueError: if the arms were not evaluated alike; the message names the difference.
    """
    found = _find(folder, arms)
    seeds = sorted(next(iter(found.values())))
    first = next(iter(found))
    for arm, own in found.items():
        if sorted(own) != seeds:
            raise ValueError(
                f"arm {arm} has the seeds {_few(sorted(own))}, arm {first} has {_few(seeds)}: all "
                "arms need the same seeds; train and evaluate the missing ones"
            )
    rows = {(arm, seed): _rows(own[seed]) for arm, own in found.items() for seed in seeds}
    results = {(arm, seed): _results(own[seed]) for arm, own in found.items() for seed in seeds}
    _check_same(rows, results)
    every = next(iter(results.values()))["results"]
    directions = {_task(one): one["direction"] for one in every}
    names = list(next(iter(rows.values())))
    tasks = [_join(name, directions[name], rows, list(found), seeds) for name in names]
    return Runs(list(found), seeds, tasks, _notes(results))


# ---- reading -------------------------------------------------------------------------------------


def _find(folder: Path, arms: Sequence[str]) -> dict[str, dict[int, Path]]:
    """Folders of the evaluations: arm -> seed -> folder."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; give the folder with the outputs of evaluate"
        )
    there = sorted(path.name for path in folder.iterdir() if _seeds(path))
    if not there:
        raise FileNotFoundError(
            f"{folder} holds no outputs of evaluate: expected <arm>/seed<k>/{QUERIES}"
        )
    if missing := [arm for arm in arms if arm not in there]:
        raise FileNotFoundError(
            f"{folder} has no arm {', '.join(missing)}: there are {', '.join(there)}"
        )
    return {arm: _seeds(folder / arm) for arm in arms or there}


def _seeds(arm: Path) -> dict[int, Path]:
    """Folders of the evaluations of an arm: seed -> folder."""
    paths = sorted(arm.iterdir()) if arm.is_dir() else []
    return {int(match[1]): path for path in paths if (match := SEED.fullmatch(path.name))}


def _task(row: dict) -> str:
    return row["protocol"] + (RERANKED if row["reranking"] else "")


def _rows(run: Path) -> Rows:
    """Valid queries of a run."""
    found: Rows = {}
    for number, line in enumerate(_text(run / QUERIES).splitlines(), 1):
        try:
            row = json.loads(line)
            own = found.setdefault(_task(row), {})
            if row["valid"]:
                own[row["name"]] = row | {"ap": float(row["ap"]), "hit": float(row["rank"] == 1)}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{run / QUERIES}:{number} is no row of evaluate ({type(error).__name__} {error}); "
                "run evaluate again"
            ) from error
    return found


def _results(run: Path) -> dict:
    try:
        tree = json.loads(_text(run / RESULTS))
        tree["results"][0]["fingerprint"]
        return tree
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{run / RESULTS} cannot be read: {error!r}; run evaluate again"
        ) from error


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: run evaluate to the end for this seed")
    return path.read_text(encoding="utf-8")


# ---- checks --------------------------------------------------------------------------------------


def _check_same(rows: dict[tuple[str, int], Rows], results: dict[tuple[str, int], dict]) -> None:
    """Raise ValueError if a run was not evaluated like the first one."""
    first = next(iter(rows))
    for run, own in rows.items():
        key = [
            [results[which]["results"][0][k] for k in ("dataset", "fingerprint")]
            for which in (first, run)
        ]
        if key[0] != key[1]:
            raise ValueError(
                f"{_path(first)} and {_path(run)} are of different data sets, or of different "
                f"versions of one: {key[0]} and {key[1]}; evaluate all on the same data"
            )
        rules = [_rules(results[which]) for which in (first, run)]
        for task in rules[0].keys() & rules[1].keys():
            if rules[0][task] != rules[1][task]:
                raise ValueError(
                    f"{_path(first)} and {_path(run)} have different camera rules in {task}: "
                    f"{rules[0][task]} and {rules[1][task]}; evaluate all with one --camera-rule"
                )
        if set(own) != set(rows[first]):
            raise ValueError(
                f"{_path(run)} has the protocols {_few(own)}, {_path(first)} has "
                f"{_few(rows[first])}: evaluate all with the same --protocols"
            )
        for task, queries in own.items():
            for less, more in ((run, first), (first, run)):
                if lost := sorted(set(rows[more][task]) - set(rows[less][task])):
                    raise ValueError(
                        f"{_path(less)} lacks {len(lost)} queries of {task} that {_path(more)} "
                        f"has: {_few(lost)}; evaluate both on the same images (see their "
                        "rejects.jsonl)"
                    )
            if not queries:
                raise ValueError(
                    f"{_path(run)} has no valid query of {task}; leave it out of --protocols"
                )


def _rules(result: dict) -> dict[str, str]:
    """Camera rule of each task."""
    return {_task(one): one.get("camera_rule", "") for one in result["results"]}


def _path(run: tuple[str, int]) -> str:
    return f"{run[0]}/seed{run[1]}"


def _few(names) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:6]) + (f", … ({len(names)})" if len(names) > 6 else "")


def _join(task: str, direction: str, rows, arms: list[str], seeds: list[int]) -> Task:
    first = rows[arms[0], seeds[0]][task]
    names = sorted(first)
    pids = [first[name]["pid"] for name in names]
    angles = [first[name]["elevation"] for name in names]
    ap, hit = (
        np.array(
            [
                [[rows[arm, seed][task][name][key] for name in names] for seed in seeds]
                for arm in arms
            ]
        )
        for key in ("ap", "hit")
    )
    return Task(
        name=task,
        direction=direction,
        queries=names,
        ap=ap,
        hit=hit,
        people=np.unique(pids, return_inverse=True)[1],
        above=np.array([first[name]["view"] == "aerial" for name in names]),
        elevation=np.array([np.nan if a is None else a for a in angles], np.float64),
    )


def _notes(results: dict[tuple[str, int], dict]) -> list[str]:
    """Distinct remarks of all runs, and the backbones."""
    notes = dict.fromkeys(note for tree in results.values() for note in tree.get("notes", ()))
    backbones = {one["leaderboard"]["backbone"] for t in results.values() for one in t["results"]}
    return [*notes, f"backbone: {', '.join(sorted(backbones))}"]
