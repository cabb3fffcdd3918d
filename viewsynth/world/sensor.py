# SPDX-License-Identifier: Apache-2.0
"""Sensor model of the world's cameras: from linear light to the pixels that a video stores.

In order: lens blur, motion blur, veiling glare, exposure and white balance, noise, tone curve, the
camera's own denoising and sharpening (with halos), and JPEG with subsampled chroma. A `Lens` is
sampled once per camera; what changes between images comes from the generator of the image.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage, special

from viewsynth.world import revisions

PLATFORMS = ("drone", "cctv", "wearable")
LUMA = np.float32([0.299, 0.587, 0.114])
KEY = 0.25  # mean linear light that automatic exposure aims at
CURVE = 4096  # entries of the tone curve
VEILED = 0.45  # largest share of light that is scattered
# Ranges of the parameters of `Lens` for each of `PLATFORMS`, in the order in which they are
# sampled. All are uniform but `veil`, whose density falls with its value. Those of revision 2
# are as wide as filmed crops differ between cameras of one person.
RANGES_1 = {
    "vfov": ((30, 55), (35, 60), (50, 65)),
    "k1": ((-0.03, 0.01), (-0.15, 0.05), (-0.12, 0.02)),
    "auto": ((0.4, 0.7), (0.5, 0.8), (0.6, 1.0)),
    "veil": ((0, 0.10), (0, 0.12), (0, 0.14)),
    "contrast": ((0.2, 0.65), (0.1, 0.5), (0.15, 0.65)),
    "saturation": ((0.85, 1.2), (0.75, 1.15), (0.9, 1.2)),
    "sharp": ((0.55, 0.9), (0.55, 0.95), (0.6, 1.05)),
    "sharpening": ((0.8, 2.2), (0.4, 1.6), (0.5, 1.8)),
    "halo": ((0.9, 1.6), (0.8, 1.4), (0.9, 1.6)),
    "coring": ((0.0, 0.03), (0.01, 0.04), (0.01, 0.04)),
    "noise": ((0.006, 0.014), (0.008, 0.018), (0.008, 0.016)),
    "motion": ((0.1, 0.5), (0.2, 0.8), (0.3, 1.3)),
    "jpeg": ((52, 82), (48, 80), (50, 84)),
}
RANGES_2 = RANGES_1 | {
    "veil": ((0, 0.10), (0, 0.22), (0, 0.14)),
    "contrast": ((0.0, 1.0), (-0.1, 0.9), (0.1, 1.0)),
    "saturation": ((0.7, 1.2), (0.7, 1.2), (0.8, 1.3)),
    "sharp": ((0.5, 0.9), (0.6, 1.2), (0.6, 1.1)),
    "sharpening": ((0.9, 2.6), (0.4, 1.8), (0.5, 2.0)),
    "coring": ((0.0, 0.03), (0.01, 0.05), (0.01, 0.05)),
    "jpeg": ((38, 80), (34, 78), (40, 82)),
    "room": ((0.0, 0.20), (0.0, 0.28), (0.0, 0.28)),
}
RANGES = {1: RANGES_1, 2: RANGES_2}
# Mean and standard deviation of the logarithm of the exposure.
EXPOSURE = {
    1: {"drone": (0.08, 0.12), "cctv": (0.08, 0.12), "wearable": (0.15, 0.20)},
    2: {"drone": (-0.22, 0.42), "cctv": (-0.40, 0.58), "wearable": (0.25, 0.55)},
}
# Sides that a detector may cut off: (cumulative probability, index in (left, top, right, bottom),
# largest share of the height or width), by revision and platform.
_ALL = ((0.06, 3, 0.22), (0.09, 1, 0.07), (0.13, 0, 0.18), (0.17, 2, 0.18))
_GROUND = ((0.06, 3, 0.25), (0.08, 1, 0.07), (0.11, 0, 0.18), (0.14, 2, 0.18))
_DRONE = ((0.34, 3, 0.40), (0.37, 1, 0.10), (0.41, 0, 0.22), (0.45, 2, 0.22))
CUTS = {
    1: dict.fromkeys(PLATFORMS, _ALL),
    2: {"drone": _DRONE, "cctv": _GROUND, "wearable": _GROUND},
}
# Standard deviations: white balance along warm-cold and green-magenta, exposure between images.
CAST = {1: (0.05, 0.015, 0.08), 2: (0.065, 0.025, 0.24)}


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Optics and electronics of one camera.

    Args:
        vfov: Vertical field of view of the full frame, degrees.
        frame: Height and width of the full frame, pixels.
        k1: Radial distortion in normalised coordinates, x_d = x (1 + k1 r^2).
        gain: Exposure times white balance, one factor per channel.  [3]
        auto: How far automatic exposure follows the scene, 0 = not at all, 1 = fully.
        veil: Share of the light that is scattered over the image.
        contrast: Strength of the S-curve.
        saturation: Factor, 1 = unchanged.
        sharp: Standard deviation of the lens blur, pixels.
        sharpening: How much detail the camera adds; above 1 edges get halos.
        halo: Standard deviation of the blur that separates detail, pixels.
        coring: Detail weaker than this share of full scale is suppressed as noise.
        noise: Standard deviation of the noise at middle grey, as a share of full scale.
        motion: Mean length of motion blur, pixels.
        jpeg: Quality of the camera's own compression.
        room: Margin that its detector leaves around a person, as a share of the person's height,
            in addition to that of all detectors.
        cuts: Sides that its detector cuts off, see `CUTS`.
        drift: Standard deviation of the logarithm of the exposure between images.
    """

    vfov: float
    frame: tuple[int, int]
    k1: float
    gain: tuple[float, float, float]
    auto: float
    veil: float
    contrast: float
    saturation: float
    sharp: float
    sharpening: float
    halo: float
    coring: float
    noise: float
    motion: float
    jpeg: int
    cuts: tuple[tuple[float, int, float], ...]
    drift: float
    room: float = 0.0


