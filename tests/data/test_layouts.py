# SPDX-License-Identifier: Apache-2.0
"""Special cases of single data sets: their lists, names and junk identities."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import releases
from hypothesis import example, given
from hypothesis import strategies as st
from releases import content, reasons

from viewsynth import data
from viewsynth.data import ag_reid_v1

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
def test_rows_that_name_no_image(name, file, release):
    root = release(name)
    expected, path = data.load(name, root), list_of(root, file)
    rows = path.read_text().splitlines()
    more = ["query/none.jpg", rows[0], "../../etc/passwd", "/etc/passwd", "/"]
    path.write_bytes("\n".join([*rows, *more]).encode())
    found = data.load(name, root)
    assert content(found)[:2] == content(expected)[:2]
    reason, first = reasons(found), len(rows) + 1
    assert reason[f"{file}:{first}"] == f"there is no image query/none.jpg in {expected.root}"
    assert reason[f"{file}:{first + 1}"].startswith(f"{rows[0]} was named before")
    assert all(f"{file}:{first + k}" in reason for k in (2, 3, 4))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=re.escape(f"{file} is not text")):
        data.load(name, root)


@lists
def test_a_missing_list_is_a_warning(name, file, release):
    root = release(name)
    expected = data.load(name, root)
    list_of(root, file).unlink()
    found = data.load(name, root)
    (missing,) = set(expected.protocols) - set(found.protocols)
    (warning,) = found.warnings
    assert f"/{file}: the protocol {missing} is not offered" in warning
    assert found.fingerprint != expected.fingerprint


@pytest.mark.parametrize("name", releases.LISTS)
def test_lists_of_the_other_direction_are_a_warning(name, release):
    root = release(name)
    first, other = (list_of(root, releases.LISTS[name][k]) for k in (0, 1 if name[0] != "a" else 2))
    texts = first.read_bytes(), other.read_bytes()
    first.write_bytes(texts[1])
    other.write_bytes(texts[0])
    warnings = data.load(name, root).warnings
    assert any(f"{first.name}: 2 query images are not aerial, e.g. query" in w for w in warnings)
    assert sum(w.startswith((first.name, other.name)) for w in warnings) == 4


def test_lists_of_v2_next_to_the_images(release):
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
        ag_reid_v1.parse_name("P{}T{}A{}C3F7.jpg".format(*digits), "v", (3,))[0]["pid"]
        for digits in (first, second)
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
    assert not air.attributes and not ground.attributes  # the altitude level is in the pid
    assert air.altitude is None  # the metres are not published
    gallery = dataset.protocols["A->G"].gallery
    assert {s.name.partition("/")[0] for s in gallery} == {"bounding_box_test_all_c3"}


def test_ag_reid_v1_with_images_of_the_first_archive(release):
    root = release("ag_reid_v1")
    expected = data.load("ag_reid_v1", root).samples
    stray = "bounding_box_test_all_c3/image/P0002T0404A1C2F9.jpg"
    wrong = "query_all_c0/P0002T0404A1C3F7.jpg"
    releases.put(root, stray, wrong, "query_all_c0/image/P0002T0404A1C0F8.jpg")
    dataset = data.load("ag_reid_v1", root)
    assert len(dataset.samples) == len(expected) + 1
    assert "camera 2 is none of 0 (drone), 3 (cctv)" in reasons(dataset)[stray]
    assert "camera 3 in the folder of camera 0" in reasons(dataset)[wrong]


def test_ag_reid_v2(release):
    dataset = data.load("ag_reid_v2", release("ag_reid_v2"))
    assert {(s.camid, s.platform, s.view) for s in dataset.samples} == {
        ("0", "drone", "aerial"),
        ("2", "wearable", "ground"),
        ("3", "cctv", "ground"),
    }
    for protocol in dataset.protocols.values():  # every query is valid: no camera is on both sides
        assert protocol.valid_queries == len(protocol.query)
        assert not {s.camid for s in protocol.query} & {s.camid for s in protocol.gallery}


# ---- CARGO, Market-1501, LAGPeR, G2APS ---------------------------------------------------------


def test_protocols_of_cargo(release):
    protocols = data.load("cargo", release("cargo")).protocols
    found = {name: (len(p.query), len(p.gallery), p.valid_queries) for name, p in protocols.items()}
    # 7 is in all protocols. 8 has matches on the ground only, 9 (a ground query) from above only,
    # 10 in the query's own camera only, 11 is no query.
    assert found == {
        "ALL": (5, 8, 4),
        "G<->G": (2, 4, 1),
        "A<->A": (3, 4, 1),
        "A<->G": (5, 8, 4),  # both directions: all images stay, the view is the camera
        "A->G": (3, 4, 2),
        "G->A": (2, 4, 2),
    }
    assert [name for name, p in protocols.items() if p.camera == "view"] == ["A<->G"]


@pytest.mark.parametrize(
    ("stray", "reason"),
    [
        ("train/Cam14/Cam14_day_1_0.jpg", "camera 14 is not one of 1 to 13"),
        ("train/Cam0/Cam0_day_1_0.jpg", "camera 0 is not one of 1 to 13"),
        ("train/Cam2/Cam3_day_1_0.jpg", "it belongs in train/Cam3"),
        ("train/Cam3_day_1_0.jpg", "it belongs in train/Cam3"),
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
    releases.lagper_release(tmp_path, missing)
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
    assert "both camera 10 and camera 11 have images" in dataset.warnings[0]
    for path in root.rglob("*_c1[01]_*"):
        path.unlink()
    dataset = data.load("lagper", root)
    assert "11" in {s.camid for s in dataset.samples if "_c12_" in s.name}
    assert not dataset.warnings


def test_unlabelled_people_of_lagper(release):
    root = release("lagper")
    query, gallery = "query_aerial/-1_c16_1.jpg", "bounding_box_test_ground/-1_c15_1.jpg"
    releases.put(root, query, gallery, "query_aerial/0001_c23_1.jpg")
    with (root / "exp3_A2G+.txt").open("a") as file:
        file.write(f"{query}\n{gallery}\n")
    dataset = data.load("lagper", root)
    protocol = dataset.protocols["A->G"]
    assert gallery in {s.name for s in protocol.gallery} and protocol.valid_queries == 2
    assert "identity -1 is unlabelled" in reasons(dataset)[query]
    assert "camera 23" in reasons(dataset)["query_aerial/0001_c23_1.jpg"]
    assert "(1)" in reasons(dataset)["-1"]


def test_lagper_rejects_names_of_g2aps(release):
    root = release("lagper")
    stray = "bounding_box_train/0012/0012_c0v1_000345.jpg"
    releases.put(root, stray)
    assert "form of 0123_c13_000045.jpg" in reasons(data.load("lagper", root))[stray]


def test_unlabelled_people_of_g2aps(release):
    root = release("g2aps_reid")
    releases.put(root, "query_c0/11/5555_c0v1_000001.jpg", "query_c0/11/0011_c1v1_000001.jpg")
    dataset = data.load("g2aps_reid", root)
    unlabelled = [s for s in dataset.samples if s.pid == "g2aps_reid/5555"]
    assert [(s.split, s.view) for s in unlabelled] == [("gallery", "aerial"), ("gallery", "ground")]
    assert [unlabelled[1] in p.gallery for p in dataset.protocols.values()] == [True, False]
    reason = reasons(dataset)
    assert "(2)" in reason["5555"]
    assert "unlabelled" in reason["query_c0/11/5555_c0v1_000001.jpg"]
    assert "camera 1 is neither" in reason["query_c0/11/0011_c1v1_000001.jpg"]
