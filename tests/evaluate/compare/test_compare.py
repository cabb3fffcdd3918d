# SPDX-License-Identifier: Apache-2.0
"""`compare` on generated query results with known differences."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viewsynth import config
from viewsynth.commands import compare
from viewsynth.evaluate.compare import resampling, runs, summary
from viewsynth.runtime.files import to_jsonl

PEOPLE, PROTOCOLS, SEEDS = 40, ("A<->G", "G<->G"), (0, 1, 2)
ANGLES = (10.0, 30.0, 50.0, 60.0, 80.0)


def rows(protocol: str, ap: np.ndarray) -> list[dict]:
    """An aerial and a ground query per person, with the average precisions ap [PEOPLE, 2]."""
    return [
        {
            "protocol": protocol,
            "reranking": False,
            "name": f"query/{who:03d}_{side}.jpg",
            "pid": f"world/{who:03d}",
            "camid": str(side),
            "view": ("aerial", "ground")[side],
            "elevation": ANGLES[who % 5] if side == 0 else 50.0,
            "valid": True,
            "ap": float(ap[who, side]),
            "inp": 0.5,
            "rank": 1 if ap[who, side] > 0.5 else 2,
        }
        for who in range(PEOPLE)
        for side in range(2)
    ] + [
        {
            "protocol": protocol,
            "reranking": False,
            "name": "query/lonely.jpg",
            "pid": "world/x",
            "camid": "0",
            "view": "aerial",
            "elevation": 40.0,
            "valid": False,
            "ap": None,
            "inp": None,
            "rank": None,
        }
    ]


def write(folder: Path, arm: str, seed: int, own: list[dict], fingerprint="abc") -> Path:
    run = folder / arm / f"seed{seed}"
    run.mkdir(parents=True, exist_ok=True)
    (run / "queries.jsonl").write_bytes(to_jsonl(own))
    tasks = dict.fromkeys((row["protocol"], row["reranking"]) for row in own)
    results = [
        {
            "dataset": "world",
            "fingerprint": fingerprint,
            "protocol": protocol,
            "reranking": again,
            "direction": "two-way",
            "leaderboard": {"backbone": "tiny"},
        }
        for protocol, again in tasks
    ]
    tree = {"notes": ["a world of our own"], "results": results}
    (run / "results.json").write_text(json.dumps(tree))
    return run


@pytest.fixture
def results(tmp_path):
    """Queries differ far more in difficulty than arms in gain; e closes 60 % of the gap."""
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0.1, 0.6, (PEOPLE, 1)) + rng.uniform(0, 0.1, (PEOPLE, 2))
    for arm, gain in {"a": 0.0, "same": 0.0, "e": 0.12, "f": 0.2}.items():
        noise = np.random.default_rng(7 if arm in ("a", "same") else len(arm) + ord(arm))
        for seed in SEEDS:
            own = []
            for protocol in PROTOCOLS:
                added = gain if protocol == "A<->G" else 0
                own += rows(protocol, difficulty + added + noise.normal(0, 0.005, (PEOPLE, 2)))
            write(tmp_path / "evaluate", arm, seed, own)
    return tmp_path / "evaluate"


def summarised(folder: Path, **options) -> dict:
    parts = summary.Roles(**{"floor": "a", "ceiling": "f", "treated": "e"} | options)
    return summary.summarise(runs.read(folder), parts)


def task(found: dict, protocol: str = "A<->G") -> dict:
    return next(one for one in found["tasks"] if one["protocol"] == protocol)


def arm(found: dict, name: str) -> dict:
    return next(one for one in found["arms"] if one["arm"] == name)


def difference(found: dict, one: str, other: str, measure: str = "mAP") -> list[float]:
    return next(d[measure] for d in found["differences"] if (d["one"], d["other"]) == (one, other))


# ---- values --------------------------------------------------------------------------------------


def test_means_equal_those_of_the_rows(results):
    found = task(summarised(results))
    own = [
        json.loads(line)
        for seed in SEEDS
        for line in (results / f"e/seed{seed}/queries.jsonl").open()
    ]
    own = [row for row in own if row["protocol"] == "A<->G" and row["valid"]]
    assert arm(found, "e")["mAP"][0] == pytest.approx(np.mean([row["ap"] for row in own]))
    assert arm(found, "e")["rank1"][0] == pytest.approx(np.mean([row["rank"] == 1 for row in own]))
    assert np.mean(arm(found, "e")["mAP_by_seed"]) == pytest.approx(arm(found, "e")["mAP"][0])
    assert (found["queries"], found["people"]) == (80, 40)  # without the invalid query


def test_equal_arms_do_not_differ(results):
    found = task(summarised(results))
    value, low, high = difference(found, "same", "a")
    assert value == low == high == 0  # equal rows cancel in paired differences
    assert arm(found, "same")["mAP_closure"] == [0, 0, 0]
    value, low, high = difference(task(summarised(results), "G<->G"), "e", "a")
    assert low < 0 < high and high - low < 0.01


def test_gap_closure_equals_the_generated_share(results):
    found = summarised(results)
    value, low, high = arm(task(found), "e")["mAP_closure"]
    assert low < 0.6 < high and high - low < 0.1 and low <= value <= high
    assert "mAP_closure" not in arm(task(found), "a") and "mAP_closure" not in arm(task(found), "f")
    assert found["verdict"]["clear"] and found["verdict"]["difference"][0] == pytest.approx(
        0.2, abs=0.01
    )


def test_without_a_gap_the_verdict_is_negative(results):
    found = summarised(results, protocol="G<->G")
    assert not found["verdict"]["clear"]
    assert all("mAP_closure" not in one for one in task(found, "G<->G")["arms"])
    found = summarised(results, ceiling="same", treated="")  # no gap at all
    assert not found["verdict"]["clear"] and found["verdict"]["half"] == 0


def test_pairing_narrows_the_interval(results):
    found = task(summarised(results))
    apart = [resampling.half_width(arm(found, name)["mAP"]) for name in ("a", "e")]
    assert resampling.half_width(difference(found, "e", "a")) < 0.2 * min(apart)


def test_queries_of_a_person_are_resampled_together(results):
    halves = [
        resampling.half_width(arm(task(summarised(results, unit=unit)), "a")["mAP"])
        for unit in ("query", "person")
    ]
    assert halves[1] > 1.2 * halves[0]  # two similar queries add little


def test_the_interval_has_the_theoretical_width():
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (1, 1, 400))
    value, low, high = resampling.interval(0.0, resampling.resample(values, np.arange(400))[:, 0])
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.08)
    # Different seeds widen the interval; equal queries contribute nothing.
    values = np.repeat(rng.normal(0, 1, (1, 8, 1)), 50, 2)
    draws = resampling.resample(values, np.arange(50))[:, 0]
    assert draws.std() == pytest.approx(values[0, :, 0].std() / np.sqrt(8), rel=0.08)
    assert (resampling.resample(values, np.arange(50))[:, 0] == draws).all()


def test_bins_are_of_aerial_queries_only(results):
    bins = task(summarised(results))["bins"]
    assert [part["bin"] for part in bins] == ["0-25", "25-40", "40-55", "55-70", "70-90"]
    assert [part["queries"] for part in bins] == [8] * 5  # ground queries have 50 degrees
    found = runs.read(results).tasks[0]
    steep = found.elevation >= 70
    assert arm(bins[4], "e")["mAP"][0] == pytest.approx(found.ap[1][:, steep].mean())
    assert difference(bins[0], "e", "a")[0] == pytest.approx(0.12, abs=0.02)


# ---- refusals ------------------------------------------------------------------------------------


def test_arms_that_were_not_evaluated_alike_are_refused(results):
    good = (results / "e/seed1/queries.jsonl").read_bytes()
    own = [json.loads(line) for line in good.splitlines()]
    write(results, "e", 1, [row for row in own if row["name"] != "query/003_0.jpg"])
    with pytest.raises(
        ValueError, match=r"e/seed1 lacks 1 queries of A<->G that a/seed0 has: .*003_0"
    ):
        runs.read(results)
    write(results, "e", 1, [*own, own[0] | {"name": "query/new.jpg"}])
    with pytest.raises(
        ValueError, match=r"a/seed0 lacks 1 queries of A<->G that e/seed1 has: .*new"
    ):
        runs.read(results)
    write(results, "e", 1, [row for row in own if row["protocol"] == "A<->G"])
    with pytest.raises(
        ValueError, match=r"e/seed1 has the protocols A<->G, a/seed0 has A<->G, G<->G"
    ):
        runs.read(results)
    write(results, "e", 1, own, fingerprint="other")
    with pytest.raises(ValueError, match="a/seed0 and e/seed1 are of different data sets"):
        runs.read(results)
    write(results, "e", 1, own)
    (results / "e/seed1/queries.jsonl").write_bytes(good[:-40])
    with pytest.raises(ValueError, match="queries.jsonl:162 is no row of evaluate"):
        runs.read(results)
    (results / "e/seed1/queries.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="e/seed1/queries.jsonl: run evaluate"):
        runs.read(results)


def test_missing_arms_and_seeds(results, tmp_path):
    assert runs.read(results, ("f", "a")).arms == ["f", "a"]
    with pytest.raises(FileNotFoundError, match="has no arm g: there are a, e, f, same"):
        runs.read(results, ("a", "g"))
    with pytest.raises(ValueError, match="treated: there is no arm 'g'; there are a, e, f, same"):
        summarised(results, treated="g")
    with pytest.raises(ValueError, match="floor and ceiling must be two arms"):
        summarised(results, ceiling="a")
    with pytest.raises(ValueError, match="'ALL' was not evaluated; there are A<->G, G<->G"):
        summarised(results, protocol="ALL")
    (results / "f/seed2").rename(results / "f/seed3")
    with pytest.raises(ValueError, match="arm f has the seeds 0, 1, 3, arm a has 0, 1, 2"):
        runs.read(results)
    with pytest.raises(FileNotFoundError, match="holds no outputs of evaluate"):
        runs.read(tmp_path)


# ---- the command ---------------------------------------------------------------------------------


def run(folder: Path, output: Path, *options: str) -> int:
    argv = [str(folder), "--treated", "e", "--output", str(output), *options]
    return compare.run(config.parse(compare.Config, argv, "compare"))


def test_outputs_of_the_command(results, tmp_path, capsys):
    probe = {"apart": "synthetic, real aerial", "chance": 0.5, "people": 9, "pictures": 40}
    for seed, value in ((0, 0.7), (2, 0.9)):
        path = tmp_path / f"probe/e/seed{seed}/probe.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"rows": [probe | {"accuracy": [value, value - 0.1, 0.95]}]}))
    options = ("--words", "a=ground only", "--notes", "1,500 steps", "--probes", tmp_path / "probe")
    assert run(results, tmp_path / "out", *map(str, options)) == 0
    text = (tmp_path / "out/table.md").read_text()
    assert text == capsys.readouterr().out
    head, *_, last = text.partition("## A<->G")
    assert "tells floor from ceiling" in head and "Gap closure of (e): 6" in head
    for line in ("a: ground only", "1,500 steps", "a world of our own", "backbone: tiny"):
        assert line in head
    assert "| e | synthetic, real aerial | 80.0 [60.0, 95.0] | 50.0 | 9 | 40 |" in last
    tree = json.loads((tmp_path / "out/table.json").read_text())
    assert tree["verdict"]["clear"] and tree["probes"][0]["accuracy"][0] == pytest.approx(0.8)
    first = {
        name: (tmp_path / "out" / name).read_bytes() for name in ("bars.png", "elevations.png")
    }
    for data in first.values():
        with Image.open(io.BytesIO(data)) as image:
            assert min(image.size) > 200 and len(np.unique(np.asarray(image.convert("L")))) > 20
    assert run(results, tmp_path / "again", *map(str, options)) == 0
    assert first == {name: (tmp_path / "again" / name).read_bytes() for name in first}


def test_a_negative_verdict_comes_first(results, tmp_path, capsys):
    assert run(results, tmp_path / "out", "--protocol", "G<->G") == 0
    assert "**The set-up measures nothing.**" in capsys.readouterr().out.splitlines()[2]


def test_no_bins_without_elevation(results, tmp_path):
    for path in results.glob("*/*/queries.jsonl"):
        own = [json.loads(line) | {"elevation": None} for line in path.open()]
        path.write_bytes(to_jsonl(own))
    assert run(results, tmp_path / "out") == 0
    assert not (tmp_path / "out/elevations.png").exists()
    assert "By elevation" not in (tmp_path / "out/table.md").read_text()


def test_invalid_options(results, tmp_path):
    with pytest.raises(ValueError, match="words: expected \"arm=words\", got 'ground'"):
        run(results, tmp_path / "out", "--words", "ground")
    with pytest.raises(FileNotFoundError, match="holds no <arm>/seed<k>/probe.json of these arms"):
        run(results, tmp_path / "out", "--probes", str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_without_a_ceiling_there_is_no_closure(results, tmp_path, capsys):
    assert run(results, tmp_path / "out", "--floor", "a", "--ceiling", "") == 0
    output = capsys.readouterr().out
    assert "There is no ceiling." in output and "closure" not in output
    tree = json.loads((tmp_path / "out/table.json").read_text())
    assert tree["verdict"] is None and tree["tasks"][0]["gap"] == {}
    assert difference(task(tree), "e", "a") == difference(task(summarised(results)), "e", "a")
    assert "| e | " in output and "mAP: arm − a" in output
