# SPDX-License-Identifier: Apache-2.0
"""Encoders: tiny random models of `transformers`, saved and loaded by the tests."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from viewsynth.reid import encoders

SIZE = (64, 32)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
VIT = ViTConfig(**SMALL, intermediate_size=64, image_size=32, patch_size=16)
EYE = {**SMALL, "intermediate_size": 64, "image_size": 32, "patch_size": 16, "projection_dim": 16}
WORDS = {**SMALL, "intermediate_size": 64, "vocab_size": 50}
CLIP = CLIPConfig(text_config=WORDS, vision_config=EYE, projection_dim=16)
MODELS = {  # name: constructor, pooling that "auto" chooses, length of a feature
    "vit": (lambda: ViTModel(VIT), "pooler", 32),
    "classifier": (lambda: ViTForImageClassification(VIT), "cls", 32),  # it has no pooler
    "dinov2": (
        lambda: Dinov2Model(Dinov2Config(**SMALL, image_size=28, patch_size=14)),
        "pooler",
        32,
    ),
    "clip_vision": (lambda: CLIPVisionModel(CLIPVisionConfig(**EYE)), "pooler", 32),
    "clip": (lambda: CLIPModel(CLIP), "pooler", 16),
    "resnet": (
        lambda: ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])),
        "pooler",
        32,
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, (make, _, _) in MODELS.items():
        make().save_pretrained(folder / name)
    return folder


@pytest.fixture
def vit(saved, tmp_path):
    """A copy to change."""
    return shutil.copytree(saved / "vit", tmp_path / "vit")


def random_images(count: int = 5) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", MODELS)
def test_a_row_depends_on_its_image_only(saved, name):
    encoder = encoders.load(str(saved / name), SIZE)
    _, pooling, length = MODELS[name]
    assert (encoder.name, encoder.pooling) == (name, pooling)
    images = random_images()
    rows = encoder.encode(images)
    assert rows.shape == (5, length) and rows.dtype == torch.float32
    alone = torch.cat([encoder.encode(image[None]) for image in images])
    torch.testing.assert_close(rows, alone, rtol=1e-4, atol=1e-5)
    assert (rows[0] - rows[1]).abs().max() > 1e-3  # features do depend on the image


def test_features_with_the_mirror_image(saved):
    images = random_images()
    plain = encoders.load(str(saved / "vit"), SIZE)
    both = encoders.load(str(saved / "vit"), SIZE, flip=True)
    expected = plain.encode(images) + plain.encode(images.flip(2))
    torch.testing.assert_close(both.encode(images), expected)
    assert both.fingerprint != plain.fingerprint


def test_equal_to_transformers(saved):
    model = ViTModel.from_pretrained(saved / "vit").eval()
    images = random_images()
    pixels = (images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        output = model(pixels, interpolate_pos_encoding=True)
    last = output.last_hidden_state  # a class token and 4 x 2 patches
    assert last.shape[1] == 9
    for pooling, expected in (
        ("cls", last[:, 0]),
        ("mean", last[:, 1:].mean(1)),
        ("pooler", output.pooler_output),
    ):
        found = encoders.load(str(saved / "vit"), SIZE, pooling).encode(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pooler_without_weights_is_not_used(saved):
    path = str(saved / "classifier")
    first, again = encoders.load(path, SIZE), encoders.load(path, SIZE)
    assert torch.equal(first.encode(random_images()), again.encode(random_images()))
    assert first.fingerprint == again.fingerprint
    with pytest.raises(ValueError, match="model.pooling: classifier has no output 'pooler'"):
        encoders.load(path, SIZE, "pooler")


def test_fingerprint_depends_on_what_changes_features(saved, vit):
    marks = {
        encoders.load(str(vit), size, pooling).fingerprint
        for size, pooling in ((SIZE, "cls"), (SIZE, "mean"), ((32, 32), "cls"))
    }
    assert encoders.load(str(saved / "vit"), SIZE, "cls").fingerprint in marks
    weights = load_file(vit / "model.safetensors")
    weights["layernorm.bias"][0] += 1e-3
    save_file(weights, vit / "model.safetensors", {"format": "pt"})
    marks.add(encoders.load(str(vit), SIZE, "cls").fingerprint)
    (vit / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.5, 0.6]}))
    marks.add(encoders.load(str(vit), SIZE, "cls").fingerprint)
    assert len(marks) == 5


@pytest.mark.parametrize(
    ("config", "mean", "std"),
    [
        ({"image_mean": [0.4, 0.5, 0.6], "image_std": 0.2}, (0.4, 0.5, 0.6), (0.2,) * 3),
        ({"do_normalize": False, "image_mean": [0.4] * 3}, (0.0,) * 3, (1.0,) * 3),
        ({}, (0.5,) * 3, (0.5,) * 3),
    ],
)
def test_normalisation_of_the_model(vit, config, mean, std):
    (vit / "preprocessor_config.json").write_text(json.dumps(config))
    encoder = encoders.load(str(vit), SIZE)
    assert (encoder.mean, encoder.std) == (mean, std)


def test_missing_weights_are_named(vit):
    weights = load_file(vit / "model.safetensors")
    weights["backbone.bias"] = weights.pop("layernorm.bias")  # prefix of other software
    save_file(weights, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights.*layernorm.bias; it has.*backbone.bias; save"):
        encoders.load(str(vit), SIZE)


def test_weights_of_another_shape(vit):
    weights = load_file(vit / "model.safetensors")
    weights["layernorm.bias"] = torch.zeros(7)
    save_file(weights, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="cannot be loaded as a vision model"):
        encoders.load(str(vit), SIZE)


def test_folders_that_are_not_models(saved, vit, tmp_path):
    (vit / "model.safetensors").rename(vit / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickles are not read.*save_pretrained"):
        encoders.load(str(vit))
    (vit / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="must hold config.json and model.safetensors"):
        encoders.load(str(vit))
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder"):
        encoders.load(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
        encoders.load(str(saved / "vit" / "config.json"))
    with pytest.raises(FileNotFoundError, match="hf download no/such/model --local-dir DIR"):
        encoders.load("no/such/model")
    BertModel(BertConfig(**WORDS)).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="a bert model, which does not take images"):
        encoders.load(str(tmp_path / "bert"))
    with pytest.raises(ValueError, match="resnet has no output 'cls'"):
        encoders.load(str(saved / "resnet"), SIZE, "cls")
    with pytest.raises(ValueError, match="model.size: vit cannot take images of 8 x 8 pixels"):
        encoders.load(str(saved / "vit"), (8, 8))
    (saved / "vit" / "preprocessor_config.json").write_text('{"image_std": [0, 1, 1]}')
    with pytest.raises(ValueError, match="std > 0"):
        encoders.load(str(saved / "vit"), SIZE)
