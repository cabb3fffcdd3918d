# SPDX-License-Identifier: Apache-2.0
"""Training pool: disjoint identities, checks of synthetic runs, separate synthetic cameras."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from viewsynth.records import Sample
from viewsynth.reid import pool
from viewsynth.runtime.files import lines

PIDS = [f"world/{n:04d}" for n in range(6)]


@pytest.fixture
def train(tmp_path):
    """Two ground images and an aerial image of each person."""
    found = []
    for pid in PIDS:
        for camera in ("6", "7", "1"):
            name = f"train/Cam{camera}/{pid[6:]}.jpg"
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{name}".encode())
            view = "aerial" if camera == "1" else "ground"
            found.append(Sample(paths=(path,), pid=pid, name=name, camid=camera, view=view))
    return found


def row(pid, name="e30_a0", **values):
    """A row of metadata.jsonl."""
    file_name = f"images/{pid.replace('/', '__')}/{name}.jpg"
    source = f"train/Cam6/{pid[6:]}.jpg"  # written by the fixture `train`
    digest = hashlib.sha256(source.encode()).hexdigest()
    return {
        "file_name": file_name,
        "pid": pid,
        "camid": "6+7:e30",
        "platform": "drone",
        "view": "aerial",
        "split": "train",
        "source": "synthetic",
        "outfit": "",
        "elevation": 30.0,
        "seen_ratio": 0.5,
        "weight": 0.8,
        "sources": [{"file": source, "sha256": digest}],
    } | values


def run(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir(parents=True)
    (folder / "metadata.jsonl").write_bytes(lines(rows))
    return folder


def test_arrays_agree_with_the_samples(train, tmp_path):
    rows = [row(pid, view) for pid in PIDS for view in ("e30_a0", "e60_a0")]
    found = pool.build(train[::-1], [run(tmp_path / "run", rows[::-1])])
    assert found.classes == 6 and found.pids == PIDS and len(found.samples) == 18 + 12
    assert found.synthetic.tolist() == [False] * 18 + [True] * 12
    for n, sample in enumerate(found.samples):
        assert found.pids[found.labels[n]] == sample.pid
        assert found.views[n] == (sample.view == "aerial")
        assert found.synthetic[n] == (sample.source == "synthetic")
        assert found.weights[n] == np.float32(0.8 if found.synthetic[n] else 1)
    assert found.samples[18].paths == (tmp_path / "run" / "images/world__0000/e30_a0.jpg",)
    assert len({sample.name for sample in found.samples}) == 30
    again = pool.build(train, [tmp_path / "run"])
    assert again.samples == found.samples and (again.cameras == found.cameras).all()


def test_real_and_synthetic_images_share_no_camera(train, tmp_path):
    rows = [row(PIDS[0]), row(PIDS[1], camid="6"), row(PIDS[2], camid="6+7:e60")]
    found = pool.build(train, [run(tmp_path / "run", rows)])
    synthetic = set(found.cameras[found.synthetic].tolist())
    real = set(found.cameras[~found.synthetic].tolist())
    assert len(synthetic) == 3 and not synthetic & real
    assert (pool.build(train).cameras == found.cameras[:18]).all()  # numbers of real ones stay


@pytest.mark.parametrize(
    ("weight", "expected"), [("judge", [0.8, 0.3]), ("seen", [0.5, 0.9]), ("none", [1, 1])]
)
def test_weights(train, tmp_path, weight, expected):
    rows = [row(PIDS[0]), row(PIDS[1], weight=0.3, seen_ratio=0.9)]
    found = pool.build(train, [run(tmp_path / "run", rows)], pool.Selection(weight))
    assert found.weights[found.synthetic].tolist() == pytest.approx(expected)


def test_selection_of_rows(train, tmp_path):
    rows = [row(pid, f"s25-90_{n:03d}", weight=0.1 * n) for pid in PIDS for n in range(4)]
    folder = run(tmp_path / "run", rows)

    def selected(**options):
        left_out = options.pop("left_out", set())
        kept = [sample for sample in train if sample.pid not in left_out]
        found = pool.build(kept, [folder], pool.Selection(**options), everyone=train)
        return [s.name[-7:-4] for s in found.samples if s.source == "synthetic"]

    assert selected() == ["001", "002", "003"] * 6  # images of weight 0 are never used
    assert selected(weight="none", views=2) == ["001", "002"] * 6
    assert selected(least=0.2) == ["002", "003"] * 6
    assert selected(left_out={PIDS[0]}) == ["001", "002", "003"] * 5
    with pytest.raises(ValueError, match="no image of .*run is left of 24: 24 weigh too little"):
        selected(least=0.9)
    with pytest.raises(ValueError, match="4 are of identities that are left out.*20 weigh too"):
        selected(left_out={PIDS[0]}, least=0.9)


def test_runs_of_other_identities_are_errors(train, tmp_path):
    cargo = run(tmp_path / "cargo", [row("cargo/7")])
    with pytest.raises(
        ValueError, match=r"another data set: it shows 'cargo' \(cargo/7\).*'world' \(world/0000"
    ):
        pool.build(train, [cargo])
    folder = run(tmp_path / "folder", [row("0007")])
    with pytest.raises(ValueError, match=r"it shows a folder of images \(0007\)"):
        pool.build(train, [folder])
    tested = run(tmp_path / "tested", [row(PIDS[0]), row("world/0099")])
    with pytest.raises(ValueError, match="1 identities of query or gallery: world/0099"):
        pool.build(train, [tested], tested={"world/0099"})
    with pytest.raises(ValueError, match="1 of the 2 identities of .*tested are not among"):
        pool.build(train, [tested])
    with pytest.raises(ValueError, match="1 identities are in train and in query or gallery"):
        pool.build(train, tested={PIDS[3]})


def test_runs_of_another_data_set_with_the_same_identity_names(train, tmp_path):
    def sources(sample, text):
        return [{"file": sample.name, "sha256": hashlib.sha256(text.encode()).hexdigest()}]

    rows = [row(s.pid, sources=sources(s, s.name)) for s in train if s.camid == "6"]
    assert pool.build(train, [run(tmp_path / "right", rows)]).synthetic.sum() == 6
    rows[4]["sources"] = sources(train[12], "another image")
    with pytest.raises(ValueError, match="Cam6/0004.jpg is not the image that it was generated"):
        pool.build(train, [run(tmp_path / "wrong", rows)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "real"}, "2: source must be synthetic, got 'real'"),
        ({"view": "below"}, "view must be aerial or ground, got 'below'"),
        ({"weight": 1.5}, r"weight must be a number in \[0, 1\], got 1.5"),
        ({"weight": None}, "weight must be a number"),
        ({"seen_ratio": float("nan")}, "seen_ratio must be a number"),
        ({"elevation": float("inf")}, "elevation must be a finite number"),
        ({"pid": 7}, "pid must be a non-empty string, got 7"),
        ({"file_name": "../secret.jpg"}, "leads out of"),
        ({"file_name": "/etc/passwd"}, "leads out of"),
    ],
)
def test_bad_rows(train, tmp_path, changes, message):
    folder = run(tmp_path / "run", [row(PIDS[0]), row(PIDS[1]) | changes])
    with pytest.raises(ValueError, match=message):
        pool.build(train, [folder])


def test_bad_runs(train, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        pool.build(train, [tmp_path / "none"])
    (tmp_path / "half").mkdir()
    with pytest.raises(FileNotFoundError, match="half has no metadata.jsonl.*run generate again"):
        pool.build(train, [tmp_path / "half"])
    with pytest.raises(ValueError, match="has no rows"):
        pool.build(train, [run(tmp_path / "empty", [])])
    (tmp_path / "half" / "metadata.jsonl").write_text(json.dumps(row(PIDS[0]))[:40])
    with pytest.raises(ValueError, match="metadata.jsonl:1: not a JSON object"):
        pool.build(train, [tmp_path / "half"])
    good = run(tmp_path / "good", [row(PIDS[0])])
    with pytest.raises(ValueError, match="good is given twice"):
        pool.build(train, [good, tmp_path / "half" / ".." / "good"])
    with pytest.raises(ValueError, match="no training images"):
        pool.build([])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "images").symlink_to(good)
    (tmp_path / "linked" / "metadata.jsonl").write_bytes(lines([row(PIDS[0])]))
    with pytest.raises(ValueError, match="through a symlink"):
        pool.build(train, [tmp_path / "linked"])


def test_runs_with_equal_folder_names(train, tmp_path):
    two = [run(tmp_path / where / "run", [row(PIDS[0])]) for where in "ab"]
    names = [s.name for s in pool.build(train, two).samples]
    assert len(set(names)) == 20


def test_tracklets_become_frames(tmp_path):
    frames = tuple(tmp_path / f"{n}.jpg" for n in range(3))
    found = pool.build([Sample(paths=frames, pid="a", name="track")])
    assert [s.paths for s in found.samples] == [(path,) for path in frames]
    assert len({s.name for s in found.samples}) == 3


@pytest.mark.parametrize("name", ["walk.mp4", "clip.MOV", "track.webm"])
def test_videos_are_left_out_and_reported(train, tmp_path, name, caplog):
    video = Sample(paths=(tmp_path / name,), pid="a", name=name)
    assert pool.build([*train, video]).samples == pool.build(train).samples
    assert f"1 samples are videos ({name})" in caplog.text
    found, (reject,) = pool.pictures([*train, video])
    assert found == train and reject.source == str(tmp_path / name) and reject.pid == "a"
    assert "a folder of its frames" in reject.reason
    with pytest.raises(ValueError, match=f"no images .*{name}.* folder of its frames"):
        pool.build([video])


def test_sources_of_a_run_can_be_frames_of_tracklets(tmp_path):
    tracks, rows = [], []
    for pid in ("a", "b"):
        frames = tuple(tmp_path / pid / "t1" / f"{n}.jpg" for n in range(3))
        for path in frames:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(str(path).encode())
        tracks.append(Sample(paths=frames, pid=pid, name=f"{pid}/t1", outfit="t1"))
        digest = hashlib.sha256(str(frames[1]).encode()).hexdigest()
        rows.append(row(pid, sources=[{"file": f"{pid}/t1/1.jpg", "sha256": digest}]))
    assert pool.build(tracks, [run(tmp_path / "right", rows)]).synthetic.sum() == 2
    rows[1]["sources"][0]["sha256"] = "0"
    with pytest.raises(ValueError, match="b/t1/1.jpg is not the image that it was generated"):
        pool.build(tracks, [run(tmp_path / "wrong", rows)])


def test_split_is_by_identity_and_independent_of_the_order(train):
    kept, held = pool.split(train, 0.34, 0)
    assert len({s.pid for s in held}) == 2 and len(kept) + len(held) == len(train)
    assert not {s.pid for s in kept} & {s.pid for s in held}
    again = pool.split(train[::-1], 0.34, 0)
    assert {s.pid for s in again[1]} == {s.pid for s in held}
    assert any(
        {s.pid for s in pool.split(train, 0.34, n)[1]} != {s.pid for s in held} for n in range(1, 9)
    )
    assert pool.split(train, 0, 0) == (train, [])
    assert len({s.pid for s in pool.split(train, 0.01, 0)[1]}) == 2
    for share in (0.99, 1.0, -0.1):
        with pytest.raises(ValueError, match="lower the share|must be in"):
            pool.split(train, share, 0)


def test_keep_removes_identities_without_images(train, tmp_path):
    found = pool.build(train, [run(tmp_path / "run", [row(pid) for pid in PIDS])])
    usable = np.ones(len(found.samples), bool)
    assert found.keep(usable) is found
    usable[[n for n, s in enumerate(found.samples) if s.pid == PIDS[2]]] = False
    usable[0] = False
    less = found.keep(usable)
    assert less.pids == [p for p in PIDS if p != PIDS[2]] and len(less.samples) == 24 - 5
    assert [less.pids[n] for n in less.labels] == [s.pid for s in less.samples]
    assert less.weights.tolist() == found.weights[usable].tolist()


def test_repeated_images_are_marked_as_synthetic(train):
    ground = [sample for sample in train if sample.view == "ground"]
    found = pool.build(ground, repeat=3)
    again = [sample for sample in found.samples if sample.source == "synthetic"]
    assert found.synthetic.sum() == 18 and found.classes == 6 and len(found.samples) == 12 + 18
    assert {path for s in again for path in s.paths} == {path for s in ground for path in s.paths}
    assert not set(found.cameras[found.synthetic]) & set(found.cameras[~found.synthetic])
    assert set(found.weights.tolist()) == {1.0} and not found.views.any()
    assert len({sample.name for sample in found.samples}) == 30
    assert pool.build(ground, repeat=0).samples == pool.build(ground).samples


def test_views_by_platform_and_those_of_another_pool(train):
    kinds = {"6": "cctv", "7": "wearable", "1": "drone"}
    samples = [replace(sample, platform=kinds[sample.camid]) for sample in train]
    found = pool.build(samples, by="platform")
    assert found.view_names == ("cctv", "drone", "wearable")
    assert all(
        found.view_names[v] == s.platform for v, s in zip(found.views, found.samples, strict=True)
    )
    few = [sample for sample in samples if sample.platform != "cctv"]
    kept = found.keep(np.array([sample.platform != "cctv" for sample in found.samples]))
    for other in (kept, pool.build(few, by="platform", view_names=found.view_names)):
        assert other.view_names == found.view_names and set(other.views.tolist()) == {1, 2}
    with pytest.raises(ValueError, match="images of cctv, but .* are all of drone, wearable"):
        pool.build(samples, by="platform", view_names=("drone", "wearable"))
    assert pool.build(train).view_names == ("ground", "aerial")
