# SPDX-License-Identifier: Apache-2.0
"""Figures of one crop that depend on the camera: tone, sharpness, halo, noise, compression.

Made and filmed images are measured by the same functions, so that a figure need not be the value of
an option: `viewsynth.match.estimate` learns from simulated images which values give which figures.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image, JpegImagePlugin
from scipy import ndimage

from viewsynth.metrics import colours

SHARES = (2, 10, 25, 50, 75, 90, 98)  # quantiles of lightness, per cent
BANDS = np.array([0.04, 0.08, 0.13, 0.18, 0.23, 0.28, 0.34, 0.41, 0.5])  # cycles per pixel
HEIGHT = 128  # pixels: height at which `look` compares images of different size
LEAST = 12  # pixels of a region, with fewer of which it is not measured
# Standard deviation 1 for independent noise of standard deviation 1.
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
MAD = 1.4826  # standard deviation of normal noise over its median absolute deviation
LAGS = 7  # pixels: reach of the autocorrelation of the gradient
LOOK = ("lightness", "range", "chroma", "laplacian")
AIMS = ("lightness", "dark", "range", "chroma", "laplacian")


def measure(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """All figures of a crop that an estimate is made from.

    Args:
        image: sRGB.  uint8 [H, W, 3]
        mask: Alpha of the person, [0, 1].  [H, W]

    Returns:
        Figures by name; all finite.
    """
    lab = colours.lab(image)
    values = np.asarray(image, np.float64)
    luma = values @ [0.299, 0.587, 0.114]
    found = _tone("person", lab, mask > 0.7) | _tone("ground", lab, mask < 0.1)
    found |= _spectrum(luma) | _edges(luma) | _noise(values, luma) | _blocks(luma)
    found |= {f"look.{key}": value for key, value in look(image).items()}
    return found | {f"aim.{key}": value for key, value in aims(image, mask).items()}


def aims(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """What filmed and made images shall agree in: `look`, with the tone of the person alone.

    The ground has its own colours, which the textures carry.

    Args:
        image: sRGB.  uint8 [H, W, 3]
        mask: Alpha of the person, [0, 1].  [H, W]

    Returns:
        Median, 2 % quantile and range of the person's lightness, mean chroma of the person, and
        the mean absolute Laplacian of the image.
    """
    where = mask > 0.7 if (mask > 0.7).sum() >= LEAST else np.ones(mask.shape, bool)
    part = colours.lab(image[where])
    low, middle, high = np.percentile(part[:, 0], (2, 50, 98))
    chroma = np.hypot(part[:, 1], part[:, 2]).mean()
    values = (middle, low, high - low, chroma, look(image)["laplacian"])
    return dict(zip(AIMS, map(float, values), strict=True))


def look(image: np.ndarray) -> dict[str, float]:
    """What the eye compares first, at a common height of `HEIGHT` pixels.

    Args:
        image: sRGB.  uint8 [H, W, 3]

    Returns:
        Median lightness L*, its range from 2 % to 98 %, the mean chroma, and the mean absolute
        Laplacian of L* (4 neighbours).
    """
    width = max(round(image.shape[1] * HEIGHT / image.shape[0]), 3)
    scaled = Image.fromarray(image).resize((width, HEIGHT), Image.Resampling.BICUBIC)
    lab = colours.lab(np.asarray(scaled))
    low, middle, high = np.percentile(lab[..., 0], (2, 50, 98))
    chroma = np.hypot(lab[..., 1], lab[..., 2]).mean()
    bend = np.abs(ndimage.laplace(lab[..., 0], mode="nearest")).mean()
    return dict(zip(LOOK, map(float, (middle, high - low, chroma, bend)), strict=True))


def _tone(name: str, lab: np.ndarray, where: np.ndarray) -> dict[str, float]:
    """Quantiles of lightness, chroma, and the mean colour of a region."""
    if where.sum() < LEAST:
        where = np.ones_like(where)
    part = lab[where]
    found = {
        f"{name}.light{share}": float(value)
        for share, value in zip(SHARES, np.percentile(part[:, 0], SHARES), strict=True)
    }
    chroma = np.hypot(part[:, 1], part[:, 2])
    found |= {f"{name}.chroma": float(chroma.mean()), f"{name}.vivid": _high(chroma)}
    dark = part[part[:, 0] <= np.percentile(part[:, 0], 20)]
    for key, rows in (("", part), (".dark", dark)):
        found |= {f"{name}{key}.a": float(np.median(rows[:, 1]))}
        found |= {f"{name}{key}.b": float(np.median(rows[:, 2]))}
    return found


def _high(values: np.ndarray) -> float:
    return float(np.percentile(values, 95))


def _spectrum(luma: np.ndarray) -> dict[str, float]:
    """Logarithm of the radial power spectrum in bands, with a Hann window."""
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in luma.shape))
    power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2 / (window**2).sum()
    rows, columns = (np.fft.fftfreq(size) for size in luma.shape)
    band = np.digitize(np.hypot(rows[:, None], columns), BANDS)
    found = {}
    for number in range(1, len(BANDS)):
        inside = power[band == number]
        found[f"power{number}"] = float(np.log(inside.mean() + 0.05)) if len(inside) else 0.0
    return found


def _edges(luma: np.ndarray) -> dict[str, float]:
    """Mean profile across the strongest edges: its width tells blur, its overshoot the halo.

    Profiles of nine pixels along rows and columns, in the direction of rising brightness, from -1
    to 1 between the means of both outer pixels.
    """
    profiles = []
    for one in (luma, luma.T):
        step = one[:, 2:] - one[:, :-2]
        inner = step[:, 4:-4]
        if inner.size < LEAST:
            continue
        peak = np.abs(inner) >= np.maximum(np.abs(step[:, 3:-5]), np.abs(step[:, 5:-3]))
        strong = np.abs(inner) >= max(np.percentile(np.abs(inner), 95), 12)
        row, column = np.nonzero(peak & strong)
        lines = one[row[:, None], column[:, None] + 5 + np.arange(-4, 5)]
        rising = np.where(inner[row, column] < 0, -1, 1)[:, None] * lines
        profiles.append(rising)
    every = np.concatenate(profiles) if profiles else np.zeros((0, 9))
    names = ("dark3", "dark2", "dark1", "light1", "light2", "light3", "middle")
    if len(every) < LEAST:
        return {f"edge.{name}": 0.0 for name in names} | _lags(luma)
    low, high = every[:, :1], every[:, -1:]
    profile = np.median((2 * every - low - high) / np.maximum(high - low, 8), axis=0)
    picked = (*profile[1:4], *profile[5:8], profile[4])
    found = {f"edge.{n}": float(np.clip(v, -4, 4)) for n, v in zip(names, picked, strict=True)}
    return found | _lags(luma)


def _lags(luma: np.ndarray) -> dict[str, float]:
    """Autocorrelation of the gradient, which a halo makes negative at short lags."""
    sums = np.zeros(LAGS + 1)
    for one in (luma, luma.T):
        step = np.clip(np.diff(one, axis=1), -60, 60)
        for lag in range(min(LAGS + 1, step.shape[1])):
            sums[lag] += (step[:, lag:] * step[:, : step.shape[1] - lag]).sum()
    return {f"edge.lag{k}": float(sums[k] / max(sums[0], 1e-6)) for k in range(1, LAGS + 1)}


def _noise(values: np.ndarray, luma: np.ndarray) -> dict[str, float]:
    """Noise of luma and chroma in flat parts, by brightness.

    Source: Immerkaer, Computer Vision and Image Understanding 64(2), 1996: a mask that cancels
    linear slopes. Ours takes the median absolute deviation, and flat parts only.
    """
    smooth = ndimage.gaussian_filter(luma, 1.5)
    slope = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    flat = slope <= np.percentile(slope, 40)
    bins = {"dark": smooth < 85, "middle": (smooth >= 85) & (smooth < 170), "light": smooth >= 170}
    red, blue = values[..., 0] - luma, values[..., 2] - luma
    fine = ndimage.convolve(luma, IMMERKAER, mode="nearest")
    coarse = luma - ndimage.gaussian_filter(luma, 2.0)
    found = {"noise.fine": _spread(fine, flat), "noise.coarse": _spread(coarse, flat)}
    for name, inside in bins.items():
        few = (flat & inside).sum() < LEAST
        found[f"noise.{name}"] = found["noise.fine"] if few else _spread(fine, flat & inside)
    for name, part in (("red", red), ("blue", blue)):
        found[f"noise.{name}"] = _spread(ndimage.convolve(part, IMMERKAER, mode="nearest"), flat)
        rest = part - ndimage.gaussian_filter(part, 2.0)
        found[f"noise.{name}_coarse"] = _spread(rest, flat)
    return found


def _spread(values: np.ndarray, where: np.ndarray) -> float:
    """Logarithm of the robust standard deviation."""
    part = values[where]
    return float(np.log(MAD * np.median(np.abs(part - np.median(part))) + 0.1))


def _blocks(luma: np.ndarray) -> dict[str, float]:
    """How much larger steps at the borders of JPEG's blocks are than elsewhere, per phase."""
    most = 0.0
    for one in (luma, luma.T):
        step = np.abs(np.diff(one, 2, axis=1)).mean(0)
        phases = np.array([step[k::8].mean() for k in range(min(8, len(step)))])
        most += float(phases.max() / max(np.median(phases), 0.2) - 1) / 2
    return {"blocks": min(most, 3.0)}


