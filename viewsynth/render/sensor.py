# SPDX-License-Identifier: Apache-2.0
"""Sensor model of the virtual camera: blur of the optics, noise of the chip, JPEG compression."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viewsynth.render.options import Sensor


def expose(image: Tensor, sensor: Sensor, generator: torch.Generator) -> np.ndarray:
    """Apply the sensor model to a noise-free image: blur, then noise, then JPEG.

    Args:
        image: RGB in [0, 1].  float32 [3, H, W]
        sensor: Strengths of the three effects.
        generator: Generator of the noise, on the CPU.

    Returns:
        uint8 [H, W, 3].
    """
    image = gaussian(image.cpu()[None], sensor.blur)[0]
    if sensor.noise:
        # Shot noise grows with the light; half of the noise has the correlation of demosaicing.
        fine = torch.randn(image.shape, generator=generator)
        coarse = gaussian(torch.randn((1, *image.shape), generator=generator), 0.7)[0] * 2
        image = image + sensor.noise * (0.6 + 0.8 * image.clamp(0, 1)) * (fine + coarse) * 0.7
    stored = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    stored = stored.permute(1, 2, 0).contiguous().numpy()
    if not sensor.jpeg:
        return stored
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=sensor.jpeg, subsampling="4:2:0")
    return np.asarray(Image.open(file)).copy()


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
