# SPDX-License-Identifier: Apache-2.0
"""Adapt: pipelines to be trained, of Stable Diffusion's weights or of none.

`training` starts from what these make. `adapt` takes weights of the class of Stable Diffusion 1.5
and 2.1 and adds what lets them see a view; `small` draws a model of the same class that is small
enough for a package and for two CPU cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from viewsynth.diffusion import loading
from viewsynth.diffusion.networks import EXTRA, IMAGENET, IdentityEncoder, ViewConditioner, widen
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline
from viewsynth.records import seed_of
from viewsynth.runtime import hub

# The ReID trainer's "small" backbone.
RESNET = {
    "model_type": "resnet",
    "layer_type": "basic",
    "embedding_size": 32,
    "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 1, 1, 1],
}
SIZE = (128, 64)  # of the small model, pixels
LATENT = 8  # channels of its latents, a sixth of a picture's numbers
COLOUR = 3.0  # times its colour, from 0 to 1, is a latent to start with
CONTEXT = 128  # width of the small model's cross-attention
VISION = ["*.json", "model.safetensors"]


def small(
    seed: int = 0, identity: IdentityEncoder | None = None, size: tuple[int, int] = SIZE
) -> dict:
    """The components of the small model, at most 12 M parameters in all, drawn at random.

    Source: zero terminal SNR with v-prediction: Lin et al., WACV 2024 (arXiv 2305.08891).

    Args:
        seed: Of the weights.
        identity: A trained encoder, see `identity_encoder`; None = an untrained one.
        size: Height and width of its pictures, pixels; multiples of 16.
    Returns: vae, unet, conditioner, identity_encoder, scheduler: `ViewDiffusionPipeline(**...)`.
    Raises: ValueError: if the size does not suit the networks.
    """
    if any(side <= 0 or side % 16 for side in size):
        raise ValueError(f"size must be multiples of 16 pixels (height, width), got {size}")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed_of(seed, "small"))
        vae = AutoencoderTiny(
            encoder_block_out_channels=(64,) * 3,
            decoder_block_out_channels=(64,) * 3,
            num_encoder_blocks=(1, 2, 3),
            num_decoder_blocks=(3, 2, 1),
            latent_channels=LATENT,
        )
        carry_colours(vae)
        unet = UNet2DConditionModel(
            sample_size=(size[0] // 4, size[1] // 4),
            in_channels=3 * LATENT + EXTRA,
            out_channels=LATENT,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(128, 128, 160),
            layers_per_block=1,
            norm_num_groups=16,
            attention_head_dim=32,
            cross_attention_dim=CONTEXT,
        )
        identity = identity or IdentityEncoder(RESNET, size)
        conditioner = ViewConditioner(LATENT, CONTEXT, identity.dim, size=size, width=128)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    return {
        "vae": vae.eval(),
        "unet": unet,
        "conditioner": conditioner,
        "identity_encoder": identity.eval(),
        "scheduler": scheduler,
    }


@torch.no_grad()
def carry_colours(vae: AutoencoderTiny) -> None:
    """Let an untrained autoencoder of twos give back the mean colour of each of its cells.

    Ours. From random weights it learns light first and colours one by one, late or never: blue
    after 1,000 steps, red after 1,500, green not in 2,000. Its first three channels start as red,
    green and blue, averaged on the way down and painted on the way up; blocks add nothing to them.
    """
    centre, cell = torch.zeros(3, 3), torch.zeros(3, 3)
    centre[1, 1], cell[1:, 1:] = 1, 1 / 4

    def pass_on(conv: nn.Conv2d, taps: torch.Tensor, bias: float = 0) -> None:
        conv.weight[:3] = 0
        for colour in range(3):
            conv.weight[colour, colour] = taps
        if conv.bias is not None:
            conv.bias[:3] = bias

    for half, step in ((vae.encoder, cell), (vae.decoder, centre)):
        first, *steps, last = (layer for layer in half.layers if isinstance(layer, nn.Conv2d))
        down = half is vae.encoder
        pass_on(first, centre if down else centre / COLOUR, 0 if down else 1 / 2)
        pass_on(last, centre * COLOUR if down else centre, -COLOUR / 2 if down else 0)
        for conv in steps:
            pass_on(conv, step)
        for layer in half.layers:
            if hasattr(layer, "fuse"):
                layer.conv[-1].weight[:3], layer.conv[-1].bias[:3] = 0, 0


def identity_encoder(path: str | Path) -> IdentityEncoder:
    """What makes the identity tokens, from a trained model.

    Args:
        path: Folder of a ReID model that `viewsynth train` saved (its backbone is taken, without
            heads); or folder or hub id of a vision model of `transformers`.

    Raises:
        FileNotFoundError: if a file is missing, or it cannot be had; the message says how to.
        ValueError: if it is no such model, or weights are missing; the message names the keys.
    """
    folder = hub.folder_of(path, VISION)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {name} in {folder}; give the folder of a model that `viewsynth "
                "train` saved, or a vision model of transformers with safetensors"
            )
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return (_reid(told, folder) if "backbone" in told else _vision(folder)).eval()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, SafetensorError) as bad:
        raise ValueError(
            f"{folder} cannot be an identity encoder; expected a model of `viewsynth train` with a "
            "ResNet or another plain backbone, or a vision model such as facebook/dinov2-small: "
            f"{str(bad).splitlines()[0]}"
        ) from bad


def _reid(told: dict, folder: Path) -> IdentityEncoder:
    """The backbone of a model of `viewsynth train`."""
    told, start = told["backbone"], "backbone.model."
    sides = tuple(told["size"]), tuple(told["mean"]), tuple(told["std"])
    made = IdentityEncoder(told["config"], *sides)
    weights = load_file(folder / "model.safetensors")
    own = {key.removeprefix(start): v for key, v in weights.items() if key.startswith(start)}
    made.model.load_state_dict(own)
    return made


def _vision(folder: Path) -> IdentityEncoder:
    """A vision model of transformers, at its own size."""
    from transformers import AutoModel

    model, found = AutoModel.from_pretrained(
        folder,
        use_safetensors=True,
        output_loading_info=True,
        dtype=torch.float32,
        trust_remote_code=False,
    )
    missing = {key for key in found["missing_keys"] if "mask_token" not in key}
    pooler = {key for key in missing if key.startswith("pooler.")}
    if missing - pooler:
        raise ValueError(f"its weights lack {', '.join(sorted(missing - pooler)[:4])}")
    if model.main_input_name != "pixel_values":
        raise ValueError(f"a {model.config.model_type} model takes no pictures alone")
    file = folder / "preprocessor_config.json"
    about = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mean, std = (
        tuple(about.get(key, value))
        for key, value in zip(("image_mean", "image_std"), IMAGENET, strict=True)
    )
    side = getattr(model.config, "image_size", None) or 224
    size = tuple(side) if isinstance(side, list | tuple) else (side, side)
    told = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
    made = IdentityEncoder(told, size, mean, std, keep_resolution=False, pooled=not pooler)
    made.model.load_state_dict(model.state_dict())
    return made


def adapt(
    path: str | Path,
    identity: IdentityEncoder | None = None,
    size: tuple[int, int] = (256, 128),
    seed: int = 0,
    licence: str = "unknown",
    **options,
) -> ViewDiffusionPipeline:
    """A pipeline of weights of Stable Diffusion's class, to be trained; its text encoder stays out.

    Args:
        path: Folder, or id on the hub, with unet/, vae/ and scheduler/.
        identity: What makes the identity tokens; None = none.
        size: Height and width of its pictures, pixels; multiples of 64 for SD.
        seed: Of the new weights, those of the conditioner.
        licence: Of the weights, an SPDX identifier.
        options: For the models: torch_dtype, variant; for the hub: revision, token ...

    Raises:
        FileNotFoundError: if it is not here and cannot be had; the message says how to.
        ValueError: if it is of another architecture; the message names the keys.
    """
    wanted = loading.files(options.get("variant"))
    folder = hub.folder_of(path, wanted, **loading.hub_options(options))
    unet = widen(hub.component(UNet2DConditionModel, folder, "unet", **options))
    vae = hub.component(AutoencoderKL, folder, "vae", **options)
    factor = 2 ** (len(vae.config.block_out_channels) + len(unet.config.block_out_channels) - 2)
    if any(side % factor for side in size):
        raise ValueError(f"size must be multiples of {factor} pixels for {path}, got {size}")
    if not isinstance(context := unet.config.cross_attention_dim, int):
        raise ValueError(
            f"{path}: cross_attention_dim {context} differs between blocks; expected "
            "a UNet of the class of Stable Diffusion 1.5 or 2.1"
        )
    if unet.config.addition_embed_type or unet.config.class_embed_type:
        raise ValueError(
            f"{path}: its UNet wants more than an image and a context "
            f"({unet.config.addition_embed_type or unet.config.class_embed_type}), as SDXL's does; "
            "expected the class of Stable Diffusion 1.5 or 2.1"
        )
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no scheduler/scheduler_config.json, which says what the UNet predicts"
        )
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed_of(seed, "conditioner"))
        conditioner = ViewConditioner(
            vae.config.latent_channels, context, identity.dim if identity else 0, size=tuple(size)
        ).to(unet.dtype)
    return ViewDiffusionPipeline(vae, unet, conditioner, scheduler, identity, licence=licence)
