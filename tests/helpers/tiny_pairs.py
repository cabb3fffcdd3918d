# SPDX-License-Identifier: Apache-2.0
"""A view-aware diffusion pipeline with some ten thousand weights, and pairs to train it on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch.nn import functional

from viewsynth import config
from viewsynth.commands import train_diffusion
from viewsynth.diffusion.networks import IdentityEncoder, ViewConditioner, widen
from viewsynth.diffusion.pairs import stored
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

SIZE = (32, 16)
RESNET = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 8,
    "hidden_sizes": [8, 12],
    "depths": [1, 1],
}


def autoencoder(seed: int = 0) -> AutoencoderTiny:
    torch.manual_seed(seed)
    return AutoencoderTiny(
        encoder_block_out_channels=(16,) * 3,
        decoder_block_out_channels=(16,) * 3,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).eval()


def pipeline(kind: str = "v_prediction", seed: int = 0) -> ViewDiffusionPipeline:
    """A pipeline with random weights."""
    vae = autoencoder(seed)
    unet = UNet2DConditionModel(
        sample_size=(8, 4),
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 24),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=16,
    )
    identity = IdentityEncoder(RESNET, SIZE).eval()
    conditioner = ViewConditioner(4, 16, identity.dim, 2, 2, SIZE, 16)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        timestep_spacing="trailing",
        prediction_type=kind,
        rescale_betas_zero_snr=kind == "v_prediction",
    )
    return ViewDiffusionPipeline(vae, widen(unet), conditioner, scheduler, identity)


def write_pairs(folder: Path, people: int = 2, each: int = 1, size=SIZE) -> Pairs:
    """Smooth images, whose target is the rendering in another light; every other pair is exact."""
    draw = torch.Generator().manual_seed(0)

    def smooth(count: int) -> np.ndarray:
        coarse = torch.rand(count, 3, 4, 2, generator=draw)
        fine = functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
        return (fine * 255).byte().permute(0, 2, 3, 1).numpy().copy()

    count = people * each
    render = smooth(count)
    maps = (np.arange(count * size[0] * size[1]) % 255 + 1).astype(np.uint8).reshape(count, *size)
    data = stored.shard(
        {
            "source": smooth(people),
            "render": render,
            "target": (render * 0.7 + 30).astype(np.uint8),
            "normals": np.stack([maps, maps, maps], -1),
            "seen": maps,
            "mask": maps,
        }
    )
    (folder / stored.SHARDS).mkdir(parents=True)
    (folder / stored.SHARDS / "a.safetensors").write_bytes(data)
    rows = [
        {
            "pid": str(k // each),
            "kind": stored.KINDS[k % 2],
            "split": "train",
            "elevation": 30.0 + k,
            "camera": [30.0 + k, 5.0, 10.0 * k, 20.0, 0.5],
            "shard": "a",
            "place": k,
            "source": k // each,
        }
        for k in range(count)
    ]
    stored.finish(folder, size, rows, {"a": hashlib.sha256(data).hexdigest()})
    return Pairs.open(folder)


def train_argv(given, output, *options) -> list[str]:
    known = [
        "--data.pairs",
        given / "pairs",
        "--data.validation",
        0.25,
        "--model.base",
        given / "base",
        "--model.size",
        32,
        16,
        "--optim.steps",
        6,
        "--optim.batch",
        4,
        "--optim.warmup",
        0,
        "--distil.batch",
        4,
        "--every",
        3,
        "--device",
        "cpu",
        "--output",
        output,
    ]
    return [str(token) for token in (*known, *options)]


def train(given, output, *options) -> int:
    asked = config.parse(train_diffusion.Config, train_argv(given, output, *options), "x")
    return train_diffusion.run(asked)