def sample_lens(
    rng: np.random.Generator,
    platform: str,
    revision: int = revisions.NEWEST,
    quantiles: dict[str, float] | None = None,
) -> Lens:
    """Sample the lens of a camera.

    Args:
        rng: Generator of this camera.
        platform: One of `PLATFORMS`.
        revision: Of the world.
        quantiles: Where the parameters of `RANGES` and "exposure" lie in their distributions, each
            in (0, 1); None = random.

    Returns:
        The lens.

    Raises:
        ValueError: If the platform is unknown.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform must be one of {', '.join(PLATFORMS)}; got {platform!r}")
    warm, green, drift = CAST[revision]
    white = np.array([1, 1, 1]) + np.array([1, 0.1, -1]) * rng.normal(0.0, warm)
    white[1] += rng.normal(0, green)
    frame = {"drone": (2160, 3840), "wearable": (1080, 1920)}.get(platform)
    if frame is None:
        rows = int(rng.choice([720, 1080]))
        frame = (rows, rows * 16 // 9)
    values = {}
    for name, ranges in RANGES[revision].items():
        low, high = ranges[PLATFORMS.index(platform)]
        if name == "jpeg" and quantiles is None:
            values[name] = int(rng.integers(low, high))
            continue
        share = quantiles[name] if quantiles else rng.random()
        value = low + (high - low) * (share**2 if name == "veil" else share)
        values[name] = int(value) if name == "jpeg" else value
    mean, spread = EXPOSURE[revision][platform]
    normal = float(special.ndtri(quantiles["exposure"])) if quantiles else rng.standard_normal()
    gain = white * math.exp(mean + spread * normal)
    gain, cuts = tuple(float(g) for g in gain), CUTS[revision][platform]
    return Lens(frame=frame, gain=gain, cuts=cuts, drift=drift, **values)


def sense(
    light: np.ndarray, lens: Lens, level: float, rng: np.random.Generator, glare: float = 0.0
) -> np.ndarray:
    """Apply the sensor model to an image.

    Source: ours.

    Args:
        light: Linear light.  float32 [H, W, 3]
        lens: The camera's lens.
        level: Light of the place relative to daylight; less light means more noise.
        rng: Generator of this image.
        glare: Share of the light that is scattered in addition to the lens's `veil`.

    Returns:
        sRGB.  uint8 [H, W, 3]
    """
    planes = np.ascontiguousarray(light.transpose(2, 0, 1), np.float32)
    drift = math.exp(rng.normal(0, lens.drift))
    key = float(np.minimum(planes, 1.5).mean())
    exposure = drift * float(np.clip((KEY / max(key, 1e-3)) ** lens.auto, 0.4, 2.6))
    planes = _optics(planes, lens, rng)
    planes += np.float32(min(lens.veil + glare, VEILED)) * (
        planes.mean((1, 2), keepdims=True) + 0.1 - planes
    )
    planes *= (np.float32(lens.gain) * np.float32(exposure))[:, None, None]
    planes = _noisy(planes, lens.noise * min(3.0, level**-0.4), rng)
    developed = _developed(planes, lens)
    stored = (developed * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(
        file, "JPEG", quality=lens.jpeg, subsampling="4:2:0"
    )
    return np.asarray(Image.open(file)).copy()


def _optics(planes: np.ndarray, lens: Lens, rng: np.random.Generator) -> np.ndarray:
    """Lens blur, then linear motion blur of camera and person, [3, H, W]."""
    planes = blur(planes, lens.sharp)
    length = min(6.0, lens.motion * rng.exponential(1.0))
    turn_rad = rng.uniform(0, math.pi)
    if length < 0.4:
        return planes
    taps: dict[tuple[int, int], float] = {}
    steps = np.linspace(-0.5, 0.5, 2 * math.ceil(length) + 1) * length
    for x, y in np.stack([steps * math.cos(turn_rad), steps * math.sin(turn_rad)], 1):
        i, j = math.floor(x), math.floor(y)
        for di, dj in ((0, 0), (1, 0), (0, 1), (1, 1)):
            part = abs(1 - di - (x - i)) * abs(1 - dj - (y - j)) / len(steps)
            taps[i + di, j + dj] = taps.get((i + di, j + dj), 0.0) + part
    pad = math.ceil(length / 2) + 1
    height, width = planes.shape[1:]
    wide = np.pad(planes, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    total = np.zeros_like(planes)
    for (i, j), part in taps.items():
        if part > 1e-4:
            total += np.float32(part) * wide[:, pad + j :, pad + i :][:, :height, :width]
    return total


def _noisy(planes: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Add shot and read noise; half of it has the grain of demosaicing, [3, H, W]."""
    fine = rng.standard_normal(planes.shape, dtype=np.float32)
    grain = 0.6 * fine + blur(fine, 0.7)
    # In linear light: noise at middle grey that grows with the square root of the light.
    return planes + np.float32(0.9 * noise) * np.sqrt(np.maximum(planes, 0) + 0.01) * grain


