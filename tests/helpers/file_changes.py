# SPDX-License-Identifier: Apache-2.0
"""Changes of a file between two runs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replaced(path: Path, data: bytes) -> None:
    """Replace the content under the same name, size and date, as `rsync -t` and `cp -p` can."""
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(data[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def touched(path: Path) -> None:
    """Change the date."""
    os.utime(path, ns=(1, 10**18))


def copied(path: Path) -> None:
    """Replace the file by a copy with the same content."""
    shutil.copy(path, path.with_name("other"))
    path.with_name("other").replace(path)
