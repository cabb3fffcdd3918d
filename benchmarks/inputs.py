# SPDX-License-Identifier: Apache-2.0
"""What the checks of the input find, and whom they accuse wrongly; and how their numbers were made.

    python benchmarks/inputs.py report WORLD            every check, on a world of seed 0
    python benchmarks/inputs.py fit WORLD [WORLD ...]   the coefficients of `reconstruct.foreign`

Worlds: `viewsynth world --people 200 --images-per-person 8 --instants 0 --seed 0` for the report,
the same with `--seed 1`, and `--people 320 --images-per-person 6 --seed 2`, for the fit. Nobody who
is reported on was fitted to. The report takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from viewsynth.bodies import KEYPOINTS
from viewsynth.data import images
from viewsynth.reconstruct import crop_flags, crowd, find, foreign, quality
from viewsynth.reconstruct.parse import Parse, parse
from viewsynth.reconstruct.tflite import Model
from viewsynth.records import seed_of
from viewsynth.reid import encoders, likeness
from viewsynth.runtime import weights
from viewsynth.world import of_person, shots

# Right crops that may stand alone. 2 % may be left out: of two that do not match, one is; of more,
# half as many, because other worlds differ.
SHARE = {"two": 0.02, "more": 0.01}
RIDGE = 1e-3  # penalty of the coefficients
CHUNK = 8  # people, as `generate` has it
PAIRS = 40_000  # pairs of different people
SAME_CAMERA = 0.4  # weight of a pair of one camera: it is easy
APART = (0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)  # heights between two people in a crop
FRAMES = (
    ((1280, 720), 6, (80, 400)),
    ((1920, 1080), 8, (80, 500)),
    ((1920, 1080), 8, (70, 200)),
    ((3000, 2000), 8, (150, 900)),
)


@dataclass(frozen=True, eq=False)
class Crop:
    """A ground picture of the world, its truth and its parse."""

    row: dict
    image: np.ndarray
    mask: np.ndarray
    parse: Parse

    @property
    def pid(self) -> str:
        return self.row["pid"]


def crops(world: Path, model: Model) -> list[Crop]:
    """The ground pictures of a world."""
    rows = map(json.loads, (world / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    found = []
    for row in (row for row in rows if row["view"] == "ground"):
        image = images.read(world / row["file_name"])
        with Image.open(world / row["parts"]) as parts:
            mask = of_person(np.asarray(parts))
        found.append(Crop(row, image, mask, parse(image, model)))
    return found


# ---- foreign crops -------------------------------------------------------------------------------


def fit(worlds: list[Path], model: Model) -> None:
    """Fit the coefficients of the comparison and its limits, and write them."""
    every = [(world.name, crop) for world in worlds for crop in crops(world, model)]
    looks = [foreign.look(crop.image, crop.parse) for _, crop in every]
    pids = np.array([f"{name}/{crop.pid}" for name, crop in every])
    cameras = np.array([crop.row["camid"] for _, crop in every])
    pairs, same = _pairs(pids)
    values = np.array([foreign.features(looks[a], looks[b]) for a, b in pairs])
    weight = np.where(same & (cameras[pairs[:, 0]] == cameras[pairs[:, 1]]), SAME_CAMERA, 1.0)
    weight /= np.where(same, weight[same].sum(), weight[~same].sum())
    limits = _limits(values, same, weight, pairs, pids)
    factors, bias = _logistic(values, same, weight)
    told = {"weights": factors.round(4).tolist(), "bias": round(bias, 4), "limits": limits}
    foreign.COEFFICIENTS.write_text(json.dumps(told) + "\n", encoding="utf-8")
    print(f"wrote {foreign.COEFFICIENTS}: limits {limits}")


def _pairs(pids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of one person, and some of two.  int [N, 2], bool [N]"""
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
    """Ridge logistic regression by Newton's method: factors of the values, and the bias."""
    middle, scale = np.average(values, 0, weight), values.std(0) + 1e-6
    columns = np.c_[(values - middle) / scale, np.ones(len(values))]
    ridge = np.r_[np.full(values.shape[1], RIDGE), 1e-9]
    share, beta = weight / weight.sum(), np.zeros(columns.shape[1])
    for _ in range(40):
        odds = 1 / (1 + np.exp(-np.clip(columns @ beta, -30, 30)))
        slope = columns.T @ (share * (odds - same)) + ridge * beta
        bend = (columns * (share * odds * (1 - odds))[:, None]).T @ columns + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        beta -= step
        if np.abs(step).max() < 1e-6:
            break
    factors = beta[:-1] / scale
    return factors, float(beta[-1] - factors @ middle)


