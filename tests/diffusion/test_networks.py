# SPDX-License-Identifier: Apache-2.0
"""Networks: added channels start without effect, dropped conditions, null tokens, mismatches."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from viewsynth.diffusion import adapt, networks
from viewsynth.diffusion.conditions import CONDITION_GROUPS
from viewsynth.diffusion.networks import IdentityEncoder, ViewConditioner

ALL, NONE = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)


def only(*names: str) -> torch.Tensor:
    """Two rows that keep only these groups of conditions."""
    return torch.tensor([[name in names for name in CONDITION_GROUPS]] * 2)


def unet(channels: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=(8, 4),
        in_channels=channels,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=24,
    ).eval()


def conditioner(identity: int = 6) -> ViewConditioner:
    torch.manual_seed(1)
    return ViewConditioner(4, 24, identity, 2, 3, (32, 16), 16).eval()


def inputs() -> dict:
    draw = torch.Generator().manual_seed(2)
    return {
        "source": torch.randn(2, 4, 8, 4, generator=draw),
        "render": torch.randn(2, 4, 8, 4, generator=draw),
        "seen": torch.rand(2, 1, 32, 16, generator=draw),
        "normals": torch.rand(2, 3, 32, 16, generator=draw),
    }


CAMERAS = torch.tensor([[60.0, 10, 180, 20, 0.5], [30.0, 5, 90, 10, 0.6]])


@torch.no_grad()
def test_a_widened_unet_starts_as_the_base_model():
    draw = torch.Generator().manual_seed(3)
    noisy, context = (torch.randn(*s, generator=draw) for s in ((2, 4, 8, 4), (2, 5, 24)))
    base = unet()
    before = base(noisy, 500, context).sample
    wide = networks.widen(base)
    assert wide.config.in_channels == 16
    channels = conditioner().channels(**inputs(), kept=ALL)
    after = wide(torch.cat([noisy, channels], 1), 500, context).sample
    assert torch.allclose(before, after, atol=1e-6)
    wide.conv_in.weight.add_(0.1)  # the channels are connected
    assert not torch.allclose(
        wide(torch.cat([noisy, channels], 1), 500, context).sample,
        wide(torch.cat([noisy, 0 * channels], 1), 500, context).sample,
        atol=1e-3,
    )


def test_a_saved_widened_unet_is_loaded_by_diffusers(tmp_path):
    wide = networks.widen(unet())
    wide.save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    assert torch.equal(wide.conv_in.weight, again.conv_in.weight)
    assert networks.widen(again) is again and again.config.in_channels == 16


def test_an_inpainting_unet_is_refused():
    with pytest.raises(ValueError, match="takes 9 input channels|this one takes 9"):
        networks.widen(unet(9))


@torch.no_grad()
def test_dropped_conditions_have_no_effect():
    model, given = conditioner(), inputs()
    who = torch.randn(2, 6, generator=torch.Generator().manual_seed(4))
    tokens = model.tokens(CAMERAS, who, ALL)
    assert tokens.shape == (2, 5, 24)
    null = model.tokens(CAMERAS, who, NONE)
    assert torch.equal(null[0], null[1]) and not torch.equal(tokens[0], tokens[1])
    camera = model.tokens(CAMERAS, who, only("camera"))
    assert torch.equal(camera[:, :3], tokens[:, :3]) and torch.equal(camera[:, 3:], null[:, 3:])
    source = model.tokens(CAMERAS, who, only("source"))
    assert torch.equal(source[:, 3:], tokens[:, 3:]) and torch.equal(source[:, :3], null[:, :3])
    channels = model.channels(**given, kept=ALL)
    assert channels.shape == (2, 12, 8, 4)
    assert torch.equal(channels[:, :4], given["source"])
    assert torch.equal(channels[:, 4:8], given["render"])
    mean = given["seen"].view(2, 1, 8, 4, 4, 4).mean((3, 5))
    assert torch.allclose(channels[:, 8:9], mean, atol=1e-6)
    geometry = model.channels(**given, kept=only("geometry"))
    assert not geometry[:, :4].any() and torch.equal(geometry[:, 4:], channels[:, 4:])
    photo = model.channels(**given, kept=only("source"))
    assert torch.equal(photo[:, :4], channels[:, :4]) and not photo[:, 4:].any()


@torch.no_grad()
def test_conditions_are_dropped_per_row():
    model, who = conditioner(), torch.ones(2, 6)
    mixed = model.tokens(CAMERAS, who, torch.stack([ALL[0], NONE[0]]))
    assert torch.equal(mixed[0], model.tokens(CAMERAS, who, ALL)[0])
    assert torch.equal(mixed[1], model.tokens(CAMERAS, who, NONE)[1])


def test_azimuth_features_are_periodic_and_similar_cameras_differ():
    turned = CAMERAS.clone()
    turned[:, 2] += 360
    assert torch.allclose(networks.fourier(CAMERAS), networks.fourier(turned), atol=1e-4)
    for column in range(5):
        other = CAMERAS.clone()
        other[:, column] *= 1.05
        assert (networks.fourier(CAMERAS) - networks.fourier(other)).abs().max() > 0.01


@torch.no_grad()
def test_the_scale_of_a_feature_does_not_matter():
    model, who = conditioner(), torch.randn(2, 6, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(
        model.tokens(CAMERAS, who, ALL), model.tokens(CAMERAS, who * 50, ALL), atol=1e-5
    )


@torch.no_grad()
def test_conditioner_and_encoder_are_saved_and_loaded(tmp_path):
    model, who = conditioner(), torch.ones(2, 6)
    model.save_pretrained(tmp_path / "c")
    again = ViewConditioner.from_pretrained(tmp_path / "c")
    assert torch.equal(model.tokens(CAMERAS, who, ALL), again.tokens(CAMERAS, who, ALL))
    assert tuple(again.config.size) == (32, 16)
    torch.manual_seed(6)
    encoder = IdentityEncoder({**adapt.RESNET, "hidden_sizes": [8, 8, 8, 12], "embedding_size": 8})
    photos = torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(7))
    encoder.eval().save_pretrained(tmp_path / "i")
    loaded = IdentityEncoder.from_pretrained(tmp_path / "i")
    assert encoder.dim == 12 and torch.equal(encoder(photos), loaded(photos))
    assert loaded(photos[:, :, ::2, ::2]).shape == (2, 12)


def test_no_identity_encoder_means_null_tokens():
    model = conditioner(identity=0)
    tokens = model.tokens(CAMERAS, torch.zeros(2, 0), ALL)
    assert torch.equal(tokens[0, 3:], tokens[1, 3:])


def test_components_of_different_models_are_refused():
    parts = adapt.small()
    parts["conditioner"] = ViewConditioner(adapt.LATENT, 64, 256, size=(128, 64))
    with pytest.raises(ValueError, match="cross_attention_dim is 64, but the UNet has 128"):
        networks.check_parts(
            parts["vae"], parts["unet"], parts["conditioner"], parts["identity_encoder"]
        )
    with pytest.raises(ValueError, match="takes 4 channels.*widen"):
        networks.check_parts(parts["vae"], unet(), parts["conditioner"], None)
