# SPDX-License-Identifier: Apache-2.0
"""Method sd_reid: a view token before the last block; the first stage of SD-ReID.

Source: Wang et al., SD-ReID, IEEE TIP 2026 (arXiv 2504.09549). One learned view token, shared by
all views, is added to the sequence before the last block. Identity feature: the class token after
the last block and the final normalisation; view feature: the view token after the last block, not
normalised. Loss: CE_id + triplet_id + 0.001 CE_view. The second stage, `viewsynth.reid.sd_reid`,
also needs the identity condition (the class token after each block but the last, not normalised)
and the prototypes (the mean view feature of each view), which the memory bank tracks.

Differences from the release: the view token is initialised from N(0, 0.02), not with zeros, where
the normalisation of a ViT would have a gradient of up to a million; position embeddings are resized
by bicubic interpolation; there is no stochastic depth; the memory bank (`bank`) is a buffer, that
of the first process if there are several, and is also updated correctly by a view with a single
image in a batch. The second stage computes exact prototypes unless its mode is `faithful`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid import losses
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone, UnfitError, require_tokens
from viewsynth.reid.heads import BNNeck, identity_losses

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = ""
KNOWN = "released code"
# Of both stages.
PUBLISHED = {
    "cargo": {
        "ALL": (65.06, 57.47),
        "G<->G": (81.25, 74.08),
        "A<->A": (82.50, 67.70),
        "A<->G": (53.12, 46.44),
    },
    "ag_reid_v1": {"A->G": (85.16, 75.40), "G->A": (85.57, 77.02)},
    "ag_reid_v2": {
        "A->C": (87.04, 80.61),
        "C->A": (86.74, 79.24),
        "A->W": (90.86, 84.06),
        "W->A": (86.79, 80.12),
    },
    "lagper": {"A->G": (40.15, 29.72), "G->A": (34.47, 32.86), "G->A+G": (22.85, 18.88)},
}
VIEW_WEIGHT = 1e-3  # lambda_view of the release
MOMENTUM = 0.8  # weight of the current batch in the memory bank, as in the release


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`.

    Raises:
        UnfitError: If the backbone has no tokens, or too few blocks.
    """
    backbone = require_tokens(backbone, "sd_reid")
    if len(backbone.blocks) < 2:
        raise UnfitError(
            "method sd_reid needs a backbone of two or more blocks; got one; use another "
            "--model.backbone"
        )
    return SDReID(backbone, classes, smoothing, views)


@dataclass(frozen=True, eq=False)
class Encoded:
    """Outputs of the first stage for B images.

    Args:
        identity: Identity feature, before the neck.  float [B, D]
        condition: Identity condition: the class token after each of the L blocks but the last, not
            normalised.  float [B, L - 1, D]
        view: View feature.  float [B, D]
    """

    identity: Tensor
    condition: Tensor
    view: Tensor


class SDReID(nn.Module):
    """The method; see the module docstring and `methods.Method`.

    Attributes:
        bank: Memory bank: a moving prototype of each view, zero before its first image.
            float32 [views, D]
    """

    def __init__(
        self, backbone: TokenBackbone, classes: int, smoothing: float, views: Sequence[str]
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.backbone = backbone
        self.view_token = nn.Parameter(0.02 * torch.randn(1, 1, backbone.width))
        self.neck = BNNeck(backbone.width, classes)
        self.view_neck = BNNeck(backbone.width, len(views))
        self.register_buffer("bank", torch.zeros(len(views), backbone.width))

    def encode(self, images: Tensor) -> Encoded:
        """Identity feature, identity condition and view feature.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]
        """
        tokens, class_tokens = self.backbone.embed(images), []
        for block in self.backbone.blocks[:-1]:
            tokens = block(tokens)
            class_tokens.append(tokens[:, 0])
        view = self.view_token.expand(len(tokens), -1, -1)
        tokens = torch.cat([tokens[:, :1], view, tokens[:, 1:]], 1)
        first, view = self.backbone.blocks[-1](tokens, 2).unbind(1)
        return Encoded(self.backbone.norm(first), torch.stack(class_tokens, 1), view)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet and view loss, see `Method.losses`; in training, updates the bank."""
        found = self.encode(batch.images)
        if self.training:
            self._update_bank(found.view.detach().float(), batch.views)
        heads = [(self.neck, found.identity)]
        view = losses.classification(self.view_neck(found.view), batch.views, batch.weights)
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            "view": VIEW_WEIGHT * view,
        }

    forward = losses

    @torch.no_grad()
    def _update_bank(self, view: Tensor, views: Tensor) -> None:
        """Move the prototype of each view in a batch towards the batch mean.

        Args:
            view: View features.  [B, D]
            views: View of each image.  int64 [B]
        """
        for number in views.unique().tolist():
            mean = view[views == number].mean(0)
            self.bank[number] += MOMENTUM * (mean - self.bank[number])

    def features(self, images: Tensor) -> Tensor:
        """The identity feature after its neck, see `Method.features`."""
        return self.neck.norm(self.encode(images).identity)
