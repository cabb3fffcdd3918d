# SPDX-License-Identifier: Apache-2.0
"""Preview: what a diffusion model in training makes of people that it does not learn from.

`train-diffusion` asks for it at every validation: the same pairs, the same noise, so that one
picture after the other shows how it gets on.
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

PAIRS = 8  # of a grid


def choose(pairs: Pairs, rows: list[int], seed: int) -> list[int]:
    """Some of the pairs, from low cameras to high ones."""
    some = sorted(rows, key=lambda row: seed_of(seed, "grid", row))[:PAIRS]
    return sorted(some, key=lambda row: pairs.rows[row]["elevation"])


def grid(pipeline, pairs: Pairs, rows: list[int], steps: int, seed: int) -> bytes:
    """A row a pair: photo, rendering, what was seen, what is made, the truth; as PNG.

    Nothing that was seen is set back: it shows the model alone.

    Args:
        pipeline: A `ViewDiffusionPipeline`.
        rows: Numbers of the pairs.
        steps: Of its scheduler.
        seed: Of the noise, together with the pair's number.
    """
    conditions, target, _ = pairs.batch(rows)
    draws = [torch.Generator().manual_seed(seed_of(seed, "grid", row)) for row in rows]
    made = pipeline.sample(conditions, steps=steps, generators=draws, keep_seen=0.0).cpu()
    shown = []
    for k, row in enumerate(rows):
        about = pairs.rows[row]
        pictures = {
            "source": conditions.source[conditions.person[k]],
            "render": conditions.render[k],
            "seen": conditions.seen[k],
            "made": made[k],
            "true": target[k],
        }
        title = f"{about['pid']}   {about['elevation']:.0f} degrees   {about['kind']}"
        shown.append((title, [_tile(*item) for item in pictures.items()]))
    return sheet.draw(shown)


def show(accelerator, name: str, image: bytes, step: int) -> None:
    """Give a PNG to those trackers that take pictures."""
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            with Image.open(io.BytesIO(image)) as picture:
                tracker.log_images({name: np.asarray(picture.convert("RGB"))[None]}, step=step)


def _tile(label: str, picture: Tensor) -> sheet.Tile:
    pixels = (picture.expand(3, -1, -1) * 255).round().byte().permute(1, 2, 0).numpy()
    return sheet.Tile(label, Image.fromarray(pixels))
