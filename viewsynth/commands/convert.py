# SPDX-License-Identifier: Apache-2.0
"""Convert ViT weights by timm's names into a folder for --model.backbone.

viewsynth convert jx_vit_base_p16_224-80ecf9dd.pth --output models/vit_b16

Takes .safetensors and .pth (of which nothing is executed). Names and shapes are checked one by
one, and the folder is loaded once before the command says that it is good.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from viewsynth.runtime.files import claim

OURS = set(["config.json", "model.safetensors", "preprocessor_config.json", ".gitkeep"])


@dataclass(frozen=True)
class Config:
    """A file of weights in, a model folder out."""

    file: tyro.conf.Positional[Path]
    """The file."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """By which its pixels in [0, 1] were normalised, one a channel."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """The same."""
    output: Path = Path("outputs/converted")
    """Folder of the model."""


def run(asked: Config) -> int:
    """Convert, load, and say what was done; returns 0."""
    from viewsynth.reid import conversion, pretrained

    weights, config, left_out = conversion.convert(conversion.read(asked.file.expanduser()))
    claim(asked.output, OURS, "config.json")
    conversion.save(weights, config, asked.output, asked.mean, asked.std)
    said = pretrained.check_loads(pretrained.load(str(asked.output), "file"))
    dropped = f"; left out: {pretrained.few(left_out)}" if left_out else ""
    sys.stderr.write(f"{said}{dropped}\ngive --model.backbone {asked.output}\n")
    return 0
