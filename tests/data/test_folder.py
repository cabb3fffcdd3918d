# SPDX-License-Identifier: Apache-2.0
"""A user's own images: what becomes a sample, a reject or an error."""

import json
import os
import re

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from own_pictures import IMAGE, both, pids, put, reasons, refusal, write_csv, write_jsonl

from viewsynth import data
from viewsynth.data import folder, layout, listing
from viewsynth.data.images import read


def test_a_folder_is_a_person(tmp_path):
    put(tmp_path, "bob/2.PNG", "bob/1.jpeg", "anna/x.WebP", "anna/y.bmp")
    samples, rejects = both(data.load("folder", tmp_path))
    assert [(s.pid, s.name) for s in samples] == [
        ("anna", "anna/x.WebP"),
        ("anna", "anna/y.bmp"),
        ("bob", "bob/1.jpeg"),
        ("bob", "bob/2.PNG"),
    ]
    assert not rejects and read(samples[0].paths[0]).shape == (32, 20, 3)


def test_a_file_of_a_flat_folder_is_a_person(tmp_path):
    assert pids(put(tmp_path, "b.jpg", "a.b.jpg")) == {"b.jpg": "b", "a.b.jpg": "a.b"}


def test_same_stem_is_not_the_same_person(tmp_path):
    put(tmp_path, "a.jpg", "a.png", "b.jpg", "b/1.jpg", "c.jpg")
    assert pids(tmp_path) == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "b.jpg": "b.jpg",
        "b/1.jpg": "b",
        "c.jpg": "c",
    }


def test_hidden_files_are_ignored_and_others_counted(tmp_path):
    put(tmp_path, "p/a.jpg", ".hidden/a.jpg", "p/.a.jpg")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "p" / "notes.TXT").write_text("x")
    (tmp_path / "p" / "README").write_text("x")
    samples, (skipped,) = both(folder.load(tmp_path))
    assert [s.name for s in samples] == ["p/a.jpg"]
    assert (skipped.kind, skipped.scores["count"]) == ("skipped", 3)
    assert "2 .txt" in skipped.reason and "1 without extension" in skipped.reason


def test_tables_of_other_data_are_not_metadata(tmp_path):
    put(tmp_path, "ann/a.jpg", "bob/a.jpg")
    (tmp_path / "ann/metadata.csv").write_text("date,weight\n2024,80\n")
    (tmp_path / "bob/metadata.jsonl").write_text('{"age": 7}\n{"file_name": "a.jpg"}\n')
    dataset = folder.load(tmp_path)
    assert {s.pid for s in dataset.samples} == {"ann", "bob"}
    assert any(line.startswith("'ann/metadata.csv', 'bob/meta") for line in dataset.warnings)
    (tmp_path / "ann/metadata.csv").write_text("file_name;pid\na.jpg;1\n", encoding="utf-16")
    with pytest.raises(ValueError, match="two ways: by 'ann/metadata.csv'"):
        folder.load(tmp_path)


def test_files_above_the_people_are_reported(tmp_path):
    root = put(tmp_path / "splits", "train/bob/a.jpg")
    (root / "query").symlink_to(root / "train")
    (root / "train/bob/notes.txt").write_text("x")
    (root / "notes.md").write_text("x")
    reason = reasons(root)
    assert "symbolic" in reason["query"] and "1 .md, 1 .txt" in reason["."]
    root = put(tmp_path / "container", "images/bob/a.jpg", "images/eve/a.jpg")
    (root / "link").symlink_to(root / "images")
    (root / "note.txt").write_text("x")
    rejects = folder.load(root).rejects
    assert sorted(r.source for r in rejects) == [".", "link"]


@pytest.mark.parametrize("other", ["IMG_1.MOV", "IMG_1.heic", "IMG_1.HEIF", "IMG_1.avif"])
def test_files_of_one_phone_shot_are_one_person(tmp_path, other):
    put(tmp_path, "IMG_1.jpg", "IMG_2.jpg")
    for name in (other, "IMG_3.mp4", "IMG_4.HEIC", "IMG_4.mov"):
        (tmp_path / name).write_bytes(b"video")
    assert pids(tmp_path) == {
        "IMG_1.jpg": "IMG_1",
        "IMG_2.jpg": "IMG_2",
        "IMG_3.mp4": "IMG_3",
        "IMG_4.HEIC": "IMG_4",
    }
    (reject,) = folder.load(tmp_path).rejects
    assert (reject.kind, reject.scores) == ("skipped", {"count": 2})
    assert "the same shot" in reject.reason


