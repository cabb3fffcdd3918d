# SPDX-License-Identifier: Apache-2.0
"""Attributes of people as training labels: a table of yes, no and unknown.

data -> reid.pool -> this module -> `Batch.attributes`. The names are all that some person of the
training set has. A person with any attribute lacks those that are not named; of a person without
any, none is known. Synthetic images have the attributes of the real images of the same person.

A name of the form "group:value" belongs to a group, of which a person has one value, none or
several, e.g. "hair:long"; any other name is a group of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from viewsynth.records import Sample
from viewsynth.runtime.messages import first_names

UNKNOWN = -1
RARE = 0.02  # share of images on either side from which an attribute is nearly the same for all


def table(samples: Sequence[Sample]) -> tuple[tuple[str, ...], np.ndarray]:
    """Attributes of samples.

    Args:
        samples: Training samples.

    Returns:
        The names, sorted, and 1 = yes, 0 = no, -1 = unknown.  int8 [N, A]

    Raises:
        ValueError: If two images of a person, in the same outfit, have different attributes.
    """
    known: dict[tuple[str, str], frozenset[str]] = {}
    for sample in samples:
        if sample.attributes:
            own = frozenset(sample.attributes)
            before = known.setdefault((sample.pid, sample.outfit), own)
            if before != own:
                raise ValueError(
                    f"attributes: images of the person {sample.pid} contradict each other in "
                    f"{first_names(sorted(before ^ own))}, e.g. {sample.name}; correct the labels"
                )
    names = tuple(sorted(frozenset().union(*known.values())))
    rows = {key: np.array([name in own for name in names], np.int8) for key, own in known.items()}
    unknown = np.full(len(names), UNKNOWN, np.int8)
    found = [rows.get((sample.pid, sample.outfit), unknown) for sample in samples]
    return names, np.stack(found) if found else np.zeros((0, len(names)), np.int8)


def groups(names: Sequence[str]) -> dict[str, list[int]]:
    """The groups of attributes: name of the group -> indices of its attributes.

    Args:
        names: Names of the attributes.
    """
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found.setdefault(name.partition(":")[0], []).append(number)
    return found


def description(sample: Sample) -> str:
    """A text on a person: the caption of the sample, else its attributes as words; "" = none.

    Args:
        sample: The sample.
    """
    return sample.caption or ", ".join(sample.attributes).replace(":", " ")


def nearly_constant(names: Sequence[str], values: np.ndarray) -> list[str]:
    """Names of the attributes that nearly all known samples have, or nearly none.

    Args:
        names: The names.
        values: See `table`.
    """
    shares = [(column[column >= 0] > 0).mean() if (column >= 0).any() else 0 for column in values.T]
    return [n for n, share in zip(names, shares, strict=True) if not RARE <= share <= 1 - RARE]
