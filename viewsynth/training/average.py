# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average (EMA) of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a model's weights, or the model itself.

    Frozen weights are shared with the model, not copied.

    Args:
        model: The model that is trained.
        decay: Share of the average that is kept at a step, [0, 1); 0 = no average.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.model = decay, model
        if decay:
            still = {id(p): p for p in model.parameters() if not p.requires_grad}
            self.model = copy.deepcopy(model, still).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the model's weights after a step.

        Args:
            model: The model that is trained.
            step: Number of the step, counted from 0.
        """
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))  # short at first: forget the random start
        for own, new in self._pairs(model):
            if own.data_ptr() == new.data_ptr():
                continue
            if own.is_floating_point():
                own.lerp_(new, 1 - decay)
            else:
                own.copy_(new)

    def _pairs(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
