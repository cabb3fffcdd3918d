# SPDX-License-Identifier: Apache-2.0
"""Fixtures for benchmarks, which are programs and not a package; crops of rendered people."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from flat_images import flat, put

from viewsynth.records import Person
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


@pytest.fixture
def run(tmp_path) -> Path:
    """What the benchmark reads of a run: views of three people at five cameras each."""
    rows, folder = [], tmp_path / "run"
    for n, pid in enumerate("012"):
        small = {"shape": np.zeros(1), "pose": np.zeros(1), "offsets": np.zeros(1)}
        maps = {"texture": np.zeros((1, 1, 3)), "seen": np.zeros((1, 1))}
        sources = [{"azimuth": 10.0, "used": True}, {"azimuth": 170.0, "used": False}]
        person = Person(pid=pid, body="b", scale=1, sources=sources, **small, **maps)
        (folder / "people").mkdir(parents=True, exist_ok=True)
        person.save(folder / f"people/{pid}.safetensors")
        for elevation, azimuth in ((30, 0), (60, 80), (45, 160), (75, 0), (90, 0)):
            name = f"images/{pid}/{elevation}.png"
            put(folder / "images" / pid, flat(80 * n, 90, elevation), f"{elevation}.png")
            row = {"file_name": name, "pid": pid, "person": f"people/{pid}.safetensors"}
            rows.append(row | {"elevation": float(elevation), "azimuth": float(azimuth)})
    table = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(table, encoding="utf-8")
    return folder
