# SPDX-License-Identifier: Apache-2.0
"""Reads feature files of other programs: float32 rows and their names.

`features.load` calls `read`; `matching` then finds the samples' rows. The format is detected by
content, not by file name:

- safetensors: a tensor "features" and metadata "names", a JSON list;
- .npz: arrays "features" and "names"; .npy: the features alone;
- .pt, .pth: a dict with "features" and "names", a dict name -> vector, or the features alone.

Names that are not in the file are read from a name file (see `name_files`), which is given or lies
in the same folder with the same stem. Pickled code is never executed.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from viewsynth.evaluate import name_files
from viewsynth.evaluate.name_files import LISTS
from viewsynth.runtime.messages import first_names

FLOATS = ("float32", "float16", "bfloat16", "float64")
CONVERT = """
  import json; from safetensors.torch import save_file
  names = [...]  # one per row, relative to the data set: "query/Cam1/Cam1_day_0007_3.jpg"
  save_file({"features": features.float().contiguous()}, "features.safetensors",
            metadata={"names": json.dumps(names)})"""
PICKLE = """
  import torch; data = torch.load("FILE", weights_only=False)  # or pickle.load; trusted files only
  features = torch.as_tensor(data["features"]); names = list(data["names"])  # adapt the keys"""
OWN_NAMES = {
    "safetensors": 'metadata "names", a JSON list of the samples\' names',
    "npz": 'an array "names", the samples\' names as texts',
    "npy": "a file of the samples' names next to it",
    "pt": 'an entry "names", a list of the samples\' names',
}


@dataclass(frozen=True)
class Read:
    """Content of a feature file.

    Args:
        rows: One row per name.  float32 [N, D]
        names: Names of the rows, as written in the file.
        about: Other metadata, e.g. "model" and "parts".
        notes: Conversions that were applied, one line each.
    """

    rows: np.ndarray
    names: list[str]
    about: dict[str, str]
    notes: list[str]


def read(path: Path, listing: Path | None = None) -> Read:
    """Read a feature file and check its shape, type and number of names.

    Args:
        path: File of one of the formats above.
        listing: Name file, which takes precedence over names in `path`; None = names in `path`,
            else a name file in the same folder.

    Raises:
        FileNotFoundError: if `path` or `listing` does not exist.
        ValueError: if the file cannot be read, or does not hold floating-point numbers [N, D] with
            N names.
    """
    for what, file in (("features", path), ("names", listing)):
        if file is not None and not file.is_file():
            raise FileNotFoundError(f"{what}: there is no file {file}")
    kind = _kind(path)
    array, names, about = READERS[kind](path)
    notes: list[str] = []
    if listing is not None or names is None:
        listing = listing or _find_listing(path, kind)
        notes = [f"the rows of {path.name} are named by {listing.name}"]
        names = name_files.read(listing)
    rows, converted = _float32(path, array)
    rows, reshaped = _matrix(path, rows, names, f" in {listing}" if listing else "")
    return Read(rows, names, about, [*notes, *converted, *reshaped])


# ---- formats -------------------------------------------------------------------------------------

Content = tuple[np.ndarray | torch.Tensor, list[str] | None, dict[str, str]]


