# SPDX-License-Identifier: Apache-2.0
"""Backbones: tiny random models of `transformers`, saved and loaded by the tests."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from viewsynth.reid import backbones, encoders, pretrained
from viewsynth.reid.osnet import VARIANTS, OSNetConfig, OSNetModel

SIZE = (64, 32)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 16}
VIT = ViTConfig(**SMALL, intermediate_size=64, image_size=48)
EYE = {**SMALL, "intermediate_size": 64, "image_size": 48, "projection_dim": 16}
WORDS = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 50}
DINO = {**SMALL, "image_size": 42, "patch_size": 14, "num_register_tokens": 3}
TOKENS = {  # name: constructor, pooling of `encoders` with the same features
    "vit": (lambda: ViTModel(VIT), "cls"),
    "classifier": (lambda: ViTForImageClassification(VIT), "cls"),
    "clip_vision": (lambda: CLIPVisionModel(CLIPVisionConfig(**EYE)), "pooler"),
    "clip": (
        lambda: CLIPModel(CLIPConfig(text_config=WORDS, vision_config=EYE, projection_dim=16)),
        "",
    ),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**DINO)), "pooler"),
    "registers": (lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**DINO)), "pooler"),
}
PLAIN = {
    "resnet": lambda: ResNetModel(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])
    ),
    "convnext": lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)),
}
OSNET = {"channels": [32, 128, 192, 256], "feature": 32, "pool": [4, 2]}
PLAIN |= {
    f"osnet_{each}": lambda each=each: OSNetModel(OSNetConfig(variant=each, **OSNET))
    for each in VARIANTS
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, make in (TOKENS | PLAIN).items():
        model = (make[0] if name in TOKENS else make)()
        with torch.no_grad():
            for parameter in model.parameters():  # initial norms and scales would hide errors
                parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(folder / name)
        config = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]}
        (folder / name / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


def random_images(size: tuple[int, int] = SIZE, count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [SIZE, (48, 48), (70, 30)])
@pytest.mark.parametrize("name", TOKENS)
def test_equal_to_transformers(saved, name, size):
    backbone = backbones.load(str(saved / name), size).eval()
    assert isinstance(backbone, backbones.TokenBackbone) and backbone.width == 32
    images = (random_images(size) * 255).byte()
    found = backbone(images / 255)
    if pooling := TOKENS[name][1]:
        expected = encoders.load(str(saved / name), size, pooling).encode(images.movedim(1, -1))
    else:  # the vision tower, before the projection to the space of texts
        model = CLIPModel.from_pretrained(saved / name).vision_model.eval()
        pixels = backbone.normalise(images / 255)
        expected = model(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_backbones(saved, name):
    backbone = backbones.load(str(saved / name), SIZE).eval()
    assert not isinstance(backbone, backbones.TokenBackbone) and backbone.width == 32
    images = random_images()
    found = backbone(images)
    torch.testing.assert_close(found[1:2], backbone(images[1:2]), rtol=1e-4, atol=1e-5)
    if name == "convnext":  # a ResNet keeps the resolution of its last stage
        model = ConvNextModel.from_pretrained(saved / name).eval()
        expected = model(backbone.normalise(images)).pooler_output
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_last_stage_keeps_its_resolution():
    backbone = backbones.load("small", (128, 64))
    stages = backbone.model.encoder.stages
    shapes = []
    for stage in stages:
        stage.register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[2:])))
    assert backbone(random_images((128, 64), 2)).shape == (2, 256)
    assert shapes == [(32, 16), (16, 8), (8, 4), (8, 4)]
    assert sum(p.numel() for p in backbone.parameters()) < 1.24e6


@pytest.mark.parametrize("name", [*TOKENS, *PLAIN])
def test_every_trained_parameter_gets_a_gradient(saved, name):
    backbone = backbones.load(str(saved / name), SIZE)
    backbone(random_images()).square().sum().backward()
    without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", [*TOKENS, *PLAIN])
def test_rebuilt_from_its_configuration(saved, name):
    backbone = backbones.load(str(saved / name), SIZE).eval()
    assert str(saved) not in json.dumps(backbone.config)
    config = json.loads(json.dumps(backbone.config))
    again = backbones.rebuild(config, backbone.size, backbone.mean, backbone.std).eval()
    again.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(again(random_images()), backbone(random_images()))
    assert (again.kind, again.config) == (backbone.kind, backbone.config)


@pytest.mark.parametrize("name", [*TOKENS, *PLAIN])
def test_frozen_batch_norms_stay_as_they_are(saved, name):
    one = backbones.load(str(saved / name), SIZE)
    trained = [key for key, p in one.named_parameters() if p.requires_grad]
    one.freeze_norms()
    batch_norms = ("resnet", "osnet_plain", "osnet_ibn", "osnet_ain")
    assert any("running" in key for key in one.state_dict()) == (name in batch_norms)
    both = [copy.deepcopy(one), nn.ModuleDict({"backbone": one})]  # a moving average; a method
    for model in (*both, both[1].train()):
        model.eval().train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        loss = model.backbone(random_images()) if model is both[1] else model(random_images())
        loss.square().sum().backward()
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
        after = model.state_dict()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        owners = [model.get_submodule(key.rpartition(".")[0]) for key in changed]
        assert changed and all(owner.training for owner in owners)
        assert not any("running" in key or "num_batches" in key for key in changed)
    left = [key for key, p in one.named_parameters() if p.requires_grad]
    frozen = {key.rpartition(".")[0] for key in set(trained) - set(left)}
    assert all(
        isinstance(one.get_submodule(key), nn.BatchNorm2d | nn.BatchNorm1d) for key in frozen
    )
    assert bool(frozen) == (name in batch_norms)


def test_extra_tokens_follow_the_class_token(saved):
    backbone = backbones.load(str(saved / "registers"), SIZE).eval()
    plain = backbone.embed(random_images())
    extra = torch.full((1, 2, 32), 7.0)
    more = backbone.embed(random_images(), extra)
    assert plain.shape == (4, 1 + 3 + 4 * 2, 32) and more.shape == (4, 14, 32)
    torch.testing.assert_close(more[:, [0, *range(3, 14)]], plain)
    torch.testing.assert_close(more[:, 1:3], extra.expand(4, -1, -1))


def test_weights_from_scratch_depend_on_the_seed_only():
    before = torch.get_rng_state()
    first, again, other = (backbones.load("small", (32, 16), seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [torch.cat([p.flatten() for p in b.parameters()]) for b in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert first.mean == (0.485, 0.456, 0.406) and first.loaded == ""


def test_report_of_loaded_weights(saved, tmp_path):
    report = backbones.load(str(saved / "classifier"), SIZE).loaded
    assert report.startswith("classifier: ") and "WARNING" not in report
    assert "without pooler.dense.bias" in report and "not used: classifier.bias" in report
    total = len(ViTModel(VIT).state_dict())
    assert f"{total - 2} of {total} weights" in report
    ViTModel(VIT).save_pretrained(tmp_path / "new")
    assert "it looks untrained" in pretrained.loading_report(pretrained.load(str(tmp_path / "new")))


def test_checkpoints_that_do_not_match(saved, tmp_path):
    weights = load_file(saved / "resnet" / "model.safetensors")
    folder = tmp_path / "resnet"
    folder.mkdir()
    (folder / "config.json").write_bytes((saved / "resnet" / "config.json").read_bytes())
    weights["module.embedder.bias"] = weights.pop("embedder.embedder.normalization.bias")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="model.backbone: .* leaves 1 weights of the resnet"):
        backbones.load(str(folder), SIZE)
    with pytest.raises(ValueError, match=r"model.backbone: .*vit cannot be used: .*8 x 32 pixels"):
        backbones.load(str(saved / "vit"), (8, 32))
    with pytest.raises(
        FileNotFoundError, match="hf download no/such/model --local-dir .*--model.backbone"
    ):
        backbones.load("no/such/model", SIZE)


@pytest.mark.parametrize("name", TOKENS)
def test_the_last_block_can_compute_its_first_tokens_only(saved, name):
    last = backbones.load(str(saved / name), SIZE).blocks[-1]
    assert last.reducible, "a part of the block was not found, so it is computed in full"
    tokens = torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for count in (1, 2):
        gradients = []
        for found in (last(tokens)[:, :count], last(tokens, count)):
            weight = torch.linspace(-1, 1, found.numel()).view_as(found)
            parts = [tokens, *last.parameters()]
            gradients.append([found, *torch.autograd.grad((found * weight).sum(), parts)])
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("option", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_a_last_block_with_dropout_is_computed_in_full(option):
    config = ViTConfig(**SMALL, intermediate_size=64, image_size=48, **{option: 0.2})
    backbone = backbones.rebuild(config.to_dict(), SIZE, (0.5,) * 3, (0.5,) * 3)
    assert not backbone.blocks[-1].reducible
    assert backbone.blocks[-1](torch.zeros(1, 5, 32), 2).shape == (1, 2, 32)


def test_the_small_vit_has_a_convolutional_stem():
    body = backbones.load("small_vit", (128, 64))
    assert isinstance(body, backbones.TokenBackbone) and body.places.shape == (
        1,
        1 + 8 * 4,
        body.width,
    )
    assert 2.8e6 < sum(p.numel() for p in body.parameters()) < 3.0e6
    tokens = body.embed(random_images((128, 64)))
    assert tokens.shape == (4, 33, body.width)
    strides = [m.stride[0] for m in body.patches.modules() if isinstance(m, torch.nn.Conv2d)]
    assert strides == [2, 2, 2, 2, 1]
    again = backbones.rebuild(body.config, body.size, body.mean, body.std)
    again.load_state_dict(body.state_dict())
    images = random_images((128, 64))
    torch.testing.assert_close(again.eval()(images), body.eval()(images))


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_overlapping_patches(saved, name):
    """With patches at multiples of 12 pixels: equal to a convolution with that stride."""
    backbone = backbones.load(str(saved / name), (64, 40), stride=12)
    assert backbone.grid == (5, 3) and backbone.places.shape[1] == 16
    pixels = backbone.normalise(random_images((64, 40)))
    weights, bias = backbone.patches.weight, backbone.patches.bias
    cut = pixels[:, :, 24:40, 12:28]  # the patch in row 2 and column 1
    expected = torch.einsum("bchw,dchw->bd", cut, weights) + (0 if bias is None else bias)
    torch.testing.assert_close(backbone.patches(pixels)[:, :, 2, 1], expected, rtol=1e-3, atol=1e-4)
    again = backbones.rebuild(backbone.config, (64, 40), backbone.mean, backbone.std)
    again.load_state_dict(backbone.state_dict())
    images = random_images((64, 40))
    torch.testing.assert_close(again.eval()(images), backbone.eval()(images))
    assert backbones.load(str(saved / name), (64, 40)).grid == (4, 2)


def test_patches_that_cannot_overlap(saved):
    for name, stride in (("vit", 17), ("resnet", 8)):
        with pytest.raises(ValueError, match=f"model.stride must be from 1 .* got {stride}"):
            backbones.load(str(saved / name), SIZE, stride=stride)
    with pytest.raises(ValueError, match="the patches of small_vit cannot overlap"):
        backbones.load("small_vit", SIZE, stride=8)
