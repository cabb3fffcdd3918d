# SPDX-License-Identifier: Apache-2.0
"""Files that users have in their folders, through the whole `generate`.

No file stops the run, good images are used, and each bad file is rejected with its reason.
"""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viewsynth import config
from viewsynth.commands import generate
from viewsynth.runtime import weights
from viewsynth.world import shots

VIEWS = ("--views.elevations", "60", "--views.azimuths", "0", "--report", "no", "--workers", "1")


@pytest.fixture(scope="module")
def drawn() -> list[shots.RenderedShot]:
    return shots.render(2, seed=2)


def run(root: Path, output: Path, *options: str) -> int:
    argv = ["--data.root", str(root), "--output", str(output), *VIEWS, *options]
    return generate.run(config.parse(generate.Config, argv, "generate"))


def huge_png(path: Path) -> None:
    """A file of a hundred bytes that declares 20,000 x 20,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def scene(*pictures: shots.RenderedShot, gap: float = 1.0) -> Image.Image:
    """Several rendered people side by side on grey, each 240 pixels high."""
    width = round(120 * gap * (len(pictures) - 1)) + 130
    result = Image.new("RGB", (width, 260), (150, 152, 155))
    for k, picture in enumerate(pictures):
        mask = Image.fromarray(picture.mask.astype(np.uint8) * 255)
        result.paste(Image.fromarray(picture.image), (round(120 * gap * k), 10), mask)
    return result


@pytest.fixture(scope="module")
def messy(tmp_path_factory, drawn) -> tuple[Path, dict[str, str], set[str]]:
    """The folder, words in the reason of each bad file, and the pids that must have views."""
    root = tmp_path_factory.mktemp("messy")
    good = Image.fromarray(drawn[0].image)
    good.save(root / "good.png")
    jpeg = tmp_path_factory.mktemp("x") / "a.jpg"
    good.save(jpeg)
    bad: dict[str, str] = {}

    def add(name: str, words: str) -> Path:
        bad[name] = words
        return root / name

    add("zero.jpg", "empty").write_bytes(b"")
    add("cut.jpg", "truncated").write_bytes(jpeg.read_bytes()[:2000])
    add("text.jpg", "not an image").write_text("I am no image")
    good.resize((1, 1)).save(add("dot.png", "1x1"))
    huge_png(add("huge.png", "pixel"))
    frames = [good.resize((60, 120)).rotate(k) for k in (0, 5)]
    frames[0].save(add("moving.png", "GIF"), format="GIF", save_all=True, append_images=frames[1:])
    noise = np.random.default_rng(0).integers(90, 160, (220, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(add("nobody.png", "person"))
    Image.fromarray(np.full((600, 800, 3), 140, np.uint8)).save(add("empty_square.png", "crop"))
    scene(drawn[0], drawn[2], gap=0.8).resize((203, 234)).save(add("pair.png", "two people"))
    if os.geteuid() != 0:
        good.save(add("locked.png", "read"))
        (root / "locked.png").chmod(0)
    fine = {"good"}
    good.convert("CMYK").save(root / "cmyk.jpg")
    good.convert("L").save(root / "grey.png")
    Image.fromarray(np.asarray(good.convert("L")).astype(np.uint16) * 257).save(root / "deep.png")
    good.convert("RGBA").quantize(64).save(root / "palette.png", transparency=0)
    good.save(root / "really_png.jpg", format="PNG")
    turned = good.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF: rotate for display
    turned.save(root / "turned.jpg", exif=exif)
    fine |= {"cmyk", "grey", "deep", "palette", "really_png", "turned"}
    (root / ".hidden.jpg").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    return root, bad, fine


@pytest.fixture(scope="module")
def outcome(messy, tmp_path_factory) -> tuple[int, list[dict], list[dict], Path]:
    try:
        weights.pose_model()
    except weights.MissingWeightsError as error:
        pytest.skip(f"the pose models cannot be had: {error}")
    output = tmp_path_factory.mktemp("run")
    status = run(messy[0], output)
    rows, rejects = (
        [json.loads(line) for line in (output / name).read_text().splitlines()]
        for name in ("metadata.jsonl", "rejects.jsonl")
    )
    return status, rows, rejects, output


def test_the_run_continues_with_the_good_files(messy, outcome):
    status, rows, _, output = outcome
    assert status == 0
    assert messy[2] <= {row["pid"] for row in rows}
    for row in rows:
        assert Image.open(output / row["file_name"]).size == (row["width"], row["height"])


def test_every_bad_file_has_one_reject_with_its_reason(messy, outcome):
    _, bad, _ = messy
    _, rows, rejects, _ = outcome
    told = {row["source"]: row["reason"] for row in rejects}
    for name, words in bad.items():
        assert name in told, f"{name} was lost; told: {sorted(told)}"
        assert words.lower() in told[name].lower(), f"{name}: {told[name]!r}"
    assert not {Path(name).stem for name in bad} & {row["pid"] for row in rows}


def test_non_images_are_counted_and_hidden_files_are_not(outcome):
    rejects = outcome[2]
    skipped = [row for row in rejects if row["kind"] == "skipped"]
    assert sum(row["scores"]["count"] for row in skipped) == 1
    assert not any(".hidden" in row["source"] for row in rejects)


def test_half_a_person_has_unseen_legs(tmp_path, drawn):
    """Cut at the hips: either rejected, or rendered with legs that the seen map marks."""
    root = tmp_path / "half"
    root.mkdir()
    image = drawn[0].image
    Image.fromarray(image[: image.shape[0] // 2]).save(root / "half.png")
    status = run(root, tmp_path / "out", "--data.crops", "yes")
    rows = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    rejects = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert rows or rejects
    assert status == (0 if rows else 1)  # no view is a failure
    for row in map(json.loads, rows):
        assert row["seen_ratio"] < 0.8


@pytest.mark.slow
def test_several_people_in_a_photo_are_one_sample_each(tmp_path, drawn):
    root = tmp_path / "photo"
    root.mkdir()
    scene(drawn[0], drawn[2], gap=2.2).resize((1100, 730)).save(root / "street.png")
    assert run(root, tmp_path / "out") == 0
    rows = list(map(json.loads, (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()))
    assert {row["pid"] for row in rows} == {"street#1", "street#2"}


def test_metadata_that_points_elsewhere(tmp_path, drawn):
    root = tmp_path / "listed"
    root.mkdir()
    Image.fromarray(drawn[0].image).save(root / "a.png")
    Image.fromarray(drawn[1].image).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    names = ["a.png", "../outside.png", "link.png", "missing.png", "a.png"]
    (root / "metadata.csv").write_text("file_name,pid\n" + "".join(f"{n},p\n" for n in names))
    assert run(root, tmp_path / "out") == 0
    rejects = [
        json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    ]
    assert len(rejects) == 4
    reasons = " ".join(row["reason"] for row in rejects).lower()
    assert "leads out" in reasons and "link" in reasons
    assert "does not exist" in reasons and "named before" in reasons


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="no "):
        run(tmp_path / "bare", tmp_path / "out")
