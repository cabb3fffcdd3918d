# SPDX-License-Identifier: Apache-2.0
"""SD-ReID's second stage: sampling, descriptors, and each difference between the modes."""

from __future__ import annotations

import copy
from dataclasses import fields

import pytest
import tiny_generation
import torch
from diffusers import UNet2DConditionModel
from tiny_generation import TOKENS, VIEWS, WIDTH, cached, generator, images, noise, with_mode
from torch import nn

from viewsynth.reid.sd_reid import cost, denoisers, fused, mode, sampling, training
from viewsynth.reid.sd_reid.options import GeneratorOptimization


@pytest.fixture(scope="module")
def person():
    return tiny_generation.person()


# ---- sampling ------------------------------------------------------------------------------------


def test_timesteps_of_the_release():
    uniform = torch.tensor([0.0, 0.25, 0.5, 0.75, 0.9999])
    found = sampling.draw_times(uniform, 1000).tolist()
    assert found == [999, 984, 875, 578, 0]
    for times, steps, visited in (
        (1000, 5, [801, 601, 401, 201, 1]),
        (600, 5, [481, 361, 241, 121, 1]),
        (600, 4, [451, 301, 151, 1]),
    ):
        scheduler = sampling.schedule(times, mode.FAITHFUL)
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == visited
    ours = sampling.schedule(600)
    ours.set_timesteps(5)
    assert ours.timesteps.tolist() == [599, 479, 359, 239, 119]
    for times, left in ((1000, 0.0047), (800, 0.0136), (600, 0.0399)):
        assert sampling.schedule(times).alphas_cumprod[-1].item() == pytest.approx(left, abs=1e-4)


