# SPDX-License-Identifier: Apache-2.0
"""Tests of every data set in its own layout; `test_layouts.py` has the special cases of each."""

from __future__ import annotations

import importlib
import json
import logging
import os
import random
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import releases
from own_pictures import refusal
from releases import content, reasons

from viewsynth import data

NAMES = data.names()
RELEASED = [name for name in NAMES if name != "folder"]  # those with a layout of their own
TRAIN = {
    "ag_reid_challenge": "bounding_box_train",
    "ag_reid_v1": "bounding_box_train",
    "ag_reid_v2": "train_all",
    "agid": "train",
    "cargo": "train",
    "cvpair": "train",
    "g2aps_reid": "bounding_box_train",
    "lagper": "bounding_box_train",
    "market1501": "bounding_box_train",
    "world": "train",
}
# Data sets that a folder cannot tell apart: they read each other's releases.
ALIKE = {"world": "cargo or world", "agid": "agid or cvpair", "cvpair": "agid or cvpair"}
every = pytest.mark.parametrize("name", NAMES)
released = pytest.mark.parametrize("name", RELEASED)


def module(name: str):
    return importlib.import_module(f"viewsynth.data.{name}")


@every
def test_load(name, release):
    dataset = data.load(name, release(name))
    samples = dataset.samples
    assert len(samples) == releases.IMAGES[name] and dataset.name == name
    assert samples == sorted(samples, key=lambda s: (s.pid, s.name))
    assert len({s.name for s in samples}) == len({s.paths for s in samples}) == len(samples)
    for sample in samples:
        assert name == "folder" or sample.pid.startswith(f"{name}/")
        assert sample.paths == (dataset.root / sample.name,) and sample.paths[0].is_file()
        assert sample.camid.isdigit() and not Path(sample.name).is_absolute()
    assert {s.split for s in samples} == {"train", "query", "gallery"}
    assert dataset.train == [s for s in samples if s.split == "train"]
    assert not {s.pid for s in dataset.train} & {s.pid for s in samples if s.split != "train"}
    assert not dataset.warnings and all(r.kind == "skipped" for r in dataset.rejects)
    assert content(dataset) == content(data.load(name, dataset.root))


@every
def test_protocols_count_their_valid_queries(name, release):
    dataset = data.load(name, release(name))
    assert dataset.protocols
    for key, protocol in dataset.protocols.items():
        assert key == protocol.name and protocol.query and protocol.gallery
        assert all(s.split == "query" for s in protocol.query)
        assert all(s.split == "gallery" for s in protocol.gallery)
        valid = 0
        for query in protocol.query:
            camera = getattr(query, protocol.camera)
            valid += any(
                s.pid == query.pid and getattr(s, protocol.camera) != camera
                for s in protocol.gallery
            )
        assert protocol.valid_queries == valid > 0


@every
def test_the_name_of_the_root_does_not_matter(name, release):
    root = release(name)
    expected = content(data.load(name, root))
    for place in ("0001_c2_x", "P0001T0404A1C0F1.jpg", "Cam3_day_1_2", "0012_c0v1_1.jpg", "query"):
        root = root.rename(root.with_name(place))
        assert content(data.load(name, root)) == expected


@released
@pytest.mark.parametrize("depth", [1, 2])
def test_a_release_may_be_nested(name, depth, release, tmp_path):
    expected = data.load(name, release(name))
    root = tmp_path / "outer"
    shutil.copytree(
        inner(name, expected.root, depth), root / "/".join("ab"[: folders_around(name, depth)])
    )
    releases.put(root, "__MACOSX/x.jpg")
    shutil.copytree(expected.root, root / "__MACOSX" / "c")  # as in a Mac's archives
    assert content(data.load(name, root)) == content(expected)


def inner(name: str, root: Path, depth: int) -> Path:
    """The folder to nest: AG-ReID.v2 is nested already, with its lists one folder above."""
    return root.parent if name == "ag_reid_v2" else root


def folders_around(name: str, depth: int) -> int:
    """How many folders to put around it."""
    return depth - 1 if name == "ag_reid_v2" else depth


@released
def test_two_releases_side_by_side_are_an_error(name, release, tmp_path):
    root = module(name).load(release(name)).root
    for place in "ab":
        shutil.copytree(root, tmp_path / "both" / place)
    with pytest.raises(ValueError, match=r"holds several releases: .*both/a, .*both/b; give one"):
        data.load(name, tmp_path / "both")
    assert data.load(name, tmp_path / "both" / "a").samples


