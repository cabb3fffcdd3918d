# SPDX-License-Identifier: Apache-2.0
"""Condition learner of SD-ReID: identity and view as tokens and feature maps for the denoiser.

Identity condition and prototype -> `Fusion` -> tokens for cross-attention. View feature ->
`Pyramid` -> feature maps that are added inside a UNet; this is the view-refined decoder as in the
release. `Align` is the view-refined decoder as in the abstract of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Block(nn.Module):
    """A residual block of CLIP: pre-norm self-attention and an MLP of four times the width."""

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
    """A small transformer over the tokens of the identity condition and a prototype.

    Args:
        width: Width of the input tokens, D.
        context: Width of the output tokens, C; if it differs from D, tokens are projected first.
        tokens: Number of tokens, T, including the prototype.
        depth: Number of blocks.
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
            prototype: Prototype of the view to generate.  [B, D]
            dropped: Rows that get the null tokens instead; None = no row.  bool [B]

        Returns:
            [B, T, C]
        """
        mixed = self.blocks(self.project(torch.cat([condition, prototype[:, None]], 1)))
        if dropped is None:
            return mixed
        return torch.where(dropped[:, None, None], self.null_tokens.to(mixed.dtype), mixed)

    def null(self, count: int, zeros: bool) -> Tensor:
        """Tokens of the unconditional branch of classifier-free guidance.

        Args:
            count: Number of rows, B.
            zeros: Whether to use zeros instead of the learned null tokens.

        Returns:
            [B, T, C]
        """
        tokens = self.null_tokens.expand(count, -1, -1)
        return torch.zeros_like(tokens) if zeros else tokens


def _heads(width: int) -> int:
    """Number of heads of width 64, or the next smaller number that divides the width."""
    wanted = max(1, width // 64)
    return next(n for n in range(wanted, 0, -1) if width % n == 0)


@dataclass(frozen=True)
class Level:
    """A block of a UNet that a feature map is added to.

    Args:
        channels: Channels of the block.
        stride: Size of the latent divided by that of the block.
    """

    channels: int
    stride: int


class Pyramid(nn.Module):
    """View-refined decoder as in the release: feature maps of a view, one for each UNet level.

    The view feature is reshaped to twice the height and width of the latent; a convolution with
    stride equal to its kernel size computes the map of each level.

    Args:
        size: Height and width of the latent.
        down: Levels of the encoder of the UNet.
        up: Levels of the decoder of the UNet.
    """

    def __init__(self, size: tuple[int, int], down: list[Level], up: list[Level]):
        super().__init__()
        self.size = tuple(2 * side for side in size)
        self.down, self.up = (
            nn.ModuleList(nn.Conv2d(1, v.channels, 2 * v.stride, 2 * v.stride) for v in levels)
            for levels in (down, up)
        )

    def forward(self, view: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Feature maps for the encoder and for the decoder of the UNet.

        Args:
            view: View features.  [B, D]

        Returns:
            Two lists of [B, C, h, w]
        """
        area = self.size[0] * self.size[1]
        plane = functional.pad(view, (0, area - view.shape[1])).unflatten(1, (1, *self.size))
        return [self._map(c, plane) for c in self.down], [self._map(c, plane) for c in self.up]

    @staticmethod
    def _map(layer: nn.Conv2d, plane: Tensor) -> Tensor:
        step = layer.stride[0]
        bottom, right = (-side % step for side in plane.shape[2:])
        return layer(functional.pad(plane, (0, right, 0, bottom)))  # a UNet rounds odd sizes up


class Align(nn.Module):
    """View-refined decoder as in the abstract: aligns sampled features with those of the encoder.

    Source: the abstract of SD-ReID v2 ("bridges instance-level and global-level features"); the
    release has no such module. Ours: a residual MLP on the feature and the prototype, which is
    initialised to the identity.

    Args:
        width: Length of a feature.
    """

    def __init__(self, width: int):
        super().__init__()
        self.wide, self.narrow = nn.Linear(2 * width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Refined features.

        Args:
            features: Sampled features.  [B, D]
            prototypes: Prototype of the view of each.  [B, D]

        Returns:
            [B, D]
        """
        both = torch.cat([features, prototypes], 1)
        return features + self.narrow(functional.gelu(self.wide(both)))
