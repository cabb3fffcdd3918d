# SPDX-License-Identifier: Apache-2.0
"""Tracklets: their frames are read, the best of them chosen, and each is a source of its own."""

import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_profiles as tiny
from PIL import Image, ImageFilter
from tiny_videos import turned, video

from viewsynth import manifest
from viewsynth.commands.generate import Config
from viewsynth.data import frames
from viewsynth.data.images import ImageError, NotInstalled
from viewsynth.generate import chunk, gather
from viewsynth.generate.worker import Job
from viewsynth.records import Person, Sample
from viewsynth.runtime import weights
from viewsynth.runtime.files import sha256
from viewsynth.world import shots

RNG = np.random.default_rng(0)


def view(number: int, height: int = 128) -> np.ndarray:
    """A made frame of one view: coarse blocks that tell the views apart, on fine texture."""
    rng = np.random.default_rng(number)
    blocks = Image.fromarray(rng.integers(40, 215, (8, 4, 3), dtype=np.uint8))
    coarse = np.asarray(blocks.resize((height // 2, height), Image.Resampling.NEAREST)).astype(int)
    fine = np.random.default_rng(99).integers(-30, 31, coarse.shape)
    return (coarse + fine).clip(0, 255).astype(np.uint8)


def blurred(image: np.ndarray, radius: float = 4) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def chosen(pictures: list[np.ndarray], most: int = 8) -> list[int]:
    return frames.best([frames._look(picture) for picture in pictures], most)


def tracklet(folder: Path, pictures: list[np.ndarray], **fields) -> Sample:
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{k:04d}.png" for k in range(len(pictures)))
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return Sample(paths=paths, pid="p", name=f"p/{folder.name}", outfit=folder.name, **fields)


def clip(path: Path, **fields) -> Sample:
    return Sample(paths=(path,), pid="p", name=f"p/{path.name}", outfit=path.stem, **fields)


# ---- which are best ------------------------------------------------------------------------------


def test_blurred_frames_are_not_chosen():
    sharp = [view(k) for k in range(10)]
    mixed = [picture for one in sharp for picture in (blurred(one), one)]
    assert all(k % 2 for k in chosen(mixed))
    slightly = [picture for one in sharp for picture in (one, blurred(one, 1.5))]
    assert not any(k % 2 for k in chosen(slightly))


def test_of_near_duplicates_one_is_chosen():
    views = [view(k) for k in range(8)]
    noisy = [(one + RNG.integers(-3, 4, one.shape)).clip(0, 255).astype(np.uint8) for one in views]
    many = [views[0]] * 20 + views + noisy
    found = chosen(many)
    kinds = {0 if k < 20 else (k - 20) % 8 for k in found}
    assert len(found) == 8 and kinds == set(range(8))
    brighter = [np.minimum(one.astype(int) + 25, 255).astype(np.uint8) for one in views]
    assert {k % 8 for k in chosen(views + brighter)} == set(range(8))


def test_larger_frames_are_chosen():
    views = [view(k, height) for k in range(10) for height in (64, 192)]
    assert all(k % 2 for k in chosen(views))


def test_a_small_set_is_taken_whole_and_the_order_does_not_matter():
    views = [view(0), view(0), blurred(view(1)), view(2)]
    assert sorted(chosen(views)) == [0, 1, 2, 3]
    many = [blurred(view(k), k % 4) for k in range(30)]
    order = RNG.permutation(30)
    assert {order[k] for k in chosen([many[n] for n in order])} == set(chosen(many))
    assert chosen(many, 16)[:8] == chosen(many, 8)
    assert chosen([], 8) == []


# ---- the frames of a sample ----------------------------------------------------------------------


def test_frames_of_pictures(tmp_path):
    sample = tracklet(tmp_path / "t", [view(k) for k in range(3)], box=(4, 10, 60, 120))
    found = list(frames.each(sample))
    assert [one.path for one in found] == list(sample.paths)
    assert all((one.image == view(k)[10:120, 4:60]).all() for k, one in enumerate(found))
    sample.paths[1].write_bytes(b"broken")
    with pytest.raises(ImageError):
        list(frames.each(sample))
    told = []
    assert len(list(frames.each(sample, bad=lambda path, error: told.append(path)))) == 2
    assert told == [sample.paths[1]]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mpeg4"),
        ("a.avi", "mpeg4"),
        ("a.mkv", "mpeg4"),
        ("a.MOV", "mpeg4"),
        ("a.webm", "libvpx"),
        ("a.m4v", "mpeg4"),
    ],
)
def test_frames_of_a_video(tmp_path, name, codec):
    greys = [np.full((96, 48, 3), 40 + 20 * k, np.uint8) for k in range(6)]
    path = video(tmp_path / "a.mp4", greys) if name == "a.m4v" else None
    if path:
        path.rename(tmp_path / name)
    else:
        video(tmp_path / name.lower(), greys, codec).rename(tmp_path / name)
    found = list(frames.each(clip(tmp_path / name)))
    assert [one.number for one in found] == list(range(6))
    for grey, one in zip(greys, found, strict=True):
        assert one.image.shape == (96, 48, 3)
        assert abs(one.image.astype(int) - grey).max() <= 6
        assert (frames.read(one.path, one.number) == one.image).all()
    part = frames.read(found[2].path, 2, (8, 10, 40, 90))
    assert (part == found[2].image[10:90, 8:40]).all()
    with pytest.raises(ImageError, match="no frame 6"):
        frames.read(found[0].path, 6)


def test_long_videos_are_looked_at_evenly(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4", [np.full((32, 16, 3), k, np.uint8) for k in range(200)])
    numbers = [one.number for one in frames.each(clip(path))]
    assert numbers == list(range(0, 200, 2))
    monkeypatch.setattr(frames, "LOOK", 30)
    assert [one.number for one in frames.each(clip(path))] == list(range(0, 200, 8))
    monkeypatch.setattr(frames, "MEMORY", 20 * 32 * 16 * 3)  # room for twenty frames
    assert [one.number for one in frames.each(clip(path))] == list(range(0, 200, 16))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_videos_of_phones_are_upright(tmp_path, degrees):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:], picture[32:, :48] = (220, 30, 30), (30, 200, 30), 120
    path = turned(video(tmp_path / "a.mp4", [picture] * 2), degrees)
    wanted = np.rot90(picture, -degrees // 90)
    found = next(frames.each(clip(path))).image
    assert found.shape == wanted.shape
    assert abs(found.astype(int) - wanted).mean() < 8


def test_videos_with_oblong_pixels(tmp_path):
    path = video(
        tmp_path / "a.mp4",
        [np.full((64, 32, 3), 90, np.uint8)],
        sample_aspect_ratio=Fraction(3, 2),
    )
    assert next(frames.each(clip(path))).image.shape == (64, 48, 3)


def test_videos_in_other_colours(tmp_path):
    """BT.2020 primaries, as phones record HDR; and HLG, which must not be clipped."""
    colours = ((200, 60, 50), (60, 160, 70), (128, 128, 128))
    wide = ((0.67345, 0.27904, -0.00193), (0.16567, 0.67534, 0.02998), (0.12505, 0.04561, 0.79686))
    stored = np.rint(tiny.values_in(colours, wide)).astype(np.uint8)
    flat = [np.broadcast_to(one, (32, 32, 3)).copy() for one in stored]
    path = video(tmp_path / "a.mkv", flat, "ffv1", "yuv444p", color_primaries=9, color_trc=13)
    for wanted, one in zip(colours, frames.each(clip(path)), strict=True):
        assert abs(one.image[16, 16].astype(int) - wanted).max() <= 8
    greys = [np.full((32, 32, 3), value, np.uint8) for value in (60, 128, 190, 230, 255)]
    path = video(tmp_path / "b.mkv", greys, "ffv1", "yuv444p", color_primaries=9, color_trc=18)
    found = [int(one.image[16, 16, 0]) for one in frames.each(clip(path))]
    assert min(np.diff(found)) > 8 and found[-1] >= 250


def bad_video(name: str, folder: Path) -> Path:
    path = folder / "a.mp4"
    pictures = [view(k) for k in range(12)]
    if name == "cut":
        path.write_bytes(video(folder / "b.mp4", pictures).read_bytes()[:3000])
    elif name == "link":
        path.symlink_to(video(folder / "b.mp4", pictures))
    elif name == "thumb":
        video(path, [np.zeros((8, 8, 3), np.uint8)])
    elif name == "sound":
        av = pytest.importorskip("av")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    else:
        Image.fromarray(view(0)).save(folder / "0.png")
        path.write_bytes(
            {
                "empty": b"",
                "text": b"no video at all" * 30,
                "playlist": b"#EXTM3U\n#EXTINF:1,\n%s\n" % str(folder / "b.mp4").encode(),
                "list": b"ffconcat version 1.0\nfile 0.png\n",
            }[name]
        )
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut", "damaged"),
        ("empty", "empty"),
        ("text", "damaged, or none"),
        ("link", "symbolic"),
        ("thumb", "at least 16"),
        ("sound", "no video"),
        ("playlist", "none that"),
        ("list", "none that"),
    ],
)
def test_bad_videos_are_refused_with_a_reason(tmp_path, name, reason):
    pytest.importorskip("av")
    with pytest.raises(ImageError, match=reason):
        list(frames.each(clip(bad_video(name, tmp_path))))