@every
def test_the_order_of_directories_does_not_matter(name, release, monkeypatch):
    root = release(name)
    folder = data.load(name, root).train[0].paths[0].parent
    for stray in "hgfedcba":
        (folder / f"{stray}.jpg").write_bytes(b"")
    expected = content(data.load(name, root))
    scandir = os.scandir

    @contextmanager
    def shuffled(path):
        with scandir(path) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
        random.Random(shuffled.seed).shuffle(entries)
        yield iter(entries)

    for shuffled.seed in range(3):
        with monkeypatch.context() as patch:
            patch.setattr("viewsynth.data.layout.os.scandir", shuffled)
            assert content(data.load(name, root)) == expected


@released
@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_an_empty_file_is_a_reject(name, split, release):
    dataset = data.load(name, release(name))
    lost = next(s for s in dataset.samples if s.split == split)
    lost.paths[0].write_bytes(b"")
    less = data.load(name, dataset.root)
    assert [s.name for s in dataset.samples if s != lost] == [s.name for s in less.samples]
    assert reasons(less)[lost.name] == "the file is empty (0 bytes)"
    assert [r.source for r in less.rejects if r.kind != "skipped"] == [lost.name]
    named = any(lost in [*p.query, *p.gallery] for p in dataset.protocols.values())
    if name in releases.LISTS and named:
        assert any("names 1 images that cannot be used" in w for w in less.warnings)
    assert less.fingerprint != dataset.fingerprint


@released
def test_links_and_pipes_are_refused(name, release, tmp_path):
    dataset = data.load(name, release(name))
    first, second = (s for s in dataset.train[:2])
    first.paths[0].rename(tmp_path / "outside.jpg")
    first.paths[0].symlink_to(tmp_path / "outside.jpg")
    second.paths[0].unlink()
    os.mkfifo(second.paths[0])
    less = data.load(name, dataset.root)
    assert "symbolic" in reasons(less)[first.name] and "regular" in reasons(less)[second.name]
    assert len(less.samples) == len(dataset.samples) - 2
    folder = dataset.root / dataset.train[-1].name.partition("/")[0]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    if name == "cp2108":  # all its images are in this folder
        assert "none of 0 images" in refusal(data.load, name, dataset.root)
        return
    less = data.load(name, dataset.root)
    assert "symbolic" in reasons(less)[folder.name] and not less.train


@released
def test_other_files_are_counted(name, release):
    dataset = data.load(name, release(name))
    folder = dataset.train[0].paths[0].parent
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "notes").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "._0002_c1s1_000451_03.jpg").write_bytes(b"x")
    more = data.load(name, dataset.root)
    assert more.samples == dataset.samples and more.fingerprint == dataset.fingerprint
    (counted,) = (r for r in more.rejects if r.source == ".")
    assert counted.kind == "skipped" and counted.scores == {"count": 2}
    assert "1 .db" in counted.reason and "1 without extension" in counted.reason


@released
def test_an_unknown_name_is_a_reject(name, release):
    dataset = data.load(name, release(name))
    folder = dataset.train[0].paths[0].parent
    (folder / "kitten.jpg").write_bytes(b"x")
    (folder / "kitt\ren.jpg").write_bytes(b"x")
    more = data.load(name, dataset.root)
    assert more.samples == dataset.samples
    rejects = [r for r in more.rejects if "kitt" in r.source]
    assert len(rejects) == 2 and all(r.source.isprintable() for r in rejects)


