# SPDX-License-Identifier: Apache-2.0
"""What made a file: versions, commit, command and host for `run.json`; digests of the code."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from viewsynth import __version__

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pillow",
    "safetensors",
    "accelerate",
    "anny",
    "ai-edge-litert",
    "diffusers",
    "transformers",
)


def code_digest(*names: str) -> str:
    """SHA-256 of source files of the package, to tell results of other code versions apart.

    Args:
        names: Folders and files relative to the package, e.g. "render" or "cameras.py".

    Returns:
        Hash in hex.
    """
    root, total = Path(__file__).parents[1], hashlib.sha256()
    for name in names:
        for path in sorted((root / name).rglob("*.py")) or [root / name]:
            total.update(path.read_bytes())
    return total.hexdigest()


def facts() -> dict:
    """Versions, commit, command and host, for information only; no code compares them."""
    return {
        "viewsynth": __version__,
        "commit": commit(),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": versions(),
        "host": {"system": platform.platform(), "cores": os.cpu_count()},
    }


def versions() -> dict[str, str]:
    """Installed version of each package that affects the output; "" = not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def commit() -> str:
    """Git commit of the checkout that contains this package; "" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
