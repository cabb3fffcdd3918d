# SPDX-License-Identifier: Apache-2.0
"""Reads name files: the sample names of the rows of a feature file that has no names itself.

.txt: one name per line; .csv: one column, or a header with file_name, name or path; .json: a list;
.npy: an array of strings. UTF-8, with or without BOM, any line endings; empty lines are ignored.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from viewsynth.runtime.messages import first_names

LISTS = (".txt", ".csv", ".json", ".npy")
COLUMNS = ("file_name", "name", "names", "path")
MAX_BYTES = 512 * 2**20  # size limit of a name file


def read(path: Path) -> list[str]:
    """Read the names listed in a file, in order.

    Args:
        path: Name file of one of the formats above.

    Raises:
        ValueError: If the file cannot be parsed or a row has no name.
    """
    suffix = path.suffix.lower()
    if suffix not in LISTS:
        raise ValueError(f"names: {path} must be a file of names: {', '.join(LISTS)}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"names: {path} has more than {MAX_BYTES >> 20} MiB; give a file of names only"
        )
    try:
        if suffix == ".npy":
            found = decoded(np.load(path, allow_pickle=False))
        else:
            found = PARSERS[suffix](path.read_text(encoding="utf-8-sig"))
    except (ValueError, csv.Error, RecursionError, EOFError) as error:
        raise ValueError(
            f"names: {path} cannot be read as {suffix} file of texts in UTF-8: {error}"
        ) from error
    found = found.get("names") if isinstance(found, dict) else found
    return texts(found, f'names: {path} must be a list of texts, or {{"names": [...]}}')


def _column(text: str) -> list[str]:
    """Names of a CSV: its only column, with or without a header, or the one of `COLUMNS`."""
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    first, *rest = [row for row in rows if any(cell.strip() for cell in row)] or [[]]
    first = [cell.strip() for cell in first]
    known = [first.index(name) for name in COLUMNS if name in first]
    if not known and len(first) != 1:
        raise ValueError(
            f"expected a column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; the first row has "
            f"{first_names(first) or 'nothing'}"
        )
    column, rows = (known[0], rest) if known else (0, [first, *rest])
    if short := [row for row in rows if len(row) <= column or not row[column].strip()]:
        raise ValueError(f"{len(short)} rows have no {first[column]}, e.g. {short[0]}")
    return [row[column].strip() for row in rows]


PARSERS = {
    ".txt": lambda text: [line.strip() for line in text.split("\n") if line.strip()],
    ".csv": _column,
    ".json": json.loads,
}


def decoded(names: object) -> list | None:
    """Convert an array of strings to a list; None if it is anything else."""
    if not isinstance(names, np.ndarray):
        return None
    if names.dtype.kind == "S":
        try:
            names = np.char.decode(names, "utf-8")
        except UnicodeDecodeError:
            return None
    return names.ravel().tolist() if names.dtype.kind == "U" else None


def texts(names: object, wanted: str, hint: str = "") -> list[str]:
    """Check that names are a list of strings.

    Args:
        names: Value to check.
        wanted: Beginning of the error message.
        hint: End of the error message.

    Raises:
        ValueError: If they are anything else.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        got = f"a list with {names[:3]}" if isinstance(names, list) else type(names).__name__
        raise ValueError(f"{wanted}; got {got}{hint}")
    return names
