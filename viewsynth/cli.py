# SPDX-License-Identifier: Apache-2.0
"""The program `viewsynth <command> [preset.yaml ...] [--options]`."""

from __future__ import annotations

import difflib
import sys

from viewsynth import commands


def overview() -> str:
    """The usage of the program, with one line per command."""
    names = commands.names()
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {commands.summary(name)}" for name in names]
    return "\n".join(
        [
            "usage: viewsynth <command> [preset.yaml ...] [--options]",
            "",
            "commands:",
            *lines,
            "",
            "viewsynth <command> --help lists the options of a command.",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    """Run the program.

    Args:
        argv: Its arguments, None = those of the process.

    Raises:
        SystemExit: with the status of the command.
    """
    argv = sys.argv[1:] if argv is None else argv
    with commands.piped():
        if not argv or argv[0] in ("-h", "--help", "help"):
            sys.stdout.write(overview() + "\n")
        elif argv[0] == "--version":
            from viewsynth import __version__

            sys.stdout.write(__version__ + "\n")
        elif argv[0] in commands.names():
            commands.main(argv[0], argv[1:])
        else:
            near = difflib.get_close_matches(argv[0].replace("_", "-"), commands.names(), 1)
            known = f"the commands are {', '.join(commands.names())}"
            hint = f"did you mean {near[0]}?" if near else known
            sys.stderr.write(f"viewsynth: error: no command {argv[0]!r}; {hint}\n")
            raise SystemExit(2)
