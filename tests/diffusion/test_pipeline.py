# SPDX-License-Identifier: Apache-2.0
"""The pipeline: batches, seeds, schedulers, guidance, memory, and bad input."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import tiny_views as tiny
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image
from tiny_views import SIZE, rows, views

from viewsynth.diffusion import photo, sampling
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline
from viewsynth.render.foreground import Foreground

SCHEDULERS = (DDIMScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler, LCMScheduler)


@pytest.fixture(scope="module")
def pipe() -> ViewDiffusionPipeline:
    return tiny.pipeline()


# ---- sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_row_is_the_same_alone_and_in_a_batch(pipe, kind, guidance):
    mine = tiny.replace_scheduler(pipe, kind)
    given = views()
    whole = mine.sample(given, 3, guidance, rows(5), keep_seen=0.5)
    assert whole.shape == (5, 3, *SIZE) and whole.isfinite().all()
    for row in (1, 4):
        alone = mine.sample(given.take(torch.tensor([row])), 3, guidance, rows(1, row), 0.5)
        assert torch.allclose(alone[0], whole[row], atol=1e-4)
        levels = ((alone[0] * 255).round() - (whole[row] * 255).round()).abs()
        assert levels.max() <= 1 and levels.mean() < 1e-3  # differences of rounding


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_with_a_fixed_shape_a_row_has_the_same_bits_alone(pipe, guidance):
    mine, given = tiny.replace_scheduler(pipe, LCMScheduler), views(7, 3)
    whole = mine.sample(given, 3, guidance, rows(7), batch=4)
    for row in (0, 2, 6):
        taken = given.take(torch.tensor([row]))
        taken = replace(taken, source=taken.source[taken.person], person=torch.tensor([0]))
        alone = mine.sample(taken, 3, guidance, rows(1, row), batch=4)
        assert torch.equal(alone[0], whole[row])


def test_neither_order_nor_batches_change_an_image(pipe):
    mine, given = tiny.replace_scheduler(pipe, LCMScheduler), views()
    whole = mine.sample(given, 3, 2.0, rows(5))
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = mine.sample(given.take(order), 3, 2.0, [rows(5)[k] for k in order.tolist()])
    assert torch.allclose(turned, whole[order], atol=1e-4)
    parts = mine.sample(given, 3, 2.0, rows(5), batch=2)
    assert torch.allclose(parts, whole, atol=1e-4)


def test_without_an_identity_encoder_null_tokens_are_used():
    whole = tiny.pipeline()
    made = ViewDiffusionPipeline(whole.vae, whole.unet, whole.conditioner, whole.scheduler, None)
    assert made.sample(views(2), 2, 1.0, rows(2)).isfinite().all()


def test_seeds_determine_the_images(pipe):
    given = views(2)
    first = pipe.sample(given, 2, generators=rows(2))
    assert torch.equal(first, pipe.sample(given, 2, generators=rows(2)))
    assert not torch.equal(first, pipe.sample(given, 2, generators=rows(2, 7)))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    default = pipe.sample(given, 2)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not used
    assert torch.equal(default, pipe.sample(given, 2))
    one = [pipe.sample(given, 2, generators=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*one) and not torch.equal(one[0], default)


def test_noise_in_the_steps_comes_from_the_rows(pipe):
    scheduler = tiny.replace_scheduler(pipe, LCMScheduler).scheduler
    start = torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(0))

    def denoised(steps: int, first: int) -> torch.Tensor:
        times = sampling.set_timesteps(scheduler, steps, 1.0, "cpu")
        return sampling.denoise(scheduler, lambda x, time: x / 2, start, times, rows(2, first))

    assert not torch.allclose(denoised(3, 0), denoised(3, 7), atol=1e-3)
    assert torch.equal(denoised(1, 0), denoised(1, 7))  # the only step adds no noise


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_sampling_may_start_from_noised_images(pipe, kind):
    """The number of steps is that asked for, none before the strength; rows are independent."""
    mine, given = tiny.replace_scheduler(pipe, kind), views(3)
    times = sampling.set_timesteps(mine.scheduler, 2, 0.5, "cpu")
    assert len(times) == 2 and max(times) <= 500
    start = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    options = {"keep_seen": 0.0, "strength": 0.5}
    whole = mine.sample(given, 2, 1.5, rows(3), start=start, **options)
    one = torch.tensor([2])
    alone = mine.sample(given.take(one), 2, 1.5, rows(1, 2), start=start[one], **options)
    assert torch.allclose(alone[0], whole[2], atol=1e-4)
    renders = mine.sample(given, 2, 1.5, rows(3), **options)
    same = mine.sample(given, 2, 1.5, rows(3), start=given.render.clamp(0, 1), **options)
    assert torch.equal(renders, same) and not torch.equal(renders, whole)
    with pytest.raises(ValueError, match=r"start must be \[3, 3, 64, 32\], got \[1, 3"):
        mine.sample(given, 2, start=start[one], **options)


@pytest.mark.parametrize("kind", (DDIMScheduler, LCMScheduler))
@pytest.mark.parametrize("steps", [1, 3])
def test_a_perfect_denoiser_returns_the_start_image(kind, steps):
    """The first latents are the start with the noise of the first timestep."""
    scheduler = kind(
        1000, beta_schedule="scaled_linear", prediction_type="epsilon", clip_sample=False
    )
    start, noise = torch.randn(2, 2, 4, 8, 4, generator=torch.Generator().manual_seed(0))

    def denoise(noisy, time):
        share = scheduler.alphas_cumprod[int(time)]
        return (noisy - share.sqrt() * start) / (1 - share).sqrt()

    times = sampling.set_timesteps(scheduler, steps, 0.5, "cpu")
    latents = sampling.initial_latents(scheduler, times, noise, start)
    found = sampling.denoise(scheduler, denoise, latents, times, rows(2))
    assert torch.allclose(found, start, atol=1e-3)


def test_guidance_is_one_call_per_step_and_source_images_are_encoded_once(pipe, monkeypatch):
    calls = {"unet": [], "vae": []}
    unet, encode = pipe.unet.forward, pipe.vae.encode
    monkeypatch.setattr(
        pipe.unet, "forward", lambda x, *a, **k: calls["unet"].append(len(x)) or unet(x, *a, **k)
    )
    monkeypatch.setattr(
        pipe.vae, "encode", lambda x, *a, **k: calls["vae"].append(len(x)) or encode(x, *a, **k)
    )
    pipe.sample(views(5, 2), 3, 2.0, rows(5))
    assert calls == {"unet": [10, 10, 10], "vae": [2, 5]}


def test_with_a_fixed_shape_source_images_are_not_padded_to_it(pipe, monkeypatch):
    calls, encode = [], pipe.vae.encode
    monkeypatch.setattr(
        pipe.vae, "encode", lambda x, *a, **k: calls.append(len(x)) or encode(x, *a, **k)
    )
    pipe.sample(views(5, 2), 1, generators=rows(5), batch=4)
    assert calls == [1, 1, 4, 4]


def test_guidance_leads_away_from_the_prediction_without_the_source_image(pipe):
    found = call(
        pipe,
        num_inference_steps=1,
        guidance_scale=3.0,
        generator=rows(2),
        output_type="latent",
    )
    encoded, time = pipe.encode(found.conditions), torch.tensor(999)
    start = sampling.noise(pipe.latent_shape, rows(2), "cpu")
    kept = torch.ones(2, 3, dtype=torch.bool)
    without = kept.clone()
    without[:, 0] = False
    with torch.no_grad():
        towards, away = (pipe.predict(start, time, encoded, which) for which in (kept, without))
    scheduler = pipe.scheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(1)
    wanted = scheduler.step(away + 3 * (towards - away), time, start, return_dict=False)[0]
    assert torch.allclose(found.images, wanted, atol=1e-4)
    assert not torch.allclose(towards, away, atol=1e-3)


def test_without_geometry_the_rendering_has_no_effect(pipe):
    given, other = views(2), views(2)
    other = replace(other, render=1 - other.render, seen=1 - other.seen, normals=-other.normals)
    kept = ("source", "camera")
    for guidance in (1.0, 3.0):
        made = [
            pipe.sample(some, 2, guidance, rows(2), keep_seen=0, kept=kept)
            for some in (given, other)
        ]
        assert torch.equal(*made)
        assert not torch.allclose(made[0], pipe.sample(given, 2, guidance, rows(2), keep_seen=0))
    with pytest.raises(ValueError, match="kept must be some of source, geometry, camera"):
        pipe.sample(given, 2, kept=("render",))


def test_only_unet_and_conditioner_get_gradients():
    mine = tiny.pipeline()
    encoded = mine.encode(views(2))
    found = mine.predict(
        torch.randn(2, 4, 16, 8),
        torch.tensor([10, 500]),
        encoded,
        torch.tensor([[True, True, False], [False, True, True]]),
    )
    found.square().mean().backward()
    assert all(p.grad is not None for p in mine.conditioner.parameters())
    assert mine.unet.conv_in.weight.grad is not None
    assert all(p.grad is None for p in mine.vae.parameters())
    assert all(p.grad is None for p in mine.identity_encoder.parameters())


# ---- memory --------------------------------------------------------------------------------------


def test_a_repeated_batch_has_the_same_noise(pipe, monkeypatch):
    mine, given = tiny.replace_scheduler(pipe, LCMScheduler), views()
    whole = mine.sample(given, 3, generators=rows(5))
    step = mine.scheduler.step

    def full(output, *rest, **named):
        made = step(output, *rest, **named)
        if len(output) > 2 and mine.scheduler.step_index == 2:  # noise has been sampled by then
            raise torch.OutOfMemoryError("full")
        return made

    full.__signature__ = inspect.signature(step)
    monkeypatch.setattr(mine.scheduler, "step", full)
    assert torch.allclose(mine.sample(given, 3, generators=rows(5)), whole, atol=1e-4)


# ---- the call ------------------------------------------------------------------------------------


def rendering(**changes) -> Foreground:
    given = views(2, 1)
    fields = {"render": given.render, "seen": given.seen, "normals": given.normals}
    return Foreground(**({**fields, "coverage": given.seen} | changes))


def call(pipe, **changes):
    options = {
        "image": Image.new("RGB", (40, 90), (200, 60, 60)),
        "elevation": 60,
        "azimuth": [0, 180],
        "rendering": rendering(),
        "num_inference_steps": 2,
    }
    return pipe(**(options | changes))


def test_output_types(pipe):
    made = call(pipe)
    assert [one.size for one in made.images] == [(32, 64)] * 2
    assert made.conditions.camera[:, 2].tolist() == [0, -180]
    tensor = call(pipe, output_type="pt").images
    assert tensor.shape == (2, 3, *SIZE)
    array = call(pipe, output_type="np").images
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.asarray(made.images[0]), (array[0] * 255).round().astype(np.uint8))
    assert call(pipe, output_type="latent").images.shape == (2, 4, 16, 8)
    wide = rendering(render=torch.full((2, 3, 60, 90), 0.4))  # the aspect of the crop
    assert call(pipe, rendering=wide).images[0].size == (56, 37)


def test_the_callback_may_change_the_latents(pipe):
    steps = []

    def zero(which, number, time, state):
        assert which is pipe
        steps.append(number)
        return {"latents": state["latents"] * 0}

    found = call(pipe, output_type="latent", callback_on_step_end=zero).images
    assert steps == [0, 1] and not found.any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"elevation": 91}, r"elevation must be in \[0, 90\].*got 91"),
        ({"elevation": float("nan")}, "elevation must be in"),
        ({"elevation": [10, 20, 30]}, "1 photos, 3 elevations and 2 azimuths do not match"),
        ({"image": Image.new("RGB", (40, 90))}, "photo 0 is black"),
        ({"image": Image.new("RGB", (40, 9), "red")}, "has 9 x 40 pixels"),
        ({"image": torch.full((1, 3, 64, 32), torch.nan)}, "photo 0 contains NaN"),
        ({"image": torch.zeros(1, 64, 32, 3)}, r"float \[B, 3, H, W\]"),
        ({"image": "person.jpg"}, "must be PIL images or a float tensor, got str"),
        ({"image": torch.rand(1, 3, 64, 32) * 255}, "must be in .0, 1.*divide .* by 255"),
        (
            {"rendering": rendering(render=torch.full((2, 3, *SIZE), torch.nan))},
            "row 0 contains NaN",
        ),
        ({"rendering": rendering(render=torch.rand(2, 3, *SIZE) * 255)}, "divide .* by 255"),
        ({"rendering": rendering(seen=torch.rand(3, 1, *SIZE))}, r"seen must be \[2, 1, 64, 32\]"),
        ({"distance": -1}, "distance must be in"),
        ({"num_inference_steps": 0}, "num_inference_steps must be in"),
        ({"guidance_scale": -1}, "guidance_scale must be in"),
        ({"keep_seen": 2}, r"keep_seen must be in \[0, 1\], got 2"),
        ({"strength": 0}, r"strength must be in \[0.02, 1\], got 0"),
        ({"strength": 0.02, "num_inference_steps": 21}, "at most 20 at a strength of 0.02"),
        ({"generator": rows(3)}, "expected one or 2"),
        ({"output_type": "jpg"}, "output_type must be one of pil, pt"),
    ],
)
def test_bad_input_is_refused_before_any_network_runs(pipe, monkeypatch, changes, said):
    for part in (pipe.vae, pipe.unet):
        monkeypatch.setattr(part, "forward", None)
    monkeypatch.setattr(pipe.vae, "encode", None)
    monkeypatch.setattr(photo, "_tools", None)
    with pytest.raises(ValueError, match=said):
        call(pipe, **changes)


def test_offloading_includes_every_component():
    mine = tiny.pipeline()
    order = mine.model_cpu_offload_seq.split("->")
    models = {k for k, v in mine.components.items() if isinstance(v, torch.nn.Module)}
    assert set(order) == models
