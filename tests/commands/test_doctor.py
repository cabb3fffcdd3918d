# SPDX-License-Identifier: Apache-2.0
"""`viewsynth doctor`: findings and remedies."""

import json

import pytest

from viewsynth import commands
from viewsynth.commands import doctor
from viewsynth.runtime import weights


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VIEWSYNTH_CACHE", str(tmp_path / "none"))
    monkeypatch.delenv("ANNY_CACHE_DIR", raising=False)


def test_missing_models_are_reported_with_the_remedy(empty_cache, capsys):
    assert doctor.run(doctor.Config()) == 1
    said = capsys.readouterr().out
    assert "MISSING" in said and "viewsynth doctor --fetch" in said and "not fetched" in said
    assert "the body model is not built yet" in said


def test_json_is_one_object(empty_cache, capsys):
    assert doctor.run(doctor.Config(json=True)) == 1
    tree = json.loads(capsys.readouterr().out)
    by_name = {finding["name"]: finding for finding in tree["findings"]}
    assert not tree["ok"] and by_name["anny"]["group"] in ("packages", "caches")
    assert by_name["torch"]["state"] == by_name["rasteriser"]["state"] == "ok"
    assert by_name["pose model"]["state"] == "missing"
    for finding in tree["findings"]:
        assert finding["state"] != "missing" or finding["remedy"], finding


def test_a_wrong_version_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "_requirements", lambda: ["numpy<1", "no-such-package>=2"])
    numpy, absent = [f for f in doctor._packages() if f.name != "viewsynth"]
    assert numpy.state == "missing" and "needed: <1" in numpy.said
    assert absent.remedy == "pip install 'no-such-package>=2'"


def test_a_broken_test_is_a_finding():
    def broken():
        raise RuntimeError("3 of 64 pixels are wrong")

    finding = doctor._tried("rasteriser", broken, "mend it")
    assert (finding.state, finding.remedy) == ("missing", "mend it")
    assert "3 of 64" in finding.said


def test_ready_where_the_models_are():
    if not weights.cached(weights.POSE):
        pytest.skip("the pose model is not in the cache")
    assert doctor._tried("pose model", doctor._pose, "").state == "ok"


def test_every_command_has_a_summary():
    for name in commands.names():
        assert commands.summary(name), name
