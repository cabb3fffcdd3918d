# SPDX-License-Identifier: Apache-2.0
"""Preview grids of the completion network in training, for held-out people."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from viewsynth.completion.losses import light_of, lit
from viewsynth.completion.stored import Stored
from viewsynth.reconstruct.complete import Completer, stack
from viewsynth.records import seed_of
from viewsynth.report import sheet

EXAMPLES = 12  # rows of a grid
THICK = 0.25  # metres of half thickness that are drawn white
PALETTE = np.array(
    [
        *([0, 0, 0], [230, 190, 160], [90, 50, 20], [255, 0, 255], [60, 120, 255]),
        *([0, 160, 0], [255, 160, 0], [160, 0, 0], [255, 255, 0], [120, 120, 120]),
    ],
    np.uint8,
)  # of `complete.KINDS`


def choose(examples: Stored, rows: np.ndarray, seed: int) -> list[int]:
    """Choose the examples of a grid at random.

    Args:
        examples: All examples.
        rows: Numbers of those to choose from.
        seed: Seed of the choice.
    """
    return sorted(rows.tolist(), key=lambda row: seed_of(seed, "grid", row))[:EXAMPLES]


@torch.no_grad()
def grid(model: Completer, examples: Stored, rows: list[int]) -> bytes:
    """One row per example: crop, mask; thickness, front, back and kinds of the back, true and made.

    True colours are shown in the light of the crop.

    Args:
        model: The network.
        examples: All examples.
        rows: Numbers of the shown ones.

    Returns:
        PNG.
    """
    true = examples.batch(rows)
    device = next(model.parameters()).device
    made = model(stack({name: value.to(device) for name, value in true.items()}))
    colour = (255 * made.colour.movedim(2, -1)).round().byte().cpu().numpy()
    kind, half = made.kind.argmax(2).cpu().numpy(), made.half.cpu().numpy()
    person = true["kind"][:, 0].numpy() > 0
    goal = lit(true["colour"], light_of(true)) * (true["kind"] > 0)[:, :, None]
    goal = (255 * goal.movedim(2, -1)).round().byte().numpy()
    shown = []
    for k, row in enumerate(rows):
        about, here = examples.rows[row], person[k][..., None]
        images = [
            ("crop", true["image"][k].numpy()),
            ("mask", _grey(true["mask"][k].numpy() / 255)),
            ("half, true", _grey(true["sheets"][k, 1].float().nan_to_num().numpy() / THICK)),
            ("made", _grey(half[k] / THICK)),
            ("front, true", goal[k, 0]),
            ("made", colour[k, 0] * here),
            ("back, true", goal[k, 1]),
            ("made", colour[k, 1] * here),
            ("kind, true", PALETTE[true["kind"][k, 1].numpy()]),
            ("made", PALETTE[kind[k, 1]]),
        ]
        title = f"{about['name']}   {about['fitted'][1]:.0f} degrees   {about['motion']}"
        tiles = [sheet.Tile(name, Image.fromarray(one)) for name, one in images]
        shown.append((title, tiles))
    return sheet.draw(shown)


def _grey(value: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as grey, uint8 [H, W, 3]."""
    return (255 * value.clip(0, 1)).round().astype(np.uint8)[..., None].repeat(3, -1)
