# SPDX-License-Identifier: Apache-2.0
"""Losses of the completion network.

Depths and colours: absolute errors under a Laplace distribution whose width the network predicts
(Kendall and Gal, NeurIPS 2017), which makes it say where it is unsure; colours in CIELAB, and
differences between neighbouring pixels, so that edges are sharp where they can be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.completion.augment import augmented
from viewsynth.completion.stored import Stored
from viewsynth.reconstruct.complete import BODY, UNIT, Completion, stack
from viewsynth.training.rows import Draws

SLOPE, BACKGROUND, KIND, PERSON = 0.5, 0.2, 0.3, 0.1  # weights of the terms
DELTA = 10.0  # units of CIELAB per unit of the loss
_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)


@dataclass(frozen=True)
class Completing:
    """The losses of rows of examples, see `rows.Losses`.

    Args:
        examples: The examples.
        chosen: Rows of them that are trained on.
        device: Device of the model.
    """

    examples: Stored
    chosen: np.ndarray
    device: torch.device

    def __call__(self, model: nn.Module, average, rows: np.ndarray, draws: Draws) -> dict:
        """See `rows.Losses`."""
        return terms(model, augmented(self.read(rows), draws), self.device)

    def read(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The examples with their true angles and whether they ride a bicycle."""
        chosen = self.chosen[rows]
        found = self.examples.batch(chosen)
        some = [self.examples.rows[int(k)] for k in chosen]
        found["true_angles"] = torch.tensor([row["angles"] for row in some], dtype=torch.float32)
        found["rider"] = torch.tensor([float(row["motion"] == "cycle") for row in some])
        return found


def terms(model: nn.Module, examples: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Losses by name, means over a batch.

    Args:
        model: The network.
        examples: Of `Completing.read`; with "bodiless" of `augment.augmented`, or without.
        device: Device of the model.
    """
    here = {name: value.to(device) for name, value in examples.items()}
    given = stack(here)
    if "bodiless" in here:
        given[:, BODY] = given[:, BODY] * ~here["bodiless"][:, None, None, None]
    found = model(given)
    known = ~here["bodiless"] if "bodiless" in here else torch.ones_like(here["rider"]) > 0
    return {
        "depth": _depth(found, here["sheets"].float(), known),
        "colour": _colour(found, here["colour"].movedim(-1, 2).float() / 255, here["kind"] > 0),
        "kind": KIND
        * functional.cross_entropy(found.kind.flatten(0, 1), here["kind"].flatten(0, 1).long()),
        "person": PERSON * _person(found, here["true_angles"], here["rider"]),
    }


def _mean(value: Tensor, where: Tensor) -> Tensor:
    """Mean over some pixels."""
    return (value * where).sum() / where.sum().clamp_min(1)


def _depth(found: Completion, true: Tensor, known: Tensor) -> Tensor:
    """Errors of thickness and middle where there is a trunk; its absence elsewhere."""
    known = known[:, None, None] & true.isfinite().all(1)
    middle, half = true.nan_to_num().unbind(1)
    trunk = (half > 0) & known
    away = [(found.half - half) / UNIT, (found.middle - middle) / UNIT]
    error = away[0].abs() + away[1].abs()
    loss = _mean(error * (-found.depth_scale).exp() + 2 * found.depth_scale, trunk)
    for one in away:
        loss = loss + SLOPE * _slopes(one, trunk)
    return loss + BACKGROUND * _mean(found.half / UNIT, (half == 0) & known)


def _slopes(error: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference of errors of neighbouring pixels, both in the region."""
    total = 0.0
    for axis in (-1, -2):
        both = where.narrow(axis, 1, where.shape[axis] - 1) & where.narrow(
            axis, 0, where.shape[axis] - 1
        )
        total = total + _mean(error.diff(dim=axis).abs(), both)
    return total


def _colour(found: Completion, true: Tensor, person: Tensor) -> Tensor:
    """Errors of the colours of front and back."""
    away = (lab(found.colour.movedim(2, -1)) - lab(true.movedim(2, -1))) / DELTA
    error = away.abs().sum(-1)
    scale = found.colour_scale
    loss = _mean(error * (-scale).exp() + 3 * scale, person)
    return loss + SLOPE * sum(_slopes(away[..., k], person) for k in range(3))


def _person(found: Completion, angles: Tensor, rider: Tensor) -> Tensor:
    """Error of the azimuth on the unit circle, and of telling riders."""
    azimuth = torch.deg2rad(angles[:, 1])
    goal = torch.stack([azimuth.cos(), azimuth.sin()], 1)
    return functional.mse_loss(found.azimuth, goal) + functional.binary_cross_entropy_with_logits(
        found.rider, rider
    )


def lab(srgb: Tensor) -> Tensor:
    """CIE L*a*b* (D65) of sRGB colours in [0, 1], as `metrics.colours.lab`, differentiable.

    Args:
        srgb: [..., 3].
    """
    value = srgb.clamp(1e-4, 1)
    light = torch.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    ratio = light @ torch.tensor(_TO_XYZ, device=srgb.device).T
    f = torch.where(
        ratio > (6 / 29) ** 3, ratio.clamp_min(1e-6) ** (1 / 3), ratio * (29 / 6) ** 2 / 3 + 4 / 29
    )
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
