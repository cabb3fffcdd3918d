# SPDX-License-Identifier: Apache-2.0
"""OSNet as a backbone; more tests of it, as of every backbone, are in test_backbones.py."""

from __future__ import annotations

import pytest
import torch

from viewsynth.reid import backbones, encoders, methods, saved
from viewsynth.reid.osnet import VARIANTS, OSNetConfig, OSNetModel

SIZE = (64, 32)
PEOPLE = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def small(variant: str) -> OSNetModel:
    torch.manual_seed(0)
    config = OSNetConfig(variant=variant, channels=(32, 128, 192, 256), feature=24, pool=(4, 2))
    return OSNetModel(config).eval()


@pytest.mark.parametrize(
    ("channels", "millions"),
    [  # as the paper rounds them
        ((64, 256, 384, 512), 2.2),
        ((48, 192, 288, 384), 1.3),
        ((32, 128, 192, 256), 0.6),
        ((16, 64, 96, 128), 0.2),
    ],
)
def test_sizes_of_the_paper(channels, millions):
    with torch.device("meta"):
        model = OSNetModel(OSNetConfig(channels=channels))
        maps = model(pixel_values=torch.empty(2, 3, 256, 128)).last_hidden_state
    assert maps.shape == (2, channels[-1], 16, 8)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trained_method_is_rebuilt(tmp_path, variant):
    small(variant).save_pretrained(tmp_path / "given")
    body = backbones.load(str(tmp_path / "given"), SIZE)
    assert (body.kind, body.width) == ("osnet", 24)
    method = methods.build("baseline", body, 5)
    method.backbone(PEOPLE)  # running statistics move
    saved.save(method, tmp_path / "method", {})
    again, _ = saved.load(tmp_path / "method")
    assert torch.equal(again.features(PEOPLE), method.eval().features(PEOPLE))


def test_instance_normalisation_forgets_contrast_and_brightness():
    for variant, forgets in (("lct", True), ("plain", False)):
        model = small(variant)
        dim, bright = (model(pixel_values=x).pooler_output for x in (0.5 * PEOPLE + 0.1, PEOPLE))
        change, between = (dim - bright).abs().max(), (bright[0] - bright[1]).abs().max()
        assert (change < 0.01 * between) == forgets


def test_streams_see_three_to_nine_pixels():
    block = small("plain").trunk.stage0[0]
    point = torch.zeros(1, 32, 21, 21)
    point[..., 10, 10] = 1
    block.reduce, seen = torch.nn.Identity(), []
    for stream in block.streams:
        moved = (stream(point) - stream(0 * point)).abs().sum((0, 1)) > 0
        seen.append(int(moved.any(0).sum()))
    assert seen == [3, 5, 7, 9]


def test_wrong_settings(tmp_path):
    with pytest.raises(ValueError, match="variant must be one of plain, ibn, ain, lct; got 'x'"):
        OSNetConfig(variant="x")
    with pytest.raises(ValueError, match=r"channels must be 4 numbers: .*; got \(1, 2\)"):
        OSNetConfig(channels=(1, 2))
    small("lct").save_pretrained(tmp_path)
    said = r"images of 96 x 32 pixels \(height x width\): .*images of 64 x 32 pixels only"
    with pytest.raises(ValueError, match="model.backbone: .*the osnet model cannot take " + said):
        backbones.load(str(tmp_path), (96, 32))
    with pytest.raises(ValueError, match="model.size: .*cannot take " + said):
        encoders.load(str(tmp_path), (96, 32))
