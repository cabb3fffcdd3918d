# SPDX-License-Identifier: Apache-2.0
"""Parts of methods against hand-worked cases and other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import RBFInterpolator
from torch.nn import functional

from viewsynth.reid.methods import dts, gsalign
from viewsynth.reid.prompts import Attention, FromOne, PromptBlock, TwoWayBlock

WIDTH, HEADS = 12, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
