# SPDX-License-Identifier: Apache-2.0
"""Trained methods on disk: a folder with config.json and model.safetensors.

commands.train -> `save` -> `load` -> reid.encoders, for evaluation. config.json holds the
configuration of the backbone, so a model is rebuilt offline and without its pretrained weights.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import nn

from viewsynth import __version__
from viewsynth.reid import backbones, methods, pretrained
from viewsynth.runtime.files import write

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MARK = "viewsynth"  # key that only our config.json has, not that of a transformers model
SECOND_STAGE = "generation"  # key of models with a second stage, see `sd_reid.fused`


def save(model: nn.Module, folder: Path, about: dict) -> None:
    """Write a method with its weights: each file atomically, config.json last.

    Args:
        model: A method from `methods.build`, not wrapped by accelerate.
        folder: Folder to write.
        about: Further entries for config.json, as JSON types.

    Raises:
        files.WriteError: If the disk is full or read-only.
    """
    # contiguous: safetensors stores no memory layouts.
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write(folder / WEIGHTS, to_bytes(weights, {"format": "pt"}))
    config = {MARK: __version__, **describe(model), "about": about}
    write(folder / CONFIG, (json.dumps(config, indent=1) + "\n").encode())


def describe(model: nn.Module) -> dict:
    """Configuration that `load` rebuilds a method from, as JSON types."""
    backbone = model.backbone
    return {
        "method": methods.name_of(model),
        "settings": model.settings,
        "backbone": {
            "config": backbone.config,
            "size": list(backbone.size),
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "text": getattr(backbone, "text", None) is not None,
        },
    }


def is_ours(path: str | Path) -> bool:
    """Whether a folder holds a method that viewsynth trained."""
    try:
        return MARK in json.loads((Path(path).expanduser() / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read(path: str | Path) -> dict:
    """Configuration of a trained method.

    Args:
        path: Folder of the model.

    Raises:
        FileNotFoundError: if there is no config.json.
        ValueError: if viewsynth did not write it.
    """
    folder = Path(path).expanduser()
    _require(folder, CONFIG)
    if not is_ours(folder):
        raise ValueError(
            f"{folder / CONFIG} has no key {MARK!r}: viewsynth train did not write this model"
        )
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def load(path: str | Path) -> tuple[nn.Module, dict]:
    """A saved method, in evaluation mode, on the CPU, and the `about` that `save` was given.

    `sd_reid.fused.load` loads a model with a second stage; `encoders.load` loads both kinds.

    Args:
        path: Folder of the model.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if viewsynth did not write it, or weights and configuration do not match.
    """
    folder, config = Path(path).expanduser(), read(path)
    _require(folder, WEIGHTS)
    try:
        backbone = config["backbone"]
        with backbones.seeded(0, "rebuild"):  # leave the global random state unchanged
            body = backbones.rebuild(
                backbone["config"],
                backbone["size"],
                backbone["mean"],
                backbone["std"],
                backbone.get("text", False),
            )
        model = methods.build(config["method"], body, **config["settings"])
        model.load_state_dict(from_bytes((folder / WEIGHTS).read_bytes()))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be loaded: its {CONFIG} and {WEIGHTS} must be of one model, whole "
            f"(saved by viewsynth {config[MARK]}, this is {__version__}): "
            f"{pretrained.first_line(error)}"
        ) from error
    return model.eval(), config.get("about", {})


def _require(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"there is no {name} in {folder}; give the folder of a model that viewsynth train wrote"
        )
