# SPDX-License-Identifier: Apache-2.0
"""Adapting and loading: Stable Diffusion weights, bad input, the small model, identity encoders."""

from __future__ import annotations

import json

import pytest
import tiny_views as tiny
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from tiny_views import SIZE, views

from viewsynth.diffusion import adapt, loading
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline
from viewsynth.diffusion.training import Noise


@pytest.fixture
def base(tmp_path):
    """A folder like that of Stable Diffusion, with small random weights."""
    torch.manual_seed(0)
    unet = tiny.unet()
    unet.save_pretrained(tmp_path / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=32,
    ).save_pretrained(tmp_path / "vae")
    DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False).save_pretrained(
        tmp_path / "scheduler"
    )
    return tmp_path


def test_an_adapted_model_predicts_as_its_base(base):
    mine = adapt.adapt(base, size=SIZE, licence="OpenRAIL")
    assert mine.scheduler.config.prediction_type == "epsilon"
    assert mine.conditioner.config.cross_attention_dim == 24
    given = views(2)
    encoded = mine.encode(given)
    noisy = torch.randn(2, 4, 32, 16, generator=torch.Generator().manual_seed(0))
    kept = torch.ones(2, 3, dtype=torch.bool)
    with torch.no_grad():
        found = mine.predict(noisy, torch.tensor([5, 900]), encoded, kept)
        context = mine.conditioner.tokens(encoded.camera, encoded.identity[encoded.person], kept)
        wanted = base_from(base)(noisy, torch.tensor([5, 900]), context).sample
    assert torch.allclose(found, wanted, atol=1e-5)
    assert mine.sample(given, 2).shape == (2, 3, *SIZE)


def base_from(folder) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet")


def rename(folder, old: str, new: str) -> None:
    file = next(folder.glob("*.safetensors"))
    weights = {key.replace(old, new): value for key, value in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})


def test_weights_of_another_architecture_are_refused(base):
    rename(base / "unet", "mid_block", "middle")
    with pytest.raises(ValueError, match="missing: mid_block.*unexpected: middle"):
        adapt.adapt(base, size=SIZE)


def test_weights_of_other_shapes_are_refused(base):
    config = json.loads((base / "unet" / "config.json").read_text())
    (base / "unet" / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 32}))
    with pytest.raises(ValueError, match="cannot be loaded as a UNet2D.*attn2"):
        adapt.adapt(base, size=SIZE)


def test_another_pipeline_is_refused(base, tmp_path):
    with pytest.raises(FileNotFoundError, match="no model_index.json"):
        ViewDiffusionPipeline.from_pretrained(base)
    (base / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="holds a StableDiffusionPipeline.*train-diffusion"):
        ViewDiffusionPipeline.from_pretrained(base)
    (base / "unet" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    with pytest.raises(ValueError, match="holds a FluxTransformer2DModel; expected a UNet2D"):
        adapt.adapt(base, size=SIZE)


def test_a_saved_pipeline_with_foreign_weights_is_refused(tmp_path):
    tiny.pipeline().save_pretrained(tmp_path)
    rename(tmp_path / "conditioner", "no_camera", "camera_null")
    with pytest.raises(ValueError, match="missing: no_camera.*unexpected: camera_null"):
        ViewDiffusionPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("load", [adapt.adapt, ViewDiffusionPipeline.from_pretrained])
def test_without_a_network_the_error_says_what_to_do(load, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="hf download nobody/nothing --local-dir DIR"):
        load("nobody/nothing")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load(tmp_path / "absent")


def test_one_variant_of_a_model_on_the_hub_is_fetched(base, monkeypatch):
    """No unused files are fetched, but those that only our pipelines have are."""
    there = [
        f"{part}/{name}"
        for part in ("unet", "vae", "text_encoder", "conditioner", "identity_encoder")
        for name in (
            "config.json",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.fp16.safetensors",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.non_ema.safetensors",
            "diffusion_pytorch_model.bin",
        )
    ]
    asked = []

    def fetched(repo, allow_patterns, **hub):
        asked.append(set(filter_repo_objects(there, allow_patterns=allow_patterns)))
        return str(base)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    adapt.adapt("owner/name", size=SIZE)
    wanted = ("model.safetensors", "of-00002.safetensors")
    (files,) = asked
    assert files == {
        name
        for name in there
        if name.endswith(".json") or (not name.startswith("text") and name.endswith(wanted))
    }
    half = set(filter_repo_objects(there, allow_patterns=loading.files("fp16")))
    assert {name for name in half if name.endswith(".safetensors")} == {
        f"{part}/diffusion_pytorch_model.fp16.safetensors" for part in loading.PARTS
    }


def test_the_size_must_be_a_multiple(base):
    with pytest.raises(ValueError, match="size must be multiples of 4"):
        adapt.adapt(base, size=(62, 33))


def test_the_size_of_the_small_model_must_be_a_multiple():
    with pytest.raises(ValueError, match="multiples of 16 pixels"):
        adapt.small(size=(120, 60))


def test_pickles_are_refused(base):
    file = next((base / "vae").glob("*.safetensors"))
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match="no safetensors, only .*bin; pickles"):
        adapt.adapt(base, size=SIZE)