def test_a_video_that_breaks_gives_the_frames_before_and_says_so(tmp_path):
    path = video(tmp_path / "a.avi", [view(k) for k in range(40)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told = []
    found = list(frames.each(clip(path), bad=lambda path, error: told.append(str(error))))
    assert 5 < len(found) < 40
    assert len(told) == 1 and "of 40 frames" in told[0] and "are used" in told[0]
    path = video(tmp_path / "b.mkv", [view(k) for k in range(40)], "mjpeg", "yuvj420p")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    assert len(list(frames.each(clip(path), bad=lambda path, error: told.append(error)))) > 5


def test_large_and_long_videos_are_refused(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4", [view(k) for k in range(20)])
    for name, value, reason in (
        ("MAX_BYTES", 1000, "limit is 1,000"),
        ("MAX_SECONDS", 1, "minutes"),
        ("MAX_FRAMES", 10, "more than 10 frames"),
    ):
        with monkeypatch.context() as patch, pytest.raises(ImageError, match=reason):
            patch.setattr(frames, name, value)
            list(frames.each(clip(path), bad=None))


def test_a_video_without_its_reader_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # as Python does for what is not there
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    with pytest.raises(NotInstalled, match=r"PyAV.*pip install 'viewsynth\[video\]'"):
        list(frames.each(clip(tmp_path / "a.mp4")))


# ---- crops of an entry ---------------------------------------------------------------------------


def job(root: Path, **data) -> Job:
    config = Config()
    config = Config(data=type(config.data)(root=root, **data))
    return Job(root.parent / "run", root, config, "cpu", {}, {}, {})


def entry(*samples: Sample) -> manifest.Entry:
    (one,) = manifest.entries(list(samples))
    return one


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    asked = [
        shots.Simple(name=f"s{turn}", elevation=5, azimuth=turn, height=200)
        for turn in range(0, 360, 30)
    ]
    return [picture.image for picture in shots.draw(1, seed=2, shots=asked)]


@pytest.fixture(scope="module")
def tools(pose_model, detector):
    return SimpleNamespace(detector=detector, pose_model=pose_model)


def test_the_best_frames_of_a_folder_are_one_person(tmp_path, drawn, tools):
    mixed = [picture for one in drawn for picture in (one, blurred(one, 3))]
    sample = tracklet(tmp_path / "root" / "p" / "t1", mixed)
    sample.paths[4].write_bytes(b"broken")
    one = entry(sample)
    sample.paths[6].unlink()
    sample.paths[8].write_bytes(sample.paths[10].read_bytes())  # another picture since
    groups, rejects = gather.crops(one, job(tmp_path / "root"), tools)
    (group,) = groups
    assert len(group.samples) == 8 == len({part.name for part in group.samples})
    for part, digest in zip(group.samples, group.sha256, strict=True):
        (path,) = part.paths
        assert part.pid == "p" and part.outfit == "t1" and part.name == f"p/t1/{path.name}"
        assert int(path.stem) % 2 == 0 and digest == sha256(path)  # none is blurred
    assert group.samples == sorted(group.samples, key=lambda part: part.paths)
    told = {reject.source: reject for reject in rejects}
    assert set(told) == {"p/t1/0004.png", "p/t1/0006.png", "p/t1/0008.png"}
    assert told["p/t1/0006.png"].kind == "fault" and told["p/t1/0004.png"].kind == "quality"
    assert "changed" in told["p/t1/0008.png"].reason


def test_the_best_frames_of_a_video_are_one_person(tmp_path, drawn, tools):
    """A street scene, of which some frames show nobody and one shows two."""
    scene = np.full((240, 400, 3), 150, np.uint8)
    pictures = []
    for number, one in enumerate(drawn[:4]):
        small = Image.fromarray(one).resize((70, 200))
        here = Image.fromarray(scene)
        here.paste(small, (40 + 12 * number, 20))
        pictures += [np.asarray(here), scene][: 2 - number % 2]
        if number == 2:
            here.paste(small, (300, 20))
            pictures.append(np.asarray(here))
    (tmp_path / "root" / "p").mkdir(parents=True)
    path = video(tmp_path / "root" / "p" / "walk.mp4", pictures)
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


def test_a_video_that_cannot_be_read_yet_is_tried_again(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / "a.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    one = entry(clip(path))
    monkeypatch.setitem(sys.modules, "av", None)
    groups, (reject,) = gather.crops(one, job(tmp_path / "root"), None)
    assert not groups and reject.kind == "fault" and "viewsynth[video]" in reject.reason
    assert reject.source == "a.mp4"


def test_a_heic_that_cannot_be_read_yet_is_tried_again(tmp_path, monkeypatch):
    (tmp_path / "root").mkdir()
    path = tmp_path / "root" / "a.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    one = entry(Sample(paths=(path,), pid="a", name="a.jpg"))
    groups, (reject,) = gather.crops(one, job(tmp_path / "root"), None)
    assert not groups and reject.kind == "fault" and "viewsynth[heif]" in reject.reason


def test_the_refiner_finds_the_frames_of_a_video_again(tmp_path, drawn):
    """`_photos` reads what the person's sources say."""
    (tmp_path / "root").mkdir()
    path = video(
        tmp_path / "root" / "a.mp4",
        [np.asarray(Image.fromarray(d).resize((80, 200))) for d in drawn[:4]],
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
    refiner = SimpleNamespace(fitted=lambda picture: picture)
    found = chunk._photos(person, job(tmp_path / "root"), refiner)
    for number, picture in zip((3, 1), found, strict=True):
        assert (picture == frames.read(path, number, (4, 10, 70, 190))).all()
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(gather.UnusableError, match="changed"):
        chunk._photos(person, job(tmp_path / "root"), refiner)


def test_frames_survive_the_list_of_a_run(tmp_path):
    sample = tracklet(tmp_path / "t", [view(k) for k in range(3)])
    saved = manifest.Frozen({}, tmp_path, [entry(sample)])
    (tmp_path / "run").mkdir()
    manifest.save(tmp_path / "run", saved)
    (back,) = manifest.read(tmp_path / "run").people
    assert back == saved.people[0] and len(back.sha256) == 3


def test_a_tracklet_through_generate(tmp_path, drawn):
    """From frames to a person whose sources are those frames."""
    try:
        models = {"pose": weights.pose_model(), "detector": weights.detector_model()}
    except weights.MissingWeightsError as error:
        pytest.skip(f"the pose models cannot be had: {error}")
    root = tmp_path / "root"
    folder = tracklet(root / "p" / "t1", drawn[::3])
    even = [np.asarray(Image.fromarray(one).resize((80, 200))) for one in drawn[::3]]
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
