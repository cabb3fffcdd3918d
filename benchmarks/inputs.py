# SPDX-License-Identifier: Apache-2.0
"""Detection and false alarm rates of the checks of input images, and the fit of one of them.

    python benchmarks/inputs.py report WORLD            rates of all checks
    python benchmarks/inputs.py fit WORLD [WORLD ...]   coefficients of `reconstruct.foreign`

Worlds: `viewsynth world --people 200 --images-per-person 8 --instants 0 --seed 0` for the report,
the same with `--seed 1`, and `--people 320 --images-per-person 6 --seed 2`, for the fit, so that no
person is in both. The report takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import foreign_crops
import numpy as np
from foreign_crops import Crop, crops
from PIL import Image

from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct import crop_flags, crowd, find, quality
from viewsynth.reconstruct.parse import parse
from viewsynth.reconstruct.tflite import Model
from viewsynth.records import seed_of
from viewsynth.runtime import weights
from viewsynth.world import shots

APART = (0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)  # distance of two people in a crop, in heights
# Size of the frame, people, and range of their heights in pixels.
FRAMES = (
    ((1280, 720), 6, (80, 400)),
    ((1920, 1080), 8, (80, 500)),
    ((1920, 1080), 8, (70, 200)),
    ((3000, 2000), 8, (150, 900)),
)


# ---- people in an image --------------------------------------------------------------------------


def cut_out(crop: Crop, tall: int) -> tuple[Image.Image, Image.Image, float]:
    """Cut out a person at a given height: image, mask, and column of the trunk's middle."""
    rows, columns = np.nonzero(crop.mask)
    window = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    image, mask = crop.image[window], crop.mask[window]
    scale = tall / len(mask)
    size = (max(round(mask.shape[1] * scale), 1), tall)
    middle = float(np.median(np.nonzero(mask[: int(0.45 * len(mask))])[1])) * scale
    parts = (Image.fromarray(image), Image.fromarray(mask.astype(np.uint8) * 255))
    return (*(part.resize(size, Image.Resampling.BICUBIC) for part in parts), middle)


def ground(rng: np.random.Generator, size: tuple[int, int], crop: Crop) -> Image.Image:
    """Background image: the stretched borders of a crop, with noise."""
    edge = max(crop.image.shape[1] // 10, 2)
    strips = np.concatenate([crop.image[:, :edge], crop.image[:, -edge:]], 1)
    wide = np.asarray(Image.fromarray(strips).resize(size, Image.Resampling.BICUBIC), np.float32)
    return Image.fromarray((wide + rng.normal(0, 4, (*size[::-1], 1))).clip(0, 255).astype("u1"))


def composed(rng, people: list[Crop], apart: float, tall: int, squeezed: bool) -> np.ndarray:
    """Compose a crop of one or two people whose middles are `apart` heights from each other."""
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
    """Print the rate of crops classified as two people, in natural aspect and at 256x128."""
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
    print(f"\nOf {len(some)} unchanged crops of the world, {hits} were classified as two people.")


def report_frames(every: list[Crop], model: Model, count: int = 2) -> None:
    """Print how many people are found in large composed frames."""
    rng, free = np.random.default_rng(2), [c for c in every if c.row["occlusion"] < 0.02]
    print("\n## People in frames\n\n| frame | people | heights | found | false detections |")
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
    """Render people who ride, sit, run or walk, `count` of each: posture and ground image."""
    for posture in filter(None, shots.POSTURES):
        for number in range(count):
            rng = np.random.default_rng(seed_of(seed, "posed", posture, number))
            shot = shots.SimpleShot(
                name=posture,
                posture=posture,
                camid=f"c{number % 7}",
                platform=("cctv", "wearable")[number % 2],
                height=int(rng.integers(90, 260)),
                elevation=float(rng.uniform(0, 25)),
                azimuth=float(rng.uniform(0, 360)),
                distance=float(rng.uniform(4, 12)),
            )
            yield posture, shots.render_one(number, seed, shot).image


def report_flags(every: list[Crop], model: Model, seed: int, count: int = 60) -> None:
    """Print the rates of flags for rendered postures and for crops of the world."""
    print("\n## Flags\n\n| people | crops | riding | sitting | cut | small |")
    print("|---|---|---|---|---|---|")
    groups: dict[str, list[tuple]] = {}
    for kind, image in posed(seed, count):
        groups.setdefault(f"rendered: {kind}", []).append((image, parse(image, model)))
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
    """Print the report, or fit the coefficients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("report", "fit"))
    parser.add_argument("worlds", nargs="+", type=Path)
    parser.add_argument("--identity", help="a ReID model that compares crops as well")
    given = parser.parse_args()
    pose, detector = Model(weights.pose_model()), Model(weights.detector_model())
    if given.what == "fit":
        foreign_crops.fit(given.worlds, pose)
        return
    every = crops(given.worlds[0], pose)
    print(f"# {len(every)} ground crops of {len({crop.pid for crop in every})} people")
    foreign_crops.report(every, None)
    if given.identity:
        foreign_crops.report(every, given.identity)
    report_crowd(every, pose)
    report_frames(every, detector)
    report_flags(every, pose, int(every[0].row["seed"]))


if __name__ == "__main__":
    main()
