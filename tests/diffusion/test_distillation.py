# SPDX-License-Identifier: Apache-2.0
"""Distillation: the boundary, the teacher's trajectory, and a student of a few steps."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import tiny_pairs as tiny
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler, LCMScheduler

from viewsynth.diffusion import distillation, training
from viewsynth.diffusion.distillation import Consistency
from viewsynth.diffusion.options import DistillationOptimization
from viewsynth.diffusion.training import Denoiser, Latents
from viewsynth.training.loop import Run
from viewsynth.training.rows import Draws

FAST = DistillationOptimization(steps=40, batch=4, rate=2e-3, warmup=0, average=0.5)
KEPT = torch.ones(2, 3, dtype=torch.bool)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny.write_pairs(tmp_path_factory.mktemp("pairs") / "two")


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def taught(request, pairs):
    pipeline = tiny.pipeline(request.param)
    training.prepare(pipeline)
    return pipeline, Latents(pipeline, pairs, [0, 1])


def losses_of(taught, settings=FAST) -> Consistency:
    pipeline, latents = taught
    return Consistency(Denoiser(pipeline).eval(), latents, settings)


def noisy_of(latents, seed=0):
    encoded, clean, _ = latents.take(np.array([0, 1]))
    return encoded, torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


def test_the_boundary_is_that_of_the_scheduler(taught):
    time = torch.tensor([0, 19, 999])
    skip, out = distillation.boundary(time)
    scheduler = LCMScheduler.from_config(taught[0].scheduler.config)
    for k, when in enumerate(time.tolist()):
        expected = scheduler.get_scalings_for_boundary_condition_discrete(when)
        assert (float(skip[k]), float(out[k])) == pytest.approx(expected, abs=1e-6)
    assert (float(skip[0]), float(out[0])) == (1, 0)


@torch.no_grad()
def test_at_its_boundary_a_student_returns_its_input(taught):
    losses, (encoded, noisy) = losses_of(taught), noisy_of(taught[1])
    model = Denoiser(taught[0])
    assert torch.equal(losses.end(model, noisy, torch.tensor([0, 0]), encoded, KEPT), noisy)
    assert not torch.allclose(
        losses.end(model, noisy, torch.tensor([19, 19]), encoded, KEPT), noisy, atol=1e-2
    )


@torch.no_grad()
def test_without_guidance_the_teacher_follows_ddim(taught):
    pipeline, latents = taught
    losses, (encoded, noisy) = losses_of(taught, replace(FAST, guidance=1)), noisy_of(latents)
    late = torch.tensor([599, 599])
    found = losses.follow(noisy, late, late - 20, encoded, KEPT)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(50)
    output = pipeline.predict(noisy, late, encoded, KEPT)
    assert torch.allclose(found, scheduler.step(output, 599, noisy).prev_sample, atol=1e-5)


@torch.no_grad()
def test_guidance_leads_away_from_the_prediction_without_the_source(taught):
    _, latents = taught
    encoded, noisy = noisy_of(latents)
    late, without = torch.tensor([599, 599]), KEPT.clone()
    without[:, 0] = False
    plain = losses_of(taught, replace(FAST, guidance=1))
    free = plain.follow(noisy, late, late - 20, encoded, without)
    full = plain.follow(noisy, late, late - 20, encoded, KEPT)
    guided = losses_of(taught, replace(FAST, guidance=3)).follow(
        noisy, late, late - 20, encoded, KEPT
    )
    assert not torch.allclose(full, free, atol=1e-4)
    assert torch.allclose(guided, free + 3 * (full - free), atol=1e-4)


@torch.no_grad()
def test_a_perfect_student_has_no_loss(taught):
    """Were the teacher's field one straight answer, its student's loss would be none."""
    pipeline, latents = taught
    losses = losses_of(taught, replace(FAST, guidance=1))
    encoded, clean, _ = latents.take(np.array([0, 1]))

    def perfect(noisy, time, *_):
        """Predicts the true clean latent from anything."""
        signal, sigma = losses.noise.scales(time)
        noise = (noisy - signal * clean) / sigma
        return losses.noise.wanted(clean, noise, time)

    losses.teacher = perfect
    found = losses(perfect, perfect, np.array([0, 1]), Draws(2, slice(None), 0))["consistency"]
    late = distillation.boundary(torch.tensor([19]))[0]
    assert float(found) < 10 * float(late)  # what the boundary lets through
    assert (
        float(
            losses(Denoiser(pipeline), perfect, np.array([0, 1]), Draws(2, slice(None), 0))[
                "consistency"
            ]
        )
        > 0.1
    )


def test_the_loss_falls_and_the_student_runs_in_few_steps(taught, pairs, tmp_path):
    pipeline, latents = taught
    before = copy.deepcopy(pipeline.unet.state_dict())
    figures = []
    student = distillation.train(
        pipeline,
        latents,
        FAST,
        0,
        Run(
            tmp_path,
            Accelerator(cpu=True),
            report=lambda step, found: figures.append(found["consistency"]),
        ),
    )
    assert np.mean(figures[-5:]) < 0.8 * np.mean(figures[:5])
    after = pipeline.unet.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # the teacher stays
    assert isinstance(student.scheduler, LCMScheduler)
    assert student.scheduler.config.prediction_type == pipeline.scheduler.config.prediction_type
    assert torch.allclose(student.scheduler.alphas_cumprod, pipeline.scheduler.alphas_cumprod)
    conditions, _, _ = pairs.batch([0, 1])
    for steps in (1, 2, 4):
        draws = [torch.Generator().manual_seed(k) for k in range(2)]
        made = student.sample(conditions, steps=steps, generators=draws)
        assert made.shape == (2, 3, *tiny.SIZE) and bool(made.isfinite().all())
    student.save_pretrained(tmp_path / "student")
    again = type(student).from_pretrained(tmp_path / "student")
    assert isinstance(again.scheduler, LCMScheduler)
    assert again.scheduler.config.original_inference_steps == FAST.stations


def test_stopped_and_gone_on_with_equals_undisturbed(taught, tmp_path):
    asked = replace(FAST, steps=6)

    def distilled(run, **more):
        return distillation.train(
            *taught, asked, 0, Run(tmp_path / run, Accelerator(cpu=True), 2, **more)
        ).unet.state_dict()

    def stop(step, figures):
        if step == 5:
            raise KeyboardInterrupt

    whole = distilled("one")
    with pytest.raises(KeyboardInterrupt):
        distilled("two", report=stop)
    again = distilled("two")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_of_a_lora_run_only_a_lora_is_distilled(taught, tmp_path):
    pipeline, latents = taught
    asked = replace(FAST, steps=3)
    run = Run(tmp_path / "run", Accelerator(cpu=True))
    student = distillation.train(pipeline, latents, asked, 0, run, rank=2)
    before, after = pipeline.unet.state_dict(), student.unet.state_dict()
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed and all(
        any(key.endswith(f"{name}.weight") for name in training.LORA) for key in changed
    )
    for key in changed:
        apart = (after[key] - before[key]).flatten(1)
        assert int(torch.linalg.matrix_rank(apart, rtol=1e-3)) <= 2
    size = sum(path.stat().st_size for path in run.folder.rglob("*.safetensors"))
    assert size < 4 * sum(value.nbytes for value in before.values())


def test_geometry_and_source_are_withheld_each_on_its_own(taught):
    losses, told = losses_of(taught, replace(FAST, drop=0.4)), []

    def model(noisy, time, encoded, kept):
        told.append(kept)
        return noisy

    losses.teacher = lambda noisy, *_: noisy
    for step in range(200):
        losses(model, model, np.array([0, 1]), Draws(2, slice(None), 0, step))
    told = torch.cat(told).float()
    assert torch.allclose(told.mean(0), torch.tensor([0.6, 0.6, 1.0]), atol=0.1)
    assert abs(float(torch.corrcoef(told[:, :2].T)[0, 1])) < 0.2


@pytest.mark.parametrize("values", [{"guidance": 0.5}, {"stations": 1}, {"drop": 2}])
def test_settings_are_refused(values):
    with pytest.raises(ValueError, match=rf"distil.{next(iter(values))} must be in"):
        DistillationOptimization(**values)
