# SPDX-License-Identifier: Apache-2.0
"""Parts of methods against hand-worked cases and other libraries."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch.nn import functional

from viewsynth.reid import backbones, methods, text_tower
from viewsynth.reid.methods import agid, apan, dts, gsalign, ida, latex, svpr, vif, visa
from viewsynth.reid.prompts import Attention, FromOne, PromptBlock, TwoWayBlock

WIDTH, HEADS = 12, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def token_backbone():
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "vit", **small, "intermediate_size": 64, "image_size": 32}
    with torch.random.fork_rng():
        return backbones.rebuild(config, (64, 32), *backbones.IMAGENET)


def by_hand(block: Attention, query, key, value):
    """Attention head by head, row by row."""
    q, k, v = block.query(query), block.key(key), block.value(value)
    size = q.shape[-1] // block.heads
    out = torch.zeros_like(q)
    for b in range(len(q)):
        for h in range(block.heads):
            cut = slice(h * size, (h + 1) * size)
            for n in range(q.shape[1]):
                scores = (k[b, :, cut] @ q[b, n, cut]) / math.sqrt(size)
                out[b, n, cut] = scores.softmax(0) @ v[b, :, cut]
    return block.out(out)


def test_attention():
    block = Attention(WIDTH, HEADS, 6)
    query, key, value = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH), torch.randn(2, 5, WIDTH)
    torch.testing.assert_close(block(query, key, value), by_hand(block, query, key, value))


def test_attention_to_one_vector_needs_no_query():
    block, one = Attention(WIDTH, HEADS), FromOne(WIDTH)
    one.value.load_state_dict(block.value.state_dict())
    one.out.load_state_dict(block.out.state_dict())
    query, key = torch.randn(2, 4, WIDTH), torch.randn(2, 1, WIDTH)
    torch.testing.assert_close(one(query, key, key), block(query, key, key))


def test_prompt_block_step_by_step():
    block = PromptBlock(WIDTH, HEADS, 2)
    prompts, vectors = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH)
    norms = block.norms
    read = norms[0](prompts + by_hand(block.read, prompts, vectors, vectors))
    mixed = norms[1](read + by_hand(block.mix, read, read, read))
    torch.testing.assert_close(block(prompts, vectors), norms[2](mixed + block.mlp(mixed)))


@pytest.mark.parametrize("first", [True, False])
def test_two_way_block_step_by_step(first):
    block = TwoWayBlock(WIDTH, HEADS, first)
    queries, patches = torch.randn(2, 4, WIDTH), torch.randn(2, 5, WIDTH)
    places, patch_places = torch.randn(2, 4, WIDTH), torch.randn(1, 5, WIDTH)
    if first:
        q = by_hand(block.mix, queries, queries, queries)
    else:
        q = queries + by_hand(block.mix, queries + places, queries + places, queries)
    q = block.norms[0](q)
    q = block.norms[1](q + by_hand(block.read, q + places, patches + patch_places, patches))
    q = block.norms[2](q + block.mlp(q))
    k = patches + by_hand(block.write, patches + patch_places, q + places, q)
    found = block(queries, patches, places, patch_places)
    torch.testing.assert_close(found, (q, block.norms[3](k)))


def test_spline_is_that_of_scipy():
    rng = np.random.default_rng(0)
    points, places = rng.uniform(-1, 1, (6, 2)), rng.uniform(-2, 2, (40, 2))
    values = rng.normal(size=(6, 2))
    expected = RBFInterpolator(points, values, kernel="thin_plate_spline")(places)
    weights = gsalign.spline(torch.from_numpy(points), torch.from_numpy(places))
    np.testing.assert_allclose(weights.double().numpy() @ values, expected, rtol=1e-4, atol=1e-4)
    at_points = gsalign.spline(torch.from_numpy(points), torch.from_numpy(points))
    np.testing.assert_allclose(at_points, np.eye(6), atol=1e-5)


def test_straightening_turns_the_map():
    module = gsalign.Straighten(4, (5, 5))
    patches = torch.randn(2, 25, 4)
    same, angle = module(patches)  # the angle starts at 0: sampled in place
    torch.testing.assert_close(same, (1 + gsalign.MIX) * patches)
    assert angle.tolist() == [0, 0]
    with torch.no_grad():
        module.angle[-1].bias.fill_(100)  # tanh = 1: 90 degrees
    turned, angle = module(patches)
    assert angle.tolist() == pytest.approx([math.pi / 2] * 2)
    image = patches.transpose(1, 2).unflatten(2, (5, 5))
    # (x, y) is taken from the turned place (-y, x): what was right of the centre goes above it.
    expected = torch.rot90(image, 1, (2, 3)).flatten(2).transpose(1, 2)
    torch.testing.assert_close((turned - patches) / gsalign.MIX, expected, rtol=1e-4, atol=1e-4)


def test_perturbed_top_and_its_gradient():
    scores = torch.tensor([[0.0, 0.03, -0.02, 0.01]], requires_grad=True)
    noise = torch.randn(1, 20_000, 4)
    chosen = dts.PerturbedTop.apply(scores, 2, noise)
    counts = torch.zeros(2, 4)
    for draw in noise[0, :500]:
        best = sorted((scores[0] + dts.NOISE * draw).topk(2).indices.tolist())
        counts[0, best[0]] += 1
        counts[1, best[1]] += 1
    few = dts.PerturbedTop.apply(scores, 2, noise[:, :500])
    torch.testing.assert_close(few[0], counts / 500)
    torch.testing.assert_close(chosen.sum(-1), torch.ones(1, 2))
    weights = torch.randn(2, 4)
    (chosen[0] * weights).sum().backward()
    step, slopes = 0.02, []
    for n in range(4):  # finite differences of the smoothed selection
        shift = step * functional.one_hot(torch.tensor([n]), 4)
        up, down = (
            (dts.PerturbedTop.apply(scores.detach() + sign * shift, 2, noise)[0] * weights).sum()
            for sign in (1, -1)
        )
        slopes.append(float(up - down) / (2 * step))
    assert scores.grad[0].tolist() == pytest.approx(slopes, abs=1.0, rel=0.15)
    assert scores.grad.sum().item() == pytest.approx(0, abs=1.0)


def unit(features):
    return functional.normalize(features.double(), dim=1)


def test_adaptive_margin_sample_by_sample():
    features, labels = torch.randn(6, 5), torch.tensor([0, 0, 0, 1, 1, 2])
    weights = torch.tensor([1.0, 0.5, 1.0, 1.0, 0.0, 1.0])  # the pair of label 1 is broken
    rows, terms = unit(features), []
    for a in range(6):
        apart = [(rows[a] - rows[b]).norm() for b in range(6)]
        own = [apart[b] for b in range(6) if b != a and labels[b] == labels[a] and weights[b] > 0]
        other = [apart[b] for b in range(6) if labels[b] != labels[a] and weights[b] > 0]
        if not own or not other:
            continue
        own, other = torch.stack(own), torch.stack(other)
        margin = apan.SPREAD * (own.std(correction=0) + other.std(correction=0))
        term = functional.softplus((own.mean() - other.mean() + margin) / apan.TEMPERATURE)
        terms.append(weights[a] * term)
    found = apan.adaptive_margin(features, labels, weights)
    assert found.item() == pytest.approx(float(sum(terms)) / 6, rel=1e-4)


def test_apan_chooses_the_most_similar_prototypes(token_backbone):
    model = apan.APAN(token_backbone, 4, 0.0, ("ground", "aerial"))
    feature = torch.randn(3, 32)
    with torch.no_grad():
        prototypes, logs = model.prototypes(feature)
    assert prototypes.shape == (3, apan.FIXED + apan.KEPT, 32)
    for n in range(3):
        scores = unit(model.candidate_tokens.detach()) @ unit(feature[n : n + 1])[0] / apan.SHARP
        chances = scores.softmax(0)
        for place, k in enumerate(scores.argsort(descending=True)[: apan.KEPT].tolist()):
            expected = model.candidate_tokens[k].detach() * float(chances[k]) * apan.CANDIDATES
            torch.testing.assert_close(
                prototypes[n, apan.FIXED + place], expected, rtol=1e-3, atol=1e-5
            )
            assert logs[n, apan.FIXED + place].exp().item() == pytest.approx(
                float(chances[k]), rel=1e-3
            )


def test_angular_loss_sample_by_sample():
    features, labels = torch.randn(7, 4), torch.tensor([0, 0, 0, 1, 1, 2, 3])
    views, weights = torch.tensor([0, 0, 1, 0, 0, 1, 0]), torch.tensor([1, 1, 0.5, 1, 1, 1, 0])
    rows, total = unit(features), 0.0
    for a in range(7):
        others = [b for b in range(7) if b != a and weights[b] > 0]
        angle = {b: math.acos(float(rows[a] @ rows[b])) for b in others}
        own = [b for b in others if labels[b] == labels[a]]
        own = [b for b in own if views[b] != views[a]] or own
        other = [angle[b] for b in others if labels[b] != labels[a]]
        if own and other:
            far, near = max(angle[b] for b in own), max(math.pi / 2 - min(other), 0)
            total += float(weights[a]) * (
                math.expm1(vif.GROWTH * far) + math.expm1(vif.GROWTH * near)
            )
    found = vif.angular(features, labels, views, weights)
    assert found.item() == pytest.approx(total / 7, rel=1e-4)


def test_rotate_mix_turns_a_square_and_nothing_else(monkeypatch):
    images = torch.rand(3, 3, 16, 8)
    # Side of the square 1, at the top, a quarter turn, for the second image only.
    draw = torch.tensor([[1.0] * 3, [0.0] * 3, [0.0] * 3, [0.25] * 3, [0.9, 0.1, 0.9]])
    monkeypatch.setattr(vif, "SIDES", (0.3, 1.0))
    monkeypatch.setattr(torch, "rand", lambda *size: draw)
    turned = vif.rotate_mix(images)
    torch.testing.assert_close(turned[[0, 2]], images[[0, 2]], rtol=0, atol=1e-5)
    torch.testing.assert_close(turned[1, :, 8:], images[1, :, 8:], rtol=0, atol=1e-5)
    quarter = torch.rot90(images[1, :, :8], 1, (1, 2))
    torch.testing.assert_close(turned[1, :, :8], quarter, rtol=0, atol=1e-4)


def test_parts_are_aligned_across_views():
    parts, labels = torch.randn(4, 3, 5), torch.tensor([0, 0, 0, 1])
    views, weights = torch.tensor([0, 1, 1, 0]), torch.tensor([1.0, 1.0, 0.5, 1.0])
    rows, total = functional.normalize(parts, dim=-1), 0.0
    for a in range(4):
        share = [
            float(weights[b]) * float(labels[a] == labels[b] and views[a] != views[b])
            for b in range(4)
        ]
        if sum(share):
            mean = sum(s * rows[b] for b, s in enumerate(share)) / sum(share)
            total += float(weights[a]) * float((rows[a] - mean).square().sum(1).mean())
    found = ida.aligned(parts, labels, views, weights)
    assert found.item() == pytest.approx(total / 4, rel=1e-5)


def test_self_correlations_place_by_place():
    maps = torch.randn(2, 16, 4, 3)
    found, side = agid.correlations(maps), 2 * agid.REACH + 1
    groups = functional.normalize(maps.unflatten(1, (agid.GROUPS, 2)), dim=2)
    for group, row, column in ((0, 0, 0), (3, 2, 1), (7, 3, 2)):
        for dy in range(-agid.REACH, agid.REACH + 1):
            for dx in range(-agid.REACH, agid.REACH + 1):
                y, x = row + dy, column + dx
                expected = torch.zeros(2)
                if 0 <= y < 4 and 0 <= x < 3:
                    expected = (groups[:, group, :, row, column] * groups[:, group, :, y, x]).sum(1)
                at = group * side**2 + (dy + agid.REACH) * side + dx + agid.REACH
                torch.testing.assert_close(found[:, at, row, column], expected)


def test_bank_of_experts_one_by_one():
    bank, feature = visa.Bank(WIDTH, HEADS), torch.randn(3, WIDTH)
    with torch.no_grad():
        queries, chances = bank(feature)
        for n in range(3):
            scores = bank.router(feature[n]).softmax(0)
            torch.testing.assert_close(chances[n], scores)
            best = sorted(range(visa.EXPERTS), key=lambda k: -float(scores[k]))[: visa.TOP]
            expected = sum(
                scores[k] * bank.blocks[k](bank.prompt_tokens[k][None], feature[n, None, None])[0]
                for k in best
            )
            torch.testing.assert_close(queries[n], expected, rtol=1e-4, atol=1e-5)


def test_graph_of_a_query_and_patches(monkeypatch):
    monkeypatch.setattr(visa, "NEAR", 3)
    queries, feature, patches = torch.randn(2, 4, 6), torch.randn(2, 6), torch.randn(2, 5, 6)
    found = visa.Graph.mixed(queries, feature, patches)
    for b in range(2):
        likeness = unit(patches[b]) @ unit(feature[b : b + 1])[0]
        near = patches[b][likeness.topk(3).indices]
        for q in range(4):
            nodes = torch.cat([queries[b, q : q + 1], near])
            edges = (unit(nodes) @ unit(nodes).T).clamp_min(0)
            edges.fill_diagonal_(1)
            scale = torch.diag(edges.sum(1).rsqrt())
            expected = (scale @ edges @ scale @ nodes.double())[0]
            torch.testing.assert_close(found[b, q].double(), expected, rtol=1e-4, atol=1e-5)


def test_balance_of_experts():
    even = torch.full((4, visa.EXPERTS), 1 / visa.EXPERTS)
    assert visa.balance(even, torch.ones(4)).item() == pytest.approx(1)
    one = functional.one_hot(torch.zeros(4, dtype=torch.long), visa.EXPERTS).float()
    assert visa.balance(one, torch.ones(4)).item() == pytest.approx(visa.EXPERTS)
    mixed = torch.cat([even[:2], one[:2]])
    assert visa.balance(mixed, torch.tensor([1.0, 1, 0, 0])).item() == pytest.approx(1)
    assert visa.balance(mixed, torch.zeros(4)).item() == 0


def test_attribute_classifiers_of_latex_one_by_one(monkeypatch):
    monkeypatch.setattr(latex, "HEADS", 2)
    heads = latex.AttributeClassifiers(8, [2, 3, 4]).eval()
    with torch.no_grad():
        heads.shift.normal_()
        vectors = torch.randn(2, 3, 8)
        found = heads(vectors)
        for i in range(3):
            others = [k for k in range(3) if k != i]
            block = Attention(8, 2)
            for name in ("query", "key", "value", "out"):
                getattr(block, name).load_state_dict(getattr(heads, name).state_dict())
            rest = vectors[:, others]
            read = by_hand(block, rest, rest, rest)
            mixed = sum(heads.share[i, k] * read[:, n] for n, k in enumerate(others))
            mixed = mixed + heads.shift[i]
            torch.testing.assert_close(heads.context(vectors)[:, i], mixed, rtol=1e-4, atol=1e-5)
            mixed = mixed * torch.sigmoid(1.702 * mixed)
            norm = heads.norm
            cut = slice(8 * i, 8 * (i + 1))
            mixed = (mixed - norm.running_mean[cut]) / (norm.running_var[cut] + norm.eps).sqrt()
            expected = heads.own[i](vectors[:, i]) + heads.others[i](mixed)
            torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)


def test_loss_of_grouped_attributes_by_hand():
    groups = [[0, 1], [2]]
    values = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 0], [-1, -1, -1]], dtype=torch.int8)
    weights = torch.tensor([1.0, 0.5, 1.0, 1.0])
    logits = [torch.randn(4, 3), torch.randn(4, 2)]
    targets = [  # "none", then the values
        [[0, 1, 0], [0, 0.5, 0.5], [1, 0, 0]],
        [[0, 1], [1, 0], [1, 0]],
    ]
    total = 0.0
    for n in range(3):  # nothing is known of the fourth
        for one, target in zip(logits, targets, strict=True):
            kept = (1 - latex.SMOOTHING) * torch.tensor(target[n]).float()
            kept = kept + latex.SMOOTHING / len(kept)
            total -= float(weights[n]) * float(kept @ one[n].log_softmax(0)) / 2
    given = SimpleNamespace(attributes=values, weights=weights)
    found = latex.grouped_loss(logits, groups, given)
    assert found.item() == pytest.approx(total / 4, rel=1e-5)


def test_refinement_of_svpr_step_by_step():
    backbone = backbones.load("small_clip", (64, 32), text=True)
    model = methods.build("svpr", backbone, 4, attributes=["a", "b"])
    guide, patches = torch.randn(2, 192), torch.randn(2, 8, 192)
    with torch.no_grad():
        found = model.refine(guide, patches)
        for b in range(2):
            kept, now = patches[b], guide[b]
            for step, count in enumerate((4, 2, 1)):
                scores = kept @ model.gate(now) / 192**0.5
                best = sorted(range(len(kept)), key=lambda k: -float(scores[k]))[:count]
                local = sum(scores[k].tanh() * kept[k] for k in best) / count
                torch.testing.assert_close(found[step][b], local, rtol=1e-4, atol=1e-5)
                kept, now = kept[best], now + local
        identity = torch.randn(3, 192)
        for n, found in enumerate(model.mixed(identity)):
            chances = model.router(identity[n]).softmax(0)
            best = chances.topk(svpr.TOP).indices.tolist()
            expected = sum(chances[k] * model.experts[k](identity[n]) for k in best)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_descriptions_of_svpr_one_by_one():
    words = text_tower.words_of(["A man, with a red bag."])
    backbone = backbones.load("small_clip", (64, 32), text=True, words=words)
    model = methods.build("svpr", backbone, 4)
    long = " ".join(["red bag"] * 60)
    with torch.no_grad():
        found = model.described(["a man", "", "a man with a red bag", long, "a man"])
        for n, text in enumerate(["a man", svpr.GENERIC, "a man with a red bag"]):
            ids = torch.tensor(backbone.tokenize(text))
            given = backbone.text.words(ids)
            sentence = torch.cat([given[:1], model.learned_tokens, given[1:]])
            alone = backbone.text(sentence[None])[0]
            torch.testing.assert_close(found[n], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[4], found[0])
    assert found.isfinite().all()
