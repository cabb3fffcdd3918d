# SPDX-License-Identifier: Apache-2.0
"""Convert weights of other programs into a folder for --model.backbone.

viewsynth convert jx_vit_base_p16_224-80ecf9dd.pth --output models/vit_b16
viewsynth convert osnet_ain_x1_0_msmt17.pth --output models/osnet_ain
viewsynth convert person-reidentification-retail-0277.xml --output models/retail

Reads ViTs with timm's parameter names and OSNets with torchreid's, as .safetensors or .pth (without
executing code in it), and two ReID networks of the Open Model Zoo, retail-0277 and -0286 (.xml,
with its .bin beside it). Names and shapes are checked one by one, and the converted model is loaded
once as a test. Without --mean and --std, pixels are normalised as in training: by 0.5 for a ViT,
ImageNet's values for an OSNet of torchreid, and the file's own for an .xml.
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
    mean: tuple[float, float, float] | None = None
    """Mean of each channel by which pixels in [0, 1] are normalised; default: as trained."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of each channel; default: as trained."""
    output: Path = Path("outputs/converted")
    """Folder of the model."""


def run(asked: Config) -> int:
    """Convert, load and report; returns 0."""
    from viewsynth.reid import backbones, conversion, osnet_files, pretrained

    file, left_out = asked.file.expanduser(), []
    if file.suffix == ".xml":
        weights, config, mean, std = osnet_files.from_openvino(file)
    elif osnet_files.MARK in (found := conversion.read(file)):
        weights, config, left_out = osnet_files.from_torchreid(found)
        mean, std = backbones.IMAGENET
    else:
        weights, config, left_out = conversion.convert(found)
        mean, std = pretrained.MEAN, pretrained.STD
    claim_folder(asked.output, OURS, "config.json")
    conversion.save(weights, config, asked.output, asked.mean or mean, asked.std or std)
    said = pretrained.loading_report(pretrained.load(str(asked.output), "file"))
    dropped = f"; left out: {first_names(sorted(left_out))}" if left_out else ""
    sys.stderr.write(f"{said}{dropped}\ngive --model.backbone {asked.output}\n")
    return 0
