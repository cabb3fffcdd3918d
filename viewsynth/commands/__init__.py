# SPDX-License-Identifier: Apache-2.0
"""Commands: one file each, found by its module name.

A command is a module of this folder with a docstring, a dataclass `Config` (see
`viewsynth.config`) and a function `run(config) -> int | None`, the exit status. A ValueError or an
OSError that `run` raises is what the user gave: it becomes one line and status 2.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
from pathlib import Path


def names() -> list[str]:
    """The commands that there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def summary(name: str) -> str:
    """The first line of a command's docstring, read without importing it."""
    source = (Path(__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def main(name: str, argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run a command as a program: parse, run, and leave with its status.

    `VIEWSYNTH_DEBUG=1` shows the traceback behind a one-line error.
    """
    from viewsynth import config

    prog = prog or f"viewsynth {name}"
    command = importlib.import_module(f"viewsynth.commands.{name}")
    parsed = config.parse(command.Config, argv, prog)
    try:
        status = command.run(parsed)
    except KeyboardInterrupt:
        config.fail(prog, "stopped; run the same command again to go on", status=130)
    except (ValueError, OSError) as error:
        if os.environ.get("VIEWSYNTH_DEBUG"):
            raise
        # What the user gave, every process sees; a full disk may be one process's own.
        own = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        config.fail(prog, str(error), everyone=own)
    sys.exit(status or 0)
