# SPDX-License-Identifier: Apache-2.0
"""MkDocs hook: two pairs of brackets in a docstring, such as shapes, are not a cross-reference."""

from __future__ import annotations

import logging
import re


def _is_reference(record: logging.LogRecord) -> bool:
    """Whether a warning is about a target that could be a Python name."""
    target = re.search(r"cross-reference target '([^']*)'", record.getMessage())
    return target is None or re.fullmatch(r"[\w.]+", target[1]) is not None


def on_startup(**_) -> None:
    """Drop warnings that a strict build would fail on, though nothing was meant as a link."""
    logging.getLogger("mkdocs.plugins.mkdocs_autorefs").addFilter(_is_reference)
