# SPDX-License-Identifier: Apache-2.0
"""Which form a folder of one's own has: never several people as one in silence."""

from __future__ import annotations

import importlib
import json
import re

import pytest
from own_pictures import load, pids, put, reasons, write_csv, write_jsonl

from viewsynth import data
from viewsynth.commands import train
from viewsynth.config import dump, parse, to_dict
from viewsynth.data import Reading

FOUR = [{"file_name": f"{k}.jpg", "pid": f"p{k % 4}", "camid": "1"} for k in range(8)]
NAMES = [row["file_name"] for row in FOUR]


def many(root, folder, write=write_csv, rows=FOUR):
    """Eight pictures of four people in a folder, and the metadata that says so."""
    put(root, *(f"{folder}/{name}" for name in NAMES))
    write(root / folder, *rows)
    return root


# ---- metadata below the root ---------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
@pytest.mark.parametrize(
    "folder", ["train", "Train", "images", "data/train", "unpacked/set/training", "people_2024"]
)
def test_metadata_in_a_folder_is_found_and_used(tmp_path, folder, write):
    many(tmp_path, folder, write)
    (tmp_path / "test").mkdir()
    dataset = load(tmp_path)
    assert {s.pid for s in dataset.samples} == {"p0", "p1", "p2", "p3"}
    assert {s.name for s in dataset.samples} == {f"{folder}/{name}" for name in NAMES}
    assert {s.split for s in dataset.samples} == {"train"} and not dataset.rejects


def test_metadata_beside_a_folder_of_images(tmp_path):
    put(tmp_path, "images/a.jpg", "images/b.jpg")
    write_csv(tmp_path, *({"file_name": f"images/{n}.jpg", "pid": n} for n in "ab"))
    assert pids(tmp_path) == {"images/a.jpg": "a", "images/b.jpg": "b"}


def test_metadata_may_name_pictures_beside_its_folder_but_not_outside(tmp_path):
    root = put(tmp_path / "root", "images/a.jpg", "images/b.jpg")
    put(tmp_path, "c.jpg")
    names = ["../images/a.jpg", "../../c.jpg"]
    write_csv(root / "annotations", *({"file_name": n, "pid": "1"} for n in names))
    assert pids(root) == {"images/a.jpg": "1"}
    said = reasons(root)
    assert "leads out" in said["annotations/metadata.csv:3"]
    assert "nothing names" in said["images"] and "(1)" in said["images"]


def test_file_names_are_relative_to_their_metadata(tmp_path):
    put(tmp_path, "train/a.jpg")
    write_csv(tmp_path / "train", {"file_name": "train/a.jpg", "pid": "1"})
    said = reasons(tmp_path)["train/metadata.csv:2"]
    assert "relative to the folder of the metadata" in said


def test_the_name_of_a_metadata_file_may_be_in_capitals(tmp_path):
    many(tmp_path, "train")
    (tmp_path / "train/metadata.csv").rename(tmp_path / "train/Metadata.CSV")
    assert set(pids(tmp_path).values()) == {"p0", "p1", "p2", "p3"}


# ---- splits --------------------------------------------------------------------------------------


def test_folders_of_splits_with_metadata_each(tmp_path):
    for folder in ("train", "validation", "test", "query", "gallery"):
        many(tmp_path, folder)
    dataset = load(tmp_path)
    assert {s.split: s.name.split("/")[0] for s in dataset.samples} == {
        "train": "train",
        "query": "query",
        "gallery": "gallery",
    }
    assert len({s.pid for s in dataset.samples}) == 4  # p0 of train is p0 of query
    assert any("4 identities are in train and in query or gallery" in w for w in dataset.warnings)
    said = {r.source: r for r in dataset.rejects}
    assert set(said) == {"test", "validation"}
    for name, reject in said.items():
        assert reject.kind == "skipped" and reject.scores == {"count": 8}
        assert f"rows of {name} are left out" in reject.reason and "query" in reject.reason