def _kind(path: Path) -> str:
    """Format of a file, detected by its content."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as file:
                inside = file.namelist()
        except zipfile.BadZipFile as error:
            raise _unreadable(path, ".npz or .pt", error) from error
        return "pt" if any(name.endswith("data.pkl") for name in inside) else "npz"
    if head[:1] == b"\x80":
        return "pt"  # the format of torch before version 1.6, or another pickle
    raise ValueError(
        f"features: {path} {'is empty' if not head else 'is none of the supported formats'}; "
        "expected safetensors, .npy, .npz, .pt or .pth. Convert it where it was created:" + CONVERT
    )


def _safetensors(path: Path) -> Content:
    try:
        with safe_open(path, "pt") as file:
            about, keys = file.metadata() or {}, list(file.keys())
            rows = file.get_tensor("features") if "features" in keys else None
    except SafetensorError as error:
        raise _unreadable(path, "safetensors", error) from error
    if rows is None:
        raise ValueError(
            f'features: {path} must hold a tensor "features", [N, D]; it has '
            f"{first_names(keys) or 'none'}"
        )
    if "names" not in about:
        return rows, None, about
    try:
        names = json.loads(about["names"])
    except ValueError:
        names = None
    return rows, _texts(path, names, "safetensors"), about


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, ".npy", error) from error


def _npz(path: Path) -> Content:
    try:
        with np.load(path, allow_pickle=False) as file:
            keys = file.files
            found = {key: file[key] for key in ("features", "names") if key in keys}
    except Exception as error:  # damaged and hostile archives raise many types
        raise _unreadable(path, ".npz", error) from error
    if "features" not in found:
        raise ValueError(
            f'features: {path} must hold arrays "features", [N, D], and "names"; it has '
            f"{first_names(keys) or 'none'}; write it by "
            "np.savez(file, features=features, names=names)"
        )
    names = found.get("names")
    if names is not None:
        names = _texts(path, name_files.decoded(names), "npz")
    return found["features"], names, {}


def _pt(path: Path) -> Content:
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles, which are refused anyway
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"features: {path} cannot be read without running code"
            f"{f' ({found[1]})' if found else ''}: only tensors, numbers, texts, lists and dicts "
            "are read from pickles. Convert it where it was created:"
            + PICKLE.replace("FILE", path.name)
            + CONVERT.replace("  names = [...]  #", "  # names")
        ) from error
    except Exception as error:  # damaged files raise many types
        raise _unreadable(path, ".pt", error) from error
    if isinstance(data, torch.Tensor):
        return _dense(path, data), None, {}
    if isinstance(data, dict) and isinstance(data.get("features"), torch.Tensor):
        names = data.get("names")
        if names is not None:
            names = _texts(path, list(names) if isinstance(names, tuple) else names, "pt")
        about = {"model": data["model"]} if isinstance(data.get("model"), str) else {}
        return _dense(path, data["features"]), names, about
    if isinstance(data, dict) and _vectors(data):
        return torch.stack([_dense(path, row) for row in data.values()]), list(data), {}
    keys = f" of {first_names(list(map(str, data))) or 'nothing'}" if isinstance(data, dict) else ""
    raise ValueError(
        f'features: {path} must hold a dict with "features", a tensor [N, D], and "names"; a dict '
        f"name -> vector; or a tensor [N, D]; it has a {type(data).__name__}{keys}"
    )


def _vectors(data: dict) -> bool:
    """Whether a dict maps names to vectors of one length, unlike e.g. the weights of a model."""
    if not all(isinstance(v, torch.Tensor) for v in data.values()):
        return False
    shapes = {(v.shape, v.dtype) for v in data.values()}
    return (
        len(shapes) == 1
        and all(isinstance(key, str) for key in data)
        and sum(size != 1 for size in next(iter(shapes))[0]) == 1
    )


def _dense(path: Path, tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise ValueError(
            f"features: {path} must hold dense tensors; got {tensor.layout} on {tensor.device}; "
            "convert them with features.to_dense().cpu()"
        )
    return tensor.detach()


READERS: dict[str, Callable[[Path], Content]] = {
    "safetensors": _safetensors,
    "npz": _npz,
    "pt": _pt,
    "npy": lambda path: (_array(path), None, {}),
}


def _texts(path: Path, names: object, kind: str) -> list[str]:
    return name_files.texts(
        names, f"features: {path} must have {OWN_NAMES[kind]}", f". Write it as follows:{CONVERT}"
    )


def _unreadable(path: Path, form: str, error: Exception) -> ValueError:
    first = (str(error) or type(error).__name__).splitlines()[0]
    hint = ""
    if "allow_pickle" in first or "Python objects" in first:
        first = "it holds Python objects, which can run code"
        hint = "; save numbers as float32 and names as np.array(names), an array of texts"
    return ValueError(
        f"features: {path} is no readable {form} file ({first}){hint}. Copy it again, or convert "
        f"it where it was created:{CONVERT}"
    )


def _find_listing(path: Path, kind: str) -> Path:
    """Name file in the folder of a feature file. Raises: ValueError: unless there is one."""
    listed = [path.with_suffix(suffix) for suffix in LISTS]
    there = [file for file in listed if file != path and file.is_file()]
    if len(there) > 1:
        raise ValueError(
            f"names: next to {path} there are {' and '.join(file.name for file in there)}; say "
            "which one has its names with --names FILE"
        )
    if not there:
        raise ValueError(
            f"features: {path} must have {OWN_NAMES[kind]}; or give the names in a file, in the "
            f"order of the rows, with --names FILE or as {path.stem}.txt, .csv or .json in the "
            f"same folder; or write one file as follows:{CONVERT}"
        )
    return there[0]


# ---- values --------------------------------------------------------------------------------------


def _float32(path: Path, array: np.ndarray | torch.Tensor) -> tuple[np.ndarray, list[str]]:
    """Convert values to float32; integers are refused, because their scale is unknown.

    Values out of range become infinite, which `features.load` refuses.
    """
    kind = getattr(array.dtype, "name", str(array.dtype).removeprefix("torch."))
    if kind not in FLOATS:
        bare = " (raw bytes, as numpy stores bfloat16)" if kind.startswith("void") else ""
        raise ValueError(
            f"features: {path} must hold floating-point numbers, {', '.join(FLOATS)}; got {kind}"
            f"{bare}, {list(array.shape)}; convert them to float32 where they were created "
            "(quantised values with their scale and zero point)"
        )
    if isinstance(array, torch.Tensor):
        rows = array.float().numpy()
    else:
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(array, np.float32)
    return rows, [] if kind == "float32" else [f"{path.name} holds {kind}: converted to float32"]


def _matrix(
    path: Path, rows: np.ndarray, names: Sequence[str], where: str
) -> tuple[np.ndarray, list[str]]:
    """Reshape values to [N, D] by removing axes of size 1.

    Raises:
        ValueError: If there are further axes, or N differs from the number of names.
    """
    shape, count, notes = rows.shape, len(names), []
    if len(shape) > 2:
        long = tuple(size for size in shape if size != 1)
        flat = [(shape[0], math.prod(shape[1:]))] if sum(n != 1 for n in shape[1:]) < 2 else []
        flat += [long] if len(long) == 2 else []
        fitting = [one for one in flat if one[0] == count] or flat[:1]
        if fitting:
            rows = rows.reshape(fitting[0])
            notes = [f"{path.name} is {list(shape)}: read as {list(rows.shape)}"]
    if rows.ndim != 2:
        raise ValueError(
            f"features: {path} must be [N, D], one row per sample; got {list(shape)} for {count} "
            f"names{where}; {_wrong_axes(shape, count)}"
        )
    if len(rows) != count:
        hint = (
            "; it is [D, N], transposed: save features.T"
            if rows.shape[1] == count
            else "; each row needs one name, in the order of the rows"
        )
        raise ValueError(
            f"features: {path} has {len(rows)} rows but {count} names{where}"
            f"{hint if rows.shape[1] else ''}"
        )
    return rows, notes


def _wrong_axes(shape: tuple[int, ...], count: int) -> str:
    """Explain which axes are missing or too many for [N, D], and how to change the shape."""
    if len(shape) < 2:
        return f"{'an axis is' if shape else 'two axes are'} missing: a row has several numbers"
    own = shape.index(count) if count in shape else 0
    if own:
        return (
            f"axis {own} is that of the {count} names and must come first: "
            f"features.movedim({own}, 0), then one row a sample"
        )
    others = [axis for axis in range(1, len(shape)) if shape[axis] != 1]
    # Axes of frames or parts precede D, height and width of a feature map follow it.
    many = others[1:] if len(others) == 3 else others[:-1]
    axes = " and ".join(f"axis {axis} of size {shape[axis]}" for axis in many)
    one = len(many) == 1
    return (
        f"{axes} {'is' if one else 'are'} too many (frames, parts or a feature map?): take the "
        f"mean, features.mean({many[0] if one else tuple(many)}), or flatten, "
        f"features.reshape({shape[0]}, -1)"
    )
