# SPDX-License-Identifier: Apache-2.0
"""Commands: one file each, found by its module name.

A command is a module of this folder with a docstring, a dataclass `Config` (see
`viewsynth.config`) and a function `run(config) -> int | None`, which returns the exit status. A
ValueError or an OSError from `run` is an error in the user's input: it is printed as one line, with
status 2. The command of `train_sd_reid.py` is called `train-sd-reid`, with hyphens.

`--help` imports the module of the command, so it must be importable without torch: heavy modules
are imported by the functions that use them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

STDOUT = 1  # file descriptor


def names() -> list[str]:
    """The available commands, as they are typed."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def summary(name: str) -> str:
    """The first line of a command's docstring, read without importing the module."""
    source = (Path(__path__[0]) / f"{_module(name)}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def main(name: str, argv: list[str] | None = None, prog: str | None = None) -> None:
    """Parse the options of a command, run it, and exit with its status.

    `VIEWSYNTH_DEBUG=1` shows the traceback of a one-line error.

    Args:
        name: Name of the command.
        argv: Its arguments, None = those of the program.
        prog: Name of the program in help and errors, None = `viewsynth <name>`.

    Raises:
        SystemExit: always.
    """
    from viewsynth import config

    prog = prog or f"viewsynth {name.replace('_', '-')}"
    with piped():
        command = importlib.import_module(f"viewsynth.commands.{_module(name)}")
        parsed = config.parse(command.Config, argv, prog)
        try:
            status = command.run(parsed)
        except KeyboardInterrupt:
            config.fail(prog, "stopped; run the same command again to continue", status=130)
        except (ValueError, OSError) as error:
            if os.environ.get("VIEWSYNTH_DEBUG"):
                raise
            # Wrong input fails in every process, a full disk perhaps in one only.
            own = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            config.fail(prog, str(error), everyone=own)
        sys.exit(status or 0)


def _module(name: str) -> str:
    return name.replace("-", "_")


@contextlib.contextmanager
def piped() -> Iterator[None]:
    """Survive a closed standard output or standard error, as after `| head`.

    Later output is dropped; the command continues and exits with its own status, so that
    `viewsynth evaluate … | head -3` still writes all its files.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Outlet(sys.stdout), _Outlet(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class _Outlet:
    """A stream that drops output once its reader has closed it, or if it never was open.

    If standard output cannot be written for another reason, such as a full disk, the command ends
    with one line and status 2.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream or Path(os.devnull).open("w")  # noqa: SIM115 - None: `>&-`

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._open():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._open():
            self.stream.flush()

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # the rest of the buffer is dropped as well
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
            if self.stream.fileno() == STDOUT and not isinstance(error, BrokenPipeError):
                why = f"standard output cannot be written: {error.strerror}; redirect it elsewhere"
                sys.stderr.write(f"viewsynth: error: {why}\n")
                raise SystemExit(2) from error