def test_the_column_split_wins(tmp_path):
    many(tmp_path, "train")
    rows = [row | {"split": s} for row, s in zip(FOUR, ["query", "gallery"] * 4, strict=True)]
    many(tmp_path, "test", rows=rows)
    counts = data.counts(load(tmp_path))
    assert (counts["train images"], counts["query images"], counts["gallery images"]) == (8, 4, 4)


@pytest.mark.parametrize("outer", ["", "images/"])
def test_the_split_is_also_that_of_the_folder_that_a_row_names(tmp_path, outer):
    names = [f"{outer}{split}/a.jpg" for split in ("train", "valid", "query", "gallery", "test")]
    put(tmp_path, *names, "test_7/a.jpg")
    rows = [{"file_name": name, "pid": "7"} for name in [*names, "test_7/a.jpg"]]
    write_jsonl(tmp_path, *rows)
    found = {s.name: s.split for s in load(tmp_path).samples}
    assert found == {
        names[0]: "train",
        names[2]: "query",
        names[3]: "gallery",
        "test_7/a.jpg": "train",
    }
    assert {r.source for r in load(tmp_path).rejects} == {"test", "valid"}


def test_a_folder_that_is_called_as_its_person_is_no_split(tmp_path):
    put(tmp_path, "test/a.jpg")
    write_csv(tmp_path, {"file_name": "test/a.jpg", "pid": "test"})
    assert [s.split for s in load(tmp_path).samples] == ["train"]


def test_splits_of_folders_of_people(tmp_path):
    put(tmp_path, "train/bob/1.jpg", "train/bob/walk/2.jpg", "Query/eve/1.jpg", "gallery/eve/2.jpg")
    put(tmp_path, "val/kim/1.jpg", "val/kim/2.jpg")
    dataset = load(tmp_path)
    assert [(s.name, s.pid, s.split, s.outfit) for s in dataset.samples] == [
        ("train/bob/1.jpg", "bob", "train", ""),
        ("train/bob/walk/2.jpg", "bob", "train", "walk"),
        ("Query/eve/1.jpg", "eve", "query", ""),
        ("gallery/eve/2.jpg", "eve", "gallery", ""),
    ]
    (reject,) = dataset.rejects
    assert "pictures of val are left out" in reject.reason and reject.scores == {"count": 2}
    assert reject.reason in dataset.warnings


def test_splits_may_be_nested_as_archives_do_it(tmp_path):
    put(tmp_path, "mine/train/bob/1.jpg", "mine/test/eve/1.jpg")
    assert pids(tmp_path) == {"mine/train/bob/1.jpg": "bob"}


def test_only_a_test_split_is_an_error_that_says_so(tmp_path):
    put(tmp_path, "test/bob/1.jpg", "validation/eve/1.jpg")
    with pytest.raises(ValueError, match="no pictures in .*pictures of test are left out.*query"):
        load(tmp_path)


def test_pictures_that_no_split_holds_are_counted(tmp_path):
    many(tmp_path, "train")
    put(tmp_path, "extra/a.jpg", "extra/b.jpg", "c.jpg")
    said = reasons(tmp_path)
    assert "not read (2)" in said["extra"] and "not read (1)" in said["."]


# ---- two readings --------------------------------------------------------------------------------

