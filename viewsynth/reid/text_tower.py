# SPDX-License-Identifier: Apache-2.0
"""The text side of a CLIP: sentences with learned words -> features beside those of images.

backbones.load(..., text=True) -> `TextTower`, as the backbone's `text` -> methods with prompts.
Source: Radford et al., CLIP, ICML 2021 (arXiv 2103.00020); learned words in a sentence: Zhou et
al., CoOp, IJCV 2022 (arXiv 2109.01134).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from viewsynth.reid import losses

# Words that a tokenizer made of training texts has in any case: those of the methods' sentences.
WORDS = ("a", "photo", "of", "person", "by", "from", "view", "ground", "aerial", "drone", "cctv")
WORDS += ("wearable", "handheld", "unknown", "attributes", ".")
START, END, UNKNOWN = range(3)  # numbers of the marks of such a tokenizer, before those of words
LONGEST = 77  # tokens of a text, as CLIP has


class TextTower(nn.Module):
    """The text transformer and both projections of a CLIP.

    Args:
        model: A CLIP model of `transformers`.

    Attributes:
        width: Length of a word vector.
        features: Length of a projected feature.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        text = model.text_model
        self.words = text.embeddings.token_embedding
        self.places = text.embeddings.position_embedding
        self.blocks, self.norm = text.encoder.layers, text.final_layer_norm
        self.project, self.project_image = model.text_projection, model.visual_projection
        self.width, self.features = self.words.embedding_dim, self.project.out_features

    def forward(self, vectors: Tensor, last: Tensor | None = None) -> Tensor:
        """Features of sentences.

        Args:
            vectors: Words, without their positions.  float [B, T, width]
            last: Index of the end of each sentence, which only the words before it affect; None =
                the last word.  int64 [B]

        Returns:
            float [B, features], not normalised
        """
        count = vectors.shape[1]
        tokens = vectors + self.places.weight[:count]
        mask = torch.full((count, count), -torch.inf, device=tokens.device).triu(1)
        for block in self.blocks:
            out = block(tokens, mask[None, None].to(tokens.dtype))
            tokens = out[0] if isinstance(out, tuple) else out
        ends = (
            tokens[:, -1]
            if last is None
            else tokens[torch.arange(len(tokens), device=tokens.device), last]
        )
        return self.project(self.norm(ends))


class Sentence(nn.Module):
    """A sentence of which some words are learned.

    Args:
        parts: Numbers of the given words; between two parts stand learned ones. The first part
            begins with the start, the last ends with the end of a text.
    """

    def __init__(self, parts: Sequence[Sequence[int]]):
        super().__init__()
        self.count = len(parts)
        for number, part in enumerate(parts):
            self.register_buffer(f"part{number}", torch.tensor(part), persistent=False)

    def forward(self, tower: TextTower, *learned: Tensor) -> Tensor:
        """Features of sentences.

        Args:
            tower: The text side.
            learned: Words between each two parts.  float [B, M, width] each

        Returns:
            float [B, features]
        """
        given = [tower.words(getattr(self, f"part{n}"))[None] for n in range(self.count)]
        pieces = [given[0].expand(len(learned[0]), -1, -1)]
        for words, part in zip(learned, given[1:], strict=True):
            pieces += [words, part.expand(len(words), -1, -1)]
        return tower(torch.cat(pieces, 1))


def sentence_parts(tokenize: Callable[[str], list[int]], *texts: str) -> list[list[int]]:
    """Numbers of the given words of a `Sentence`, part by part.

    Args:
        tokenize: Text -> numbers of its words, from the start to the end of a text.
        texts: What stands before, between and after the learned words.
    """
    found = [tokenize(text) for text in texts]
    start, end = found[0][:1], found[0][-1:]
    inner = [one[1:-1] for one in found]
    return [start + inner[0], *inner[1:-1], inner[-1] + end]


def words_of(texts: Iterable[str]) -> list[str]:
    """The words of a tokenizer for some texts: `WORDS`, then all others, sorted.

    Args:
        texts: The training texts.
    """
    return [*WORDS, *sorted({word for text in texts for word in _split(text)} - set(WORDS))]


def word_tokenizer(words: Sequence[str]) -> Callable[[str], list[int]]:
    """A tokenizer of whole words, for a CLIP that is trained from scratch.

    Args:
        words: Of `words_of`.

    Returns:
        Text -> numbers of its words, from `START` to `END`, at most `LONGEST`.
    """
    index = {word: UNKNOWN + 1 + number for number, word in enumerate(words)}

    def tokenize(text: str) -> list[int]:
        found = [index.get(word, UNKNOWN) for word in _split(text)]
        return [START, *found[: LONGEST - 2], END]

    return tokenize


def _split(text: str) -> list[str]:
    return re.findall(r"[\w+-]+|[.,]", text.lower())


def contrastive(
    images: Tensor, texts: Tensor, labels: Tensor, others: Tensor, weights: Tensor, scale: float
) -> Tensor:
    """Supervised contrastive loss of images against texts, with all texts of the same identity.

    Source: Li et al., CLIP-ReID, AAAI 2023 (arXiv 2211.13977), eq. 5 and 6.

    Args:
        images: Anchors.  float [B, F]
        texts: float [C, F]
        labels: Identities of the anchors.  int64 [B]
        others: Identities of the texts.  int64 [C]
        weights: Weights of the anchors.  float [B]
        scale: Factor of the cosines.

    Returns:
        A scalar.
    """
    logs = (scale * losses.cosines(images, texts)).log_softmax(1)
    same = (labels[:, None] == others).float()
    terms = -(logs * same).sum(1) / same.sum(1).clamp_min(1)
    return losses.weighted(terms, weights)
