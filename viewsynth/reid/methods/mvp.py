# SPDX-License-Identifier: Apache-2.0
"""Method mvp: CLIP-ReID whose sentences also say the view, with learned words for each view.

Source: the repository of MVP (multi-view prompts); known from a description of its released code.
The sentence is "A photo of a X X X X person by Y view.", with four learned words X of an identity
and one Y of a view. Stages and losses are those of `clip_reid`, with the sentence of the image's
own view, and two losses of the second stage: the cosine between the mean images of an identity in
two views shall be that between its sentences of these views (squared difference), and so shall the
cosines between all images of a batch. Views are needed in training only.

Differences from the release, besides those of `clip_reid`: none are known; what a sentence of the
other view is to an image in the first stage was not described: here it is one of another class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone
from viewsynth.reid.methods import Stage, clip_reid
from viewsynth.reid.text_tower import contrastive, sentence_parts

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views", "text")
TOLD = ""
KNOWN = "description"
PUBLISHED = {}  # only with re-ranking: CARGO 70.2 / 65.7, of a protocol that is not said
STAGES = (
    Stage("prompts", ("words", "view_words")),
    Stage("encoder", ("backbone.", "neck.", "second_neck.")),
)
BEFORE, BETWEEN, AFTER = "a photo of a", "person by", "view."
CONSISTENT = 1.0  # weight of the two losses between images and sentences


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    sentence: Sequence[Sequence[int]] = (),
) -> nn.Module:
    """See `methods.build`; `sentence` is that of a saved model, see `text_tower.Sentence`."""
    sentence = sentence or sentence_parts(backbone.tokenize, BEFORE, BETWEEN, AFTER)
    return MVP(backbone, classes, smoothing, views, sentence)


class MVP(clip_reid.CLIPReID):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self,
        backbone: TokenBackbone,
        classes: int,
        smoothing: float,
        views: Sequence[str],
        sentence: Sequence[Sequence[int]],
    ):
        super().__init__(backbone, classes, smoothing, sentence)
        self.settings["views"] = list(views)
        self.view_words = nn.Parameter(0.02 * torch.randn(len(views), 1, backbone.text.width))
        self.register_buffer("described", torch.zeros(classes, len(views), backbone.text.features))

    @torch.no_grad()
    def begin(self, stage: str) -> None:
        """Start a stage; the second one fixes the sentences."""
        self.stage = stage
        if stage == "encoder":
            for some in torch.arange(len(self.words), device=self.words.device).split(64):
                for view in range(len(self.view_words)):
                    views = torch.full_like(some, view)
                    self.described[some, view] = self.describe(some, views)

    def describe(self, labels: Tensor, views: Tensor) -> Tensor:
        """Features of the sentences of identities in views.  int64 [B] each -> float [B, F]."""
        return self.sentence(self.backbone.text, self.words[labels], self.view_words[views])

    def prompt_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Contrastive losses of the frozen images and the sentences of their identity and view."""
        with torch.no_grad():
            images = self.encode(batch.images)[1]
        count = len(self.view_words)
        pairs = batch.labels * count + batch.views
        own = pairs.unique()
        texts = self.describe(own // count, own % count)
        counted = batch.weights > 0
        images, labels, weights = images[counted], pairs[counted], batch.weights[counted]
        whole = weights.new_ones(len(own))
        scale = clip_reid.SCALE
        return {
            "identity": contrastive(images, texts, labels, own, weights, scale),
            "sentence": contrastive(texts, images, own, labels, whole, scale),
        }

    def text_losses(self, projected: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the projected features against the sentences, in the second stage."""
        described = self.described[:, batch.views].transpose(0, 1)  # [B, classes, F]
        likeness = losses.cosines(projected[:, None], described)[:, 0]
        text = losses.classification(
            clip_reid.SCALE * likeness, batch.labels, batch.weights, clip_reid.SMOOTHING
        )
        own = self.described[batch.labels, batch.views]
        return {"text": text, "consistency": CONSISTENT * consistency(projected, own, batch)}


def consistency(images: Tensor, texts: Tensor, batch: Batch) -> Tensor:
    """How far the cosines between images are from those between their sentences.

    Args:
        images: Projected features.  float [B, F]
        texts: Features of the sentence of each.  float [B, F]
        batch: Labels, views and weights.

    Returns:
        The sum of two means of squared differences: over pairs of views of an identity, between its
        mean images in them, and over pairs of images.
    """
    images, texts = (functional.normalize(x.float(), dim=1) for x in (images, texts))
    both = batch.weights[:, None] * batch.weights
    every = ((images @ images.T - texts @ texts.T).square() * both).mean()
    same = (batch.labels[:, None] == batch.labels) & (batch.views[:, None] == batch.views)
    share = same * batch.weights
    total = share.sum(1)
    mean = functional.normalize(share @ images / total.clamp_min(1e-6)[:, None], dim=1)
    across = (batch.labels[:, None] == batch.labels) & (batch.views[:, None] != batch.views)
    apart = (mean @ mean.T - texts @ texts.T).square() * across * both
    return every + apart.sum() / (across * both).sum().clamp_min(1e-6)
