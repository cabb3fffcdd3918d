# SPDX-License-Identifier: Apache-2.0
"""Loading of pretrained vision models of `transformers`, with a check of every weight.

`load` -> reid.encoders (used unchanged), reid.backbones (trained further). Only safetensors are
read. A checkpoint that leaves a weight of the model unset is an error: a model that is loaded in
part runs, but its features are poor.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from viewsynth.runtime.messages import first_names

MEAN = STD = (0.5, 0.5, 0.5)  # of a model without preprocessor_config.json
# Parts that a checkpoint may lack: the first two compute the pooled output, which is then not used;
# the last replaces masked patches, which occur in pretraining only.
POOLERS, UNUSED = ("pooler", "head"), "mask_token"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A loaded model.

    Args:
        model: The model, in float32, on the CPU.
        name: Hub id, or name of the folder.
        mean: Mean of each channel that pixels in [0, 1] are normalised by.
        std: Standard deviation of each channel.
        missing: Names of the model's weights that the checkpoint lacks; of a pooler only.
        unused: Names of the checkpoint's weights that the model does not have.
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
        flag: The option that set `path`, for messages.

    Raises:
        FileNotFoundError: if there is no such folder, and it cannot be downloaded.
        ValueError: if it is not a vision model, or its checkpoint does not match it.
    """
    folder = Path(path).expanduser()
    where, name = (str(folder), folder.resolve().name) if folder.is_dir() else (path, path)
    with quiet():
        model, missing, unused = _model(where, path, flag)
        mean, std = _normalisation(where)
    return Pretrained(
        model=model, name=name, mean=mean, std=std, missing=frozenset(missing), unused=unused
    )


def tokenizer(path: str) -> Callable[[str], list[int]]:
    """The tokenizer of a model: text -> numbers of its words, from start to end of the text.

    Args:
        path: As of `load`.

    Raises:
        ValueError: If it has none.
    """
    from transformers import AutoTokenizer

    folder = Path(path).expanduser()
    try:
        with quiet():
            found = AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else path)
        # Without its files, transformers makes one that knows no word.
        if len(set(found("photo person")["input_ids"])) < 4:
            raise ValueError("it knows no words; its files are missing")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the tokenizer of {path} cannot be loaded: {first_line(error)}; save it beside the "
            "model with save_pretrained"
        ) from error
    return lambda text: found(text)["input_ids"]


def loading_report(loaded: Pretrained) -> str:
    """How many weights of a model come from the checkpoint, as one line for the log of a run.

    It warns of a checkpoint whose normalisation layers all have their initial values, which was
    probably never trained: training from the wrong weights is the most common failure of the field.

    Args:
        loaded: From `load`.

    Returns:
        e.g. "vit-base: 198 of 198 weights are the checkpoint's; 2 of it are not used: ...".
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
        text += f", without {first_names(sorted(loaded.missing))}"
    if loaded.unused:
        text += f"; {len(loaded.unused)} of it are not used: {first_names(sorted(loaded.unused))}"
    if norms and all(bool((value == 1).all()) for value in norms):
        text += "; WARNING: its normalisation layers have their initial values: it looks untrained"
    return text


def _model(where: str, path: str, flag: str) -> tuple[nn.Module, set[str], tuple[str, ...]]:
    """The model, the names of the weights it lacks, and those of unused checkpoint weights."""
    from safetensors import SafetensorError
    from transformers import AutoModel

    from viewsynth.reid import osnet

    osnet.register()
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
    unused = tuple(sorted(info["unexpected_keys"]))
    needed = sorted(key for key in missing if not set(key.split(".")) & set(POOLERS))
    wrong = needed + sorted(str(key[0]) for key in info["mismatched_keys"])
    if wrong:
        raise ValueError(
            f"{flag}: {path} leaves {len(wrong)} weights of the {model.config.model_type} "
            f"model unset: {', '.join(wrong[:5])}{', …' if len(wrong) > 5 else ''}"
            + (f"; it has others, such as {first_names(sorted(unused))}" if unused else "")
            + "; save the whole model with save_pretrained"
        )
    if model.main_input_name != "pixel_values" and not hasattr(model, "get_image_features"):
        raise ValueError(
            f"{flag}: {path} is a {model.config.model_type} model, which does not take "
            "images; give a vision model, e.g. facebook/dinov2-small"
        )
    return model, missing, unused


def _absent(where: str, path: str, flag: str, error: OSError) -> str:
    """The message for a model that cannot be found."""
    folder = Path(where)
    if folder.is_dir():
        names = {file.name for file in folder.iterdir()}
        others = sorted(n for n in names if n.endswith((".bin", ".pth", ".pt", ".ckpt")))
        if "config.json" in names and others:
            return (
                f"{flag}: {path} has {others[0]} but no model.safetensors; pickles are not "
                "read. Load it with its original code and call model.save_pretrained(DIR)"
            )
        return (
            f"{flag}: {path} must hold config.json and model.safetensors, as "
            f"save_pretrained writes them: {first_line(error)}"
        )
    if folder.exists() or folder.is_absolute() or path.startswith((".", "~")):
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        return f"{flag}: {path} {what}; give a folder with config.json and model.safetensors"
    return (
        f"{flag}: {path} is not a local folder and cannot be downloaded from the hub "
        f"({first_line(error)}). On a machine with a network, run `hf download {path} --local-dir "
        f"DIR`, copy DIR here, and give it with --{flag} DIR"
    )


def first_line(error: Exception) -> str:
    """The first line of an error's message, without its final period."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _normalisation(where: str) -> tuple[tuple, tuple]:
    """Mean and standard deviation that the model's inputs were normalised by."""
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
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        if not config.get("do_normalize", True):
            return (0.0,) * 3, (1.0,) * 3
        mean, std = (
            tuple(np.broadcast_to(np.asarray(config.get(key, default), np.float64), 3).tolist())
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
    """Silence the load reports and progress bars of transformers; `load` raises errors instead."""
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
