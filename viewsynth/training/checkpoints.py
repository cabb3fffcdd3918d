# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training: whole or not there, the newest valid one wins.

`train` writes them. A checkpoint is a folder `checkpoint-<step>` with `model.safetensors`,
`optimizer.safetensors` and `state.json`, staged aside and renamed; `state.json` holds the hashes of
the others, so one that was cut short is seen and passed over. No pickle: the learning rate and the
order of the data are functions of the step, so there is nothing else to keep.
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
    """Write a checkpoint, then delete all but it and the newest ones before it.

    Args:
        run: Folder of the training.
        step: How many steps are done.
        tensors: Name of a file, without suffix -> its tensors.
        state: What is plain JSON.
        keep: How many stay, > 1: the newest may be found broken.
    Raises: files.WriteError: if it cannot be written; older ones are untouched.
    """
    staged, final = run / f"{LEFTOVER}{uuid.uuid4().hex}", run / f"{NAME}{step}"
    hashes = {}
    for name, values in tensors.items():
        data = to_bytes({key: value.detach().cpu().contiguous() for key, value in values.items()})
        write(staged / f"{name}.safetensors", data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    text = json.dumps({"step": step, "sha256": hashes, **state}, indent=1) + "\n"
    write(staged / STATE, text.encode())
    if final.exists():  # of a run that went on from an older one
        shutil.rmtree(final)
    staged.rename(final)
    settle({run})
    newer = [path for path in _all(run) if _step(path) > step]  # broken, or we would not be here
    for old in newer + [path for path in _all(run) if path not in newer][keep:]:
        shutil.rmtree(old)
    return final


def newest(run: Path) -> Path | None:
    """The newest checkpoint that is whole; None if there is none at all.

    Raises: ValueError: if there are some, and none is whole.
    """
    for folder in _all(run):
        if why := _broken(folder):
            logger.warning("%s is passed over: %s", folder, why)
        else:
            return folder
    if broken := _all(run):
        raise ValueError(
            f"none of the {len(broken)} checkpoints in {run} is whole; delete them to start anew, "
            "or put a good one back"
        )
    return None


def steps_done(run: Path) -> int:
    """Steps that the newest checkpoint has done; 0 without one. Raises: see `newest`."""
    folder = newest(run)
    return _step(folder) if folder else 0


def read_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """Tensors, file by file, and state.

    Raises: ValueError: if it is not whole.
    """
    if why := _broken(folder):
        raise ValueError(
            f"the checkpoint {folder} is not whole: {why}; delete it, then an older one is taken"
        )
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    names = state["sha256"]
    return {name: load((folder / f"{name}.safetensors").read_bytes()) for name in names}, state


def _all(run: Path) -> list[Path]:
    """The checkpoints, newest first."""
    found = [path for path in run.glob(f"{NAME}*") if path.name[len(NAME) :].isdigit()]
    return sorted(found, key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name[len(NAME) :])


def _broken(folder: Path) -> str:
    """What is wrong with a checkpoint; "" if nothing is."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        for name, digest in state["sha256"].items():
            if sha256(folder / f"{name}.safetensors") != digest:
                return f"{name}.safetensors is cut short or changed"
        return "" if f"{NAME}{state['step']}" == folder.name else f"it is of step {state['step']}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{STATE} cannot be read ({error})"


# ---- optimisers ----------------------------------------------------------------------------------


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, as named tensors."""
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, for an optimiser of the same parameters.

    A file knows no memory layouts, so each tensor gets that of its parameter: see `check_layout`.
    Raises: ValueError: if the tensors are not of these parameters.
    """
    parameters = dict(enumerate(_parameters(optimizer)))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters.get(int(index))
        if parameter is None or (value.ndim and value.shape != parameter.shape):
            raise ValueError(f"the optimiser has no parameter for {name} {tuple(value.shape)}")
        # A number, such as a count of steps, stays as it is; what is copied is nobody else's.
        own = torch.empty_like(parameter, dtype=value.dtype) if value.ndim else value
        state.setdefault(int(index), {})[key] = own.copy_(value) if value.ndim else value.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    check_layout(optimizer)


def check_layout(optimizer: torch.optim.Optimizer) -> None:
    """See that what an optimiser remembers lies in memory as its parameters do.

    torch's fused steps go through parameter, gradient and state in the order of the memory: where
    one is channels last and another is not, they put together what does not belong together, and
    say nothing.
    Raises: AssertionError: if a tensor lies otherwise; the steps to come would be wrong.
    """
    for number, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            one = torch.is_tensor(value) and value.shape == parameter.shape
            if one and value.stride() != parameter.stride():
                raise AssertionError(
                    f"{key} of parameter {number} has strides {value.stride()}, the parameter "
                    f"{parameter.stride()}: a fused optimiser would mix up its elements"
                )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """In the order in which an optimiser numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


# ---- of a loop that accelerate runs --------------------------------------------------------------


def save(
    run: Path, step: int, tensors: dict[str, Mapping], optimizer, accelerator, figures: dict
) -> None:
    """Write a checkpoint of a loop.

    Args:
        tensors: Weights by kind: "model", and what else the loop has.
        figures: What was measured at this step.
    """
    tensors = tensors | {"optimizer": optimizer_tensors(optimizer)}
    scaler = accelerator.scaler.state_dict() if accelerator.scaler else {}
    write_checkpoint(run, step, tensors, {"scaler": scaler, "figures": figures})


def resume(run: Path, put: Callable[[dict], None], optimizer, accelerator) -> int:
    """Go back to the newest checkpoint of a loop.

    Args:
        put: Takes the tensors that `save` got; raises if they are not of this model.
    Returns: how many steps are done; 0 without a checkpoint.
    Raises: ValueError: if it is of another model or optimiser.
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
            f"{folder} is of another model or optimiser: {str(error).splitlines()[0]}; give "
            "another --output"
        ) from error
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    return state["step"]
