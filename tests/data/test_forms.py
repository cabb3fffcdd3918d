# SPDX-License-Identifier: Apache-2.0
"""Forms of a user's folder: metadata in folders, splits, tracklets, and the options."""

from __future__ import annotations

import importlib
import json
import re

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

from viewsynth import data
from viewsynth.commands import train
from viewsynth.config import dump, parse, to_dict
from viewsynth.data import Reading

# ---- metadata below the root ---------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
@pytest.mark.parametrize(
    "folder", ["train", "Train", "images", "data/train", "unpacked/set/training", "people_2024"]
)
def test_metadata_in_a_folder_is_found(tmp_path, folder, write):
    eight_images(tmp_path, folder, write)
    (tmp_path / "test").mkdir()
    dataset = load(tmp_path)
    assert {s.pid for s in dataset.samples} == {"p0", "p1", "p2", "p3"}
    assert {s.name for s in dataset.samples} == {
        f"{folder}/{row['file_name']}" for row in FOUR_PEOPLE
    }
    assert {s.split for s in dataset.samples} == {"train"} and not dataset.rejects


def test_metadata_next_to_a_folder_of_images(tmp_path):
    put(tmp_path, "images/a.jpg", "images/b.jpg")
    write_csv(tmp_path, *({"file_name": f"images/{n}.jpg", "pid": n} for n in "ab"))
    assert pids(tmp_path) == {"images/a.jpg": "a", "images/b.jpg": "b"}


def test_metadata_may_name_images_outside_its_folder_but_not_outside_the_root(tmp_path):
    root = put(tmp_path / "root", "images/a.jpg", "images/b.jpg")
    put(tmp_path, "c.jpg")
    names = ["../images/a.jpg", "../../c.jpg"]
    write_csv(root / "annotations", *({"file_name": n, "pid": "1"} for n in names))
    assert pids(root) == {"images/a.jpg": "1"}
    reason = reasons(root)
    assert "leads out" in reason["annotations/metadata.csv:3"]
    assert "no metadata names" in reason["images"] and "(1)" in reason["images"]


def test_file_names_are_relative_to_their_metadata(tmp_path):
    put(tmp_path, "train/a.jpg")
    write_csv(tmp_path / "train", {"file_name": "train/a.jpg", "pid": "1"})
    reason = reasons(tmp_path)["train/metadata.csv:2"]
    assert "relative to the folder of the metadata" in reason


def test_the_name_of_a_metadata_file_may_be_in_capitals(tmp_path):
    eight_images(tmp_path, "train")
    (tmp_path / "train/metadata.csv").rename(tmp_path / "train/Metadata.CSV")
    assert set(pids(tmp_path).values()) == {"p0", "p1", "p2", "p3"}


# ---- splits --------------------------------------------------------------------------------------


def test_folders_of_splits_with_metadata_each(tmp_path):
    for folder in ("train", "validation", "test", "query", "gallery"):
        eight_images(tmp_path, folder)
    dataset = load(tmp_path)
    assert {s.split: s.name.split("/")[0] for s in dataset.samples} == {
        "train": "train",
        "query": "query",
        "gallery": "gallery",
    }
    assert len({s.pid for s in dataset.samples}) == 4  # p0 of train is p0 of query
    assert any("4 identities are in train and in query or gallery" in w for w in dataset.warnings)
    rejects = {r.source: r for r in dataset.rejects}
    assert set(rejects) == {"test", "validation"}
    for name, reject in rejects.items():
        assert reject.kind == "skipped" and reject.scores == {"count": 8}
        assert f"rows of {name} are left out" in reject.reason and "query" in reject.reason


def test_the_column_split_takes_precedence(tmp_path):
    eight_images(tmp_path, "train")
    splits = ["query", "gallery"] * 4
    rows = [row | {"split": split} for row, split in zip(FOUR_PEOPLE, splits, strict=True)]
    eight_images(tmp_path, "test", rows=rows)
    counts = data.counts(load(tmp_path))
    assert (counts["train images"], counts["query images"], counts["gallery images"]) == (8, 4, 4)


@pytest.mark.parametrize("outer", ["", "images/"])
def test_the_folder_of_an_image_gives_its_split(tmp_path, outer):
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


def test_a_folder_with_the_name_of_its_person_is_not_a_split(tmp_path):
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
    assert "images of val are left out" in reject.reason and reject.scores == {"count": 2}
    assert reject.reason in dataset.warnings


def test_splits_may_be_nested_as_in_archives(tmp_path):
    put(tmp_path, "mine/train/bob/1.jpg", "mine/test/eve/1.jpg")
    assert pids(tmp_path) == {"mine/train/bob/1.jpg": "bob"}


def test_a_test_split_alone_is_an_error(tmp_path):
    put(tmp_path, "test/bob/1.jpg", "validation/eve/1.jpg")
    message = refusal(load, tmp_path)
    assert "no images in " in message and "images of test are left out" in message


def test_images_outside_the_splits_are_counted(tmp_path):
    eight_images(tmp_path, "train")
    put(tmp_path, "extra/a.jpg", "extra/b.jpg", "c.jpg")
    reason = reasons(tmp_path)
    assert "not read (2)" in reason["extra"] and "not read (1)" in reason["."]


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


def test_one_person_with_folders_named_as_tracklets(tmp_path):
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
    reason = reasons(tmp_path)
    assert "named before" in reason["metadata.csv:4"]
    assert "box needs a single image" in reason["metadata.csv:5"]


# ---- the options ---------------------------------------------------------------------------------


def test_the_options_survive_a_configuration_file(tmp_path):
    argv = ["--data.form", "splits", "--data.box", "xywh", "--data.elevation", "pitch"]
    config = parse(train.Config, argv, "train")
    given = ["--data.form=splits", "--data.box=xywh", "--data.elevation=pitch"]
    assert config.data.given() == given
    assert Reading().given() == []
    (tmp_path / "again.yaml").write_text(dump(config))
    assert parse(train.Config, [str(tmp_path / "again.yaml")], "train") == config
    assert json.loads(json.dumps(to_dict(config)))["data"]["box"] == "xywh"


@pytest.mark.parametrize("command", ["generate", "train", "evaluate", "probe", "train_diffusion"])
def test_every_command_that_takes_a_root_takes_the_options(command):
    config = importlib.import_module(f"viewsynth.commands.{command}").Config
    parsed = parse(config, ["--data.elevation", "nadir", "--data.root", "x"], command)
    assert (parsed.data.elevation, parsed.data.name) == ("nadir", "folder")


def test_an_unknown_value_of_an_option_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(train.Config, ["--data.box", "yolo"], "train")
    assert re.search("--data.box must be one of auto, xyxy, xywh", capsys.readouterr().err)
