# SPDX-License-Identifier: Apache-2.0
"""Exports read by our loaders, and by readers like those of fast-reid, torchreid and CARGO.

The readers here parse file names as the originals do, assertions included (fast-reid and torchreid
`market1501.py`, VDT `cargo.py`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth import data
from viewsynth.commands import export

RELEASES = {"market": "market1501", "cargo": "cargo"}


def market_reader(root: Path) -> list[tuple[int, int]]:
    """(person, camera) of every training image, as fast-reid and torchreid read them."""
    folders = [root / name for name in ("bounding_box_train", "query", "bounding_box_test")]
    assert all(folder.exists() for folder in folders)
    assert not [path for folder in folders[1:] for path in folder.glob("*.jpg")]
    found = []
    for path in folders[0].glob("*.jpg"):
        pid, camera = map(int, re.search(r"([-\d]+)_c(\d)", str(path)).groups())
        assert 0 <= pid <= 1501 and 1 <= camera <= 6
        assert pid not in (0, -1)  # background and junk
        found.append((pid, camera))
    return found


def cargo_reader(root: Path) -> list[tuple[int, int]]:
    """(person, camera) of every training image that CARGO's loader takes as aerial."""
    found = []
    for number in range(1, 14):
        for path in (root / "train" / f"Cam{number}").glob("*.jpg"):
            words = path.name.split("_")
            assert int(words[0][3:]) == number <= 5
            found.append((int(words[2]), number))
    return found


READERS = {"market": market_reader, "cargo": cargo_reader}


