# SPDX-License-Identifier: Apache-2.0
"""Cells of metadata in the spellings of many tools: identities, names, words, paths."""

from __future__ import annotations

import os
import unicodedata

import pytest
from own_pictures import load, pids, put, reasons, refusal, write_csv, write_jsonl

from viewsynth.data import cells, table

NAN = float("nan")
MISSING = ["", " ", "\t", "\u00a0", "NaN", "nan", "NAN", "-nan", "null", "NULL", "nil", "undefined"]
MISSING += ["None", "none", "NA", "N/A", "n/a", "<NA>", "NaT", "#N/A", "#NA", "-"]
UNKNOWN = ["unknown", "?", "-1", "-1.0"]


@pytest.mark.parametrize("value", MISSING + UNKNOWN)
def test_rows_without_identity_are_rejects(tmp_path, value):
    """In CSV and in JSON lines."""
    people = {"a.jpg": value, "b.jpg": value, "c.jpg": 6}
    rows = [{"file_name": name, "pid": pid} for name, pid in people.items()]
    for write in (write_csv, write_jsonl):
        root = put(tmp_path / write.__name__, "a.jpg", "b.jpg", "c.jpg")
        write(root, *rows)
        assert pids(root) == {"c.jpg": "6"}
        found = reasons(root).values()
        assert len(found) == 2
        assert all("pid must be" in reason and "has no identity" in reason for reason in found)


@pytest.mark.parametrize("value", [NAN, None, -1, -1.0, [], "missing"])
def test_json_without_identity(tmp_path, value):
    row = {"file_name": "a.jpg", "pid": value}
    if value == "missing":
        del row["pid"]
    write_jsonl(put(tmp_path, "a.jpg", "b.jpg"), row, {"file_name": "b.jpg", "pid": 0})
    assert pids(tmp_path) == {"b.jpg": "0"}
    assert "no identity" in reasons(tmp_path)["metadata.jsonl:1"]


@pytest.mark.parametrize("name", ["Na", "Nat", "nat", "na", "NAT"])
def test_names_of_people_that_look_like_a_missing_value(tmp_path, name):
    put(tmp_path, f"{name}/a.jpg", "bob/a.jpg")
    assert set(pids(tmp_path).values()) == {name, "bob"}
    write_csv(tmp_path, {"file_name": f"{name}/a.jpg", "pid": name, "view": "na", "camid": "nat"})
    (sample,) = load(tmp_path).samples
    assert (sample.pid, sample.view, sample.camid) == (name, "ground", "0")


@pytest.mark.parametrize("pid", ["distractor", "Distractors"])
def test_distractors_stay_in_the_gallery(tmp_path, pid):
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    splits = ["query", "gallery", "train"]
    rows = [
        {"file_name": f"{n}.jpg", "pid": pid, "split": s}
        for n, s in zip("abc", splits, strict=True)
    ]
    write_csv(tmp_path, *rows, {"file_name": "d.jpg", "pid": "00-1", "split": "gallery"})
    assert pids(tmp_path) == {"b.jpg": pid}
    assert all("no identity" in reason for reason in reasons(tmp_path).values())
    root = put(tmp_path / "folders", f"gallery/{pid}/a.jpg", f"query/{pid}/b.jpg", "query/7/b.jpg")
    assert pids(root) == {f"gallery/{pid}/a.jpg": pid, "query/7/b.jpg": "7"}
    assert "means: no identity" in reasons(root)[f"query/{pid}"]


@pytest.mark.parametrize(
    "text", ["file_name,pid,,\na.jpg,1,,\n,,,\n", "file_name,pid\na.jpg,1,,,\n, ,\n"]
)
def test_empty_cells_of_a_spreadsheet_are_ignored(tmp_path, text):
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "metadata.csv").write_text(text)
    dataset = load(tmp_path)
    assert len(dataset.samples) == 1 and not dataset.rejects
    (tmp_path / "metadata.csv").write_text("file_name,pid,,\na.jpg,1,,7\nb.jpg,1,,8,9\n")
    reason = reasons(tmp_path)
    assert "unknown column ''" in reason["metadata.csv"] and "got 5" in reason["metadata.csv:3"]


