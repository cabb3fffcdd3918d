# SPDX-License-Identifier: Apache-2.0
"""Features: blocks independent of order and processes, and files of other programs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tiny_videos import video
from transformers import ResNetConfig, ResNetModel

from viewsynth.data import images
from viewsynth.evaluate import features
from viewsynth.records import Sample
from viewsynth.reid import encoders
from viewsynth.runtime.images import resized

SIZE = (32, 16)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "resnet"
    torch.manual_seed(0)
    ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ).save_pretrained(folder)
    return encoders.load(str(folder), SIZE)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Twenty images; three of them are one tracklet, and one sample is a box in an image."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(20):
        picture = rng.integers(0, 256, (36, 20, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number:02d}.png")
    found = [
        Sample(paths=(folder / f"{number:02d}.png",), pid=str(number), name=f"a/{number:02d}.png")
        for number in range(17)
    ]
    frames = tuple(folder / f"{number}.png" for number in (17, 18, 19))
    found.append(Sample(paths=frames, pid="t", name="b/track"))
    found.append(Sample(paths=found[0].paths, pid="0", name="a/00.png#2", box=(2, 1, 9, 10)))
    return found[::-1]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(features, "BLOCK", 4)


def computed(samples, folder, encoder, threads=1, batch=3, wanted=None):
    wanted = wanted or {sample.name for sample in samples}
    blocks = features.blocks(samples, wanted, folder, encoder, batch)
    features.compute([b for b in blocks if not b.done()], encoder, batch, threads, False)
    return blocks


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.*"))}


def test_features_are_those_of_the_encoder(samples, encoder, tmp_path):
    features.join(computed(samples, tmp_path / "f", encoder), tmp_path / "all.safetensors", encoder)
    names = [sample.name for sample in samples]
    found = features.load(tmp_path / "all.safetensors", names)
    assert found.rows.shape == (19, 16) and (found.model, found.extra) == ("resnet", 0)
    for sample, row in zip(samples, found.rows, strict=True):
        rows = []
        for path in sample.paths:
            image = np.asarray(Image.open(path))
            if sample.box:
                image = image[1:10, 2:9]  # smaller than anything reconstruction would take
            pixels = torch.from_numpy(resized(image, SIZE).copy())[None]
            rows.append(encoder.encode(pixels)[0].numpy())
        expected = rows[0]
        if len(rows) > 1:  # a tracklet: the mean of directions
            expected = np.mean([row / np.linalg.norm(row) for row in rows], 0)
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-5)


def test_features_are_independent_of_order_threads_and_interruptions(samples, encoder, tmp_path):
    undisturbed = computed(samples, tmp_path / "one", encoder)
    assert len(undisturbed) == 5
    some = {"a/05.png", "a/06.png"}
    first = computed(samples[::-1], tmp_path / "two", encoder, threads=3, wanted=some)
    assert 1 <= len(first) <= 2  # other blocks are not needed for these
    (tmp_path / "two" / "000004.safetensors").write_bytes(b"cut")
    computed(samples, tmp_path / "two", encoder, threads=3)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_blocks_of_other_models_or_settings_are_recomputed(samples, encoder, tmp_path):
    blocks = computed(samples, tmp_path, encoder)
    assert all(block.done() for block in blocks)
    names = {sample.name for sample in samples}
    other = features.blocks(samples, names, tmp_path, encoder, batch=2)
    assert not any(block.done() for block in other)
    wide = encoders.Encoder(**(encoder.__dict__ | {"fingerprint": "another"}))
    assert not any(b.done() for b in features.blocks(samples, names, tmp_path, wide, batch=3))
    fewer = [sample for sample in samples if sample.name != "a/00.png"]
    assert not any(b.done() for b in features.blocks(fewer, names, tmp_path, encoder, batch=3))


def test_unreadable_images_are_left_out_and_reported(samples, encoder, tmp_path):
    bad, half = tmp_path / "bad.png", tmp_path / "half.png"
    bad.write_bytes(b"no picture")
    half.write_bytes(samples[-1].paths[0].read_bytes()[:200])
    track = next(sample for sample in samples if sample.name == "b/track")
    mixed = [
        *samples[-2:],
        Sample(paths=(bad,), pid="x", name="c/bad.png"),
        Sample(paths=(half, *track.paths), pid="t", name="c/track"),
    ]
    blocks = computed(mixed, tmp_path / "f", encoder)
    have, rejects = features.readable_samples(blocks)
    assert have == {sample.name for sample in mixed} - {"c/bad.png"}
    assert [reject.source for reject in rejects] == [str(bad), str(half)]
    features.join(blocks, tmp_path / "all.safetensors", encoder)
    features.join(
        computed(samples, tmp_path / "g", encoder), tmp_path / "good.safetensors", encoder
    )
    row, whole = (
        features.load(tmp_path / f"{file}.safetensors", [name]).rows[0]
        for file, name in (("all", "c/track"), ("good", "b/track"))
    )
    cosine = row @ whole / np.linalg.norm(row) / np.linalg.norm(whole)
    assert cosine > 1 - 1e-5  # the unreadable frame is ignored


def test_images_that_became_readable_are_recomputed(samples, encoder, tmp_path, monkeypatch):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    mixed = [*samples[-2:], Sample(paths=(bad,), pid="x", name="c/bad.png")]
    with monkeypatch.context() as strict:
        strict.setattr(images, "MAX_PIXELS", 10)  # as if a decoder were missing
        (block,) = computed(mixed, tmp_path / "f", encoder)
        assert block.done() and features.readable_samples([block])[0] == set()
    assert not block.done()
    (block,) = computed(mixed, tmp_path / "f", encoder)
    have, (reject,) = features.readable_samples([block])
    assert have == {"a/00.png", "a/01.png"} and reject.source == str(bad)
    assert block.done(), "damaged images do not cause another computation"


def test_a_video_has_the_mean_direction_of_its_frames(samples, encoder, tmp_path):
    pictures = [np.asarray(Image.open(sample.paths[0])) for sample in samples[-4:]]
    video(tmp_path / "walk.mkv", pictures, codec="ffv1", pixels="bgr0")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    mixed = (
        *samples[-4:],
        Sample(paths=(tmp_path / "walk.mkv",), pid="v", name="v"),
        Sample(paths=(tmp_path / "bad.mp4",), pid="w", name="w"),
    )
    blocks = computed([replace(s, box=None) for s in mixed], tmp_path / "f", encoder)
    have, (reject,) = features.readable_samples(blocks)
    assert "v" in have and reject.source == str(tmp_path / "bad.mp4") and reject.pid == "w"
    features.join(blocks, tmp_path / "all.safetensors", encoder)
    rows = features.load(tmp_path / "all.safetensors", [s.name for s in mixed[:5]]).rows
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = rows[:4].sum(0) / np.linalg.norm(rows[:4].sum(0))
    assert rows[4] @ expected > 1 - 1e-5


def test_a_model_that_returns_nan_is_refused(samples, encoder, tmp_path):
    class Broken(encoders.Encoder):
        def encode(self, images, views=None):
            return torch.full((len(images), 4), float("nan"))

    broken = Broken(**encoder.__dict__)
    with pytest.raises(ValueError, match="resnet returns NaN or infinity for a/00"):
        computed(samples, tmp_path, broken)


# ---- files of other programs ---------------------------------------------------------------------

NAMES = ["query/Cam1/a.jpg", "query/Cam2/b.jpg", "gallery/Cam3/c.jpg"]


def file(path, rows=None, names=NAMES, about=None, key="features"):
    rows = np.eye(3, 5, dtype=np.float32) + 1 if rows is None else rows
    about = {"names": json.dumps(names)} if about is None else about
    save_file({key: rows}, path / "f.safetensors", about)
    return path / "f.safetensors"


def test_rows_are_returned_in_the_requested_order(tmp_path):
    path = file(tmp_path, about={"names": json.dumps(NAMES), "model": "mine"})
    found = features.load(path, [NAMES[2], NAMES[0]])
    assert (found.rows == np.eye(3, 5)[[2, 0]] + 1).all()
    assert (found.model, found.extra) == ("mine", 1)
    assert found.fingerprint != features.load(path, [NAMES[0], NAMES[2]]).fingerprint


def test_bare_file_names_match_if_unambiguous(tmp_path):
    path = file(tmp_path, names=["c.jpg", "b.jpg", "a.jpg"])
    assert (features.load(path, NAMES).rows == np.eye(3, 5)[[2, 1, 0]] + 1).all()
    with pytest.raises(ValueError, match="1 samples by file names that several have.*Cam9/a.jpg"):
        # The other sample is listed by its full path.
        features.load(
            file(tmp_path, names=["query/Cam1/a.jpg", "b.jpg", "a.jpg"]),
            ["query/Cam1/a.jpg", "gallery/Cam9/a.jpg"],
        )


def rows_with(value, row=1):
    rows = np.ones((3, 5), np.float32)
    rows[row] = value
    return rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": NAMES[:2]}, "has 3 rows but 2 names"),
        ({"names": [NAMES[0], NAMES[0], NAMES[2]]}, "1 samples twice: query/Cam1/a.jpg"),
        ({"names": [NAMES[0], "x.jpg", NAMES[2]]}, r"1 of 3 samples are not in .*Cam2/b.jpg"),
        ({"names": "abc"}, 'must have metadata "names"'),
        ({"names": [1, 2, 3]}, 'must have metadata "names"'),
        ({"about": {}}, 'must have metadata "names"'),
        ({"about": {"names": "[1"}}, 'must have metadata "names"'),
        ({"rows": rows_with([1, 2, 3, 4, np.nan])}, "1 rows .* hold NaN or infinity: query/Cam2/b"),
        ({"rows": rows_with([1, 2, 3, 4, np.inf])}, "1 rows .* hold NaN or infinity: query/Cam2/b"),
        ({"rows": rows_with(0)}, "1 rows .* are all zero: query/Cam2/b.jpg"),
        ({"rows": np.ones((3, 5), np.int64)}, r"must hold floating-point .* got int64, \[3, 5\]"),
        ({"rows": np.ones((3, 5, 2), np.float32)}, r"got \[3, 5, 2\] .* axis 1 of size 5 is too"),
        ({"key": "feats"}, 'must hold a tensor "features".*it has feats'),
    ],
)
def test_invalid_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        features.load(file(tmp_path, **content), NAMES)


def test_error_of_other_formats_shows_how_to_convert(tmp_path):
    for content, message in ((b"", "is empty"), (b"0.1,0.2\n0.3,0.4\n", "is none of the supp")):
        (tmp_path / "f.csv").write_bytes(content)
        with pytest.raises(ValueError, match=f"{message}(.|\n)*import json; from safetens"):
            features.load(tmp_path / "f.csv", NAMES)
    with pytest.raises(FileNotFoundError, match="features: there is no file"):
        features.load(tmp_path / "none", NAMES)


def test_named_parts_of_features(samples, encoder, tmp_path):
    halves = {"first": (0, 5), "second": (5, 16)}
    with_parts, path = replace(encoder, parts=halves), tmp_path / "all.safetensors"
    features.join(computed(samples, tmp_path / "f", with_parts), path, with_parts)
    found = features.load(path, [sample.name for sample in samples])
    assert found.parts == halves
    first, second = found.part("first"), found.part("second")
    assert np.array_equal(np.concatenate([first.rows, second.rows], 1), found.rows)
    assert len({first.fingerprint, second.fingerprint, found.fingerprint}) == 3
    with pytest.raises(ValueError, match="no part 'third'; they have first, second"):
        found.part("third")
    for wrong in ('{"first": [0, 17]}', '{"first": [5, 5]}', '{"first": 3}', "[1]", "{"):
        about = {"names": json.dumps(["a/00.png"]), "parts": wrong}
        save_file({"features": np.ones((1, 16), np.float32)}, path, metadata=about)
        with pytest.raises(ValueError, match='metadata "parts" of .* must be JSON'):
            features.load(path, ["a/00.png"])
