# SPDX-License-Identifier: Apache-2.0
"""Folders that can be read in two ways are an error; odd names among many are a warning."""

from __future__ import annotations

import pytest
from own_pictures import (
    FOUR_PEOPLE,
    eight_images,
    load,
    pids,
    put,
    reasons,
    refusal,
    write_csv,
    write_jsonl,
)

TWO_READINGS = {  # files, and words of both readings and their options
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


@pytest.mark.parametrize("case", TWO_READINGS)
def test_two_readings_are_an_error_that_names_both(tmp_path, case):
    names, words = TWO_READINGS[case]
    put(tmp_path, *names)
    with pytest.raises(ValueError, match="can be read in two ways") as error:
        load(tmp_path)
    for word in [*words.split(), "(--data."]:
        assert word in str(error.value)


@pytest.mark.parametrize("odd", ["drone_01", "test", "images", "bbox_train", "c7", "monday"])
def test_one_odd_name_among_many_is_a_person_with_a_warning(tmp_path, odd):
    inner = "/t1" if odd == "monday" else ""
    put(tmp_path, f"{odd}{inner}/a.jpg", *(f"{k:04}/a.jpg" for k in range(9)))
    dataset = load(tmp_path)
    assert {s.pid for s in dataset.samples} == {odd, *(f"{k:04}" for k in range(9))}
    assert any(line.startswith(f"'{odd}' of 10 folders are read as") for line in dataset.warnings)


def test_an_odd_name_among_the_people_of_a_split_is_a_warning(tmp_path):
    put(tmp_path, *(f"train/{name}/a.jpg" for name in ("bob", "ids", "eve", "kim")))
    dataset = load(tmp_path)
    assert len({s.pid for s in dataset.samples}) == 4 and "'train/ids' of 4" in dataset.warnings[0]


def test_the_suggested_options_work(tmp_path):
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
def test_tracklets_are_recognised(tmp_path, names):
    put(tmp_path, *names)
    assert {s.pid for s in load(tmp_path).samples} == {name.split("/")[0] for name in names}


@pytest.mark.parametrize("write", [None, write_csv])
@pytest.mark.parametrize("other", ["training", "bbox_train", "train_set"])
def test_two_folders_of_one_split_are_an_error(tmp_path, other, write):
    for folder in ("train", other):
        eight_images(tmp_path, folder, write) if write else put(tmp_path, f"{folder}/7/a.jpg")
    with pytest.raises(
        ValueError, match=f"(train|{other}) and .*both have the name of the split train"
    ):
        load(tmp_path)
    assert len(pids(tmp_path, form="splits")) == (16 if write else 2)
    put(tmp_path / "tests", "train/7/a.jpg", "test/8/a.jpg", "val/9/a.jpg")
    assert set(pids(tmp_path / "tests").values()) == {"7"}


def test_an_image_outside_the_folder_of_the_metadata_is_a_warning(tmp_path):
    put(eight_images(tmp_path, "images"), "stray.jpg")
    dataset = load(tmp_path)
    assert len(dataset.samples) == 8
    assert any("1 images in" in line and "not read" in line for line in dataset.warnings)
    assert "not read (1)" in reasons(tmp_path)["."]


def test_rows_of_a_test_split_alone_are_an_error(tmp_path):
    eight_images(tmp_path, "test")
    message = refusal(load, tmp_path)
    assert "split is missing: rows of test are" in message and "column split" in message


def test_the_option_selects_the_form(tmp_path):
    put(tmp_path, "train/a.jpg", "train/b.jpg", "test/c.jpg")
    assert pids(tmp_path, form="folders") == {
        "train/a.jpg": "train",
        "train/b.jpg": "train",
        "test/c.jpg": "test",
    }
    assert pids(tmp_path, form="splits") == {"train/a.jpg": "a", "train/b.jpg": "b"}
    assert "images of test are left out" in reasons(tmp_path, form="splits")["test"]
    with pytest.raises(ValueError, match="--data.form table: there is no metadata.csv"):
        load(tmp_path, form="table")
    with pytest.raises(
        ValueError, match="--data.form splits: no folder .* has the name of a split"
    ):
        load(tmp_path / "train", form="splits")


def test_metadata_in_the_root_and_in_splits(tmp_path):
    eight_images(tmp_path, "train")
    put(tmp_path, "a.jpg")
    write_csv(tmp_path, {"file_name": "a.jpg", "pid": "1"})
    with pytest.raises(ValueError, match=r"two ways: by 'metadata.csv'.*'train/metadata.csv'"):
        load(tmp_path)
    assert pids(tmp_path, form="table") == {"a.jpg": "1"}
    assert len(pids(tmp_path, form="splits")) == 8
    assert any("'metadata.csv' is not read" in w for w in load(tmp_path, form="splits").warnings)


def test_metadata_of_several_folders_that_are_not_splits(tmp_path):
    eight_images(eight_images(tmp_path, "site_a"), "site_b")
    with pytest.raises(ValueError, match=r"one data set \(--data.form table\).*--data.root"):
        load(tmp_path)
    assert len(pids(tmp_path, form="table")) == 16


def test_metadata_of_one_person_among_people(tmp_path):
    eight_images(tmp_path, "bob")
    put(tmp_path, "eve/a.jpg")
    with pytest.raises(ValueError, match=r"'bob/metadata.csv' .*'eve' as people"):
        load(tmp_path)
    assert set(pids(tmp_path, form="folders").values()) == {"bob", "eve"}


def test_two_metadata_files_in_a_split(tmp_path):
    write_jsonl(eight_images(tmp_path, "train") / "train", *FOUR_PEOPLE)
    assert "train has both metadata.csv and metadata.jsonl" in refusal(load, tmp_path)


@pytest.mark.parametrize("place", ["", "train/"])
@pytest.mark.parametrize("suffix", ["parquet", "tsv", "xlsx"])
def test_unsupported_tables_are_an_error(tmp_path, place, suffix):
    put(tmp_path, f"{place}a.jpg")
    (tmp_path / f"{place}metadata.{suffix}").write_bytes(b"PAR1")
    message = f"metadata.{suffix} has an unsupported format: write it as metadata.csv"
    assert message in refusal(load, tmp_path)


def test_another_table_next_to_people_is_a_warning(tmp_path):
    put(tmp_path, "bob/a.jpg")
    (tmp_path / "labels.csv").write_text("image,person\n")
    assert any("'labels.csv' is not read" in line for line in load(tmp_path).warnings)


def test_a_container_of_people_is_not_a_person(tmp_path):
    put(tmp_path, "images/bob/a.jpg", "images/eve/b.jpg")
    assert set(pids(tmp_path).values()) == {"bob", "eve"}
    assert pids(tmp_path) == {f"images/{k}": v for k, v in pids(tmp_path / "images").items()}


def test_people_may_have_the_name_of_a_day(tmp_path):
    put(tmp_path, "Friday/t1/a.jpg", "Friday/b.jpg", "day/t1/a.jpg", "Mende/t1/a.jpg")
    assert set(pids(tmp_path).values()) == {"Friday", "day", "Mende"}


def test_short_names_of_splits(tmp_path):
    put(tmp_path, "bbox_train/0001/a.jpg", "bbox_train/0002/t1/a.jpg", "bbox_test/0003/a.jpg")
    assert set(pids(tmp_path).values()) == {"0001", "0002"}


def test_names_of_people_that_resemble_other_words(tmp_path):
    names = ["Val", "dev", "Camila", "Dana", "test_1", "trainer", "0001"]
    put(tmp_path, *(f"{name}/a.jpg" for name in names))
    assert sorted(pids(tmp_path).values()) == sorted(names)


def test_files_with_names_of_a_released_data_set_are_a_warning(tmp_path):
    put(tmp_path, "0002_c1s1_000451_03.jpg", "0002_c2s1_000452_01.jpg", "0007_c1s1_000453_01.jpg")
    (warning,) = [w for w in load(tmp_path).warnings if "market1501" in w]
    assert "3 files" in warning and "metadata.csv" in warning
