# SPDX-License-Identifier: Apache-2.0
"""Pixels: a cache that survives kills and concurrent processes; equal images without it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from viewsynth.data import images
from viewsynth.records import Sample
from viewsynth.reid import pixels
from viewsynth.reid.augment import augment
from viewsynth.reid.batches import stream
from viewsynth.reid.options import Augmentation
from viewsynth.reid.pixels import Pixels
from viewsynth.reid.pool import build
from viewsynth.reid.sampler import Plan
from viewsynth.runtime.images import stretched

SIZE = (32, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(150):
        height, width = rng.integers(3, 60, 2)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(image).save(where / f"{number:03d}.png")
    return where


@pytest.fixture
def samples(folder):
    return listed(folder)


def listed(folder: Path) -> list[Sample]:
    return [
        Sample(paths=(path,), pid=f"{n // 5:02d}", name=path.name)
        for n, path in enumerate(sorted(folder.glob("*.png")))
    ]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 16)


def state(cache: Path) -> dict[str, tuple]:
    """Time and content of each file of a cache, without the digests of the images."""
    files = [path for path in cache.rglob("*") if path.is_file()]
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
        if path.parent.name != pixels.HASHES
    }


def test_images_equal_those_of_the_files(samples, tmp_path):
    expected = np.stack([stretched(images.read(s.paths[0], least=1), SIZE) for s in samples])
    cached, read = Pixels.open(samples, SIZE, tmp_path), Pixels.open(samples, SIZE, threads=2)
    wanted = np.random.default_rng(1).integers(0, 150, 64)
    for opened in (cached, read):
        found = opened.get(wanted)
        assert found.dtype == torch.uint8 and found.shape == (64, *SIZE, 3)
        assert (found.numpy() == expected[wanted]).all()
        assert opened.usable.all() and opened.samples == samples and not opened.rejects
    assert cached.get([]).shape == (0, *SIZE, 3)


def test_boxes_are_cropped(folder):
    big = max(folder.glob("*.png"), key=lambda path: min(Image.open(path).size))
    box = (2, 3, 20, 30)
    part = Sample(paths=(big,), pid="a", name="part", box=box)
    found = Pixels.open([part], SIZE).get([0])[0].numpy()
    assert (found == stretched(np.asarray(Image.open(big))[3:30, 2:20], SIZE)).all()


def test_a_cache_is_written_once_and_completed_after_a_kill(samples, tmp_path):
    Pixels.open(samples, SIZE, tmp_path)
    before = state(tmp_path)
    assert len(before) == 10 and all(name.endswith(".safetensors") for name in before)
    Pixels.open(samples, SIZE, tmp_path)
    assert state(tmp_path) == before
    # After a kill, blocks are missing and a temporary file is left; a power cut truncates files.
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-5])
    files[2].write_bytes(b"")
    (files[0].parent / ".tmp-left").write_bytes(b"half")
    opened = Pixels.open(samples, SIZE, tmp_path)
    after = state(tmp_path)
    assert {name: data for name, (_, data) in after.items() if name != ".tmp-left"} == {
        name: data for name, (_, data) in before.items()
    }
    assert sum(after[name] == before[name] for name in before) == 7
    assert (opened.get(range(150)) == Pixels.open(samples, SIZE).get(range(150))).all()


def test_blocks_depend_on_files_size_and_list(samples, folder, tmp_path):
    Pixels.open(samples, SIZE, tmp_path / "cache")
    first = set(state(tmp_path / "cache"))
    changed = tmp_path / "000.png"
    Image.fromarray(np.full((40, 30, 3), 7, np.uint8)).save(changed)
    other = [Sample(paths=(changed,), pid="00", name="000.png"), *samples[1:]]
    assert (Pixels.open(other, SIZE, tmp_path / "cache").get([0]) == 7).all()
    assert len(set(state(tmp_path / "cache")) - first) == 1  # the others are shared
    Pixels.open(samples[:20], SIZE, tmp_path / "cache")
    assert len(set(state(tmp_path / "cache"))) == 12
    assert Pixels.open(samples, (16, 16), tmp_path / "cache").get([3]).shape == (1, 16, 16, 3)


def fill(folder: Path, cache: Path, start) -> None:
    pixels.BLOCK = 16
    torch.set_num_threads(1)
    start.wait()
    opened = Pixels.open(listed(folder), SIZE, cache)
    if not (opened.get(range(150)) == Pixels.open(listed(folder), SIZE).get(range(150))).all():
        os._exit(3)


def test_two_processes_fill_one_cache(folder, tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    both = [context.Process(target=fill, args=(folder, tmp_path, start)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(state(tmp_path)) == 10


def with_broken(samples, where, count):
    """The samples with `count` unreadable images."""
    changed = list(samples)
    for n in range(count):
        path = where / f"{n}.png"
        path.write_bytes(b"no image" if n % 2 else samples[n].paths[0].read_bytes()[:60])
        changed[7 + 20 * n] = replace(samples[7 + 20 * n], paths=(path,))
    return changed


@pytest.mark.parametrize("cached", [True, False])
def test_unreadable_images_are_left_out(samples, tmp_path, cached):
    cache = tmp_path / "cache" if cached else None
    changed = with_broken(samples, tmp_path, 1)
    opened = Pixels.open(changed, SIZE, cache)
    assert np.flatnonzero(~opened.usable).tolist() == [7] and opened.samples == [
        *samples[:7],
        *samples[8:],
    ]
    assert [r.source for r in opened.rejects] == [str(tmp_path / "0.png")]
    whole = Pixels.open(samples, SIZE)
    assert (opened.get([6, 7, 148]) == whole.get([6, 8, 149])).all()
    pool = build(changed).keep(opened.usable)  # the order is unchanged
    assert pool.samples == opened.samples
    with pytest.raises(ValueError, match="2 of 150 images are unreadable, at most 1%.*0.png"):
        Pixels.open(with_broken(samples, tmp_path, 2), SIZE, cache)
    if cached:  # repaired, with the same file size
        data = samples[7].paths[0].read_bytes()
        (tmp_path / "gone.png").write_bytes(b"\0" * len(data))
        changed[7] = replace(samples[7], paths=(tmp_path / "gone.png",))
        assert not Pixels.open(changed, SIZE, cache).usable.all()
        changed[7].paths[0].write_bytes(data)
        assert Pixels.open(changed, SIZE, cache).usable.all()


def test_a_file_that_disappears_during_training(samples, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(samples[0].paths[0].read_bytes())
    opened = Pixels.open([Sample(paths=(path,), pid="a", name="a")], SIZE)
    path.unlink()
    with pytest.raises(OSError, match="a.png was readable at the start, but now: the file can"):
        opened.get([0])


def test_samples_that_cannot_be_opened(samples):
    with pytest.raises(ValueError, match="no images to read"):
        Pixels.open([], SIZE)
    track = Sample(paths=samples[0].paths * 2, pid="a", name="track")
    with pytest.raises(ValueError, match="one image in each sample, track has 2"):
        Pixels.open([track], SIZE)


@pytest.mark.parametrize("cached", [True, False])
def test_prefetch_keeps_the_order_and_stops_its_threads(samples, tmp_path, cached):
    opened = Pixels.open(samples, SIZE, tmp_path if cached else None)
    batches = [np.random.default_rng(n).integers(0, 150, 8) for n in range(30)]
    for threads in (1, 3):
        found = list(opened.prefetch(iter(batches), threads))
        assert len(found) == 30
        assert all((a == opened.get(b)).all() for a, b in zip(found, batches, strict=True))
    taken = []
    some = opened.prefetch((taken.append(n) or batch for n, batch in enumerate(batches)), 1)
    next(some)
    assert 1 < len(taken) < 10  # a few batches ahead
    some.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("pixels")]
    with pytest.raises(IndexError):
        list(opened.prefetch([np.array([999])]))


def test_stream_follows_the_plan_resumed_or_in_parts(samples, tmp_path):
    pool = build(samples)
    opened = Pixels.open(pool.samples, SIZE, tmp_path)
    plan = Plan(pool=pool, people=4, pictures=2, steps=6, seed=5)
    whole = list(stream(plan, opened, Augmentation(), range(6)))
    assert len(whole) == 6
    for step, batch in enumerate(whole):
        chosen = plan.batch(step)
        assert batch.names == [pool.samples[n].name for n in chosen]
        assert batch.labels.tolist() == pool.labels[chosen].tolist()
        assert batch.weights.dtype == batch.images.dtype == torch.float32
        assert batch.synthetic.dtype == torch.bool and batch.views.dtype == torch.int64
        assert (
            batch.images == augment(opened.get(chosen), 5, step, range(8), Augmentation())
        ).all()
        assert batch.to("cpu").names == batch.names
    resumed = list(stream(plan, opened, Augmentation(), range(4, 6)))
    assert all((a.images == b.images).all() for a, b in zip(whole[4:], resumed, strict=True))
    halves = [list(stream(plan, opened, Augmentation(), range(6), plan.part(n, 2))) for n in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert (batch.images == torch.cat([first.images, second.images])).all()
        assert batch.names == first.names + second.names


def test_stretched_is_height_by_width():
    image = np.zeros((40, 20, 3), np.uint8)
    image[:20] = 200
    small = stretched(image, (8, 16))
    assert small.shape == (8, 16, 3) and small.dtype == np.uint8
    assert (small[:2] == 200).all() and (small[-2:] == 0).all()
    assert (stretched(image[..., 0] > 0, (8, 16))[:2] == 255).all()
