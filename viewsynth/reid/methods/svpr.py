# SPDX-License-Identifier: Apache-2.0
"""Method svpr: view and identity taken out of each other, then patches chosen step by step.

Source: the repository of SVPR-ReID (AAAI 2026), which introduces CP2108; known from a description
of its released code. The text of the image's view is a token of the image side, so the method is
told the view of every image. Identity and view token are decoupled: what either says of the other
is estimated and subtracted with a learned weight. Experts read attributes from the identity. Three
steps with the same weights choose half of the patches each, and average them with weights. Learned
words and a description of the person (its caption, else its attributes) guide the choice in
training; at test time that is "attributes unknown", so that no label is used. Losses: 0.25 CE and
triplet of the four features, CE of the view, 0.05 x attributes. Retrieval compares all four.

Differences from the release: the triplet loss has a soft margin, as with the other methods here;
local features are means of weighted patches, not sums, so that they do not shrink with the patches.
Not described, so our reading: how text and experts enter the choice of patches (their sum with the
identity is what patches are compared with), and a linear layer between text and image side. Images
without a description have the sentence of test time; without attributes that loss is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from viewsynth.reid import losses
from viewsynth.reid.attribute_head import attribute_loss
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone
from viewsynth.reid.heads import BNNeck, identity_losses
from viewsynth.reid.prompts import FromOne, mlp
from viewsynth.reid.text_tower import LONGEST

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views", "text")
USES = ("attributes",)
TOLD = "view"
KNOWN = "description"
PUBLISHED = {
    "ag_reid_v1": {"A->G": (85.34, 77.85), "G->A": (87.32, 80.55)},
    "cp2108": {"ALL": (59.23, 42.40), "A->G": (64.25, 47.72), "G->A": (63.76, 47.04)},
}
WORDS, GENERIC = 4, "attributes unknown"  # learned words; the description at test time
EXPERTS, TOP = 4, 3
STEPS, KEPT = 3, 0.5  # steps of refinement; share of the patches that each keeps
IDENTITY, VIEW, ATTRIBUTES = 0.25, 1.0, 0.05


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    attributes: Sequence[str] = (),
    generic: Sequence[int] = (),
    view_texts: Sequence[Sequence[int]] = (),
) -> nn.Module:
    """See `methods.build`; `attributes` are names, the last two are tokens of a saved model."""
    if not generic:
        generic = backbone.tokenize(GENERIC)
        view_texts = [backbone.tokenize(f"a photo from {view} view.") for view in views]
    return SVPR(backbone, classes, smoothing, views, attributes, generic, view_texts)


class SVPR(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self,
        backbone: TokenBackbone,
        classes: int,
        smoothing: float,
        views: Sequence[str],
        attributes: Sequence[str],
        generic: Sequence[int],
        view_texts: Sequence[Sequence[int]],
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.settings |= {"attributes": list(attributes), "generic": list(generic)}
        self.settings["view_texts"] = [list(text) for text in view_texts]
        self.backbone, width, text = backbone, backbone.width, backbone.text
        with torch.no_grad():
            words = [text.words(torch.tensor(ids))[None] for ids in view_texts]
            self.register_buffer("view_features", torch.cat([text(one) for one in words]))
        self.learned_tokens = nn.Parameter(0.02 * torch.randn(WORDS, text.width))
        self.from_view, self.from_text = (nn.Linear(text.features, width) for _ in range(2))
        self.view_of, self.identity_of = FromOne(width), FromOne(width)
        self.shares = nn.Parameter(torch.full((2,), 0.1))
        self.router = nn.Linear(width, EXPERTS)
        self.experts = nn.ModuleList(mlp(width, 1) for _ in range(EXPERTS))
        self.gate = nn.Linear(width, width)
        self.attributes = nn.Linear(width, len(attributes)) if attributes else None
        self.view_neck = BNNeck(width, len(views))
        self.neck = BNNeck(width, classes)
        self.local_necks = nn.ModuleList(BNNeck(width, classes) for _ in range(STEPS))

    def tokens(self, images: Tensor, views: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Identity, view and patches of the image side.  float [B, D], [B, D] and [B, N, D]."""
        body = self.backbone
        view = self.from_view(self.view_features[views])[:, None]
        tokens = body.embed(images, view + body.places[:, 1:2])
        for block in body.blocks:
            tokens = block(tokens)
        tokens = body.norm(tokens)
        return tokens[:, 0], tokens[:, 1], tokens[:, 1 - body.places.shape[1] :]

    def described(self, texts: Sequence[str]) -> Tensor:
        """Features of the learned words with descriptions; "" = `GENERIC`.  float [B, F]."""
        generic, known = self.settings["generic"], list(dict.fromkeys(texts))
        if any(known) and self.backbone.tokenize is None:
            raise ValueError("this model was loaded without a tokenizer, so it cannot be trained")
        ids = [self.backbone.tokenize(one) if one else list(generic) for one in known]
        most = LONGEST - WORDS
        ids = [one if len(one) <= most else [*one[: most - 1], one[-1]] for one in ids]
        longest, device = max(map(len, ids)), self.learned_tokens.device
        table = torch.tensor([one + [one[-1]] * (longest - len(one)) for one in ids], device=device)
        words, text = self.backbone.text.words(table), self.backbone.text
        learned = self.learned_tokens.expand(len(ids), -1, -1).to(words)
        words = torch.cat([words[:, :1], learned, words[:, 1:]], 1)
        last = torch.tensor([WORDS + len(one) - 1 for one in ids], device=device)
        found = text(words, last)
        return found[torch.tensor([known.index(one) for one in texts], device=device)]

    def decouple(self, identity: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Identity without the view, and view without the identity.  float [B, D] each."""
        one, other = identity[:, None], view[:, None]
        seen, known = self.view_of(one, other, other), self.identity_of(other, one, one)
        return identity - self.shares[0] * seen[:, 0], view - self.shares[1] * known[:, 0]

    def mixed(self, identity: Tensor) -> Tensor:
        """What the best experts make of the identity, by their chances.  float [B, D]."""
        chances, best = self.router(identity).softmax(1).topk(TOP, 1)
        every = torch.stack([expert(identity) for expert in self.experts], 1)
        weights = torch.zeros_like(every[:, :, 0]).scatter(1, best, chances.to(every))
        return (weights[:, :, None] * every).sum(1)

    def refine(self, guide: Tensor, patches: Tensor) -> list[Tensor]:
        """Local features: after each step, a weighted mean of the patches that it keeps.

        Args:
            guide: What patches are compared with.  float [B, D]
            patches: float [B, N, D]

        Returns:
            float [B, D] for each step
        """
        found = []
        for _ in range(STEPS):
            scores = (patches @ self.gate(guide)[:, :, None])[:, :, 0] / patches.shape[2] ** 0.5
            count = max(1, round(KEPT * patches.shape[1]))
            best = scores.topk(count, 1).indices
            patches = patches.gather(1, best[:, :, None].expand(-1, -1, patches.shape[2]))
            weights = scores.gather(1, best).tanh()
            found.append((weights[:, :, None] * patches).mean(1))
            guide = guide + found[-1]
        return found

    def encode(
        self, images: Tensor, views: Tensor, texts: Sequence[str]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """The four features, the view's, and what the experts read, all float [B, D]."""
        identity, view, patches = self.tokens(images, views)
        identity, view = self.decouple(identity, view)
        read = self.mixed(identity)
        guide = identity + read + self.from_text(self.described(texts))
        return [identity, *self.refine(guide, patches)], view, read

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Losses of the four features, of view and attributes, see `Method.losses`."""
        found, view, read = self.encode(batch.images, batch.views, batch.texts)
        heads = list(zip([self.neck, *self.local_necks], found, strict=True))
        terms = identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic)
        terms["identity"] = IDENTITY * terms["identity"]
        seen = losses.classification(self.view_neck(view), batch.views, batch.weights)
        terms["view"] = VIEW * seen
        if self.attributes is not None:
            logits = self.attributes(read)
            known = attribute_loss(logits, batch.attributes, batch.weights)
            terms["attributes"] = ATTRIBUTES * known
        return terms

    forward = losses

    def features(self, images: Tensor, views: Tensor) -> Tensor:
        """The four features after their necks, see `Method.features`."""
        found, _, _ = self.encode(images, views, [""] * len(images))
        necks = [self.neck, *self.local_necks]
        return torch.cat([neck.norm(one) for neck, one in zip(necks, found, strict=True)], 1)
