# SPDX-License-Identifier: Apache-2.0
"""The parts of SD-ReID's second stage, each against small cases: latents, conditions, denoisers."""

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
def test_latents_come_back(width):
    where = latents.grid(width)
    features = noise(2, width)
    latent = where.to_latent(features)
    assert latent.shape == (2, *where.shape) and torch.equal(where.to_feature(latent), features)
    assert 0 <= where.numbers - width < 4 * where.height
    assert where.across <= where.height <= 2 * where.across


def test_latents_are_those_of_the_release():
    assert latents.grid(768).shape == (4, 16, 12)
    features = torch.arange(768.0)[None]
    assert torch.equal(latents.grid(768).to_latent(features), features.reshape(1, 4, 16, 12))
    assert [latents.grid(w).shape[1:] for w in (192, 384, 1024)] == [(8, 6), (12, 8), (16, 16)]
    with pytest.raises(ValueError, match="too short to be denoised"):
        latents.grid(12)


# ---- conditions ----------------------------------------------------------------------------------


def test_attention_runs_over_the_tokens_of_a_picture_or_over_the_pictures_of_a_batch():
    """The release's attention looks at the neighbours in the batch; ours at the own tokens."""
    for across in (False, True):
        torch.manual_seed(0)
        layer = Fusion(16, 16, TOKENS, 1, across).eval()
        condition, prototype = noise(4, TOKENS - 1, 16), noise(4, 16, seed=1)
        before = layer(condition, prototype)
        neighbour, token = condition.clone(), prototype.clone()
        neighbour[1] += noise(16, seed=2)  # of the second picture
        token[0] += noise(16, seed=2)  # the last token of the first picture
        assert torch.equal(layer(neighbour, prototype)[0], before[0]) != across
        assert torch.equal(layer(condition, token)[0, 0], before[0, 0]) == across


def test_fusion_drops_and_projects():
    layer = Fusion(16, 24, TOKENS, 2, False)
    dropped = torch.tensor([True, False])
    out = layer(noise(2, TOKENS - 1, 16), noise(2, 16), dropped)
    assert out.shape == (2, TOKENS, 24) and torch.equal(out[0], layer.null_tokens[0])
    assert not torch.equal(out[1], layer.null_tokens[0])
    assert torch.equal(layer.null(2, False), layer.null_tokens.expand(2, -1, -1))
    assert (layer.null(2, True) == 0).all() and layer.null(2, True).shape == (2, TOKENS, 24)


def test_pyramid_by_hand():
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
def test_maps_fit_the_unet_and_count(width):
    """Whatever the width: each map of the way down and of the way up changes what comes out."""
    torch.manual_seed(0)
    where = latents.grid(width)
    net = denoisers.build("small", where, TOKENS).eval()
    nn.init.normal_(net.unet.conv_out.weight)
    maps = Pyramid((where.height, where.across), *net.levels())
    given_ = noise(2, *where.shape), torch.tensor([3, 900]), noise(2, TOKENS, width)
    with torch.no_grad():
        down, up = maps(noise(2, width))
        assert (len(down), len(up)) == (2, 2)
        whole = net(*given_, down, up)
        for n in range(2):
            for way in (down, up):
                kept, way[n] = way[n], torch.zeros_like(way[n])
                assert not torch.allclose(net(*given_, down, up), whole, atol=1e-6)
                way[n] = kept
        assert torch.equal(net(*given_, down, up), whole)  # the lists are not eaten up
        plain = net.unet(given_[0], given_[1], given_[2]).sample
        assert torch.equal(net(*given_, [], []), plain)


def test_threads_do_not_share_maps():
    """`evaluate` calls one model from several threads."""
    torch.manual_seed(0)
    where = latents.grid(WIDTH)
    net = denoisers.build("small", where, TOKENS).eval()
    nn.init.normal_(net.unet.conv_out.weight)
    maps = Pyramid((where.height, where.across), *net.levels())
    sizes = [1, 3, 2, 5] * 6

    @torch.no_grad()
    def call(count: int) -> torch.Tensor:
        given_ = noise(count, *where.shape), torch.full((count,), 7), noise(count, TOKENS, WIDTH)
        return net(*given_, *maps(noise(count, WIDTH)))

    expected = {count: call(count) for count in set(sizes)}
    with ThreadPoolExecutor(4) as threads:
        for count, found in zip(sizes, threads.map(call, sizes), strict=True):
            torch.testing.assert_close(found, expected[count])


def test_align_starts_as_nothing():
    layer, features = Align(WIDTH), noise(2, WIDTH)
    assert torch.equal(layer(features, noise(2, WIDTH, seed=1)), features)


def test_what_learns_in_stable_diffusion():
    """The counts of the release: 10.32 M of keys and values, 17.61 M with its condition learner."""
    with torch.device("meta"):
        net = denoisers.UNet(UNet2DConditionModel(**SD15), True)
        fusion = Fusion(768, 768, 12, 1, True)
        maps = Pyramid((16, 12), *net.levels())
    learns = [n for n, p in net.unet.named_parameters() if p.requires_grad]
    assert len(learns) == 2 * 9 and all(n.startswith("up_blocks.") for n in learns)
    assert [(v.channels, v.stride) for v in net.levels()[1]] == [(1280, 4), (640, 2), (320, 1)]

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad)

    assert round(count(net) / 1e6, 2) == 10.32
    assert round(count(fusion) / 1e6, 2) == 7.10  # 7.09 and twelve null tokens
    assert round(count(maps) / 1e6, 2) == 0.19
    assert round(sum(map(count, (net, fusion, maps))) / 1e6, 2) == 17.61