TWO = {  # what lies there, and what both readings and their options are called
    "files in train and test": (["train/a.jpg", "train/b.jpg", "test/c.jpg"], "people splits"),
    "files in train alone": (["train/a.jpg", "train/b.jpg"], "people splits"),
    "files in query and gallery": (["query/a.jpg", "gallery/a.jpg"], "people splits"),
    "bounding boxes": (["bounding_box_train/a.jpg", "bounding_box_test/a.jpg"], "people splits"),
    "train beside people": (["train/bob/a.jpg", "eve/b.jpg"], "people splits"),
    "files beside train": (["a.jpg", "train/bob/a.jpg"], "people splits"),
    "images alone": (["images/a.jpg", "images/b.jpg"], "people --data.root"),
    "crops and frames": (["crops/a.jpg", "frames/b.jpg"], "people --data.root"),
    "one folder of folders": (["set/bob/a.jpg", "set/eve/b.jpg"], "tracklets --data.root"),
    "cameras of people": (["cam1/bob/a.jpg", "cam2/bob/b.jpg"], "people cameras"),
    "cameras of files": (["Camera_1/a.jpg", "Camera_2/b.jpg"], "people cameras"),
    "views": (["aerial/bob/a.jpg", "ground/bob/b.jpg"], "people cameras"),
    "days of people": (["monday/bob/a.jpg", "tuesday/bob/b.jpg"], "tracklets monday"),
    "sites of people": (["site_1/bob/a.jpg", "site_2/eve/b.jpg"], "tracklets site_1"),
    "sexes": (["male/bob/a.jpg", "female/eve/b.jpg"], "tracklets female"),
    "a split of sessions": (["train/session2/bob/a.jpg", "train/session1/eve/b.jpg"], "tracklets"),
    "images in a split": (["train/images/a.jpg", "train/images/b.jpg"], "splits --data.root"),
    "people in images in a split": (["train/imgs/bob/a.jpg", "test/imgs/eve/b.jpg"], "splits imgs"),
    "crops in splits": (["train/crops/a.jpg", "val/crops/b.jpg"], "splits train/crops"),
    "splits of boxes": (["bbox_train/bob/t1/a.jpg", "bbox_train/b.jpg"], "people splits"),
    "splits of cameras": (["train/Cam1/a.jpg", "query/Cam2/b.jpg"], "people cameras"),
    "cameras by their letter": (["c1/a.jpg", "c2/b.jpg"], "people cameras"),
    "parts": (["part1/7/a.jpg", "part2/8/a.jpg"], "tracklets part1"),
    "folds": (["fold_a/7/a.jpg", "set3/8/a.jpg"], "tracklets fold_a"),
    "shots": (["single_shot/7/a.jpg", "multi-shot/8/a.jpg"], "tracklets single_shot"),
    "names in places": (
        ["hall/ann/1.jpg", "hall/bob/1.jpg", "yard/cid/1.jpg", "yard/dan/1.jpg", "roof/eve/1.jpg"],
        "tracklets hall --data.root",
    ),
    "versions of splits": (["train2017/a.jpg", "val2017/b.jpg"], "people train2017 splits"),
    "letters of splits": (["trainA/a.jpg", "trainB/b.jpg", "test_A/c.jpg"], "people trainA splits"),
    "a part of a split": (["train_1/a.jpg", "train_1/b.jpg"], "people train_1 splits"),
    "all of a split": (
        ["train_all/7/a.jpg", "train/7/a.jpg", "query/8/b.jpg"],
        "'train_all' splits",
    ),
    "half of them cameras": (["cam1/a.jpg", "cam2/a.jpg", "bob/a.jpg", "eve/a.jpg"], "cameras"),
}


@pytest.mark.parametrize("case", TWO)
def test_two_readings_stop_and_are_named(tmp_path, case):
    names, words = TWO[case]
    put(tmp_path, *names)
    with pytest.raises(ValueError, match="can be read in two ways") as stopped:
        load(tmp_path)
    said = str(stopped.value)
    for word in [*words.split(), "(--data."]:
        assert word in said


@pytest.mark.parametrize("odd", ["drone_01", "test", "images", "bbox_train", "c7", "monday"])
def test_one_odd_name_among_many_is_told_and_read(tmp_path, odd):
    inner = "/t1" if odd == "monday" else ""
    put(tmp_path, f"{odd}{inner}/a.jpg", *(f"{k:04}/a.jpg" for k in range(9)))
    dataset = load(tmp_path)
    assert {s.pid for s in dataset.samples} == {odd, *(f"{k:04}" for k in range(9))}
    assert any(line.startswith(f"'{odd}' of 10 folders are read as") for line in dataset.warnings)


def test_an_odd_name_among_the_people_of_a_split_is_told(tmp_path):
    put(tmp_path, *(f"train/{name}/a.jpg" for name in ("bob", "ids", "eve", "kim")))
    dataset = load(tmp_path)
    assert len({s.pid for s in dataset.samples}) == 4 and "'train/ids' of 4" in dataset.warnings[0]


