# SPDX-License-Identifier: Apache-2.0
"""Method dts: only the patches with the best scores take part in the last two blocks.

Source: Wang et al., Dynamic Token Selection, ICME 2025 (arXiv 2412.00433); known from released
code. The encoder is that of `reid.view_tokens`. Before the last two blocks a score is computed for
every patch, from the patch and the mean over patches, and only the class token, the view token and
`KEPT` patches go on. The selection is differentiable by perturbation: the mean over many noisy
selections (Cordonnier et al., CVPR 2021). Losses are those of VDT.

Differences from the release, besides those of `reid.view_tokens`: its last version builds the
selector and does not call it, so that it trains VDT; ours calls it. In evaluation the selection is
exact, without noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import view_tokens
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone, UnfitError, require_tokens
from viewsynth.reid.methods import vdt
from viewsynth.reid.prompts import Attention

NEEDS = ("views",)
TOLD = ""
KNOWN = "released code"
PUBLISHED = {
    "cargo": {
        "ALL": (64.42, 55.73),
        "G<->G": (78.57, 72.40),
        "A<->A": (80.00, 63.31),
        "A<->G": (50.63, 43.39),
    },
    "ag_reid_v1": {"A->G": (83.48, 74.51), "G->A": (84.10, 76.05)},
}
KEPT = 2  # patches
DRAWS, NOISE = 500, 0.05  # noisy selections, and standard deviation of the noise


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`.

    Raises:
        UnfitError: If the backbone has no tokens, or too few blocks.
    """
    if len(require_tokens(backbone, "dts").blocks) < 2:
        raise UnfitError("method dts needs a backbone of two or more blocks; got one")
    return DTS(backbone, classes, smoothing, views)


class PerturbedTop(torch.autograd.Function):
    """Mean one-hot selections of the K largest scores under noise, in the order of their places.

    Source: Berthet et al., Learning with differentiable perturbed optimizers, NeurIPS 2020: the
    gradient of E[y(s + sigma z)] by s is E[y(s + sigma z) z'] / sigma.
    """

    @staticmethod
    def forward(ctx, scores: Tensor, kept: int, noise: Tensor) -> Tensor:
        """Mean selections.

        Args:
            ctx: Of autograd.
            scores: [B, N]
            kept: Number of places.
            noise: Noise in units of `NOISE`.  [B, draws, N]

        Returns:
            float [B, kept, N]
        """
        chosen = (scores[:, None] + NOISE * noise).topk(kept, -1).indices.sort(-1).values
        ctx.save_for_backward(chosen, noise)
        one = torch.ones_like(chosen, dtype=noise.dtype)
        count = noise.new_zeros(len(scores), kept, scores.shape[1])
        return count.scatter_add_(2, chosen.mT, one.mT) / noise.shape[1]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Gradient by the scores, see the class."""
        chosen, noise = ctx.saved_tensors
        value = gradient.gather(2, chosen.mT).sum(1)  # of each draw
        return (value[..., None] * noise).mean(1) / NOISE, None, None


class DTS(vdt.VDT):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self, backbone: TokenBackbone, classes: int, smoothing: float, views: Sequence[str]
    ):
        super().__init__(backbone, classes, smoothing, views)
        width = backbone.width
        self.look = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.attention = Attention(width, 2)
        self.score = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 1))

    def scores(self, patches: Tensor) -> Tensor:
        """Score of every patch, in [-1, 1].  [B, N, D] -> [B, N]."""
        seen = self.look(patches)
        seen = self.attention(seen, seen, seen)
        whole = seen.mean(1, keepdim=True).expand_as(seen)
        return self.score(torch.cat([seen, whole], -1))[..., 0].tanh()

    def select(self, patches: Tensor) -> Tensor:
        """The `KEPT` patches with the best scores.  [B, N, D] -> [B, KEPT, D]."""
        scores = self.scores(patches).float()
        kept = min(KEPT, scores.shape[1])
        if self.training:
            noise = torch.randn(len(scores), DRAWS, scores.shape[1], device=scores.device)
            chosen = PerturbedTop.apply(scores, kept, noise)
        else:
            places = scores.topk(kept).indices.sort(-1).values
            chosen = functional.one_hot(places, scores.shape[1]).float()
        return chosen.to(patches) @ patches

    def decouple(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Identity feature and view feature, see `VDT.decouple`."""
        count, last = self.backbone.places.shape[1] - 1, len(self.backbone.blocks) - 2

        def change(number: int, tokens: Tensor) -> Tensor:
            if number < last:
                return tokens
            return torch.cat([tokens[:, :-count], self.select(tokens[:, -count:])], 1)

        tokens = view_tokens.before_last(self.backbone, self.view_token, images, change)
        return view_tokens.decoupled(self.backbone, tokens)
