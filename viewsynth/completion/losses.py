# SPDX-License-Identifier: Apache-2.0
"""Losses of the completion network.

Depths and colours: absolute errors, colours in CIELAB, and differences between neighbouring pixels,
so that edges are sharp where they can be known. Colours are compared in the light of the crop: a
crop hardly tells how bright its light is, and that doubt would drown everything else.

The network also says how large it expects its errors to be: the width of a Laplace distribution
(Kendall and Gal, NeurIPS 2017), fitted to errors that are held fixed. With one likelihood for both,
it gave up on colours that are hard to know (Seitzer et al., ICLR 2022): after 1,000 steps they were
still those of the crop.
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

SLOPE, BACKGROUND, KIND, PERSON = 0.5, 0.2, 1.0, 0.5  # weights of the terms
LIGHT = 0.5  # weight of the error of the light
CLIPPED = 0.85  # linear light from which a pixel is overexposed
TINT, BRIGHTEST = 0.4, 3.0  # largest logarithms of the light: of its colour, and altogether
DARK = 1e-3  # avoids logarithms of 0
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
    found, light = model(given), light_of(here)
    known = ~here["bodiless"] if "bodiless" in here else here["rider"] > -1  # placed exactly
    return {
        "depth": _depth(found, here["sheets"].float(), known),
        "colour": _colour(
            found, lit(here["colour"], light), (here["kind"] > 0) & known[:, None, None, None]
        ),
        "light": LIGHT * _mean((found.light - light).abs().mean(1), known),
        "kind": KIND * _kind(found.kind[known].flatten(0, 1), here["kind"][known].flatten(0, 1)),
        "person": PERSON * _person(found, here["true_angles"], here["rider"]),
    }


def light_of(examples: dict[str, Tensor]) -> Tensor:
    """Light of the crops: logarithm of their linear colours over those in neutral light.

    Args:
        examples: See `terms`.

    Returns:
        Least squares over the pixels that show the person and are not overexposed; channels differ
        by at most `TINT` from grey.  [B, 3]
    """
    crop, true = (
        linear(one.flatten(1, 2).float() / 255)
        for one in (examples["image"], examples["colour"][:, 0])
    )
    shown = (examples["mask"] > 127) & (examples["kind"][:, 0] > 0)
    shown = shown.flatten(1) & (crop.amax(-1) < CLIPPED)
    both = (crop * true * shown[..., None]).sum(1), (true.square() * shown[..., None]).sum(1)
    each = torch.log((both[0] + DARK) / (both[1] + DARK))
    grey = torch.log((both[0].sum(1) + DARK) / (both[1].sum(1) + DARK))[:, None]
    return (grey + (each - grey).clamp(-TINT, TINT)).clamp(-BRIGHTEST, BRIGHTEST)


def lit(colour: Tensor, light: Tensor) -> Tensor:
    """Colours without light in the light of their crop.

    Args:
        colour: sRGB, uint8 [B, 2, H, W, 3].
        light: Of `light_of`.

    Returns:
        sRGB in [0, 1], [B, 2, 3, H, W].
    """
    value = (linear(colour.float() / 255) * light.exp()[:, None, None, None]).clamp(0, 1)
    low = value <= 0.0031308
    found = torch.where(low, 12.92 * value, 1.055 * value.clamp_min(1e-6) ** (1 / 2.4) - 0.055)
    return found.movedim(-1, 2)


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
    loss = _mean(error + _spread(error, found.depth_scale, 2), trunk)
    for one in away:
        loss = loss + SLOPE * _slopes(one, trunk)
    return loss + BACKGROUND * _mean(found.half / UNIT, (half == 0) & known)


def _spread(error: Tensor, scale: Tensor, count: int) -> Tensor:
    """Misfit of the expected error of a sum of `count` errors; no gradient for the prediction."""
    return error.detach() * (-scale).exp() + count * scale


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
    loss = _mean(error + _spread(error, found.colour_scale, 3), person)
    return loss + SLOPE * sum(_slopes(away[..., k], person) for k in range(3))


def _kind(logits: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy of the kinds on the person, and beside it."""
    loss = functional.cross_entropy(logits, true.long(), reduction="none")
    return _mean(loss, true > 0) + BACKGROUND * _mean(loss, true == 0)


def _person(found: Completion, angles: Tensor, rider: Tensor) -> Tensor:
    """Error of the azimuth on the unit circle, and of telling riders."""
    azimuth = torch.deg2rad(angles[:, 1])
    goal = torch.stack([azimuth.cos(), azimuth.sin()], 1)
    return functional.mse_loss(found.azimuth, goal) + functional.binary_cross_entropy_with_logits(
        found.rider, rider
    )


def linear(srgb: Tensor) -> Tensor:
    """Linear light of sRGB colours in [0, 1]."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(srgb: Tensor) -> Tensor:
    """CIE L*a*b* (D65) of sRGB colours in [0, 1], as `metrics.colours.lab`, differentiable.

    Args:
        srgb: [..., 3].
    """
    value = srgb.clamp(1e-4, 1)
    ratio = linear(value) @ torch.tensor(_TO_XYZ, device=srgb.device).T
    f = torch.where(
        ratio > (6 / 29) ** 3, ratio.clamp_min(1e-6) ** (1 / 3), ratio * (29 / 6) ** 2 / 3 + 4 / 29
    )
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
