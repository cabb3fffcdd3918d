# SPDX-License-Identifier: Apache-2.0
"""Runs chains of `viewsynth` commands for the pipelines of this folder, each in its own process."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from viewsynth.runtime.workers import cores

START = (
    "from viewsynth.runtime import workers; workers.end_with_parent(); "
    "from viewsynth import cli; cli.main()"
)


def follow(chain: list[list[str]], jobs: int = 1) -> int:
    """Run commands in sequence, up to the first that fails.

    Args:
        chain: Arguments of each command, e.g. ["world", "--output", "DIR"].
        jobs: Number of chains that share the CPU cores.
    Returns: Exit status of the command that failed, else 0.
    """
    environ = {"OMP_NUM_THREADS": f"{max(1, cores() // jobs)}"} | os.environ
    for words in chain:
        sys.stderr.write(f"$ {shlex.join(['viewsynth', *words])}\n")
        if status := subprocess.run([sys.executable, "-c", START, *words], env=environ).returncode:
            return abs(status)  # negative for a signal
    return 0


def follow_all(chains: list[list[list[str]]], jobs: int) -> int:
    """Run independent chains, `jobs` at a time.

    Args:
        chains: See `follow`.
        jobs: Number of chains that run at the same time.
    Returns: Exit status of a command that failed, else 0.
    """
    with ThreadPoolExecutor(jobs) as pool:
        return max(pool.map(lambda chain: follow(chain, jobs), chains))
