# SPDX-License-Identifier: Apache-2.0
"""Saved models: a method that we trained as a folder of config.json and model.safetensors.

train -> the folder -> `encoders`, for evaluation. It is complete: the configuration of the backbone
stands in config.json, so that a model is rebuilt without a network and without its first weights.
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
MARK = "viewsynth"  # the key that tells our config.json from one of transformers
GENERATION = "generation"  # the key of a model with a second stage, see `sd_reid.fused`


def save(model: nn.Module, folder: Path, about: dict) -> None:
    """Write a method with its weights; each file aside, then renamed, config.json last.

    Args:
        model: As `methods.build` made it, unwrapped.
        about: What else the file should tell, as JSON types.
    Raises: files.WriteError: if the disk is full or read-only.
    """
    # contiguous: a file knows no memory layouts.
    weights = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write(folder / WEIGHTS, to_bytes(weights, {"format": "pt"}))
    said = {MARK: __version__, **describe(model), "about": about}
    write(folder / CONFIG, (json.dumps(said, indent=1) + "\n").encode())


def describe(model: nn.Module) -> dict:
    """All but the weights of a method: what it is rebuilt from, as JSON types."""
    backbone = model.backbone
    return {
        "method": methods.name_of(model),
        "settings": model.settings,
        "backbone": {
            "config": backbone.config,
            "size": list(backbone.size),
            "mean": list(backbone.mean),
            "std": list(backbone.std),
        },
    }


def is_ours(path: str | Path) -> bool:
    """Whether a folder holds a model that we trained."""
    try:
        return MARK in json.loads((Path(path).expanduser() / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read(path: str | Path) -> dict:
    """The configuration of a model that we trained.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is none of ours.
    """
    folder = Path(path).expanduser()
    _need(folder, CONFIG)
    if not is_ours(folder):
        raise ValueError(f"{folder / CONFIG} has no {MARK!r}: train did not write this model")
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))


def load(path: str | Path) -> tuple[nn.Module, dict]:
    """A saved method, in evaluation mode, on the CPU, and what was said about it.

    One with a second stage is loaded by `sd_reid.fused.load`; `encoders.load` takes both.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if it is none of ours, or weights and configuration do not belong together.
    """
    folder, said = Path(path).expanduser(), read(path)
    _need(folder, WEIGHTS)
    try:
        backbone = said["backbone"]
        with backbones.drawn(0, "rebuild"):  # drawn to be replaced: leave the global draws alone
            body = backbones.rebuild(
                backbone["config"], backbone["size"], backbone["mean"], backbone["std"]
            )
        model = methods.build(said["method"], body, **said["settings"])
        model.load_state_dict(from_bytes((folder / WEIGHTS).read_bytes()))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be loaded: its {CONFIG} and {WEIGHTS} must be of one model, whole "
            f"(saved by viewsynth {said[MARK]}, this is {__version__}): "
            f"{pretrained.first_line(error)}"
        ) from error
    return model.eval(), said.get("about", {})


def _need(folder: Path, name: str) -> None:
    if not (folder / name).is_file():
        raise FileNotFoundError(
            f"there is no {name} in {folder}; give the folder of a model that train wrote"
        )
