# SPDX-License-Identifier: Apache-2.0
"""Small generator, encoder and cached features for the tests of SD-ReID's second stage."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from transformers import ViTConfig, ViTModel

from viewsynth.reid import backbones, methods
from viewsynth.reid.sd_reid.cache import Cached
from viewsynth.reid.sd_reid.model import Generator
from viewsynth.reid.sd_reid.options import GeneratorShape

WIDTH, TOKENS, VIEWS, SIZE = 48, 3, 3, (64, 32)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0, views: int = VIEWS, **changes) -> Generator:
    """A small generator without zero-initialised layers, so that every input has an effect."""
    torch.manual_seed(seed)
    made = Generator(WIDTH, TOKENS, views, GeneratorShape(**changes)).eval()
    made.prototypes = noise(views, WIDTH, seed=1)
    for layer in made.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not layer.weight.abs().sum():
            nn.init.normal_(layer.weight, std=0.05)
    return made


def with_mode(made: Generator, **changes) -> Generator:
    """The generator, with changed fields of its mode."""
    made.mode = replace(made.mode, **changes)
    return made


def person() -> nn.Module:
    """A first stage with random weights."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=TOKENS,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=16,
    )
    body = backbones.TokenBackbone(ViTModel(config), SIZE, (0.5,) * 3, (0.5,) * 3)
    made = methods.build("sd_reid", body, 4, views=[f"view{n}" for n in range(VIEWS)])
    made.neck.norm.running_mean.copy_(noise(WIDTH))
    return made.eval()


def images(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    return (torch.rand(count, 3, *SIZE, generator=rng) * 255).round() / 255


def cached(count: int = 24) -> Cached:
    """Features that are sums of a vector of the person and a vector of the view, and noise."""
    people, kinds = torch.arange(count) // 6, torch.arange(count) % VIEWS
    own, view = noise(count, WIDTH)[people], noise(VIEWS, WIDTH, seed=7)[kinds]
    identity = (own + view)[None] + 0.05 * noise(2, count, WIDTH, seed=8)
    condition = identity[:, :, None].expand(-1, -1, TOKENS - 1, -1).half()
    views = view[None].repeat(2, 1, 1)
    return Cached(identity, condition, views, kinds, people, torch.ones(count))
