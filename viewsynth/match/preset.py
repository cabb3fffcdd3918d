# SPDX-License-Identifier: Apache-2.0
"""The preset of a match: framing, compression and shadows of the crops, and its comments."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from viewsynth.match import measures
from viewsynth.match.crops import Crop
from viewsynth.match.estimate import PRIOR, Found
from viewsynth.render.options import LIMITS, Scene, Sensor, span

SPREAD = (10, 90)  # per cent: quantiles over the crops that are the ends of a range
SHADOWS = 15  # crops with a shadow, with fewer of which the shadows keep their defaults
SEPARATE = 0.72  # share of the variance of the ground's brightness that is between light and dark


def start(crops: Sequence[Crop], oversize: int) -> tuple[Sensor, list[str]]:
    """Framing and compression, which need no simulation.

    Args:
        crops: The filmed crops.
        oversize: JPEG quality from which the files' own tables are those of a copy, and say
            nothing about the camera.

    Returns:
        A sensor with pixels, margin and chroma, and with jpeg where the files say it; and the names
        of the values that are known.
    """
    longest = [max(one.framing["tall"], one.framing["wide"]) for one in crops]
    sides = [one.framing[side] for one in crops for side in ("left", "top", "right", "bottom")]
    pixels = np.percentile(longest, SPREAD)
    margin = np.percentile(sides, SPREAD)
    values = {"pixels": _ends("pixels", pixels), "margin": _ends("margin", margin)}
    tables = [one.compression for one in crops if one.compression]
    fixed = []
    if 2 * len(tables) > len(crops):
        qualities = [quality for quality, _ in tables]
        if np.median(qualities) < oversize:
            fixed, values["jpeg"] = ["jpeg"], _ends("jpeg", np.percentile(qualities, SPREAD))
            names = Counter(name for _, name in tables)
            values["chroma"] = max(sorted(names), key=lambda name: names[name])
    return Sensor(**values), fixed


def rescaled(sensor: Sensor, crops: Sequence[Crop], masks: Sequence[np.ndarray]) -> Sensor:
    """Correct the height of people in pixels by the size that they have in views made with it.

    Args:
        sensor: See `start`.
        crops: The filmed crops.
        masks: Masks of made views.
    """
    made = [framing for mask in masks if (framing := measures.framing(mask))]
    sizes = [
        np.median([max(one["tall"], one["wide"]) for one in rows])
        for rows in ([one.framing for one in crops], made)
    ]
    ends = np.array(span(sensor.pixels)) * sizes[0] / sizes[1]
    return dataclasses.replace(sensor, pixels=_ends("pixels", ends))


def scene(crops: Sequence[Crop], sensor: Sensor) -> Scene:
    """Shadows, where enough crops show one.

    The ground of a crop in the sun has two levels of brightness, which Otsu's threshold separates.

    Args:
        crops: The filmed crops.
        sensor: Estimated; the slope of its tone curve is taken out.
    """
    found = [value for one in crops if (value := shadow(one.image, one.mask)) is not None]
    if len(found) < SHADOWS:
        return Scene()
    slope = sum(span(sensor.contrast)) / 2

    def before(level: float) -> float:
        up, away = level ** (1 / slope), (1 - level) ** (1 / slope)
        return up / (up + away)

    dark = [1 - before(low) / before(high) for low, high in found]
    ends = np.clip(np.percentile(dark, SPREAD), 0.12, 0.85).round(3).tolist()
    overcast = min(round(1 - len(found) / len(crops), 3), 1.0)
    return Scene(shadow=tuple(ends), overcast=overcast)


def shadow(image: np.ndarray, mask: np.ndarray) -> tuple[float, float] | None:
    """Brightness (sRGB, [0, 1]) of shaded and of lit ground; None without a clear shadow.

    Args:
        image: sRGB.  uint8 [H, W, 3]
        mask: Alpha of the person.  [H, W]
    """
    ground = mask < 0.05
    if ground.sum() < 200:
        return None
    grey = ndimage.gaussian_filter(np.asarray(image, float) @ [0.299, 0.587, 0.114], 1.0) / 255
    values = np.sort(grey[ground])
    share = np.arange(1, len(values)) / len(values)
    sums = np.cumsum(values)[:-1]
    low = sums / np.arange(1, len(values))
    high = (values.sum() - sums) / np.arange(len(values) - 1, 0, -1)
    between = share * (1 - share) * (high - low) ** 2
    k = int(between.argmax())
    clear = between[k] > SEPARATE * values.var() and 0.05 < share[k] < 0.6
    if not clear or low[k] > 0.8 * high[k]:
        return None
    return float(np.clip(low[k], 0.01, 0.99)), float(np.clip(high[k], 0.01, 0.99))


def comments(crops: Sequence[Crop], found: Found, textures: int) -> str:
    """Comments at the head of the preset: from what it was made, and how sure each value is.

    Args:
        crops: The filmed crops.
        found: The estimate.
        textures: Number of textures of the ground.
    """
    lines = [
        f"Sensor and scene of {len(crops)} aerial images, estimated by viewsynth match.",
        "Command:  accelerate launch generate.py <this file> --data.root DIR",
        f"Grounds:  {textures} textures",
        "Each view draws its own values from these ranges. Width of the range, and standard error",
        "of its middle:",
    ]
    for name in ("pixels", "margin", *PRIOR):
        low, high = span(getattr(found.sensor, name))
        error = f"{found.error[name]:.2g}" if name in found.error else "-"
        how = "" if name in found.error or name not in PRIOR else "  known or default"
        lines.append(f"  {name:13s} {high - low:8.3g} {error:>9s}{how}")
    return "".join(f"# {line}\n" for line in lines)


def _ends(name: str, values: np.ndarray) -> tuple[float, float]:
    """A range within the limits of the value, three digits."""
    low, high, _ = LIMITS[name]
    low = 5 if name == "jpeg" else low
    return tuple(float(f"{end:.3g}") for end in np.clip(values, low, high).tolist())
