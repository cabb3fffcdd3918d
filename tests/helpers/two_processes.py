# SPDX-License-Identifier: Apache-2.0
"""Run a training command in two processes on the CPU, as `torchrun` does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(program: list[str], argv: list[str]) -> None:
    """Run a program; fail with the end of its output if it does.

    Args:
        program: A script, or "-m" and a module.
        argv: Its arguments.
    """
    torchrun = "-m torch.distributed.run --nproc_per_node 2 --master_port 0 --rdzv_backend c10d"
    done = subprocess.run(
        [sys.executable, *torchrun.split(), "--rdzv_endpoint", "localhost:0", *program, *argv],
        env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
