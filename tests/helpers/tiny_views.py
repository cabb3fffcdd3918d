# SPDX-License-Identifier: Apache-2.0
"""A tiny view-aware diffusion pipeline with random weights of the real classes, and its inputs."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel

from viewsynth.diffusion import adapt
from viewsynth.diffusion.conditions import Conditions
from viewsynth.diffusion.networks import IdentityEncoder, ViewConditioner, widen
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

SIZE = (64, 32)


def pipeline(identity: bool = True) -> ViewDiffusionPipeline:
    """A pipeline whose added input channels are not zero, so that conditions have an effect."""
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3,
        decoder_block_out_channels=(8,) * 3,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).eval()
    wide = widen(unet())
    with torch.no_grad():
        wide.conv_in.weight.normal_(0, 0.2)
    encoder = IdentityEncoder(
        {**adapt.RESNET, "hidden_sizes": [8, 8, 8, 8], "embedding_size": 8}, SIZE
    ).eval()
    conditioner = ViewConditioner(4, 24, 8 if identity else 0, 2, 2, SIZE, 16).eval()
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    return ViewDiffusionPipeline(vae, wide, conditioner, scheduler, encoder if identity else None)


def saved(folder: Path) -> Path:
    """A folder with a saved pipeline."""
    torch.set_num_threads(1)
    one = pipeline()
    one.register_to_config(licence="CC0-1.0")
    one.save_pretrained(folder)
    return folder


def replace_scheduler(pipe: ViewDiffusionPipeline, kind) -> ViewDiffusionPipeline:
    """The same pipeline with a scheduler of another class."""
    scheduler = kind.from_config(pipe.scheduler.config)
    return ViewDiffusionPipeline(**{**pipe.components, "scheduler": scheduler})


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=(16, 8),
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=24,
    ).eval()


def views(count: int = 5, photos: int = 2) -> Conditions:
    draw = torch.Generator().manual_seed(0)

    def plane(number: int, channels: int) -> torch.Tensor:
        return torch.rand(number, channels, *SIZE, generator=draw)

    camera = torch.tensor([[60.0, 10, 0, 20, 0.5]]).repeat(count, 1)
    camera[:, 2] = torch.arange(count) * 50
    return Conditions(
        source=plane(photos, 3),
        person=torch.arange(count) % photos,
        render=plane(count, 3),
        seen=plane(count, 1).round(),
        normals=plane(count, 3) * 2 - 1,
        camera=camera,
    )


def rows(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(100 + first + k) for k in range(count)]
