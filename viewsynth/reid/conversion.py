# SPDX-License-Identifier: Apache-2.0
"""Conversion of a timm ViT checkpoint to a model folder of `transformers`.

Aerial-ground ReID starts from one file, `jx_vit_base_p16_224-80ecf9dd.pth` (timm's ViT-B/16,
ImageNet). The converted weights have the names of the checkpoints on the hub, so every release of
`transformers` reads them. An unknown or missing weight, or one of another shape, is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from viewsynth.runtime.files import write
from viewsynth.runtime.messages import first_names

HEAD_WIDTH = 64  # channels of an attention head, in all ViTs of the paper
NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
ATTENTION = ("query", "key", "value")  # their order in timm's "attn.qkv"
# Classifiers, and layers that some releases have before them: a backbone has neither.
LEFT_OUT = re.compile(r"(head|head_dist|pre_logits|fc_norm)\.")
NESTED = ("model", "state_dict")  # keys under which some files keep the weights


def read(path: Path) -> dict[str, Tensor]:
    """Weights of a .safetensors or .pth file; no code in the file is executed.

    Args:
        path: The file.

    Returns:
        Weights by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        import torch

        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling can raise any exception
        raise ValueError(
            f"{path} cannot be read as weights only: {str(error).splitlines()[0]}; expected a "
            ".safetensors file, or a .pth file that holds tensors and nothing else"
        ) from error
    while isinstance(found, Mapping) and (inner := [k for k in NESTED if k in found]):
        found = found[inner[0]]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(
            f"{path} must hold a dictionary of tensors, got {type(found).__name__}; give the "
            "checkpoint of a timm ViT or of an OSNet of torchreid"
        )
    return {name.removeprefix("module."): value for name, value in found.items()}


def convert(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict, list[str]]:
    """Weights and configuration in the form of `transformers`.

    Args:
        weights: Weights by timm's names.

    Returns:
        The weights by the names of the hub; the configuration; the names of the weights that were
        left out because a backbone does not have them (classifiers).

    Raises:
        ValueError: If weights are unknown or missing, or are not those of a ViT.
    """
    kept = {name: value.float() for name, value in weights.items() if not LEFT_OUT.match(name)}
    out, unknown = {}, []
    for name, value in kept.items():
        if names := _names(name):
            out |= dict(zip(names, value.chunk(len(names)), strict=True))
        else:
            unknown.append(name)
    if missing := sorted(NAMES.keys() - kept.keys()):
        raise ValueError(
            f"these are not the weights of a timm ViT: they lack {first_names(sorted(missing))}"
        )
    if unknown:
        raise ValueError(f"a plain ViT has no weights named {first_names(sorted(unknown))}")
    config = _config(kept, out)
    wanted = {n for k in range(config["num_hidden_layers"]) for n in _block_names(k, config)}
    if missing := sorted(wanted - out.keys()):
        raise ValueError(f"the file lacks the weights for {first_names(sorted(missing))}")
    return out, config, sorted(weights.keys() - kept.keys())


def save(
    weights: Mapping[str, Tensor], config: dict, folder: Path, mean: tuple, std: tuple
) -> None:
    """Write a model folder.

    Args:
        weights: Weights by the names of the hub.
        config: Configuration of the model.
        folder: Folder to write.
        mean: Mean of each channel that pixels in [0, 1] are normalised by.
        std: Standard deviation of each channel.
    """
    data = {name: value.contiguous() for name, value in weights.items()}
    write(folder / "model.safetensors", to_bytes(data, {"format": "pt"}))
    pixels = {"image_mean": list(mean), "image_std": list(std), "do_normalize": True}
    write(folder / "preprocessor_config.json", (json.dumps(pixels, indent=1) + "\n").encode())
    write(folder / "config.json", (json.dumps(config, indent=1) + "\n").encode())


def _names(name: str) -> list[str]:
    """Names on the hub for one name of timm: one, three (query, key, value), or none."""
    if name in NAMES:
        return [NAMES[name]]
    if not (found := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)):
        return []
    number, part, kind = found.groups()
    stem = f"encoder.layer.{number}"
    if part == "attn.qkv":
        return [f"{stem}.attention.attention.{each}.{kind}" for each in ATTENTION]
    return [f"{stem}.{BLOCK[part]}.{kind}"] if part in BLOCK else []


def _block_names(number: int, config: dict) -> list[str]:
    """Names on the hub of all weights of one block."""
    names = []
    for part in (*BLOCK, "attn.qkv"):
        kinds = ("weight", "bias") if part != "attn.qkv" or config["qkv_bias"] else ("weight",)
        names += [n for kind in kinds for n in _names(f"blocks.{number}.{part}.{kind}")]
    return names


def _config(kept: dict[str, Tensor], out: dict[str, Tensor]) -> dict:
    """The configuration that follows from the shapes of the weights."""
    width, _, patch, _ = kept["patch_embed.proj.weight"].shape
    patches = kept["pos_embed"].shape[1] - 1
    side = round(patches**0.5)
    numbers = [int(name.split(".")[2]) for name in out if name.startswith("encoder.layer.")]
    if side * side != patches or width % HEAD_WIDTH or not numbers:
        raise ValueError(
            f"these are not the weights of a ViT as in the paper: {patches} patches, a width of "
            f"{width}, {len(set(numbers))} blocks; expected a square of patches, a width that is a "
            f"multiple of {HEAD_WIDTH}, a class token and at least one block"
        )
    return {
        "model_type": "vit",
        "architectures": ["ViTModel"],
        "hidden_size": width,
        "num_hidden_layers": max(numbers) + 1,
        "num_attention_heads": width // HEAD_WIDTH,
        "intermediate_size": len(out.get("encoder.layer.0.intermediate.dense.bias", ())),
        "image_size": side * patch,
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
        "qkv_bias": any(name.endswith("query.bias") for name in out),
    }
