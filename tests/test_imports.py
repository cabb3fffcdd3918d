# SPDX-License-Identifier: Apache-2.0
"""Imports go down only, the package is light, and no program shadows the standard library."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "viewsynth"

# Parts of the package, from the lowest level up. Parts of one level do not import each other.
LEVELS = (
    ("records",),
    ("cameras",),
    ("config",),
    ("runtime",),
    ("manifest",),
    ("bodies", "render", "metrics", "training", "judge"),
    ("data", "world", "reconstruct"),
    ("completion", "diffusion", "reid"),
    ("generate", "evaluate", "match"),
    ("report",),
    ("commands",),
    ("cli",),
)
HEIGHT = {name: index for index, level in enumerate(LEVELS) for name in level}


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, at any place in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [alias.name for alias in node.names]
            found |= {f"{node.module}.{name}" for name in names}
    parts = {name.split(".")[1] for name in found if name.startswith("viewsynth.")}
    return {part for part in parts if not part.startswith("__")}


FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py"
)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in HEIGHT, f"{own} has no level: add it to LEVELS"
    for other in imports(path) - {own}:
        assert HEIGHT[other] < HEIGHT[own], f"{path.name} imports {other}, which is not below {own}"


HEAVY = "torch scipy diffusers transformers"
PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")
)
COMMANDS = sorted(path.stem for path in (PACKAGE / "commands").glob("[a-z]*.py"))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import viewsynth", "numpy torch PIL tyro"),
        ("from viewsynth import cli; cli.overview()", "numpy torch PIL tyro"),
        ("from viewsynth import config; from viewsynth.runtime import files", "numpy torch PIL"),
        ("import viewsynth.reid.attributes", HEAVY),  # `viewsynth data` uses it
        *((f"import viewsynth.commands.{name}", HEAVY) for name in COMMANDS),
        *((f"import {package}", HEAVY) for package in PACKAGES),
    ],
)
def test_light_imports(statement, absent):
    code = f"{statement}\nimport sys; print([m for m in {absent.split()!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_offered_name_can_be_imported(package):
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert not set(names) & {name for _, name, _ in pkgutil.iter_modules(module.__path__)}
    assert set(names) <= set(dir(module))
    for name in names:
        assert hasattr(module, name)


def test_a_name_that_is_not_offered_is_an_attribute_error():
    metrics = importlib.import_module("viewsynth.metrics")
    with pytest.raises(AttributeError, match="'viewsynth.metrics' has no attribute 'mAP'"):
        metrics.mAP  # noqa: B018


def test_no_program_shadows_the_standard_library():
    for folder in (ROOT, ROOT / "pipelines", ROOT / "benchmarks", ROOT / "tests"):
        for path in folder.glob("*.py"):
            assert path.stem not in sys.stdlib_module_names, f"{path} shadows {path.stem}"


@pytest.mark.parametrize(
    "path",
    sorted(p for p in ROOT.rglob("*.py") if "." not in p.relative_to(ROOT).parts[0][:1]),
    ids=lambda p: p.relative_to(ROOT).as_posix(),
)
def test_every_file_names_its_licence(path):
    assert path.read_text(encoding="utf-8").startswith("# SPDX-License-Identifier: Apache-2.0\n")
