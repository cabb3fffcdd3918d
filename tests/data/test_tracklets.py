# SPDX-License-Identifier: Apache-2.0
"""Tracklets and videos in a run: the best frames become the sources of one person."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_videos import blurred, clip, tracklet, video, view

from viewsynth import manifest
from viewsynth.commands.generate import Config
from viewsynth.data import frames
from viewsynth.generate import chunk, gather
from viewsynth.generate.synthesizer import Synthesizer
from viewsynth.generate.worker import Job
from viewsynth.records import Person, Sample
from viewsynth.runtime import weights
from viewsynth.runtime.files import sha256
from viewsynth.world import shots


def job(root: Path, **data) -> Job:
    config = Config()
    config = Config(data=type(config.data)(root=root, **data))
    return Job(root.parent / "run", root, config, "cpu", {}, {}, {})


def entry(*samples: Sample) -> manifest.Entry:
    (one,) = manifest.entries(list(samples))
    return one


@pytest.fixture(scope="module")
def rendered() -> list[np.ndarray]:
    wanted = [
        shots.SimpleShot(name=f"s{turn}", elevation=5, azimuth=turn, height=200)
        for turn in range(0, 360, 30)
    ]
    return [shot.image for shot in shots.render(1, seed=2, shots=wanted)]


@pytest.fixture(scope="module")
def tools(pose_model, detector):
    return SimpleNamespace(detector=detector, pose_model=pose_model)


def test_the_best_frames_of_a_folder_become_one_group(tmp_path, rendered, tools):
    mixed = [image for one in rendered for image in (one, blurred(one, 3))]
    sample = tracklet(tmp_path / "root" / "p" / "t1", mixed)
    sample.paths[4].write_bytes(b"broken")
    one = entry(sample)
    sample.paths[6].unlink()
    sample.paths[8].write_bytes(sample.paths[10].read_bytes())  # changed after it was listed
    groups, rejects = gather.crops(one, job(tmp_path / "root"), tools)
    (group,) = groups
    assert len(group.samples) == 8 == len({part.name for part in group.samples})
    for part, digest in zip(group.samples, group.sha256, strict=True):
        (path,) = part.paths
        assert part.pid == "p" and part.outfit == "t1" and part.name == f"p/t1/{path.name}"
        assert int(path.stem) % 2 == 0 and digest == sha256(path)  # odd ones are blurred
    assert group.samples == sorted(group.samples, key=lambda part: part.paths)
    found = {reject.source: reject for reject in rejects}
    assert set(found) == {"p/t1/0004.png", "p/t1/0006.png", "p/t1/0008.png"}
    assert found["p/t1/0006.png"].kind == "fault" and found["p/t1/0004.png"].kind == "quality"
    assert "changed" in found["p/t1/0008.png"].reason


def test_the_best_frames_of_a_video_become_one_group(tmp_path, rendered, tools):
    """Some frames of the scene show no person, and one shows two people."""
    scene = np.full((240, 400, 3), 150, np.uint8)
    images = []
    for number, one in enumerate(rendered[:4]):
        small = Image.fromarray(one).resize((70, 200))
        here = Image.fromarray(scene)
        here.paste(small, (40 + 12 * number, 20))
        images += [np.asarray(here), scene][: 2 - number % 2]
        if number == 2:
            here.paste(small, (300, 20))
            images.append(np.asarray(here))
    (tmp_path / "root" / "p").mkdir(parents=True)
    path = video(tmp_path / "root" / "p" / "walk.mp4", images)
    one = entry(clip(path))
    groups, rejects = gather.crops(one, job(tmp_path / "root"), tools)
    (group,) = groups
    assert 3 <= len(group.samples) <= 4
    assert all(part.box and part.name == f"p/walk.mp4#f{part.frame}" for part in group.samples)
    assert group.sha256 == [sha256(path)] * len(group.samples)
    for part, image in zip(group.samples, group.images, strict=True):
        assert (frames.read(path, part.frame, part.box) == image).all()
        assert image.shape[0] > 150
    assert rejects and all(reject.source.startswith("p/walk.mp4#f") for reject in rejects)
    assert {"quality"} == {reject.kind for reject in rejects}


def test_a_video_without_its_reader_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / "a.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    one = entry(clip(path))
    monkeypatch.setitem(sys.modules, "av", None)
    groups, (reject,) = gather.crops(one, job(tmp_path / "root"), None)
    assert not groups and reject.kind == "fault" and "viewsynth[video]" in reject.reason
    assert reject.source == "a.mp4"


def test_a_heic_without_its_reader_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / "a.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    one = entry(Sample(paths=(path,), pid="a", name="a.jpg"))
    groups, (reject,) = gather.crops(one, job(tmp_path / "root"), None)
    assert not groups and reject.kind == "fault" and "viewsynth[heif]" in reject.reason


def test_the_refiner_finds_the_frames_of_a_video_again(tmp_path, rendered):
    """`photos_of` reads the frames that the person's sources name."""
    (tmp_path / "root").mkdir()
    path = video(
        tmp_path / "root" / "a.mp4",
        [np.asarray(Image.fromarray(d).resize((80, 200))) for d in rendered[:4]],
    )
    empty = np.zeros(3, np.float32)
    about = {"file": "a.mp4", "sha256": sha256(path), "box": [4, 10, 70, 190], "used": True}
    person = Person(
        pid="p",
        body="anny",
        shape=empty,
        pose=empty,
        offsets=empty,
        scale=1.0,
        texture=empty,
        seen=empty,
        sources=[about | {"frame": 3}, about | {"frame": 1}],
    )
    synthesizer = Synthesizer.from_models(None, SimpleNamespace(fitted=lambda image: image))
    found = synthesizer.photos_of(person, tmp_path / "root")
    for number, image in zip((3, 1), found, strict=True):
        assert (image == frames.read(path, number, (4, 10, 70, 190))).all()
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(gather.UnusableError, match="changed"):
        synthesizer.photos_of(person, tmp_path / "root")


