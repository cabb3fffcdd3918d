# SPDX-License-Identifier: Apache-2.0
"""Data: somebody's files in, `Sample`s out.

A data set is one file of this folder with a function `load(root) -> (samples, rejects)`; `load`
here finds it by name: `folder` takes anyone's own pictures. `images` reads the pixels, later.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from viewsynth.records import Reject, Sample

HELPERS = ("images",)  # modules of this folder that are no data sets


def names() -> list[str]:
    """The data sets that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in HELPERS)


def load(name: str, root: str | Path) -> tuple[list[Sample], list[Reject]]:
    """The samples of a data set, sorted by (pid, name), and what was left out and why.

    Args:
        name: One of `names()`.
        root: Where the data set lies.
    Raises:
        ValueError: if there is no such data set, or nothing in `root`.
        FileNotFoundError: if there is no `root`.
    """
    if name not in names():
        raise ValueError(f"data.name must be one of {', '.join(names())}; got {name!r}")
    return importlib.import_module(f"viewsynth.data.{name}").load(root)
