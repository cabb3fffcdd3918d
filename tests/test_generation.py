# SPDX-License-Identifier: Apache-2.0
"""The second stage of SD-ReID: each part against small cases, and each difference of the modes."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import ViTConfig, ViTModel

from viewsynth.reid import backbones, methods
from viewsynth.reid.generation import cost, denoisers, fused, latents, mode, sampling, training
from viewsynth.reid.generation.cache import Cached
from viewsynth.reid.generation.conditions import Align, Fusion, Level, Pyramid
from viewsynth.reid.generation.model import Generator, Shape

WIDTH, TOKENS, VIEWS, SIZE = 48, 3, 3, (64, 32)
SD15 = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0, views: int = VIEWS, **changes) -> Generator:
    """A small one whose last layers are no zeros, so that everything has an effect."""
    torch.manual_seed(seed)
    made = Generator(WIDTH, TOKENS, views, Shape(**changes)).eval()
    made.prototypes = noise(views, WIDTH, seed=1)
    for layer in made.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not layer.weight.abs().sum():
            nn.init.normal_(layer.weight, std=0.05)
    return made


def with_mode(made: Generator, **changes) -> Generator:
    made.mode = replace(made.mode, **changes)
    return made


@pytest.fixture(scope="module")
def person():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=TOKENS, num_attention_heads=4, intermediate_size=64,
        image_size=32, patch_size=16,
    )  # fmt: skip
    body = backbones.Tokens(ViTModel(config), SIZE, (0.5,) * 3, (0.5,) * 3)
    made = methods.build("sd_reid", body, 4, views=VIEWS)
    made.neck.norm.running_mean.copy_(noise(WIDTH))
    return made.eval()


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


def test_a_copy_has_its_own_hooks():
    """The moving average is one."""
    made = generator()
    copied = copy.deepcopy(made)
    for layer in copied.pyramid.up:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    start = noise(VIEWS, 1, *made.grid.shape)
    condition = noise(1, TOKENS - 1, WIDTH)
    one, other = (sampling.sample(m, condition, start, 2, 1.0) for m in (made, copied))
    assert not torch.allclose(one, other)
    again = copy.deepcopy(made)
    torch.testing.assert_close(sampling.sample(again, condition, start, 2, 1.0), one)


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


# ---- sampling ------------------------------------------------------------------------------------


def test_times_are_those_of_the_release():
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75, 0.9999])
    found = sampling.draw_times(uniform, 1000).tolist()
    assert found == [999, 984, 875, 578, 0]
    for times, steps, visited in (
        (1000, 5, [801, 601, 401, 201, 1]), (600, 5, [481, 361, 241, 121, 1]),
        (600, 4, [451, 301, 151, 1]),
    ):  # fmt: skip
        sampler = sampling.schedule(times, mode.FAITHFUL)
        sampler.set_timesteps(steps)
        assert sampler.timesteps.tolist() == visited
    ours = sampling.schedule(600)
    ours.set_timesteps(5)
    assert ours.timesteps.tolist() == [599, 479, 359, 239, 119]
    for times, left in ((1000, 0.0047), (800, 0.0136), (600, 0.0399)):
        assert sampling.schedule(times).alphas_cumprod[-1].item() == pytest.approx(left, abs=1e-4)


class Told(nn.Module):
    """A denoiser that knows the truth: x0 = `clean` for all."""

    frozen = False

    def __init__(self, clean: torch.Tensor, alphas: torch.Tensor):
        super().__init__()
        self.clean, self.alphas = clean, alphas

    def forward(self, given_, times, context, down, up):
        alpha = self.alphas[times][:, None, None, None]
        return (given_ - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()


def test_who_is_told_the_noise_finds_the_feature():
    made = generator()
    features = noise(1, WIDTH, seed=5)
    made.mean, made.scale = noise(WIDTH, seed=6), torch.rand(WIDTH) + 0.5
    made.denoiser = Told(made.latent(features), made.alphas)
    found = sampling.sample(
        made, noise(2, TOKENS - 1, WIDTH), noise(VIEWS, 2, *made.grid.shape), 50, 1.0
    )
    assert found.shape == (VIEWS, 2, WIDTH)
    torch.testing.assert_close(found, features.expand(VIEWS, 2, -1), rtol=1e-3, atol=1e-3)


def test_the_released_sampler_finds_it_too():
    made = generator(mode="faithful")
    features = noise(1, WIDTH, seed=5)
    made.denoiser = Told(made.latent(features), made.alphas)
    start = noise(2, 2, *made.grid.shape)
    rng = torch.Generator().manual_seed(0)
    found = sampling.sample(made, noise(2, TOKENS - 1, WIDTH), start, 5, 1.0, rng)
    torch.testing.assert_close(found, features.expand(2, 2, -1), rtol=1e-3, atol=1e-3)


def test_guidance_by_hand():
    """One step: the noise is e_0 + g (e_c - e_0), with e_0 of the learnt null tokens."""
    made, condition = generator(), noise(2, TOKENS - 1, WIDTH)
    start = noise(1, 2, *made.grid.shape)
    with torch.no_grad():
        told = made.prototypes[:1].expand(2, -1)
        down, up = made.pyramid(told)
        at = torch.tensor([999, 999])
        with_, without = (
            made.denoiser(start[0], at, tokens, down, up)
            for tokens in (made.fusion(condition, told), made.fusion.null_tokens.expand(2, -1, -1))
        )
        mixed = without + 3.0 * (with_ - without)
        alpha = made.alphas[999]
        expected = made.feature((start[0] - (1 - alpha).sqrt() * mixed) / alpha.sqrt())
    found = sampling.sample(made, condition, start, 1, 3.0)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_null_tokens_are_zeros_in_the_release():
    made, condition = generator(), noise(1, TOKENS - 1, WIDTH)
    start = noise(VIEWS, 1, *made.grid.shape)
    learnt = sampling.sample(made, condition, start, 2, 2.0)
    zeros = sampling.sample(with_mode(made, zero_null=True), condition, start, 2, 2.0)
    assert not torch.allclose(learnt, zeros)
    made.fusion.null_tokens.data.zero_()
    again = sampling.sample(with_mode(made, zero_null=False), condition, start, 2, 2.0)
    torch.testing.assert_close(again, zeros)


def test_residuals_get_lost_in_the_release():
    """Both maps of the way down, then one, then none; of the way up none at all."""
    seen = []
    for lost in (False, True):
        made = with_mode(generator(), lost_residuals=lost)
        inner = made.denoiser.forward

        def spy(given_, times, tokens, down, up, inner=inner):
            seen.append((len(down), len(up)))
            return inner(given_, times, tokens, down, up)

        made.denoiser.forward = spy
        sampling.sample(made, noise(1, 2, WIDTH), noise(VIEWS, 1, *made.grid.shape), 4, 1.0)
    assert seen == [(2, 2)] * 4 + [(2, 0), (1, 0), (0, 0), (0, 0)]
    assert all(p.requires_grad for p in generator().pyramid.parameters())
    released = generator(mode="faithful").pyramid
    assert {p.requires_grad for p in released.up.parameters()} == {False}
    assert {p.requires_grad for p in released.down.parameters()} == {True}


@pytest.mark.parametrize("denoiser", ["small", "mlp"])
@pytest.mark.parametrize("decoder", ["pyramid", "align"])
def test_a_view_changes_the_feature(denoiser, decoder):
    made = generator(denoiser=denoiser, decoder=decoder)
    start = noise(1, 1, *made.grid.shape).expand(VIEWS, -1, -1, -1, -1)
    found = sampling.sample(made, noise(1, TOKENS - 1, WIDTH), start, 3, 2.0)
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[1], found[2])


# ---- descriptors ---------------------------------------------------------------------------------


def images(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    return (torch.rand(count, 3, *SIZE, generator=rng) * 255).round() / 255


def test_a_descriptor_knows_nothing_of_its_neighbours(person):
    model = fused.Fused(person, generator(), 3, 2.0).eval()
    pictures = images(6)
    with torch.no_grad():
        whole = model.features(pictures)
        assert whole.shape == (6, (1 + VIEWS) * WIDTH)
        torch.testing.assert_close(whole.norm(dim=1), torch.ones(6))
        alone = torch.cat([model.features(one[None]) for one in pictures])
        turned = model.features(pictures.flip(0)).flip(0)
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(turned, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.features(pictures), whole)  # no generator runs on


def test_a_released_descriptor_does(person):
    model = fused.Fused(person, generator(mode="faithful"), 3, 2.0).eval()
    pictures = images(4)
    with torch.no_grad():
        first = model.features(pictures)
        assert first.shape == (4, (1 + 2) * WIDTH)  # the third view is never made
        again = model.features(pictures)
        assert not torch.allclose(first, again)  # the generator ran on
        fresh = fused.Fused(person, model.generator, 3, 2.0).eval()
        torch.testing.assert_close(fresh.features(pictures), first)
        other = fused.Fused(person, model.generator, 3, 2.0).eval()
        lonely = other.features(pictures[:1])
    assert not torch.allclose(lonely[0], first[0], atol=1e-4)
    # The identity part knows its neighbours in neither.
    part = slice(0, WIDTH)
    torch.testing.assert_close(*(_unit(x[0, part]) for x in (lonely, first)), rtol=1e-4, atol=1e-5)


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


def test_how_parts_are_joined(person):
    sampled, identity = noise(2, 1, WIDTH), noise(1, WIDTH, seed=4)
    neck = person.neck.norm
    ours = fused.Fused(person, generator(), 1, 1.0).join(identity, sampled)
    parts = [_unit(neck(part)[0]) / 3**0.5 for part in (identity, *sampled)]
    torch.testing.assert_close(ours[0], torch.cat(parts))
    theirs = fused.Fused(person, generator(mode="faithful"), 1, 1.0).join(identity, sampled)
    expected = _unit(torch.cat([neck(identity)[0], sampled[0, 0], sampled[1, 0]]))
    torch.testing.assert_close(theirs[0], expected)


def test_start_noise_is_that_of_a_view():
    whole = sampling.starts(2, 3, (4, 4, 3))
    assert whole.shape == (2, 3, 4, 4, 3) and not torch.equal(whole[0], whole[1])
    assert torch.equal(whole[:, 0], whole[:, 2])
    assert torch.equal(sampling.starts(3, 1, (4, 4, 3))[:2, 0], whole[:, 0])  # one more view


@pytest.mark.parametrize("changes", [
    {}, {"mode": "faithful"}, {"denoiser": "mlp", "decoder": "align", "depth": 2, "times": 600},
])  # fmt: skip
def test_saved_and_loaded(person, tmp_path, changes):
    model = fused.Fused(person, generator(**changes), 2, 2.0).eval()
    fused.save(model, tmp_path / "m", {"steps": 1})
    again, about = fused.load(tmp_path / "m")
    assert about == {"steps": 1} and again.generator.shape == model.generator.shape
    pictures = images(2)
    with torch.no_grad():
        torch.testing.assert_close(again.features(pictures), model.features(pictures))


def test_an_adapter_has_none_of_stable_diffusion(tmp_path):
    torch.manual_seed(0)
    config = denoisers.SMALL_CONFIG | {"cross_attention_dim": WIDTH}
    UNet2DConditionModel(**config).save_pretrained(tmp_path / "sd" / "unet")
    made = generator(denoiser=str(tmp_path / "sd"))
    names = {n for n in made.trained() if n.startswith("denoiser.")}
    assert len(names) == 2 * 4 and all(".attn2.to_" in n for n in names)
    assert {n for n in generator().trained() if "conv_in" in n}  # from scratch all is its own
    with pytest.raises(FileNotFoundError, match="has no unet/config.json"):
        generator(denoiser=str(tmp_path))


def test_a_frozen_unet_learns_keys_and_values_alone(person, tmp_path):
    torch.manual_seed(0)
    config = denoisers.SMALL_CONFIG | {"cross_attention_dim": WIDTH}
    UNet2DConditionModel(**config).save_pretrained(tmp_path / "sd" / "unet")
    made, data = generator(denoiser=str(tmp_path / "sd")), cached()
    training.prepare(made, data, data.prototypes(VIEWS))
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], 1e-2)
    losses = training.Denoising(made.train(), data, training.Settings(drop=0.5), "cpu")
    for step in range(2):
        draws = training.Draws(12, slice(None), 0, "step", step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = sum(losses(made, made, torch.arange(12).numpy(), draws).values())
        loss.backward()
        optimiser.step()
    moved = {n for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    inside = {n for n in moved if n.startswith("denoiser.")}
    assert inside == {n for n in made.own if n.startswith("denoiser.")} and len(inside) == 8
    model = fused.Fused(person, made.eval().requires_grad_(False), 2, 2.0).eval()
    fused.save(model, tmp_path / "m", {})
    again, _ = fused.load(tmp_path / "m")
    with torch.no_grad():
        torch.testing.assert_close(again.features(images(2)), model.features(images(2)))
    UNet2DConditionModel(**config).save_pretrained(tmp_path / "sd" / "unet")  # another one
    with pytest.raises(ValueError, match="is not the one that it learnt on"):
        fused.load(tmp_path / "m")


# ---- training ------------------------------------------------------------------------------------


def cached(count: int = 24) -> Cached:
    """Features that hang on person (first half of the numbers) and view (second half)."""
    people, kinds = torch.arange(count) // 6, torch.arange(count) % VIEWS
    who, view = noise(count, WIDTH)[people], noise(VIEWS, WIDTH, seed=7)[kinds]
    identity = (who + view)[None] + 0.05 * noise(2, count, WIDTH, seed=8)
    condition = identity[:, :, None].expand(-1, -1, TOKENS - 1, -1).half()
    views = view[None].repeat(2, 1, 1)
    return Cached(identity, condition, views, kinds, torch.ones(count))


def test_moments_and_prototypes_by_hand():
    data = cached()
    data.weights[:6] = 0
    mean, scale = data.moments()
    kept = data.identity[:, 6:].flatten(0, 1)
    torch.testing.assert_close(mean, kept.mean(0))
    torch.testing.assert_close(scale, kept.std(0, correction=0))
    found = data.prototypes(VIEWS)
    expected = [data.view[:, (data.kinds == n) & (data.weights > 0)].mean((0, 1)) for n in range(3)]
    torch.testing.assert_close(found, torch.stack(expected))
    with pytest.raises(ValueError, match="view 3 has no picture"):
        data.prototypes(4)


def test_prepare_by_mode():
    data, bank = cached(), noise(VIEWS, WIDTH, seed=9)
    ours, theirs = generator(), generator(mode="faithful")
    for made in (ours, theirs):
        training.prepare(made, data, bank)
    torch.testing.assert_close(ours.latent(data.identity.flatten(0, 1)).flatten(1).std(0),
                               torch.ones(WIDTH), rtol=0.05, atol=0.05)  # fmt: skip
    torch.testing.assert_close(ours.prototypes, data.prototypes(VIEWS))
    assert torch.equal(theirs.prototypes, bank)
    latent = theirs.latent(data.identity[0])
    assert torch.equal(latent.flatten(1)[:, :WIDTH], data.identity[0])


def test_maps_are_made_of_own_view_or_prototype():
    data = cached()
    data = replace(data, view=data.view + noise(*data.view.shape, seed=11))  # pictures differ
    for own, shares in ((True, {1.0}), (False, {0.5})):
        made = with_mode(generator(), own_view=own)
        training.prepare(made, data, noise(VIEWS, WIDTH))
        made.mode = replace(made.mode, own_view=own)
        seen = []

        def spy(clean, eps, times, condition, prototype, view, dropped, seen=seen):
            seen.append((view != prototype).any(1))
            return torch.zeros_like(clean), None

        losses = training.Denoising(made, data, training.Settings(), "cpu")
        for step in range(40):
            draws = training.Draws(8, slice(None), 0, "step", step)
            losses(spy, None, torch.arange(8).numpy(), draws)
        share = torch.cat(seen).float().mean().item()
        assert min(abs(share - s) for s in shares) < 0.1


@pytest.mark.parametrize("changes", [
    {}, {"mode": "faithful"}, {"denoiser": "mlp"}, {"decoder": "align"},
])  # fmt: skip
def test_a_few_steps_lower_the_loss(changes):
    data, settings = cached(), training.Settings(drop=0.1)
    made = generator(**changes)
    training.prepare(made, data, data.prototypes(VIEWS))
    losses = training.Denoising(made, data, settings, "cpu")
    before = training.check(made, data, settings, 0, "cpu")
    optimiser = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], 2e-3)
    made.train()
    for step in range(40):
        draws = training.Draws(12, slice(None), 0, "step", step)
        found = losses(made, made, torch.arange(12).numpy(), draws)
        optimiser.zero_grad()
        sum(found.values()).backward()
        optimiser.step()
    asked = {n for n, p in made.named_parameters() if p.requires_grad and p.grad is None}
    assert not asked  # several processes would wait for those
    assert training.check(made, data, settings, 0, "cpu") < 0.9 * before


def test_the_modes_are_each_others_opposite():
    assert all(not getattr(mode.FIXED, f.name) for f in fields(mode.Mode))
    assert all(getattr(mode.FAITHFUL, f.name) for f in fields(mode.Mode))


def test_cost_counts_what_is_done(person):
    model = fused.Fused(person, generator(), 2, 2.0).eval()
    twice = fused.Fused(person, model.generator, 4, 2.0).eval()
    one, two = cost.report(model, 2), cost.report(twice, 2)
    assert one["encoder"]["gflops"] == two["encoder"]["gflops"] > 0
    more = [told["fused"]["gflops"] - told["encoder"]["gflops"] for told in (one, two)]
    assert 1.8 < more[1] / more[0] < 2.05  # the denoiser is nearly all of it
    assert one["parameters"]["learnt"] == one["parameters"]["generator"] > 0
