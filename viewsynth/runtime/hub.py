# SPDX-License-Identifier: Apache-2.0
"""Loads diffusers models from a folder or the hub, with strict checks of their weights.

diffusers only warns about weights that are missing from a checkpoint and initialises them randomly,
so an incomplete model runs with poor results. Here it is an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # diffusers takes seconds to import
    from diffusers import ModelMixin

INDEX = "model_index.json"


def local_folder(path: str | Path, patterns: list[str] | None = None, **hub) -> Path:
    """Local folder of a model; a model of the hub is downloaded unless it is cached.

    Args:
        path: A folder, or the id of a model on the hub.
        patterns: Glob patterns of the files to download; None = all files.
        hub: Options of `huggingface_hub.snapshot_download`, e.g. revision, token, cache_dir.

    Raises:
        FileNotFoundError: if there is no such folder and the download fails.
        ValueError: if `path` is a file.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    text = str(path)
    if folder.exists():
        raise ValueError(
            f"{path} is a file; expected a folder written by save_pretrained, with {INDEX}. "
            "Convert a single checkpoint file with the scripts of diffusers first"
        )
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise FileNotFoundError(
            f"there is no folder {path}; give a folder that holds {INDEX}, or the id of a model on "
            "the hub as owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(text, allow_patterns=patterns, **hub))
    except (OSError, ValueError) as error:  # no network, no such model, or no access to it
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FileNotFoundError(
            f"{path} is not a local folder, and the download from the hub failed ({why}). On a "
            f"machine with network access, run `hf download {path} --local-dir DIR`, copy DIR to "
            "this machine and give its path"
        ) from error


def component(kind: type[ModelMixin], folder: Path, name: str, **options) -> ModelMixin:
    """Load one model of a saved pipeline.

    Args:
        kind: Class of the model.
        folder: Folder of the pipeline.
        name: Sub-folder of the model.
        options: Options of `from_pretrained`, e.g. dtype, variant.

    Raises:
        FileNotFoundError: if the configuration or the safetensors weights are missing.
        ValueError: if the weights do not match the architecture; the message names the keys.
    """
    place = folder / name
    if not (place / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no {name}/config.json; give the folder of a pipeline that has {name}/"
        )
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    if (got := config.get("_class_name", kind.__name__)) != kind.__name__:
        raise ValueError(f"{place} holds a {got}; expected a {kind.__name__}")
    if not list(place.glob("*.safetensors")):
        others = sorted(p.name for p in place.iterdir() if p.suffix in (".bin", ".pt", ".ckpt"))
        raise FileNotFoundError(
            f"{place} holds no safetensors"
            + (
                f", only {others[0]}; pickles are not read: save the model as safetensors"
                if others
                else "; the download may be incomplete: repeat it"
            )
        )
    try:
        model, info = kind.from_pretrained(
            place, output_loading_info=True, use_safetensors=True, **options
        )
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        raise ValueError(
            f"{place} cannot be loaded as a {kind.__name__}; check that its config.json and "
            f"weights belong to the same model: {'; '.join(lines[:3])}"
        ) from error
    _check_keys(f"{place} holds weights of another architecture than its {kind.__name__}", info)
    return model


def _check_keys(message: str, info: dict) -> None:
    """Raise ValueError if weights are missing or have other shapes.

    Args:
        message: Beginning of the error message.
        info: Loading info of `from_pretrained`.
    """
    wrong = {key: sorted(map(str, info[f"{key}_keys"])) for key in ("missing", "mismatched")}
    if any(wrong.values()):
        parts = [f"{len(v)} {k}: {', '.join(v[:4])}" for k, v in wrong.items() if v]
        if unexpected := sorted(info["unexpected_keys"]):
            parts.append(f"unexpected: {', '.join(unexpected[:4])}")
        raise ValueError(f"{message}: {'; '.join(parts)}")
