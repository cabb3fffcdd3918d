# SPDX-License-Identifier: Apache-2.0
"""Preview grids of a diffusion model in training, for validation pairs.

`train-diffusion` renders a grid at every validation with the same pairs and the same noise, so that
successive grids show the progress of training.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.records import seed_of
from viewsynth.report import sheet

PAIRS = 8  # rows of a grid


def choose(pairs: Pairs, rows: list[int], seed: int) -> list[int]:
    """Choose the pairs of a grid at random, ordered by elevation.

    Args:
        pairs: Stored pairs.
        rows: Row numbers of the validation pairs.
        seed: Seed of the choice.

    Returns:
        Up to `PAIRS` row numbers.
    """
    chosen = sorted(rows, key=lambda row: seed_of(seed, "grid", row))[:PAIRS]
    return sorted(chosen, key=lambda row: pairs.rows[row]["elevation"])


def grid(pipeline, pairs: Pairs, rows: list[int], steps: int, seed: int) -> bytes:
    """Render a grid: one row per pair with photo, rendering, seen map, output and target.

    The output is that of the model alone: seen pixels are not copied from the rendering.

    Args:
        pipeline: A `ViewDiffusionPipeline`.
        pairs: Stored pairs.
        rows: Row numbers of the pairs.
        steps: Sampling steps.
        seed: Seed of the noise, combined with the row number.

    Returns:
        PNG.
    """
    conditions, target, _ = pairs.batch(rows)
    generators = [torch.Generator().manual_seed(seed_of(seed, "grid", row)) for row in rows]
    output = pipeline.sample(conditions, steps=steps, generators=generators, keep_seen=0.0).cpu()
    shown = []
    for k, row in enumerate(rows):
        about = pairs.rows[row]
        images = {
            "source": conditions.source[conditions.person[k]],
            "render": conditions.render[k],
            "seen": conditions.seen[k],
            "made": output[k],
            "true": target[k],
        }
        title = f"{about['pid']}   {about['elevation']:.0f} degrees   {about['kind']}"
        shown.append((title, [_tile(*item) for item in images.items()]))
    return sheet.draw(shown)


def log_image(accelerator, name: str, image: bytes, step: int) -> None:
    """Log a PNG to all trackers that accept images.

    Args:
        accelerator: The `accelerate.Accelerator` of the training run.
        name: Name of the image in the tracker.
        image: PNG.
        step: Training step.
    """
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            with Image.open(io.BytesIO(image)) as decoded:
                tracker.log_images({name: np.asarray(decoded.convert("RGB"))[None]}, step=step)


def _tile(label: str, image: Tensor) -> sheet.Tile:
    pixels = (image.expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0).numpy()
    return sheet.Tile(label, Image.fromarray(pixels))
