# SPDX-License-Identifier: Apache-2.0
"""`SHA256SUMS`: the hash of every file of a finished run, as `sha256sum` writes and checks them.

Images, seen maps and people have the hash of what was written, which their parts hold, not of what
is on disk at the end. Not listed: `run.json`, which holds a hash of its own, and what can be made
again (configuration, report, contact sheet, exports).
"""

from __future__ import annotations

from pathlib import Path

from viewsynth.manifest.frozen import Frozen
from viewsynth.manifest.parts import made_people
from viewsynth.runtime.files import sha256, write

SUMS = "SHA256SUMS"


def write_sums(run: Path, frozen: Frozen, rows: list[dict]) -> None:
    """Write the list of a finished run.

    Args:
        run: Folder of the run.
        frozen: Its input list.
        rows: All its rows.
    """
    found = {row["file_name"]: row["sha256"] for row in rows}
    found |= {row["seen_file_name"]: row["seen_sha256"] for row in rows}
    found |= {made["file"]: made["sha256"] for made in made_people(run, frozen)}
    for path in [*(run / "parts").glob("*.jsonl"), *run.glob("*.jsonl")]:
        found[path.relative_to(run).as_posix()] = sha256(path)
    lines = [f"{digest}  {name}\n" for name, digest in sorted(found.items())]
    write(run / SUMS, "".join(lines).encode())


def read_sums(run: Path) -> dict[str, str]:
    """Name of each file, relative to the run -> SHA-256 in hex.

    Args:
        run: Folder of the run.

    Raises:
        FileNotFoundError: If the run has no list.
        ValueError: If a line of it is none.
    """
    path = run / SUMS
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} has no {SUMS}: it is not finished; run `viewsynth generate` again with the "
            "same options"
        )
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        digest, mark, name = line.partition("  ")
        if not mark or len(digest) != 64:
            raise ValueError(f"{path}:{number} is no line of sha256sum: {line[:60]!r}")
        found[name] = digest
    return found
