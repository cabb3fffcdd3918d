# SPDX-License-Identifier: Apache-2.0
"""Encodes and writes the files of a chunk in background threads."""

from __future__ import annotations

import contextlib
import hashlib
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from viewsynth.runtime.files import sync_folders, write


def describe_error(error: Exception) -> str:
    """One-line description of an exception: type, message and the line that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"


def _write(path: Path, encode: Callable[..., bytes], args: tuple) -> str:
    data = encode(*args)
    write(path, data)
    return hashlib.sha256(data).hexdigest()


class Writer:
    """Encodes and writes the files of a run in background threads.

    Args:
        run: Folder of the run.
        pool: Threads that encode and write.
    """

    def __init__(self, run: Path, pool: ThreadPoolExecutor):
        self.run, self.pool = run, pool
        self.files: dict[Path, Future] = {}

    def put(self, name: str, encode: Callable[..., bytes], *args) -> None:
        """Queue a file for writing.

        Args:
            name: Path of the file relative to the run.
            encode: Returns the content of the file.
            args: Arguments of `encode`.
        """
        path = self.run / name
        assert path not in self.files, f"{name} is written twice"
        self.files[path] = self.pool.submit(_write, path, encode, args)

    def finish(self) -> dict[str, str]:
        """Wait until all queued files are on disk.

        Returns:
            Path of each file, relative to the run -> SHA-256 of what was written, in hex.
        """
        digests = {
            path.relative_to(self.run).as_posix(): future.result()
            for path, future in self.files.items()
        }
        sync_folders({path.parent for path in self.files})
        return digests

    def discard(self, kept: int = 0) -> None:
        """Remove all files but the first `kept`, which no row will refer to."""
        for path in list(self.files)[kept:]:
            self.files.pop(path).exception()
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
