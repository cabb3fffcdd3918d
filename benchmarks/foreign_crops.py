# SPDX-License-Identifier: Apache-2.0
"""Fits and evaluates the detection of foreign crops: crops of another person among those of one.

`inputs.py` calls this module with the ground crops of a world.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from viewsynth.data import images
from viewsynth.reconstruct import foreign
from viewsynth.reconstruct.parse import Parse, parse
from viewsynth.reconstruct.tflite import Model
from viewsynth.reid import encoders, likeness
from viewsynth.world import of_person

# Accepted share of correct crops that match no other crop of the person. Of two such crops one is
# left out; for more crops the share is halved, because other worlds differ.
SHARE = {"two": 0.02, "more": 0.01}
RIDGE = 1e-3  # penalty of the coefficients
CHUNK = 8  # people, the default of `generate`
PAIRS = 40_000  # pairs of different people
SAME_CAMERA = 0.4  # weight of a pair from one camera, which is easy


@dataclass(frozen=True, eq=False)
class Crop:
    """A ground image of a world, its ground truth and the result of the pose model."""

    row: dict
    image: np.ndarray
    mask: np.ndarray
    parse: Parse

    @property
    def pid(self) -> str:
        return self.row["pid"]


def crops(world: Path, model: Model) -> list[Crop]:
    """Load the ground images of a world and run the pose model."""
    rows = map(json.loads, (world / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    found = []
    for row in (row for row in rows if row["view"] == "ground"):
        image = images.read(world / row["file_name"])
        with Image.open(world / row["parts"]) as parts:
            mask = of_person(np.asarray(parts))
        found.append(Crop(row, image, mask, parse(image, model)))
    return found


def fit(worlds: list[Path], model: Model) -> None:
    """Fit the coefficients and limits of `reconstruct.foreign`, and write them."""
    every = [(world.name, crop) for world in worlds for crop in crops(world, model)]
    looks = [foreign.appearance(crop.image, crop.parse) for _, crop in every]
    pids = np.array([f"{name}/{crop.pid}" for name, crop in every])
    cameras = np.array([crop.row["camid"] for _, crop in every])
    pairs, same = _pairs(pids)
    values = np.array([foreign.features(looks[a], looks[b]) for a, b in pairs])
    weight = np.where(same & (cameras[pairs[:, 0]] == cameras[pairs[:, 1]]), SAME_CAMERA, 1.0)
    weight /= np.where(same, weight[same].sum(), weight[~same].sum())
    limits = _limits(values, same, weight, pairs, pids)
    factors, bias = _logistic(values, same, weight)
    fitted = {"weights": factors.round(4).tolist(), "bias": round(bias, 4), "limits": limits}
    foreign.COEFFICIENTS.write_text(json.dumps(fitted) + "\n", encoding="utf-8")
    print(f"wrote {foreign.COEFFICIENTS}: limits {limits}")


def _pairs(pids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of crops, int [N, 2], and whether they show the same person, bool [N]."""
    rng = np.random.default_rng(0)
    same = [
        pair
        for pid in np.unique(pids)
        for pair in itertools.combinations(np.flatnonzero(pids == pid), 2)
    ]
    others = rng.integers(0, len(pids), (PAIRS, 2))
    others = others[pids[others[:, 0]] != pids[others[:, 1]]]
    return np.concatenate([same, others]), np.arange(len(same) + len(others)) < len(same)


