# SPDX-License-Identifier: Apache-2.0
"""`viewsynth data` on every data set, and on broken ones."""

import json

import numpy as np
import pytest
import releases
from PIL import Image
from tiny_videos import video

from viewsynth import data
from viewsynth.commands import main


def look(capsys, name, root, *options):
    """Run the command; returns its status, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main("data", [name, str(root), "--output", str(root.parent / "out"), *options])
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize("name", [name for name in data.names() if name != "folder"])
def test_every_data_set(name, release, tmp_path, capsys):
    root = release(name)
    status, out, _ = look(capsys, name, root, "--json")
    found = json.loads(out)
    assert found == json.loads((tmp_path / "out" / "data.json").read_text())
    dataset = data.load(name, root)
    assert found["counts"] == data.counts(dataset)
    assert sum(sum(c.values()) for c in found["cameras"].values()) == len(dataset.samples)
    assert {n: p["valid_queries"] for n, p in found["protocols"].items()} == {
        n: p.valid_queries for n, p in dataset.protocols.items()
    }
    assert len(found["differences"]) == len(data.differences(dataset))
    rejects = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert len(rejects) == sum(found["rejects"].values()) == len(dataset.rejects)
    bad = sum(reject.kind != "skipped" for reject in dataset.rejects)
    assert status == int(bad > 0.01 * (len(dataset.samples) + bad))
    status, out, _ = look(capsys, name, root)
    for protocol in dataset.protocols:
        assert f"\n{protocol} " in out
    for published, here in data.differences(dataset):
        assert str(published.count) in out and published.source in out and str(here) in out


def test_the_sheet_has_a_row_for_every_camera(release, tmp_path, capsys):
    root = release("cargo")
    look(capsys, "cargo", root, "--per-camera", "1")
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        one = np.asarray(sheet)
    cameras = {sample.camid for sample in data.load("cargo", root).samples}
    rows = one.shape[0] // len(cameras)
    coloured = [(one[k * rows : (k + 1) * rows].std(-1) > 5).any() for k in range(len(cameras))]
    assert all(coloured)
    look(capsys, "cargo", root)
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > one.shape[1] or (np.asarray(sheet) != one).any()


def test_broken_images_are_named_and_fail_the_command(release, tmp_path, capsys):
    root = release("cargo")
    broken = root / "train/Cam1/Cam1_day_1_0.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    empty = root / "gallery/Cam2/Cam2_day_7_0.jpg"
    empty.write_bytes(b"")
    status, _, said = look(capsys, "cargo", root)
    assert status == 1
    assert "train/Cam1/Cam1_day_1_0.jpg: the image is truncated" in said
    assert "gallery/Cam2/Cam2_day_7_0.jpg: the file is empty (0 bytes)" in said
    assert "failed: 2 files or rows" in said
    status, _, said = look(capsys, "cargo", root, "--no-open")
    assert "truncated" not in said and "0 bytes" in said


def test_tracklets_and_videos_are_opened_and_drawn(tmp_path, capsys):
    root, red = tmp_path / "in", np.full((60, 40, 3), (200, 20, 20), np.uint8)
    for name in ("anna/t1/1.png", "anna/t1/2.png", "ben/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(red).save(root / name)
    video(root / "ben" / "walk.mp4", [red] * 3)
    status, out, said = look(capsys, "folder", root, "--json")
    assert status == 0 and json.loads(out)["counts"]["images"] == 3, said
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        painted = np.asarray(sheet.convert("RGB")).astype(int)
    # 3 tiles of the same size
    assert (abs(painted - (200, 20, 20)).max(-1) < 30).sum() > 2.5 * 40 * 60
    (root / "anna" / "t1" / "2.png").write_bytes(b"")
    (root / "ben" / "walk.mp4").write_bytes(b"no video")
    status, out, said = look(capsys, "folder", root)
    assert status == 1 and "anna/t1/2.png: the file is empty" in said
    assert "ben/walk.mp4: the video is damaged" in said


def test_small_images_are_no_fault(tmp_path, capsys):
    for pid in ("a", "b"):
        (tmp_path / "in" / pid).mkdir(parents=True)
        Image.new("RGB", (9, 21), "red").save(tmp_path / "in" / pid / "1.png")
    status, out, _ = look(capsys, "folder", tmp_path / "in")
    assert status == 0 and "no protocol" in out and "rejects" not in out


def test_attributes_that_are_the_same_for_nearly_all_people_are_a_warning(release, capsys):
    root = release("ag_reid_challenge")
    _, out, _ = look(capsys, "ag_reid_challenge", root)
    assert "attributes are the same" not in out
    pids = {s.pid.rpartition("/")[2] for s in data.load("ag_reid_challenge", root).samples}
    rows = {pid: [2, 1, 1, *releases.row_of(n)[3:]] for n, pid in enumerate(sorted(pids))}
    releases.put_attributes(root / "qut_attribute_v8.mat", rows)
    _, out, _ = look(capsys, "ag_reid_challenge", root)
    (line,) = (line for line in out.splitlines() if "attributes are the same" in line)
    assert line.startswith("warning: 1 of ") and line.endswith(": gender:a")
    assert "nearly all of 5 people" in line


def test_wrong_roots_give_one_line(release, tmp_path, capsys):
    root = release("market1501")
    status, _, said = look(capsys, "cargo", root)
    assert status == 2 and said.count("\n") == 1 and "it looks like market1501" in said
    status, _, said = look(capsys, "cargo", tmp_path / "none")
    assert status == 2 and "does not exist" in said
    status, _, said = look(capsys, "carg", root)
    assert status == 2 and "must be one of" in said and "cargo" in said
