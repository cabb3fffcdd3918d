# SPDX-License-Identifier: Apache-2.0
"""Attributes as labels, and the parts of methods that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from viewsynth.records import Sample
from viewsynth.reid import attributes, backbones, methods, pool
from viewsynth.reid.attribute_head import AttributeHead, attribute_loss


def sample(pid: str, *names: str, outfit: str = "", number: int = 0) -> Sample:
    file = f"{pid}_{outfit}_{number}.jpg"
    return Sample(paths=(Path(file),), pid=pid, name=file, attributes=names, outfit=outfit)


def test_table_of_yes_no_and_unknown():
    samples = [sample("1", "hat", "tall"), sample("2", "tall"), sample("3"), sample("1", number=1)]
    samples += [sample("1", "beard", outfit="b")]
    names, values = attributes.table(samples)
    assert names == ("beard", "hat", "tall")
    # The second image of person 1, without labels of its own, has those of the first.
    assert values.tolist() == [[0, 1, 1], [0, 0, 1], [-1, -1, -1], [0, 1, 1], [1, 0, 0]]
    assert attributes.table([sample("1")])[1].shape == (1, 0)


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="person 1 contradict each other in hat, tall"):
        attributes.table([sample("1", "hat"), sample("1", "tall", number=1)])


def test_only_methods_that_need_attributes_read_them():
    samples = [sample("1", "hat"), sample("1", "tall", number=1), sample("2", "tall")]
    plain = pool.build(samples)  # attributes of images, not of people
    assert plain.attributes.shape == (3, 0)
    with pytest.raises(ValueError, match="contradict each other"):
        plain.with_attributes()
    known = pool.build(samples[1:]).with_attributes()
    kept = known.keep(np.array([False, True]))
    assert kept.attribute_names == ("tall",) and kept.attributes.tolist() == [[1]]


def test_nearly_constant_attributes():
    values = np.zeros((100, 3), np.int8)
    values[:50, 0], values[0, 1], values[:, 2] = 1, 1, -1
    assert attributes.nearly_constant("abc", values) == ["b", "c"]


def test_attribute_head_place_by_place():
    torch.manual_seed(0)
    head, maps = AttributeHead(5, 3, 4), torch.randn(2, 5, 4, 2)
    with torch.no_grad():
        vectors, logits = head(maps)
        for b in range(2):
            places = maps[b].flatten(1).T
            for a in range(3):
                scores = places @ head.where.weight[a, :, 0, 0] + head.where.bias[a]
                seen = sum(
                    share * place for share, place in zip(scores.softmax(0), places, strict=True)
                )
                expected = head.vector(seen)
                torch.testing.assert_close(vectors[b, a], expected, rtol=1e-4, atol=1e-5)
                logit = expected @ head.present[a] + head.bias[a]
                torch.testing.assert_close(logits[b, a], logit, rtol=1e-4, atol=1e-5)


def test_unknown_attributes_add_nothing():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0], [1.0, 1.0]])
    values = torch.tensor([[1, 0], [-1, 1], [-1, -1]], dtype=torch.int8)
    softplus = torch.nn.functional.softplus
    first = (softplus(torch.tensor(-2.0)) + softplus(torch.tensor(-1.0))) / 2
    second = softplus(torch.tensor(-3.0))
    found = attribute_loss(logits, values, torch.tensor([1.0, 0.5, 1.0]))
    assert found.item() == pytest.approx(float(first + 0.5 * second) / 3, rel=1e-5)


def test_explanation_is_a_sum_over_attributes():
    backbone = backbones.load("small", (64, 32))
    model = methods.build("explain", backbone, 3, attributes=["hat", "bag"]).eval()
    one, other = torch.rand(2, 3, 64, 32), torch.rand(2, 3, 64, 32)
    apart = model.explain(one, other)
    assert apart.shape == (2, 2) and (apart > 0).all()
    torch.testing.assert_close(apart, model.explain(other, one))
    assert model.explain(one, one).abs().max() == 0
