# SPDX-License-Identifier: Apache-2.0
"""Image processing around the diffusion model: resizing, output types, restoring seen pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viewsynth.render.sensor import gaussian
from viewsynth.runtime.images import stretched

OUTPUT_TYPES = ("pil", "pt", "np", "latent")
MIRRORED = 0.5  # seen value of a texel that reconstruction mirrored from the other side of the body
SOFT = 1 / 64  # standard deviation of the mask's soft edge, as a share of the image height
LEAST = 0.02  # share of an image that must be seen for its light to be fully matched
RIDGE = 1e-3  # weight of the prior that the gain is 1
PASSES = 4  # reweighted least squares iterations
OUTLIER = 0.1  # scale of the Cauchy weights: RGB distances beyond it hardly count


def preprocess(image: np.ndarray | Image.Image, size: tuple[int, int]) -> Tensor:
    """Stretch an image to the model's size.

    Args:
        image: PIL image, or uint8 [h, w, 3].
        size: Height and width, pixels.

    Returns:
        float32 [3, H, W] in [0, 1].
    """
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    return torch.from_numpy(stretched(image, size).copy()).permute(2, 0, 1).float() / 255


def postprocess(
    images: Tensor, output_type: str, aspects: Sequence[float]
) -> list[Image.Image] | np.ndarray | Tensor:
    """Convert generated images to an output type.

    Args:
        images: float [B, 3, H, W] in [0, 1]; latents if `output_type` is "latent".
        output_type: One of `OUTPUT_TYPES`.
        aspects: Width over height of each crop, which PIL images get.
    """
    if output_type == "pil":
        return to_pil(images, aspects)
    if output_type == "np":
        return images.permute(0, 2, 3, 1).cpu().numpy()
    return images


def to_pil(images: Tensor, aspects: Sequence[float]) -> list[Image.Image]:
    """PIL images in the crops' aspect, with about as many pixels as before.

    Args:
        images: float [B, 3, H, W] in [0, 1].
        aspects: Width over height of each crop.
    """
    area = images.shape[-1] * images.shape[-2]
    stored = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    out = []
    for image, aspect in zip(stored, aspects, strict=True):
        height = max(round((area / aspect) ** 0.5), 1)
        size = max(round(height * aspect), 1), height
        out.append(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return out


# ---- seen pixels ---------------------------------------------------------------------------------


def restore_seen(images: Tensor, render: Tensor, seen: Tensor, keep: float) -> Tensor:
    """Blend the rendering back into generated images where the surface was seen.

    Source: ours. RePaint (Lugmayr et al., CVPR 2022) does this on latents during sampling; we do it
    on decoded images: a latent spans 4 to 8 pixels of a person some 30 pixels wide; a sampler of 4
    steps cannot harmonise what is imposed on it; and the rendering has the light of an overcast
    sky. The light of the rendering is therefore matched to the image first, see `match_light`. The
    mask is soft, and 0 wherever the surface was mirrored or invented.

    Args:
        images: float [B, 3, H, W] in [0, 1].
        render: float [B, 3, H, W] in [0, 1].
        seen: Seen map of the rendering.  float [B, 1, H, W] in [0, 1]
        keep: Weight of the rendering at seen pixels, [0, 1].

    Returns:
        float [B, 3, H, W] in [0, 1].
    """
    if keep == 0:
        return images
    render, seen = render.to(images), seen.to(images)
    sure = ((seen - MIRRORED) / (1 - MIRRORED)).clamp(0, 1)
    mask = keep * sure * gaussian(sure, SOFT * images.shape[-2])
    return torch.lerp(images, match_light(render, images, sure).clamp(0, 1), mask)


def match_light(render: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """Match the light of renderings to images: one gain and one offset per channel.

    Weighted least squares, reweighted with Cauchy weights so that pixels with other content hardly
    count, and with a ridge towards a gain of 1, which keeps a person of one colour stable. With
    hardly any weight the rendering is returned unchanged.

    Args:
        render: float [B, 3, H, W].
        images: float [B, 3, H, W].
        weight: Weight of each pixel.  float [B, 1, H, W] in [0, 1]

    Returns:
        float [B, 3, H, W].
    """
    total = weight.mean((2, 3), keepdim=True)
    trust, light = weight, render
    for _ in range(PASSES):
        share = trust / trust.sum((2, 3), keepdim=True).clamp_min(1e-6)
        middle, goal = ((x * share).sum((2, 3), keepdim=True) for x in (render, images))
        around = (render - middle) * share
        spread = (around * (render - middle)).sum((2, 3), keepdim=True)
        along = (around * (images - goal)).sum((2, 3), keepdim=True)
        light = goal + ((along + RIDGE) / (spread + RIDGE)).clamp(0.5, 2) * (render - middle)
        odd = (light - images).square().sum(1, keepdim=True)
        trust = weight / (1 + odd / OUTLIER**2)
    return torch.lerp(render, light, (total / LEAST).clamp(0, 1))