@released
def test_an_identity_in_train_and_test_is_a_warning(name, release, caplog):
    dataset = data.load(name, release(name))
    leak = next(p for p in dataset.protocols.values()).query[0]
    if name == "cp2108":
        place = leak.paths[0].with_name(leak.paths[0].name.replace(".", "_1."))
        with (dataset.root / "split_v100" / "train_v100.txt").open("a") as file:
            file.write(f"{place.name}\n")
    else:
        place = dataset.root / TRAIN[name] / leak.name.partition("/")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(leak.paths[0], place)
    if name == "world":
        row = releases.world_row(place.relative_to(dataset.root).as_posix())
        with (dataset.root / "truth.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    with caplog.at_level(logging.WARNING):
        (warning,) = data.load(name, dataset.root).warnings
    assert f"1 identities are in train and in query or gallery, e.g. {leak.pid}" in warning
    assert warning in caplog.text


@released
@pytest.mark.parametrize("split", ["query", "gallery"])
def test_an_empty_query_or_gallery_is_a_warning(name, split, release):
    dataset = data.load(name, release(name))
    for sample in dataset.samples:
        if sample.split == split:
            sample.paths[0].unlink()
    less = data.load(name, dataset.root)
    assert not less.protocols and len(less.train) == len(dataset.train)
    assert any(f"no {split} " in w and "no protocol" in w for w in less.warnings)


@every
def test_errors_of_a_wrong_root(name, release, tmp_path):
    with pytest.raises(FileNotFoundError, match="data.root.*none"):
        data.load(name, tmp_path / "none")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises((FileNotFoundError, ValueError), match="data.root.*file"):
        data.load(name, tmp_path / "file")
    (tmp_path / "empty" / "fotos").mkdir(parents=True)
    expected = ", ".join(module(name).PARTS) or "metadata.csv"
    with pytest.raises(ValueError, match=f"expected .*{expected}") as error:
        data.load(name, tmp_path / "empty")
    assert name == "folder" or f"is not {name}: " in str(error.value)
    assert name == "folder" or "found fotos" in str(error.value)


@released
def test_the_error_names_the_data_set_that_it_looks_like(name, release):
    root = release(name)
    for wrong in RELEASED:
        if wrong in ALIKE.get(name, name) and (wrong, name) != ("world", "cargo"):
            continue
        message = refusal(data.load, wrong, root)
        assert re.search(rf"is not {wrong}: .*looks like .*\b{name}\b", message)


@released
def test_a_data_set_read_as_a_folder_is_a_warning(name, release):
    root = module(name).load(release(name)).root
    looks = f"it looks like {ALIKE.get(name, name)}"
    with pytest.raises(ValueError, match=rf"two ways; {looks} \(--data.name\).*--data.form"):
        data.load("folder", root)
    warnings = data.load("folder", root, data.Reading(form="folders")).warnings
    assert any(looks in warning for warning in warnings)


@released
@pytest.mark.parametrize("option", ["form", "box", "elevation"])
def test_a_released_data_set_takes_no_option_of_a_folder(name, option, release):
    value = {"form": "table", "box": "xywh", "elevation": "pitch"}[option]
    message = refusal(data.load, name, release(name), data.Reading(**{option: value}))
    assert message.startswith(f"--data.{option}={value} ") and name in message


@released
def test_unknown_names_alone_are_an_error(name, release):
    dataset = data.load(name, release(name))
    for number, sample in enumerate(dataset.samples):
        sample.paths[0].rename(sample.paths[0].with_name(f"{number}.jpg"))
    message = refusal(data.load, name, dataset.root)
    assert f"is not {name}: " in message and module(name).EXAMPLE in message


@every
def test_the_fingerprint_depends_on_names_and_sizes(name, release, tmp_path):
    dataset = data.load(name, release(name))
    shutil.copytree(dataset.root, tmp_path / "moved")
    for file in releases.LISTS.get(name, ()):
        if not (tmp_path / "moved" / file).exists():
            shutil.copy(dataset.root.parent / file, tmp_path / "moved")
    assert data.load(name, tmp_path / "moved").fingerprint == dataset.fingerprint
    path = dataset.samples[0].paths[0]
    path.write_bytes(path.read_bytes() + b"x")
    larger = data.load(name, dataset.root).fingerprint
    path.unlink()
    fewer = data.load(name, dataset.root).fingerprint
    assert len({dataset.fingerprint, larger, fewer}) == 3 and len(larger) == 16


@pytest.mark.parametrize("name", [name for name in RELEASED if name != "world"])
def test_published_counts_are_compared(name, release, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = data.load(name, release(name))
    found = data.counts(dataset)
    assert dataset.published and {p.what for p in dataset.published} <= set(found)
    assert all(p.source and p.count > 0 for p in dataset.published)
    some = next(p for p in dataset.published if p.what.endswith("images"))
    line = f"{name}: {some.what}: {found[some.what]} here, {some.count} published"
    assert f"{line} ({some.source})" in caplog.text
    assert len(caplog.records) == len(data.differences(dataset)) >= len(dataset.published) - 1
