# SPDX-License-Identifier: Apache-2.0
"""Vision models of `transformers` with their weights, for `encoders` (as they are) and `backbones`
(to be trained).

Only safetensors are loaded, and a checkpoint that leaves a weight of the model unset is refused: a
model that was half loaded works, badly.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

MEAN = STD = (0.5, 0.5, 0.5)  # where a model comes without preprocessor_config.json
# Parts that a checkpoint may lack: the first two make the pooled output, which is then not used,
# the last stands for masked patches, and no picture has any.
POOLERS, UNUSED = ("pooler", "head"), "mask_token"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model as it was loaded.

    Args:
        model: In float32, on the CPU.
        name: What the user asked for: a hub id or the name of a folder.
        mean, std: By which pixels in [0, 1] are normalised, one a channel.
        missing: Names of the model's weights that the checkpoint lacks; only of a pooler.
        unused: Names of the checkpoint's weights that the model lacks.
    """

    model: nn.Module
    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    missing: frozenset[str]
    unused: tuple[str, ...]


def load(path: str, flag: str = "model.path") -> Pretrained:
    """Load a vision model of `transformers`.

    Args:
        path: A folder with config.json and model.safetensors, or the id of a model on the hub.
        flag: The option that `path` came from, for messages.

    Raises:
        FileNotFoundError: if there is no such model here, and it cannot be fetched.
        ValueError: if it is no vision model, or its checkpoint does not fit.
    """
    folder = Path(path).expanduser()
    where, name = (str(folder), folder.resolve().name) if folder.is_dir() else (path, path)
    with quiet():
        model, missing, unused = _model(where, path, flag)
        mean, std = _normalisation(where)
    return Pretrained(
        model=model, name=name, mean=mean, std=std, missing=frozenset(missing), unused=unused
    )


def check_loads(loaded: Pretrained) -> str:
    """How much of a model is the checkpoint's, as one line for the log of a run.

    Weights that are missing were refused before. A checkpoint whose normalisation layers are all as
    they are drawn was hardly ever trained; that is said too, and loud: the field's most common
    failure is a run from weights that are not what they are taken for.

    Returns: e.g. "vit-base: 198 of 198 weights are the checkpoint's; 2 of it are not used: ...".
    """
    weights = loaded.model.state_dict()
    norms = [
        value
        for key, value in loaded.model.named_parameters()
        if "norm" in key.lower() and key.endswith("weight")
    ]
    text = (
        f"{loaded.name}: {len(weights) - len(loaded.missing & weights.keys())} of {len(weights)} "
        "weights are the checkpoint's"
    )
    if loaded.missing:
        text += f", without {few(loaded.missing)}"
    if loaded.unused:
        text += f"; {len(loaded.unused)} of it are not used: {few(loaded.unused)}"
    if norms and all(bool((value == 1).all()) for value in norms):
        text += "; WARNING: its normalisation layers are as drawn: it looks as if never trained"
    return text


def few(names) -> str:
    """The first names of many, for messages."""
    names = sorted(names)
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _model(where: str, path: str, flag: str) -> tuple[nn.Module, set[str], tuple[str, ...]]:
    """The model with its weights, the names of those that it lacks, and of those to spare."""
    from safetensors import SafetensorError
    from transformers import AutoModel

    if Path(where).is_dir() and not (Path(where) / "config.json").is_file():
        raise FileNotFoundError(_absent(where, path, flag, OSError("there is no config.json")))
    try:
        model, info = AutoModel.from_pretrained(
            where,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=False,
        )
    except OSError as error:
        raise FileNotFoundError(_absent(where, path, flag, error)) from error
    except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{flag}: {path} cannot be loaded as a vision model of transformers; its "
            f"config.json and model.safetensors must belong together: {first_line(error)}"
        ) from error
    missing = {key for key in info["missing_keys"] if UNUSED not in key}
    spare = tuple(sorted(info["unexpected_keys"]))
    needed = sorted(key for key in missing if not set(key.split(".")) & set(POOLERS))
    wrong = needed + sorted(str(key[0]) for key in info["mismatched_keys"])
    if wrong:
        raise ValueError(
            f"{flag}: {path} leaves {len(wrong)} weights of the {model.config.model_type} "
            f"model unset: {', '.join(wrong[:5])}{', …' if len(wrong) > 5 else ''}"
            + (f"; it has other ones, such as {few(spare)}" if spare else "")
            + "; save the whole model with save_pretrained"
        )
    if model.main_input_name != "pixel_values" and not hasattr(model, "get_image_features"):
        raise ValueError(
            f"{flag}: {path} is a {model.config.model_type} model, which does not take "
            "pictures; give a vision model, e.g. facebook/dinov2-small"
        )
    return model, missing, spare


def _absent(where: str, path: str, flag: str, error: OSError) -> str:
    folder = Path(where)
    if folder.is_dir():
        names = {file.name for file in folder.iterdir()}
        others = sorted(n for n in names if n.endswith((".bin", ".pth", ".pt", ".ckpt")))
        if "config.json" in names and others:
            return (
                f"{flag}: {path} has {others[0]} but no model.safetensors; pickles are not "
                "read. Load it with its own code, then model.save_pretrained(DIR)"
            )
        return (
            f"{flag}: {path} must hold config.json and model.safetensors, as "
            f"save_pretrained writes them: {first_line(error)}"
        )
    if folder.exists() or folder.is_absolute() or path.startswith((".", "~")):
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        return f"{flag}: {path} {what}; give a folder with config.json and model.safetensors"
    return (
        f"{flag}: {path} is no folder here and cannot be had from the hub "
        f"({first_line(error)}). Where there is a network, run `hf download {path} --local-dir "
        f"DIR`, copy DIR here, and give it with --{flag} DIR"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, to be woven into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _normalisation(where: str) -> tuple[tuple, tuple]:
    """Mean and deviation by which the model's pictures were normalised."""
    from transformers.utils import cached_file

    file = cached_file(
        where,
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if file is None:
        return MEAN, STD
    try:
        said = json.loads(Path(file).read_text(encoding="utf-8"))
        if not said.get("do_normalize", True):
            return (0.0,) * 3, (1.0,) * 3
        mean, std = (
            tuple(np.broadcast_to(np.asarray(said.get(key, default), np.float64), 3).tolist())
            for key, default in (("image_mean", MEAN), ("image_std", STD))
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: image_mean and image_std must be 3 numbers each: {error}"
        ) from error
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and min(std) > 0):
        raise ValueError(f"{file}: image_mean {mean} and image_std {std} must be finite, std > 0")
    return mean, std


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No load report and no bars of transformers: we say ourselves what is wrong."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
