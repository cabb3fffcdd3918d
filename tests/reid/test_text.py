# SPDX-License-Identifier: Apache-2.0
"""The text side of a CLIP, and the losses of methods with sentences."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny_people
import torch
from torch.nn import functional
from transformers import CLIPModel

from viewsynth.reid import backbones, methods, saved
from viewsynth.reid.methods import cvaf, mvp, pdpa
from viewsynth.reid.text_tower import (
    END,
    LONGEST,
    START,
    UNKNOWN,
    WORDS,
    Sentence,
    contrastive,
    sentence_parts,
    word_tokenizer,
    words_of,
)

SIZE = (64, 32)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_people.clip(tmp_path_factory.mktemp("clip"))


def test_features_are_those_of_transformers(clip):
    backbone = backbones.load(str(clip), SIZE, text=True)
    ids = torch.tensor([backbone.tokenize("a photo of a person .")])
    assert ids.tolist() == [[0, 2, 3, 4, 2, 5, 6, 1]]
    with torch.no_grad():
        found = backbone.text(backbone.text.words(ids))
        expected = CLIPModel.from_pretrained(clip).eval().get_text_features(input_ids=ids)
        expected = getattr(expected, "pooler_output", expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_sentences_with_learned_words(clip):
    backbone = backbones.load(str(clip), SIZE, text=True)
    parts = sentence_parts(backbone.tokenize, "a photo of a", "person .")
    assert parts == [[0, 2, 3, 4, 2], [5, 6, 1]]
    words = torch.randn(3, 4, 32)
    with torch.no_grad():
        found = Sentence(parts)(backbone.text, words)
        for n in range(3):
            first, last = (backbone.text.words(torch.tensor(part)) for part in parts)
            alone = backbone.text(torch.cat([first, words[n], last])[None])[0]
            torch.testing.assert_close(found[n], alone, rtol=1e-4, atol=1e-5)
    three = sentence_parts(word_tokenizer(WORDS), "a photo of a", "person by", "view.")
    assert [len(part) for part in three] == [5, 2, 3]


def test_a_folder_without_tokenizer_or_text(clip, tmp_path):
    CLIPModel.from_pretrained(clip).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the tokenizer of .* cannot be loaded"):
        backbones.load(str(tmp_path), SIZE, text=True)
    CLIPModel.from_pretrained(clip).vision_model.save_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match="needs a CLIP with its text side"):
        backbones.load(str(tmp_path / "vision"), SIZE, text=True)
    assert backbones.load(str(tmp_path), SIZE).text is None  # not asked for


def test_contrastive_loss_by_hand():
    images, texts = torch.randn(4, 6), torch.randn(3, 6)
    labels, others = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 0])
    weights, total = torch.tensor([1.0, 0.5, 1.0, 1.0]), 0.0
    for n in range(4):
        cosines = [float(functional.cosine_similarity(images[n], text, dim=0)) for text in texts]
        whole = sum(math.exp(5 * value) for value in cosines)
        own = [k for k in range(3) if others[k] == labels[n]]
        terms = [-math.log(math.exp(5 * cosines[k]) / whole) for k in own]
        total += float(weights[n]) * sum(terms) / max(len(own), 1)
    found = contrastive(images, texts, labels, others, weights, 5.0)
    assert found.item() == pytest.approx(total / 4, rel=1e-5)


def batch(labels, views, weights):
    return SimpleNamespace(
        labels=torch.tensor(labels), views=torch.tensor(views), weights=torch.tensor(weights)
    )


def test_consistency_of_mvp_by_hand():
    given = batch([0, 0, 0, 1], [0, 1, 1, 0], [1.0, 1.0, 0.0, 1.0])
    images, texts = torch.randn(4, 5), torch.randn(4, 5)
    i, t = functional.normalize(images, dim=1), functional.normalize(texts, dim=1)
    counted = [0, 1, 3]  # the third has weight 0
    every = sum(float((i[a] @ i[b] - t[a] @ t[b]) ** 2) for a in counted for b in counted) / 16
    across = float((i[0] @ i[1] - t[0] @ t[1]) ** 2)  # the only pair of views of an identity
    assert mvp.consistency(images, texts, given).item() == pytest.approx(every + across, rel=1e-4)


def test_divergence_of_cvaf_by_hand():
    logs = torch.randn(4, 3).log_softmax(1)
    labels, views = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 0])
    weights, total = torch.tensor([1.0, 1.0, 0.5, 1.0]), 0.0
    for a, others in ((0, {1: 1.0, 2: 0.5}), (1, {0: 1.0}), (2, {0: 1.0})):
        mean = sum(w * logs[b].exp() for b, w in others.items()) / sum(others.values())
        total += float(weights[a]) * float(functional.kl_div(logs[a], mean, reduction="sum"))
    assert cvaf.divergence(logs, labels, views, weights).item() == pytest.approx(
        total / 4, rel=1e-4
    )


def test_prototypes_of_pdpa_against_a_loop():
    backbone = backbones.load("small_clip", SIZE, text=True)
    model = methods.build("pdpa", backbone, 3)
    count, width = 8, backbone.text.features
    rows = torch.randn(count, width)
    labels, views = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    weights = torch.tensor([1.0, 0.5, 1, 1, 1, 1, 1, 0])
    model.rebuild(rows, labels, views, weights)
    for label in range(3):
        for view in range(2):
            mean = torch.zeros(width)
            for n in range(count):
                if labels[n] == label and views[n] == view:
                    mean += weights[n] * rows[n] / rows[n].norm()
            mean = mean / mean.norm() if mean.norm() > 0 else mean
            anchor = model.described[label] / model.described[label].norm()
            expected = (mean + anchor) / (mean + anchor).norm()
            torch.testing.assert_close(model.prototypes[label, view], expected)
    given = batch([0, 1], [0, 1], [1.0, 0.5])
    features = functional.normalize(torch.randn(2, width), dim=1)
    terms = [  # each is classified among the prototypes of the other view
        float(weight)
        * -float((pdpa.SCALE * model.prototypes[:, 1 - view] @ one).log_softmax(0)[own])
        for one, own, view, weight in zip(features, [0, 1], [0, 1], [1.0, 0.5], strict=True)
    ]
    found = pdpa.pulled(features, model.prototypes, given)
    assert found.item() == pytest.approx(sum(terms) / 2, rel=1e-4)


def test_words_of_training_texts(tmp_path):
    words = words_of(["A man wears a T-shirt, 2 bags.", "", "upper colour red"])
    assert words[: len(WORDS)] == list(WORDS)
    assert words[len(WORDS) :] == sorted(
        ["man", "wears", "t-shirt", ",", "2", "bags", "upper"] + ["colour", "red"]
    )
    tokenize = word_tokenizer(words)
    numbers = tokenize("a RED t-shirt, unheard")
    assert [words[n - 3] for n in numbers[1:-2]] == ["a", "red", "t-shirt", ","]
    assert (numbers[0], numbers[-2], numbers[-1]) == (START, UNKNOWN, END)
    assert len(tokenize("red " * 100)) == LONGEST and tokenize("red " * 100)[-1] == END
    backbone = backbones.load("small_clip", SIZE, text=True, words=words)
    model = methods.build("clip_reid", backbone, 3)
    saved.save(model, tmp_path, {})
    again, _ = saved.load(tmp_path)  # the words are saved with the model
    assert again.backbone.tokenize("a red man") == tokenize("a red man")


def test_padded_sentences_are_those_alone(clip):
    backbone = backbones.load(str(clip), SIZE, text=True)
    words = torch.randn(3, 9, 32)
    last = torch.tensor([8, 3, 5])
    with torch.no_grad():
        found = backbone.text(words, last)
        for n, end in enumerate(last.tolist()):
            alone = backbone.text(words[n : n + 1, : end + 1])[0]
            torch.testing.assert_close(found[n], alone, rtol=1e-4, atol=1e-5)
