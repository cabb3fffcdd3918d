# SPDX-License-Identifier: Apache-2.0
"""Conversion of OSNets: equal features, and errors that name what is wrong."""

from __future__ import annotations

import re

import pytest
import tiny_ir
import torch
from torch.nn import functional

from viewsynth import config
from viewsynth.commands import convert
from viewsynth.reid import backbones, conversion, encoders, osnet_files

IMAGES = torch.rand(3, 3, 64, 32, generator=torch.Generator().manual_seed(0))
NARROW, MIDDLE = (16, 64, 96, 128), (48, 192, 288, 384)


class Torchreid:
    """torchreid's OSNets step by step; weights are drawn when they are first used."""

    def __init__(self, variant: str, channels: tuple[int, ...]):
        self.variant, self.channels = variant, channels
        self.random = torch.Generator().manual_seed(0)
        self.weights: dict[str, torch.Tensor] = {}
        self.features(IMAGES)

    def get(self, name: str, *shape: int) -> torch.Tensor:
        if name not in self.weights:
            value = torch.randn(shape, generator=self.random)
            if len(shape) == 1:
                value = 1 + 0.2 * value.abs()
            elif shape[1:]:
                value = value * (1.5 / value[0].numel()) ** 0.5
            self.weights[name] = value
        return self.weights[name]

    def batch(self, x, name):
        keys = ("running_mean", "running_var", "weight", "bias")
        values = [self.get(f"{name}.{key}", x.shape[1]) for key in keys]
        return functional.batch_norm(x, *values)

    def instance(self, x, name):
        weight, bias = (self.get(f"{name}.{key}", x.shape[1]) for key in ("weight", "bias"))
        return functional.instance_norm(x, weight=weight, bias=bias)

    def conv(self, x, name, out, kernel=1, groups=1, **more):
        weight = self.get(f"{name}.weight", out, x.shape[1] // groups, kernel, kernel)
        return functional.conv2d(x, weight, padding=kernel // 2, groups=groups, **more)

    def layer(self, x, name, out):
        return self.batch(self.conv(x, f"{name}.conv", out), f"{name}.bn")

    def light(self, x, name):
        width = x.shape[1]
        x = self.conv(x, f"{name}.conv1", width)
        x = self.conv(x, f"{name}.conv2", width, 3, groups=width)
        return self.batch(x, f"{name}.bn").relu()

    def gate(self, x, name):
        width, less = x.shape[1], x.shape[1] // 16
        y = x.mean((2, 3), keepdim=True)
        y = self.conv(y, f"{name}.fc1", less, bias=self.get(f"{name}.fc1.bias", less)).relu()
        y = self.conv(y, f"{name}.fc2", width, bias=self.get(f"{name}.fc2.bias", width))
        return x * y.sigmoid()

    def block(self, x, name, out, number):
        first, mixed = self.layer(x, f"{name}.conv1", out // 4).relu(), 0
        for n in range(4):
            y = first
            for m in range(n + 1):
                if self.variant == "ain":
                    part = f"conv2.{n}.layers.{m}"
                else:
                    part = "conv2" + "abcd"[n] + (f".{m}" if n else "")
                y = self.light(y, f"{name}.{part}")
            mixed = mixed + self.gate(y, f"{name}.gate")
        if self.variant == "ain" and number in (0, 1, 3, 4):
            mixed = self.instance(self.conv(mixed, f"{name}.conv3.conv", out), f"{name}.IN")
        else:
            mixed = self.layer(mixed, f"{name}.conv3", out)
        total = mixed + (x if x.shape[1] == out else self.layer(x, f"{name}.downsample", out))
        if self.variant == "ibn" and number < 2:
            total = self.instance(total, f"{name}.IN")
        return total.relu()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(v)[:, None, None] for v in backbones.IMAGENET)
        x = self.conv((images - mean) / std, "conv1.conv", self.channels[0], 7, stride=2)
        norm = self.batch if self.variant == "plain" else self.instance
        x = functional.max_pool2d(norm(x, "conv1.bn").relu(), 3, 2, 1)
        for stage, out in enumerate(self.channels[1:]):
            for n in range(2):
                x = self.block(x, f"conv{stage + 2}.{n}", out, 2 * stage + n)
            if stage < 2:
                after = f"pool{stage + 2}.0" if self.variant == "ain" else f"conv{stage + 2}.2.0"
                x = functional.avg_pool2d(self.layer(x, after, out).relu(), 2)
        x = self.layer(x, "conv5", self.channels[-1]).relu().mean((2, 3))
        x = functional.linear(x, self.get("fc.0.weight", 40, x.shape[1]), self.get("fc.0.bias", 40))
        return self.batch(x, "fc.1").relu()


def run(*argv: str) -> int:
    return convert.run(config.parse(convert.Config, list(argv), "convert"))


@pytest.mark.parametrize(
    ("variant", "channels"),
    [("plain", NARROW), ("plain", MIDDLE), ("ibn", NARROW), ("ain", NARROW), ("ain", MIDDLE)],
)
def test_torchreid(tmp_path, capsys, variant, channels):
    theirs = Torchreid(variant, channels)
    given = {f"module.{name}": value for name, value in theirs.weights.items()}
    given |= {"module.classifier.weight": torch.ones(5, 40)}
    if variant == "plain":  # as recent releases of torch save them
        given["module.conv1.bn.num_batches_tracked"] = torch.tensor(7)
    torch.save({"state_dict": given, "epoch": 3}, tmp_path / "osnet.pth.tar")
    out = str(tmp_path / "out")
    assert run(str(tmp_path / "osnet.pth.tar"), "--output", out) == 0
    said = capsys.readouterr().err
    assert "left out: classifier.weight" in said and "WARNING" not in said
    body = backbones.load(out, (64, 32)).eval()
    images = IMAGES.flip(0) ** 2
    expected = theirs.features(images)
    assert expected.std(0).max() > 0.1  # features do depend on the image
    with torch.no_grad():
        torch.testing.assert_close(body(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conv3.1.gate.fc1.weight": None}, r"lacks the weights for trunk.stage1.1.gate.fc1.weig"),
        ({"fc.0.weight": None}, "not the weights of an OSNet: they lack fc.0.weight"),
        ({"conv3.1.conv2a.bn.weight": None}, "lacks the weights for .*streams.0.0.each.norm.weig"),
        ({"conv6.weight": torch.ones(1)}, r"\(plain\) .* has no weights named conv6.weight"),
        (
            {"conv4.0.conv2d.3.conv1.weight": torch.ones(32, 8, 1, 1)},
            r"streams.3.3.over.weight of an OSNet .* has shape \[32, 32, 1, 1\]; got \[32, 8, 1, 1",
        ),
    ],
)
def test_wrong_weights_are_named(change, said):
    given = Torchreid("plain", NARROW).weights | change
    with pytest.raises(ValueError, match=said):
        osnet_files.from_torchreid({k: v for k, v in given.items() if v is not None})


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    with torch.no_grad():
        return folder / "net.xml", tiny_ir.write(folder / "net.xml", IMAGES)


def test_openvino(zoo, tmp_path, capsys):
    path, expected = zoo
    assert run(str(path), "--output", str(tmp_path)) == 0
    assert "244 of 244 weights are the checkpoint's" in capsys.readouterr().err
    body = backbones.load(str(tmp_path), tiny_ir.SIZE).eval()
    assert (expected[0] - expected[1]).norm() > 0.05 * expected[0].norm()
    assert body.mean == pytest.approx([120 / 255, 110 / 255, 100 / 255])
    with torch.no_grad():
        torch.testing.assert_close(body(IMAGES), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(body(IMAGES[1:2]), expected[1:2], rtol=1e-4, atol=1e-4)
    pixels = (255 * IMAGES).byte()
    with torch.no_grad():
        again = body(pixels / 255)
    encoder = encoders.load(str(tmp_path), tiny_ir.SIZE)
    torch.testing.assert_close(encoder.encode(pixels.movedim(1, -1)), again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('type="Sigmoid"', 'type="Tanh"', r"expected Sigmoid, got Tanh \(layer \d+\)"),
        (
            'strides="2, 2" dil',
            'strides="1, 1" dil',
            r"a convolution of stride \(2, 2\) .* got",
        ),
        ('eps="1e-05"', 'eps="1e-03"', "MVN over positions with an epsilon of 1e-05 inside"),
        ('kernel="2, 2"', 'kernel="3, 3"', "AvgPool of 2 x 2 with stride 2, got AvgPool"),
        ('shape="32, 3, 7, 7"', 'shape="3, 32, 7, 7"', r"conv.weight must have shape \[32, 3, 7"),
        ('type="MatMul"', 'type="Gemm"', r"expected MatMul, got"),
        ('type="Add"', 'type="Subtract"', r"expected Add, got Subtract"),
        ('type="Result"', 'type="Other"', "a network with one output, got 0"),
        ('offset="0"', 'offset="-8"', r"layer \d+ needs bytes -8 to"),
        ('element_type="f16"', 'element_type="u8"', r"numbers of type u8, not f32"),
        ("</net>", "", "cannot be read as OpenVINO's"),
    ],
)
def test_other_networks_are_refused(zoo, tmp_path, old, new, said):
    path, _ = zoo
    text = path.read_text()
    assert old in text
    (tmp_path / "net.xml").write_text(text.replace(old, new))
    (tmp_path / "net.bin").write_bytes(path.with_suffix(".bin").read_bytes())
    with pytest.raises(ValueError, match=said):
        osnet_files.from_openvino(tmp_path / "net.xml")


def test_layers_that_are_connected_otherwise_are_refused(zoo, tmp_path):
    """All layers and shapes are right, but a layer takes the input of the one before it."""
    path, _ = zoo
    text = path.read_text()
    last = int(re.findall(r'<layer id="(\d+)" type="ReLU">', text)[-2])
    edge = f'<edge from-layer="{last}" from-port="0"'
    assert edge in text
    (tmp_path / "net.xml").write_text(text.replace(edge, edge.replace(str(last), str(last - 1))))
    (tmp_path / "net.bin").write_bytes(path.with_suffix(".bin").read_bytes())
    with pytest.raises(ValueError, match="is not an OSNet as the retail ReID networks are: expec"):
        osnet_files.from_openvino(tmp_path / "net.xml")


def test_order_of_channels_and_missing_files(tmp_path):
    with torch.no_grad():
        tiny_ir.write(tmp_path / "net.xml", IMAGES[:1], (0, 1, 2))
    with pytest.raises(ValueError, match="expected the input turned from BGR to RGB, got Gather"):
        osnet_files.from_openvino(tmp_path / "net.xml")
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*net.bin; an OpenVINO network is an"):
        osnet_files.from_openvino(tmp_path / "net.xml")
    with pytest.raises(ValueError, match="not the weights of a timm ViT"):
        conversion.convert({"conv1.weight": torch.ones(1)})
