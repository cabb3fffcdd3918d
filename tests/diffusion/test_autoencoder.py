# SPDX-License-Identifier: Apache-2.0
"""The small autoencoder: its loss, what it learns, and the scale of its latents."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_pairs as tiny
import torch
from accelerate import Accelerator

from viewsynth.diffusion import autoencoder
from viewsynth.diffusion.options import AutoencoderOptimization
from viewsynth.training.loop import Run
from viewsynth.training.rows import Draws

FAST = AutoencoderOptimization(steps=60, batch=4, rate=3e-3, warmup=0, average=0.9)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny.write_pairs(tmp_path_factory.mktemp("pairs") / "some", people=2, each=2)


def trained(pairs, run, settings=FAST, **more):
    return autoencoder.train(
        tiny.autoencoder(),
        pairs,
        [0, 1, 2, 3],
        settings,
        0,
        Run(run, Accelerator(cpu=True), 20, **more),
    )


def test_it_learns_and_its_latents_have_unit_scale(pairs, tmp_path):
    before, figures = autoencoder.quality(tiny.autoencoder(), pairs, [0, 1, 2, 3]), []
    vae = trained(pairs, tmp_path, report=lambda step, found: figures.append(found["picture"]))
    after = autoencoder.quality(vae, pairs, [0, 1, 2, 3])
    assert after[0] > before[0] + 3 and after[1] > before[1] + 0.2
    assert figures[-1] < 0.7 * figures[0]
    with torch.no_grad():
        latents = vae.encode(autoencoder.images(pairs, [0, 1, 2, 3])).latents
    assert float((latents * vae.config.scaling_factor).square().mean()) == pytest.approx(
        1, abs=0.01
    )
    assert not any(p.requires_grad for p in vae.parameters())
    vae.save_pretrained(tmp_path / "vae")
    again = type(vae).from_pretrained(tmp_path / "vae")
    assert again.config.scaling_factor == vae.config.scaling_factor


def test_stopped_and_gone_on_with_equals_undisturbed(pairs, tmp_path):
    asked = replace(FAST, steps=30)
    whole = trained(pairs, tmp_path / "one", asked)

    def stop(step, figures):
        if step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(pairs, tmp_path / "two", asked, report=stop)
    again = trained(pairs, tmp_path / "two", asked)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert again.config.scaling_factor == whole.config.scaling_factor


def test_windows_are_parts_of_the_windows(pairs):
    losses = autoencoder.Reconstruction(pairs, [0, 1, 2, 3], FAST)
    conditions, target, _ = pairs.batch([2])
    for kind, picture in ((0.1, target), (0.6, conditions.render), (0.9, conditions.source)):
        draw = torch.tensor([[kind, 0.9, 0.999, 0.0]])
        window = losses._windows([2], draw)
        assert torch.equal(window, picture[:, :, 16:, :8])
        flipped = losses._windows([2], torch.tensor([[kind, 0.1, 0.999, 0.0]]))
        assert torch.equal(flipped, window.flip(-1))


def test_a_part_of_a_batch_has_the_same_losses(pairs):
    losses = autoencoder.Reconstruction(pairs, [0, 1, 2, 3], FAST)
    model, seen = autoencoder.Coder(tiny.autoencoder()), []
    rows = torch.arange(4).numpy()
    with torch.no_grad():
        whole = losses(model, model, rows, Draws(4, slice(None), 0))["picture"]
        for part in (slice(0, 2), slice(2, 4)):
            seen.append(losses(model, model, rows[part], Draws(4, part, 0))["picture"])
    assert float(whole) == pytest.approx(float(sum(seen)) / 2, rel=1e-5)


def test_the_distance_sees_values_and_edges():
    one = torch.rand(2, 3, 16, 8, generator=torch.Generator().manual_seed(0))
    assert float(autoencoder.reconstruction_loss(one, one)) == 0
    # Another brightness has the same edges, so it costs its own amount at every scale.
    assert float(autoencoder.reconstruction_loss(one, one + 0.1)) == pytest.approx(0.1, abs=1e-5)
    blurred = torch.nn.functional.avg_pool2d(one, 3, 1, 1, count_include_pad=False)
    assert autoencoder.reconstruction_loss(one, blurred) > (one - blurred).abs().mean()


def test_a_lost_colour_costs_as_much_as_lost_light():
    grey, pink = torch.zeros(1, 3, 16, 8), torch.zeros(1, 3, 16, 8)
    pink[:, 0], pink[:, 1] = 0.2, -0.2
    assert float(autoencoder.reconstruction_loss(grey, pink)) > float(
        autoencoder.reconstruction_loss(grey, grey + 0.2)
    )
    planes = autoencoder.opponent(pink)
    assert planes[:, 1].mean() > 1 and planes[:, [0, 2]].abs().max() < 1e-6


class Faded(torch.nn.Module):
    """An autoencoder that gives back half of the colours."""

    device = "cpu"

    def encode(self, x):
        return SimpleNamespace(latents=x)

    def decode(self, x):
        grey = x.mean(1, keepdim=True)
        return SimpleNamespace(sample=(x + grey) / 2)


def test_the_quality_tells_of_faded_colours(pairs):
    psnr, colour = autoencoder.quality(Faded(), pairs, [0, 1])
    assert colour == pytest.approx(0.5, abs=0.02) and psnr > 10


def test_unit_is_least_at_mean_0_and_deviation_1():
    latents = torch.randn(8, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    least = float(autoencoder.moment_loss(latents))
    assert least == pytest.approx(0, abs=0.01)
    assert (
        min(float(autoencoder.moment_loss(x)) for x in (latents * 2, latents / 2, latents + 1))
        > 0.2
    )


def test_noise_is_refused():
    with pytest.raises(ValueError, match=r"autoencoder.noise must be in \[0, 10\]"):
        AutoencoderOptimization(noise=-1)