def test_the_options_that_are_named_work_at_their_place(tmp_path):
    put(tmp_path, "images/cam1/a.jpg", "images/cam2/b.jpg")
    with pytest.raises(ValueError, match=rf"--data.root {tmp_path}/images --data.form folders"):
        load(tmp_path)
    assert set(pids(tmp_path / "images", form="folders").values()) == {"cam1", "cam2"}
    put(tmp_path / "other", "train/cam1/a.jpg", "train/cam2/b.jpg")
    with pytest.raises(ValueError, match=r"as people \(--data.form splits\).*one of these options"):
        load(tmp_path / "other")
    assert set(pids(tmp_path / "other", form="splits").values()) == {"cam1", "cam2"}


@pytest.mark.parametrize(
    "names",
    [
        ("kim/walk/1.jpg", "kim/run/1.jpg", "bob/walk/1.jpg", "bob/sit/1.jpg"),
        ("kim/walk/1.jpg", "bob/run/1.jpg"),
        ("00000001/0001/1.jpg", "00000001/0002/1.jpg", "00000002/0001/1.jpg"),
        ("20241399/0001/1.jpg", "20241399/0002/1.jpg", "20250045/0003/1.jpg"),
        ("person/tracklet/1.jpg", "person/tracklet/2.jpg"),
        ("person/tracklet/1.jpg", "person2/tracklet/1.jpg"),
    ],
)
def test_tracklets_stay_tracklets(tmp_path, names):
    put(tmp_path, *names)
    assert {s.pid for s in load(tmp_path).samples} == {name.split("/")[0] for name in names}


@pytest.mark.parametrize("write", [None, write_csv])
@pytest.mark.parametrize("other", ["training", "bbox_train", "train_set"])
def test_two_folders_of_one_split_stop_and_are_named(tmp_path, other, write):
    for folder in ("train", other):
        many(tmp_path, folder, write) if write else put(tmp_path, f"{folder}/7/a.jpg")
    with pytest.raises(ValueError, match=f"(train|{other}) and .*both called as the split train"):
        load(tmp_path)
    assert len(pids(tmp_path, form="splits")) == (16 if write else 2)
    put(tmp_path / "tests", "train/7/a.jpg", "test/8/a.jpg", "val/9/a.jpg")
    assert set(pids(tmp_path / "tests").values()) == {"7"}


def test_a_stray_picture_beside_a_folder_of_metadata_is_told(tmp_path):
    put(many(tmp_path, "images"), "stray.jpg")
    dataset = load(tmp_path)
    assert len(dataset.samples) == 8
    assert any("1 pictures in" in line and "not read" in line for line in dataset.warnings)
    assert "not read (1)" in reasons(tmp_path)["."]


def test_rows_that_are_all_left_out_are_an_error_that_says_so(tmp_path):
    many(tmp_path, "test")
    with pytest.raises(ValueError, match="split is missing: rows of test are.*column split"):
        load(tmp_path)


def test_the_option_chooses(tmp_path):
    put(tmp_path, "train/a.jpg", "train/b.jpg", "test/c.jpg")
    assert pids(tmp_path, form="folders") == {
        "train/a.jpg": "train",
        "train/b.jpg": "train",
        "test/c.jpg": "test",
    }
    assert pids(tmp_path, form="splits") == {"train/a.jpg": "a", "train/b.jpg": "b"}
    assert "pictures of test are left out" in reasons(tmp_path, form="splits")["test"]
    with pytest.raises(ValueError, match="--data.form table: there is no metadata.csv"):
        load(tmp_path, form="table")
    with pytest.raises(ValueError, match="--data.form splits: no folder .* called as a split"):
        load(tmp_path / "train", form="splits")