class Oracle(nn.Module):
    """A denoiser that predicts the true noise for the latent `clean`."""

    frozen = False

    def __init__(self, clean: torch.Tensor, alphas: torch.Tensor):
        super().__init__()
        self.clean, self.alphas = clean, alphas

    def forward(self, noisy, times, context, down, up):
        alpha = self.alphas[times][:, None, None, None]
        return (noisy - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()


def test_the_true_noise_gives_the_feature():
    made = generator()
    features = noise(1, WIDTH, seed=5)
    made.features.mean, made.features.scale = noise(WIDTH, seed=6), torch.rand(WIDTH) + 0.5
    made.denoiser = Oracle(made.latent(features), made.alphas)
    found = sampling.sample(
        made, noise(2, TOKENS - 1, WIDTH), noise(VIEWS, 2, *made.grid.shape), 50, 1.0
    )
    assert found.shape == (VIEWS, 2, WIDTH)
    torch.testing.assert_close(found, features.expand(VIEWS, 2, -1), rtol=1e-3, atol=1e-3)


def test_the_true_noise_gives_the_feature_in_the_release():
    made = generator(mode="faithful")
    features = noise(1, WIDTH, seed=5)
    made.denoiser = Oracle(made.latent(features), made.alphas)
    start = noise(2, 2, *made.grid.shape)
    rng = torch.Generator().manual_seed(0)
    found = sampling.sample(made, noise(2, TOKENS - 1, WIDTH), start, 5, 1.0, rng)
    torch.testing.assert_close(found, features.expand(2, 2, -1), rtol=1e-3, atol=1e-3)


def test_classifier_free_guidance():
    """One step: the noise is e_0 + g (e_c - e_0), with e_0 from the learned null tokens."""
    made, condition = generator(), noise(2, TOKENS - 1, WIDTH)
    start = noise(1, 2, *made.grid.shape)
    with torch.no_grad():
        prototype = made.prototypes[:1].expand(2, -1)
        down, up = made.pyramid(prototype)
        at = torch.tensor([999, 999])
        null = made.fusion.null_tokens.expand(2, -1, -1)
        conditional, unconditional = (
            made.denoiser(start[0], at, tokens, down, up)
            for tokens in (made.fusion(condition, prototype), null)
        )
        mixed = unconditional + 3.0 * (conditional - unconditional)
        alpha = made.alphas[999]
        clean = (start[0] - (1 - alpha).sqrt() * mixed) / alpha.sqrt()
        expected = made.features.inverse(made.feature(clean, prototype))
    found = sampling.sample(made, condition, start, 1, 3.0)[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_null_tokens_are_zeros_in_the_release():
    made, condition = generator(), noise(1, TOKENS - 1, WIDTH)
    start = noise(VIEWS, 1, *made.grid.shape)
    learned = sampling.sample(made, condition, start, 2, 2.0)
    zeros = sampling.sample(with_mode(made, zero_null=True), condition, start, 2, 2.0)
    assert not torch.allclose(learned, zeros)
    made.fusion.null_tokens.data.zero_()
    again = sampling.sample(with_mode(made, zero_null=False), condition, start, 2, 2.0)
    torch.testing.assert_close(again, zeros)


def test_the_release_loses_feature_maps():
    """Two maps for the encoder, then one, then none; none for the decoder."""
    seen = []
    for lost in (False, True):
        made = with_mode(generator(), lost_residuals=lost)
        inner = made.denoiser.forward

        def spy(noisy, times, tokens, down, up, inner=inner):
            seen.append((len(down), len(up)))
            return inner(noisy, times, tokens, down, up)

        made.denoiser.forward = spy
        sampling.sample(made, noise(1, 2, WIDTH), noise(VIEWS, 1, *made.grid.shape), 4, 1.0)
    assert seen == [(2, 2)] * 4 + [(2, 0), (1, 0), (0, 0), (0, 0)]
    assert all(p.requires_grad for p in generator().pyramid.parameters())
    released = generator(mode="faithful").pyramid
    assert {p.requires_grad for p in released.up.parameters()} == {False}
    assert {p.requires_grad for p in released.down.parameters()} == {True}


@pytest.mark.parametrize("denoiser", ["small", "mlp"])
@pytest.mark.parametrize("decoder", ["pyramid", "align"])
def test_features_differ_between_views(denoiser, decoder):
    made = generator(denoiser=denoiser, decoder=decoder)
    start = noise(1, 1, *made.grid.shape).expand(VIEWS, -1, -1, -1, -1)
    found = sampling.sample(made, noise(1, TOKENS - 1, WIDTH), start, 3, 2.0)
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[1], found[2])


def test_a_copy_has_its_own_hooks():
    """The moving average is a copy."""
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


# ---- descriptors ---------------------------------------------------------------------------------


def test_descriptors_do_not_depend_on_the_batch(person):
    model = fused.Fused(person, generator(), 3, 2.0).eval()
    batch = images(6)
    with torch.no_grad():
        whole = model.features(batch)
        assert whole.shape == (6, (1 + VIEWS) * WIDTH)
        torch.testing.assert_close(whole.norm(dim=1), torch.ones(6))
        alone = torch.cat([model.features(one[None]) for one in batch])
        reordered = model.features(batch.flip(0)).flip(0)
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reordered, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.features(batch), whole)  # no shared random generator


def test_descriptors_of_the_release_depend_on_the_batch(person):
    model = fused.Fused(person, generator(mode="faithful"), 3, 2.0).eval()
    batch = images(4)
    with torch.no_grad():
        first = model.features(batch)
        assert first.shape == (4, (1 + 2) * WIDTH)  # no features of the third view
        again = model.features(batch)
        assert not torch.allclose(first, again)  # the random generator is shared by all calls
        fresh = fused.Fused(person, model.generator, 3, 2.0).eval()
        torch.testing.assert_close(fresh.features(batch), first)
        other = fused.Fused(person, model.generator, 3, 2.0).eval()
        alone = other.features(batch[:1])
    assert not torch.allclose(alone[0], first[0], atol=1e-4)
    # The identity feature does not depend on the batch in either mode.
    part = slice(0, WIDTH)
    torch.testing.assert_close(*(_unit(x[0, part]) for x in (alone, first)), rtol=1e-4, atol=1e-5)


def _unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


def test_normalisation_of_the_parts_of_a_descriptor(person):
    sampled, identity = noise(2, 1, WIDTH), noise(1, WIDTH, seed=4)
    neck = person.neck.norm
    ours = fused.Fused(person, generator(), 1, 1.0).join(identity, sampled)
    parts = [_unit(neck(part)[0]) / 3**0.5 for part in (identity, *sampled)]
    torch.testing.assert_close(ours[0], torch.cat(parts))
    released = fused.Fused(person, generator(mode="faithful"), 1, 1.0).join(identity, sampled)
    expected = _unit(torch.cat([neck(identity)[0], sampled[0, 0], sampled[1, 0]]))
    torch.testing.assert_close(released[0], expected)


