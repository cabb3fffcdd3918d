# SPDX-License-Identifier: Apache-2.0
"""The sensor of a world camera: from linear light to what a video stores.

Optics (blur, motion, glare), exposure and white balance, noise, tone curve, the camera's own noise
suppression and sharpening with its haloes, then JPEG with halved colour. A `Lens` is drawn once per
camera; what changes from picture to picture is drawn from the picture's generator.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

PLATFORMS = ("drone", "cctv", "wearable")
LUMA = np.float32([0.299, 0.587, 0.114])
KEY = 0.25  # mean linear light that automatic exposure aims at
CURVE = 4096  # steps of the tone curve


@dataclass(frozen=True, kw_only=True)
class Lens:
    """One camera's optics and electronics.

    Args:
        vfov: Vertical field of view of the whole picture, degrees.
        picture: Size of the whole picture (height, width), pixels.
        k1: Radial distortion in normalised coordinates, x_d = x (1 + k1 r^2).
        gain: Exposure times white balance, a factor a channel.  [3]
        auto: How far automatic exposure follows the scene, 0 = not, 1 = wholly.
        veil: Share of light that is scattered over the picture.
        contrast: Strength of the S-curve, below 0 = flat.
        saturation: 1 = as it is.
        sharp: Standard deviation of the optics' blur, pixels.
        sharpening: How much detail the camera adds back; above 1 edges get haloes.
        halo: Standard deviation of what it takes for detail, pixels.
        coring: Detail weaker than this is suppressed as noise, of full scale.
        noise: Standard deviation of the noise at middle grey, of full scale.
        motion: Typical length of motion blur, pixels.
        jpeg: Quality of the camera's own compression.
    """

    vfov: float
    picture: tuple[int, int]
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


def lens(rng: np.random.Generator, platform: str) -> Lens:
    """Draw a camera of a platform.

    Raises: ValueError: if the platform is none of `PLATFORMS`.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform must be one of {', '.join(PLATFORMS)}; got {platform!r}")
    u = rng.uniform
    white = np.array([1, 1, 1]) + np.array([1, 0.1, -1]) * rng.normal(0.0, 0.05)
    white[1] += rng.normal(0, 0.015)
    if platform == "drone":
        own = {
            "picture": (2160, 3840),
            "vfov": u(30, 55),
            "k1": u(-0.03, 0.01),
            "auto": u(0.4, 0.7),
            "veil": 0.10 * u(0, 1) ** 2,
            "contrast": u(0.2, 0.65),
            "saturation": u(0.85, 1.2),
            "sharp": u(0.55, 0.9),
            "sharpening": u(0.8, 2.2),
            "halo": u(0.9, 1.6),
            "coring": u(0.0, 0.03),
            "noise": u(0.006, 0.014),
            "motion": u(0.1, 0.5),
            "jpeg": int(rng.integers(52, 82)),
        }
    elif platform == "cctv":
        high = int(rng.choice([720, 1080]))
        own = {
            "picture": (high, high * 16 // 9),
            "vfov": u(35, 60),
            "k1": u(-0.15, 0.05),
            "auto": u(0.5, 0.8),
            "veil": 0.12 * u(0, 1) ** 2,
            "contrast": u(0.1, 0.5),
            "saturation": u(0.75, 1.15),
            "sharp": u(0.55, 0.95),
            "sharpening": u(0.4, 1.6),
            "halo": u(0.8, 1.4),
            "coring": u(0.01, 0.04),
            "noise": u(0.008, 0.018),
            "motion": u(0.2, 0.8),
            "jpeg": int(rng.integers(48, 80)),
        }
    else:
        own = {
            "picture": (1080, 1920),
            "vfov": u(50, 65),
            "k1": u(-0.12, 0.02),
            "auto": u(0.6, 1.0),
            "veil": 0.14 * u(0, 1) ** 2,
            "contrast": u(0.15, 0.65),
            "saturation": u(0.9, 1.2),
            "sharp": u(0.6, 1.05),
            "sharpening": u(0.5, 1.8),
            "halo": u(0.9, 1.6),
            "coring": u(0.01, 0.04),
            "noise": u(0.008, 0.016),
            "motion": u(0.3, 1.3),
            "jpeg": int(rng.integers(50, 84)),
        }
    gain = white * math.exp(
        rng.normal(0.15, 0.20) if platform == "wearable" else rng.normal(0.08, 0.12)
    )
    return Lens(gain=tuple(float(g) for g in gain), **own)


def sense(light: np.ndarray, camera: Lens, level: float, rng: np.random.Generator) -> np.ndarray:
    """What the camera stores of a picture.

    Source: ours.

    Args:
        light: Linear.  float32 [H, W, 3]
        level: Light of the place against day; little light makes much noise.
        rng: Of this picture.
    Returns: uint8 [H, W, 3].
    """
    planes = np.ascontiguousarray(light.transpose(2, 0, 1), np.float32)
    drift = math.exp(rng.normal(0, 0.08))
    key = float(np.minimum(planes, 1.5).mean())
    exposure = drift * float(np.clip((KEY / max(key, 1e-3)) ** camera.auto, 0.4, 2.6))
    planes = _optics(planes, camera, rng)
    planes += np.float32(camera.veil) * (planes.mean((1, 2), keepdims=True) + 0.1 - planes)
    planes *= (np.float32(camera.gain) * np.float32(exposure))[:, None, None]
    planes = _noisy(planes, camera.noise * min(3.0, level**-0.4), rng)
    picture = _developed(planes, camera)
    stored = (picture * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(
        file, "JPEG", quality=camera.jpeg, subsampling="4:2:0"
    )
    return np.asarray(Image.open(file)).copy()


def _optics(planes: np.ndarray, camera: Lens, rng: np.random.Generator) -> np.ndarray:
    """Blur of the lens, and of the movement of camera and person.  [3, H, W]"""
    planes = blur(planes, camera.sharp)
    length = min(6.0, camera.motion * rng.exponential(1.0))
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
    """Add shot and read noise; half of it has the grain of demosaicing.  [3, H, W]"""
    fine = rng.standard_normal(planes.shape, dtype=np.float32)
    grain = 0.6 * fine + blur(fine, 0.7)
    # In linear light: noise of middle grey, growing with the root of the light.
    return planes + np.float32(0.9 * noise) * np.sqrt(np.maximum(planes, 0) + 0.01) * grain


def _developed(planes: np.ndarray, camera: Lens) -> np.ndarray:
    """Tone curve, saturation, noise suppression and sharpening.  Linear -> [0, 1]"""
    steps = (planes * np.float32(CURVE / 4)).clip(0, CURVE - 1).astype(np.int32)
    planes = _curve(camera.contrast).take(steps)
    grey = np.tensordot(LUMA, planes, 1)
    planes = grey + np.float32(camera.saturation) * (planes - grey)
    detail = grey - blur(grey, camera.halo)
    kept = np.abs(detail) / np.float32(camera.coring + 0.004)
    kept = np.minimum(kept, 1)
    change = detail * (kept * np.float32(1 + camera.sharpening) - 1)
    # Cameras limit their haloes.
    return (planes + change.clip(-0.28, 0.22)).clip(0, 1)


def _curve(contrast: float) -> np.ndarray:
    """SRGB with a shoulder over linear light 0 to 4, then an S.  [CURVE]"""
    x = (np.arange(CURVE, dtype=np.float32) + 0.5) * np.float32(4 / CURVE)
    x = np.where(x < 0.7, x, 0.7 + 0.3 * (1 - np.exp(-(x - 0.7) / 0.3)))
    y = np.where(x < 0.0031, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return (y + contrast * y * (1 - y) * (2 * y - 1) * 1.6).clip(0, 1).astype(np.float32)


def blur(planes: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of the last two axes with the border repeated."""
    for axis in (-2, -1):
        planes = ndimage.gaussian_filter1d(planes, sigma, axis, mode="nearest", truncate=3)
    return planes
