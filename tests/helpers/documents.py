# SPDX-License-Identifier: Apache-2.0
"""What stands in README and docs: command lines, options and Python blocks, with their places."""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)(.*)\n((?:(?!^ *```).*\n)*)\1```$", re.M)
MARK = re.compile(r"<!-- test: (.*) -->\n\Z")  # before a block: how the test treats it
SHELL = ("bash", "console", "sh")
# How an inline command begins; anything else in backticks is a name, an option or a value.
INLINE = re.compile(
    r"(\.venv/bin/)?(accelerate launch|viewsynth [a-z]|python (benchmarks|pipelines)/)"
    r"|(generate|train|evaluate)\.py "
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    title: str
    mark: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, also those in tabs and lists."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        title = re.search(r'title="([^"]*)"', match[3])
        before = textwrap.dedent(text[: match.start()].rpartition("\n\n")[2])
        mark = MARK.search(before)
        found.append(
            Block(
                page,
                text.count("\n", 0, match.start()) + 1,
                match[2],
                title[1] if title else "",
                mark[1] if mark else "",
                textwrap.dedent(match[4]),
            )
        )
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))


def inline(page: Path) -> list[str]:
    """What stands in single backticks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))


def commands(page: Path) -> list[list[str]]:
    """The commands of a page as words, without what goes before a program's name."""
    lines = [
        line
        for block in blocks(page)
        if block.language in SHELL
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    lines += [code for code in inline(page) if INLINE.match(code)]
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(_bare(words[:end]))
            words = words[end + 1 :]
    return [words for words in found if words]


def _bare(words: list[str]) -> list[str]:
    """Without variables that are set for the command, and without the environment's folder."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]] if words else []
