# SPDX-License-Identifier: Apache-2.0
"""Plain ReID training loop, written after the description of fast-reid; `train.py` times it.

Loader processes open, resize, pad, crop, flip, erase and normalise single images in float32. The
loop moves batches to the device, runs under autocast with a gradient scaler, reads every loss and
the accuracy in every step, clips the gradient norm, and updates the weights tensor by tensor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

PAD, FLIP, ERASE = 10, 0.5, 0.5  # pixels at a height of 256; probabilities
AREA, RATIO = (0.02, 0.33), (0.3, 3.3)
COLOUR = (0.485, 0.456, 0.406)  # fill of erased areas
CLIP = 5.0  # maximum gradient norm


class Images(torch.utils.data.Dataset):
    """Augmented and normalised images with their labels."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray,
        size: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
    ):
        self.paths, self.labels, self.size = paths, labels, size
        self.mean, self.std, self.colour = (
            torch.tensor(values)[:, None, None] for values in (mean, std, COLOUR)
        )

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        height, width = self.size
        with Image.open(self.paths[index]) as file:
            image = file.convert("RGB").resize((width, height), Image.BICUBIC)
        pad = round(PAD * height / 256)
        left, top = random.randint(0, 2 * pad), random.randint(0, 2 * pad)
        image = ImageOps.expand(image, pad).crop((left, top, left + width, top + height))
        if random.random() < FLIP:
            image = ImageOps.mirror(image)
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255
        if random.random() < ERASE:
            self._erase(values)
        return (values - self.mean) / self.std, int(self.labels[index])

    def _erase(self, values: Tensor) -> None:
        height, width = self.size
        for _ in range(100):
            area, ratio = random.uniform(*AREA) * height * width, random.uniform(*RATIO)
            high, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if high < height and wide < width:
                top, left = random.randint(0, height - high), random.randint(0, width - wide)
                values[:, top : top + high, left : left + wide] = self.colour
                return


class Network(nn.Module):
    """A model of transformers, a function that extracts the feature, and a BNNeck."""

    def __init__(self, model: nn.Module, feature: Callable, neck: nn.Module):
        super().__init__()
        self.model, self.feature, self.neck = model, feature, neck

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of normalised images."""
        features = self.feature(self.model(pixel_values=images))
        return features, self.neck(features)


def losses(features: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Cross entropy, and the batch-hard triplet loss with a soft margin."""
    features = features.float()
    square = features.pow(2).sum(1, keepdim=True)
    distances = (square + square.T - 2 * features @ features.T).clamp(min=1e-12).sqrt()
    same = (labels[:, None] == labels).float()
    far, near = (distances * same).amax(1), (distances * (1 - same) + 1e9 * same).amin(1)
    return {
        "identity": functional.cross_entropy(logits, labels),
        "triplet": functional.soft_margin_loss(near - far, torch.ones_like(far)),
    }


def loop(
    network: Network, optimizer: torch.optim.Optimizer, batches: Iterator, device: str, half: bool
) -> Iterator[dict[str, float]]:
    """Train endlessly; yields the losses and the accuracy of each step.

    Args:
        network: The network.
        optimizer: Its optimiser.
        batches: Batches of `Images`.
        device: Device of the network.
        half: Whether to use bf16 autocast.
    """
    scaler = torch.amp.GradScaler(device, enabled=False)  # not needed for bf16, but called
    network.to(device).train()
    for batch in batches:
        images, labels = (value.to(device, non_blocking=True) for value in batch)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            features, logits = network(images)
            terms = losses(features, logits, labels)
            loss = sum(terms.values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        metrics = {name: value.item() for name, value in terms.items()}
        metrics["accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
        yield metrics
