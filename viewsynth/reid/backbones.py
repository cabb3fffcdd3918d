# SPDX-License-Identifier: Apache-2.0
"""Backbones: vision models that ReID methods are built on, loaded or built from a configuration.

reid.pretrained -> `load` -> reid.methods; reid.saved -> `rebuild`. The modules themselves are in
reid.backbone_modules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from viewsynth.records import seed_of
from viewsynth.reid import pretrained, scratch
from viewsynth.reid.backbone_modules import VIT_TYPES, Backbone, TokenBackbone, UnfitError
from viewsynth.reid.text_tower import WORDS, TextTower, word_tokenizer
from viewsynth.runtime.messages import first_names

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(
    name: str,
    size: tuple[int, int],
    seed: int = 0,
    text: bool = False,
    words: Sequence[str] = WORDS,
    stride: int | None = None,
) -> Backbone:
    """A backbone with its weights.

    Args:
        name: A folder with config.json and model.safetensors, or the id of a model on the hub; or
            one of `scratch.SCRATCH`, with random weights, meant for images of 128 x 64 on a CPU.
        size: Height and width of the images, pixels.
        seed: Seed of random weights.
        text: Whether the backbone shall have the text side of the model.
        words: Words that the tokenizer of `scratch.SMALL_CLIP` shall know.
        stride: Pixels from one patch to the next of a pretrained transformer; less than a patch:
            they overlap. None = the size of a patch.

    Raises:
        FileNotFoundError: as `pretrained.load`.
        ValueError: as `pretrained.load`, if the model cannot be used as a backbone, and if it has
            no text side, or no tokenizer, that was asked for.
    """
    if name in scratch.SCRATCH:
        if stride:
            raise ValueError(f"model.stride: the patches of {name} cannot overlap; leave it out")
        with seeded(seed, name):
            return rebuild(scratch.config_of(name, words), size, *IMAGENET, text)
    loaded = pretrained.load(name, "model.backbone")
    if stride:
        _check_stride(name, _tower(loaded.model).config, stride)
        _tower(loaded.model).config.patch_stride = stride
    if loaded.missing and _tower(loaded.model).config.model_type not in VIT_TYPES:
        raise ValueError(
            f"model.backbone: the checkpoint {name} lacks the weights of the pooled output "
            f"({first_names(sorted(loaded.missing))}); save the whole model with save_pretrained"
        )
    try:
        backbone = _wrap(loaded.model, size, loaded.mean, loaded.std, text)
        if text:
            backbone.tokenize = pretrained.tokenizer(name)
    except UnfitError:
        raise
    except ValueError as error:
        raise ValueError(f"model.backbone: {name} cannot be used: {error}") from error
    backbone.loaded = pretrained.loading_report(loaded)
    return backbone


def rebuild(
    config: dict, size: tuple[int, int], mean: tuple, std: tuple, text: bool = False
) -> Backbone:
    """A backbone of a given configuration, with random weights; nothing is downloaded.

    Args:
        config: `Backbone.config`, or any with "model_type".
        size: Height and width of the images, pixels.
        mean: Mean of each channel that pixels in [0, 1] are normalised by.
        std: Standard deviation of each channel.
        text: Whether the backbone shall have the text side of the model.
    """
    from transformers import AutoConfig, AutoModel

    from viewsynth.reid import osnet

    osnet.register()
    with pretrained.quiet():
        model = AutoModel.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    backbone = _wrap(model, size, mean, std, text)
    if text and "words" in config:
        backbone.tokenize = word_tokenizer(config["words"])
    return backbone


@contextlib.contextmanager
def seeded(seed: int, *names: str) -> Iterator[None]:
    """Seed torch's global random state on the CPU in a `with` block, and restore it afterwards.

    Args:
        seed: Seed of the run.
        names: What the random numbers are for, see `records.seed_of`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed_of(seed, *names))
        yield


def _wrap(model: nn.Module, size: tuple[int, int], mean: tuple, std: tuple, text: bool) -> Backbone:
    tower = _tower(model)
    kind = TokenBackbone if tower.config.model_type in VIT_TYPES else Backbone
    if text and (model is tower or not hasattr(model, "text_projection")):
        raise UnfitError(
            f"a method with prompts needs a CLIP with its text side; got {model.config.model_type}"
            ", e.g. openai/clip-vit-base-patch16, or small_clip"
        )
    backbone = kind(tower.train(), size, mean, std)
    if text:
        backbone.config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
        backbone.text = TextTower(model).requires_grad_(False)
    return backbone


def _check_stride(name: str, config, stride: int) -> None:
    side = getattr(config, "patch_size", 0)
    if config.model_type not in VIT_TYPES or not isinstance(side, int) or stride > side:
        raise ValueError(
            f"model.stride must be from 1 to the {side or 'missing'} pixels of a patch of {name} "
            f"({config.model_type}); got {stride}"
        )


def _tower(model: nn.Module) -> nn.Module:
    """The vision part of a model of images and text; any other model unchanged."""
    return getattr(model, "vision_model", model)
