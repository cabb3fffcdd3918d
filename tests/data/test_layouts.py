# SPDX-License-Identifier: Apache-2.0
"""What is special about one data set: its lists, its names, its junk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import releases
from hypothesis import example, given
from hypothesis import strategies as st
from releases import content, reasons

from viewsynth import data
from viewsynth.data import ag_reid_v1, layout
from viewsynth.data.world import REST

CASES = [(name, file) for name, files in releases.LISTS.items() for file in files]
lists = pytest.mark.parametrize(("name", "file"), CASES)


def list_of(root: Path, file: str) -> Path:
    return next(root.rglob(file))


# ---- lists -------------------------------------------------------------------------------------


@lists
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.removesuffix("\n"),
        lambda text: text.replace("\n", "\r\n").removesuffix("\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\n" + text.replace("\n", "\n\n  \n"),
        lambda text: text.replace("\n", " \t\n"),
        lambda text: text.replace("/", "\\"),
        lambda text: "./" + text.replace("\n", "\n./").removesuffix("./"),
        lambda text: "".join(sorted(text.splitlines(keepends=True), reverse=True)),
    ],
    ids=[
        "crlf",
        "unended",
        "crlf-unended",
        "bom",
        "blank",
        "spaces",
        "windows",
        "dots",
        "reversed",
    ],
)
def test_any_form_of_a_list(name, file, change, release):
    expected = data.load(name, release(name))
    path = list_of(release(name, "changed"), file)
    path.write_bytes(change(path.read_text()).encode())
    found = data.load(name, path.parents[1] if name == "ag_reid_v2" else path.parent)
    assert content(found)[:3] == content(expected)[:3] and not found.warnings


@lists
def test_rows_that_name_nothing(name, file, release):
    root = release(name)
    expected, path = data.load(name, root), list_of(root, file)
    rows = path.read_text().splitlines()
    more = ["query/none.jpg", rows[0], "../../etc/passwd", "/etc/passwd", "/"]
    path.write_bytes("\n".join([*rows, *more]).encode())
    found = data.load(name, root)
    assert content(found)[:2] == content(expected)[:2]
    told, first = reasons(found), len(rows) + 1
    assert told[f"{file}:{first}"] == f"there is no picture query/none.jpg in {expected.root}"
    assert told[f"{file}:{first + 1}"] == f"{rows[0]} was named before"
    assert all(f"{file}:{first + k}" in told for k in (2, 3, 4))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=re.escape(f"{file} is no text")):
        data.load(name, root)


@lists
def test_a_missing_list_is_told(name, file, release):
    root = release(name)
    expected = data.load(name, root)
    list_of(root, file).unlink()
    found = data.load(name, root)
    (gone,) = set(expected.protocols) - set(found.protocols)
    (warning,) = found.warnings
    assert f"/{file}: the protocol {gone} is not offered" in warning
    assert found.fingerprint != expected.fingerprint


@pytest.mark.parametrize("name", releases.LISTS)
def test_lists_of_the_other_direction_are_told(name, release):
    root = release(name)
    first, other = (list_of(root, releases.LISTS[name][k]) for k in (0, 1 if name[0] != "a" else 2))
    texts = first.read_bytes(), other.read_bytes()
    first.write_bytes(texts[1])
    other.write_bytes(texts[0])
    warnings = data.load(name, root).warnings
    assert any(f"{first.name}: 2 query pictures are not aerial, e.g. query" in w for w in warnings)
    assert sum(w.startswith((first.name, other.name)) for w in warnings) == 4


def test_lists_of_v2_beside_the_pictures(release):
    root = release("ag_reid_v2")
    expected = data.load("ag_reid_v2", root)
    for file in releases.LISTS["ag_reid_v2"]:
        path = list_of(root, file)
        path.rename(expected.root / file)
    for place in (root, expected.root):
        assert content(data.load("ag_reid_v2", place)) == content(expected)


# ---- AG-ReID -----------------------------------------------------------------------------------

DIGITS = st.text("0123456789", min_size=1, max_size=6)


@given(first=st.tuples(DIGITS, DIGITS, DIGITS), second=st.tuples(DIGITS, DIGITS, DIGITS))
@example(first=("0001", "04041", "0"), second=("00010", "4041", "0"))
@example(first=("1", "11", "1"), second=("11", "1", "1"))
def test_identities_of_ag_reid_never_collide(first, second):
    pids = [
        ag_reid_v1.parts("P{}T{}A{}C3F7.jpg".format(*who), "v", (3,))[0]["pid"]
        for who in (first, second)
    ]
    assert (pids[0] == pids[1]) == (first == second)


def test_ag_reid_v1(release):
    dataset = data.load("ag_reid_v1", release("ag_reid_v1"))
    assert len({s.pid for s in dataset.train}) == 3
    found = {s.name.rpartition("/")[2]: s for s in dataset.samples}
    air, ground = found["P0002T0404A1C0F5.jpg"], found["P0002T0404A1C3F7.jpg"]
    assert air.pid == ground.pid == "ag_reid_v1/P0002T0404A1"
    assert (air.camid, air.platform, air.view, air.session) == ("0", "drone", "aerial", "0404")
    assert (ground.camid, ground.platform, ground.view) == ("3", "cctv", "ground")
    assert air.attributes == ("altitude_level:1",) and not ground.attributes
    assert air.altitude is None  # nobody says the metres
    gallery = dataset.protocols["A->G"].gallery
    assert {s.name.partition("/")[0] for s in gallery} == {"bounding_box_test_all_c3"}


def test_ag_reid_v1_with_what_the_first_archive_held(release):
    root = release("ag_reid_v1")
    expected = data.load("ag_reid_v1", root).samples
    stray = "bounding_box_test_all_c3/image/P0002T0404A1C2F9.jpg"
    wrong = "query_all_c0/P0002T0404A1C3F7.jpg"
    releases.put(root, stray, wrong, "query_all_c0/image/P0002T0404A1C0F8.jpg")
    dataset = data.load("ag_reid_v1", root)
    assert len(dataset.samples) == len(expected) + 1
    assert "camera 2 is none of 0 (drone), 3 (cctv)" in reasons(dataset)[stray]
    assert "camera 3 in a folder of camera 0" in reasons(dataset)[wrong]


def test_ag_reid_v2(release):
    dataset = data.load("ag_reid_v2", release("ag_reid_v2"))
    assert {(s.camid, s.platform, s.view) for s in dataset.samples} == {
        ("0", "drone", "aerial"),
        ("2", "wearable", "ground"),
        ("3", "cctv", "ground"),
    }
    for protocol in dataset.protocols.values():  # no query is dropped: no camera is on both sides
        assert protocol.valid_queries == len(protocol.query)
        assert not {s.camid for s in protocol.query} & {s.camid for s in protocol.gallery}


# ---- CARGO, Market-1501, LAGPeR, G2APS ---------------------------------------------------------


def test_protocols_of_cargo(release):
    protocols = data.load("cargo", release("cargo")).protocols
    found = {name: (len(p.query), len(p.gallery), p.valid_queries) for name, p in protocols.items()}
    # 7 is in everything. 8 is found on the ground only, 9 (asked on the ground) in the air only,
    # 10 nowhere but in the camera that asks, 11 is never asked for.
    assert found == {
        "ALL": (5, 8, 4),
        "G<->G": (2, 4, 1),
        "A<->A": (3, 4, 1),
        "A<->G": (5, 8, 4),  # both directions: nobody leaves, the view is the camera
        "A->G": (3, 4, 2),
        "G->A": (2, 4, 2),
    }
    assert [name for name, p in protocols.items() if p.camera == "view"] == ["A<->G"]


@pytest.mark.parametrize(
    ("stray", "reason"),
    [
        ("train/Cam14/Cam14_day_1_0.jpg", "camera 14 is not one of 1 to 13"),
        ("train/Cam0/Cam0_day_1_0.jpg", "camera 0 is not one of 1 to 13"),
        ("train/Cam2/Cam3_day_1_0.jpg", "expected it in train/Cam3"),
        ("train/Cam3_day_1_0.jpg", "expected it in train/Cam3"),
    ],
)
def test_cameras_of_cargo(stray, reason, release):
    root = release("cargo")
    releases.put(root, stray)
    assert reason in reasons(data.load("cargo", root))[stray]


def test_junk_of_market1501(release):
    root = release("market1501")
    releases.put(root, "query/0000_c1s1_000001_00.jpg", "query/0001_c7s1_000001_00.jpg")
    dataset = data.load("market1501", root)
    counted = {r.source: r.scores["count"] for r in dataset.rejects if r.kind == "skipped"}
    assert counted == {"-1": 3, "0000": 3}
    assert [s.split for s in dataset.samples if s.pid == "market1501/0000"] == ["gallery"]
    assert "camera 7" in reasons(dataset)["query/0001_c7s1_000001_00.jpg"]
    assert dataset.protocols["ALL"].valid_queries == 3


@pytest.mark.parametrize("missing", [10, 11])
def test_cameras_of_lagper(missing, tmp_path):
    releases._lagper(tmp_path, missing)
    releases.put(tmp_path, *(f"bounding_box_test_aerial/0104_c{n}_1.jpg" for n in range(17, 22)))
    dataset = data.load("lagper", tmp_path)
    numbers = {s.name: int(s.name.split("_c")[1].split("_")[0]) for s in dataset.samples}
    ids = {(numbers[s.name], int(s.camid)) for s in dataset.samples}
    present = [n for n in range(1, 23) if n != missing]
    assert sorted(ids) == list(zip(present, range(1, 22), strict=True)) and not dataset.warnings
    aerial = {numbers[s.name] for s in dataset.samples if s.view == "aerial"}
    assert (
        aerial
        == {3, 6, 9, 13, 16, 19, 22}
        == {numbers[s.name] for s in dataset.samples if s.platform == "drone"}
    )


def test_lagper_with_both_doubtful_cameras_or_none(release):
    root = release("lagper")
    releases.put(root, "bounding_box_train/0001/0001_c10_000001.jpg")
    dataset = data.load("lagper", root)
    found = {s.name: s.camid for s in dataset.samples}
    for number in (9, 10, 11, 12):
        name = f"bounding_box_train/{number % 3:04d}/{number % 3:04d}_c{number}_00001.jpg"
        assert found.get(name, str(number)) == str(number)
    assert "both camera 10 and camera 11 have pictures" in dataset.warnings[0]
    for path in root.rglob("*_c1[01]_*"):
        path.unlink()
    dataset = data.load("lagper", root)
    assert "11" in {s.camid for s in dataset.samples if "_c12_" in s.name}
    assert not dataset.warnings


def test_nobody_of_lagper(release):
    root = release("lagper")
    asked, searched = "query_aerial/-1_c16_1.jpg", "bounding_box_test_ground/-1_c15_1.jpg"
    releases.put(root, asked, searched, "query_aerial/0001_c23_1.jpg")
    with (root / "exp3_A2G+.txt").open("a") as file:
        file.write(f"{asked}\n{searched}\n")
    dataset = data.load("lagper", root)
    protocol = dataset.protocols["A->G"]
    assert searched in {s.name for s in protocol.gallery} and protocol.valid_queries == 2
    assert "identity -1 is nobody" in reasons(dataset)[asked]
    assert "camera 23" in reasons(dataset)["query_aerial/0001_c23_1.jpg"]
    assert "(1)" in reasons(dataset)["-1"]


def test_a_name_of_g2aps_is_not_one_of_lagper(release):
    root = release("lagper")
    stray = "bounding_box_train/0012/0012_c0v1_000345.jpg"
    releases.put(root, stray)
    assert "not like 0123_c13_000045.jpg" in reasons(data.load("lagper", root))[stray]


def test_nobody_of_g2aps(release):
    root = release("g2aps_reid")
    releases.put(root, "query_c0/11/5555_c0v1_000001.jpg", "query_c0/11/0011_c1v1_000001.jpg")
    dataset = data.load("g2aps_reid", root)
    nobody = [s for s in dataset.samples if s.pid == "g2aps_reid/5555"]
    assert [(s.split, s.view) for s in nobody] == [("gallery", "aerial"), ("gallery", "ground")]
    assert [nobody[1] in p.gallery for p in dataset.protocols.values()] == [True, False]
    told = reasons(dataset)
    assert "(2)" in told["5555"] and "nobody" in told["query_c0/11/5555_c0v1_000001.jpg"]
    assert "camera 1 is neither" in told["query_c0/11/0011_c1v1_000001.jpg"]


# ---- the world ---------------------------------------------------------------------------------


def rows_of(root: Path) -> list[str]:
    return (root / "truth.jsonl").read_text().splitlines()


def test_a_world_brings_its_truth(release):
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
    ({"file_name": "train/Cam1/none.jpg"}, "train/Cam1/none.jpg is not there, in /"),
    ({"file_name": "train/../../x.jpg"}, "leads out of"),
    ({"file_name": "train/link.jpg"}, "link"),
    ({"file_name": "/etc/passwd"}, "does not lie in the folder of its split"),
    ({"split": "query"}, "does not lie in the folder of its split, query"),
    ({"split": 7}, "folder of its split, 7"),
    ({"file_name": None}, "file_name must be a text, got None"),
    ({"file_name": ["a"]}, "file_name must be a text"),
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
    assert len(dataset.samples) == releases.PICTURES["world"] - 1
    told = reasons(dataset)
    assert told[lost["file_name"]] == "no row of truth.jsonl names it"
    if "link" not in reason:  # the link has its own reject
        assert re.search(reason, told[f"truth.jsonl:{len(rows)}"])


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
    told = reasons(dataset)
    assert told["truth.jsonl:1"] == f"{lost} is not there, in {root}"
    assert told[f"truth.jsonl:{len(rows) + 1}"].endswith(" was named before")
    assert all(f"people.jsonl:{len(people) + k}" in told for k in (1, 2, 3))
    assert "gallery images: 7 here, 8 published (truth.jsonl)" in caplog.text
    (root / "people.jsonl").unlink()
    assert "no captions" in data.load("world", root).warnings[0]
    (root / "world.json").write_text("{")
    (root / "people.jsonl").write_text("")
    with pytest.raises(ValueError, match="world.json cannot be read"):
        data.load("world", root)


def test_a_line_without_end(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\n" + b" " * (layout.MAX_LINE + 5) + b"\n\n{}")
    (_, first), (line, long), (last, _) = layout.json_rows(path)
    assert first == {} and line == 2 and "more than 1 MiB" in str(long) and last == 4