def test_folders_too_deep_are_rejects(tmp_path):
    put(tmp_path, "p/a.jpg", "p/monday/noon/b.jpg", "q/a.jpg")
    reason = reasons(tmp_path)
    assert list(reason) == ["p/monday/noon"]
    assert "1 images lie deeper" in reason["p/monday/noon"] and "metadata.csv" in str(reason)


def test_links_and_pipes_are_refused(tmp_path):
    root = put(tmp_path / "root", "p/a.jpg")
    put(tmp_path / "other", "b.jpg")
    (root / "p" / "link.jpg").symlink_to(tmp_path / "other" / "b.jpg")
    (root / "q").symlink_to(tmp_path / "other")
    os.mkfifo(root / "p" / "pipe.jpg")
    assert list(pids(root)) == ["p/a.jpg"]
    reason = reasons(root)
    assert "symbolic" in reason["p/link.jpg"] and "symbolic" in reason["q"]
    assert "regular" in reason["p/pipe.jpg"]


def test_the_root_may_be_a_link(tmp_path):
    put(tmp_path / "root", "p/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert pids(tmp_path / "link") == {"p/a.jpg": "p"}


def test_missing_and_empty_folders_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        folder.load(tmp_path / "none")
    assert re.search("no images in .*expected .*metadata.csv", refusal(folder.load, tmp_path))
    (tmp_path / "a.txt").write_text("x")
    assert re.search(r"no images.*1 \.txt", refusal(folder.load, tmp_path))
    assert "must be a folder" in refusal(folder.load, tmp_path / "a.txt")


def test_a_name_that_is_not_unicode_is_a_reject(tmp_path):
    put(tmp_path, "p/a.jpg")
    try:
        IMAGE.save(os.fsencode(tmp_path) + b"/p/\xff.jpg", "PNG")
    except OSError:
        pytest.skip("this file system has Unicode names only")
    samples, (reject,) = both(folder.load(tmp_path))
    assert len(samples) == 1 and "UTF-8" in reject.reason
    reject.source.encode()


NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs", "Cc"]), min_size=1)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=st.sets(NAME, min_size=1, max_size=4), inner=NAME)
@example(names={"a b", "100%", "ü", "é", "#2", "a\\b", "x" * 250}, inner="..,;'\"")
def test_any_name_that_a_file_can_have(tmp_path_factory, names, inner):
    """With any names, each image is one sample or hidden; loading again gives the same."""
    root = tmp_path_factory.mktemp("names")
    names = {name for name in names if name not in (".", "..") and len(name.encode()) <= 250}
    assume(names and len(inner.encode()) <= 250)
    assume(not any(listing.is_unidentified(name, "train") for name in names))
    ambiguous = (listing.is_near_split, listing.is_container, listing.is_camera, listing.is_group)
    assume(not any(check(name) for check in ambiguous for name in names))
    for name in names:
        put(root, f"{name}.jpg", f"{name}/{inner}.png")
    expected = [n for n in os.listdir(root) if not n.startswith(".")]  # noqa: PTH208
    if not expected:
        return
    if inner.startswith("."):
        expected = [name for name in expected if (root / name).is_file()]
    samples, rejects = both(folder.load(root))
    assert len({s.name for s in samples}) == len(samples) == len(expected) and not rejects
    assert all((root / s.name) == s.paths[0] and s.paths[0].is_file() for s in samples)
    assert (samples, rejects) == both(folder.load(root))


def test_metadata_csv_with_every_column(tmp_path):
    put(tmp_path, "in/a.jpg", "in/b.jpg")
    full = {
        "file_name": "in/a.jpg",
        "pid": "cargo/0012",
        "camid": "3",
        "view": "ground",
        "platform": "cctv",
        "outfit": "red",
        "session": "am",
        "split": "query",
        "source": "real",
        "modality": "ir",
        "elevation": "12.5",
        "azimuth": "-90",
        "altitude": "3",
        "distance": "9",
        "attributes": "hat;bag",
        "caption": 'A man, "walking"',
        "box": "1 2 19 30",
    }
    write_csv(tmp_path, full, {"file_name": "in/b.jpg", "pid": "7"}, bom=True, end="\r\n")
    (b, a), rejects = both(folder.load(tmp_path))
    assert not rejects
    assert (b.pid, b.camid, b.platform, b.view, b.elevation) == (
        "7",
        "0",
        "unknown",
        "ground",
        None,
    )
    assert (a.pid, a.split, a.elevation, a.azimuth, a.box, a.attributes, a.caption) == (
        "cargo/0012",
        "query",
        12.5,
        -90.0,
        (1, 2, 19, 30),
        ("hat", "bag"),
        'A man, "walking"',
    )


def test_metadata_jsonl_with_json_types(tmp_path):
    put(tmp_path, "a.jpg")
    write_jsonl(
        tmp_path,
        b"\xef\xbb\xbf" + json.dumps({"file_name": "a.jpg", "pid": 7, "elevation": 10}).encode(),
        "",
        {"file_name": "a.jpg", "pid": "8", "box": [0, 0, 20, 30], "attributes": ["hat"]},
    )
    samples, rejects = both(folder.load(tmp_path))
    assert not rejects
    assert [(s.pid, s.name, s.elevation, s.box) for s in samples] == [
        ("7", "a.jpg", 10.0, None),
        ("8", "a.jpg#2", None, (0, 0, 20, 30)),
    ]


BAD_ROWS = [
    ({"file_name": "../out/x.jpg"}, "out of the folder"),
    ({"file_name": "{out}/x.jpg"}, "out of the folder"),
    ({"file_name": "../root-evil/x.jpg"}, "out of the folder"),
    ({"file_name": "link.jpg"}, "symbolic link"),
    ({"file_name": "inner.jpg"}, "symbolic link"),
    ({"file_name": "linked/x.jpg"}, "symbolic link"),
    ({"file_name": "loop.jpg"}, "symbolic|cannot be read"),
    ({"file_name": "none.jpg"}, "does not exist"),
    ({"file_name": "x" * 5000}, "cannot be read|does not exist"),
    ({"file_name": "."}, "not a regular file"),
    ({"file_name": "bare"}, "folder without images"),
    ({"file_name": "a.jpg\0"}, "control characters"),
    ({"file_name": ""}, "file_name is empty"),
    ({"file_name": None}, "file_name is empty"),
    ({"file_name": ["a.jpg"]}, "file_name must be text"),
    ({"file_name": "good.jpg"}, "named before"),
    ({"pid": ""}, "pid must be"),
    ({"pid": ".."}, "pid must be"),
    ({"pid": None}, "pid must be"),
    ({"pid": True}, "pid must be"),
    ({"pid": "a\nb"}, "control characters"),
    ({"platform": "uav"}, "platform must be one of drone, cctv.*'uav'"),
    ({"view": "top"}, "view must be one of aerial, ground"),
    ({"split": "test"}, "split must be one of"),
    ({"elevation": "steep"}, r"elevation must be a number in \[-90, 90\], got 'steep'"),
    ({"elevation": 91}, "elevation must be"),
    ({"azimuth": "inf"}, "azimuth must be"),
    ({"distance": 0}, "distance must be"),
    ({"box": [0, 0, 5]}, "box must be"),
    ({"box": "5 5 1 9"}, "box must be"),
    ({"box": [0, 0, 1e400, 5]}, "box must be"),
    ({"caption": "\ud800"}, "UTF-8"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_ROWS)
def test_a_bad_row_is_a_reject_and_the_others_are_read(tmp_path, change, reason):
    root, out = put(tmp_path / "root", "a.jpg", "good.jpg", "sub/x.jpg"), tmp_path / "out"
    put(out, "x.jpg")
    put(tmp_path / "root-evil", "x.jpg")
    (root / "link.jpg").symlink_to(out / "x.jpg")
    (root / "inner.jpg").symlink_to("a.jpg")
    (root / "linked").symlink_to(out)
    (root / "bare").mkdir()
    (root / "loop.jpg").symlink_to("loop.jpg")
    row = {"file_name": "a.jpg", "pid": "1"} | change
    if isinstance(row["file_name"], str):
        row["file_name"] = row["file_name"].replace("{out}", str(out))
    write_jsonl(root, {"file_name": "good.jpg", "pid": "0"}, row)
    samples, (reject,) = both(folder.load(root))
    assert [s.name for s in samples] == ["good.jpg"]
    assert reject.source == "metadata.jsonl:2" and reject.stage == "input"
    assert re.search(reason, reject.reason)
    json.dumps(reject.reason, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "3", '{"a": 1} x', b'{"pid": "\xff"}', "[" * 100_000, " " * (layout.MAX_LINE + 5)],
    ids=["open", "list", "number", "tail", "latin", "deep", "long"],
)
def test_a_bad_json_line_is_a_reject_with_its_number(tmp_path, line):
    put(tmp_path, "a.jpg", "b.jpg")
    good = [{"file_name": f"{name}.jpg", "pid": name} for name in "ab"]
    write_jsonl(tmp_path, good[0], line, good[1])
    samples, (reject,) = both(folder.load(tmp_path))
    assert [s.pid for s in samples] == ["a", "b"]
    assert reject.source == "metadata.jsonl:2"
    assert re.search("JSON object|more than 1 MiB", reject.reason)


def test_bad_csv_rows_are_rejects(tmp_path):
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "metadata.csv").write_bytes(
        b"file_name,pid\r\na.jpg,a,b,c\r\n\r\nb.jpg\r\n\xff.jpg,x\r\nb.jpg,b\r\n"
        + b"c" * 200_000
        + b",c\r\na.jpg,a\r\n"
    )
    samples, rejects = both(folder.load(tmp_path))
    assert [s.pid for s in samples] == ["a", "b"]
    assert [r.source for r in rejects] == [f"metadata.csv:{k}" for k in (2, 4, 5, 7)]


