# SPDX-License-Identifier: Apache-2.0
"""Files of a chunk, encoded and written by threads while the worker computes on."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from viewsynth.runtime.files import settle, write


def because(error: Exception) -> str:
    """A fault in one line: what it was, and where it came up."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"


class Writer:
    """Encodes and writes files in the threads of `pool`, while the worker computes on."""

    def __init__(self, run: Path, pool: ThreadPoolExecutor):
        self.run, self.pool = run, pool
        self.files: dict[Path, Future] = {}

    def put(self, name: str, encode: Callable[..., bytes], *args) -> None:
        """Write the file `name` of the run, later."""
        path = self.run / name
        assert path not in self.files, f"{name} is written twice"
        self.files[path] = self.pool.submit(lambda: write(path, encode(*args)))

    def finish(self) -> None:
        """Wait until everything is on the disk."""
        for future in self.files.values():
            future.result()
        settle({path.parent for path in self.files})

    def discard(self, kept: int = 0) -> None:
        """Remove what was written after the first `kept` files: nobody will speak of it."""
        for path in list(self.files)[kept:]:
            self.files.pop(path).exception()
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
