# SPDX-License-Identifier: Apache-2.0
"""View tokens: a transformer that takes the view out of its class token, for methods built on VDT.

Source: Zhang et al., View-decoupled Transformer, CVPR 2024 (arXiv 2403.14513). A view token is
added to the sequence; after every block CLS <- CLS - VIEW; after the final normalisation LN, the
identity feature is LN(CLS) - LN(VIEW) and the view feature is LN(VIEW).

Difference from the release: it resizes its position embeddings as if two tokens preceded the
patches, so its view token is initialised with a copy of the position of the first patch; ours
shares that position. (With a zero token, the normalisation of a ViT, epsilon 1e-12, would have a
gradient of up to a million.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from viewsynth.reid import losses

if TYPE_CHECKING:
    from viewsynth.reid.backbone_modules import TokenBackbone
    from viewsynth.reid.batches import Batch
    from viewsynth.reid.heads import BNNeck


def before_last(
    backbone: TokenBackbone,
    token: Tensor,
    images: Tensor,
    change: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Tokens before the last block: class token, view token, registers if any, patches.

    Args:
        backbone: The transformer.
        token: The view token, without a position.  float [1, 1, D], or [B, 1, D] one for each image
        images: RGB in [0, 1].  float [B, 3, H, W]
        change: Of a method that changes the tokens before each block but the last:
            change(number of the block, tokens) -> tokens.

    Returns:
        float [B, 2 + R + N, D]
    """
    tokens = backbone.embed(images, token + backbone.places[:, 1:2])
    for number, block in enumerate(backbone.blocks[:-1]):
        tokens = subtracted(block(change(number, tokens) if change else tokens))
    return tokens


def decoupled(backbone: TokenBackbone, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Identity feature and view feature, from the last block.

    Args:
        backbone: The transformer.
        tokens: Tokens before the last block.  float [B, T, D]

    Returns:
        float [B, D] each
    """
    identity, view = backbone.norm(subtracted(backbone.blocks[-1](tokens, 2))).unbind(1)
    return identity - view, view


def with_patches(
    backbone: TokenBackbone, token: Tensor, images: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Identity feature, view feature, and the patches before the last block.

    Args:
        backbone: The transformer.
        token: See `before_last`.
        images: RGB in [0, 1].  float [B, 3, H, W]

    Returns:
        float [B, D], [B, D] and [B, N, D]
    """
    tokens = before_last(backbone, token, images)
    feature, view = decoupled(backbone, tokens)
    return feature, view, tokens[:, 1 - backbone.places.shape[1] :]


def subtracted(tokens: Tensor) -> Tensor:
    """The same tokens, the view token subtracted from the class token.  [B, T, D]."""
    return torch.cat([tokens[:, :1] - tokens[:, 1:2], tokens[:, 1:]], 1)


def view_losses(
    neck: BNNeck, feature: Tensor, view: Tensor, batch: Batch, scale: float
) -> dict[str, Tensor]:
    """Losses that give the view token the view: CE_view and mean |cos(feature, view)|.

    Args:
        neck: Head of the view feature.
        feature: Identity feature.  float [B, D]
        view: View feature.  float [B, D]
        batch: The batch.
        scale: Weight of both, lambda of the paper.
    """
    return {
        "view": scale * losses.classification(neck(view), batch.views, batch.weights),
        "orthogonality": scale * losses.orthogonality(feature, view, batch.weights),
    }
