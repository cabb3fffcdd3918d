# SPDX-License-Identifier: Apache-2.0
"""From the figures of many filmed crops to the ranges of `Sensor`, by simulated moments.

Clean images of people go through many random sensors and are measured.

- The centres of what acts on detail and lightness (`FINE`) are those whose expected figures are
  nearest to the mean of the filmed ones: a quadratic model of the figures is fitted to the
  simulations, and figures count by the inverse of their covariance, the one between people
  included. Of colour they are a ridge regression from the figures of each crop.
- The spread is that of the regression's answers over the crops, less its own error.
- As filmed people and made ones differ in more than the sensor, a few steps then move five centres
  until what the eye compares first (`measures.AIMS`) has the same median in both.

Source: the method of simulated moments (McFadden, Econometrica 57(5), 1989) and regression
adjustment (Beaumont, Zhang and Balding, Genetics 162(4), 2002); ours corrects the attenuation of
the ridge regression on held-out people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from viewsynth.match import measures
from viewsynth.records import seed_of
from viewsynth.render.options import Sensor, span
from viewsynth.render.sensor import expose
from viewsynth.runtime.devices import one_thread

# Values of the simulated sensors.
PRIOR = {
    "exposure": (-0.8, 0.8),
    "haze": (0.0, 0.08),
    "blur": (0.2, 1.6),
    "noise": (0.0, 0.03),
    "chroma_noise": (0.0, 0.03),
    "denoising": (0.0, 0.05),
    "sharpening": (0.0, 3.0),
    "halo": (0.7, 2.2),
    "contrast": (0.8, 1.8),
    "saturation": (0.5, 2.2),
    "warmth": (-0.15, 0.15),
    "tint": (-0.08, 0.08),
    "jpeg": (25.0, 98.0),
}
SIMULATED = 1200  # exposures that the regression learns from, in each of the rounds
ROUNDS = 2
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
CLIP = 4.0  # standard deviations at which figures are clipped
# Values whose centre comes from the mean figures of all crops.
FINE = (
    *("blur", "noise", "denoising", "sharpening", "halo", "jpeg"),
    *("contrast", "exposure", "haze"),
)
GAP = 0.01  # variance of what people and places differ in beyond the sensor, of each figure
TOLD = 0.25  # attenuation below which a value is not told by the figures: its default stays
QUANTILES = (0.1, 0.9)
MATCHED = 96  # exposures whose medians are compared with the filmed ones
STEPS = 5
DAMPING = 3e-4
HOLD = 1e-3  # pull back to the estimate: filmed images show more than people on plain ground
# The value that moves each figure of `measures.AIMS`, a step to differentiate by, and the longest.
KNOBS = (
    *(("exposure", 0.15, 0.4), ("haze", 0.02, 0.06)),
    *(("contrast", 0.1, 0.4), ("saturation", 0.1, 0.5)),
)
SHARP = ("sharpening", 0.3, 1.0)


@dataclass(frozen=True, eq=False)
class Clean:
    """A person before the sensor.

    Args:
        image: sRGB in [0, 1].  float32 [3, H, W]
        mask: Alpha of the person, [0, 1].  [H, W]
        pid: Who it is; views of one person are not independent.
    """

    image: Tensor
    mask: np.ndarray
    pid: str


@dataclass(frozen=True, eq=False)
class Found:
    """What was estimated.

    Args:
        sensor: Its ranges.
        error: Standard error of the centre of each range.
        told: How much of a value its estimate follows on held-out people, 0 to 1, by name; those
            below `TOLD` keep their default.
        moved: By how much the last steps moved each centre.
    """

    sensor: Sensor
    error: dict[str, float]
    told: dict[str, float]
    moved: dict[str, float] = field(default_factory=dict)


def estimate(
    filmed: Sequence[dict[str, float]],
    clean: Sequence[Clean],
    start: Sensor,
    fixed: Sequence[str] = (),
    seed: int = 0,
) -> Found:
    """Estimate the sensor of filmed crops.

    Args:
        filmed: Figures of each crop, see `measures.measure`.
        clean: At least four people before the sensor, at the size of the crops.
        start: Gives what is not estimated, and the values named in `fixed`.
        fixed: Values that are known, e.g. "jpeg" where the files say it.
        seed: Of all draws.

    Returns:
        The ranges, before `corrected`.

    Raises:
        ValueError: If there are no crops, or fewer than four people.
    """
    if not filmed or (people := len({one.pid for one in clean})) < 4:
        raise ValueError(
            "expected filmed crops and clean images of at least 4 people, got "
            f"{len(filmed)} crops and {people} people"
        )
    prior, names = {k: ends for k, ends in PRIOR.items() if k not in fixed}, sorted(filmed[0])
    seen = np.array([[row[name] for name in names] for row in filmed])
    sensor, error, told = {}, {}, {}
    with one_thread():
        for number in range(ROUNDS):
            figures, values, group = simulate(clean, start, prior, seed_of(seed, number))
            answers, slope, noise = _regress(figures, values, group, seen)
            centres = _centres(names, list(prior), (figures, values, group), seen)
            for k, name in enumerate(prior):
                if slope[k] < TOLD and name not in centres:
                    continue
                told[name] = round(float(np.clip(slope[k], 0, 1)), 3)
                sensor[name], error[name] = _spread(name, answers[:, k], noise[k], told[name])
                if name in centres:
                    middle, error[name] = centres[name]
                    by = middle - sum(sensor[name]) / 2
                    sensor[name] = _range(name, *(end + by for end in sensor[name]))
            # The figures depend on the values more evenly near the answer.
            prior = {name: _nearer(name, sensor.get(name)) for name in prior}
    return Found(dataclasses.replace(start, **sensor), error, told)


def _centres(
    names: list[str], wanted: list[str], simulated: tuple, seen: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Centre and standard error of each value of `FINE`, see the module."""
    figures, values, group = simulated
    used = [k for k, name in enumerate(names) if _of_detail(name) and figures[:, k].std() > 1e-9]
    own = [k for k, name in enumerate(wanted) if name in FINE]
    if not own:
        return {}
    figures, seen, values = figures[:, used], seen[:, used], values[:, own]
    mean, scale = figures.mean(0), figures.std(0)
    x, y = (np.clip((rows - mean) / scale, -CLIP, CLIP) for rows in (figures, seen))
    low, high = values.min(0), values.max(0)
    unit = 2 * (values - low) / (high - low) - 1
    design = _quadratic(unit)
    ridge = 0.3 * np.eye(design.shape[1])
    model = np.linalg.solve(design.T @ design + ridge, design.T @ x)
    weight = _precision(x - design @ model, group, len(y))
    cut = len(y) // 10
    aim = np.sort(y, axis=0)[cut : len(y) - cut].mean(0)
    found, step = np.zeros(len(own)), 1e-4 * np.eye(len(own))
    for _ in range(60):  # damped Gauss-Newton, with a weak prior at the middle
        here = (_quadratic(found[None]) @ model)[0]
        slopes = ((_quadratic(found + step) @ model - here) / 1e-4).T
        curve = slopes.T @ weight @ slopes + np.eye(len(own))
        change = np.linalg.solve(curve, slopes.T @ weight @ (aim - here) - found)
        found = np.clip(found + 0.5 * change, -1, 1)
    error = np.sqrt(np.diag(np.linalg.inv(curve))) * (high - low) / 2
    middle = low + (found + 1) / 2 * (high - low)
    every = zip(own, middle, error, strict=True)
    return {wanted[k]: (float(value), float(wrong)) for k, value, wrong in every}


