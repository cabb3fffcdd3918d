# SPDX-License-Identifier: Apache-2.0
"""The loader of rendered worlds: ground truth, bad rows and missing files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import releases
from releases import reasons

from viewsynth import data
from viewsynth.data import layout
from viewsynth.data.world import REST


def rows_of(root: Path) -> list[str]:
    return (root / "truth.jsonl").read_text().splitlines()


def test_a_world_has_its_ground_truth(release):
    dataset = data.load("world", release("world"))
    cargo = data.load("cargo", dataset.root)
    assert {s.name for s in dataset.samples} == {s.name for s in cargo.samples}
    assert {k: p.valid_queries for k, p in dataset.protocols.items()} == {
        k: p.valid_queries for k, p in cargo.protocols.items()
    }
    sample = next(s for s in dataset.samples if s.name == "query/Cam3/Cam3_day_0008_2.jpg")
    assert (sample.pid, sample.camid, sample.platform, sample.view, sample.split) == (
        "world/0008",
        "3",
        "drone",
        "aerial",
        "query",
    )
    assert (sample.elevation, sample.azimuth, sample.altitude, sample.distance) == (
        31.5,
        15.25,
        10.5,
        23.0,
    )
    assert (sample.caption, sample.attributes) == ("Person 0008.", ("tall",))
    assert not [s for s in dataset.samples if "paired" in s.name]


ROWS = [
    ({"file_name": "train/Cam1/none.jpg"}, "train/Cam1/none.jpg is not in /"),
    ({"file_name": "train/../../x.jpg"}, "leads out of"),
    ({"file_name": "train/link.jpg"}, "link"),
    ({"file_name": "/etc/passwd"}, "is not in the folder of its split"),
    ({"split": "query"}, "is not in the folder of its split, query"),
    ({"split": 7}, "folder of its split, 7"),
    ({"file_name": None}, "file_name must be text, got None"),
    ({"file_name": ["a"]}, "file_name must be text"),
    ({"pid": "../7"}, "pid must be digits"),
    ({"platform": "uav"}, "platform must be one of drone"),
    ({"elevation": None}, "elevation must be a finite number, got None"),
    ({"azimuth": "steep"}, "azimuth must be a finite number, got 'steep'"),
    ({"distance": float("nan")}, "distance must be a finite number"),
    ({"altitude": [1]}, "altitude must be a finite number"),
]


@pytest.mark.parametrize(("change", "reason"), ROWS)
def test_a_bad_row_of_a_world_is_a_reject(change, reason, release, tmp_path):
    root = release("world")
    (root / "train" / "link.jpg").symlink_to(tmp_path)
    rows = rows_of(root)
    lost = json.loads(rows[-1])
    rows[-1] = json.dumps(lost | change)
    (root / "truth.jsonl").write_text("\n".join(rows))
    dataset = data.load("world", root)
    assert lost["file_name"] not in {s.name for s in dataset.samples}
    assert len(dataset.samples) == releases.IMAGES["world"] - 1
    found = reasons(dataset)
    assert found[lost["file_name"]] == "no row of truth.jsonl names this image"
    if "link" not in reason:  # the link has a reject of its own
        assert re.search(reason, found[f"truth.jsonl:{len(rows)}"])


@pytest.mark.parametrize("line", ["{", "[1]", '{"a": 1} x', "half", '{"pid": "\xff"}'])
def test_a_bad_line_of_a_world_is_a_reject_with_its_number(line, release):
    root = release("world")
    rows = rows_of(root)
    last = json.loads(rows[-1])["file_name"]
    broken = rows[-1][: rows[-1].index(REST.decode()) + 40] if line == "half" else line
    (root / "truth.jsonl").write_bytes("\n".join([*rows[:-1], broken]).encode("latin-1"))
    dataset = data.load("world", root)
    assert "JSON object" in reasons(dataset)[f"truth.jsonl:{len(rows)}"]
    assert "no row" in reasons(dataset)[last]


def test_a_world_in_another_order_of_keys(release):
    root = release("world")
    expected = data.load("world", root).samples
    rows = [json.dumps(dict(reversed(json.loads(row).items()))) for row in rows_of(root)]
    (root / "truth.jsonl").write_text("\r\n".join(reversed(rows)))
    assert data.load("world", root).samples == expected


def test_a_world_that_lacks_something(release, caplog):
    root = release("world")
    rows = rows_of(root)
    (root / "truth.jsonl").write_text("\n".join([*rows, rows[-1]]) + "\n")
    lost = json.loads(rows[0])["file_name"]
    (root / lost).unlink()
    people = (root / "people.jsonl").read_text().splitlines()
    bad = ["{", '{"pid": 1}', '{"pid": "1", "caption": "", "attributes": [1]}']
    (root / "people.jsonl").write_text("\n".join([*people, *bad]))
    dataset = data.load("world", root)
    reason = reasons(dataset)
    assert reason["truth.jsonl:1"] == f"{lost} is not in {root}"
    assert "was named before" in reason[f"truth.jsonl:{len(rows) + 1}"]
    assert all(f"people.jsonl:{len(people) + k}" in reason for k in (1, 2, 3))
    assert "gallery images: 7 here, 8 published (truth.jsonl)" in caplog.text
    (root / "people.jsonl").unlink()
    assert "have no captions" in data.load("world", root).warnings[0]
    (root / "world.json").write_text("{")
    (root / "people.jsonl").write_text("")
    with pytest.raises(ValueError, match="world.json cannot be read"):
        data.load("world", root)


def test_a_line_that_is_too_long(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\n" + b" " * (layout.MAX_LINE + 5) + b"\n\n{}")
    (_, first), (line, long), (last, _) = layout.json_rows(path)
    assert first == {} and line == 2 and "more than 1 MiB" in str(long) and last == 4
