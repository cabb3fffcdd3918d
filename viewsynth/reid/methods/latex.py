# SPDX-License-Identifier: Apache-2.0
"""Method latex: a frozen CLIP whose prompts read attributes, which become words of a sentence.

Source: the repository of LATex (arXiv 2503.23722); known from a description of its released code.
Prompts, one for each attribute, enter before every block; what comes out of the last one is a
vector of each attribute. Heads read the attributes from their own vector and, by attention, from
those of the others. Each vector also becomes a word of "a ground view photo of a X ... X person.",
whose feature is compared beside that of the image, so retrieval is told the view of every image.
The losses are 0.25 CE + triplet of both features, and CE of the attributes, if any are known.

An attribute here is a group of `attributes.groups`, with the value "none" in front of its own ones;
without attributes there are `TOKENS` prompts. Both sides of a pretrained CLIP are frozen, as in the
release by default; one that starts at random learns. Differences from the release: the text side
has its causal mask, which the released code omits; the attention between attributes has one set of
weights for all of them (not described).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reid import losses
from viewsynth.reid.attributes import UNKNOWN, groups
from viewsynth.reid.backbone_modules import Backbone, TokenBackbone
from viewsynth.reid.heads import BNNeck, identity_losses
from viewsynth.reid.text_tower import LONGEST, Sentence, sentence_parts

if TYPE_CHECKING:
    from viewsynth.reid.batches import Batch

NEEDS = ("views", "text")
USES = ("attributes",)
TOLD = "view"
KNOWN = "description"
PUBLISHED = {
    "cargo": {"ALL": (76.96, 67.09), "G<->G": (90.18, 79.90), "A<->A": (80.00, 69.06)}
    | {"A<->G": (66.87, 58.88)},
    "ag_reid_v1": {"A->G": (85.26, 77.67), "G->A": (89.40, 81.15)},
    "ag_reid_v2": {"A->C": (89.13, 83.50), "C->A": (89.01, 82.85)}
    | {"A->W": (91.35, 86.35), "W->A": (89.32, 83.30)},
}
TOKENS, WORDS = 15, 8  # prompts without attributes; learned words that all sentences share
HEADS = 8  # of the attention between attributes
IDENTITY, ATTRIBUTES, SMOOTHING = 0.25, 1.0, 0.1


def build(
    backbone: Backbone,
    classes: int,
    smoothing: float,
    views: Sequence[str],
    attributes: Sequence[str] = (),
    sentences: Sequence[Sequence[Sequence[int]]] = (),
    frozen: bool | None = None,
) -> nn.Module:
    """See `methods.build`; `attributes` are names, `sentences` and `frozen` of a saved model."""
    if not sentences:
        starts = [f"a {view} view photo of a" for view in views]
        sentences = [sentence_parts(backbone.tokenize, one, "person.") for one in starts]
    frozen = bool(backbone.loaded) if frozen is None else frozen
    return LATex(backbone, classes, smoothing, views, attributes, sentences, frozen)


class LATex(nn.Module):
    """The method; see the module docstring and `methods.Method`."""

    def __init__(
        self,
        backbone: TokenBackbone,
        classes: int,
        smoothing: float,
        views: Sequence[str],
        attributes: Sequence[str],
        sentences: Sequence[Sequence[Sequence[int]]],
        frozen: bool,
    ):
        super().__init__()
        self.settings = {"classes": classes, "smoothing": smoothing, "views": list(views)}
        self.settings |= {"attributes": list(attributes), "sentences": list(sentences)}
        self.settings["frozen"] = frozen
        self.backbone = backbone.requires_grad_(not frozen)
        self.sentences = nn.ModuleList(Sentence(parts) for parts in sentences)
        self.groups = list(groups(attributes).values())
        count, text = len(self.groups) or TOKENS, backbone.text
        longest = max(sum(map(len, parts)) for parts in sentences)
        if count + WORDS + longest > LONGEST:
            raise ValueError(
                f"method latex has a word for each of {count} groups of attributes, and a text has "
                f"{LONGEST} words; name attributes of one kind 'group:value'"
            )
        shape = (len(backbone.blocks), count, backbone.width)
        self.prompt_tokens = nn.Parameter(0.02 * torch.randn(shape))
        self.shared_tokens = nn.Parameter(0.02 * torch.randn(WORDS, text.width))
        width = 2 * text.features
        self.to_word = nn.Sequential(
            nn.Linear(width, text.features), nn.ReLU(), nn.Linear(text.features, text.width)
        )
        if self.groups:
            self.classify = AttributeClassifiers(width, [1 + len(group) for group in self.groups])
        self.neck = BNNeck(text.features, classes)
        self.second_neck = BNNeck(text.features, classes)

    def visual(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The image's feature, float [B, F], and a vector of each attribute, float [B, G, 2 F]."""
        tokens, count = self.backbone.embed(images), self.prompt_tokens.shape[1]
        for block, prompts in zip(self.backbone.blocks, self.prompt_tokens, strict=True):
            prompts = prompts.expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens[:, :1], prompts, tokens[:, 1:]], 1)
            if block is self.backbone.blocks[-1]:
                tokens = block(tokens, 1 + count)
            else:
                tokens = block(tokens)
                tokens = torch.cat([tokens[:, :1], tokens[:, 1 + count :]], 1)
        out = self.backbone.text.project_image(self.backbone.norm(tokens))
        whole = out[:, :1].expand(-1, count, -1)
        return out[:, 0], torch.cat([out[:, 1:], whole], 2)

    def textual(self, vectors: Tensor, views: Tensor) -> Tensor:
        """Features of the sentences of images.

        Args:
            vectors: Of the attributes.  float [B, G, 2 F]
            views: int64 [B]

        Returns:
            float [B, F]
        """
        words = self.to_word(vectors)
        words = torch.cat([self.shared_tokens.expand(len(words), -1, -1).to(words), words], 1)
        found = words.new_zeros(len(words), self.backbone.text.features)
        for view, sentence in enumerate(self.sentences):
            own = (views == view).nonzero()[:, 0]
            if len(own):
                text = sentence(self.backbone.text, words[own])
                found = found.to(text.dtype).index_copy(0, own, text)
        return found

    def losses(self, batch: Batch, mine_synthetic: bool = True) -> dict[str, Tensor]:
        """Identity and triplet loss of both features, attribute loss, see `Method.losses`."""
        feature, vectors = self.visual(batch.images)
        text = self.textual(vectors, batch.views)
        heads = [(self.neck, feature), (self.second_neck, text)]
        found = identity_losses(heads, batch, self.settings["smoothing"], mine_synthetic)
        found["identity"] = IDENTITY * found["identity"]
        if self.groups:
            logits = self.classify(vectors)
            found["attributes"] = ATTRIBUTES * grouped_loss(logits, self.groups, batch)
        return found

    forward = losses

    def features(self, images: Tensor, views: Tensor) -> Tensor:
        """Features of image and sentence after their necks, see `Method.features`."""
        feature, vectors = self.visual(images)
        text = self.textual(vectors, views)
        return torch.cat([self.neck.norm(feature), self.second_neck.norm(text)], 1)