def test_unreadable_metadata_is_an_error(tmp_path):
    put(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_text("file_name;pid\na.jpg;1\n")
    message = refusal(folder.load, tmp_path)
    assert "separated by commas; missing: file_name, pid" in message
    (tmp_path / "metadata.csv").write_text("file_name,pid,pid\na.jpg,1,2\n")
    assert "has a column twice" in refusal(folder.load, tmp_path)
    write_jsonl(tmp_path)
    assert "has both metadata.csv and metadata.jsonl" in refusal(folder.load, tmp_path)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_metadata_in_utf_16_is_an_error(tmp_path, name, encoding):
    put(tmp_path, "a.jpg", "b.jpg")
    text = "file_name,pid\na.jpg,a\nb.jpg,b\n"
    if name.endswith("jsonl"):
        text = '{"file_name": "a.jpg", "pid": "a"}\n{"file_name": "b.jpg", "pid": "b"}\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    message = refusal(folder.load, tmp_path)
    assert f"{name} must be text in UTF-8, got UTF-16" in message and "save it again" in message


@pytest.mark.parametrize("row", ['"a.jpg,a', 'a.jpg,"a', '"a.jpg"x,"a'])
def test_an_unclosed_quote_is_a_reject_with_its_lines(tmp_path, row):
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    (tmp_path / "metadata.csv").write_text(f"file_name,pid\nc.jpg,c\n{row}\nb.jpg,b\na.jpg,a\n")
    (sample,), (reject,) = both(folder.load(tmp_path))
    assert sample.pid == "c" and reject.source == "metadata.csv:5"
    assert "the lines 3 to 5 are one row, because a quote is opened" in reject.reason


def test_unknown_columns_are_reported(tmp_path):
    put(tmp_path, "a.jpg")
    write_csv(tmp_path, {"file_name": "a.jpg", "pid": "1", "elevatoin": "3"})
    (sample,), (skipped,) = both(folder.load(tmp_path))
    assert skipped.kind == "skipped" and "'elevatoin'; known: file_name, pid" in skipped.reason


def test_unknown_data_set():
    message = refusal(data.load, "images", ".")
    assert message.startswith("data.name must be one of ") and "folder" in message
