# SPDX-License-Identifier: Apache-2.0
"""Rights: every data set, body and model declares them."""

from __future__ import annotations

import importlib

import pytest

from viewsynth import bodies, data
from viewsynth.runtime import weights
from viewsynth.runtime.licences import Passport, licences_of, require_commercial


@pytest.mark.parametrize("name", data.names())
def test_data_sets(name):
    found = data.passport(name)
    assert found.name and found.licence
    assert found.redistribute in ("yes", "no", "unknown")
    assert found.citation or name == "folder"


def test_the_terms_of_known_data_sets():
    told = {name: data.passport(name).commercial for name in data.names()}
    assert told["cargo"] == told["lagper"] == "no"
    assert told["ag_reid_v1"] == told["folder"] == "unknown"
    assert told["world"] == "yes"


@pytest.mark.parametrize("name", bodies.names())
def test_bodies(name):
    module = importlib.import_module(f"viewsynth.bodies.{name}")
    kinds = [k for k in vars(module).values() if isinstance(k, type) and hasattr(k, "passport")]
    assert len(kinds) == 1 and kinds[0].passport.citation
    assert kinds[0].passport.commercial == {"anny": "yes", "smplx": "no"}[name]


def test_models(tmp_path):
    found = weights.passport(weights.COMPLETION)
    assert found.commercial == "yes" and found.redistribute == "yes"
    (tmp_path / "own.tflite").write_bytes(b"1")
    assert weights.passport(tmp_path / "own.tflite") == Passport("own.tflite")


def test_commercial_use():
    parts = {"data": Passport("a", "MIT"), "body": Passport("b", "academic use only")}
    with pytest.raises(ValueError, match=r"body: academic use only \(no\)"):
        require_commercial(licences_of(parts))
    require_commercial({"data": "MIT AND CC0-1.0"})
    assert parts["body"].to_dict()["commercial"] == "no"
