# SPDX-License-Identifier: Apache-2.0
"""Memory and time of the memory banks of methods, for many images.

python benchmarks/memory_banks.py [--images 50000] [--width 768]

Each method with a bank is given features of people in both views, as at the start of an epoch. The
table has the bytes of what it keeps (its buffers), the largest growth of the process while it was
computed, on top of the features, and the seconds.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import tyro

from viewsynth.reid import methods

PER_PERSON = 10  # images of a person, half of them in each view
SPREAD = 0.7  # noise of an image over the length of its person's feature


@dataclass(frozen=True)
class Config:
    """Sizes of the bank."""

    images: int = 50_000
    """Training images."""
    width: int = 768
    """Length of a feature of an image, where the method does not have its own."""
    methods: tuple[str, ...] = ("pdpa", "uagrpg")
    """Methods with a memory bank."""


def measure(name: str, images: int, width: int) -> tuple[float, float, float]:
    """MB of the buffers, MB that the process grew by, and seconds, of one method.

    Args:
        name: The method.
        images: Number of images.
        width: Length of a feature.
    """
    import torch

    from viewsynth.reid import backbones

    small = {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 4}
    side = {"model_type": "vit", **small, "intermediate_size": width, "image_size": 32}
    text = "text" in methods.needs(name)
    if text:
        backbone = backbones.load("small_clip", (32, 32), text=True)
        width = backbone.text.features
    else:
        backbone = backbones.rebuild(side, (32, 32), *backbones.IMAGENET)
    people = images // PER_PERSON
    classes = people if methods.identities(name) else images
    model = methods.build(name, backbone, classes)
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(images) // PER_PERSON
    views = torch.arange(images) % 2
    rows = torch.randn(people, width, generator=rng)[labels]
    rows += SPREAD * torch.randn(images, width, generator=rng)
    before, began = _size("VmRSS"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    model.rebuild(rows, labels, views, torch.ones(images))
    seconds = time.perf_counter() - began
    kept = sum(value.numel() * value.element_size() for value in model.buffers())
    return kept / 2**20, _size("VmHWM") - before, seconds


def _size(key: str) -> float:
    """The present (VmRSS) or largest (VmHWM) size of the process on Linux, MB."""
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key)]
    return int(line.split()[1]) / 2**10


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns 0."""
    asked = tyro.cli(Config, args=argv)
    lines = ["| method | kept, MB | growth, MB | seconds |", "|---|---|---|---|"]
    for name in asked.methods:
        with get_context("spawn").Pool(1) as pool:  # the largest size is that of a process
            kept, growth, seconds = pool.apply(measure, (name, asked.images, asked.width))
        lines.append(f"| {name} | {kept:.0f} | {growth:.0f} | {seconds:.0f} |")
    sys.stdout.write(f"{asked.images} images, features of {asked.width}\n\n")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