def _limits(values, same, weight, pairs, pids) -> dict[str, float]:
    """Limits at which `SHARE` of the right crops stand alone, of people who were not fitted to."""
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


def report_foreign(every: list[Crop], model: str | None) -> None:
    """Crops of each person, one of them replaced by somebody else's; and right ones.

    Args:
        model: A ReID model that compares them, too, in chunks of people as `generate` does.
    """
    looks = {id(crop): foreign.look(crop.image, crop.parse) for crop in every}
    alike = likeness.Likeness(encoders.load(model)) if model else None
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
                for c in _choices(sets[k : k + CHUNK], looks, alike)
            ]
            pairs = list(zip(choices, wrong, strict=True))
            found = sum(bad in one.out and not one.undecided for one, bad in pairs)
            flagged = sum(one.undecided for one in choices)
            lost = sum(k != bad for one, bad in pairs for k in one.out)
            right = len(sets) * (size - (kind != "right"))
            shares = [found / len(sets), flagged / len(sets), lost / right]
            told = [f"{share:.1%}" for share in shares]
            told[0] = told[0] if kind != "right" else ""
            print(f"| {size}, {kind} | {len(sets)} | {' | '.join(told)} |")


def _choices(sets: list[list[Crop]], looks: dict, alike) -> list[foreign.Choice]:
    """What is kept of the crops of the people of a chunk."""
    owners = np.repeat(np.arange(len(sets)), [len(some) for some in sets])
    more = np.zeros((len(owners),) * 2)
    if alike:
        more = alike([crop.image for some in sets for crop in some], owners.tolist())
    found = []
    for owner, some in enumerate(sets):
        rows = np.flatnonzero(owners == owner)
        odds = foreign.log_odds([looks[id(crop)] for crop in some]) + more[np.ix_(rows, rows)]
        found.append(foreign.decide(odds, [crop.parse.height for crop in some]))
    return found


# ---- people in a picture -------------------------------------------------------------------------


def cut_out(crop: Crop, tall: int) -> tuple[Image.Image, Image.Image, float]:
    """The person alone at a height: picture, mask, and column of the trunk's middle."""
    rows, columns = np.nonzero(crop.mask)
    window = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    image, mask = crop.image[window], crop.mask[window]
    scale = tall / len(mask)
    size = (max(round(mask.shape[1] * scale), 1), tall)
    middle = float(np.median(np.nonzero(mask[: int(0.45 * len(mask))])[1])) * scale
    parts = (Image.fromarray(image), Image.fromarray(mask.astype(np.uint8) * 255))
    return (*(part.resize(size, Image.Resampling.BICUBIC) for part in parts), middle)