def make_run(folder: Path, people: list[str], cameras: list[tuple[str, float]]) -> Path:
    """A run with views of every person from every virtual camera, some of them twice."""
    rows = []
    for who, pid in enumerate(people):
        for number, (camid, elevation) in enumerate(cameras * 2 if who % 2 else cameras):
            name = f"images/{who}/{number}.jpg"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(f"{who} {number}".encode())
            rows.append(
                {
                    "file_name": name,
                    "pid": pid,
                    "camid": camid,
                    "elevation": elevation,
                    "person": f"people/{who}.safetensors",
                }
            )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def read_back(kind: str, run: Path) -> list[dict]:
    """Export, read with every reader, compare; returns the entries of `sources.jsonl`."""
    assert export.run(export.Config(kind, run)) == 0
    root = run / "export" / kind
    entries = [json.loads(line) for line in (root / "sources.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (run / "metadata.jsonl").read_text().splitlines()]
    assert sorted(entry["original"] for entry in entries) == sorted(r["file_name"] for r in rows)

    dataset = data.load(RELEASES[kind], root)
    assert {reject.kind for reject in dataset.rejects} == set() and not dataset.protocols
    told = Counter((entry["label"], entry["camera"]) for entry in entries)
    assert Counter(READERS[kind](root)) == told
    ours = Counter((int(s.pid.rpartition("/")[2]), int(s.camid)) for s in dataset.samples)
    assert ours == told
    signs = {(s.split, s.view, s.platform, s.source) for s in dataset.samples}
    assert signs == {("train", "aerial", "drone", "synthetic")}

    labels = {entry["row"]["pid"]: entry["label"] for entry in entries}
    assert len(set(labels.values())) == len(labels)  # no two people are merged
    pictures = Counter(row["pid"] for row in rows)
    assert Counter(int(s.pid.rpartition("/")[2]) for s in dataset.samples) == {
        labels[pid]: count for pid, count in pictures.items()
    }
    return entries


def virtual(sources: int, elevations: list[float]) -> list[tuple[str, float]]:
    return [(f"c{source}:e{int(e // 15 * 15)}", e) for source in range(sources) for e in elevations]


PIDS = st.lists(
    st.one_of(
        st.integers(0, 3000).map(lambda n: f"cargo/{n}"),
        st.sampled_from(["market1501/0002", "-1", "0", "06", "6", "6.0", "_c9", "a_c7", "9" * 30]),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=8,
    unique=True,
)
CAMERAS = st.lists(
    st.tuples(st.sampled_from(["0", "c1+c2", "_c3", "Cam14", "größe"]), st.floats(0, 90)),
    min_size=1,
    max_size=20,
).map(lambda some: sorted({(f"{name}:e{int(e // 15 * 15)}", e) for name, e in some}))


@pytest.mark.parametrize("kind", RELEASES)
@settings(max_examples=30, deadline=None)
@given(people=PIDS, cameras=CAMERAS)
def test_every_export_is_read_by_all_readers(tmp_path_factory, kind, people, cameras):
    read_back(kind, make_run(tmp_path_factory.mktemp("run"), people, cameras))


@pytest.mark.parametrize(
    ("kind", "sources", "elevations", "expected"),
    [
        # Cameras that fit keep numbers of their own, by elevation: 6 of 6 and 5 of 5.
        (
            "market",
            1,
            [0, 30, 45, 60, 75, 90],
            {"e0": [1], "e30": [2], "e45": [3], "e60": [4], "e75": [5], "e90": [6]},
        ),
        (
            "cargo",
            1,
            [0, 30, 45, 60, 90],
            {"e0": [1], "e30": [2], "e45": [3], "e60": [4], "e90": [5]},
        ),
        # Two sources at four elevations: a number per elevation.
        ("market", 2, [30, 45, 60, 90], {"e30": [1], "e45": [2], "e60": [3], "e90": [4]}),
        # Ten sources at one elevation share all the numbers.
        ("market", 10, [30], {"e30": [1, 2, 3, 4, 5, 6]}),
        ("cargo", 3, [30, 60], {"e30": [1, 2], "e60": [3, 4]}),
        # More elevations than numbers: neighbours share.
        (
            "market",
            1,
            [0, 15, 30, 45, 60, 75, 90],
            {"e0": [1], "e15": [1], "e30": [2], "e45": [3], "e60": [4], "e75": [5], "e90": [6]},
        ),
        (
            "cargo",
            3,
            [0, 15, 30, 45, 60, 75, 90],
            {"e0": [1], "e15": [1], "e30": [2], "e45": [3], "e60": [3], "e75": [4], "e90": [5]},
        ),
    ],
)
def test_cameras_that_do_not_fit_share_numbers_and_are_reported(
    kind, sources, elevations, expected, tmp_path, capsys
):
    cameras = virtual(sources, elevations)
    entries = read_back(kind, make_run(tmp_path, ["a", "b"], cameras))
    found = {}
    for entry in entries:
        camid = entry["row"]["camid"]  # the virtual camera is kept
        found.setdefault(camid.partition(":")[2], set()).add(entry["camera"])
    assert {band: sorted(numbers) for band, numbers in found.items()} == expected
    users: dict[int, set] = {}
    for entry in entries:
        users.setdefault(entry["camera"], set()).add(entry["row"]["camid"])
    said = capsys.readouterr().err
    for camera, camids in users.items():
        told = f"camera {camera} is shared by the virtual cameras {', '.join(sorted(camids))}\n"
        assert (told in said) == (len(camids) > 1)


def test_more_people_than_market_has_numbers_are_refused_first(tmp_path):
    people = [f"cargo/{number}" for number in range(1, 1502)]
    run = make_run(tmp_path, people, [("c1:e30", 30.0)])
    assert export.run(export.Config("market", run)) == 0
    assert len(data.load("market1501", run / "export" / "market").samples) == 1501 + 750
    run = make_run(tmp_path, [*people, "cargo/0"], [("c1:e30", 30.0)])
    with pytest.raises(ValueError, match="has 1502 people.*at most 1501.*export cargo"):
        export.run(export.Config("market", run))
    assert len(data.load("market1501", run / "export" / "market").samples) == 1501 + 750
    assert export.run(export.Config("cargo", run)) == 0


@pytest.mark.parametrize(
    ("kind", "people", "kept", "told"),
    [
        ("market", ["market1501/0002", "market1501/0007"], True, False),
        ("cargo", ["cargo/2519", "cargo/7"], True, False),
        ("market", ["cargo/0002", "cargo/0007"], True, True),  # numbers of other people
        ("market", ["market1501/0002", "mine/7"], True, True),
        ("market", ["cargo/2519", "cargo/7"], False, True),  # 2519 does not fit
        ("market", ["anna", "ben"], False, True),
        ("cargo", ["cargo/6", "cargo/06"], False, True),
    ],
)
def test_numbers_of_other_people_in_the_real_set_are_reported(
    kind, people, kept, told, tmp_path, capsys
):
    entries = read_back(kind, make_run(tmp_path, people, [("c1:e30", 30.0)]))
    assert told == ("these numbers are other people" in capsys.readouterr().err)
    own = {pid: int(pid.rpartition("/")[2]) for pid in people} if kept else {}
    for entry in entries:
        assert entry["label"] == own.get(entry["row"]["pid"], entry["label"])
        assert kept or entry["label"] <= 2


def test_merging_with_the_real_set_overwrites_nothing(tmp_path):
    for kind in RELEASES:
        entries = read_back(kind, make_run(tmp_path / kind, ["1"], virtual(2, [30, 60])))
        last = [re.findall(r"\d+", entry["file_name"])[-2:] for entry in entries]
        assert all(any(int(number) > 900_000 for number in numbers) for numbers in last)


def test_a_folder_named_like_an_image_is_reported(tmp_path, capsys):
    run = make_run(tmp_path, ["1"], [("c1:e30", 30.0)])
    export.run(export.Config("market", run, str(tmp_path / "2024_c9" / "out")))
    assert "search the whole path: rename that folder" in capsys.readouterr().err
    export.run(export.Config("market", run, str(tmp_path / "plain" / "out")))
    assert "whole path" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "no json\n", "[1]\n", '{"file_name": 3}\n{"other": 1}\n'])
def test_another_file_called_sources_changes_nothing(text, tmp_path):
    root = tmp_path / "release"
    for name in ("train/Cam7/Cam7_day_1_1.jpg", "query/.keep", "gallery/.keep"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "sources.jsonl").write_text(text)
    (sample,) = data.load("cargo", root).samples
    assert (sample.view, sample.platform, sample.source) == ("ground", "cctv", "real")
