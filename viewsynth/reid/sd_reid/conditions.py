# SPDX-License-Identifier: Apache-2.0
"""Conditions: who it is and from where it is to be seen, as tokens and as maps.

identity condition + prototype -> `Fusion` -> tokens for cross-attention; a view's feature ->
`Pyramid` -> maps that are added to the blocks of a UNet. Source: the condition learner of SD-ReID
(its section 2.3); `Pyramid` is the reading of its view-refined decoder that the release has.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """A residual block of CLIP: attention, then an MLP of four times the width, norms before."""

    def __init__(self, width: int, heads: int, across_batch: bool):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=not across_batch)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.before(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        wide = self.wide(self.after(tokens))
        return tokens + self.narrow(wide * torch.sigmoid(1.702 * wide))  # QuickGELU


class Fusion(nn.Module):
    """Tokens of the identity condition and a prototype, mixed by attention.

    Args:
        width: Of the tokens that come in, D.
        context: Of those that go out, C; with another width than D they are projected first.
        tokens: How many there are, T, the prototype included.
        depth: Blocks.
        across_batch: See `mode.Mode`.
    """

    def __init__(self, width: int, context: int, tokens: int, depth: int, across_batch: bool):
        super().__init__()
        self.project = nn.Identity() if width == context else nn.Linear(width, context)
        heads = _heads(context)
        self.blocks = nn.Sequential(*(_Block(context, heads, across_batch) for _ in range(depth)))
        self.null_tokens = nn.Parameter(torch.randn(1, tokens, context))

    def forward(
        self, condition: Tensor, prototype: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """Tokens for cross-attention.

        Args:
            condition: Identity condition.  [B, T - 1, D]
            prototype: Of the wanted view.  [B, D]
            dropped: Rows that get the null tokens instead.  bool [B]
        Returns: [B, T, C]
        """
        mixed = self.blocks(self.project(torch.cat([condition, prototype[:, None]], 1)))
        if dropped is None:
            return mixed
        return torch.where(dropped[:, None, None], self.null_tokens.to(mixed.dtype), mixed)

    def null(self, count: int, zeros: bool) -> Tensor:
        """What stands for no condition.  [count, T, C]"""
        tokens = self.null_tokens.expand(count, -1, -1)
        return torch.zeros_like(tokens) if zeros else tokens


def _heads(width: int) -> int:
    """As many as give 64 numbers a head, or the next fewer that divide the width."""
    wanted = max(1, width // 64)
    return next(n for n in range(wanted, 0, -1) if width % n == 0)


@dataclass(frozen=True)
class Level:
    """A block of a UNet that takes a map: its channels, and by how much it is coarser."""

    channels: int
    stride: int


class Pyramid(nn.Module):
    """Maps of a view's feature, one a level, for the way down and for the way up.

    The feature is laid out over twice the height and width of the latent; a convolution whose
    kernel is its stride makes a map of each level.

    Args:
        size: Height and width of the latent.
        down, up: Levels of the encoder's and the decoder's blocks.
    """

    def __init__(self, size: tuple[int, int], down: list[Level], up: list[Level]):
        super().__init__()
        self.size = tuple(2 * side for side in size)
        self.down, self.up = (
            nn.ModuleList(nn.Conv2d(1, v.channels, 2 * v.stride, 2 * v.stride) for v in levels)
            for levels in (down, up)
        )

    def forward(self, view: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Maps for the way down and for the way up.  [B, D] -> [B, C, h, w] each"""
        area = self.size[0] * self.size[1]
        plane = functional.pad(view, (0, area - view.shape[1])).unflatten(1, (1, *self.size))
        return [self._map(c, plane) for c in self.down], [self._map(c, plane) for c in self.up]

    @staticmethod
    def _map(layer: nn.Conv2d, plane: Tensor) -> Tensor:
        step = layer.stride[0]
        tall, across = (-side % step for side in plane.shape[2:])
        return layer(functional.pad(plane, (0, across, 0, tall)))  # a UNet halves and rounds up


class Align(nn.Module):
    """The view-refined decoder as its abstract reads: brings a sampled feature to the encoder's.

    Source: SD-ReID v2's abstract ("bridges instance-level and global-level features"); there is no
    such module in the release. Ours: an MLP on the feature and the prototype, residual, which
    starts at nothing.
    """

    def __init__(self, width: int):
        super().__init__()
        self.wide, self.narrow = nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """[B, D] and [B, D] -> [B, D]"""
        both = torch.cat([features, prototypes], 1)
        return features + self.narrow(functional.gelu(self.wide(both)))
