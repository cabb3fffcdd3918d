# SPDX-License-Identifier: Apache-2.0
"""Bins of elevation and altitude: every query or view is in exactly one bin."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewsynth.evaluate import scoring
from viewsynth.evaluate.compare import plots, runs, summary, table
from viewsynth.evaluate.fidelity import measures, sets, text
from viewsynth.evaluate.fidelity import table as fidelity_table
from viewsynth.records import Protocol, Sample
from viewsynth.runtime.files import to_jsonl

angles = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([-0.0, 0.0, 25.0, 40.0, 70.0, 90.0, 90.001, -1e-9]),
    st.floats(-90, 120),
    st.integers(-90, 120),
)
heights = st.one_of(st.none(), st.floats(), st.floats(-50, 200), st.just(1e6), st.just(2e7))
query_lists = st.lists(
    st.tuples(angles, heights, st.sampled_from(["aerial", "aerial", "ground"]), st.booleans()),
    min_size=1,
    max_size=20,
)


def known(value) -> bool:
    return value is not None and math.isfinite(value)


def ranked(queries):
    """A protocol of such queries and its results; the last field = whether there is a match."""
    asked = [
        Sample(
            paths=(Path(f"{n}"),),
            name=str(n),
            pid="p" if match else f"x{n}",
            view=view,
            elevation=angle,
            altitude=height,
            camid=str(n % 3),
        )
        for n, (angle, height, view, match) in enumerate(queries)
    ]
    gallery = [Sample(paths=(Path("g"),), name="g", pid="p", camid="far")]
    protocol = Protocol(name="ALL", query=asked, gallery=gallery)
    return protocol, scoring.rank(
        protocol, np.ones((len(asked), 2), np.float32), np.ones((1, 2), np.float32)
    )


@given(query_lists)
def test_bins_sum_to_the_queries(queries):
    protocol, rows = ranked(queries)
    found = scoring.bins(protocol, rows)
    above = [n for n, sample in enumerate(protocol.query) if sample.view == "aerial"]
    for by, everyone in (
        ("camera", range(len(queries))),
        ("elevation", above),
        ("altitude", above),
    ):
        own = [part for part in found if part["by"] == by]
        if by != "camera" and not any(known(getattr(protocol.query[n], by)) for n in above):
            assert not own  # the data has no such values
            continue
        assert sum(part["queries"] for part in own) == len(everyone)
        assert sum(part["valid_queries"] for part in own) == rows.valid[list(everyone)].sum()
        assert len({part["bin"] for part in own}) == len(own)
        assert all((part["mAP"] is None) == (not part["valid_queries"]) for part in own)
    shown = scoring.details([{"protocol": "ALL", "reranking": False, "bins": found}])
    assert shown.count("\n| ALL |") == len(found) and "nan" not in shown
    json.loads(json.dumps(found, allow_nan=False))


@pytest.mark.parametrize(
    ("angle", "name"),
    [
        (-60.0, "below 0"),
        (-1e-9, "below 0"),
        (-0.0, "0-25"),
        (0, "0-25"),
        (25, "25-40"),
        (90.0, "70-90"),
        (90.5, "above 90"),
        (math.nan, "unknown"),
        (math.inf, "unknown"),
        (None, "unknown"),
    ],
)
def test_bin_of_an_elevation(angle, name):
    protocol, rows = ranked([(angle, None, "aerial", True), (50, None, "aerial", True)])
    own = [part for part in scoring.bins(protocol, rows) if part["by"] == "elevation"]
    assert {part["bin"]: part["queries"] for part in own} == {name: 1, "40-55": 1}
    shown = scoring.details([{"protocol": "ALL", "reranking": False, "bins": own}])
    assert f"| elevation {name}{'' if name == 'unknown' else '°'} | 1 / 1 |" in shown


@pytest.mark.parametrize(
    ("height", "name"),
    [(-5, "below 0"), (1e6, "80 and more"), (3e9, "80 and more"), (-math.inf, "unknown")],
)
def test_bin_of_an_altitude(height, name):
    protocol, rows = ranked([(None, height, "aerial", True), (None, 30, "aerial", True)])
    own = scoring.bins(protocol, rows)
    assert {p["bin"]: p["queries"] for p in own if p["by"] == "altitude"} == {name: 1, "20-40": 1}


def test_a_bin_without_a_match_is_shown():
    protocol, rows = ranked([(10, None, "aerial", False), (50, None, "aerial", True)])
    shown = scoring.details(
        [{"protocol": "ALL", "reranking": False, "bins": scoring.bins(protocol, rows)}]
    )
    assert "| elevation 0-25° | 0 / 1 | – | – |" in shown and "| camera 0 | 0 / 1 | – |" in shown


# ---- compare -------------------------------------------------------------------------------------


def write_arm(folder: Path, arm: str, queries, rule: str = "camid") -> None:
    protocol, rows = ranked(queries)
    run = folder / arm / "seed0"
    run.mkdir(parents=True, exist_ok=True)
    (run / "queries.jsonl").write_bytes(to_jsonl(scoring.queries(protocol, rows, False)))
    result = {
        "dataset": "folder",
        "fingerprint": "f",
        "protocol": "ALL",
        "reranking": False,
        "direction": "all views",
        "camera_rule": rule,
        "leaderboard": {"backbone": "tiny"},
    }
    (run / "results.json").write_text(json.dumps({"notes": [], "results": [result]}))


@given(query_lists)
def test_bins_of_a_comparison_sum_to_the_queries(tmp_path_factory, queries):
    folder = tmp_path_factory.mktemp("arms")
    queries = [(50, None, "aerial", True), *queries]
    for arm in ("a", "f"):
        write_arm(folder, arm, queries)
    found = summary._task(runs.read(folder).tasks[0], runs.read(folder), summary.Roles("a", "f"))
    above = sum(match and view == "aerial" for _, _, view, match in queries)
    assert sum(part["queries"] for part in found["bins"]) == above


def test_all_bins_of_a_comparison_are_shown(tmp_path):
    for arm in ("a", "f"):
        write_arm(tmp_path, arm, [(a, None, "aerial", True) for a in (-60, 30, 95, None, math.nan)])
    found = summary.summarise(runs.read(tmp_path), summary.Roles("a", "f", protocol="ALL"))
    shown = table.markdown(found, {}, [])
    for row in ("| below 0° | 1 |", "| 25-40° | 1 |", "| above 90° | 1 |", "| unknown | 2 |"):
        assert row in shown
    assert plots.elevations(found, {})


def test_arms_with_different_camera_rules_are_refused(tmp_path):
    queries = [(50, None, "aerial", True)]
    write_arm(tmp_path, "a", queries)
    write_arm(tmp_path, "f", queries, rule="none")
    with pytest.raises(ValueError, match="different camera rules in ALL: camid and none; eval"):
        runs.read(tmp_path)


# ---- fidelity ------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.floats(), st.floats(-90, 120)), min_size=1, max_size=12))
def test_bins_of_fidelity_sum_to_the_views(elevations):
    rows = [
        {"method": "ours", "pid": str(n % 3), "view": str(n), "elevation": e, "iou": 0.5}
        for n, e in enumerate(elevations)
    ]
    found = [c for c in fidelity_table.summary(rows) if c["measure"] == "iou"]
    names = (*fidelity_table.NAMES, fidelity_table.ALL)
    assert {cell["bin"] for cell in found} <= set(names)
    assert sum(c["pictures"] for c in found if c["bin"] != fidelity_table.ALL) == len(rows)
    shown = text.markdown(found, [], [])
    outside = sum(measures.bin_of(e) == measures.OTHER for e in elevations)
    people = len({row["pid"] for row in rows if measures.bin_of(row["elevation"]) == "other"})
    assert (f"## Elevation other ({people} people, {outside} views)" in shown) == bool(outside)


def test_image_sets_outside_all_bins_are_shown():
    rng = np.random.default_rng(0)
    rows = [
        {
            "method": method,
            "pid": f"{n}",
            "view": f"{n}_{v}",
            "elevation": (30.0, 12.0)[v],
            "features": {"own": list(rng.normal(size=4))},
        }
        for method in ("true", "ours")
        for n in range(10)
        for v in range(2)
    ]
    cells = sets.compare(rows, [])
    assert {cell["bin"] for cell in cells} == {"all", "25-40", "other"}
    shown = "\n".join(text._sets(cells))
    assert "| 70-90° " in shown and "| other " in shown
    inside = [row for row in rows if row["elevation"] == 30]
    assert "other" not in "\n".join(text._sets(sets.compare(inside, [])))
