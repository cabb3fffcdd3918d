# SPDX-License-Identifier: Apache-2.0
"""Protocols of data sets without camera ids or views, and evaluation without camera rule."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import releases
from hypothesis import given
from hypothesis import strategies as st

from viewsynth import commands, config, data
from viewsynth.commands import evaluate
from viewsynth.evaluate import protocols, scoring
from viewsynth.records import Dataset, Protocol, Sample

PEOPLE = 6
DIRECTIONS = ["ALL", "G<->G", "A<->A", "A<->G", "A->G", "G->A"]


@pytest.fixture
def folder(tmp_path):
    """Factory of data sets with given metadata columns: three images of both views per person."""

    def make(*columns: str, **values: str) -> Path:
        root, rows = tmp_path / "set", []
        for pid in range(PEOPLE):
            for view in ("aerial", "ground"):
                for number in range(3):
                    name = f"{pid}_{view}_{number}.jpg"
                    releases.put(root, name)
                    row = {
                        "file_name": name,
                        "pid": f"p{pid}",
                        "view": view,
                        "split": "query" if number == 0 else "gallery",
                        "camid": f"{view}{number % 2}",
                        "elevation": 50 if view == "aerial" else 5,
                    }
                    rows.append(row | values)
        with (root / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return root

    return make


ALL = ("file_name", "pid", "split", "view", "camid")
NO_CAMERA, NO_VIEW, NEITHER = ALL[:4], (*ALL[:3], "camid"), ALL[:3]


def features_of(root: Path, seed: int = 0) -> tuple[Path, dict[str, np.ndarray]]:
    """Features that match some people: one direction per person, plus noise."""
    rng = np.random.default_rng(seed)
    people = rng.normal(size=(100, 16))
    names = sorted(s.name for s in data.load("folder", root).samples)
    rows = np.array([people[int(name[0])] + rng.normal(size=16) for name in names], np.float32)
    np.savez(root.parent / "mine.npz", features=rows, names=np.array(names))
    return root.parent / "mine.npz", dict(zip(names, rows.astype(np.float64), strict=True))


def run(root: Path, *options: str) -> dict[str, dict]:
    """Results of an evaluation by protocol, without re-ranked ones."""
    output = root.parent / "out"
    shutil.rmtree(output, ignore_errors=True)
    argv = ["--data.root", str(root), "--features", str(features_of(root)[0]), "--output"]
    parsed = config.parse(evaluate.Config, [*argv, str(output), *options], "evaluate")
    assert evaluate.run(parsed) == 0
    results = json.loads((output / "results.json").read_text())["results"]
    return {one["protocol"]: one for one in results if not one["reranking"]}


def notes(root: Path) -> str:
    return "\n".join(json.loads((root.parent / "out/results.json").read_text())["notes"])


def mean_ap(protocol: Protocol, rows: dict[str, np.ndarray], same) -> tuple[float, int]:
    """Reference mAP with loops, and the number of valid queries; `same` excludes matches."""
    found = []
    for query in protocol.query:
        gallery = [g for g in protocol.gallery if g.pid != query.pid or not same(query, g)]
        scores = [rows[g.name] @ rows[query.name] / np.linalg.norm(rows[g.name]) for g in gallery]
        hits = [gallery[k].pid == query.pid for k in np.argsort(scores)[::-1]]
        ranks = [rank for rank, hit in enumerate(hits, 1) if hit]
        if ranks:
            found.append(np.mean([k / rank for k, rank in enumerate(ranks, 1)]))
    return float(np.mean(found)), len(found)


def same_bytes(one: Sample, other: Sample) -> bool:
    """Whether two images are equal, as some of the small test images are."""
    return one.paths[0].read_bytes() == other.paths[0].read_bytes()


# ---- without a column camid ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "values", "reason"),
    [
        (NO_CAMERA, {}, "camid '0' (as a picture has whose camera is not given)"),
        (ALL, {"camid": ""}, "camid '0' (as a picture has whose camera is not given)"),
        (ALL, {"camid": "gate"}, "camid 'gate', so none has a match"),
    ],
)
def test_protocols_without_camera_rule_are_computed(folder, capsys, columns, values, reason):
    root = folder(*columns, **values)
    results = run(root)
    assert list(results) == ["A<->G"] and results["A<->G"]["valid_queries"] == 2 * PEOPLE
    output = capsys.readouterr()
    line = next(x for x in output.err.splitlines() if "not computed" in x)
    assert line.startswith("folder: ALL, G<->G, A<->A, A->G, G->A are not computed: every picture")
    assert reason in line and "column camid" in line and "--camera-rule none" in line
    assert line.removeprefix("folder: ") in output.out and line[8:] in notes(root)


@pytest.mark.parametrize("names", [["ALL", "A<->G"], ["A<->G", "A->G", "G->A"]])
def test_the_same_for_named_protocols(folder, capsys, names):
    assert list(run(folder(*NO_CAMERA), "--protocols", *names)) == ["A<->G"]
    others = ", ".join(name for name in names if name != "A<->G")
    assert f"{others} {'is' if len(names) == 2 else 'are'} not computed" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["ALL"], ["A->G"], ["G<->G", "A<->A"]])
def test_no_computable_protocol_is_an_error_with_reasons(folder, names):
    message = r"no protocol of folder can be computed:\n.*not computed: every picture .*none$"
    with pytest.raises(ValueError, match=message):
        run(folder(*NO_CAMERA), "--protocols", *names)


def test_every_reason_is_reported():
    def of(name, query, gallery, camera="camid"):
        path = Path("/none")
        sides = (
            [Sample(paths=(path / n,), name=n, pid=pid, camid=camid) for n, pid, camid in side]
            for side in (query, gallery)
        )
        return Protocol(
            name=name, **dict(zip(("query", "gallery"), sides, strict=True)), camera=camera
        )

    a, b = ("a", "1", "7"), ("b", "1", "7")
    every = [
        of("good", [a], [("b", "1", "8")]),
        of("people", [a], [("b", "01", "8")]),
        of("cameras", [a], [b, ("c", "2", "8")]),
        of("views", [a], [b], "view"),
        of("own", [a], [a, ("c", "2", "8")], "none"),
        of("empty", [], [b]),
    ]
    dataset = Dataset(name="some", root=Path("/data"), samples=[])
    kept, lines = protocols.computable(dataset, every, {})
    assert kept == every[:1] and len(lines) == 5
    for line, words in zip(
        lines,
        (
            "no person is in both; write pids",
            "with another camid; evaluate without",
            "with another view",
            "other than its own picture",
            "has an empty query in /data",
        ),
        strict=True,
    ):
        assert words in line
    with pytest.raises(ValueError, match="can be computed:\n(.*\n){4}empty is not computed: "):
        protocols.computable(dataset, every[1:], {})


# ---- without camera rule -------------------------------------------------------------------------


def test_without_camera_rule_all_protocols_are_computed(folder, capsys):
    root = folder(*NO_CAMERA)
    results = run(root, "--camera-rule", "none", "--rerank")
    assert list(results) == DIRECTIONS
    rows = features_of(root)[1]
    dataset = data.load("folder", root)
    for name, one in results.items():
        view = name == "A<->G"
        expected = mean_ap(
            dataset.protocols[name],
            rows,
            (lambda q, g: q.view == g.view) if view else same_bytes,
        )
        assert (one["mAP"][0], one["valid_queries"]) == pytest.approx(expected, abs=1e-9)
    for name, one in results.items():
        assert one["camera_rule"] == ("view" if name == "A<->G" else "none")
        assert ("no camera rule" in one["direction"]) == (name != "A<->G")
        assert ("no camera rule" in one["leaderboard"]["protocol"]) == (name != "A<->G")
    output = capsys.readouterr()
    for text in (output.out, output.err, notes(root)):
        assert "No camera rule (--camera-rule none)" in text and "A<->G keeps its rule" in text
    assert "aerial queries, ground gallery; no camera rule |" in output.out


def test_an_existing_camera_rule_can_be_disabled(folder):
    root = folder(*ALL)
    with_rule, without = run(root), run(root, "--camera-rule", "none")
    rows, protocol = features_of(root)[1], data.load("folder", root).protocols["ALL"]
    by_camera = mean_ap(protocol, rows, lambda q, g: q.camid == g.camid)
    assert with_rule["ALL"]["mAP"][0] == pytest.approx(by_camera[0], abs=1e-9)
    assert with_rule["ALL"]["camera_rule"] == "camid"
    assert "no camera rule" not in str(with_rule)
    assert without["ALL"]["mAP"][0] != with_rule["ALL"]["mAP"][0]
    assert with_rule["A<->G"]["mAP"] == without["A<->G"]["mAP"]
    assert without["ALL"]["gallery"] == with_rule["ALL"]["gallery"]


def test_a_copy_of_the_query_is_no_match(folder):
    """The gallery contains a copy of each query under another name, which must not count."""
    root = folder(*NO_CAMERA)
    with (root / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    copies = []
    for row in rows:
        if row["split"] == "query":
            copies.append(
                row
                | {
                    "file_name": f"{row['file_name'][0]}_copy{row['file_name'][1:]}",
                    "split": "gallery",
                }
            )
            (root / copies[-1]["file_name"]).write_bytes((root / row["file_name"]).read_bytes())
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, NO_CAMERA)
        writer.writeheader()
        writer.writerows([*rows, *copies])
    found = run(root, "--camera-rule", "none")["G<->G"]
    protocol, values = data.load("folder", root).protocols["G<->G"], features_of(root)[1]
    assert len(protocol.gallery) == found["gallery"] == 3 * PEOPLE
    expected, count = mean_ap(protocol, values, same_bytes)
    assert found["mAP"][0] == pytest.approx(expected, abs=1e-9)
    assert count == found["valid_queries"] == PEOPLE
    assert found["mAP"][0] != pytest.approx(mean_ap(protocol, values, lambda q, g: False)[0])


def test_copies_alone_are_no_match(tmp_path):
    """Query and gallery are equal images: people with a single image have no match."""
    samples = []
    for number, (pid, content) in enumerate([("1", b"x"), ("1", b"yy"), ("2", b"z"), ("3", b"z")]):
        for split in ("query", "gallery"):
            path = tmp_path / f"{split}{number}"
            path.write_bytes(content)
            samples.append(Sample(paths=(path,), name=path.name, pid=pid, split=split))
    query, gallery = samples[::2], samples[1::2]
    protocol = protocols.without_cameras(Protocol(name="ALL", query=query, gallery=gallery))
    assert protocol.valid_queries == 2 and len(protocol.gallery) == 4
    rows = scoring.rank(protocol, np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
    assert rows.valid.tolist() == [True, True, False, False]
    assert rows.rank.tolist()[:2] == [
        3,
        3,
    ]  # after equally distant images of others
    views = Protocol(name="A<->G", query=query, gallery=gallery, camera="view")
    assert protocols.without_cameras(views) == views


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=8),
    st.sets(st.integers(0, 7), min_size=1),
    st.sets(st.integers(0, 7), min_size=1),
)
def test_valid_queries_are_those_with_another_picture(people, asked, searched):
    samples = [
        Sample(paths=(Path(f"/none/{n}.jpg"),), name=f"{n}.jpg", pid=f"p{pid}", camid=str(camid))
        for n, (pid, camid) in enumerate(people)
    ]
    query, gallery = ([samples[n] for n in some if n < len(samples)] for some in (asked, searched))
    protocol = protocols.without_cameras(Protocol(name="ALL", query=query, gallery=gallery))
    expected = [any(g.pid == q.pid and g.name != q.name for g in gallery) for q in query]
    assert protocol.valid_queries == sum(expected)
    if query and gallery:
        arrays = (np.ones((len(some), 2), np.float32) for some in (query, gallery))
        assert scoring.rank(protocol, *arrays).valid.tolist() == expected


# ---- without view --------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "values"), [(NO_VIEW, {}), (ALL, {"view": ""})])
def test_a_missing_view_is_reported(folder, capsys, columns, values):
    root = folder(*columns, **values)
    assert list(run(root)) == ["ALL", "G<->G"]
    output = capsys.readouterr()
    assert "folder: view: no picture of query or gallery is said to be from above" in output.err
    assert "A<->G, A<->A, A->G and G->A are not offered" in output.out
    with pytest.raises(ValueError, match=r"no protocol 'A->G'; there are .*\. view: no picture"):
        run(root, "--protocols", "A->G")


def test_no_remarks_if_nothing_is_missing(folder, capsys, release):
    run(folder(*ALL))
    output = capsys.readouterr()
    assert "not computed" not in output.err + output.out and "from above" not in output.err
    dataset = data.load("market1501", release("market1501"))  # has one view by definition
    assert protocols.select(dataset, (), "protocol", {})[1] == []


def test_without_camera_and_view(folder, capsys):
    root = folder(*NEITHER)
    with pytest.raises(ValueError, match="can be computed:\nALL, G<->G are not computed: every"):
        run(root)
    assert list(run(root, "--camera-rule", "none")) == ["ALL", "G<->G"]
    assert "view: no picture" in capsys.readouterr().err


# ---- unreadable images ---------------------------------------------------------------------------


def test_protocols_without_matches_after_removing_unreadable_images(folder, capsys):
    """Such protocols are reported and left out."""
    root = folder(*ALL)
    dataset = data.load("folder", root)
    chosen, _ = protocols.select(dataset, ("ALL", "A<->G"), "protocol", {})
    have = {s.name for s in dataset.samples} - {
        s.name for s in dataset.samples if s.split == "gallery" and s.camid.endswith("1")
    }
    only = [replace(chosen[0], query=chosen[0].query[:1]), chosen[1]]
    kept, lines = evaluate._left(dataset, only, have, {})
    assert [protocol.name for protocol in kept] == ["ALL", "A<->G"] and lines == []
    have = {s.name for s in dataset.samples if s.view == "aerial" or s.split == "query"}
    only = [chosen[1], dataset.protocols["G<->G"]]
    kept, lines = evaluate._left(dataset, only, have, {})
    assert [protocol.name for protocol in kept] == ["A<->G"]
    assert lines == [f"G<->G is not computed: it has an empty gallery in {root}"]


def test_the_command_prints_the_reasons(folder, capsys):
    root = folder(*NO_CAMERA)
    path, _ = features_of(root)
    argv = ["--data.root", str(root), "--features", str(path), "--output", str(root.parent / "o")]
    with pytest.raises(SystemExit) as caught:
        commands.main("evaluate", [*argv, "--protocols", "A->G"])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].endswith("error: no protocol of folder can be computed:")
    assert lines[-1].startswith("A->G is not computed: every picture")
