# SPDX-License-Identifier: Apache-2.0
"""The attribute files of AG-ReID: 15 traits of every identity, as 88 columns of yes and no.

Source: Nguyen et al., ICME 2023, README of huynguyen792/AG-ReID. The file is a MATLAB struct
`qut_attribute` with the parts `train` and `test`. A part has a field `image_index`, the identities
as the integer of the digits P || T || A, and one field per column with 1 = no and 2 = yes, such as
"gendermale" or "upperhoodie". A struct per person, and one matrix for all columns, are read too.

A column becomes the attribute "group:value", e.g. "gender:male"; "group:number", from 0, if its
field has another name. All images of an identity get its attributes. A file of another form is a
warning, and no sample has attributes then.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from viewsynth.data import layout
from viewsynth.records import Sample
from viewsynth.runtime.messages import first_names

STRUCT, INDEX, SPLITS = "qut_attribute", "image_index", ("train", "test")
NO, YES = 1, 2
GROUPS = {  # first letters of the fields: group, number of columns; in the order of the file
    "gender": ("gender", 3),
    "age": ("age", 4),  # the README lists nine ages, the file has four
    "height": ("height", 5),
    "weight": ("body volume", 4),
    "ethnic": ("ethnicity", 5),
    "haircolor": ("hair colour", 7),
    "hairstyle": ("hair style", 6),
    "beard": ("beard", 3),
    "moustache": ("moustache", 3),
    "glasses": ("glasses", 4),
    "head": ("head accessories", 5),
    "upper": ("upper clothing", 13),
    "lower": ("lower clothing", 10),
    "feet": ("feet", 7),
    "bag": ("accessories", 9),
}
COLUMNS = sum(count for _, count in GROUPS.values())
IDENTITY = re.compile(r"P(\d+)T(\d+)A(\d+)", re.ASCII)
MAX_FILE = 64 * 2**20  # bytes; 88 numbers of each of 1,615 people are about one MiB

Rows = dict[int, tuple[str, ...] | None]  # identity -> its attributes, None = contradictory rows


def add(samples: Sequence[Sample], path: Path, warnings: list[str]) -> list[Sample]:
    """Samples with the attributes of their identities.

    Args:
        samples: Samples whose pid ends in "/P0001T04041A0".
        path: The attribute file; a missing one leaves the samples as they are.
        warnings: Get the problems of the file.

    Returns:
        The samples, in the same order.
    """
    if not path.exists():
        return list(samples)
    try:
        rows = read(path)
    except ValueError as error:
        warnings.append(f"{error}; samples have no attributes")
        return list(samples)
    index = {pid: _index(pid) for pid in {sample.pid for sample in samples}}
    index = {pid: number for pid, number in index.items() if number is not None}
    shared = Counter(index.values())  # the integer drops zeros and where P, T and A begin
    lost = sorted(p for p, n in index.items() if shared[n] > 1 or not rows.get(n))
    if lost:
        warnings.append(
            f"{path.name}: {len(lost)} of {len(index)} identities have no row of their own and no "
            f"attributes: {first_names(lost)}"
        )
    found = {pid: rows[number] for pid, number in index.items() if pid not in set(lost)}
    return [
        replace(sample, attributes=found[sample.pid]) if sample.pid in found else sample
        for sample in samples
    ]


def _index(pid: str) -> int | None:
    """The identity as the file writes it; None if it is unknown."""
    match = IDENTITY.fullmatch(pid.rpartition("/")[2])
    return int("".join(match.groups())) if match else None


def read(path: Path) -> Rows:
    """Read an attribute file.

    Args:
        path: A MATLAB file of version 4 to 7.2.

    Returns:
        The attributes of each identity, in the order of the columns; None for identities whose
        rows contradict each other.

    Raises:
        ValueError: if the file is a link, cannot be read, or has another form.
    """
    from scipy.io import loadmat

    if path.is_symlink():
        raise ValueError(f"{path.name}: {layout.LINK}")
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"{path.name} has more than {MAX_FILE >> 20} MiB; is it another file?")
    try:
        content = loadmat(path, simplify_cells=True)
        columns = [_columns(content[STRUCT][split]) for split in SPLITS]
    except Exception as error:  # damaged files raise many types
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path.name} cannot be read ({type(error).__name__}: {first[:80]}): expected a MATLAB "
            f"file (before version 7.3) with the struct {STRUCT}, its parts {' and '.join(SPLITS)} "
            f"and {INDEX} and {COLUMNS} columns in each; copy it again"
        ) from error
    rows: Rows = {}
    for identities, fields, values in columns:
        names = _checked_names(path, fields, identities, values)
        for identity, row in zip(identities, values, strict=True):
            own = tuple(name for name, value in zip(names, row, strict=True) if value == YES)
            rows[identity] = own if rows.get(identity, own) == own else None
    return rows


def _columns(part: dict | Sequence[dict]) -> tuple[list[int], list[str], np.ndarray]:
    """Identities, names of the fields, and values [N, columns] of a part."""
    if not isinstance(part, dict):  # a struct per person
        part = {key: [row[key] for row in part] for key in part[0]}
    identities = [int(number) for number in np.ravel(part[INDEX])]
    fields = [key for key in part if key != INDEX]
    values = [np.asarray(part[key]) for key in fields]
    if len(values) == 1:  # one matrix
        return identities, [], values[0].reshape(len(identities), -1)
    return identities, fields, np.stack([np.ravel(column) for column in values], 1)


def _checked_names(
    path: Path, fields: list[str], identities: list[int], values: np.ndarray
) -> list[str]:
    """Attribute names of the columns. Raises: ValueError: if the values have another form."""
    if values.shape != (len(identities), COLUMNS):
        raise ValueError(
            f"{path.name} has {values.shape[-1]} columns for {len(identities)} identities, "
            f"expected {COLUMNS}; is it another version?"
        )
    if not np.isin(values, (NO, YES)).all():
        raise ValueError(f"{path.name} has values other than {NO} (no) and {YES} (yes)")
    fields = fields or [""] * COLUMNS
    places = [(key, group, n) for key, (group, count) in GROUPS.items() for n in range(count)]
    return [
        f"{group}:{field.removeprefix(key)}"
        if field.startswith(key) and field != key
        else f"{group}:{n}"
        for field, (key, group, n) in zip(fields, places, strict=True)
    ]
