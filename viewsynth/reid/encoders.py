# SPDX-License-Identifier: Apache-2.0
"""Encoders: any vision model of `transformers`, by id or folder, as pictures -> features.

`features` runs one over the pictures of a data set. Only safetensors are loaded, and a checkpoint
that leaves a weight of the model unset is refused: a model that was half loaded works, badly.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from viewsynth.reid import pretrained, saved

POOLINGS = ("auto", "cls", "mean", "pooler")
OWN = "own"  # the pooling of a model that we trained
CLASS_TOKENS = ("cls_token", "class_embedding", "distillation_token")
PASSING = ("transformers_version", "_name_or_path", "dtype", "architectures")  # not of the numbers


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model and how it is used.

    Args:
        model: In evaluation mode, float32, on its device.
        name: What the user asked for: a hub id or the name of a folder.
        kind: The architecture, e.g. "dinov2".
        size: Height and width of its pictures, pixels.
        pooling: One of `POOLINGS` except "auto".
        mean, std: By which pixels in [0, 1] are normalised, one a channel.
        fingerprint: Hash of the weights in use and of all the above.
        parts: Of a feature: name -> its first number and the one after its last.
        ordered: Whether its features hang on the order of the pictures.
    """

    model: nn.Module
    name: str
    kind: str
    size: tuple[int, int]
    pooling: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fingerprint: str = ""
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    ordered: bool = False

    def encode(self, images: Tensor) -> Tensor:
        """Features of pictures; a row depends on its picture alone (but for rounding).

        Args:
            images: uint8 RGB of the encoder's size.  [B, H, W, 3]
        Returns: float32 [B, D] on the CPU, not normalised.
        """
        device = next(self.model.parameters()).device
        # contiguous: convolutions round differently in other memory layouts.
        pixels = images.to(device).permute(0, 3, 1, 2).contiguous().float() / 255
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (self.mean, self.std))
        with torch.inference_mode():
            return _pooled(self.model, (pixels - mean) / std, self.pooling).float().cpu()


def load(
    path: str, size: tuple[int, int] = (256, 128), pooling: str = "auto", device: str = "cpu"
) -> Encoder:
    """Load a vision model of `transformers`.

    Args:
        path: A folder with config.json and model.safetensors, or the id of a model on the hub.
        size: Height and width of the pictures, pixels; position grids are interpolated to it.
        pooling: "pooler": the model's own pooled output or image embedding; "cls": the first token
            of the last layer; "mean": the mean over its places; "auto": the first of these that
            the model and its checkpoint have.

    Raises:
        FileNotFoundError: if there is no such model here, and it cannot be fetched.
        ValueError: if it is no vision model, or its checkpoint does not fit.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"model.pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}")
    if saved.is_ours(path):
        return _trained(path, pooling, device)
    loaded = pretrained.load(path)
    model = loaded.model.eval().requires_grad_(False).to(device)
    poolers = set(pretrained.POOLERS)
    own_pooler = not any(poolers & set(key.split(".")) for key in loaded.missing)
    encoder = Encoder(
        model=model,
        name=loaded.name,
        kind=model.config.model_type,
        size=tuple(size),
        pooling=pooling,
        mean=loaded.mean,
        std=loaded.std,
    )
    encoder = replace(encoder, pooling=_choose(encoder, own_pooler))
    config = model.config.to_diff_dict()
    return replace(encoder, fingerprint=_fingerprint(encoder, config, loaded.missing))


def _trained(path: str, pooling: str, device: str) -> Encoder:
    """A model that we trained: it says itself what its features and its size are."""
    if pooling != "auto":
        raise ValueError(
            f"model.pooling must be auto for {path}, whose method makes its own features; got "
            f"{pooling!r}"
        )
    if saved.GENERATION in saved.read(path):
        from viewsynth.reid.sd_reid import fused as kind  # diffusers: only who needs it waits
    else:
        kind = saved
    model, _ = kind.load(path)
    encoder = Encoder(
        model=model.requires_grad_(False).to(device),
        name=Path(path).expanduser().resolve().name,
        kind=model.backbone.kind,
        size=model.backbone.size,
        pooling=OWN,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        parts=getattr(model, "parts", {}),
        ordered=getattr(model, "ordered", False),
    )
    return replace(encoder, fingerprint=_fingerprint(encoder, kind.describe(model), frozenset()))


def _choose(encoder: Encoder, own_pooler: bool) -> str:
    """The pooling; a try with a blank picture shows what the model offers."""
    tries = ("pooler", "cls", "mean") if encoder.pooling == "auto" else (encoder.pooling,)
    blank = torch.zeros(1, *encoder.size, 3, dtype=torch.uint8)
    for pooling in tries:
        if pooling == "pooler" and not own_pooler:
            reason = "its checkpoint has none"
            continue
        try:
            replace(encoder, pooling=pooling).encode(blank)
            return pooling
        except _LackingError as error:
            reason = str(error)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"model.size: {encoder.name} cannot take pictures of {encoder.size[0]} x "
                f"{encoder.size[1]} pixels (height x width): {pretrained.first_line(error)}"
            ) from error
    raise ValueError(f"model.pooling: {encoder.name} has no output {pooling!r}: {reason}")


def _fingerprint(encoder: Encoder, config: dict, missing: frozenset[str]) -> str:
    """Hash of what decides the features: weights as loaded, architecture, pixels, pooling."""
    config = {k: v for k, v in config.items() if k not in PASSING}
    settings = [encoder.size, encoder.pooling, encoder.mean, encoder.std, config]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for key, value in sorted(encoder.model.state_dict().items()):
        if key not in missing:  # those are drawn anew by every load
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


# ---- running -------------------------------------------------------------------------------------


class _LackingError(Exception):
    """The model has no such output."""


def _pooled(model: nn.Module, pixels: Tensor, pooling: str) -> Tensor:
    """One vector a picture.  float [B, 3, H, W] -> [B, D]"""
    if pooling == OWN:
        return model.features(pixels)
    pair = hasattr(model, "get_image_features")  # a model of pictures and text
    if pair and pooling == "pooler":
        output = _forward(model.get_image_features, pixels)
        return getattr(output, "pooler_output", output).flatten(1)
    tower = getattr(model, "vision_model", None) if pair else model
    if tower is None:
        raise _LackingError("only the image embedding of this model can be had")
    output = _forward(tower, pixels)
    if pooling == "pooler":
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            raise _LackingError("the model makes no pooled output")
        return pooled.flatten(1)
    last, first = output.last_hidden_state, _class_tokens(tower)
    if pooling == "cls":
        if last.ndim != 3 or not first:
            raise _LackingError("the model has no class token")
        return last[:, 0]
    if last.ndim == 4:
        return last.mean((2, 3))
    return last[:, first + getattr(tower.config, "num_register_tokens", 0) :].mean(1)


def _class_tokens(model: nn.Module) -> int:
    """How many tokens of the last layer stand before those of places (and registers)."""
    last = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    return len(last & set(CLASS_TOKENS))


def _forward(call, pixels: Tensor):
    """Run a model, interpolating its grid of positions where it has one and knows how."""
    known = inspect.signature(getattr(call, "forward", call)).parameters
    grid = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
    return call(pixel_values=pixels, **grid)