def test_metadata_in_the_root_and_in_splits(tmp_path):
    many(tmp_path, "train")
    put(tmp_path, "a.jpg")
    write_csv(tmp_path, {"file_name": "a.jpg", "pid": "1"})
    with pytest.raises(ValueError, match=r"two ways: by 'metadata.csv'.*'train/metadata.csv'"):
        load(tmp_path)
    assert pids(tmp_path, form="table") == {"a.jpg": "1"}
    assert len(pids(tmp_path, form="splits")) == 8
    assert any("'metadata.csv' is not read" in w for w in load(tmp_path, form="splits").warnings)


def test_metadata_of_several_folders_that_are_no_splits(tmp_path):
    many(many(tmp_path, "site_a"), "site_b")
    with pytest.raises(ValueError, match=r"one data set \(--data.form table\).*--data.root"):
        load(tmp_path)
    assert len(pids(tmp_path, form="table")) == 16


def test_metadata_of_one_person_among_people(tmp_path):
    many(tmp_path, "bob")
    put(tmp_path, "eve/a.jpg")
    with pytest.raises(ValueError, match=r"'bob/metadata.csv' .*'eve' as people"):
        load(tmp_path)
    assert set(pids(tmp_path, form="folders").values()) == {"bob", "eve"}


def test_two_metadata_files_in_a_split(tmp_path):
    write_jsonl(many(tmp_path, "train") / "train", *FOUR)
    with pytest.raises(ValueError, match="train has both metadata.csv and metadata.jsonl"):
        load(tmp_path)


@pytest.mark.parametrize("place", ["", "train/"])
@pytest.mark.parametrize("suffix", ["parquet", "tsv", "xlsx"])
def test_tables_that_are_not_read_are_named(tmp_path, place, suffix):
    put(tmp_path, f"{place}a.jpg")
    (tmp_path / f"{place}metadata.{suffix}").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=rf"metadata.{suffix} is not read: write it as metadata"):
        load(tmp_path)


def test_another_table_beside_people_is_told(tmp_path):
    put(tmp_path, "bob/a.jpg")
    (tmp_path / "labels.csv").write_text("image,person\n")
    assert any("'labels.csv' is not read" in line for line in load(tmp_path).warnings)


def test_containers_of_people_are_no_person(tmp_path):
    put(tmp_path, "images/bob/a.jpg", "images/eve/b.jpg")
    assert set(pids(tmp_path).values()) == {"bob", "eve"}
    assert pids(tmp_path) == {f"images/{k}": v for k, v in pids(tmp_path / "images").items()}


def test_tracklets_of_people_who_are_called_as_a_day_stay_theirs(tmp_path):
    put(tmp_path, "Friday/t1/a.jpg", "Friday/b.jpg", "day/t1/a.jpg", "Mende/t1/a.jpg")
    assert set(pids(tmp_path).values()) == {"Friday", "day", "Mende"}


def test_splits_by_their_short_name(tmp_path):
    put(tmp_path, "bbox_train/0001/a.jpg", "bbox_train/0002/t1/a.jpg", "bbox_test/0003/a.jpg")
    assert set(pids(tmp_path).values()) == {"0001", "0002"}


def test_folders_that_only_people_are_called_stay_people(tmp_path):
    names = ["Val", "dev", "Camila", "Dana", "test_1", "trainer", "0001"]
    put(tmp_path, *(f"{name}/a.jpg" for name in names))
    assert sorted(pids(tmp_path).values()) == sorted(names)


def test_files_called_as_those_of_a_released_data_set(tmp_path):
    put(tmp_path, "0002_c1s1_000451_03.jpg", "0002_c2s1_000452_01.jpg", "0007_c1s1_000453_01.jpg")
    (warning,) = [w for w in load(tmp_path).warnings if "market1501" in w]
    assert "3 files" in warning and "metadata.csv" in warning


# ---- tracklets and videos ------------------------------------------------------------------------


