# SPDX-License-Identifier: Apache-2.0
"""The README is one screenful after the other, not more, and begins with what works."""

from __future__ import annotations

import re
import tomllib

import yaml
from documents import ROOT, blocks

import viewsynth

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_short():
    lines = TEXT.splitlines()
    assert len(lines) <= 150
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]


def test_what_it_is_stands_in_three_sentences():
    first = TEXT.partition("\n\n")[2].partition("\n\n")[0].replace("\n", " ")
    assert first.startswith("viewsynth ")
    assert len(re.findall(r"[.](?= |$)", first.replace("3.11, 3.12 or 3.13", "3"))) == 3


def test_it_is_in_order():
    order = (
        "docs/demo.jpg",
        "&& .venv/bin/accelerate launch generate.py",
        "&& .venv/bin/pytest",
        "--data.root photos",
        "viewsynth.Synthesizer()",
        "docs/results/synthesis.md",
        "not evidence",
        "docs/api/index.md), [Glossary]",
    )
    places = [TEXT.index(text) for text in order]
    assert places == sorted(places)


def test_the_two_commands_are_all_the_set_up_there_is():
    shell = [block for block in blocks(README) if block.language == "bash"]
    first = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e "
    assert shell[0].text.splitlines() == [
        f"{first}. && .venv/bin/accelerate launch generate.py",
        f'{first}".[test]" && .venv/bin/pytest',
    ]


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert (ROOT / target).is_file(), target


def test_versions_and_licences_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == viewsynth.__version__
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert f"## [{viewsynth.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
