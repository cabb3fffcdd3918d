# SPDX-License-Identifier: Apache-2.0
"""Untrusted image files: each is read correctly or refused with a reason."""

import io
import os
import re
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_pictures import refusal
from PIL import ExifTags, Image
from tiny_profiles import png_chunk as chunk

from viewsynth.data import images
from viewsynth.data.images import ImageError, read

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 24, 3), dtype=np.uint8)


def save(path: Path, image, **options) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def png(width: int, height: int, depth: int, colour: int, rows: bytes = b"") -> bytes:
    """A PNG with any header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("extension", ["png", "bmp", "webp"])
def test_lossless_formats_are_read_exactly(tmp_path, extension):
    options = {"lossless": True} if extension == "webp" else {}
    assert (read(save(tmp_path / f"a.{extension}", PIXELS, **options)) == PIXELS).all()


def test_a_wrong_extension_does_not_matter(tmp_path):
    path = save(tmp_path / "a.png", PIXELS).rename(tmp_path / "a.jpg")
    assert (read(path) == PIXELS).all()


def test_cmyk(tmp_path):
    plain = Image.new("RGB", (20, 20), (200, 40, 90))
    path = save(tmp_path / "a.jpg", plain.convert("CMYK"), quality=100)
    assert abs(read(path).astype(int) - (200, 40, 90)).max() <= 4


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_16_bit_is_scaled_not_clipped(tmp_path, colour):
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    values = np.linspace(0, 65535, 16 * 16).astype(">u2").reshape(16, 16, 1)
    values = np.repeat(values, channels, 2)
    if channels in (2, 4):
        values[..., -1] = 65535
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(16, 16, 16, colour, rows))
    expected = np.repeat(values[..., :1].astype(float) / 257, 3, 2)
    assert abs(read(tmp_path / "a.png") - expected).max() <= 1


def test_grey_and_black_and_white(tmp_path):
    grey = Image.fromarray(PIXELS).convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, 2)
    assert (read(save(tmp_path / "a.png", grey)) == expected).all()
    bits = Image.fromarray(PIXELS).convert("1")
    assert (read(save(tmp_path / "b.png", bits))[..., 0] == np.asarray(bits) * 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_are_put_on_white(tmp_path, mode):
    image = Image.new("RGBA", (20, 20), (50, 50, 50, 255))
    image.paste((9, 9, 9, 0), (0, 0, 10, 20))
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    rgb = read(save(tmp_path / "a.png", image))
    assert (rgb[:, :10] == 255).all() and abs(rgb[:, 10:].astype(int) - 50).max() <= 1


def test_palette_with_one_transparent_colour(tmp_path):
    image = Image.new("P", (20, 20), 0)
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.paste(1, (10, 0, 20, 20))
    rgb = read(save(tmp_path / "a.png", image, transparency=0))
    assert (rgb[:, :10] == 255).all() and (rgb[:, 10:] == (200, 100, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path, orientation):
    turned = Image.fromarray(PIXELS)
    if orientation > 1:
        back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
        turned = turned.transpose(images.UPRIGHT[back])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save(tmp_path / "a.png", turned, exif=exif)
    assert (read(path) == PIXELS).all()
    assert (read(path, (3, 5, 21, 30)) == PIXELS[5:30, 3:21]).all()


@pytest.mark.parametrize(
    ("extension", "comment"),
    [("jpg", 0), ("jpg", 400_000), ("png", 0), ("webp", 0), ("bmp", 0)],
)
def test_the_size_of_a_large_image_is_that_of_the_upright_one(tmp_path, extension, comment):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise = RNG.integers(0, 256, (500, 300, 3), dtype=np.uint8)
    options = {} if extension == "bmp" else {"exif": exif}
    if extension == "webp":
        options["lossless"] = True
    path = save(tmp_path / f"a.{extension}", noise, quality=100, **options)
    if extension == "jpg":
        data = path.read_bytes()
        parts = [b"\xff\xee" + struct.pack(">H", 50_002) + bytes(50_000)] * (comment // 50_000)
        path.write_bytes(data[:2] + b"".join(parts) + data[2:])  # the size comes after the comments
    assert path.stat().st_size > images.HEAD
    assert images.size(path) == read(path).shape[1::-1]


def test_the_size_of_a_jpeg_is_in_its_head(tmp_path):
    path = save(tmp_path / "a.jpg", PIXELS)
    with path.open("ab") as file:
        file.truncate(50_000_000)
    images.size(path)  # loads modules that count as memory
    tracemalloc.start()
    assert images.size(path) == (24, 40)
    assert tracemalloc.get_traced_memory()[1] < 4 * images.HEAD
    tracemalloc.stop()


@pytest.mark.filterwarnings("error")
def test_damaged_exif_does_not_lose_the_image(tmp_path):
    path = save(
        tmp_path / "a.jpg", PIXELS, exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff", quality=95
    )
    assert read(path).shape == PIXELS.shape


def test_phone_images_with_a_preview_are_read(tmp_path):
    path = tmp_path / "a.jpg"
    first, second = Image.fromarray(PIXELS), Image.new("RGB", (20, 20))
    first.save(path, format="MPO", save_all=True, append_images=[second])
    assert read(path).shape == PIXELS.shape


def bad_file(name: str, folder: Path) -> Path:
    path = folder / "bad.jpg"
    buffer = io.BytesIO()
    image = Image.fromarray(PIXELS)
    if name == "truncated jpeg":
        Image.fromarray(RNG.integers(0, 256, (300, 200, 3), dtype=np.uint8)).save(buffer, "JPEG")
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    elif name == "truncated png":
        image.save(buffer, "PNG")
        path.write_bytes(buffer.getvalue()[:-400])
    elif name == "animated gif":
        frames = [Image.new("P", (20, 20), k) for k in range(3)]
        frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])
    elif name == "animated webp":
        frames = [Image.new("RGB", (20, 20), (k * 99, 0, 0)) for k in range(3)]
        frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:])
    elif name == "folder":
        path.mkdir()
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "link":
        path.symlink_to(save(folder / "good.png", PIXELS))
    else:
        path.write_bytes(
            {
                "zero bytes": b"",
                "text": b"I am a text file.\n",
                "tiff": b"II*\0" + bytes(40),
                "1x1": png(1, 1, 8, 2, bytes(4)),
                "20000x20000": png(20_000, 20_000, 8, 2),
                "9000x9000": png(9_000, 9_000, 8, 2),
                "0x20": png(0, 20, 8, 2),
            }[name]
        )
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zero bytes", "empty"),
        ("truncated jpeg", "truncated"),
        ("truncated png", "truncated"),
        ("text", "not an image"),
        ("tiff", "a TIFF.*expected JPEG"),
        ("1x1", "at least 16 a side"),
        ("20000x20000", "limit is 64 megapixels"),
        ("9000x9000", "limit is 64 megapixels"),
        ("0x20", "damaged"),
        ("animated gif", "GIF"),
        ("animated webp", "animated WEBP"),
        ("folder", "regular file|directory"),
        ("pipe", "regular file"),
        ("link", "symbolic link"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_files_are_refused_with_a_reason(tmp_path, name, reason):
    message = refusal(read, bad_file(name, tmp_path), kind=ImageError)
    assert re.search(reason, message)


def test_missing_file_is_refused(tmp_path):
    assert "No such file" in refusal(read, tmp_path / "none.jpg", kind=ImageError)


def test_unreadable_file_is_refused(tmp_path):
    path = save(tmp_path / "a.png", PIXELS)
    path.chmod(0)
    root = os.geteuid() == 0  # root may read everything: become another user for a moment
    if root:
        os.seteuid(65534)
    try:
        assert re.search("cannot be read.*[Pp]ermission", refusal(read, path, kind=ImageError))
    finally:
        if root:
            os.seteuid(0)


def test_a_large_file_is_refused(tmp_path):
    path = tmp_path / "a.bmp"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse: takes no room
    assert "64,000,001 bytes" in refusal(read, path, kind=ImageError)


@pytest.mark.parametrize("box", [(20, 0, 30, 40), (0, 0, 4, 40), (100, 100, 200, 200)])
def test_a_box_outside_the_image_is_refused(tmp_path, box):
    path = save(tmp_path / "a.png", PIXELS)
    assert f"the box {list(box)} covers less than" in refusal(read, path, box, kind=ImageError)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    length=st.floats(0, 1),
)
def test_damaged_bytes_give_an_image_or_a_reason(tmp_path, kind, edits, length):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    for place, value in edits:
        data[int(place * (len(data) - 1))] = value
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: int(length * len(data)) + 1] if length < 0.5 else data)
    try:
        image = read(path)
    except ImageError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