# ---- geometry ------------------------------------------------------------------------------------


def framing(mask: np.ndarray) -> dict[str, float]:
    """Size and place of the person in a crop.

    Args:
        mask: Alpha of the person, [0, 1].  [H, W]

    Returns:
        Height and width of the crop and of the person's box in pixels, and the room on the left,
        top, right and bottom as shares of the longer side of that box. Empty without a person.
    """
    rows, columns = (np.flatnonzero((mask > 0.5).any(axis)) for axis in (1, 0))
    if len(rows) < 8 or len(columns) < 4:
        return {}
    height, width = mask.shape
    tall, wide = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
    room = np.array([columns[0], rows[0], width - 1 - columns[-1], height - 1 - rows[-1]])
    sides = dict(zip(("left", "top", "right", "bottom"), room / max(tall, wide), strict=True))
    found = {"height": height, "width": width, "tall": tall, "wide": wide, **sides}
    return {name: float(value) for name, value in found.items()}


# ---- compression ---------------------------------------------------------------------------------


def compression(data: bytes) -> tuple[int, str] | None:
    """JPEG quality and chroma subsampling of a file, from its own tables.

    The quality is that of libjpeg whose luma table is nearest, 1 to 100.

    Args:
        data: The file.

    Returns:
        Quality and subsampling, e.g. (80, "4:2:0"); None = no JPEG, or grey.
    """
    try:
        image = Image.open(io.BytesIO(data))
    except OSError:
        return None
    if image.format != "JPEG" or not getattr(image, "quantization", None):
        return None
    name = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}.get(JpegImagePlugin.get_sampling(image))
    table = np.sort(np.asarray(image.quantization[0], np.float64))
    apart = np.abs(_tables() - table).mean(1)
    return (int(apart.argmin()) + 1, name) if name else None


@functools.cache
def _tables() -> np.ndarray:
    """Sorted luma tables of the qualities 1 to 100: float64 [100, 64]."""
    found = []
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
        found.append(np.sort(Image.open(io.BytesIO(file.getvalue())).quantization[0]))
    return np.array(found, np.float64)