@pytest.mark.parametrize(
    ("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
def test_other_separators_are_named(tmp_path, mark, name):
    put(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_text(f"file_name{mark}pid\na.jpg{mark}1\n")
    assert f"separated by {name}, save it with commas" in refusal(load, tmp_path)


def test_a_folder_of_one_frame_has_the_name_of_its_image(tmp_path):
    put(tmp_path, "ann/t1/1.jpg", "ann/t2/1.jpg", "ann/t2/2.jpg")
    assert list(pids(tmp_path, form="folders")) == ["ann/t1/1.jpg", "ann/t2"]
    write_csv(tmp_path, *({"file_name": name, "pid": "7"} for name in ("ann/t1", "ann/t2")))
    assert [(s.name, len(s.paths)) for s in load(tmp_path).samples] == [
        ("ann/t1/1.jpg", 1),
        ("ann/t2", 2),
    ]


@pytest.mark.parametrize(
    "name", ["nan", "None", "NULL", "N_A", "-1", "unknown", "null", "00-1", "NA"]
)
def test_a_folder_of_unidentified_people_is_a_reject(tmp_path, name):
    put(tmp_path, f"{name}/a.jpg", f"{name}/b.jpg", "bob/a.jpg")
    if name == "N_A":  # a name
        assert set(pids(tmp_path).values()) == {"N_A", "bob"}
    else:
        assert pids(tmp_path) == {"bob/a.jpg": "bob"}
        assert "no identity; its 2 images are left out" in reasons(tmp_path)[name]


def test_one_person_in_several_spellings_of_a_number(tmp_path):
    spellings = [6, 6.0, 6e0, "6", "6.0", "6.00", " 6. "]
    names = [f"{k}.jpg" for k in range(len(spellings) + 2)]
    put(tmp_path, *names)
    values = [*spellings, "06", "6.5"]
    write_jsonl(tmp_path, *({"file_name": n, "pid": v} for n, v in zip(names, values, strict=True)))
    dataset = load(tmp_path)
    assert [s.pid for s in dataset.samples] == ["06", *["6"] * 7, "6.5"] and not dataset.rejects
    (warning,) = dataset.warnings
    assert "'06' and '6'" in warning and "6.5" not in warning


def test_spellings_of_a_number_in_csv(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = zip(("a.jpg", "b.jpg", "c.jpg"), ("6", "6.0", "006"), strict=True)
    write_csv(tmp_path, *({"file_name": n, "pid": v} for n, v in rows))
    assert pids(tmp_path) == {"a.jpg": "6", "b.jpg": "6", "c.jpg": "006"}


@pytest.mark.parametrize("name", ["camid", "outfit", "session"])
def test_other_labels_may_be_numbers_in_any_spelling(tmp_path, name):
    put(tmp_path, *(f"{k}.jpg" for k in range(4)))
    values = [1, 1.0, "1", "1.0"]
    write_jsonl(
        tmp_path,
        *({"file_name": f"{k}.jpg", "pid": "7", name: value} for k, value in enumerate(values)),
    )
    assert {getattr(sample, name) for sample in load(tmp_path).samples} == {"1"}


@pytest.mark.parametrize("value", ["1.23457E+12", "1e+16", 1e20, 2.0**53, float("inf")])
def test_rounded_numbers_are_rejects(tmp_path, value):
    put(tmp_path, "a.jpg")
    write_jsonl(tmp_path, {"file_name": "a.jpg", "pid": value})
    assert "rounded" in reasons(tmp_path)["metadata.jsonl:1"]


@pytest.mark.parametrize("value", [NAN, None, "", "nan", "None", "NULL", "<NA>", "N/A", [NAN] * 4])
def test_missing_fields_are_their_default(tmp_path, value):
    columns = ["attributes", "box"] if isinstance(value, list) else table.COLUMNS[2:]
    put(tmp_path, "a.jpg", "b.jpg")
    write_jsonl(
        tmp_path,
        {"file_name": "a.jpg", "pid": "7"},
        {"file_name": "b.jpg", "pid": "7"} | dict.fromkeys(columns, value),
    )
    (a, b), rejects = load(tmp_path).samples, load(tmp_path).rejects
    assert not rejects
    assert {**vars(a), "paths": 0, "name": ""} == {**vars(b), "paths": 0, "name": ""}


def test_some_rows_without_a_camera_are_a_warning(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg")
    write_csv(
        tmp_path,
        {"file_name": "a.jpg", "pid": "1", "camid": "3"},
        {"file_name": "b.jpg", "pid": "1", "camid": ""},
    )
    assert any("1 of 2 rows have no camid" in line for line in load(tmp_path).warnings)


@pytest.mark.parametrize("some", [{"view": "aerial"}, {"platform": "cctv"}, {"view": "ground"}])
def test_some_rows_without_a_view_are_a_warning(tmp_path, some):
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = [{"file_name": f"{n}.jpg", "pid": n} for n in "abc"]
    write_csv(tmp_path, rows[0] | some, *rows[1:])
    (warning,) = [line for line in load(tmp_path).warnings if "view" in line]
    assert "metadata.csv: 2 of 3 rows have no view: they count as ground; write" in warning
    write_csv(tmp_path, *(row | some for row in rows))
    assert not any("view" in line for line in load(tmp_path).warnings)


def test_an_evaluation_without_views_is_a_warning(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg")
    for split in ("query", "gallery"):
        (tmp_path / "metadata.csv").unlink(missing_ok=True)
        rows = [{"file_name": f"{n}.jpg", "pid": "1", "split": split} for n in "ab"]
        write_csv(tmp_path, *rows)
        assert any("no row has a view" in line for line in load(tmp_path).warnings)


ALIKE = [
    ("6", "06"),
    ("bob", "Bob"),
    ("bob smith", "bob  smith"),
    ("ann b", "annb"),
    ("jose\u0301", "jos\u00e9"),
    ("p7", "p007"),
    ("bob", "bob\u200b"),
    ("STRASSE", "straße"),
    ("\uff16", "6"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_similar_pids_are_a_warning_and_kept_apart(tmp_path, one, other):
    put(tmp_path, "a.jpg", "b.jpg")
    write_csv(tmp_path, {"file_name": "a.jpg", "pid": one}, {"file_name": "b.jpg", "pid": other})
    dataset = load(tmp_path)
    assert len({s.pid for s in dataset.samples}) == 2
    (warning,) = dataset.warnings
    assert warning.startswith("1 times a pid differs") and "leading zeros, case, spaces" in warning


@pytest.mark.parametrize(("one", "other"), [("6", "60"), ("100", "1"), ("a1", "a2"), ("é", "e")])
def test_different_pids_give_no_warning(tmp_path, one, other):
    put(tmp_path, f"{one}/a.jpg", f"{other}/a.jpg")
    assert not load(tmp_path).warnings and cells.normalised(one) != cells.normalised(other)


# ---- words ---------------------------------------------------------------------------------------


def test_the_view_of_a_drone_is_aerial(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    platforms = [("drone", ""), ("Drone", "nan"), ("drone", "ground"), ("cctv", "")]
    rows = zip("abcd", platforms, strict=True)
    write_csv(
        tmp_path,
        *({"file_name": f"{n}.jpg", "pid": n, "platform": p, "view": v} for n, (p, v) in rows),
    )
    found = [(s.platform, s.view) for s in load(tmp_path).samples]
    assert found == [
        ("drone", "aerial"),
        ("drone", "aerial"),
        ("drone", "ground"),
        ("cctv", "ground"),
    ]


@pytest.mark.parametrize(
    ("column", "value", "hint"),
    [
        ("platform", "uav", "write drone"),
        ("platform", "Quadcopter", "write drone"),
        ("platform", "phone", "write handheld"),
        ("view", "air", "write aerial"),
        ("view", "grond", "write ground"),
        ("split", "test", "write query or gallery"),
    ],
)
def test_words_of_other_tools_get_a_hint(tmp_path, column, value, hint):
    put(tmp_path, "a.jpg")
    write_csv(tmp_path, {"file_name": "a.jpg", "pid": "1", column: value})
    reason = reasons(tmp_path)["metadata.csv:2"]
    assert f"{column} must be one of" in reason and f"'{value}' ({hint})" in reason


# ---- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [r"crops\a.jpg", r".\crops\a.jpg", r"crops/sub\..\a.jpg", r"crops\\a.jpg", "./crops/a.jpg"],
)
def test_backslashes_count_as_slashes(tmp_path, name):
    put(tmp_path, "crops/a.jpg", "crops/sub/b.jpg")
    write_csv(tmp_path, {"file_name": name, "pid": "1"})
    assert pids(tmp_path) == {"crops/a.jpg": "1"}


@pytest.mark.skipif(os.name == "nt", reason="no such file names")
def test_a_file_with_a_backslash_in_its_name_is_found(tmp_path):
    put(tmp_path, "crops/a.jpg", r"crops\a.jpg")
    write_csv(tmp_path, {"file_name": r"crops\a.jpg", "pid": "1"})
    assert pids(tmp_path) == {r"crops\a.jpg": "1"}


BAD = [
    (r"C:\x\a.jpg", "an absolute Windows path"),
    ("d:/x/a.jpg", "an absolute Windows path"),
    (r"\\server\share\a.jpg", "an absolute Windows path"),
    (r"\\?\C:\a.jpg", "an absolute Windows path"),
    ("https://host/a.jpg", "download"),
    ("file:///x/a.jpg", "download"),
    (r"..\out\a.jpg", "leads out of the folder"),
    (r"\etc\a.jpg", "leads out of the folder"),
    (r"crops\none.jpg", "does not exist in root"),
    (r"crops\a.JPG", "there is 'a.jpg', which is spelled differently"),
]


@pytest.mark.parametrize(("name", "reason"), BAD)
def test_refused_paths_are_quoted_unchanged(tmp_path, name, reason):
    root = put(tmp_path / "root", "crops/a.jpg")
    put(tmp_path, "out/a.jpg")
    write_csv(root, {"file_name": name, "pid": "1"})
    found = reasons(root)["metadata.csv:2"]
    assert reason in found and f"'{name}'" in found


def test_a_name_in_another_form_of_unicode_gets_a_hint(tmp_path):
    put(tmp_path, unicodedata.normalize("NFC", "josé.jpg"))
    write_csv(tmp_path, {"file_name": unicodedata.normalize("NFD", "josé.jpg"), "pid": "1"})
    if not pids(tmp_path):  # some file systems treat both as the same name
        assert "spelled differently" in reasons(tmp_path)["metadata.csv:2"]
