# SPDX-License-Identifier: Apache-2.0
"""Conversion of a timm ViT: equal features, and errors that name the wrong weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from viewsynth import config
from viewsynth.commands import convert
from viewsynth.reid import backbones, conversion

WIDTH, BLOCKS, PATCH, SIDE = 128, 2, 8, 4


def weights() -> dict[str, torch.Tensor]:
    """Weights of a small ViT with a classifier, by timm's names."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + SIDE**2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "head.weight": (10, WIDTH),
        "head.bias": (10,),
    }
    for n in range(BLOCKS):
        for part, sides in (
            ("norm1", (WIDTH,)),
            ("norm2", (WIDTH,)),
            ("attn.qkv", (3 * WIDTH, WIDTH)),
            ("attn.proj", (WIDTH, WIDTH)),
            ("mlp.fc1", (2 * WIDTH, WIDTH)),
            ("mlp.fc2", (WIDTH, 2 * WIDTH)),
        ):
            shapes |= {f"blocks.{n}.{part}.weight": sides, f"blocks.{n}.{part}.bias": sides[:1]}
    rng = torch.Generator().manual_seed(0)
    return {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def reference(w: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The class token of timm's ViT, computed step by step."""

    def norm(x, name):
        return functional.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    x = functional.conv2d(
        images, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + w["pos_embed"]
    for n in range(BLOCKS):
        q, k, v = (
            linear(norm(x, f"blocks.{n}.norm1"), f"blocks.{n}.attn.qkv")
            .unflatten(-1, (3, 2, 64))
            .permute(2, 0, 3, 1, 4)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(mixed, f"blocks.{n}.attn.proj")
        wide = functional.gelu(linear(norm(x, f"blocks.{n}.norm2"), f"blocks.{n}.mlp.fc1"))
        x = x + linear(wide, f"blocks.{n}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def run(*argv: str) -> int:
    return convert.run(config.parse(convert.Config, list(argv), "convert"))


@pytest.mark.parametrize("kind", ["pth", "nested.pth", "safetensors"])
def test_equal_features(tmp_path, kind, capsys):
    given, path = weights(), tmp_path / f"vit.{kind}"
    if kind == "safetensors":
        save_file(given, path)
    else:
        torch.save({"model": given} if "nested" in kind else given, path)
    assert run(str(path), "--output", str(tmp_path / "out")) == 0
    said = capsys.readouterr().err
    assert "left out: head.bias, head.weight" in said and "--model.backbone" in said
    body = backbones.load(str(tmp_path / "out"), (PATCH * SIDE, PATCH * SIDE)).eval()
    images = torch.rand(3, 3, PATCH * SIDE, PATCH * SIDE)
    with torch.no_grad():
        expected = reference(given, (images - 0.5) / 0.5)
        torch.testing.assert_close(body(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks.1.attn.qkv.weight": None}, "the file lacks the weights for encoder.layer.1.att"),
        ({"pos_embed": None}, "not the weights of a timm ViT: they lack pos_embed"),
        ({"blocks.0.ls1.gamma": torch.ones(1)}, "has no weights named blocks.0.ls1.gamma"),
        ({"pos_embed": torch.ones(1, 16, WIDTH)}, "15 patches"),
    ],
)
def test_wrong_weights_are_named(change, said):
    given = {k: v for k, v in (weights() | change).items() if v is not None}
    with pytest.raises(ValueError, match=said):
        conversion.convert(given)


def test_pickles_are_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    torch.save({"cls_token": Evil()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="cannot be read as weights only"):
        conversion.read(tmp_path / "bad.pth")
    assert not (tmp_path / "made").exists()
    with pytest.raises(FileNotFoundError, match="there is no file"):
        conversion.read(tmp_path / "none.pth")
