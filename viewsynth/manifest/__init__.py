# SPDX-License-Identifier: Apache-2.0
"""Manifest: the data set that a run writes, in a form that survives a kill at any time.

- `frozen`: `run.json`, the frozen input list of people and their chunks.
- `parts`: `parts/<chunk>.jsonl`, one part per finished chunk, joined to `metadata.jsonl` and
  `rejects.jsonl`.
- `sums`: `SHA256SUMS`, the hashes of all files, written last.
- `verification`: what of a run differs from what was written.
- `renaming`: names for the images of a run in the layouts of other data sets.

A chunk is computed whole and leaves one part, which is written last: a chunk without a part is not
done. Every file is written to a temporary place and renamed. There are no locks and no appends.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "frozen": [
            *("Entry", "Frozen", "entries", "freeze", "random_subset", "read", "save"),
            *("refuse_other_settings", "refuse_same_folder"),
        ],
        "parts": [
            "Task",
            "heads",
            "join",
            "made_people",
            "read_rows",
            "sweep",
            "tasks",
            "write_part",
        ],
        "sums": ["SUMS", "read_sums", "write_sums"],
        "verification": ["Problem", "differing", "verify"],
    },
)