def test_frames_are_saved_in_the_list_of_a_run(tmp_path):
    sample = tracklet(tmp_path / "t", [view(k) for k in range(3)])
    saved = manifest.Frozen({}, tmp_path, [entry(sample)])
    (tmp_path / "run").mkdir()
    manifest.save(tmp_path / "run", saved)
    (back,) = manifest.read(tmp_path / "run").people
    assert back == saved.people[0] and len(back.sha256) == 3


def test_a_tracklet_through_generate(tmp_path, rendered):
    """The sources of the person are the frames."""
    try:
        models = weights.reconstruction()
    except weights.MissingWeightsError as error:
        pytest.skip(f"the pose models are not available: {error}")
    root = tmp_path / "root"
    folder = tracklet(root / "p" / "t1", rendered[::3])
    even = [np.asarray(Image.fromarray(one).resize((80, 200))) for one in rendered[::3]]
    film = clip(video(root / "p" / "t2.mp4", even))
    one = job(root)
    one = Job(one.run, root, one.config, "cpu", models, {}, {"data": "x"})
    task = manifest.Task("0", "0", tuple(manifest.entries([folder, film])), (), ("e60_a0",))
    files = {}
    made, rows, rejects = chunk.make_chunk(
        task, one, chunk.load_tools(one), lambda name, encode, *args: files.update({name: 1})
    )
    assert [person["outfit"] for person in made] == ["t1", "t2"], rejects
    assert 2 < len(rows[0]["sources"]) <= 4
    assert all(source["file"].startswith("p/t1/") for source in rows[0]["sources"])
    assert {source["file"] for source in rows[1]["sources"]} == {"p/t2.mp4"}
    numbers = [source["frame"] for source in rows[1]["sources"]]
    assert numbers == sorted(set(numbers)) and len(numbers) > 2
