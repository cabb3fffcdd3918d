# SPDX-License-Identifier: Apache-2.0
"""Method visa: experts make queries from identity and view features, which read similar patches.

Source: ViSA, CVPR 2026 (arXiv 2605.18192); known from released code. The encoder is that of
`reid.view_tokens`, with one view token for each view, chosen by the view of the image, which
retrieval must therefore be told. Experts (learned prompts and a block that reads one feature)
make queries: those of a bank of the identity feature, which all views share, and of a bank of the
view's own; a linear router takes the best `TOP` of each. Every query and the `NEAR` patches most
similar to the feature form a graph with their cosines as edges, and one graph convolution updates
the query. An output token reads all queries and is the local feature. Loss: CE + triplet of both
features, CE_view + mean |cos(identity, view)|, and the balance of the experts. Retrieval compares
both features after their necks.

Differences from the release, besides those of `reid.view_tokens`: the graphs of the view queries
use weights of their own, where the release builds them and then calls the shared ones
(`RELEASED = True` does the same). The view tokens have no weight decay. As there, gradients reach
the graph's weights and the queries, not the patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import view_tokens
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone, require_tokens
from viewsynth.reid.heads import BNNeck, identity_losses
from viewsynth.reid.prompts import Attention, PromptBlock, mlp

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views",)
TOLD = "view"
KNOWN = "released code"
PUBLISHED = {
    "cargo": {
        "ALL": (70.51, 65.46),
        "G<->G": (88.39, 83.90),
        "A<->A": (82.50, 67.78),
        "A->G": (71.28, 69.00),
    },
    "ag_reid_v2": {
        "A->C": (89.43, 83.61),
        "C->A": (88.57, 82.32),
        "A->W": (91.63, 85.99),
        "W->A": (89.23, 83.10),
    },
    "lagper": {"A->G": (41.37, 30.42), "G->A": (35.06, 33.59), "G->A+G": (25.61, 20.31)},
}
EXPERTS, TOP, QUERIES = 8, 2, 16  # in a bank, those that count, and queries of each
NEAR = 64  # patches of a graph
VIEW_WEIGHT, BALANCE = 1.0, 1e-4  # weights of losses; the paper has a balance of 1e-3
RELEASED = False


def build(backbone: Backbone, classes: int, smoothing: float, views: Sequence[str]) -> nn.Module:
    """See `methods.build`."""
    return ViSA(require_tokens(backbone, "visa"), classes, smoothing, views)


class Bank(nn.Module):
    """Experts that make queries from a feature.

    Args:
        width: Length of a feature.
        heads: Attention heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.prompt_tokens = nn.Parameter(0.02 * torch.randn(EXPERTS, QUERIES, width))
        self.blocks = nn.ModuleList(
            PromptBlock(width, heads, ratio=2, one=True) for _ in range(EXPERTS)
        )
        self.router = nn.Linear(width, EXPERTS)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Queries, and the probability of every expert.

        Args:
            feature: float [B, D]

        Returns:
            float [B, QUERIES, D] and [B, EXPERTS]
        """
        chances = self.router(feature).float().softmax(-1)
        kept = torch.zeros_like(chances).scatter(1, chances.topk(TOP).indices, 1.0) * chances
        made = [
            block(prompts.expand(len(feature), -1, -1), feature[:, None])
            for block, prompts in zip(self.blocks, self.prompt_tokens, strict=True)
        ]
        return torch.einsum("be,beqd->bqd", kept.to(feature), torch.stack(made, 1)), chances


class Graph(nn.Module):
    """A query and patches as a complete graph; one convolution updates the query.

    Source: Kipf and Welling, Semi-supervised classification with graph convolutional networks, ICLR
    2017: D^-1/2 A D^-1/2 X W, with cosines that are not negative as A, and 1 on its diagonal.

    Args:
        width: Length of the vectors.
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, queries: Tensor, feature: Tensor, patches: Tensor) -> Tensor:
        """The updated queries.

        Args:
            queries: float [B, Q, D]
            feature: What patches are chosen by.  float [B, D]
            patches: float [B, N, D]

        Returns:
            float [B, Q, D]
        """
        mixed = self.mixed(queries.detach(), feature.detach(), patches.detach())
        return queries + self.norm(self.weight(mixed).tanh())

    @staticmethod
    def mixed(queries: Tensor, feature: Tensor, patches: Tensor) -> Tensor:
        """Row of the query in D^-1/2 A D^-1/2 X, for every query's own graph; see `forward`."""
        unit = functional.normalize(patches.float(), dim=-1)
        likeness = torch.einsum("bnd,bd->bn", unit, functional.normalize(feature.float(), dim=-1))
        places = likeness.topk(min(NEAR, patches.shape[1])).indices[..., None]
        near = patches.gather(1, places.expand(-1, -1, patches.shape[2]))
        unit = functional.normalize(near.float(), dim=-1)
        edges = (functional.normalize(queries.float(), dim=-1) @ unit.mT).clamp_min(0)
        between = (unit @ unit.mT).clamp_min(0)
        between.diagonal(dim1=1, dim2=2).fill_(1)
        own = (1 + edges.sum(-1, keepdim=True)).rsqrt()  # of the query
        others = (between.sum(-1)[:, None] + edges).rsqrt()  # of the patches
        found = own * own * queries + own * ((edges * others) @ near.float())
        return found.to(queries)


