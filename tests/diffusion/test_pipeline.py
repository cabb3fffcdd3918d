# SPDX-License-Identifier: Apache-2.0
"""The pipeline: round trip, batches, seeds, schedulers, LoRA, memory, and what is refused."""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import SimpleNamespace

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
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from tiny_views import SIZE, rows, views

from viewsynth.diffusion import photo, sampling
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

SCHEDULERS = (DDIMScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler, LCMScheduler)


@pytest.fixture(scope="module")
def pipe() -> ViewDiffusionPipeline:
    return tiny.pipeline()


# ---- what it makes -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_row_is_the_same_alone_and_in_a_batch(pipe, kind, guidance):
    mine = replace_scheduler(pipe, kind)
    given = views()
    whole = mine.sample(given, 3, guidance, rows(5), keep_seen=0.5)
    assert whole.shape == (5, 3, *SIZE) and whole.isfinite().all()
    for row in (1, 4):
        alone = mine.sample(given.take(torch.tensor([row])), 3, guidance, rows(1, row), 0.5)
        assert torch.allclose(alone[0], whole[row], atol=1e-4)
        levels = ((alone[0] * 255).round() - (whole[row] * 255).round()).abs()
        assert levels.max() <= 1 and levels.mean() < 1e-3  # where rounding decided


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_with_a_fixed_shape_a_row_has_the_same_bits_alone(pipe, guidance):
    mine, given = replace_scheduler(pipe, LCMScheduler), views(7, 3)
    whole = mine.sample(given, 3, guidance, rows(7), batch=4)
    for row in (0, 2, 6):
        taken = given.take(torch.tensor([row]))
        taken = replace(taken, source=taken.source[taken.person], person=torch.tensor([0]))
        alone = mine.sample(taken, 3, guidance, rows(1, row), batch=4)
        assert torch.equal(alone[0], whole[row])


def replace_scheduler(pipe, kind) -> ViewDiffusionPipeline:
    scheduler = kind.from_config(pipe.scheduler.config)
    return ViewDiffusionPipeline(**{**pipe.components, "scheduler": scheduler})


def test_neither_order_nor_batches_change_a_picture(pipe):
    mine, given = replace_scheduler(pipe, LCMScheduler), views()
    whole = mine.sample(given, 3, 2.0, rows(5))
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = mine.sample(given.take(order), 3, 2.0, [rows(5)[k] for k in order.tolist()])
    assert torch.allclose(turned, whole[order], atol=1e-4)
    parts = mine.sample(given, 3, 2.0, rows(5), batch=2)
    assert torch.allclose(parts, whole, atol=1e-4)


def test_without_an_identity_encoder_null_tokens_stand_in():
    whole = tiny.pipeline()
    made = ViewDiffusionPipeline(whole.vae, whole.unet, whole.conditioner, whole.scheduler, None)
    assert made.sample(views(2), 2, 1.0, rows(2)).isfinite().all()


