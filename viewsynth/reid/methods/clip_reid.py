# SPDX-License-Identifier: Apache-2.0
"""Method clip_reid: sentences with learned words describe identities, then images learn from them.

Source: Li et al., CLIP-ReID, AAAI 2023 (arXiv 2211.13977). Stage "prompts": both sides of a CLIP
are frozen, and the words X of "A photo of a X X X X person." are learned for every identity, by a
contrastive loss of images against sentences and of sentences against images. Stage "encoder": the
sentences' features are fixed, and the image side learns: 0.25 CE + triplet of the class token and
of its projection, and CE of the projection's likeness to the sentences. Retrieval compares class
token and projection after their necks. No view is needed.

Differences from the release: likeness is a cosine times `SCALE`, not a product of features; the
triplet loss on the tokens before the last block is left out; retrieval compares features after
their necks, as with the other methods here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid import losses
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone
from viewsynth.reid.heads import BNNeck, identity_losses
from viewsynth.reid.methods import Stage
from viewsynth.reid.text_tower import Sentence, contrastive, sentence_parts

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("text",)
TOLD = ""
KNOWN = "paper"
PUBLISHED = {
    "cargo": {"ALL": (68.27, 64.25), "G<->G": (84.82, 80.80), "A<->A": (75.00, 65.42)}
    | {"A<->G": (55.62, 53.83)},
    "ag_reid_v1": {"A->G": (82.59, 75.68), "G->A": (85.68, 78.51)},
    "ag_reid_v2": {"A->C": (85.36, 79.79), "C->A": (85.64, 79.08)}
    | {"A->W": (89.14, 84.23), "W->A": (86.50, 79.55)},
    "lagper": {"A->G": (24.40, 17.60), "G->A": (21.30, 20.10), "G->A+G": (12.30, 10.20)},
}
STAGES = (Stage("prompts", ("words",)), Stage("encoder", ("backbone.", "neck.", "second_neck.")))
WORDS = 4  # learned words of an identity
BEFORE, AFTER = "a photo of a", "person."
IDENTITY, SMOOTHING, SCALE = 0.25, 0.1, 30.0


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    sentence: Sequence[Sequence[int]] = (),
) -> nn.Module:
    """See `methods.build`; `sentence` is that of a saved model, see `text_tower.Sentence`."""
    sentence = sentence or sentence_parts(backbone.tokenize, BEFORE, AFTER)
    return CLIPReID(backbone, classes, smoothing, sentence)


class CLIPReID(nn.Module):
    """The method; see the module docstring and `methods.Method`.

    Attributes:
        described: Features of the sentences of all identities, from the second stage on.
    """

    def __init__(
        self,
        backbone: TokenBackbone,
        classes: int,
        smoothing: float,
        sentence: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "sentence": list(sentence)}
        self.backbone, self.sentence = backbone, Sentence(sentence)
        backbone.text.project_image.requires_grad_(True)
        self.words = nn.Parameter(0.02 * torch.randn(classes, WORDS, backbone.text.width))
        self.register_buffer("described", torch.zeros(classes, backbone.text.features))
        self.neck = BNNeck(backbone.width, classes)
        self.second_neck = BNNeck(backbone.text.features, classes)
        self.stage = "encoder"

    @torch.no_grad()
    def begin(self, stage: str) -> None:
        """Start a stage; the second one fixes the sentences."""
        self.stage = stage
        if stage == "encoder":
            for some in torch.arange(len(self.words), device=self.words.device).split(64):
                self.described[some] = self.sentence(self.backbone.text, self.words[some])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The class token, float [B, width], and its projection, float [B, features]."""
        first = self.backbone(images)
        return first, self.backbone.text.project_image(first)

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Losses of the stage, see `Method.losses`."""
        if self.stage == "prompts":
            return self.prompt_losses(batch)
        first, projected = self.encode(batch.images)
        heads = [(self.neck, first), (self.second_neck, projected)]
        found = identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic)
        text = self.text_losses(projected, batch)
        return {**found, "identity": IDENTITY * found["identity"], **text}

    forward = losses

    def text_losses(self, projected: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the projected features against the sentences, in the second stage."""
        likeness = SCALE * losses.cosines(projected, self.described)
        text = losses.classification(likeness, batch.labels, batch.weights, SMOOTHING)
        return {"text": text}

    def prompt_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Contrastive losses of the frozen images and the sentences of their identities."""
        with torch.no_grad():
            images = self.encode(batch.images)[1]
        own = batch.labels.unique()
        texts = self.sentence(self.backbone.text, self.words[own])
        whole = torch.ones_like(own, dtype=batch.weights.dtype)
        counted = batch.weights > 0
        images, labels = images[counted], batch.labels[counted]
        return {
            "identity": contrastive(images, texts, labels, own, batch.weights[counted], SCALE),
            "sentence": contrastive(texts, images, own, labels, whole, SCALE),
        }

    def features(self, images: Tensor) -> Tensor:
        """Class token and projection after their necks, see `Method.features`."""
        first, projected = self.encode(images)
        return torch.cat([self.neck.norm(first), self.second_neck.norm(projected)], 1)
