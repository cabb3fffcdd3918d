# SPDX-License-Identifier: Apache-2.0
"""sd_reid: a view token before the last block; the first stage of SD-ReID.

Source: Wang et al., SD-ReID, IEEE TIP 2026 (arXiv 2504.09549). Class tokens and places go through
all blocks but the last; there one learnt token, shared by all views, joins them. Identity feature:
the class token after the last block and the last normalisation; view feature: the view token after
the last block, not normalised. Loss: CE_id + triplet_id + 0.001 CE_view. What the second stage,
`viewsynth.reid.sd_reid`, needs beside these two is the identity condition: the class token after
each block but the last, not normalised, and the mean view feature of each view, the prototypes.

We differ from the release: the view token starts at N(0, 0.02), not at zero, which the
normalisation of a ViT would meet with a slope of up to a million; positions are resized bicubic;
there is no stochastic depth; the moving prototypes (`bank`) are buffers, those of the first process
where there are several, and a view with one picture in a batch counts like any other. The second
stage computes exact prototypes unless it is asked to be faithful.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid import losses
from viewsynth.reid.backbones import TOKENS, Backbone, Tokens
from viewsynth.reid.heads import BNNeck

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = "views"
BALANCE = 1e-3  # lambda_view of the release
MOMENTUM = 0.8  # weight of the newest batch in the moving prototypes, as released


def build(backbone: Backbone, classes: int, smoothing: float, views: int) -> nn.Module:
    """As `methods.build` says.

    Raises: ValueError: if the backbone has no tokens, or too few blocks.
    """
    if not isinstance(backbone, Tokens):
        raise ValueError(
            f"method sd_reid needs a backbone with tokens ({', '.join(TOKENS)}, small_vit); got "
            f"{backbone.kind}; take another model, or the method baseline"
        )
    if len(backbone.blocks) < 2:
        raise ValueError("method sd_reid needs a backbone of two blocks or more; got one")
    return SDReID(backbone, classes, smoothing, views)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the encoder says of B pictures.

    Args:
        identity: Identity feature, before the neck.  float [B, D]
        condition: Class token after each block but the last, not normalised.  float [B, L - 1, D]
        view: View feature.  float [B, D]
    """

    identity: Tensor
    condition: Tensor
    view: Tensor


class SDReID(nn.Module):
    """See the head of this file and `methods.Method`.

    Attributes:
        bank: Moving prototypes, zero for a view that was not seen.  float32 [views, D]
    """

    def __init__(self, backbone: Tokens, classes: int, smoothing: float, views: int):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": views}
        self.backbone = backbone
        self.view_token = nn.Parameter(0.02 * torch.randn(1, 1, backbone.width))
        self.neck = BNNeck(backbone.width, classes)
        self.view_neck = BNNeck(backbone.width, views)
        self.register_buffer("bank", torch.zeros(views, backbone.width))

    def encode(self, images: Tensor) -> Encoded:
        """Identity feature, identity condition and view feature.  [B, 3, H, W]"""
        tokens, firsts = self.backbone.embed(images), []
        for block in self.backbone.blocks[:-1]:
            tokens = block(tokens)
            firsts.append(tokens[:, 0])
        view = self.view_token.expand(len(tokens), -1, -1)
        tokens = torch.cat([tokens[:, :1], view, tokens[:, 1:]], 1)
        first, view = self.backbone.blocks[-1](tokens, 2).unbind(1)
        return Encoded(self.backbone.norm(first), torch.stack(firsts, 1), view)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet and view loss."""
        found = self.encode(batch.images)
        labels, weights = batch.labels, batch.weights
        smoothing = self.settings["smoothing"]
        if self.training:
            self._remember(found.view.detach().float(), batch.views)
        return {
            "identity": losses.classification(
                self.neck(found.identity), labels, weights, smoothing
            ),
            "triplet": losses.triplet(
                found.identity, labels, weights, None if mine_synthetic else ~batch.synthetic
            ),
            "view": BALANCE
            * losses.classification(self.view_neck(found.view), batch.views, weights),
        }

    forward = losses

    @torch.no_grad()
    def _remember(self, view: Tensor, views: Tensor) -> None:
        """Move the prototypes of the views of a batch."""
        for number in views.unique().tolist():
            mean = view[views == number].mean(0)
            self.bank[number] += MOMENTUM * (mean - self.bank[number])

    def features(self, images: Tensor) -> Tensor:
        """The identity feature after its neck.  [B, width]"""
        return self.neck.norm(self.encode(images).identity)
