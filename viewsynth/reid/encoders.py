# SPDX-License-Identifier: Apache-2.0
"""Encoders: a model of ours or any vision model of `transformers` as images -> features.

reid.pretrained, reid.saved -> `load` -> `Encoder.encode` -> evaluate.features.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from viewsynth.records import Sample
from viewsynth.reid import methods, pretrained, saved

POOLINGS = ("auto", "cls", "mean", "pooler")
OWN = "own"  # pooling of a model that viewsynth trained
CLASS_TOKENS = ("cls_token", "class_embedding", "distillation_token")
# Entries of a configuration that do not change the features.
IGNORED = ("transformers_version", "_name_or_path", "dtype", "architectures")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model with its input size, normalisation and pooling.

    Args:
        model: The model, in evaluation mode, float32, on its device.
        name: Hub id, or name of the folder.
        kind: Architecture, e.g. "dinov2".
        size: Height and width of the images, pixels.
        pooling: One of `POOLINGS` except "auto", or `OWN`.
        mean: Mean of each channel that pixels in [0, 1] are normalised by.
        std: Standard deviation of each channel.
        fingerprint: Hash of the weights in use and of the fields above.
        parts: Parts of a feature: name -> first index, and last index plus one.
        ordered: Whether features depend on the order of the images.
        told: Names of the views, one of which the model must be told for every image; () = none.
        flip: Whether features of an image are those of itself plus those of its mirror image.
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
    told: tuple[str, ...] = ()
    flip: bool = False

    def views_of(self, samples: Sequence[Sample]) -> Tensor | None:
        """What `encode` must be told of images: numbers of their views; None = nothing.

        Args:
            samples: The samples that the images are of, in order.

        Raises:
            ValueError: If a sample is of none of the views.
        """
        return methods.view_numbers(self.told, samples) if self.told else None

    def encode(self, images: Tensor, views: Tensor | None = None) -> Tensor:
        """Features of images; a row depends on its image only (except for rounding).

        Args:
            images: RGB of the encoder's size.  uint8 [B, H, W, 3]
            views: Of `views_of`, for a model that is told the views.

        Returns:
            Features on the CPU, not normalised.  float32 [B, D]
        """
        device = next(self.model.parameters()).device
        # contiguous: convolutions round differently with other memory layouts.
        pixels = images.to(device).permute(0, 3, 1, 2).contiguous().float() / 255
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (self.mean, self.std))
        with torch.inference_mode():
            told = () if views is None else (views.to(device),)
            pixels = (pixels - mean) / std
            found = _pooled(self.model, pixels, self.pooling, *told).float()
            if self.flip:
                found = found + _pooled(self.model, pixels.flip(3), self.pooling, *told).float()
            return found.cpu()


def load(
    path: str,
    size: tuple[int, int] = (256, 128),
    pooling: str = "auto",
    device: str = "cpu",
    flip: bool = False,
) -> Encoder:
    """Load a trained method, or a vision model of `transformers`.

    Args:
        path: A folder with config.json and model.safetensors, or the id of a model on the hub.
        size: Height and width of the images, pixels; position embeddings are interpolated to it. A
            trained method has its own size.
        pooling: "pooler": the pooled output or image embedding of the model; "cls": the class token
            of the last layer; "mean": the mean over its patch tokens; "auto": the first of these
            that the model and its checkpoint have.
        device: Device of the model.
        flip: See `Encoder`.

    Raises:
        FileNotFoundError: if there is no such folder, and it cannot be downloaded.
        ValueError: if it is not a vision model, or its checkpoint does not match it.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"model.pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}")
    if saved.is_ours(path):
        return _trained(path, pooling, device, flip)
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
        flip=flip,
    )
    encoder = replace(encoder, pooling=_choose(encoder, own_pooler))
    config = model.config.to_diff_dict()
    return replace(encoder, fingerprint=_fingerprint(encoder, config, loaded.missing))