def test_initial_noise_is_fixed_for_each_view():
    whole = sampling.starts(2, 3, (4, 4, 3))
    assert whole.shape == (2, 3, 4, 4, 3) and not torch.equal(whole[0], whole[1])
    assert torch.equal(whole[:, 0], whole[:, 2])
    assert torch.equal(sampling.starts(3, 1, (4, 4, 3))[:2, 0], whole[:, 0])  # with one more view


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "faithful"},
        {"denoiser": "mlp", "decoder": "align", "depth": 2, "times": 600},
    ],
)
def test_saved_and_loaded(person, tmp_path, changes):
    model = fused.Fused(person, generator(**changes), 2, 2.0).eval()
    fused.save(model, tmp_path / "m", {"steps": 1})
    again, about = fused.load(tmp_path / "m")
    assert about == {"steps": 1} and again.generator.shape == model.generator.shape
    batch = images(2)
    with torch.no_grad():
        torch.testing.assert_close(again.features(batch), model.features(batch))


def test_adapters_do_not_include_pretrained_weights(tmp_path):
    torch.manual_seed(0)
    config = denoisers.SMALL_CONFIG | {"cross_attention_dim": WIDTH}
    UNet2DConditionModel(**config).save_pretrained(tmp_path / "sd" / "unet")
    made = generator(denoiser=str(tmp_path / "sd"))
    names = {n for n in made.adapter() if n.startswith("denoiser.")}
    assert len(names) == 2 * 4 and all(".attn2.to_" in n for n in names)
    assert {n for n in generator().adapter() if "conv_in" in n}  # all weights, if from scratch
    with pytest.raises(FileNotFoundError, match="has no unet/config.json"):
        generator(denoiser=str(tmp_path))


def test_a_frozen_unet_trains_keys_and_values_only(person, tmp_path):
    torch.manual_seed(0)
    config = denoisers.SMALL_CONFIG | {"cross_attention_dim": WIDTH}
    UNet2DConditionModel(**config).save_pretrained(tmp_path / "sd" / "unet")
    made, data = generator(denoiser=str(tmp_path / "sd")), cached()
    training.prepare(made, data, data.prototypes(VIEWS))
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], 1e-2)
    losses = training.Denoising(made.train(), data, GeneratorOptimization(drop=0.5), "cpu")
    for step in range(2):
        draws = training.Draws(12, slice(None), 0, "step", step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = sum(losses(made, made, torch.arange(12).numpy(), draws).values())
        loss.backward()
        optimizer.step()
    changed = {n for n, p in made.named_parameters() if not torch.equal(p, before[n])}
    names = {n for n in changed if n.startswith("denoiser.")}
    assert names == {n for n in made.adapter_names if n.startswith("denoiser.")}
    assert len(names) == 8
    model = fused.Fused(person, made.eval().requires_grad_(False), 2, 2.0).eval()
    fused.save(model, tmp_path / "m", {})
    again, _ = fused.load(tmp_path / "m")
    with torch.no_grad():
        torch.testing.assert_close(again.features(images(2)), model.features(images(2)))
    UNet2DConditionModel(**config).save_pretrained(tmp_path / "sd" / "unet")  # another one
    with pytest.raises(ValueError, match="is not the one that it was trained with"):
        fused.load(tmp_path / "m")


def test_the_modes_differ_in_every_field():
    assert all(not getattr(mode.FIXED, f.name) for f in fields(mode.Mode))
    assert all(getattr(mode.FAITHFUL, f.name) for f in fields(mode.Mode))


def test_cost_grows_with_the_steps(person):
    model = fused.Fused(person, generator(), 2, 2.0).eval()
    twice = fused.Fused(person, model.generator, 4, 2.0).eval()
    one, two = cost.report(model, 2), cost.report(twice, 2)
    assert one["encoder"]["gflops"] == two["encoder"]["gflops"] > 0
    added = [costs["fused"]["gflops"] - costs["encoder"]["gflops"] for costs in (one, two)]
    assert 1.8 < added[1] / added[0] < 2.05  # nearly all of it is the denoiser
    assert one["parameters"]["learnt"] == one["parameters"]["generator"] > 0
