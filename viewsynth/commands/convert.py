# SPDX-License-Identifier: Apache-2.0
"""Convert ViT weights with timm's parameter names into a folder for --model.backbone.

viewsynth convert jx_vit_base_p16_224-80ecf9dd.pth --output models/vit_b16

Reads .safetensors and .pth (without executing code in it). Names and shapes are checked one by one,
and the converted model is loaded once as a test.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from viewsynth.runtime.files import claim_folder
from viewsynth.runtime.messages import first_names

OURS = {"config.json", "model.safetensors", "preprocessor_config.json", ".gitkeep"}


@dataclass(frozen=True)
class Config:
    """A file of weights in, a model folder out."""

    file: tyro.conf.Positional[Path]
    """File of weights."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean by which the model's input pixels in [0, 1] are normalised, per channel."""
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Standard deviation by which they are normalised, per channel."""
    output: Path = Path("outputs/converted")
    """Folder of the model."""


def run(asked: Config) -> int:
    """Convert, load and report; returns 0."""
    from viewsynth.reid import conversion, pretrained

    weights, config, left_out = conversion.convert(conversion.read(asked.file.expanduser()))
    claim_folder(asked.output, OURS, "config.json")
    conversion.save(weights, config, asked.output, asked.mean, asked.std)
    said = pretrained.loading_report(pretrained.load(str(asked.output), "file"))
    dropped = f"; left out: {first_names(sorted(left_out))}" if left_out else ""
    sys.stderr.write(f"{said}{dropped}\ngive --model.backbone {asked.output}\n")
    return 0