def _logistic(values: np.ndarray, same: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression with ridge penalty by Newton's method: coefficients and bias."""
    mean, scale = np.average(values, 0, weight), values.std(0) + 1e-6
    columns = np.c_[(values - mean) / scale, np.ones(len(values))]
    ridge = np.r_[np.full(values.shape[1], RIDGE), 1e-9]
    share, beta = weight / weight.sum(), np.zeros(columns.shape[1])
    for _ in range(40):
        probability = 1 / (1 + np.exp(-np.clip(columns @ beta, -30, 30)))
        gradient = columns.T @ (share * (probability - same)) + ridge * beta
        spread = share * probability * (1 - probability)
        hessian = (columns * spread[:, None]).T @ columns + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        beta -= step
        if np.abs(step).max() < 1e-6:
            break
    factors = beta[:-1] / scale
    return factors, float(beta[-1] - factors @ mean)


def _limits(values, same, weight, pairs, pids) -> dict[str, float]:
    """Limits at which `SHARE` of the correct crops match no other, cross-validated over people."""
    people = np.random.default_rng(3).permutation(np.unique(pids))
    best: dict[str, list] = {"two": [], "more": []}
    for fold in range(3):
        out = np.isin(pids, people[fold::3])
        mine = ~out[pairs].any(1)
        factors, bias = _logistic(values[mine], same[mine], weight[mine])
        held = same & out[pairs].all(1)
        odds = dict(zip(map(tuple, pairs[held]), values[held] @ factors + bias, strict=True))
        rng = np.random.default_rng(fold)
        for pid in np.unique(pids[out]):
            own = np.flatnonzero(pids == pid)
            for count, name in ((2, "two"), (3, "more")):
                for _ in range(4 * (len(own) >= count)):
                    some = sorted(rng.permutation(own)[:count])
                    for one in some:
                        others = [odds[tuple(sorted((one, two)))] for two in some if two != one]
                        best[name].append(max(others))
    return {name: round(float(np.quantile(some, SHARE[name])), 2) for name, some in best.items()}


def report(every: list[Crop], model: str | None) -> None:
    """Print detection rates for sets of crops per person, with and without a foreign crop.

    Args:
        every: Ground crops of a world.
        model: A ReID model that compares crops as well, in chunks of people like `generate`.
    """
    looks = {id(crop): foreign.appearance(crop.image, crop.parse) for crop in every}
    compare = likeness.Likeness(encoders.load(model)) if model else None
    pids, rng = np.array([crop.pid for crop in every]), np.random.default_rng(0)
    print("\n## Foreign crops" + (f", with {Path(model).name}" if model else ""))
    print("\n| crops | people | foreign found | person flagged | right crops left out |")
    print("|---|---|---|---|---|")
    for size in (3, 2):
        for kind in ("right", "one foreign"):
            sets, wrong = [], []
            for pid in np.unique(pids):
                own = np.flatnonzero(pids == pid)
                if len(own) >= size:
                    some = rng.permutation(own)[:size]
                    wrong.append(int(rng.integers(size)) if kind != "right" else -1)
                    if kind != "right":
                        some[wrong[-1]] = rng.choice(np.flatnonzero(pids != pid))
                    sets.append([every[k] for k in some])
            choices = [
                c
                for k in range(0, len(sets), CHUNK)
                for c in _choices(sets[k : k + CHUNK], looks, compare)
            ]
            pairs = list(zip(choices, wrong, strict=True))
            found = sum(bad in one.out and not one.undecided for one, bad in pairs)
            flagged = sum(one.undecided for one in choices)
            lost = sum(k != bad for one, bad in pairs for k in one.out)
            right = len(sets) * (size - (kind != "right"))
            shares = [found / len(sets), flagged / len(sets), lost / right]
            cells = [f"{share:.1%}" for share in shares]
            cells[0] = cells[0] if kind != "right" else ""
            print(f"| {size}, {kind} | {len(sets)} | {' | '.join(cells)} |")


def _choices(sets: list[list[Crop]], looks: dict, compare) -> list[foreign.Choice]:
    """Which crops of each person of a chunk are kept."""
    owners = np.repeat(np.arange(len(sets)), [len(some) for some in sets])
    more = np.zeros((len(owners),) * 2)
    if compare:
        more = compare([crop.image for some in sets for crop in some], owners.tolist())
    found = []
    for owner, some in enumerate(sets):
        rows = np.flatnonzero(owners == owner)
        odds = foreign.log_odds([looks[id(crop)] for crop in some]) + more[np.ix_(rows, rows)]
        found.append(foreign.decide(odds, [crop.parse.height for crop in some]))
    return found
