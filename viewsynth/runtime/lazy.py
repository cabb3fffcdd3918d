# SPDX-License-Identifier: Apache-2.0
"""Package attributes that are imported on first use, so that importing a package stays fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping


def lazy(
    package: str, modules: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package (PEP 562).

    Args:
        package: The package's `__name__`.
        modules: Module path relative to the package -> the names that the package offers from it.
            No name may be that of a submodule: importing the submodule would replace it.

    Returns:
        The three values, to be assigned in the package's `__init__.py`.
    """
    home = {name: f"{package}.{module}" for module, names in modules.items() for name in names}

    def load(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home[name]), name)

    return load, lambda: sorted({*vars(sys.modules[package]), *home}), sorted(home)