def _trained(path: str, pooling: str, device: str, flip: bool) -> Encoder:
    """A model that viewsynth trained, which defines its own features and size."""
    if pooling != "auto":
        raise ValueError(
            f"model.pooling must be auto for {path}, a trained method with its own features; got "
            f"{pooling!r}"
        )
    if saved.SECOND_STAGE in saved.read(path):
        from viewsynth.reid.sd_reid import fused as module  # here: importing diffusers is slow
    else:
        module = saved
    model, _ = module.load(path)
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
        told=methods.told_views(model) if module is saved else (),
        flip=flip,
    )
    return replace(encoder, fingerprint=_fingerprint(encoder, module.describe(model), frozenset()))


def _choose(encoder: Encoder, own_pooler: bool) -> str:
    """The first possible pooling, tried out on a blank image."""
    tries = ("pooler", "cls", "mean") if encoder.pooling == "auto" else (encoder.pooling,)
    blank = torch.zeros(1, *encoder.size, 3, dtype=torch.uint8)
    for pooling in tries:
        if pooling == "pooler" and not own_pooler:
            reason = "its checkpoint has no pooler"
            continue
        try:
            replace(encoder, pooling=pooling).encode(blank)
            return pooling
        except _NoOutputError as error:
            reason = str(error)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(
                f"model.size: {encoder.name} cannot take images of {encoder.size[0]} x "
                f"{encoder.size[1]} pixels (height x width): {pretrained.first_line(error)}"
            ) from error
    raise ValueError(f"model.pooling: {encoder.name} has no output {pooling!r}: {reason}")


def _fingerprint(encoder: Encoder, config: dict, missing: frozenset[str]) -> str:
    """Hash of everything that changes features: weights, configuration, image size, pooling."""
    config = {k: v for k, v in config.items() if k not in IGNORED}
    settings = [encoder.size, encoder.pooling, encoder.mean, encoder.std, config]
    settings += ["flip"] if encoder.flip else []
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for key, value in sorted(encoder.model.state_dict().items()):
        if key not in missing:  # missing weights are initialised at random by each load
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


# ---- pooling -------------------------------------------------------------------------------------


class _NoOutputError(Exception):
    """The model does not have the output that a pooling needs."""


def _pooled(model: nn.Module, pixels: Tensor, pooling: str, *told: Tensor) -> Tensor:
    """One feature for each image.

    Args:
        model: The model.
        pixels: Normalised pixels.  float [B, 3, H, W]
        pooling: See `load`.
        told: Views, for a model that is told them.

    Returns:
        float [B, D]

    Raises:
        _NoOutputError: If the model does not have this pooling.
    """
    if pooling == OWN:
        return model.features(pixels, *told)
    pair = hasattr(model, "get_image_features")  # a model of images and text
    if pair and pooling == "pooler":
        output = _forward(model.get_image_features, pixels)
        return getattr(output, "pooler_output", output).flatten(1)
    tower = getattr(model, "vision_model", None) if pair else model
    if tower is None:
        raise _NoOutputError("it has an image embedding only, as pooler")
    output = _forward(tower, pixels)
    if pooling == "pooler":
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            raise _NoOutputError("it has no pooled output")
        return pooled.flatten(1)
    last, first = output.last_hidden_state, _class_tokens(tower)
    if pooling == "cls":
        if last.ndim != 3 or not first:
            raise _NoOutputError("it has no class token")
        return last[:, 0]
    if last.ndim == 4:
        return last.mean((2, 3))
    return last[:, first + getattr(tower.config, "num_register_tokens", 0) :].mean(1)


def _class_tokens(model: nn.Module) -> int:
    """Number of class tokens, which precede registers and patch tokens."""
    last = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    return len(last & set(CLASS_TOKENS))


def _forward(call, pixels: Tensor):
    """Run a model, with interpolated position embeddings if it supports them."""
    known = inspect.signature(getattr(call, "forward", call)).parameters
    grid = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in known else {}
    return call(pixel_values=pixels, **grid)
