# SPDX-License-Identifier: Apache-2.0
"""A ReID training loop in the plain way, from the description of fast-reid. `train.py` times it.

Processes open, resize, pad, crop, flip, erase and normalise picture by picture, in float32; the
loop moves them to the device, runs under autocast with a gradient scaler's calls, reads every loss
and the accuracy in every step, cuts the gradient's norm, and moves the weights tensor by tensor.
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

PAD, FLIP, ERASE = 10, 0.5, 0.5  # pixels of a picture 256 high; probabilities
AREA, RATIO = (0.02, 0.33), (0.3, 3.3)
COLOUR = (0.485, 0.456, 0.406)  # of what is erased
CLIP = 5.0


class Pictures(torch.utils.data.Dataset):
    """Pictures varied and normalised one by one, with their labels."""

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
    """A model of transformers and what turns its output into a feature, then a BNNeck."""

    def __init__(self, model: nn.Module, feature: Callable, neck: nn.Module):
        super().__init__()
        self.model, self.feature, self.neck = model, feature, neck

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of normalised pictures."""
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
    """Steps without end; what each one tells.

    Args:
        batches: Of `Pictures`.
        half: Whether to compute in bf16 under autocast.
    """
    scaler = torch.amp.GradScaler(device, enabled=False)  # bf16 needs none, but it is asked
    network.to(device).train()
    for batch in batches:
        images, labels = (value.to(device, non_blocking=True) for value in batch)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            features, logits = network(images)
            terms = losses(features, logits, labels)
            loss = sum(terms.values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        told = {name: value.item() for name, value in terms.items()}
        told["accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
        yield told
