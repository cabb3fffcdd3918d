# SPDX-License-Identifier: Apache-2.0
"""Kill `generate` at random times, resume it, and compare its output with an undisturbed run.

    python benchmarks/kills.py --kills 20 --processes 2 -- --data.root DIR --chunk 1

All files except `run.json` and `config.yaml`, which contain host, times and command line, must be
equal to the byte. Prints the differences; the exit status is 1 if there are any, else 0.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def command(processes: int, output: Path, options: list[str]) -> list[str]:
    """Command line of `generate` with a number of processes."""
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "accelerate.commands.launch", "--multi_gpu"]
        launch += ["--num_processes", str(processes), "--main_process_port", "0"]
    return [*launch, str(ROOT / "generate.py"), "--output", str(output), *options]


def start(argv: list[str]) -> subprocess.Popen:
    env = {**os.environ, "ACCELERATE_USE_CPU": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(argv, env=env, stdout=quiet, stderr=quiet, start_new_session=True)


def content(output: Path) -> dict[str, bytes]:
    """Files that must be equal."""
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "config.yaml")
    }


def compare(name: str, output: Path, expected: dict[str, bytes]) -> bool:
    found = content(output)
    names = {k for k in found.keys() | expected.keys() if found.get(k) != expected.get(k)}
    listed = ", ".join(sorted(names)[:5]) or "no difference"
    print(f"{name}: {len(found)} files, {len(names)} differ: {listed}")
    return not names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("options", nargs="*", help="options of generate, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed, killed = Path(folder) / "undisturbed", Path(folder) / "killed"
        began = time.perf_counter()
        status = start(command(1, undisturbed, args.options)).wait()
        seconds = time.perf_counter() - began
        print(f"undisturbed, 1 process: {seconds:.1f} s, status {status}")
        expected, same, kills, sessions = content(undisturbed), True, 0, 0
        rng = random.Random(0)
        while kills < args.kills:
            process = start(command(args.processes, killed, args.options))
            sessions += 1
            try:
                process.wait(rng.uniform(0.1, seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                continue
            same &= compare(f"finished after {kills} kills in total", killed, expected)
            shutil.rmtree(killed)
        status = start(command(args.processes, killed, args.options)).wait()
        same &= compare(
            f"after {kills} kills, {sessions} sessions, status {status}", killed, expected
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
