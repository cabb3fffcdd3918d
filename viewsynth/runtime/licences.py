# SPDX-License-Identifier: Apache-2.0
"""Licences that the output of a run inherits from its data, models and code."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Passport:
    """What is known of the rights in a part of a run: a data set, body, model or program.

    Args:
        name: Its name.
        licence: SPDX identifiers joined by AND, or the terms in words; "unknown" if its source
            states none.
        redistribute: Whether its files may be passed on: "yes", "no" or "unknown".
        citation: What to cite; "" = nothing.
    """

    name: str
    licence: str = "unknown"
    redistribute: str = "unknown"
    citation: str = ""

    @property
    def commercial(self) -> str:
        """Whether it may be used commercially: "yes", "no" or "unknown"."""
        return commercial(self.licence)

    def to_dict(self) -> dict[str, str]:
        """All of it as JSON types."""
        own = {"name": self.name, "licence": self.licence, "commercial": self.commercial}
        return own | {"redistribute": self.redistribute, "citation": self.citation}


VIEWSYNTH = Passport("viewsynth", "Apache-2.0", "yes", "see CITATION.cff of viewsynth")


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


def licences_of(passports: dict[str, Passport]) -> dict[str, str]:
    """Part of a run -> its licence.

    Args:
        passports: Part of the run -> its rights.
    """
    return {part: one.licence for part, one in passports.items()}


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
