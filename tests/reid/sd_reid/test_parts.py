# SPDX-License-Identifier: Apache-2.0
"""Latents, conditions and denoisers of SD-ReID's second stage, on small examples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from tiny_generation import TOKENS, WIDTH, noise
from torch import nn

from viewsynth.reid.sd_reid import denoisers, latents
from viewsynth.reid.sd_reid.conditions import Align, Fusion, Level, Pyramid

SD15 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}


# ---- latents -------------------------------------------------------------------------------------


@given(st.integers(16, 1600))
def test_latents_round_trip(width):
    grid = latents.grid(width)
    features = noise(2, width)
    latent = grid.to_latent(features)
    assert latent.shape == (2, *grid.shape) and torch.equal(grid.to_feature(latent), features)
    assert 0 <= grid.numbers - width < 4 * grid.height
    assert grid.across <= grid.height <= 2 * grid.across


def test_latents_of_the_release():
    assert latents.grid(768).shape == (4, 16, 12)
    features = torch.arange(768.0)[None]
    assert torch.equal(latents.grid(768).to_latent(features), features.reshape(1, 4, 16, 12))
    assert [latents.grid(w).shape[1:] for w in (192, 384, 1024)] == [(8, 6), (12, 8), (16, 16)]
    with pytest.raises(ValueError, match="too short to be denoised"):
        latents.grid(12)


# ---- conditions ----------------------------------------------------------------------------------


def test_attention_over_tokens_or_over_the_batch():
    """The release attends to the other images of the batch, ours to the tokens of an image."""
    for across in (False, True):
        torch.manual_seed(0)
        layer = Fusion(16, 16, TOKENS, 1, across).eval()
        condition, prototype = noise(4, TOKENS - 1, 16), noise(4, 16, seed=1)
        before = layer(condition, prototype)
        neighbour, token = condition.clone(), prototype.clone()
        neighbour[1] += noise(16, seed=2)  # of the second image
        token[0] += noise(16, seed=2)  # the last token of the first image
        assert torch.equal(layer(neighbour, prototype)[0], before[0]) != across
        assert torch.equal(layer(condition, token)[0, 0], before[0, 0]) == across


def test_fusion_drops_conditions_and_projects_tokens():
    layer = Fusion(16, 24, TOKENS, 2, False)
    dropped = torch.tensor([True, False])
    out = layer(noise(2, TOKENS - 1, 16), noise(2, 16), dropped)
    assert out.shape == (2, TOKENS, 24) and torch.equal(out[0], layer.null_tokens[0])
    assert not torch.equal(out[1], layer.null_tokens[0])
    assert torch.equal(layer.null(2, False), layer.null_tokens.expand(2, -1, -1))
    assert (layer.null(2, True) == 0).all() and layer.null(2, True).shape == (2, TOKENS, 24)


def test_pyramid_on_a_small_example():
    levels = [Level(1, 1), Level(1, 2)]
    maps = Pyramid((2, 2), levels, levels[:1])
    for layer in maps.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    view = torch.arange(16.0)[None]  # over 4 x 4
    down, up = maps(view)
    blocks = [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7], [8 + 9 + 12 + 13, 10 + 11 + 14 + 15]]
    assert down[0][0, 0].tolist() == blocks and up[0][0, 0].tolist() == blocks
    assert down[1].item() == view.sum()


@pytest.mark.parametrize("width", [48, 192, 200, 384, 768])
def test_every_feature_map_has_an_effect(width):
    """For any width, each map of the encoder and of the decoder changes the output."""
    torch.manual_seed(0)
    grid = latents.grid(width)
    net = denoisers.build("small", grid, TOKENS).eval()
    nn.init.normal_(net.unet.conv_out.weight)
    maps = Pyramid((grid.height, grid.across), *net.levels())
    inputs = noise(2, *grid.shape), torch.tensor([3, 900]), noise(2, TOKENS, width)
    with torch.no_grad():
        down, up = maps(noise(2, width))
        assert (len(down), len(up)) == (2, 2)
        complete = net(*inputs, down, up)
        for n in range(2):
            for side in (down, up):
                kept, side[n] = side[n], torch.zeros_like(side[n])
                assert not torch.allclose(net(*inputs, down, up), complete, atol=1e-6)
                side[n] = kept
        assert torch.equal(net(*inputs, down, up), complete)  # the lists are unchanged
        plain = net.unet(*inputs).sample
        assert torch.equal(net(*inputs, [], []), plain)


def test_threads_do_not_share_feature_maps():
    """`evaluate` calls one model from several threads."""
    torch.manual_seed(0)
    grid = latents.grid(WIDTH)
    net = denoisers.build("small", grid, TOKENS).eval()
    nn.init.normal_(net.unet.conv_out.weight)
    maps = Pyramid((grid.height, grid.across), *net.levels())
    sizes = [1, 3, 2, 5] * 6

    @torch.no_grad()
    def call(count: int) -> torch.Tensor:
        inputs = noise(count, *grid.shape), torch.full((count,), 7), noise(count, TOKENS, WIDTH)
        return net(*inputs, *maps(noise(count, WIDTH)))

    expected = {count: call(count) for count in set(sizes)}
    with ThreadPoolExecutor(4) as threads:
        for count, found in zip(sizes, threads.map(call, sizes), strict=True):
            torch.testing.assert_close(found, expected[count])


def test_align_is_initialised_to_the_identity():
    layer, features = Align(WIDTH), noise(2, WIDTH)
    assert torch.equal(layer(features, noise(2, WIDTH, seed=1)), features)


def test_trained_parameters_with_stable_diffusion():
    """The counts of the release: 10.32 M keys and values, 17.61 M with the condition learner."""
    with torch.device("meta"):
        net = denoisers.UNet(UNet2DConditionModel(**SD15), True)
        fusion = Fusion(768, 768, 12, 1, True)
        maps = Pyramid((16, 12), *net.levels())
    trained = [n for n, p in net.unet.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 9 and all(n.startswith("up_blocks.") for n in trained)
    assert [(v.channels, v.stride) for v in net.levels()[1]] == [(1280, 4), (640, 2), (320, 1)]

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    assert round(count(net) / 1e6, 2) == 10.32
    assert round(count(fusion) / 1e6, 2) == 7.10  # 7.09 M and twelve null tokens
    assert round(count(maps) / 1e6, 2) == 0.19
    assert round(sum(map(count, (net, fusion, maps))) / 1e6, 2) == 17.61