class ViSA(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self, backbone: TokenBackbone, classes: int, smoothing: float, views: Sequence[str]
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.backbone = backbone
        width, heads = backbone.width, backbone.heads
        self.view_tokens = nn.Parameter(torch.zeros(len(views), 1, width))
        self.shared = Bank(width, heads)
        self.own = nn.ModuleList(Bank(width, heads) for _ in views)
        self.graphs = nn.ModuleList(Graph(width) for _ in range(1 if RELEASED else 2))
        self.out_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.mix, self.mlp = Attention(width, heads), mlp(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.neck, self.local_neck = BNNeck(width, classes), BNNeck(width, classes)
        self.view_neck = BNNeck(width, len(views))

    def encode(
        self, images: Tensor, views: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Identity, local and view feature, and the probabilities of experts by bank.

        Args:
            images: RGB in [0, 1].  float [B, 3, H, W]
            views: int64 [B]

        Returns:
            float [B, width] three times; of each bank, float [B, EXPERTS] and which images it
            serves, bool [B]
        """
        token = self.view_tokens[views]
        feature, view, patches = view_tokens.with_patches(self.backbone, token, images)
        shared, chances = self.shared(feature)
        banks, own = [(chances, torch.ones_like(views, dtype=torch.bool))], 0
        for number, bank in enumerate(self.own):
            # All banks see all images, so that every weight has a gradient in every step.
            made, chances = bank(view)
            mine = views == number
            own = own + made * mine[:, None, None].to(made)
            banks.append((chances, mine))
        shared = self.graphs[0](shared, feature, patches)
        own = self.graphs[-1](own, view, patches)
        every = torch.cat([self.out_token.expand(len(images), -1, -1), shared, own], 1)
        every = self.norms[0](every + self.mix(every, every, every))
        local = self.norms[1](every[:, 0] + self.mlp(every[:, 0]))
        return feature, local, view, banks

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity, triplet, view and balance losses, see `Method.losses`."""
        feature, local, view, banks = self.encode(batch.images, batch.views)
        heads = [(self.neck, feature), (self.local_neck, local)]
        return {
            **identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic),
            **view_tokens.view_losses(self.view_neck, feature, view, batch, VIEW_WEIGHT),
            "balance": BALANCE
            * sum(balance(chances, batch.weights * mine) for chances, mine in banks),
        }

    forward = losses

    def features(self, images: Tensor, views: Tensor) -> Tensor:
        """Both features after their necks, see `Method.features`."""
        feature, local, *_ = self.encode(images, views)
        return torch.cat([self.neck.norm(feature), self.local_neck.norm(local)], 1)


def balance(chances: Tensor, weights: Tensor) -> Tensor:
    """N sum p^2 over N experts, p the mean probability of each: 1 if all serve alike.

    Args:
        chances: Probability of each expert.  float [B, N]
        weights: Weight of each sample.  float [B]

    Returns:
        A scalar; 0 without samples.
    """
    mean = weights @ chances / weights.sum().clamp_min(1e-6)
    return chances.shape[1] * mean.square().sum()
