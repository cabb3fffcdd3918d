# SPDX-License-Identifier: Apache-2.0
"""Fixtures for benchmarks, which are programs and not a package; crops of rendered people."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from viewsynth.world import shots

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmarks():
    """Imports a benchmark by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def identity(benchmarks):
    return benchmarks("identity")


@pytest.fixture(scope="module")
def pictures(benchmarks):
    return benchmarks("identity_images")


@pytest.fixture(scope="module")
def scoring(benchmarks):
    return benchmarks("identity_scores")


@pytest.fixture(scope="module")
def ground() -> dict[str, list[np.ndarray]]:
    """Crops of three rendered people: two of the first, one of each other."""
    front, back = shots.SHOTS
    asked = ((0, front), (0, back), (1, front), (2, front))
    made: dict[str, list[np.ndarray]] = {}
    for number, shot in asked:
        made.setdefault(str(number), []).append(shots.render_one(number, 3, shot).image)
    return made
