# SPDX-License-Identifier: Apache-2.0
"""Parts of vision transformers, with one call signature for all releases of `transformers`.

Used by `backbones.TokenBackbone`.
"""

from __future__ import annotations

import inspect
import itertools

import torch
from torch import Tensor, nn


class Stem(nn.Module):
    """Convolutional stem of a ViT: convolutions of stride 2 in place of one patch projection.

    Source: Xiao et al., Early convolutions help transformers see better, NeurIPS 2021 (arXiv
    2106.14881): 3 x 3 convolutions of stride 2 with normalisation and ReLU, and a final 1 x 1.

    Args:
        projection: The patch projection to replace; its kernel size is a power of 2.
    """

    def __init__(self, projection: nn.Conv2d):
        super().__init__()
        self.kernel_size, width = projection.kernel_size, projection.out_channels
        halvings = self.kernel_size[0].bit_length() - 1
        widths = [3, *(width >> n for n in reversed(range(halvings)))]
        layers = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, width, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Patch embeddings.

        Args:
            pixels: Normalised pixels.  float [B, 3, H, W]

        Returns:
            float [B, D, H / kernel, W / kernel]
        """
        return self.layers(pixels)


class Block(nn.Module):
    """A transformer block of any release of `transformers`, called as tokens -> tokens.

    Args:
        block: The block.
    """

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block
        masked = "attention_mask" in inspect.signature(block.forward).parameters
        self.mask = {"attention_mask": None} if masked else {}

    def forward(self, tokens: Tensor) -> Tensor:
        """The block's output.  [B, T, D] -> [B, T, D]."""
        out = self.block(tokens, **self.mask)
        return out[0] if isinstance(out, tuple) else out


class LastBlock(Block):
    """The last block, which can compute its output for the first tokens only.

    The other tokens then need no query and no MLP, and no key or value either: the score of query q
    and token x is q'(W x + b) = (W'q)'x + q'b, and the attention output is W times a weighted mean
    of tokens. The result is the same except for rounding. A block of another structure, or with
    dropout, is computed in full.

    Args:
        block: The block.
    """

    PARTS = {  # part -> its names in the releases and model families of `transformers`
        "norm": ("layernorm_before", "layer_norm1", "norm1"),
        "attention": ("attention", "self_attn"),
        "after": ("layernorm_after", "layer_norm2", "norm2"),
        "mlp": ("mlp",),
    }

    def __init__(self, block: nn.Module):
        super().__init__(block)
        named = dict(block.named_children())
        found = {key: named[n] for key, names in self.PARTS.items() for n in names if n in named}
        linear = {
            name[0]: part
            for name, part in found.get("attention", nn.Module()).named_children()
            if isinstance(part, nn.Linear)
        }
        # In a dictionary: as attributes they would be saved twice.
        self.parts = found | {key: linear.get(key) for key in "qkvo"}
        self.parts |= {f"scale{n}": named.get(f"layer_scale{n}", nn.Identity()) for n in (1, 2)}
        self.reducible = None not in self.parts.values() and len(found) == len(self.PARTS)
        self.reducible = self.reducible and self._agrees()

    @torch.no_grad()
    def _agrees(self) -> bool:
        """Whether the reduced computation gives the output of the block, in training mode."""
        config = self.parts["attention"].config
        self.heads = config.num_attention_heads
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randn(2, 9, config.hidden_size, generator=generator)
        with torch.random.fork_rng(devices=[]):
            return torch.allclose(self(tokens)[:, :2], self._first(tokens, 2), rtol=1e-3, atol=1e-4)

    def forward(self, tokens: Tensor, count: int | None = None) -> Tensor:
        """The block's output.

        Args:
            tokens: Input tokens.  [B, T, D]
            count: Number of output tokens; None = all.

        Returns:
            [B, count, D]
        """
        if count is None or not self.reducible:
            return super().forward(tokens)[:, :count]
        return self._first(tokens, count)

    def _first(self, tokens: Tensor, count: int) -> Tensor:
        parts = self.parts
        normed, first = parts["norm"](tokens), tokens[:, :count]
        first = first + parts["scale1"](self._attention(normed, count))
        return first + parts["scale2"](parts["mlp"](parts["after"](first)))

    def _attention(self, tokens: Tensor, count: int) -> Tensor:
        """Attention output for the first tokens.  [B, T, D] -> [B, count, D]."""
        query, key, value, out = (self.parts[name] for name in "qkvo")
        queries = query(tokens[:, :count]).unflatten(-1, (self.heads, -1))
        split = (self.heads, queries.shape[-1])
        mapped = torch.einsum("bnhd,hdc->bnhc", queries, key.weight.unflatten(0, split))
        scores = (mapped.flatten(1, 2) @ tokens.transpose(1, 2)).unflatten(1, queries.shape[1:3])
        if key.bias is not None:  # equal for all tokens, so without effect; gives it a gradient
            scores = scores + (queries * key.bias.view(split)).sum(-1, keepdim=True)
        shares = (scores.float() * split[1] ** -0.5).softmax(-1).to(tokens.dtype)
        mixed = (shares.flatten(1, 2) @ tokens).unflatten(1, queries.shape[1:3])
        values = torch.einsum("bnhc,hdc->bnhd", mixed, value.weight.unflatten(0, split)).flatten(2)
        return out(values if value.bias is None else values + value.bias)


def blocks_of(tower: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer, wherever the installed release of `transformers` keeps them.

    Args:
        tower: The vision model.

    Raises:
        ValueError: If none are found.
    """
    for owner in (tower, getattr(tower, "encoder", None)):
        for name in ("layers", "layer"):
            if isinstance(found := getattr(owner, name, None), nn.ModuleList):
                return list(found)
    raise ValueError(
        f"no blocks were found in {type(tower).__name__} of the installed release of transformers"
    )


def resize_positions(table: Tensor, grid: tuple[int, int], antialias: bool) -> Tensor:
    """Position embeddings of a class token and a square grid of patches, resized to another grid.

    Args:
        table: Position embeddings.  [..., 1 + side * side, D]
        grid: Height and width of the new grid, patches.
        antialias: Whether the bicubic interpolation is antialiased.

    Returns:
        [1, 1 + height * width, D]

    Raises:
        ValueError: If the table is not that of a square grid.
    """
    table = table.reshape(-1, table.shape[-1])
    side = round((len(table) - 1) ** 0.5)
    if side * side != len(table) - 1:
        raise ValueError(
            f"expected positions of a class token and a square of patches, got {len(table)}"
        )
    square = table[1:].T.reshape(1, -1, side, side)
    if grid != (side, side):
        square = nn.functional.interpolate(
            square, grid, mode="bicubic", align_corners=False, antialias=antialias
        )
    return torch.cat([table[:1], square.flatten(2)[0].T])[None].clone()
