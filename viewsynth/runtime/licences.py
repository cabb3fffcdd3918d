# SPDX-License-Identifier: Apache-2.0
"""The licence passport: what a run's output inherits from the parts that made it."""

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
    """Whether a licence allows commercial use: "yes", "no" or "unknown".

    Args:
        licence: SPDX identifier(s) joined by AND, or free text.
    """
    if re.search(r"non-?commercial|research[- ]only|academic|-NC(-|$)", licence, re.IGNORECASE):
        return "no"
    known = all(part.strip(" ()") in FREE for part in licence.split(" AND "))
    return "yes" if known else "unknown"


def require_commercial(licences: dict[str, str]) -> None:
    """Check all parts of a run: {part: licence}.

    Raises: ValueError: names every part that forbids commercial use or does not say.
    """
    bad = {part: text for part, text in licences.items() if commercial(text) != "yes"}
    if bad:
        said = "; ".join(f"{part}: {text} ({commercial(text)})" for part, text in bad.items())
        raise ValueError(
            f"--commercial: not every part allows commercial use: {said}. Use other parts, or say "
            "what you know with --data.licence SPDX-ID"
        )