def _of_detail(name: str) -> bool:
    """Whether a figure has nothing to do with colour."""
    colour = (".a", ".b", ".chroma", ".vivid")
    return not (
        name.startswith(("noise.red", "noise.blue", "look", "aim")) or name.endswith(colour)
    )


def _quadratic(unit: np.ndarray) -> np.ndarray:
    """All terms up to the second degree: [N, V] -> [N, T]."""
    first, second = np.triu_indices(unit.shape[1])
    return np.concatenate([np.ones((len(unit), 1)), unit, unit[:, first] * unit[:, second]], axis=1)


def _precision(rest: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Inverse covariance of the mean figures of `count` crops around the model.

    Args:
        rest: Residuals of the simulations.  [N, F]
        group: Person of each.  [N]
        count: Number of filmed crops.
    """
    people = np.unique(group)
    means = np.stack([rest[group == one].mean(0) for one in people])
    between = np.cov(means.T) * (1 / len(people) + 1 / min(count, 8))
    return np.linalg.inv(rest.T @ rest / len(rest) / count + between + GAP * np.eye(rest.shape[1]))


def _spread(
    name: str, answers: np.ndarray, noise: float, told: float
) -> tuple[tuple[float, float], float]:
    """Range of a value and the standard error of its centre, from the answers of all crops.

    The regression's variance is taken away; what is left is narrowed by how little the figures
    tell, because too wide a spread costs more than too narrow a one, but not below the error.
    """
    answers = np.clip(answers, *PRIOR[name])
    low, middle, high = np.quantile(answers, (QUANTILES[0], 0.5, QUANTILES[1]))
    spread = max((high - low) / 2.563, 1e-9)
    share = told * np.sqrt(max(1 - (noise / spread) ** 2, 0))
    error = float(1.253 * spread / np.sqrt(len(answers)))
    down, up = max(share * (middle - low), error), max(share * (high - middle), error)
    return _range(name, middle - down, middle + up), error


def _nearer(name: str, found: tuple[float, float] | None) -> tuple[float, float]:
    """The half of a prior that is nearest to what was found."""
    low, high = PRIOR[name]
    if found is None:
        return low, high
    middle = np.clip(sum(found) / 2, low + (high - low) / 4, high - (high - low) / 4)
    return float(middle - (high - low) / 4), float(middle + (high - low) / 4)


def simulate(
    clean: Sequence[Clean], start: Sensor, prior: dict[str, tuple[float, float]], seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expose clean images with random sensors and measure them.

    Args:
        clean: The images.
        start: Gives the values that are not drawn.
        prior: The range that each value is drawn from, by name.
        seed: Of the draws.

    Returns:
        Figures [N, F] in the order of their names, values [N, V], and the number of the person [N].
    """
    wide = dataclasses.replace(start, **prior)
    people = sorted({one.pid for one in clean})
    figures, values, group = [], [], []
    for number in range(SIMULATED):
        own, which = seed_of(seed, "simulated", number), number % len(clean)
        one = wide.draw(own)
        found = measures.measure(expose(clean[which].image, one, own), clean[which].mask)
        figures.append([found[name] for name in sorted(found)])
        values.append([getattr(one, name) for name in prior])
        group.append(people.index(clean[which].pid))
    return np.array(figures), np.array(values), np.array(group)


def _regress(
    figures: np.ndarray, values: np.ndarray, group: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values of each filmed crop, without attenuation; attenuation and error of each value.

    Figures whose filmed median no simulation reaches say nothing and are left out.
    """
    inside = np.quantile(figures, (0.01, 0.99), axis=0)
    middle = np.median(seen, axis=0)
    keep = (middle >= inside[0]) & (middle <= inside[1]) & (figures.std(0) > 1e-9)
    figures, seen = figures[:, keep], seen[:, keep]
    mean, scale = figures.mean(0), figures.std(0)
    x, y = (np.clip((rows - mean) / scale, -CLIP, CLIP) for rows in (figures, seen))
    centre, width = values.mean(0), values.std(0)
    target = (values - centre) / width
    folds = [group % 2 == half for half in (0, 1)]
    held = np.zeros((len(RIDGES), *target.shape))
    for test in folds:
        held[:, test] = _ridge(x[~test], target[~test], x[test])
    best = ((held - target) ** 2).mean(1).argmin(0)
    made = _ridge(x, target, y)
    answers, slope, noise = np.empty((len(y), target.shape[1])), [], []
    for k, ridge in enumerate(best):
        b, a = np.polyfit(target[:, k], held[ridge, :, k], 1)
        rest = held[ridge, :, k] - a - b * target[:, k]
        slope.append(b)
        noise.append(rest.std() / max(b, 1e-3) * width[k])
        answers[:, k] = centre[k] + width[k] * (made[ridge, :, k] - a) / max(b, 1e-3)
    return answers, np.array(slope), np.array(noise)


def _ridge(x: np.ndarray, target: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Kernel ridge regression with all terms up to the second degree, for each of `RIDGES`."""
    x, target, asked = (torch.from_numpy(np.ascontiguousarray(t)) for t in (x, target, asked))
    width = x.shape[1]
    kernel, across = ((1 + rows @ x.T / width) ** 2 for rows in (x, asked))
    eye = torch.eye(len(x), dtype=x.dtype)
    return np.stack(
        [(across @ torch.linalg.solve(kernel + r * eye, target)).numpy() for r in RIDGES]
    )


def corrected(
    found: Found, filmed: Sequence[dict[str, float]], clean: Sequence[Clean], seed: int = 0
) -> Found:
    """Move the centres of five values until the look of made and filmed images agrees.

    Newton steps on the medians of `measures.AIMS`, with the same draws at each step. Where no
    sharpening is left to take away, the lens blurs more.

    Args:
        found: See `estimate`.
        filmed: Figures of each filmed crop.
        clean: People before the sensor.
        seed: Of the draws.

    Returns:
        The same with other centres.
    """
    aim = np.array([np.median([row[f"aim.{key}"] for row in filmed]) for key in measures.AIMS])
    sensor, knobs = found.sensor, (*KNOBS, SHARP)
    unit = np.array([step for _, step, _ in knobs])
    with one_thread():
        for _ in range(STEPS):
            here = look(sensor, clean, seed)
            nearby = [look(move(sensor, name, step), clean, seed) for name, step, _ in knobs]
            slopes = [(there - here) / k[1] for k, there in zip(knobs, nearby, strict=True)]
            jacobian = np.stack(slopes, 1)
            # Figures and values in units of what is plainly seen; light damping keeps the steps
            # in weak directions short.
            scaled = jacobian / np.maximum(aim, 8)[:, None] * unit
            damped = scaled.T @ scaled + (DAMPING + HOLD) * np.eye(len(knobs))
            off = [_middle(sensor, name) - _middle(found.sensor, name) for name, *_ in knobs]
            pull = scaled.T @ ((aim - here) / np.maximum(aim, 8)) - HOLD * np.array(off) / unit
            change = unit * np.linalg.solve(damped, pull)
            for (name, _, most), by in zip(knobs, change, strict=True):
                sensor = move(sensor, name, float(np.clip(by, -most, most)))
    moved = {
        name: round(_middle(sensor, name) - sum(span(value)) / 2, 4)
        for name, value in vars(found.sensor).items()
        if name in PRIOR and value != getattr(sensor, name)
    }
    return dataclasses.replace(found, sensor=sensor, moved=moved)


def look(sensor: Sensor, clean: Sequence[Clean], seed: int) -> np.ndarray:
    """Medians of `measures.AIMS` over made images.

    Args:
        sensor: Its ranges are drawn from.
        clean: People before the sensor.
        seed: Of the draws.

    Returns:
        float64 [5]
    """
    rows = []
    for number in range(max(MATCHED, len(clean))):
        own, one = seed_of(seed, "look", number), clean[number % len(clean)]
        rows.append(list(measures.aims(expose(one.image, sensor, own), one.mask).values()))
    return np.median(rows, axis=0)


def move(sensor: Sensor, name: str, by: float) -> Sensor:
    """Shift a range; sharpening below 0 becomes blur.

    Args:
        sensor: The sensor.
        name: The value.
        by: Shift of both ends, in the unit of the value.
    """
    low, high = span(getattr(sensor, name))
    changes = {name: _range(name, low + by, high + by)}
    below = (low + high) / 2 + by
    blur = span(sensor.blur)
    if name == "sharpening" and below < 0:
        changes["blur"] = _range("blur", blur[0] - 0.3 * below, blur[1] - 0.3 * below)
    return dataclasses.replace(sensor, **changes)


def _middle(sensor: Sensor, name: str) -> float:
    return sum(span(getattr(sensor, name))) / 2


def _range(name: str, low: float, high: float) -> tuple[float, float]:
    """A range within the limits of the value, rounded to what an estimate can tell."""
    ends = np.clip([low, high], *PRIOR[name]).tolist()
    return tuple(float(f"{end:.3g}") for end in ends)
