# SPDX-License-Identifier: Apache-2.0
"""Learned prompts that read features: attention between sets of vectors, for methods.

Normalisation follows each residual sum, as in the first transformer (Vaswani et al., 2017).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller.

    Args:
        width: Length of the vectors.
        heads: Number of heads; divides `inner`.
        inner: Width of queries, keys and values; None = `width`.
    """

    def __init__(self, width: int, heads: int, inner: int | None = None):
        super().__init__()
        inner = inner or width
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.out = nn.Linear(inner, width)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """What the queries read.

        Args:
            query: float [B, Q, D]
            key: float [B, K, D]
            value: float [B, K, D]
            bias: Added to the logarithms of the weights.  float [B, Q, K], or to be expanded to it

        Returns:
            float [B, Q, D]
        """
        parts = self.query(query), self.key(key), self.value(value)
        split = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in parts)
        mask = None if bias is None else bias[:, None].to(query)
        found = functional.scaled_dot_product_attention(*split, attn_mask=mask)
        return self.out(found.transpose(1, 2).flatten(2))


class FromOne(nn.Module):
    """`Attention` to a single vector: its weights are 1, so queries and keys have no effect.

    Args:
        width: Length of the vectors.
    """

    def __init__(self, width: int):
        super().__init__()
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attention.forward`; key and value have length 1.  [B, Q, D]."""
        return self.out(self.value(value)).expand_as(query)


def mlp(width: int, ratio: int = 4) -> nn.Sequential:
    """Two linear layers with a GELU between.

    Args:
        width: Length of the vectors.
        ratio: Inner width over `width`.
    """
    return nn.Sequential(
        nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
    )


class PromptBlock(nn.Module):
    """Prompts read vectors, then each other, then pass an MLP.

    Source: Wang et al., SeCap, CVPR 2025 (arXiv 2503.06965), both of its modules end in one.

    Args:
        width: Length of the vectors.
        heads: Number of heads.
        ratio: Inner width of the MLP over `width`.
        one: Whether the prompts read a single vector.
    """

    def __init__(self, width: int, heads: int, ratio: int = 4, one: bool = False):
        super().__init__()
        self.read = FromOne(width) if one else Attention(width, heads)
        self.mix, self.mlp = Attention(width, heads), mlp(width, ratio)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, prompts: Tensor, vectors: Tensor) -> Tensor:
        """The prompts after the block.

        Args:
            prompts: float [B, M, D]
            vectors: What they read.  float [B, N, D]

        Returns:
            float [B, M, D]
        """
        prompts = self.norms[0](prompts + self.read(prompts, vectors, vectors))
        prompts = self.norms[1](prompts + self.mix(prompts, prompts, prompts))
        return self.norms[2](prompts + self.mlp(prompts))


class TwoWayBlock(nn.Module):
    """Queries read patches, then patches read queries.

    Source: the mask decoder of Segment Anything (Kirillov et al., ICCV 2023), as SeCap uses it:
    attention between queries and patches has half the width.

    Args:
        width: Length of the vectors.
        heads: Number of heads; divides half of `width`.
        first: Whether it is the first of its kind, whose queries attend to each other without their
            positions and without a residual sum.
    """

    def __init__(self, width: int, heads: int, first: bool):
        super().__init__()
        self.first = first
        self.mix, self.mlp = Attention(width, heads), mlp(width)
        self.read, self.write = (Attention(width, heads, width // 2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(
        self, queries: Tensor, patches: Tensor, places: Tensor, patch_places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries and patches after the block.

        Args:
            queries: float [B, Q, D]
            patches: float [B, N, D]
            places: Positions of the queries.  float [B, Q, D]
            patch_places: Positions of the patches.  float [1, N, D]

        Returns:
            float [B, Q, D] and [B, N, D]
        """
        if self.first:
            queries = self.mix(queries, queries, queries)
        else:
            placed = queries + places
            queries = queries + self.mix(placed, placed, queries)
        queries = self.norms[0](queries)
        found = self.read(queries + places, patches + patch_places, patches)
        queries = self.norms[1](queries + found)
        queries = self.norms[2](queries + self.mlp(queries))
        found = self.write(patches + patch_places, queries + places, queries)
        return queries, self.norms[3](patches + found)