def ground(rng: np.random.Generator, size: tuple[int, int], crop: Crop) -> Image.Image:
    """A background: the borders of a picture, stretched, with noise."""
    edge = max(crop.image.shape[1] // 10, 2)
    strips = np.concatenate([crop.image[:, :edge], crop.image[:, -edge:]], 1)
    wide = np.asarray(Image.fromarray(strips).resize(size, Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray((wide + rng.normal(0, 4, (*size[::-1], 1))).clip(0, 255).astype("u1"))


def composed(rng, people: list[Crop], apart: float, tall: int, squeezed: bool) -> np.ndarray:
    """A crop of one or two people, their middles `apart` heights from each other."""
    cuts = [cut_out(crop, round(tall * rng.uniform(0.93, 1.07))) for crop in people]
    lefts = [place * apart * tall - cut[2] for place, cut in enumerate(cuts)]
    order = rng.permutation(len(cuts)).tolist()
    room, top = rng.uniform(0.03, 0.1) * tall, round(rng.uniform(0.02, 0.08) * tall)
    left = min(lefts) - room
    right = max(x + cut[0].width for x, cut in zip(lefts, cuts, strict=True)) + room
    high = max(cut[0].height for cut in cuts) + 2 * top
    scene = ground(rng, (round(right - left), high), people[0])
    for k in order:
        image, mask, _ = cuts[k]
        scene.paste(image, (round(lefts[k] - left), high - top - image.height), mask)
    if squeezed:
        scene = scene.resize((128, 256), Image.Resampling.BICUBIC)
    return np.asarray(scene)


def report_crowd(every: list[Crop], model: Model, count: int = 30) -> None:
    """Composed pairs and single people, natural and squeezed to 256x128."""
    rng, free = np.random.default_rng(1), [c for c in every if c.row["occlusion"] < 0.02]
    print("\n## Two people in a crop\n\n| | natural | squeezed to 256x128 |\n|---|---|---|")
    for apart in (None, *APART):
        shares = []
        for squeezed in (False, True):
            hits = 0
            for _ in range(count if apart else 4 * count):
                a, b = rng.choice(len(free), 2, replace=False)
                people = [free[a], free[b]] if apart else [free[a]]
                image = composed(rng, people, apart or 0, int(rng.integers(60, 250)), squeezed)
                hits += crowd.is_crowd(image, model)
            shares.append(f"{hits / (count if apart else 4 * count):.0%}")
        name = f"found, {apart} heights apart" if apart else "single people, falsely found"
        print(f"| {name} | {' | '.join(shares)} |")
    some = [free[k] for k in rng.permutation(len(free))[:200]]
    hits = sum(crowd.is_crowd(crop.image, model) for crop in some)
    print(f"\nOf {len(some)} crops of the world as they are, {hits} were called two people.")


def report_frames(every: list[Crop], model: Model, count: int = 2) -> None:
    """People pasted into large frames."""
    rng, free = np.random.default_rng(2), [c for c in every if c.row["occlusion"] < 0.02]
    print("\n## People in frames\n\n| frame | people | heights | found | more than are there |")
    print("|---|---|---|---|---|")
    for size, people, heights in FRAMES:
        there = found = more = 0
        for _ in range(count):
            frame, truth = _frame(rng, free, size, people, heights)
            boxes = find.find(frame, model)
            hits = sum(any(_holds(box, one) for box in boxes) for one in truth)
            there, found, more = there + len(truth), found + hits, more + len(boxes) - hits
        span = f"{heights[0]}-{heights[1]}"
        print(f"| {size[0]}x{size[1]} | {there} | {span} | {found} | {max(more, 0)} |")


def _frame(rng, free, size, people, heights) -> tuple[np.ndarray, list[tuple]]:
    scene, truth = ground(rng, size, free[int(rng.integers(len(free)))]), []
    for _ in range(100 * people):
        tall = round(float(np.exp(rng.uniform(*np.log(heights)))))
        image, mask, _ = cut_out(free[int(rng.integers(len(free)))], tall)
        x, y = (int(rng.integers(max(a - b, 1))) for a, b in zip(size, image.size, strict=True))
        middle = x + image.width / 2
        near = [abs(middle - (o[0] + o[2]) / 2) < 0.35 * max(tall, o[3] - o[1]) for o in truth]
        if len(truth) < people and not any(near):
            scene.paste(image, (x, y), mask)
            truth.append((x, y, x + image.width, y + tall))
    return np.asarray(scene), truth


def _holds(box: tuple, person: tuple) -> bool:
    tall, middle = person[3] - person[1], (person[0] + person[2]) / 2
    overlap = min(box[3], person[3]) - max(box[1], person[1])
    return box[0] < middle < box[2] and overlap > 0.75 * tall and box[3] - box[1] < 1.6 * tall


# ---- flags ---------------------------------------------------------------------------------------


def posed(seed: int, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Posture and ground picture of people who ride, sit, run or walk, `count` of each."""
    for posture in filter(None, shots.POSTURES):
        for number in range(count):
            rng = np.random.default_rng(seed_of(seed, "posed", posture, number))
            shot = shots.Simple(
                name=posture,
                posture=posture,
                camid=f"c{number % 7}",
                platform=("cctv", "wearable")[number % 2],
                height=int(rng.integers(90, 260)),
                elevation=float(rng.uniform(0, 25)),
                azimuth=float(rng.uniform(0, 360)),
                distance=float(rng.uniform(4, 12)),
            )
            yield posture, shots.one(number, seed, shot).image


def report_flags(every: list[Crop], model: Model, seed: int, count: int = 60) -> None:
    """Riders and sitters, drawn for this, beside who walks, stands or runs."""
    print("\n## Flags\n\n| people | crops | riding | sitting | cut | small |")
    print("|---|---|---|---|---|---|")
    groups: dict[str, list[tuple]] = {}
    for kind, image in posed(seed, count):
        groups.setdefault(f"drawn: {kind}", []).append((image, parse(image, model)))
    for crop in every:
        kind = "cyclists" if crop.row["pose"]["kind"] == "cycle" else "others"
        hidden = "" if crop.row["occlusion"] < 0.05 else ", partly hidden"
        groups.setdefault(f"world: {kind}{hidden}", []).append((crop.image, crop.parse))
    free = [crop for crop in every if crop.row["occlusion"] < 0.02][: 2 * count]
    for name, images_ in _cuts(free):
        groups[f"cut at the {name}"] = [(image, parse(image, model)) for image in images_]
    for tall in (120, 80, 60, 50, 40):
        shrunk = [_shrunk(crop.image, tall) for crop in free[:count]]
        groups[f"shrunk to {tall} pixels"] = [(image, parse(image, model)) for image in shrunk]
        large = [np.asarray(Image.fromarray(i).resize((128, 256))) for i in shrunk]
        groups[f"shrunk to {tall}, enlarged to 256"] = [(i, parse(i, model)) for i in large]
    for name, some in sorted(groups.items()):
        flags = Counter(
            flag
            for image, found in some
            if found.presence >= 0.3
            for flag in crop_flags.flags(image, found)[0]
        )
        lost = sum(bool(quality.unusable(found, image, model)) for image, found in some)
        shares = [f"{flags[f] / len(some):.0%}" for f in ("riding", "sitting", "cut", "small")]
        rejected = f" ({lost} rejected)" if lost else ""
        print(f"| {name} | {len(some)}{rejected} | {' | '.join(shares)} |")


def _cuts(free: list[Crop]) -> Iterator[tuple[str, list[np.ndarray]]]:
    rows = {
        name: [KEYPOINTS.index(f"{side}_{name}") for side in ("left", "right")]
        for name in ("knee", "ankle", "hip")
    }
    for name, a, b in (
        ("knees", "knee", "knee"),
        ("shins", "knee", "ankle"),
        ("thighs", "hip", "knee"),
    ):
        images_ = []
        for crop in free:
            points = np.array(crop.row["keypoints"])
            row = round((points[rows[a], 1].max() + points[rows[b], 1].max()) / 2)
            images_.append(np.ascontiguousarray(crop.image[: max(row, 16)]))
        yield name, images_


def _shrunk(image: np.ndarray, tall: int) -> np.ndarray:
    size = (max(round(image.shape[1] * tall / image.shape[0]), 2), tall)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def main() -> None:
    """The two programs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("report", "fit"))
    parser.add_argument("worlds", nargs="+", type=Path)
    parser.add_argument("--identity", help="a ReID model that compares crops, too")
    given = parser.parse_args()
    pose, detector = Model(weights.pose_model()), Model(weights.detector_model())
    if given.what == "fit":
        fit(given.worlds, pose)
        return
    every = crops(given.worlds[0], pose)
    print(f"# {len(every)} ground crops of {len({crop.pid for crop in every})} people")
    report_foreign(every, None)
    if given.identity:
        report_foreign(every, given.identity)
    report_crowd(every, pose)
    report_frames(every, detector)
    report_flags(every, pose, int(every[0].row["seed"]))


if __name__ == "__main__":
    main()
