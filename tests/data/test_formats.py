# SPDX-License-Identifier: Apache-2.0
"""Formats are recognised by their bytes: those of phones are read, others get advice."""

import gzip
import io
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from own_pictures import refusal
from PIL import ExifTags, Image, features

from viewsynth.data import frames, images
from viewsynth.data.images import ImageError, NotInstalled, read
from viewsynth.records import Sample

SMOOTH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8))
SMOOTH = SMOOTH.resize((48, 80), Image.Resampling.BICUBIC)
BRANDS = ("heic", "heix", "hevc", "heim", "mif1", "msf1")
avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow is built without AVIF")


def ftyp(major: bytes, *others: bytes) -> bytes:
    """The first box of an ISO media file."""
    brands = b"".join((major, bytes(4), *others))
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands


def heic(path: Path, *several: Image.Image, **options) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = pillow_heif.from_pillow(several[0])
    for image in several[1:]:
        file.add_from_pillow(image)
    file.save(path, **{"quality": 95, "format": "HEIF"} | options)
    return path


def near(found: np.ndarray, image: Image.Image, by: float = 4) -> bool:
    expected = np.asarray(image.convert("RGB")).astype(float)
    return found.shape == expected.shape and abs(found - expected).mean() < by


# ---- HEIC ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "a.png", "a.HEIF"])
def test_heic_is_read_with_any_extension(tmp_path, name):
    assert near(read(heic(tmp_path / name, SMOOTH)), SMOOTH)
    assert near(read(tmp_path / name, (8, 8, 40, 60)), SMOOTH.crop((8, 8, 40, 60)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_rotated_once(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turn = images.UPRIGHT.get(orientation)
    found = read(heic(tmp_path / "a.heic", SMOOTH, exif=exif.tobytes()))
    assert near(found, SMOOTH if turn is None else SMOOTH.transpose(turn))


def test_heic_of_a_burst_gives_its_primary_image(tmp_path):
    other = Image.new("RGB", (64, 64), (200, 0, 0))
    assert near(read(heic(tmp_path / "a.heic", SMOOTH, other, other)), SMOOTH)
    path = heic(tmp_path / "b.heic", other, SMOOTH, primary_index=1)
    assert near(read(path), SMOOTH)


def test_heic_grey_transparent_and_of_ten_bits(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    assert near(read(heic(tmp_path / "grey.heic", SMOOTH.convert("L"))), SMOOTH.convert("L"))
    transparent = SMOOTH.convert("RGBA")
    transparent.paste((9, 9, 9, 0), (0, 0, 24, 80))
    found = read(heic(tmp_path / "alpha.heic", transparent))
    assert (found[:, :20] > 245).all() and near(found[:, 28:], SMOOTH.crop((28, 0, 48, 80)))
    deep = np.asarray(SMOOTH).astype(np.uint16) * 257
    file = pillow_heif.from_bytes("RGB;16", SMOOTH.size, deep.tobytes())
    file.save(tmp_path / "deep.heic", quality=95, bit_depth=10)
    assert near(read(tmp_path / "deep.heic"), SMOOTH)


def test_damaged_heic_is_refused(tmp_path):
    data = heic(tmp_path / "a.heic", SMOOTH).read_bytes()
    for name, bad in (
        ("cut", data[: len(data) // 2]),
        ("head", data[:40]),
        ("box", data[:60] + bytes(60) + data[120:]),
        ("pixels", data[:-300]),
    ):
        (tmp_path / f"{name}.heic").write_bytes(bad)
        assert "damaged" in refusal(read, tmp_path / f"{name}.heic", kind=ImageError)


def test_large_and_small_heic_are_refused(tmp_path, monkeypatch):
    path = heic(tmp_path / "a.heic", SMOOTH)
    assert "at least 50 a side" in refusal(read, path, least=50, kind=ImageError)
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    assert "48x80 pixels" in refusal(read, path, kind=ImageError)


@pytest.mark.parametrize("brand", BRANDS)
@pytest.mark.parametrize("name", ["a.heic", "a.jpg"])
def test_heic_without_its_reader_names_the_command(tmp_path, monkeypatch, brand, name):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as Python marks a missing module
    (tmp_path / name).write_bytes(ftyp(brand.encode(), b"mif1", b"heic") + bytes(400))
    message = refusal(read, tmp_path / name, kind=NotInstalled)
    assert "HEIC" in message and "pip install 'viewsynth[heif]'" in message


def test_other_formats_are_read_without_the_extras(tmp_path):
    """Runs in a process where neither extra can be imported."""
    SMOOTH.save(tmp_path / "a.png")
    code = (
        "import sys; sys.modules |= {'pillow_heif': None, 'av': None}\n"
        "from viewsynth.data import images, frames, folder\n"
        f"print(images.read({str(tmp_path / 'a.png')!r}).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(80, 48, 3)"


# ---- AVIF ----------------------------------------------------------------------------------------


@avif
@pytest.mark.parametrize("name", ["a.avif", "a.jpg", "a.heic"])
def test_avif_is_read_with_any_extension(tmp_path, name):
    SMOOTH.save(tmp_path / name, "AVIF", quality=95)
    assert near(read(tmp_path / name), SMOOTH)


@avif
def test_avif_of_a_general_brand(tmp_path):
    buffer = io.BytesIO()
    SMOOTH.save(buffer, "AVIF", quality=95)
    data = buffer.getvalue()
    (tmp_path / "a.avif").write_bytes(data[:8] + b"mif1" + data[12:])
    assert near(read(tmp_path / "a.avif"), SMOOTH)


@avif
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_avif_is_rotated_once(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    SMOOTH.save(tmp_path / "a.avif", quality=95, exif=exif)
    assert near(read(tmp_path / "a.avif"), SMOOTH.transpose(images.UPRIGHT[orientation]))


@avif
def test_animated_and_damaged_avif_are_refused(tmp_path):
    SMOOTH.save(tmp_path / "a.avif", save_all=True, append_images=[SMOOTH.rotate(90)])
    assert "animated AVIF" in refusal(read, tmp_path / "a.avif", kind=ImageError)
    SMOOTH.save(tmp_path / "b.avif")
    data = (tmp_path / "b.avif").read_bytes()
    (tmp_path / "b.avif").write_bytes(data[: len(data) // 2])
    assert "damaged" in refusal(read, tmp_path / "b.avif", kind=ImageError)


def test_avif_without_its_reader_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    (tmp_path / "a.jpg").write_bytes(ftyp(b"avif", b"mif1", b"miaf") + bytes(400))
    message = refusal(read, tmp_path / "a.jpg", kind=NotInstalled)
    assert "AVIF" in message and "pip install" in message


# ---- unsupported formats -------------------------------------------------------------------------


def tiff(*tags: int, order: str = "<") -> bytes:
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    entries = b"".join(struct.pack(order + "HHII", tag, 1, 4, 1) for tag in tags)
    return head + struct.pack(order + "H", len(tags)) + entries + bytes(64)


def packed(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.jpg", b"x" * 500)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.jpg"))
    return buffer.getvalue()


UNSUPPORTED = {
    "gif": (b"GIF89a" + bytes(50), "a GIF", "save one frame"),
    "tiff": (tiff(256, 257), "a TIFF", "save it as PNG"),
    "dng": (tiff(256, 257, 50706), "raw file \\(DNG\\)", "develop"),
    "dng of a Mac": (tiff(256, 50706, order=">"), "raw file \\(DNG\\)", "develop"),
    "cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(50), "raw file \\(CR2\\)", "develop"),
    "cr3": (ftyp(b"crx ", b"isom") + bytes(50), "raw file \\(CR3\\)", "develop"),
    "raf": (b"FUJIFILMCCD-RAW 0201" + bytes(50), "raw file \\(RAF\\)", "develop"),
    "jpeg xl": (b"\xff\x0a" + bytes(50), "a JPEG XL", "PNG"),
    "jpeg xl in boxes": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "a JPEG XL", "PNG"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "a JPEG 2000", "PNG"),
    "psd": (b"8BPS\0\1" + bytes(50), "Photoshop", "export"),
    "hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n", "Radiance", "tone-map"),
    "exr": (b"v/1\x01" + bytes(50), "OpenEXR", "tone-map"),
    "mp4": (ftyp(b"isom", b"mp42") + bytes(50), "a video", "own extension"),
    "mov": (ftyp(b"qt  ") + bytes(50), "a video", "own extension"),
    "webm": (b"\x1aE\xdf\xa3" + bytes(50), "a video", "own extension"),
    "avi": (b"RIFF\0\1\0\0AVI LIST" + bytes(50), "a video", "own extension"),
    "zip": (packed("zip"), "a ZIP", "unpack"),
    "tar": (packed("tar"), "a tar", "unpack"),
    "gzip": (gzip.compress(bytes(99)), "a gzip", "unpack"),
    "pdf": (b"%PDF-1.7\n" + bytes(50), "a PDF", "export"),
    "page": (b"\n <!doctype html><p>Sign in", "a web page", "download"),
    "page with mark": (b"\xef\xbb\xbf<HTML>", "a web page", "download"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS", "git lfs pull"),
    "dicom": (bytes(128) + b"DICM" + bytes(50), "DICOM", "PNG"),
    "npy": (b"\x93NUMPY\1\0" + bytes(50), "NumPy", "PNG"),
    "apple double": (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(50), "AppleDouble", "same name"),
    "text": (b"P6 is a road", "not an image", "viewer"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_formats_are_named_with_advice(tmp_path, name):
    data, what, advice = UNSUPPORTED[name]
    (tmp_path / "a.jpg").write_bytes(data)
    message = refusal(read, tmp_path / "a.jpg", kind=ImageError)
    assert re.search(f"{what}.*expected JPEG, PNG, WebP.*HEIC or AVIF.*{advice}", message)


def test_short_files_with_any_signature_are_refused(tmp_path):
    starts = [data[:cut] for data, *_ in UNSUPPORTED.values() for cut in (1, 3, 9, 14)]
    for start in [*starts, *(ftyp(brand.encode()) for brand in BRANDS), b"\0\0\0\xffftyp"]:
        (tmp_path / "a.jpg").write_bytes(start)
        assert refusal(read, tmp_path / "a.jpg", kind=ImageError)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_with_the_extension_of_a_video_is_refused(tmp_path, kind):
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    Image.new("RGB", (40, 80), "red").save(path, kind)
    sample = Sample(paths=(path,), name="a.mp4", pid="a")
    message = refusal(list, frames.each(sample), kind=ImageError)
    assert "is an image with the extension of a video" in message
