# SPDX-License-Identifier: Apache-2.0
"""Pipelines to start training from: adapted Stable Diffusion, or a small model with random weights.

`adapt` adds the conditioning to weights of Stable Diffusion 1.5 or 2.1. `small` initialises a model
of the same architecture that fits into a package and trains on two CPU cores.
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
SIZE = (128, 64)  # image size of the small model, pixels
LATENT = 8  # channels of its latents, which have a sixth of the values of an image
COLOUR = 3.0  # initial gain from colour in [0, 1] to latent, see `carry_colours`
CONTEXT = 128  # width of the small model's cross-attention
VISION = ["*.json", "model.safetensors"]


def small(
    seed: int = 0, identity: IdentityEncoder | None = None, size: tuple[int, int] = SIZE
) -> dict:
    """Components of the small model, with random weights and at most 12 M parameters in total.

    Args:
        seed: Seed of the weights.
        identity: Trained identity encoder, see `identity_encoder`; None = an untrained one.
        size: Height and width of the images, pixels; multiples of 16.

    Returns:
        vae, unet, conditioner, identity_encoder and scheduler, for `ViewDiffusionPipeline(**...)`.

    Raises:
        ValueError: If the size is not a multiple of 16.
    """
    if any(side <= 0 or side % 16 for side in size):
        raise ValueError(f"size must be multiples of 16 pixels (height, width), got {size}")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed_of(seed, "small"))
        vae = _small_autoencoder()
        unet = _small_unet(size)
        identity = identity or IdentityEncoder(RESNET, size)
        conditioner = ViewConditioner(LATENT, CONTEXT, identity.dim, size=size, width=128)
    return {
        "vae": vae.eval(),
        "unet": unet,
        "conditioner": conditioner,
        "identity_encoder": identity.eval(),
        "scheduler": _small_scheduler(),
    }


def _small_autoencoder() -> AutoencoderTiny:
    vae = AutoencoderTiny(
        encoder_block_out_channels=(64,) * 3,
        decoder_block_out_channels=(64,) * 3,
        num_encoder_blocks=(1, 2, 3),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=LATENT,
    )
    carry_colours(vae)
    return vae


def _small_unet(size: tuple[int, int]) -> UNet2DConditionModel:
    return UNet2DConditionModel(
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


def _small_scheduler() -> DDIMScheduler:
    """The schedule of Stable Diffusion with zero terminal SNR.

    Source: v-prediction and trailing timesteps for it: Lin et al., WACV 2024 (arXiv 2305.08891).
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