class AttributeClassifiers(nn.Module):
    """Heads of attributes, which read their own vector and, by attention, those of the others.

    For attribute i, the vectors of the others attend to each other, are summed with learned
    weights, pass a QuickGELU, a batch normalisation and a linear layer, and are added to a linear
    layer of vector i. Computed without a sequence for each i: the weights of the sum are applied to
    those of the attention.

    Args:
        width: Length of a vector.
        sizes: Number of values of each attribute.
    """

    def __init__(self, width: int, sizes: Sequence[int]):
        super().__init__()
        count = len(sizes)
        self.own = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        if count == 1:  # there are no others
            return
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.share = nn.Parameter(torch.randn(count, count) / max(count - 1, 1) ** 0.5)
        self.shift = nn.Parameter(torch.zeros(count))
        self.norm = nn.BatchNorm1d(count * width)
        self.others = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.register_buffer("self_mask", torch.eye(count, dtype=torch.bool), persistent=False)

    def context(self, vectors: Tensor) -> Tensor:
        """What each attribute reads from the others.  float [B, G, D] -> [B, G, D]."""
        query, key, value = (
            layer(vectors).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = (query @ key.mT).float() / query.shape[-1] ** 0.5  # [B, heads, G, G]
        scores = scores[:, :, None].masked_fill(self.self_mask[:, None], -torch.inf)
        share = self.share.masked_fill(self.self_mask, 0)  # [attribute, other]
        weights = torch.einsum("iq,bhiqk->bhik", share, scores.softmax(-1))
        mixed = (weights.to(value) @ value).transpose(1, 2).flatten(2)
        bias = share.sum(1)[:, None] * self.out.bias + self.shift[:, None]
        return functional.linear(mixed, self.out.weight) + bias

    def forward(self, vectors: Tensor) -> list[Tensor]:
        """Logits of the values of each attribute.  float [B, G, D] -> [B, size] each."""
        direct = [layer(one) for layer, one in zip(self.own, vectors.unbind(1), strict=True)]
        if len(direct) == 1:
            return direct
        mixed = self.context(vectors)
        mixed = mixed * torch.sigmoid(1.702 * mixed)
        mixed = self.norm(mixed.flatten(1)).unflatten(1, mixed.shape[1:])
        read = [layer(one) for layer, one in zip(self.others, mixed.unbind(1), strict=True)]
        return [one + other for one, other in zip(direct, read, strict=True)]


def grouped_loss(logits: Sequence[Tensor], groups: Sequence[Sequence[int]], batch: Batch) -> Tensor:
    """Mean cross entropy over the attributes of each image, with label smoothing.

    Args:
        logits: Of "none" and of the values of each attribute.  float [B, 1 + len(group)] each
        groups: Columns of `batch.attributes` that are the values of each.
        batch: The batch.

    Returns:
        A scalar; unknown attributes add nothing. Of several values, each is as right.
    """
    terms = known = 0
    for one, group in zip(logits, groups, strict=True):
        values = batch.attributes[:, list(group)]
        target = (values > 0).float()
        target = torch.cat([(target.sum(1, keepdim=True) == 0).float(), target], 1)
        target = target / target.sum(1, keepdim=True)
        seen = (values != UNKNOWN).all(1).float()
        loss = functional.cross_entropy(
            one.float(), target, reduction="none", label_smoothing=SMOOTHING
        )
        terms, known = terms + seen * loss, known + seen
    return losses.weighted(terms / known.clamp_min(1), batch.weights)
