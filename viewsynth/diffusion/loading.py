# SPDX-License-Identifier: Apache-2.0
"""Loading: components of a folder or a hub id, whole or with an error that names what is wrong.

`pipeline.from_pretrained` and `adapt` come here. diffusers only warns of a weight that a checkpoint
lacks and draws it at random: a model that was half loaded works, badly; here it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import ModelMixin

INDEX = "model_index.json"
PARTS = ("unet", "vae", "conditioner", "identity_encoder")
HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies")
UPLOAD = ("private", "token", "create_pr", "commit_message")


def hub_options(options: dict) -> dict:
    """Take what is for the hub alone out of the options of a call."""
    return {key: options.pop(key) for key in {*HUB, *UPLOAD} if key in options}


def files(variant: str | None = None) -> list[str]:
    """Globs of what is needed of a pipeline's files: of each weight one variant, no text encoder.

    Args:
        variant: As diffusers': "fp16" ...; None = the plain one.
    """
    stem = "diffusion_pytorch_model" + (f".{variant}" if variant else "")
    return ["*.json"] + [f"{p}/{stem}{end}.safetensors" for p in PARTS for end in ("", "-0*")]


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
            + (f", only {others[0]}; pickles are not read: save it again as safetensors" if others
               else "; the download may have been cut short")
        )  # fmt: skip
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
    wrong = {
        key: sorted(map(str, found[f"{key}_keys"])) for key in ("missing", "mismatched")
    }  # fmt: skip
    if any(wrong.values()):
        said = [f"{len(v)} {k}: {', '.join(v[:4])}" for k, v in wrong.items() if v]
        spare = sorted(found["unexpected_keys"])
        raise ValueError(
            f"{place} holds weights of another architecture than its {kind.__name__}: "
            + "; ".join(said)
            + (f"; it has others, such as {', '.join(spare[:4])}" if spare else "")
        )
    return model


def index(pipeline: str, folder: Path) -> dict:
    """What a saved pipeline consists of: component -> [library, class], and its own settings.

    Args:
        pipeline: Name of its class.
        folder: Where it lies.
    Raises: FileNotFoundError, ValueError: if there is none, or another one.
    """
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"there is no {INDEX} in {folder}; expected a folder that `save_pretrained` of a "
            f"{pipeline} wrote"
        )
    try:
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        got = told.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / INDEX} cannot be read ({error}); copy or fetch the folder again"
        ) from error
    if got != pipeline:
        raise ValueError(
            f"{folder} holds a {got}, expected a {pipeline}. Of weights of Stable Diffusion 1.5 or "
            "2.1 `viewsynth train-diffusion` makes one"
        )
    return told


def components(pipeline: str, folder: Path, kinds: dict, options: dict) -> dict[str, ModelMixin]:
    """The models of a saved pipeline, except those that are given.

    Args:
        pipeline: Name of its class.
        folder: Where it lies.
        kinds: Name of a component -> its class, or those it may be of.
        options: Of `from_pretrained`: dtype, variant, and components by their names.
    Raises: FileNotFoundError, ValueError: as `component`, and if it is another pipeline.
    """
    listed = index(pipeline, folder)
    passed = {key: options[key] for key in ("dtype", "torch_dtype", "variant") if key in options}
    made = {}
    for name, kind in kinds.items():
        told = (listed.get(name) or [None, None])[1]
        if name in options or told is None:
            continue
        choice = kind if isinstance(kind, tuple) else (kind,)
        known = {each.__name__: each for each in choice}
        if told not in known:
            raise ValueError(
                f"{folder / INDEX}: {name} is a {told}, expected {' or '.join(known)}; give a "
                f"component of your own with {name}="
            )
        made[name] = component(known[told], folder, name, **passed)
    return made


def upload(folder: Path, repo: str, **hub) -> None:
    """Put a saved pipeline on the hub, README.md and all."""
    from huggingface_hub import create_repo, upload_folder

    token, private = hub.pop("token", None), hub.pop("private", None)
    name = create_repo(repo, private=private, token=token, exist_ok=True).repo_id
    upload_folder(repo_id=name, folder_path=folder, token=token, **hub)