def test_the_small_model_fits_the_package():
    parts = adapt.small()
    models = [part for part in parts.values() if hasattr(part, "parameters")]
    assert sum(p.numel() for part in models for p in part.parameters()) <= 12e6
    held = sum(v.numel() for part in models for v in part.state_dict().values())
    assert 2 * held < 24e6 - 200_000  # half precision, and space for names
    again, other = adapt.small(), adapt.small(1)
    assert torch.equal(parts["unet"].conv_out.weight, again["unet"].conv_out.weight)
    assert not torch.equal(parts["unet"].conv_out.weight, other["unet"].conv_out.weight)
    assert ViewDiffusionPipeline(**parts).latent_shape == (8, 32, 16)


def test_the_small_autoencoder_initially_reproduces_mean_colours():
    vae = adapt.small()["vae"]
    small = torch.rand(2, 3, 8, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(small.repeat_interleave(4, 2).repeat_interleave(4, 3)).latents
        made = vae.decode(latents).sample
    assert latents.shape == (2, 8, 8, 4)
    assert torch.allclose(latents[:, :3], small / 2 * adapt.COLOUR, atol=1e-4)
    cells = torch.nn.functional.avg_pool2d(made, 4)
    assert (cells - small).abs().max() < 0.1  # the decoder bounds latents
    assert torch.allclose(made, cells.repeat_interleave(4, 2).repeat_interleave(4, 3), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_the_schedule_of_the_small_model_ends_without_noise(steps):
    scheduler = adapt.small()["scheduler"]
    scheduler.set_timesteps(steps)
    noise, draw = Noise(scheduler), torch.Generator().manual_seed(0)
    clean, latents = torch.randn(2, 1, 4, 8, 4, generator=draw)
    for time in scheduler.timesteps:
        signal, sigma = noise.scales(time[None])
        perfect = noise.wanted(clean, (latents - signal * clean) / sigma, time[None])
        latents = scheduler.step(perfect, time, latents).prev_sample
    assert torch.allclose(latents, clean, atol=1e-3)


# ---- identity encoders ---------------------------------------------------------------------------


@pytest.mark.parametrize("pooler", [True, False])
def test_a_vision_model_as_identity_encoder(tmp_path, pooler):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
    )
    model = ViTModel(config, add_pooling_layer=pooler).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    encoder = adapt.identity_encoder(tmp_path)
    assert encoder.dim == 16 and encoder.config.mean == (0.5, 0.5, 0.5)
    photos = torch.rand(2, 3, 32, 32)
    std = torch.tensor(encoder.config.std)[:, None, None]
    with torch.no_grad():
        said = model((photos - 0.5) / std)
        wanted = said.pooler_output if pooler else said.last_hidden_state[:, 0]
        assert torch.allclose(encoder(photos), wanted, atol=1e-5)


def test_the_backbone_of_the_reid_trainer_as_identity_encoder(tmp_path):
    from viewsynth.reid import backbones, methods, saved

    backbone = backbones.load("small", (64, 32), 3)
    method = methods.build("baseline", backbone, 4)
    saved.save(method, tmp_path, {})
    encoder, photos = adapt.identity_encoder(tmp_path), torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(encoder(photos), method.eval().backbone(photos), atol=1e-5)
    assert adapt.small(identity=encoder)["conditioner"].config.identity_dim == 256
    rename(tmp_path, "backbone.model", "backbone.net")
    with pytest.raises(ValueError, match="cannot be an identity encoder"):
        adapt.identity_encoder(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="no config.json"):
        adapt.identity_encoder(tmp_path)
