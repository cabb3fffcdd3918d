# SPDX-License-Identifier: Apache-2.0
"""Commands: one file each, found by its module name.

A command is a module of this folder with a docstring, a dataclass `Config` (see
`viewsynth.config`) and a function `run(config) -> int | None`, the exit status. A ValueError or an
OSError that `run` raises is what the user gave: it becomes one line and status 2. The command of
`train_sd_reid.py` is called `train-sd-reid`, with hyphens.
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
    """The commands that there are, as they are typed."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def summary(name: str) -> str:
    """The first line of a command's docstring, read without importing it."""
    source = (Path(__path__[0]) / f"{_module(name)}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def main(name: str, argv: list[str] | None = None, prog: str | None = None) -> None:
    """Run a command as a program: parse, run, and leave with its status.

    `VIEWSYNTH_DEBUG=1` shows the traceback behind a one-line error.
    """
    from viewsynth import config

    prog = prog or f"viewsynth {name.replace('_', '-')}"
    with piped():
        command = importlib.import_module(f"viewsynth.commands.{_module(name)}")
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


def _module(name: str) -> str:
    return name.replace("-", "_")


@contextlib.contextmanager
def piped() -> Iterator[None]:
    """Let whoever reads standard output or standard error leave, as `head` does.

    What is written after that is dropped; the command goes on and ends with its own status, so
    that `viewsynth evaluate … | head -3` still leaves all its files.
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
    """A stream that leads nowhere once nobody reads it, or if it was closed from the start.

    Standard output that cannot be written for another reason, such as a full disk, ends the
    command: one line and status 2.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream or Path(os.devnull).open("w")  # None: started with `>&-`

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
        except OSError as error:  # what waits in the buffer goes the same way
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
            if self.stream.fileno() == STDOUT and not isinstance(error, BrokenPipeError):
                why = f"standard output cannot be written: {error.strerror}; write it elsewhere"
                sys.stderr.write(f"viewsynth: error: {why}\n")
                raise SystemExit(2) from error
