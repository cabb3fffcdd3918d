# SPDX-License-Identifier: Apache-2.0
"""Loading: what a saved pipeline consists of, and its components, on top of `viewsynth.runtime.hub`.

`pipeline.from_pretrained`, `adapt` and `refine` come here.
"""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import ModelMixin

from viewsynth.runtime.hub import INDEX, component

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