def _developed(planes: np.ndarray, lens: Lens) -> np.ndarray:
    """Tone curve, saturation, denoising and sharpening, linear [3, H, W] -> [0, 1]."""
    steps = (planes * np.float32(CURVE / 4)).clip(0, CURVE - 1).astype(np.int32)
    planes = _curve(lens.contrast).take(steps)
    grey = np.tensordot(LUMA, planes, 1)
    planes = grey + np.float32(lens.saturation) * (planes - grey)
    detail = grey - blur(grey, lens.halo)
    kept = np.abs(detail) / np.float32(lens.coring + 0.004)
    kept = np.minimum(kept, 1)
    change = detail * (kept * np.float32(1 + lens.sharpening) - 1)
    # Cameras limit their halos.
    return (planes + change.clip(-0.28, 0.22)).clip(0, 1)


def _curve(contrast: float) -> np.ndarray:
    """Tone curve over linear light 0 to 4: sRGB with a shoulder, then an S-curve, [CURVE]."""
    x = (np.arange(CURVE, dtype=np.float32) + 0.5) * np.float32(4 / CURVE)
    x = np.where(x < 0.7, x, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)))
    y = np.where(x < 0.0031, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return (y + contrast * y * (1 - y) * (2 * y - 1) * 1.6).clip(0, 1).astype(np.float32)


def blur(planes: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of the last two axes, with the border repeated."""
    for axis in (-2, -1):
        planes = ndimage.gaussian_filter1d(planes, sigma, axis, mode="nearest", truncate=3)
    return planes
