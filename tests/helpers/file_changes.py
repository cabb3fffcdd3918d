# SPDX-License-Identifier: Apache-2.0
"""What may happen to a file between two runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replaced(path: Path, data: bytes) -> None:
    """Another content under the same name, size and date, as `rsync -t` and `cp -p` leave it."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(data[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def touched(path: Path) -> None:
    """Another date."""
    os.utime(path, ns=(1, 10**18))


def copied(path: Path) -> None:
    """The same content as a new file."""
    shutil.copy(path, path.with_name("other"))
    path.with_name("other").replace(path)
