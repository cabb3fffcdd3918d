# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training run: each is complete or absent, and the newest complete one is used.

A checkpoint is a folder `checkpoint-<step>` with `model.safetensors`, `optimizer.safetensors` and
`state.json`. It is written under another name and then renamed; `state.json` holds the hashes of
the other files, so a truncated checkpoint is detected and skipped. No pickle: the learning rate and
the order of the data are functions of the step, so nothing else needs to be saved.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load
from safetensors.torch import save as to_bytes
from torch import Tensor

from viewsynth.runtime.files import LEFTOVER, settle, sha256, write

NAME = "checkpoint-"
STATE = "state.json"

logger = logging.getLogger(__name__)


def write_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: dict, keep: int = 2
) -> Path:
    """Write a checkpoint, then delete older ones.

    Args:
        run: Folder of the training run.
        step: Number of steps that are done.
        tensors: Name of a file, without suffix -> its tensors.
        state: Everything else, as JSON types.
        keep: How many checkpoints remain, > 1, in case the newest one is damaged later.

    Raises:
        files.WriteError: If it cannot be written; older checkpoints are untouched.
    """
    staged, final = run / f"{LEFTOVER}{uuid.uuid4().hex}", run / f"{NAME}{step}"
    hashes = {}
    for name, values in tensors.items():
        data = to_bytes({key: value.detach().cpu().contiguous() for key, value in values.items()})
        write(staged / f"{name}.safetensors", data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    text = json.dumps({"step": step, "sha256": hashes, **state}, indent=1) + "\n"
    write(staged / STATE, text.encode())
    if final.exists():  # of a run that resumed from an older one
        shutil.rmtree(final)
    staged.rename(final)
    settle({run})
    # Damaged ones: else the run had resumed from them.
    newer = [path for path in _all(run) if _step(path) > step]
    for old in newer + [path for path in _all(run) if path not in newer][keep:]:
        shutil.rmtree(old)
    return final


def newest(run: Path) -> Path | None:
    """The newest complete checkpoint; None if there is no checkpoint at all.

    Raises:
        ValueError: If there are checkpoints, but none is complete.
    """
    for folder in _all(run):
        if why := _broken(folder):
            logger.warning("%s is skipped: %s", folder, why)
        else:
            return folder
    if broken := _all(run):
        raise ValueError(
            f"none of the {len(broken)} checkpoints in {run} is whole; delete them to start again, "
            "or restore one"
        )
    return None


def steps_done(run: Path) -> int:
    """Number of steps in the newest checkpoint; 0 without one. See `newest`."""
    folder = newest(run)
    return _step(folder) if folder else 0


def read_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """Tensors by file name, and state.

    Raises:
        ValueError: If it is not complete.
    """
    if why := _broken(folder):
        raise ValueError(
            f"the checkpoint {folder} is not whole: {why}; delete it to resume from an older one"
        )
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    names = state["sha256"]
    return {name: load((folder / f"{name}.safetensors").read_bytes()) for name in names}, state


def _all(run: Path) -> list[Path]:
    """All checkpoints, newest first."""
    found = [path for path in run.glob(f"{NAME}*") if path.name[len(NAME) :].isdigit()]
    return sorted(found, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name[len(NAME) :])


def _broken(folder: Path) -> str:
    """Why a checkpoint is not complete; "" if it is."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        for name, digest in state["sha256"].items():
            if sha256(folder / f"{name}.safetensors") != digest:
                return f"{name}.safetensors is cut short or changed"
        return "" if f"{NAME}{state['step']}" == folder.name else f"it is of step {state['step']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{STATE} cannot be read ({error})"


# ---- optimizers ----------------------------------------------------------------------------------


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimizer as named tensors."""
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load what `optimizer_tensors` returned into an optimizer of the same parameters.

    Files do not store memory layouts, so each tensor gets that of its parameter: see
    `check_layout`.

    Raises:
        ValueError: If the tensors are of other parameters.
    """
    parameters = dict(enumerate(_parameters(optimizer)))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters.get(int(index))
        if parameter is None or (value.ndim and value.shape != parameter.shape):
            raise ValueError(f"the optimizer has no parameter for {name} {tuple(value.shape)}")
        # Scalars, such as a count of steps, are kept; tensors are copied into the right layout.
        own = torch.empty_like(parameter, dtype=value.dtype) if value.ndim else value
        state.setdefault(int(index), {})[key] = own.copy_(value) if value.ndim else value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    check_layout(optimizer)


def check_layout(optimizer: torch.optim.Optimizer) -> None:
    """Check that the state of an optimizer has the memory layout of its parameters.

    torch's fused optimizers walk parameter, gradient and state in memory order. If one is channels
    last and another is not, they combine elements that do not belong together, without an error.

    Raises:
        AssertionError: If a layout differs; later steps would be wrong.
    """
    for number, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            one = torch.is_tensor(value) and value.shape == parameter.shape
            if one and value.stride() != parameter.stride():
                raise AssertionError(
                    f"{key} of parameter {number} has strides {value.stride()}, the parameter "
                    f"{parameter.stride()}: a fused optimizer would mix up its elements"
                )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Parameters in the order in which an optimizer numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


# ---- the checkpoint of a training loop -----------------------------------------------------------


def save(
    run: Path, step: int, tensors: dict[str, Mapping], optimizer, accelerator, figures: dict
) -> None:
    """Write the checkpoint of a training loop.

    Args:
        run: Folder of the training run.
        step: Number of steps that are done.
        tensors: Weights by kind: "model" and, with a moving average, "average".
        optimizer: Its state is saved.
        accelerator: Its gradient scaler is saved, if it has one.
        figures: Validation metrics of this step.
    """
    tensors = tensors | {"optimizer": optimizer_tensors(optimizer)}
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}
    write_checkpoint(run, step, tensors, {"scaler": scaler, "figures": figures})


def resume(run: Path, put: Callable[[dict], None], optimizer, accelerator) -> int:
    """Load the newest checkpoint of a training loop.

    Args:
        run: Folder of the training run.
        put: Loads the tensors that `save` got; raises if they are of another model.
        optimizer: Its state is restored.
        accelerator: Its gradient scaler is restored, if it has one.

    Returns:
        Number of steps that are done; 0 without a checkpoint.

    Raises:
        ValueError: If the checkpoint is of another model or optimizer.
    """
    folder = newest(run)
    accelerator.wait_for_everyone()
    if folder is None:
        return 0
    tensors, state = read_checkpoint(folder)
    try:
        put(tensors)
        restore_optimizer(optimizer, tensors["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} is of another model or optimizer: {str(error).splitlines()[0]}; give "
            "another --output"
        ) from error
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    return state["step"]
