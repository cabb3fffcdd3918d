# SPDX-License-Identifier: Apache-2.0
"""Files and components of saved pipelines, on top of `viewsynth.runtime.hub`."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import ModelMixin

from viewsynth.runtime.hub import INDEX, component

PARTS = ("unet", "vae", "conditioner", "identity_encoder")
HUB = ("revision", "token", "cache_dir", "local_files_only", "force_download", "proxies")
UPLOAD = ("private", "token", "create_pr", "commit_message")


def hub_options(options: dict) -> dict:
    """Remove the options for the hub from the options of a call, and return them."""
    return {key: options.pop(key) for key in {*HUB, *UPLOAD} if key in options}


def files(variant: str | None = None) -> list[str]:
    """Globs of the files needed of a pipeline: one variant of the weights, no text encoder.

    Args:
        variant: Variant of the weights as in diffusers, such as "fp16"; None = the default.
    """
    stem = "diffusion_pytorch_model" + (f".{variant}" if variant else "")
    return ["*.json"] + [f"{p}/{stem}{end}.safetensors" for p in PARTS for end in ("", "-0*")]


def index(pipeline: str, folder: Path) -> dict:
    """Read the index of a saved pipeline: component -> [library, class], and its own settings.

    Args:
        pipeline: Name of the expected class.
        folder: Folder of the pipeline.

    Raises:
        FileNotFoundError: If the folder has no index.
        ValueError: If the index cannot be read, or names another class.
    """
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(
            f"there is no {INDEX} in {folder}; expected a folder that `save_pretrained` of a "
            f"{pipeline} wrote"
        )
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        got = entries.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder / INDEX} cannot be read ({error}); copy or fetch the folder again"
        ) from error
    if got != pipeline:
        raise ValueError(
            f"{folder} holds a {got}, expected a {pipeline}; `viewsynth train-diffusion` trains "
            "one from weights of Stable Diffusion 1.5 or 2.1"
        )
    return entries


def components(pipeline: str, folder: Path, kinds: dict, options: dict) -> dict[str, ModelMixin]:
    """Load the models of a saved pipeline, except those given in the options.

    Args:
        pipeline: Name of the expected class.
        folder: Folder of the pipeline.
        kinds: Name of a component -> its class, or a tuple of accepted classes.
        options: Options of `from_pretrained`: dtype, variant, and components by name.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is another pipeline, or a component has another architecture.
    """
    listed = index(pipeline, folder)
    passed = {key: options[key] for key in ("dtype", "torch_dtype", "variant") if key in options}
    found = {}
    for name, kind in kinds.items():
        kind_name = (listed.get(name) or [None, None])[1]
        if name in options or kind_name is None:
            continue
        choice = kind if isinstance(kind, tuple) else (kind,)
        known = {each.__name__: each for each in choice}
        if kind_name not in known:
            raise ValueError(
                f"{folder / INDEX}: {name} is a {kind_name}, expected {' or '.join(known)}; pass "
                f"another component as {name}=..."
            )
        found[name] = component(known[kind_name], folder, name, **passed)
    return found


def upload(folder: Path, repo: str, **hub) -> None:
    """Upload a saved pipeline to the hub, with its README.md.

    Args:
        folder: Folder of the pipeline.
        repo: Id of the model on the hub.
        hub: Options of `create_repo` and `upload_folder`: private, token, commit_message ...
    """
    from huggingface_hub import create_repo, upload_folder

    token, private = hub.pop("token", None), hub.pop("private", None)
    name = create_repo(repo, private=private, token=token, exist_ok=True).repo_id
    upload_folder(repo_id=name, folder_path=folder, token=token, **hub)
