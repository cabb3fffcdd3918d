# SPDX-License-Identifier: Apache-2.0
"""Help for MkDocs with our docstrings: lists, shapes in brackets, the order of modules."""

from __future__ import annotations

import logging
import re

from griffe import Extension, Module, Object

LIST = re.compile(r"(?m)^(?!\s*$|[ \t]*[-|])(.*\n)(?=- )")  # a line of text, then a list
# A section whose text begins on the line of its title.
SECTION = re.compile(r"(?m)^(Returns|Raises|Yields): +(\S.*(?:\n[ \t]+\S.*)*)")


class Docstrings(Extension):
    """Prepare what is read from the source (see `mkdocs.yml`)."""

    def on_object(self, *, obj: Object, **_) -> None:
        """Markdown wants an empty line before a list, and griffe a section below its title."""
        if obj.docstring:
            text = SECTION.sub(_section, obj.docstring.value)
            obj.docstring.value = LIST.sub(r"\1\n", text)

    def on_package(self, *, pkg: Module, **_) -> None:
        """Submodules by name, after the package's own functions; else their order is the disk's."""
        _sort(pkg)


def _section(match: re.Match) -> str:
    first, *more = (line.strip() for line in match[2].splitlines())
    return "\n".join([f"\n{match[1]}:", f"    {first}", *(f"        {line}" for line in more)])


def _sort(module: Module) -> None:
    own = {name: one for name, one in module.members.items() if not isinstance(one, Module)}
    nested = {name: one for name, one in module.members.items() if isinstance(one, Module)}
    module.members = own | dict(sorted(nested.items()))
    for one in nested.values():
        _sort(one)


def _is_reference(record: logging.LogRecord) -> bool:
    """Whether a warning is about a target that could be a Python name, unlike a shape."""
    target = re.search(r"cross-reference target '([^']*)'", record.getMessage())
    return target is None or re.fullmatch(r"[\w.]+", target[1]) is not None


def on_startup(**_) -> None:
    """Two pairs of brackets in a docstring, such as shapes, are no link that leads nowhere."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("mkdocs.plugins.mkdocs_autorefs"):
            logging.getLogger(name).addFilter(_is_reference)
