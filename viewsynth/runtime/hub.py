# SPDX-License-Identifier: Apache-2.0
"""Hub: models of diffusers by folder or hub id, whole or with an error that names what is wrong.

diffusers only warns of a weight that a checkpoint lacks and draws it at random: a model that was
half loaded works, badly; here it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # diffusers takes seconds to import
    from diffusers import ModelMixin

INDEX = "model_index.json"


def folder_of(path: str | Path, patterns: list[str] | None = None, **hub) -> Path:
    """The folder of a model; one of the hub is fetched, if it is not in its cache.

    Args:
        path: A folder, or the id of a model on the hub.
        patterns: Which of its files are wanted, as globs; None = all.
        hub: For `huggingface_hub.snapshot_download`: revision, token, cache_dir ...

    Raises:
        FileNotFoundError: if it is not here and cannot be had; the message says how to.
        ValueError: if it is a file.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    text = str(path)
    if folder.exists():
        raise ValueError(
            f"{path} is a file; give a folder as save_pretrained writes it, with {INDEX}. A single "
            "checkpoint file is converted by diffusers' own scripts"
        )
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise FileNotFoundError(
            f"there is no folder {path}; give one that holds {INDEX}, or the id of a model on the "
            "hub, owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(text, allow_patterns=patterns, **hub))
    except (OSError, ValueError) as error:  # no network, no such model, no right to it
        why = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FileNotFoundError(
            f"{path} is no folder here and cannot be had from the hub ({why}). Where there is a "
            f"network, run `hf download {path} --local-dir DIR`, copy DIR here, and give DIR"
        ) from error


def component(kind: type[ModelMixin], folder: Path, name: str, **options) -> ModelMixin:
    """One model of a pipeline's folder.

    Args:
        kind: Its class.
        folder: Of the pipeline.
        name: Its sub-folder.
        options: For `from_pretrained`: dtype, variant ...

    Raises:
        FileNotFoundError: if it is not there, or no safetensors are.
        ValueError: if it is another architecture; the message names the keys.
    """
    place = folder / name
    if not (place / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no {name}/config.json; expected the folder of a pipeline with {name}/"
        )
    said = json.loads((place / "config.json").read_text(encoding="utf-8"))
    if (got := said.get("_class_name", kind.__name__)) != kind.__name__:
        raise ValueError(f"{place} holds a {got}, expected a {kind.__name__}: another architecture")
    if not list(place.glob("*.safetensors")):
        others = sorted(p.name for p in place.iterdir() if p.suffix in (".bin", ".pt", ".ckpt"))
        raise FileNotFoundError(
            f"{place} holds no safetensors"
            + (
                f", only {others[0]}; pickles are not read: save it again as safetensors"
                if others
                else "; the download may have been cut short"
            )
        )
    try:
        model, found = kind.from_pretrained(
            place, output_loading_info=True, use_safetensors=True, **options
        )
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
        raise ValueError(
            f"{place} cannot be loaded as a {kind.__name__}; its config.json and weights must be "
            f"of one model: {'; '.join(lines[:3])}"
        ) from error
    wrong = {key: sorted(map(str, found[f"{key}_keys"])) for key in ("missing", "mismatched")}
    if any(wrong.values()):
        said = [f"{len(v)} {k}: {', '.join(v[:4])}" for k, v in wrong.items() if v]
        spare = sorted(found["unexpected_keys"])
        raise ValueError(
            f"{place} holds weights of another architecture than its {kind.__name__}: "
            + "; ".join(said)
            + (f"; it has others, such as {', '.join(spare[:4])}" if spare else "")
        )
    return model
