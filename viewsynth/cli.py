# SPDX-License-Identifier: Apache-2.0
"""`viewsynth <command> [preset.yaml ...] [--options]`; `viewsynth --help` lists the commands."""

from __future__ import annotations

import difflib
import sys

from viewsynth import commands


def overview() -> str:
    """What there is to run, one line each."""
    lines = [f"  {name:<10} {commands.summary(name)}" for name in commands.names()]
    return "\n".join(
        ["usage: viewsynth <command> [preset.yaml ...] [--options]", "", "commands:", *lines, "",
         "viewsynth <command> --help lists the options of a command."]
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """The program `viewsynth`."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview() + "\n")
        return
    if argv[0] == "--version":
        from viewsynth import __version__

        sys.stdout.write(__version__ + "\n")
        return
    name = argv[0].replace("-", "_")
    if name not in commands.names():
        near = difflib.get_close_matches(name, commands.names(), 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(commands.names())}"
        sys.stderr.write(f"viewsynth: error: no command {argv[0]!r}; {hint}\n")
        raise SystemExit(2)
    commands.main(name, argv[1:])
