# SPDX-License-Identifier: Apache-2.0
"""Frames of tracklets and videos: how they are read, and which ones are selected."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_profiles as tiny
from own_pictures import refusal
from PIL import Image
from tiny_videos import blurred, clip, tracklet, turned, video, view

from viewsynth.data import frames
from viewsynth.data.images import ImageError, NotInstalled

RNG = np.random.default_rng(0)


def selected(images: list[np.ndarray], most: int = 8) -> list[int]:
    return frames.select([frames._rate(image) for image in images], most)


# ---- selection -----------------------------------------------------------------------------------


def test_blurred_frames_are_not_selected():
    sharp = [view(k) for k in range(10)]
    mixed = [image for one in sharp for image in (blurred(one), one)]
    assert all(k % 2 for k in selected(mixed))
    slightly = [image for one in sharp for image in (one, blurred(one, 1.5))]
    assert not any(k % 2 for k in selected(slightly))


def test_of_near_duplicates_one_is_selected():
    views = [view(k) for k in range(8)]
    noisy = [(one + RNG.integers(-3, 4, one.shape)).clip(0, 255).astype(np.uint8) for one in views]
    many = [views[0]] * 20 + views + noisy
    found = selected(many)
    kinds = {0 if k < 20 else (k - 20) % 8 for k in found}
    assert len(found) == 8 and kinds == set(range(8))
    brighter = [np.minimum(one.astype(int) + 25, 255).astype(np.uint8) for one in views]
    assert {k % 8 for k in selected(views + brighter)} == set(range(8))


def test_larger_frames_are_selected():
    views = [view(k, height) for k in range(10) for height in (64, 192)]
    assert all(k % 2 for k in selected(views))


def test_small_sets_are_selected_whole_and_the_order_does_not_matter():
    views = [view(0), view(0), blurred(view(1)), view(2)]
    assert sorted(selected(views)) == [0, 1, 2, 3]
    many = [blurred(view(k), k % 4) for k in range(30)]
    order = RNG.permutation(30)
    assert {order[k] for k in selected([many[n] for n in order])} == set(selected(many))
    assert selected(many, 16)[:8] == selected(many, 8)
    assert selected([], 8) == []


# ---- the frames of a sample ----------------------------------------------------------------------


def test_frames_of_images(tmp_path):
    sample = tracklet(tmp_path / "t", [view(k) for k in range(3)], box=(4, 10, 60, 120))
    found = list(frames.each(sample))
    assert [one.path for one in found] == list(sample.paths)
    assert all((one.image == view(k)[10:120, 4:60]).all() for k, one in enumerate(found))
    sample.paths[1].write_bytes(b"broken")
    with pytest.raises(ImageError):
        list(frames.each(sample))
    failed = []
    assert len(list(frames.each(sample, bad=lambda path, error: failed.append(path)))) == 2
    assert failed == [sample.paths[1]]


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


def test_long_videos_give_evenly_spaced_frames(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4", [np.full((32, 16, 3), k, np.uint8) for k in range(200)])
    numbers = [one.number for one in frames.each(clip(path))]
    assert numbers == list(range(0, 200, 2))
    monkeypatch.setattr(frames, "LOOK", 30)
    assert [one.number for one in frames.each(clip(path))] == list(range(0, 200, 8))
    monkeypatch.setattr(frames, "MEMORY", 20 * 32 * 16 * 3)  # room for twenty frames
    assert [one.number for one in frames.each(clip(path))] == list(range(0, 200, 16))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_videos_of_phones_are_upright(tmp_path, degrees):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48] = (220, 30, 30), (30, 200, 30), 120
    path = turned(video(tmp_path / "a.mp4", [image] * 2), degrees)
    expected = np.rot90(image, -degrees // 90)
    found = next(frames.each(clip(path))).image
    assert found.shape == expected.shape
    assert abs(found.astype(int) - expected).mean() < 8


def test_videos_with_oblong_pixels(tmp_path):
    path = video(
        tmp_path / "a.mp4",
        [np.full((64, 32, 3), 90, np.uint8)],
        sample_aspect_ratio=Fraction(3, 2),
    )
    assert next(frames.each(clip(path))).image.shape == (64, 48, 3)


def test_videos_in_other_colour_spaces(tmp_path):
    """BT.2020 primaries, in which phones record HDR; and HLG, which must not be clipped."""
    colours = ((200, 60, 50), (60, 160, 70), (128, 128, 128))
    wide = ((0.67345, 0.27904, -0.00193), (0.16567, 0.67534, 0.02998), (0.12505, 0.04561, 0.79686))
    stored = np.rint(tiny.values_in(colours, wide)).astype(np.uint8)
    flat = [np.broadcast_to(one, (32, 32, 3)).copy() for one in stored]
    path = video(tmp_path / "a.mkv", flat, "ffv1", "yuv444p", color_primaries=9, color_trc=13)
    for expected, one in zip(colours, frames.each(clip(path)), strict=True):
        assert abs(one.image[16, 16].astype(int) - expected).max() <= 8
    greys = [np.full((32, 32, 3), value, np.uint8) for value in (60, 128, 190, 230, 255)]
    path = video(tmp_path / "b.mkv", greys, "ffv1", "yuv444p", color_primaries=9, color_trc=18)
    found = [int(one.image[16, 16, 0]) for one in frames.each(clip(path))]
    assert min(np.diff(found)) > 8 and found[-1] >= 250


def bad_video(name: str, folder: Path) -> Path:
    path = folder / "a.mp4"
    images = [view(k) for k in range(12)]
    if name == "cut":
        path.write_bytes(video(folder / "b.mp4", images).read_bytes()[:3000])
    elif name == "link":
        path.symlink_to(video(folder / "b.mp4", images))
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
        ("text", "damaged, or of a format"),
        ("link", "symbolic"),
        ("thumb", "at least 16"),
        ("sound", "no video"),
        ("playlist", "FFmpeg does not know"),
        ("list", "FFmpeg does not know"),
    ],
)
def test_bad_videos_are_refused_with_a_reason(tmp_path, name, reason):
    pytest.importorskip("av")
    sample = clip(bad_video(name, tmp_path))
    assert reason in refusal(list, frames.each(sample), kind=ImageError)


def test_a_damaged_video_gives_the_frames_before_and_an_error(tmp_path):
    path = video(tmp_path / "a.avi", [view(k) for k in range(40)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    errors = []
    found = list(frames.each(clip(path), bad=lambda path, error: errors.append(str(error))))
    assert 5 < len(found) < 40
    assert len(errors) == 1 and "of 40 frames" in errors[0] and "are used" in errors[0]
    path = video(tmp_path / "b.mkv", [view(k) for k in range(40)], "mjpeg", "yuvj420p")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    path.write_bytes(data)
    assert len(list(frames.each(clip(path), bad=lambda path, error: errors.append(error)))) > 5


def test_large_and_long_videos_are_refused(tmp_path, monkeypatch):
    path = video(tmp_path / "a.mp4", [view(k) for k in range(20)])
    for name, value, reason in (
        ("MAX_BYTES", 1000, "limit is 1,000"),
        ("MAX_SECONDS", 1, "minutes"),
        ("MAX_FRAMES", 10, "more than 10 frames"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(frames, name, value)
            assert reason in refusal(list, frames.each(clip(path)), kind=ImageError)


def test_a_video_without_its_reader_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)  # as Python marks a missing module
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    message = refusal(list, frames.each(clip(tmp_path / "a.mp4")), kind=NotInstalled)
    assert "PyAV" in message and "pip install 'viewsynth[video]'" in message
