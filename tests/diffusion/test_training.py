# SPDX-License-Identifier: Apache-2.0
"""Training of the diffusion: weights, targets, what learns, and that a stop changes nothing."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_pairs as tiny
import torch
from accelerate import Accelerator
from diffusers import DDIMScheduler

from viewsynth.diffusion import training
from viewsynth.diffusion.latents import Latents, held_out, mirrored
from viewsynth.diffusion.noise import Noise
from viewsynth.diffusion.options import DiffusionOptimization
from viewsynth.training import checkpoints, loop
from viewsynth.training.average import Average
from viewsynth.training.loop import Run
from viewsynth.training.options import Optimization
from viewsynth.training.rows import Draws, Plan, RowTask

FAST = DiffusionOptimization(steps=8, batch=4, rate=3e-3, warmup=0, average=0.5, drop=(0, 0, 0))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return tiny.write_pairs(tmp_path_factory.mktemp("pairs") / "two")


def latents_of(pipeline, pairs, mirror=True) -> Latents:
    return Latents(pipeline, pairs, list(range(len(pairs))), mirror)


def trained(pairs, run, settings=FAST, kind="v_prediction", every=100, rank=0, **more):
    pipeline = tiny.pipeline(kind)
    training.prepare(pipeline, rank)
    found = latents_of(pipeline, pairs)
    session = Run(run, Accelerator(cpu=True), every, **more)
    return training.train(pipeline, found, settings, 0, session), found


def weights(pipeline) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name in ("unet", "conditioner")
        for key, value in getattr(pipeline, name).state_dict().items()
    }


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ---- the noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [  # SNR 9, 5, 1, 1/9: by hand
        ("epsilon", [5 / 9, 1, 1, 1]),
        ("v_prediction", [5 / 10, 5 / 6, 1 / 2, 0.25]),  # the last would be 0.1
    ],
)
def test_min_snr_weights(kind, expected):
    alpha = torch.tensor([0.9, 5 / 6, 0.5, 0.1])
    noise = Noise(
        SimpleNamespace(alphas_cumprod=alpha, config=SimpleNamespace(prediction_type=kind))
    )
    assert torch.allclose(noise.weight(torch.arange(4), 5), torch.tensor(expected), atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_is_that_of_the_scheduler(kind):
    scheduler = tiny.pipeline(kind).scheduler
    noise, draw = Noise(scheduler), torch.Generator().manual_seed(0)
    clean, some = torch.randn(2, 3, 4, 8, 4, generator=draw)
    time = torch.tensor([0, 400, 990])
    noisy = noise.add(clean, some, time)
    assert torch.allclose(noisy, scheduler.add_noise(clean, some, time), atol=1e-6)
    wanted = noise.wanted(clean, some, time)
    if kind == "v_prediction":
        assert torch.allclose(wanted, scheduler.get_velocity(clean, some, time), atol=1e-6)
    again = noise.split(noisy, wanted, time)
    assert torch.allclose(again[0], clean, atol=1e-3) and torch.allclose(again[1], some, atol=1e-3)


def test_pure_noise_has_a_weight_and_needs_v():
    noise = Noise(tiny.pipeline().scheduler)
    assert float(noise.alpha[-1]) < 1e-6 and float(noise.weight(torch.tensor([999]), 5)) > 0
    ratio = noise.alpha[0] / (1 - noise.alpha[0])
    assert torch.isclose(noise.weight(torch.tensor([0]), 5), 5 / (ratio + 1)).all()  # not lifted
    config = {**tiny.pipeline().scheduler.config, "prediction_type": "epsilon"}
    with pytest.raises(ValueError, match="must be v_prediction"):
        Noise(DDIMScheduler.from_config(config))


# ---- batches and draws ---------------------------------------------------------------------------


def test_batches_see_every_row_once_an_epoch():
    plan = Plan(Optimization(batch=3), 5, 0, str)
    rows = np.concatenate([plan.batch(step) for step in range(5)])
    assert all(sorted(rows[k : k + 5]) == list(range(5)) for k in (0, 5, 10))
    assert np.array_equal(plan.batch(3), Plan(Optimization(batch=3), 5, 0, str).batch(3))
    assert not np.array_equal(
        rows,
        np.concatenate([Plan(Optimization(batch=3), 5, 1, str).batch(step) for step in range(5)]),
    )


def test_draws_of_a_part_are_those_of_the_whole():
    whole, part = Draws(6, slice(None), 0, "step", 1), Draws(6, slice(2, 4), 0, "step", 1)
    for one, other in (
        (whole.spread(), part.spread()),
        (whole.normal(2), part.normal(2)),
        (whole.uniform(), part.uniform()),
    ):
        assert torch.equal(one[2:4], other)
    assert torch.allclose(
        Draws(4, slice(None), 0).spread().sort().values.diff(), torch.tensor(0.25)
    )


def test_a_looking_glass(two):
    conditions, target, mask = two.batch([0, 1])
    one, far, share = mirrored(conditions, target, mask)
    assert torch.equal(one.camera[:, 2], -conditions.camera[:, 2])
    assert torch.equal(one.normals[:, 0], -conditions.normals[:, 0].flip(-1))
    assert torch.equal(one.normals[:, 1:], conditions.normals[:, 1:].flip(-1))
    assert torch.equal(far, target.flip(-1)) and torch.equal(one.seen, conditions.seen.flip(-1))
    assert torch.equal(share, mask.flip(-1)) and not torch.equal(share, mask)
    back, near, _ = mirrored(one, far, share)
    assert torch.equal(near, target)
    assert all(torch.equal(getattr(back, k), v) for k, v in vars(conditions).items())


def test_latents_are_what_the_pipeline_encodes(two):
    pipeline = tiny.pipeline()
    training.prepare(pipeline)
    encoded, target, exact = latents_of(pipeline, two).take(np.array([3, 0]))
    conditions, picture, _ = two.batch([0])
    direct = pipeline.encode(conditions)
    assert exact.tolist() == [False, True]
    assert torch.allclose(target[1:], pipeline.to_latents(picture), atol=1e-3)
    for name in ("source", "identity", "render", "seen", "normals", "camera"):
        values = getattr(encoded, name)
        assert torch.allclose(values[1:], getattr(direct, name), atol=2e-3), name
    assert encoded.person.tolist() == [0, 1]


# ---- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_few_steps_lower_the_loss(two, tmp_path, kind):
    start = tiny.pipeline(kind)
    training.prepare(start)
    held = latents_of(start, two)
    before = training.check(start, held, FAST, 0)
    assert training.check(start, held, FAST, 0) == before
    settings = replace(FAST, steps=60, average=0.9)
    after = training.check(trained(two, tmp_path / "run", settings, kind)[0], held, FAST, 0)
    assert after < 0.8 * before


@pytest.mark.parametrize("rank", [0, 2])
def test_resumed_equals_undisturbed(two, tmp_path, rank):
    asked = replace(FAST, drop=(0.3, 0.3, 0.3))
    whole, _ = trained(two, tmp_path / "one", asked, rank=rank)

    def stop(step, figures):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(two, tmp_path / "two", asked, every=3, rank=rank, report=stop)
    assert checkpoints.newest(tmp_path / "two").name == "checkpoint-6"
    again, _ = trained(two, tmp_path / "two", asked, every=3, rank=rank)
    assert same(weights(whole), weights(again))
    third, _ = trained(two, tmp_path / "two", asked, every=3, rank=rank)  # nothing is left to do
    assert same(weights(whole), weights(third))


def test_accumulated_parts_are_one_batch(two, tmp_path):
    asked = replace(FAST, steps=3, average=0.0)
    one, _ = trained(two, tmp_path / "one", asked)
    parts, _ = trained(two, tmp_path / "two", replace(asked, parts=2))
    for (key, a), b in zip(weights(one).items(), weights(parts).values(), strict=True):
        # The mean: where a gradient is next to nothing, Adam's step is as long, whatever its sign.
        apart = (a - b).abs()
        assert float(apart.mean()) < 1e-5 < asked.rate / 100, key
        assert float((apart > 2e-4).float().mean()) < 1e-2, key


def test_another_model_is_not_gone_on_with(two, tmp_path):
    trained(two, tmp_path / "run")
    with pytest.raises(ValueError, match="is of another model"):
        trained(two, tmp_path / "run", rank=2)


def test_a_loss_that_is_no_number_stops_and_names_the_pairs(two, tmp_path):
    pipeline = tiny.pipeline()
    training.prepare(pipeline)
    bad = latents_of(pipeline, two)
    bad.target[1] = math.nan
    with pytest.raises(loop.DivergedError, match="step 0 is not finite .*pair 1 .1, identity"):
        training.train(pipeline, bad, FAST, 0, Run(tmp_path, Accelerator(cpu=True)))
    assert len(json.loads((tmp_path / "diverged.json").read_text())["pairs"]) == 4
    assert checkpoints.newest(tmp_path).name == "checkpoint-0"


def test_the_average_lags_behind_and_shares_what_is_frozen(two, tmp_path):
    pipeline = tiny.pipeline()
    training.prepare(pipeline, rank=2)
    model = training.Denoiser(pipeline)
    average = Average(model, 0.9)
    base = dict(average.model.unet.named_parameters())
    for name, value in pipeline.unet.named_parameters():
        assert (base[name] is value) != value.requires_grad
    assert average.model.pipeline.vae is pipeline.vae
    assert average.model.pipeline.unet is average.model.unet is not pipeline.unet


def test_the_person_weighs_more_than_the_ground(two):
    found = latents_of(tiny.pipeline(), two)
    found.mask[:] = 0
    found.mask[:, :, 2:6] = 1
    weights = found.shares(np.array([0, 3]), 0.25)
    assert torch.allclose(weights.mean((1, 2, 3)), torch.ones(2))
    assert torch.allclose(weights[:, :, 2] / weights[:, :, 0], torch.tensor(4.0))
    found.mask[:] = 1  # nobody knows where the person is
    assert torch.equal(found.shares(np.array([0]), 0.25), torch.ones_like(weights[:1]))


def test_exact_pairs_keep_their_geometry_and_others_lose_it_in_noise(two):
    pipeline = tiny.pipeline()
    training.prepare(pipeline)
    found = latents_of(pipeline, two)
    losses, seen = training.Denoising(pipeline, found, FAST), {0: [], 1: []}

    def model(noisy, time, encoded, kept):
        for row, (when, flags) in enumerate(zip(time.tolist(), kept.tolist(), strict=True)):
            assert flags[0] and flags[2]
            seen[row % 2].append((when, flags[1]))
        return noisy

    for step in range(100):
        losses(model, None, np.array([0, 1, 2, 3]), Draws(4, slice(None), 0, step))
    assert all(kept for _, kept in seen[0])
    late = [kept for when, kept in seen[1] if when > 800]
    early = [kept for when, kept in seen[1] if when < 100]
    assert np.mean(late) < 0.1 and np.mean(early) > 0.9


# ---- LoRA ----------------------------------------------------------------------------------------


def test_a_lora_trains_only_itself_and_the_conditioner(two, tmp_path):
    before = weights(tiny.pipeline())
    made, _ = trained(two, tmp_path / "run", rank=2)
    after = weights(made)
    changed = {key for key in before if key in after and not torch.equal(before[key], after[key])}
    assert changed and all(key.startswith("conditioner.") for key in changed)
    lora = {key for key in after if "lora_" in key}
    assert any("conv_in" in key for key in lora) and any("to_q" in key for key in lora)
    assert any(after[key].abs().max() > 0 for key in lora if "lora_B" in key)
    names = {name for name, p in training.Denoiser(made).named_parameters() if p.requires_grad}
    assert all("lora_" in name or name.startswith("conditioner.") for name in names)


def test_a_lora_is_saved_loaded_and_merged(two, tmp_path):
    made, found = trained(two, tmp_path / "run", rank=2)
    encoded, noisy, _ = found.take(np.array([0, 1]))
    kept, time = torch.ones(2, 3, dtype=torch.bool), torch.tensor([500, 900])
    with torch.no_grad():
        asked = made.predict(noisy, time, encoded, kept)
        training.save_lora(made, tmp_path / "lora")
        other = tiny.pipeline()
        plain = copy.deepcopy(other).predict(noisy, time, encoded, kept)
        other.load_lora_weights(tmp_path / "lora")
        kind = type(other.conditioner)
        other.conditioner = kind.from_pretrained(tmp_path / "lora" / "conditioner")
        assert not torch.allclose(plain, asked, atol=1e-4)
        assert torch.allclose(other.predict(noisy, time, encoded, kept), asked, atol=1e-5)
        training.merge_lora(made)
        assert torch.allclose(made.predict(noisy, time, encoded, kept), asked, atol=1e-5)
    assert weights(made).keys() == weights(tiny.pipeline()).keys()


def test_checkpointed_activations_give_the_same_weights(two, tmp_path):
    one, _ = trained(two, tmp_path / "one", replace(FAST, steps=3))
    pipeline = tiny.pipeline()
    training.prepare(pipeline, checkpointing=True)
    session = Run(tmp_path / "two", Accelerator(cpu=True))
    latents = latents_of(pipeline, two)
    two_ = training.train(pipeline, latents, replace(FAST, steps=3), 0, session)
    for (key, a), b in zip(weights(one).items(), weights(two_).values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), key


# ---- who is held out -----------------------------------------------------------------------------


def test_people_are_held_out_whole(tmp_path):
    pairs = tiny.write_pairs(tmp_path / "more", people=6, each=3)
    learnt, held = held_out(pairs, 0.3, 0)
    assert sorted(learnt + held) == list(range(18)) and len(held) == 6
    assert not {pairs.rows[k]["pid"] for k in learnt} & {pairs.rows[k]["pid"] for k in held}
    assert held_out(pairs, 0.3, 0) == (learnt, held)
    assert held_out(pairs, 0.0, 0) == (list(range(18)), [])
    pairs.rows[0]["split"] = "test"
    assert 0 not in sum(held_out(pairs, 0.3, 0), [])
    with pytest.raises(ValueError, match="leaves nobody"):
        held_out(tiny.write_pairs(tmp_path / "one", people=1), 0.3, 0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch": 0}, r"optim.batch must be in \[1"),
        ({"batch": 6, "parts": 4}, "optim.batch must be a multiple of optim.parts"),
        ({"drop": (0.1, 2, 0)}, r"optim.drop must be in \[0, 1\]"),
        ({"gamma": 0}, "optim.gamma must be in"),
        ({"average": 1.0}, "optim.average must be in"),
    ],
)
def test_settings_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        DiffusionOptimization(**values)


def test_parts_that_processes_cannot_share(two, tmp_path):
    asked = SimpleNamespace(num_processes=2, process_index=0, gradient_accumulation_steps=1)

    def task(settings):
        return RowTask(Plan(settings, 2, 0, str), None)

    with pytest.raises(ValueError, match="optim.batch must be a multiple of 2"):
        loop._own_parts(task(replace(FAST, batch=3)), asked)
    assert loop._own_parts(task(FAST), asked) == [slice(0, 2)]