def test_a_folder_in_a_persons_folder_is_a_tracklet(tmp_path):
    put(tmp_path, *(f"bob/monday/f{k}.jpg" for k in (10, 9, 1)), "bob/tuesday/x.png", "eve/0/1.jpg")
    dataset = load(tmp_path)
    assert [(s.name, s.pid, s.outfit, len(s.paths)) for s in dataset.samples] == [
        ("bob/monday", "bob", "monday", 3),
        ("bob/tuesday/x.png", "bob", "tuesday", 1),
        ("eve/0/1.jpg", "eve", "0", 1),
    ]
    assert [path.name for path in dataset.samples[0].paths] == ["f1.jpg", "f9.jpg", "f10.jpg"]
    assert any("3 folders" in line and "tracklet" in line for line in dataset.warnings)
    before = dataset.fingerprint
    dataset.samples[0].paths[1].write_bytes(b"x")
    assert load(tmp_path).fingerprint != before


def test_crops_tracklets_and_videos_of_one_person(tmp_path):
    put(tmp_path, "bob/a.jpg", "bob/walk/1.jpg", "bob/walk/2.jpg", "eve/a.jpg")
    for name in ("bob/gate.MP4", "bob/walk/clip.mov", "kim.webm"):
        (tmp_path / name).write_bytes(b"video")
    dataset = load(tmp_path)
    assert {(s.name, s.pid, s.outfit, len(s.paths)) for s in dataset.samples} == {
        ("bob/a.jpg", "bob", "", 1),
        ("bob/walk", "bob", "walk", 2),
        ("eve/a.jpg", "eve", "", 1),
        ("bob/gate.MP4", "bob", "gate", 1),
        ("bob/walk/clip.mov", "bob", "walk", 1),
        ("kim.webm", "kim", "", 1),
    }
    assert not dataset.rejects


def test_one_person_with_tracklets_that_are_called_so(tmp_path):
    put(tmp_path, "bob/tracklet_1/a.jpg", "bob/tracklet_2/b.jpg")
    assert pids(tmp_path) == {f"bob/tracklet_{k}.jpg": "bob" for k in ("1/a", "2/b")}


def test_metadata_may_name_folders_of_frames_and_videos(tmp_path):
    put(tmp_path, "clips/7/2.jpg", "clips/7/10.jpg")
    (tmp_path / "clips/8.mp4").write_bytes(b"video")
    rows = [{"file_name": n, "pid": "7"} for n in ("clips/7", "clips\\8.mp4", "clips/7/")]
    write_csv(tmp_path, *rows, {"file_name": "clips/7", "pid": "7", "box": "0 0 5 9"})
    dataset = load(tmp_path)
    assert [(s.name, [p.name for p in s.paths]) for s in dataset.samples] == [
        ("clips/7", ["2.jpg", "10.jpg"]),
        ("clips/8.mp4", ["8.mp4"]),
    ]
    said = {r.source: r.reason for r in dataset.rejects}
    assert "named before" in said["metadata.csv:4"] and "box is of one" in said["metadata.csv:5"]


# ---- the options ---------------------------------------------------------------------------------


def test_the_options_are_part_of_a_training_and_come_back(tmp_path):
    argv = ["--data.form", "splits", "--data.box", "xywh", "--data.elevation", "pitch"]
    asked = parse(train.Config, argv, "train")
    assert asked.data.given() == [
        "--data.form=splits",
        "--data.box=xywh",
        "--data.elevation=pitch",
    ]
    assert Reading().given() == []
    (tmp_path / "again.yaml").write_text(dump(asked))
    assert parse(train.Config, [str(tmp_path / "again.yaml")], "train") == asked
    assert json.loads(json.dumps(to_dict(asked)))["data"]["box"] == "xywh"


@pytest.mark.parametrize("command", ["generate", "train", "evaluate", "probe", "train_diffusion"])
def test_every_command_that_takes_a_root_takes_the_options(command):
    config = importlib.import_module(f"viewsynth.commands.{command}").Config
    asked = parse(config, ["--data.elevation", "nadir", "--data.root", "x"], command)
    assert (asked.data.elevation, asked.data.name) == ("nadir", "folder")


def test_a_word_that_is_no_form_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(train.Config, ["--data.box", "yolo"], "train")
    assert re.search("--data.box must be one of auto, xyxy, xywh", capsys.readouterr().err)