@torch.no_grad()
def carry_colours(vae: AutoencoderTiny) -> None:
    """Initialise an autoencoder so that it reproduces the mean colour of each latent's cell.

    Source: ours. With random weights, brightness is trained first and hue late or never: blue
    appeared after 1,000 steps, red after 1,500, green not within 2,000. Here the first three
    channels start as red, green and blue, averaged by the encoder and replicated by the decoder,
    and the residual blocks add nothing to them.

    Args:
        vae: Autoencoder of three channels or more whose strided layers halve the size; changed in
            place.
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
    """Load an identity encoder from a trained model.

    Args:
        path: Folder of a ReID model that `viewsynth train` saved, whose backbone is used without
            heads; or folder or hub id of a vision model of `transformers`.

    Raises:
        FileNotFoundError: If a file is missing and cannot be fetched from the hub.
        ValueError: If it is another kind of model, or weights are missing.
    """
    folder = hub.folder_of(path, VISION)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"there is no {name} in {folder}; give the folder of a model that `viewsynth "
                "train` saved, or a vision model of transformers with safetensors"
            )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return (_reid(config, folder) if "backbone" in config else _vision(folder)).eval()
    except (
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        SafetensorError,
    ) as error:
        raise ValueError(
            f"{folder} cannot be an identity encoder; expected a model of `viewsynth train` with a "
            "ResNet or another plain backbone, or a vision model such as facebook/dinov2-small: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _reid(config: dict, folder: Path) -> IdentityEncoder:
    """The backbone of a model of `viewsynth train`."""
    backbone, prefix = config["backbone"], "backbone.model."
    inputs = tuple(backbone["size"]), tuple(backbone["mean"]), tuple(backbone["std"])
    encoder = IdentityEncoder(backbone["config"], *inputs)
    weights = load_file(folder / "model.safetensors")
    own = {key.removeprefix(prefix): v for key, v in weights.items() if key.startswith(prefix)}
    encoder.model.load_state_dict(own)
    return encoder


def _vision(folder: Path) -> IdentityEncoder:
    """A vision model of transformers, at its own input size."""
    from transformers import AutoModel

    model, loaded = AutoModel.from_pretrained(
        folder,
        use_safetensors=True,
        output_loading_info=True,
        dtype=torch.float32,
        trust_remote_code=False,
    )
    missing = {key for key in loaded["missing_keys"] if "mask_token" not in key}
    pooler = {key for key in missing if key.startswith("pooler.")}
    if missing - pooler:
        raise ValueError(f"its weights lack {', '.join(sorted(missing - pooler)[:4])}")
    if model.main_input_name != "pixel_values":
        raise ValueError(f"a {model.config.model_type} model does not take images alone")
    file = folder / "preprocessor_config.json"
    processor = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mean, std = (
        tuple(processor.get(key, value))
        for key, value in zip(("image_mean", "image_std"), IMAGENET, strict=True)
    )
    side = getattr(model.config, "image_size", None) or 224
    size = tuple(side) if isinstance(side, list | tuple) else (side, side)
    config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
    encoder = IdentityEncoder(config, size, mean, std, keep_resolution=False, pooled=not pooler)
    encoder.model.load_state_dict(model.state_dict())
    return encoder


def adapt(
    path: str | Path,
    identity: IdentityEncoder | None = None,
    size: tuple[int, int] = (256, 128),
    seed: int = 0,
    licence: str = "unknown",
    **options,
) -> ViewDiffusionPipeline:
    """A pipeline with weights of Stable Diffusion, without its text encoder, to be trained.

    Args:
        path: Folder, or id on the hub, with unet/, vae/ and scheduler/.
        identity: Identity encoder; None = none.
        size: Height and width of the images, pixels; multiples of 64 for Stable Diffusion.
        seed: Seed of the new weights, those of the conditioner.
        licence: Licence of the weights, an SPDX identifier.
        options: Options of the models (torch_dtype, variant) and of the hub (revision, token ...).

    Raises:
        FileNotFoundError: If a file is missing and cannot be fetched from the hub.
        ValueError: If the architecture is not supported, or the weights do not match it.
    """
    wanted = loading.files(options.get("variant"))
    folder = hub.folder_of(path, wanted, **loading.hub_options(options))
    unet = widen(hub.component(UNet2DConditionModel, folder, "unet", **options))
    vae = hub.component(AutoencoderKL, folder, "vae", **options)
    factor = 2 ** (len(vae.config.block_out_channels) + len(unet.config.block_out_channels) - 2)
    if any(side % factor for side in size):
        raise ValueError(f"size must be multiples of {factor} pixels for {path}, got {size}")
    _check_architecture(unet, path)
    if not (folder / "scheduler" / "scheduler_config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no scheduler/scheduler_config.json, which states the prediction type; "
            "copy or fetch the whole folder again"
        )
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed_of(seed, "conditioner"))
        conditioner = ViewConditioner(
            vae.config.latent_channels,
            unet.config.cross_attention_dim,
            identity.dim if identity else 0,
            size=tuple(size),
        ).to(unet.dtype)
    return ViewDiffusionPipeline(vae, unet, conditioner, scheduler, identity, licence=licence)


def _check_architecture(unet: UNet2DConditionModel, path: str | Path) -> None:
    config, expected = unet.config, "expected the UNet of Stable Diffusion 1.5 or 2.1"
    if not isinstance(config.cross_attention_dim, int):
        raise ValueError(
            f"{path}: cross_attention_dim {config.cross_attention_dim} differs between blocks; "
            f"{expected}"
        )
    if extra := config.addition_embed_type or config.class_embed_type:
        raise ValueError(
            f"{path}: the UNet needs a further input ({extra}), as that of SDXL does; {expected}"
        )
