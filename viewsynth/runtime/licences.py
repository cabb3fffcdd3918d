# SPDX-License-Identifier: Apache-2.0
"""Licences that the output of a run inherits from its data, models and code."""

from __future__ import annotations

import re

# SPDX identifiers that allow commercial use.
FREE = frozenset(
    [
        "Apache-2.0",
        "MIT",
        "MIT-0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "0BSD",
        "Unlicense",
        "Zlib",
        "PSF-2.0",
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "ODC-By-1.0",
        "PDDL-1.0",
    ]
)


def commercial(licence: str) -> str:
    """Whether a licence allows commercial use.

    Args:
        licence: SPDX identifiers joined by AND, or free text.

    Returns:
        "yes", "no" or "unknown".
    """
    if re.search(r"non-?commercial|research[- ]only|academic|-NC(-|$)", licence, re.IGNORECASE):
        return "no"
    known = all(part.strip(" ()") in FREE for part in licence.split(" AND "))
    return "yes" if known else "unknown"


def require_commercial(licences: dict[str, str]) -> None:
    """Check that all parts of a run allow commercial use.

    Args:
        licences: Licence of each part, e.g. of a model or a data set, by its name.

    Raises:
        ValueError: If a part forbids commercial use or its licence is unknown.
    """
    bad = {part: text for part, text in licences.items() if commercial(text) != "yes"}
    if bad:
        parts = "; ".join(f"{part}: {text} ({commercial(text)})" for part, text in bad.items())
        raise ValueError(
            f"--commercial: not every part allows commercial use: {parts}. Use others, or give "
            "the licence of the data with --data.licence SPDX-ID"
        )