def test_seeds_decide(pipe):
    given = views(2)
    first = pipe.sample(given, 2, generators=rows(2))
    assert torch.equal(first, pipe.sample(given, 2, generators=rows(2)))
    assert not torch.equal(first, pipe.sample(given, 2, generators=rows(2, 7)))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    unsaid = pipe.sample(given, 2)
    assert torch.equal(torch.get_rng_state(), state)  # the global draws are left alone
    assert torch.equal(unsaid, pipe.sample(given, 2))
    one = [pipe.sample(given, 2, generators=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*one) and not torch.equal(one[0], unsaid)


def test_noise_in_the_steps_comes_from_the_rows(pipe):
    mine, given = replace_scheduler(pipe, LCMScheduler), views(2)
    start = torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    first = mine.sample(given, 3, generators=rows(2), latents=start)
    other = mine.sample(given, 3, generators=rows(2, 7), latents=start)
    assert not torch.allclose(first, other, atol=1e-3)
    once = [mine.sample(given, 1, generators=rows(2, k), latents=start) for k in (0, 7)]
    assert torch.equal(*once)  # one step draws nothing but its start


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_it_may_begin_with_pictures_under_noise(pipe, kind):
    """As few steps as asked for, none of them earlier than the strength; a row hangs on itself."""
    mine, given, times = replace_scheduler(pipe, kind), views(3), []
    start = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    told = {"keep_seen": 0.0, "strength": 0.5}

    def note(_, step, time, state):
        times.append(float(time))

    whole = mine.sample(given, 2, 1.5, rows(3), start=start, callback=note, **told)
    assert len(times) == 2 and max(times) <= 500
    one = torch.tensor([2])
    alone = mine.sample(given.take(one), 2, 1.5, rows(1, 2), start=start[one], **told)
    assert torch.allclose(alone[0], whole[2], atol=1e-4)
    drawn = mine.sample(given, 2, 1.5, rows(3), **told)
    assert torch.equal(
        drawn, mine.sample(given, 2, 1.5, rows(3), start=given.render.clamp(0, 1), **told)
    )
    assert not torch.equal(drawn, whole)
    with pytest.raises(ValueError, match=r"start must be \[3, 3, 64, 32\], got \[1, 3"):
        mine.sample(given, 2, start=start[one], **told)


@pytest.mark.parametrize("kind", (DDIMScheduler, LCMScheduler))
@pytest.mark.parametrize("steps", [1, 3])
def test_who_tells_all_noise_gets_the_start_back(kind, steps):
    """The start lies under the noise that the schedule has at that time, and nothing else."""
    scheduler = kind(
        1000, beta_schedule="scaled_linear", prediction_type="epsilon", clip_sample=False
    )
    start, noise = torch.randn(2, 2, 4, 8, 4, generator=torch.Generator().manual_seed(0))

    def denoise(noisy, time):
        share = scheduler.alphas_cumprod[int(time)]
        return (noisy - share.sqrt() * start) / (1 - share).sqrt()

    found = sampling.run(scheduler, denoise, noise, rows(2), steps, start=start, strength=0.5)
    assert torch.allclose(found, start, atol=1e-3)


def test_guidance_is_one_call_a_step_and_photos_are_encoded_once(pipe, monkeypatch):
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


def test_with_a_fixed_shape_photos_are_not_filled_up_to_it(pipe, monkeypatch):
    calls, encode = [], pipe.vae.encode
    monkeypatch.setattr(
        pipe.vae, "encode", lambda x, *a, **k: calls.append(len(x)) or encode(x, *a, **k)
    )
    pipe.sample(views(5, 2), 1, generators=rows(5), batch=4)
    assert calls == [1, 1, 4, 4]


def test_guidance_leads_away_from_the_prediction_without_the_photo(pipe):
    given, start = views(2), torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(0))
    encoded, time = pipe.encode(given), torch.tensor(999)
    kept = torch.ones(2, 3, dtype=torch.bool)
    without = kept.clone()
    without[:, 0] = False
    with torch.no_grad():
        towards, away = (pipe.predict(start, time, encoded, which) for which in (kept, without))
    wanted = pipe.scheduler.from_config(pipe.scheduler.config)
    wanted.set_timesteps(1)
    wanted = wanted.step(away + 3 * (towards - away), time, start, return_dict=False)[0]
    found = pipe.sample(given, 1, 3.0, rows(2), latents=start, decode=False)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(towards, away, atol=1e-3)


def test_without_geometry_no_rendering_counts(pipe):
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


def test_predict_trains_the_unet_and_the_conditioner_alone():
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


def test_a_batch_that_is_made_again_has_the_same_noise(pipe, monkeypatch):
    mine, given = replace_scheduler(pipe, LCMScheduler), views()
    whole = mine.sample(given, 3, generators=rows(5))
    step = mine.scheduler.step

    def full(output, *rest, **named):
        made = step(output, *rest, **named)
        if len(output) > 2 and mine.scheduler.step_index == 2:  # noise was drawn by then
            raise torch.OutOfMemoryError("full")
        return made

    full.__signature__ = inspect.signature(step)
    monkeypatch.setattr(mine.scheduler, "step", full)
    assert torch.allclose(mine.sample(given, 3, generators=rows(5)), whole, atol=1e-4)


# ---- the call ------------------------------------------------------------------------------------


def call(pipe, **changes):
    given = views(2, 1)
    named = {
        "image": Image.new("RGB", (40, 90), (200, 60, 60)),
        "elevation": 60,
        "azimuth": [0, 180],
        "render": given.render,
        "seen": given.seen,
        "normals": given.normals,
        "num_inference_steps": 2,
    }
    return pipe(**(named | changes))


def test_the_call_gives_what_is_asked_for(pipe):
    made = call(pipe)
    assert [one.size for one in made.images] == [(32, 64)] * 2
    assert made.conditions.camera[:, 2].tolist() == [0, -180]
    tensor = call(pipe, output_type="pt").images
    assert tensor.shape == (2, 3, *SIZE)
    array = call(pipe, output_type="np", return_dict=False)[0]
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    assert np.array_equal(np.asarray(made.images[0]), (array[0] * 255).round().astype(np.uint8))
    assert call(pipe, output_type="latent").images.shape == (2, 4, 16, 8)
    wide = [Image.new("RGB", (90, 60), (9, 90, 9))] * 2  # the crop's own proportions
    assert call(pipe, render=wide).images[0].size == (56, 37)


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
        ({"image": torch.full((1, 3, 64, 32), torch.nan)}, "photo 0 holds NaN"),
        ({"image": torch.zeros(1, 64, 32, 3)}, r"float \[B, 3, H, W\]"),
        ({"image": "person.jpg"}, "must be PIL pictures or a float tensor, got str"),
        ({"image": torch.rand(1, 3, 64, 32) * 255}, "must be in .0, 1.*divide by 255"),
        ({"render": torch.full((2, 3, *SIZE), torch.nan)}, "render of row 0 holds NaN"),
        ({"render": torch.rand(2, 3, *SIZE) * 255}, "must be in .0, 1.*divide by 255"),
        ({"seen": torch.rand(3, 1, *SIZE)}, r"seen must be \[2, 1, 64, 32\], got \[3"),
        ({"seen": None}, "render needs seen and normals"),
        ({"render": None}, "give render too, or neither"),
        ({"distance": -1}, "distance must be in"),
        ({"num_inference_steps": 0}, "num_inference_steps must be in"),
        ({"guidance_scale": -1}, "guidance_scale must be in"),
        ({"keep_seen": 2}, r"keep_seen must be in \[0, 1\], got 2"),
        ({"strength": 0}, r"strength must be in \[0.02, 1\], got 0"),
        ({"strength": 0.02, "num_inference_steps": 21}, "at most 20 at a strength of 0.02"),
        ({"generator": rows(3)}, "expected one or 2"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, r"latents must be \[2, 4, 16, 8\]"),
        ({"output_type": "jpg"}, "output_type must be one of pil, pt"),
    ],
)
def test_bad_input_is_refused_before_anything_is_computed(pipe, monkeypatch, changes, said):
    for part in (pipe.vae, pipe.unet):
        monkeypatch.setattr(part, "forward", None)
    monkeypatch.setattr(pipe.vae, "encode", None)
    monkeypatch.setattr(photo, "_tools", None)
    with pytest.raises(ValueError, match=said):
        call(pipe, **changes)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", [True, False])
