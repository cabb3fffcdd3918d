# SPDX-License-Identifier: Apache-2.0
"""Sensor model of the virtual camera, in the order of a real one.

light (exposure, haze, white balance) -> lens (blur) -> chip (noise of brightness and of colour) ->
denoising and sharpening (unsharp mask, with its halo) -> tone (contrast, saturation) -> JPEG. The
first three act on linear light, the others on sRGB values. Each step can be switched off, see
`Sensor`.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viewsynth.records import seed_of
from viewsynth.render.options import Sensor

LUMA = (0.299, 0.587, 0.114)
GREY = 0.2140  # linear light of sRGB 0.5
READ = 0.001  # linear light whose shot noise is as strong as the read noise
LIMIT = (-0.28, 0.22)  # darkest and brightest halo, as a share of full scale


def expose(image: Tensor, sensor: Sensor, seed: int) -> np.ndarray:
    """Apply the sensor model to an image.

    Args:
        image: sRGB in [0, 1].  float32 [3, H, W]
        sensor: Its options; ranges are drawn from.
        seed: Seed of the view: of the values that are drawn, and of the noise.

    Returns:
        uint8 [H, W, 3].
    """
    one = sensor.draw(seed)
    light = gaussian(_lit(linear(image.cpu()), one)[None], one.blur)[0]
    light = _noisy(light, one, torch.Generator().manual_seed(seed_of(seed, "noise")))
    image = _toned(_sharpened(encoded(light.clamp(0, 1)), one), one)
    stored = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    stored = stored.permute(1, 2, 0).contiguous().numpy()
    if not one.jpeg:
        return stored
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=round(one.jpeg), subsampling=one.chroma)
    return np.asarray(Image.open(file)).copy()


def _lit(light: Tensor, sensor: Sensor) -> Tensor:
    """Exposure and white balance, then haze: light of the whole image that is scattered over it."""
    balance = torch.tensor([1 + sensor.warmth, 1 + sensor.tint, 1 - sensor.warmth])
    light = light * (balance * 2**sensor.exposure)[:, None, None]
    return light + sensor.haze * (light.mean((1, 2), keepdim=True) + 0.1 - light)


def _noisy(light: Tensor, sensor: Sensor, generator: torch.Generator) -> Tensor:
    """Shot noise, whose variance grows with the light; half has the grain of demosaicing."""
    if not (sensor.noise or sensor.chroma_noise):
        return light
    fine = torch.randn((1, 4, *light.shape[1:]), generator=generator)
    grain = 0.6 * fine + gaussian(fine, 0.7) * 1.9
    grain = grain / grain.std().clamp_min(1e-6)
    luma = torch.tensor(LUMA)[:, None, None]
    colour = grain[0, 1:] - (luma * grain[0, 1:]).sum(0)
    noise = sensor.noise * grain[0, :1] + sensor.chroma_noise * colour
    # A step of sRGB at middle grey is `slope` of linear light.
    slope = 1.055 / 2.4 * GREY ** (1 / 2.4 - 1)
    return light + noise / slope * ((light.clamp_min(0) + READ) / (GREY + READ)).sqrt()


def _sharpened(image: Tensor, sensor: Sensor) -> Tensor:
    """Denoising and unsharp mask of the brightness; cameras limit the halo.

    Weak detail is reduced in proportion to its strength (coring), and with it what is sharpened.
    """
    if not (sensor.sharpening or sensor.denoising):
        return image
    grey = (torch.tensor(LUMA)[:, None, None] * image).sum(0, keepdim=True)
    detail = grey - gaussian(grey[None], sensor.halo)[0]
    kept = (detail.abs() / sensor.denoising).clamp(max=1) if sensor.denoising else 1.0
    return image + ((kept * (1 + sensor.sharpening) - 1) * detail).clamp(*LIMIT)


def _toned(image: Tensor, sensor: Sensor) -> Tensor:
    """Tone curve, which leaves black, middle grey and white where they are, and saturation."""
    image = image.clamp(0, 1)
    if sensor.contrast != 1:
        up, away = image**sensor.contrast, (1 - image) ** sensor.contrast
        image = up / (up + away)
    if sensor.saturation != 1:
        grey = (torch.tensor(LUMA)[:, None, None] * image).sum(0, keepdim=True)
        image = grey + sensor.saturation * (image - grey)
    return image


def linear(image: Tensor) -> Tensor:
    """Linear light of sRGB values in [0, 1], IEC 61966-2-1."""
    image = image.clamp(0, 1)
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)


def encoded(light: Tensor) -> Tensor:
    """Encode linear light in [0, 1] as sRGB, IEC 61966-2-1."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur with replicated borders.

    Args:
        image: float [N, C, H, W].
        sigma: Standard deviation in pixels; <= 0 returns the image unchanged.
    """
    if sigma <= 0:
        return image
    reach = max(1, math.ceil(3 * sigma))
    offset = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum()).tolist()
    for axis in (2, 3):
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded = torch.nn.functional.pad(image, pad, mode="replicate")
        length = image.shape[axis]
        # Sums of shifted images add in the same order whatever the size and the batch.
        image = sum(
            weight * padded.narrow(axis, shift, length) for shift, weight in enumerate(kernel)
        )
    return image
