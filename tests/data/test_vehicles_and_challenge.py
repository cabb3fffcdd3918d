# SPDX-License-Identifier: Apache-2.0
"""Special cases of CP2108, the vehicle data sets, the AG-ReID challenge and its attribute files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import releases
from releases import fields, index_of, put, put_attributes, reasons, row_of
from scipy.io import savemat

from viewsynth import data
from viewsynth.data import ag_reid_v1, ag_reid_v2, cp2108, qut_attributes
from viewsynth.reid import attributes

# ---- attribute files -----------------------------------------------------------------------------

FILES = {"ag_reid_v1": ag_reid_v1.ATTRIBUTES, "ag_reid_v2": ag_reid_v2.ATTRIBUTES}


def codes(dataset) -> list[str]:
    return sorted({sample.pid.rpartition("/")[2] for sample in dataset.samples})


def test_the_groups_have_88_columns():
    assert qut_attributes.COLUMNS == 88 and len(qut_attributes.GROUPS) == 15


@pytest.mark.parametrize("place", ["root", "above"])
@pytest.mark.parametrize("name", FILES)
def test_attributes_of_all_images_of_an_identity(name, place, release):
    root = release(name)
    plain = data.load(name, root)
    folder = plain.root if place == "root" else plain.root.parent
    known = [code for code in codes(plain) if code != "P00010T4041A0"]
    put_attributes(folder / FILES[name], {code: row_of(n) for n, code in enumerate(known)})
    dataset = data.load(name, plain.root)
    assert dataset.fingerprint != plain.fingerprint
    for sample in dataset.samples:
        code = sample.pid.rpartition("/")[2]
        if code in ("P0001T04041A0", "P00010T4041A0") and name == "ag_reid_v1":
            assert not sample.attributes  # their integers are equal: whose row is it?
            continue
        number = known.index(code)
        assert len(sample.attributes) == 15
        assert sample.attributes[0] == f"gender:{'abc'[number % 3]}"
        assert sample.attributes[5] == f"hair colour:{'abcdefg'[number % 7]}"
    attributes.table(dataset.samples)  # images of both views agree
    assert {s.split for s in dataset.samples if s.attributes} == {"train", "query", "gallery"}
    told = [line for line in dataset.warnings if FILES[name] in line]
    assert bool(told) == (name == "ag_reid_v1")
    if told:
        count = len(codes(plain))
        assert f"2 of {count} identities have no row of their own" in told[0]


def test_identities_without_a_row_are_counted(release):
    root = release("ag_reid_challenge")
    releases.put(root, "bounding_box_train/P0009T04041A0C0F1.jpg")
    dataset = data.load("ag_reid_challenge", root)
    (warning,) = dataset.warnings
    assert "1 of 6 identities" in warning and "ag_reid_challenge/P0009T04041A0" in warning
    assert sum(not sample.attributes for sample in dataset.samples) == 1


def struct_per_person(rows):
    kind = [(field, "O") for field in ("image_index", *fields())]
    people = [(str(index_of(code)), *row) for code, row in rows.items()]
    return {split: np.array(people, kind) for split in qut_attributes.SPLITS}


def one_matrix(rows):
    part = {"image_index": [index_of(code) for code in rows], "attributes": list(rows.values())}
    return dict.fromkeys(qut_attributes.SPLITS, part)


@pytest.mark.parametrize("form", [struct_per_person, one_matrix])
def test_other_forms_of_the_file(form, release):
    root = release("ag_reid_v2")
    people = {code: row_of(n) for n, code in enumerate(codes(data.load("ag_reid_v2", root)))}
    savemat(root / "AG-ReID.v2" / ag_reid_v2.ATTRIBUTES, {"qut_attribute": form(people)})
    dataset = data.load("ag_reid_v2", root)
    assert not dataset.warnings
    (first, *_) = (s for s in dataset.samples if s.pid.endswith(next(iter(people))))
    letter = "0" if form is one_matrix else "a"
    assert first.attributes[:2] == (f"gender:{letter}", f"age:{letter}")


def test_contradictory_rows_count_as_none(release):
    root = release("ag_reid_v2")
    known = codes(data.load("ag_reid_v2", root))
    parts = {
        split: {
            "image_index": [index_of(code) for code in known],
            "a": [row_of(n + (split == "test" and n == 0)) for n in range(len(known))],
        }
        for split in qut_attributes.SPLITS
    }
    savemat(root / "AG-ReID.v2" / ag_reid_v2.ATTRIBUTES, {"qut_attribute": parts})
    dataset = data.load("ag_reid_v2", root)
    (warning,) = dataset.warnings
    assert f"1 of {len(known)} identities" in warning and known[0] in warning


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600)), "cannot be read"),
        (lambda path: savemat(path, {"other": 1}), "'qut_attribute'"),
        (lambda path: savemat(path, {"qut_attribute": {"train": 1}}), "expected a MATLAB file"),
        (lambda path: savemat(path, {"qut_attribute": matrix(np.ones((2, 30)))}), "30 columns"),
        (lambda path: savemat(path, {"qut_attribute": matrix(np.zeros((2, 88)))}), "other than 1"),
    ],
)
def test_a_damaged_or_other_file_is_a_warning(damage, told, release):
    root = release("ag_reid_challenge")
    path = root / "qut_attribute_v8.mat"
    damage(path)
    dataset = data.load("ag_reid_challenge", root)
    (warning,) = dataset.warnings
    assert told in warning and "samples have no attributes" in warning
    assert warning.startswith(path.name) and "\n" not in warning
    assert not any(sample.attributes for sample in dataset.samples)


def matrix(values) -> dict:
    part = {"image_index": list(range(len(values))), "attributes": values}
    return dict.fromkeys(qut_attributes.SPLITS, part)


def test_a_linked_attribute_file_is_not_read(release, tmp_path):
    root = release("ag_reid_challenge")
    path = root / "qut_attribute_v8.mat"
    path.rename(tmp_path / "elsewhere.mat")
    path.symlink_to(tmp_path / "elsewhere.mat")
    dataset = data.load("ag_reid_challenge", root)
    assert "symbolic links are refused" in dataset.warnings[0]
    assert not any(sample.attributes for sample in dataset.samples)


# ---- the challenge -------------------------------------------------------------------------------


def test_protocols_of_the_challenge(release):
    protocols = data.load("ag_reid_challenge", release("ag_reid_challenge")).protocols
    found = {name: (len(p.query), len(p.gallery), p.valid_queries) for name, p in protocols.items()}
    assert found == {"A->G": (2, 5, 2), "G->A": (4, 3, 4)}
    for name, (asked, searched) in {
        "A->G": ("aerial", "ground"),
        "G->A": ("ground", "aerial"),
    }.items():
        assert {s.view for s in protocols[name].query} == {asked}
        assert {s.view for s in protocols[name].gallery} == {searched}
        assert any(s.name.startswith("gallery_add_on/") for s in protocols[name].gallery)


def test_short_names_of_the_add_on_and_none(release):
    root = release("ag_reid_challenge")
    expected = data.load("ag_reid_challenge", root).protocols
    for folder in list((root / "gallery_add_on").iterdir()):
        folder.rename(folder.with_name(folder.name[:4]))
    short = data.load("ag_reid_challenge", root)
    assert [len(p.gallery) for p in short.protocols.values()] == [
        len(p.gallery) for p in expected.values()
    ]
    (root / "gallery_add_on").rename(root / "unread")
    warnings = data.load("ag_reid_challenge", root).warnings
    assert sum("has no distractors in gallery_add_on/exp" in line for line in warnings) == 2


def test_test_images_without_an_identity(release):
    root = release("ag_reid_challenge")
    before = data.load("ag_reid_challenge", root)
    query = "exp3_aerial_to_ground/query/P-1T-1A-1C0F77.jpg"
    add_on = "gallery_add_on/exp3_aerial_to_ground/P-1T-1A-1C3F78.jpg"
    put(root, query, add_on, "bounding_box_train/P-1T-1A-1C0F79.jpg")
    dataset = data.load("ag_reid_challenge", root)
    found = {s.name: s for s in dataset.samples}
    assert found[query].pid == "ag_reid_challenge/P-1T-1A-1C0F77" != found[add_on].pid
    assert found[query].view == "aerial" and found[add_on].platform == "cctv"
    assert not found[query].attributes and not dataset.warnings
    assert "(1)" in reasons(dataset)["P-1T-1A-1"]
    protocol = dataset.protocols["A->G"]
    assert protocol.valid_queries == before.protocols["A->G"].valid_queries
    assert found[query] in protocol.query and found[add_on] in protocol.gallery


@pytest.mark.parametrize(
    ("stray", "reason"),
    [
        ("exp3_aerial_to_ground/P0001T04041A0C0F1.jpg", "expected it in exp3_aerial_to_ground/que"),
        ("gallery_add_on/P0001T04041A0C0F1.jpg", "expected it in gallery_add_on/exp3"),
        ("bounding_box_train/P0001T04041A0C4F1.jpg", "camera 4 is none of 0 (drone), 2 (wearable)"),
        ("bounding_box_train/0001_c1s1_000451_03.jpg", "form of P0001T04041A0C3F31.jpg"),
    ],
)
def test_wrong_places_and_names_of_the_challenge(stray, reason, release):
    root = release("ag_reid_challenge")
    put(root, stray)
    assert reason in reasons(data.load("ag_reid_challenge", root))[stray]


# ---- vehicles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["agid", "cvpair"])
def test_vehicles(name, release):
    root = release(name)
    dataset = data.load(name, root)
    assert set(dataset.protocols) == {"ALL", "G<->G", "A<->A", "A<->G", "A->G", "G->A"}
    found = dataset.protocols["A->G"]
    assert (len(found.query), len(found.gallery), found.valid_queries) == (2, 3, 2)
    assert data.counts(dataset)["identities"] == 5
    one = dataset.train[0]
    assert (one.pid, one.platform, one.view) == (f"{name}/1", "drone", "aerial")
    put(root, "query/v0003_c2_000009.jpg", "query/side/v0003_c2_000009.jpg")
    put(root, "query/aerial/v0003_c4_000009.jpg", "query/aerial/12_3_4.jpg")
    changed = data.load(name, root)
    assert (
        "expected it in query/aerial or query/ground"
        in reasons(changed)["query/v0003_c2_000009.jpg"]
    )
    assert "query/side/v0003_c2_000009.jpg" in reasons(changed)
    assert "form of v0012_c3_000045.jpg" in reasons(changed)["query/aerial/12_3_4.jpg"]
    (warning,) = changed.warnings[:1]
    assert "cameras 4 have aerial and ground images" in warning


def test_published_counts_of_vehicles(release):
    found = {}
    for name in ("agid", "cvpair"):
        published = data.load(name, release(name, name)).published
        found[name] = [p.count for p in published]
        assert ("unverified" in published[0].source) == (name == "agid")
    assert found == {"agid": [20_785, 834], "cvpair": [14_969, 894]}


# ---- CP2108 --------------------------------------------------------------------------------------


def test_cp2108(release):
    dataset = data.load("cp2108", release("cp2108"))
    found = {
        name: (len(p.query), len(p.gallery), p.valid_queries)
        for name, p in dataset.protocols.items()
    }
    assert found == {
        "ALL": (4, 5, 4),
        "G<->G": (2, 3, 2),
        "A<->A": (2, 2, 2),
        "A<->G": (4, 5, 4),
        "A->G": (2, 3, 2),
        "G->A": (2, 2, 2),
    }
    assert [name for name, p in dataset.protocols.items() if p.camera == "view"] == ["A<->G"]
    by_camera = {s.camid: s for s in dataset.samples}
    ground, air, hat = by_camera["3"], by_camera["25"], by_camera["39"]
    assert (ground.view, ground.platform) == ("ground", "cctv")
    assert (air.view, air.platform) == ("aerial", "drone")
    assert by_camera["22"].view == "ground" and by_camera["23"].view == "aerial"
    assert (ground.outfit, air.outfit, ground.session) == (
        "0",
        "1",
        "5",
    )  # other time, other clothes
    assert ground.attributes == ("upper color:black",) and hat.attributes == ("hat",)
    assert (ground.caption, air.caption, hat.caption) == ("A man.", "Seen.", "")
    attributes.table(dataset.samples)
    reason = reasons(dataset)
    assert "(1)" in reason["-1"] and "no list names (1)" in reason[cp2108.IMAGES]


def test_attributes_of_cp2108_are_those_of_the_ground_view(release):
    root = release("cp2108")
    put(root, f"{cp2108.IMAGES}/0001_25_0_5_000007.jpg")
    with (root / cp2108.LISTS["train"]).open("a") as file:
        file.write("0001_25_0_5_000007.jpg\n")
    dataset = data.load("cp2108", root)
    (air,) = (s for s in dataset.samples if s.name.endswith("_25_0_5_000007.jpg"))
    assert air.attributes == ("upper color:black",) and air.caption == "A man."
    attributes.table(dataset.samples)  # the contradicting traits of the aerial view are not used


@pytest.mark.parametrize("file", [cp2108.TRAITS, cp2108.CAPTIONS])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is left out: expected a JSON object with keys like 0012_0_1"),
        ("[1]", "it holds a list"),
        ('{"0001_0": 1, "0001_2_0": 1, "a_0_0": 1}', "3 keys are not like 0012_0_1"),
        ('{"0001_0_0": 7, "0001_0_1": null}', ""),
    ],
)
def test_wrong_texts_of_cp2108_are_a_warning(file, text, told, release):
    root = release("cp2108")
    (root / file).write_text(text)
    dataset = data.load("cp2108", root)
    assert len(dataset.samples) == releases.IMAGES["cp2108"]
    assert any(file in line and told in line for line in dataset.warnings) == bool(told)
    field = "attributes" if file == cp2108.TRAITS else "caption"
    assert not any(getattr(sample, field) for sample in dataset.samples)


def test_texts_of_cp2108_count_into_the_fingerprint(release):
    root = release("cp2108")
    before = data.load("cp2108", root).fingerprint
    (root / cp2108.CAPTIONS).write_text(json.dumps({}))
    assert data.load("cp2108", root).fingerprint != before


def test_rows_and_cameras_of_cp2108(release):
    root = release("cp2108")
    expected = data.load("cp2108", root)
    put(root, f"{cp2108.IMAGES}/0001_40_0_5_000007.jpg")
    path = root / cp2108.LISTS["gallery"]
    query = (root / cp2108.LISTS["query"]).read_text().splitlines()[0]
    path.write_bytes(path.read_bytes() + f"none.jpg\r\n../../etc/passwd\r\n{query}\r\n".encode())
    dataset = data.load("cp2108", root)
    assert dataset.samples == expected.samples
    reason = reasons(dataset)
    file = cp2108.LISTS["gallery"]
    assert reason[f"{file}:6"] == f"there is no image none.jpg in {root / cp2108.IMAGES}"
    assert "there is no image" in reason[f"{file}:7"] and "was named before" in reason[f"{file}:8"]
    assert "camera 40 is not one of 1 to 39" in reason[f"{cp2108.IMAGES}/0001_40_0_5_000007.jpg"]
    path.unlink()
    warnings = data.load("cp2108", root).warnings
    assert f"there is no list {path}: the split gallery is empty" in warnings
    (root / cp2108.LISTS["query"]).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text"):
        data.load("cp2108", root)