def test_a_pipeline_comes_back_from_the_disk(tmp_path, identity):
    mine, given = tiny.pipeline(identity), views(2)
    mine.register_to_config(training="Two random pictures.", licence="Apache-2.0")
    mine.save_pretrained(tmp_path)
    again = ViewDiffusionPipeline.from_pretrained(tmp_path)
    assert torch.equal(mine.sample(given, 2), again.sample(given, 2))
    assert (again.identity_encoder is None) == (not identity)
    assert again.config.training == "Two random pictures." and again.config.licence == "Apache-2.0"
    assert not list(tmp_path.rglob("*.bin"))
    card = (tmp_path / "README.md").read_text("utf-8")
    for said in ("license: apache-2.0", "Two random pictures.", "## Misuse", "64 x 32", "pipe("):
        assert said in card
    assert "{" not in card.replace("{}", "")
    half = ViewDiffusionPipeline.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.unet.dtype == half.conditioner.dtype == torch.bfloat16
    made = half.sample(given, 2)
    assert made.dtype == torch.float32 and (made - mine.sample(given, 2)).abs().mean() < 0.1


def test_the_hub_gets_our_card(monkeypatch):
    sent = {}

    def upload(repo_id, folder_path, **named):
        sent.update(named, repo=repo_id, card=(folder_path / "README.md").read_text("utf-8"))
        sent["files"] = {path.name for path in folder_path.iterdir()}

    monkeypatch.setattr(
        "huggingface_hub.create_repo", lambda repo, **named: SimpleNamespace(repo_id=f"me/{repo}")
    )
    monkeypatch.setattr("huggingface_hub.upload_folder", upload)
    tiny.pipeline().push_to_hub("views", token="t", commit_message="first")
    assert sent["repo"] == "me/views" and sent["token"] == "t"
    assert sent["commit_message"] == "first" and "## Misuse" in sent["card"]
    assert 'from_pretrained("views")' in sent["card"]
    assert {"model_index.json", "unet", "vae", "conditioner", "identity_encoder"} <= sent["files"]


def test_another_scheduler_is_saved(tmp_path):
    mine = replace_scheduler(tiny.pipeline(), LCMScheduler)
    mine.save_pretrained(tmp_path)
    assert isinstance(ViewDiffusionPipeline.from_pretrained(tmp_path).scheduler, LCMScheduler)


def test_lora_is_added_saved_and_loaded(tmp_path):
    mine, given = tiny.pipeline(), views(2)
    plain = mine.sample(given, 2)
    torch.manual_seed(5)
    mine.unet.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "conv_in"], init_lora_weights=False)
    )
    learnt = mine.sample(given, 2)
    layers = get_peft_model_state_dict(mine.unet)
    mine.save_lora_weights(tmp_path, unet_lora_layers=layers)
    other = tiny.pipeline()
    other.load_lora_weights(tmp_path)
    assert torch.allclose(other.sample(given, 2), learnt, atol=1e-5)
    assert not torch.allclose(plain, learnt, atol=1e-3)
    other.unload_lora_weights()
    assert torch.allclose(other.sample(given, 2), plain, atol=1e-5)


# ---- switches ----------------------------------------------------------------------------------


def test_attention_falls_back_to_torchs_own(pipe, caplog):
    if torch.cuda.is_available():
        pytest.skip("this machine may have xformers")
    given = views(1)
    before = pipe.sample(given, 1)
    with caplog.at_level("WARNING"):
        assert pipe.use_attention("xformers") == "sdpa"
    assert "needs CUDA" in caplog.text
    assert torch.allclose(before, pipe.sample(given, 1), atol=1e-5)
    with pytest.raises(ValueError, match="sdpa or xformers"):
        pipe.use_attention("flash")


def test_every_component_has_its_turn_in_offloading():
    mine = tiny.pipeline()
    order = mine.model_cpu_offload_seq.split("->")
    models = {k for k, v in mine.components.items() if isinstance(v, torch.nn.Module)}
    assert set(order) == models
