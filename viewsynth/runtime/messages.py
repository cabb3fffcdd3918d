# SPDX-License-Identifier: Apache-2.0
"""Pieces of messages that several stages write."""

from __future__ import annotations

from collections.abc import Sequence


def first_names(names: Sequence[str]) -> str:
    """The first three names, and whether there are more.

    Args:
        names: In the order in which they are shown.
    """
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
