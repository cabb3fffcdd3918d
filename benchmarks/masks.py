# SPDX-License-Identifier: Apache-2.0
"""Person masks against the ground truth of a world: the pose model's mask and the refined one.

    python benchmarks/masks.py --world WORLD [--people 100] [--images 4]
    python benchmarks/masks.py --world WORLD OTHER --fit-to viewsynth/reconstruct/matting.json

Ground images only. Pixels of occluders count neither as person nor as background. Printed are means
over people with 95% bootstrap intervals, and of the difference, refined minus before. Boundary
errors are mean distances between the outlines, both ways. `--fit-to` fits the coefficients of
`viewsynth.reconstruct.matting` instead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy import ndimage

from viewsynth.metrics.intervals import interval
from viewsynth.reconstruct import matting
from viewsynth.reconstruct.parse import Parse, unrefined
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import weights
from viewsynth.world import LABELS, of_person, truth

LEAST = 50  # pixels of a person or a part, below which an image does not count
PIXELS = 1500  # per image for the fit
# Weights of pixels in the fit: of the person, and of what is lost most often. A lost part costs
# more than some background at the rim.
HEAVIER, RARE = 1.25, {"hair": 1.5, "headwear": 1.5, "carried": 1.5}
PARTS = ("hair", "headwear", "top", "arms", "bottom", "legs", "shoes", "carried")


@dataclass(frozen=True, eq=False)
class Case:
    """A ground image of the world with its parse."""

    image: np.ndarray
    labels: np.ndarray
    pid: str
    found: Parse

    @property
    def true(self) -> np.ndarray:
        """Pixels of the person, bool [H, W]."""
        return of_person(self.labels)

    @property
    def counts(self) -> np.ndarray:
        """Pixels that are not of an occluder, bool [H, W]."""
        return self.labels != truth.OCCLUDER


def cases(world: Path, people: int | None, images: int, model: Model) -> Iterator[Case]:
    """Parse up to `images` ground images of each person, drawn at random with a fixed seed."""
    rows: dict[str, list[dict]] = {}
    with (world / "truth.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["view"] == "ground":
                rows.setdefault(row["pid"], []).append(row)
    for pid in sorted(rows, key=truth.pid_order)[:people]:
        order = np.random.default_rng(0).permutation(len(rows[pid]))[:images]
        for row in (rows[pid][k] for k in order):
            one = truth.read(world, row)
            if one.mask.sum() >= LEAST:
                yield Case(one.image, one.labels, pid, unrefined(one.image, model))


def boundary(mask: np.ndarray, true: np.ndarray) -> float:
    """Mean distance between two outlines, both ways, pixels; NaN if there is none."""
    edges = [one & ~ndimage.binary_erosion(one, border_value=1) for one in (mask, true)]
    if not all(edge.any() for edge in edges):
        return np.nan
    away = [ndimage.distance_transform_edt(~edge) for edge in edges]
    return float(away[1][edges[0]].mean() + away[0][edges[1]].mean()) / 2


def measure(case: Case, alpha: np.ndarray) -> dict[str, float]:
    """Scores of a mask by name."""
    mask, true = (alpha > 0.5) & case.counts, case.true
    area, apart = max(int(true.sum()), 1), boundary(mask, true)
    rows = np.nonzero(true.any(1))[0]
    row = {
        "IoU": float((mask & true).sum() / max((mask | true).sum(), 1)),
        "boundary error, px": apart,
        "boundary error, % of height": 100 * apart / (rows[-1] - rows[0] + 1),
        "background, % of person": 100 * float((mask & ~true).sum()) / area,
        "occluder, % of person": 100 * float(((alpha > 0.5) & ~case.counts).sum()) / area,
    }
    for name in PARTS:
        part = case.labels == LABELS.index(name)
        if part.sum() >= LEAST:
            row[f"recall of {name}"] = float((alpha > 0.5)[part].mean())
    return row


def by_person(scores: list[tuple[str, dict[str, float]]], name: str) -> np.ndarray:
    """Means over the images of each person that have a score, [people]."""
    groups: dict[str, list[float]] = {}
    for pid, row in scores:
        if np.isfinite(row.get(name, np.nan)):
            groups.setdefault(pid, []).append(row[name])
    return np.array([np.mean(values) for values in groups.values()])


def report(every: list[Case], before: list[np.ndarray], after: list[np.ndarray]) -> None:
    """Print the table of two masks of each case."""
    old, new = (
        [(case.pid, measure(case, mask)) for case, mask in zip(every, masks, strict=True)]
        for masks in (before, after)
    )
    names = list(dict.fromkeys(name for _, row in new for name in row))
    print(f"\n{len(every)} images of {len({case.pid for case in every})} people\n")
    print("| | people | before | after | difference |\n|---|---|---|---|---|")
    for name in names:
        # Images in which only one of the two masks has the score cannot be compared.
        pairs = [
            (pid, {name: a.get(name, np.nan)}, {name: b.get(name, np.nan)})
            for (pid, a), (_, b) in zip(old, new, strict=True)
            if np.isfinite(a.get(name, np.nan) + b.get(name, np.nan))
        ]
        left = by_person([(pid, a) for pid, a, _ in pairs], name)
        right = by_person([(pid, b) for pid, _, b in pairs], name)
        if len(left) < 2:
            continue
        cells = [
            "{:.3f} [{:.3f}, {:.3f}]".format(*interval(values))
            for values in (left, right, right - left)
        ]
        print(f"| {name} | {len(left)} | {' | '.join(cells)} |", flush=True)


def fit(every: list[Case]) -> np.ndarray:
    """Fit the coefficients of all stages, one after the other, [STAGES, features]."""
    rng, items = np.random.default_rng(0), []
    for case in every:
        window = matting.window_of(case.found.soft, case.found.height)
        if window is not None:
            crop = matting.Crop(case.image, case.found, window)
            used = crop.open & case.counts[window]
            used &= ndimage.distance_transform_edt(crop.prior > 0.5) < 0.1 * crop.height
            weight = np.ones(len(LABELS))
            weight[[LABELS.index(name) for name in RARE]] = list(RARE.values())
            weight = weight[case.labels[window]] * np.where(case.true[window], HEAVIER, 1)
            items.append([crop, case.true[window], weight, used, crop.prior])
    found = []
    for _ in range(matting.STAGES):
        samples, wanted, heavy, features = [], [], [], []
        for crop, true, weight, used, share in items:
            values = crop.features(share)
            pick = rng.permutation(np.flatnonzero(used))[:PIXELS]
            samples.append(values.reshape(len(values), -1)[:, pick])
            wanted.append(true.ravel()[pick])
            heavy.append(weight.ravel()[pick])
            features.append(values.astype(np.float16))
        sides = (np.concatenate(rows) for rows in (wanted, heavy))
        found.append(regression(np.concatenate(samples, 1).T, *sides))
        for item, values in zip(items, features, strict=True):
            item[-1] = item[0].classify(values.astype(np.float32), found[-1])
    return np.stack(found)


def regression(samples: np.ndarray, wanted: np.ndarray, heavy: np.ndarray) -> np.ndarray:
    """Weights of a logistic regression of standardised features with a small ridge."""
    scale = np.maximum(samples.std(0), 1e-3)
    rows = (samples / scale, wanted, heavy)
    x, y, weight = (torch.from_numpy(v.astype(np.float32)) for v in rows)
    factors = torch.zeros(x.shape[1], requires_grad=True)
    loss = torch.nn.BCEWithLogitsLoss(weight)
    optimizer = torch.optim.LBFGS([factors], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(x @ factors, y) + 1e-4 * factors.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    return factors.detach().numpy() / scale


def main(
    world: tuple[Path, ...],
    people: int | None = None,
    images: int = 4,
    fit_to: Path | None = None,
) -> None:
    """Print the table, or fit the coefficients.

    Args:
        world: Folders of `viewsynth world`; the report takes the first.
        people: Of each world; None = all.
        images: Ground images per person.
        fit_to: File for the coefficients; fit them instead of printing the table.
    """
    model = Model(weights.pose_model())
    if fit_to:
        every = [case for place in world for case in cases(place, people, images, model)]
        rows = [[round(float(v), 4) for v in stage] for stage in fit(every)]
        stored = {"features": matting.FEATURES, "weights": rows}
        fit_to.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        return
    every = list(cases(world[0], people, images, model))
    began = time.process_time()
    refined = [matting.refine(case.image, case.found) for case in every]
    print(f"{1000 * (time.process_time() - began) / len(every):.1f} CPU ms per image")
    report(every, [case.found.soft for case in every], refined)


if __name__ == "__main__":
    tyro.cli(main)
