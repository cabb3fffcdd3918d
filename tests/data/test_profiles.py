# SPDX-License-Identifier: Apache-2.0
"""Colours: whatever a picture says of them, it comes out in sRGB."""

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny_profiles as tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from viewsynth.data import images
from viewsynth.data.images import read
from viewsynth.diffusion.photo import _each

COLOURS = ((200, 30, 30), (30, 160, 50), (230, 120, 20))
PLAIN = ((128, 128, 128), (250, 250, 250), (90, 60, 40))  # inside every space, exact everywhere
NOISE = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(images, "_told", set())


def patches(values) -> Image.Image:
    """Flat squares of 16 pixels side by side."""
    values = np.rint(np.asarray(values)).astype(np.uint8)
    return Image.fromarray(values[None].repeat(16, 0).repeat(16, 1))


def seen(path: Path) -> list[list[int]]:
    """The colour in the middle of every patch."""
    return read(path)[8, 8::16].tolist()


def close(found, wanted, by: float = 2) -> bool:
    return abs(np.array(found, float) - np.array(wanted, float)).max() <= by


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def with_chunks(path: Path, picture: Image.Image, *added: bytes) -> Path:
    """A PNG with further chunks behind its header."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = buffer.getvalue()
    path.write_bytes(data[:33] + b"".join(added) + data[33:])
    return path


# ---- ICC profiles --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "webp", "jpg", "avif", "heic"])
def test_display_p3(tmp_path, kind):
    """The values that phones write for three colours of sRGB."""
    stored = ((184, 50, 41), (76, 158, 66), (216, 126, 51))
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(kind, {})
    if kind == "avif":
        options = {"quality": 100, "subsampling": "4:4:4"}
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
        options = {"quality": 100, "chroma": 444}
    path = tmp_path / f"a.{kind}"
    patches(stored).save(path, icc_profile=tiny.rgb(tiny.P3), **options)
    # One level of rounding in YCbCr is up to six in the red of a saturated green.
    assert close(seen(path), COLOURS, 2 if kind in ("png", "webp") else 8)


@pytest.mark.parametrize(
    ("colorants", "power"), [(tiny.ADOBE, 563 / 256), (tiny.PROPHOTO, 1.8), (tiny.SRGB, 1.0)]
)
def test_other_rgb_spaces(tmp_path, colorants, power):
    stored = tiny.values_in(PLAIN, colorants, power)
    patches(stored).save(tmp_path / "a.png", icc_profile=tiny.rgb(colorants, power))
    assert not close(stored, PLAIN, 4) and close(seen(tmp_path / "a.png"), PLAIN)


def test_a_profile_in_several_segments_of_a_jpeg(tmp_path):
    """LUT profiles are large; the segments of a JPEG hold 64 kB."""
    large = tiny.rgb(tiny.P3) + bytes(150_000)
    large = struct.pack(">I", len(large)) + large[4:]
    stored = ((184, 50, 41), (76, 158, 66), (216, 126, 51))
    patches(stored).save(tmp_path / "a.jpg", icc_profile=large, quality=100, subsampling=0)
    assert (tmp_path / "a.jpg").read_bytes().count(b"ICC_PROFILE\0") == 3
    assert close(seen(tmp_path / "a.jpg"), COLOURS, 8)


@pytest.mark.parametrize("power", [1.8, 1.0, 2.6])
@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profiles(tmp_path, power, mode):
    grey = Image.fromarray(np.array([[40, 100, 200]], np.uint8).repeat(16, 0).repeat(16, 1))
    grey.convert(mode).save(tmp_path / "a.png", icc_profile=tiny.grey(power))
    wanted = tiny.srgb_of_linear((np.array([[40], [100], [200]]) / 255) ** power) * 255
    assert close(seen(tmp_path / "a.png"), wanted.repeat(3, 1))


def test_grey_picture_with_a_profile_of_rgb(tmp_path):
    """Photoshop's way; only the curve counts."""
    patches([(100,) * 3]).convert("L").save(
        tmp_path / "a.jpg", icc_profile=tiny.rgb(tiny.ADOBE, 1.8), quality=100
    )
    wanted = tiny.srgb_of_linear(np.array((100 / 255) ** 1.8)) * 255
    assert close(seen(tmp_path / "a.jpg"), [[wanted] * 3])


def test_cmyk_with_a_profile_and_without(tmp_path):
    ink = Image.new("CMYK", (32, 16), (0, 0, 0, 0))
    ink.paste((255, 0, 0, 0), (0, 0, 16, 16))
    ink.save(tmp_path / "a.jpg", icc_profile=tiny.cmyk(), quality=100)
    ink.save(tmp_path / "b.jpg", quality=100)
    cyan, paper = seen(tmp_path / "a.jpg")
    naive, white = seen(tmp_path / "b.jpg")
    assert close(paper, (255,) * 3) and close(white, (255,) * 3) and close(naive, (0, 255, 255))
    fy = (60 + 16) / 116  # of L*, a*, b* that the profile says of cyan: 60, -40, -45
    xyz = np.array([0.9642, 1, 0.8249]) * np.array([fy - 40 / 500, fy, fy + 45 / 200]) ** 3
    wanted = tiny.srgb_of_linear(xyz @ np.linalg.inv(np.array(tiny.SRGB))) * 255
    assert close(cyan, wanted, 5) and not close(cyan, naive, 60)


@pytest.mark.parametrize("profile", [SRGB, tiny.rgb(tiny.SRGB)], ids=["LittleCMS", "tiny"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_srgb_changes_no_byte(tmp_path, profile, mode):
    picture = Image.fromarray(NOISE).convert(mode)
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png", icc_profile=profile)
    assert (read(tmp_path / "a.png") == read(tmp_path / "b.png")).all()
    jpeg = io.BytesIO()
    Image.fromarray(NOISE).save(jpeg, "JPEG", icc_profile=profile)
    (tmp_path / "a.jpg").write_bytes(jpeg.getvalue())
    assert (read(tmp_path / "a.jpg") == np.asarray(Image.open(jpeg).convert("RGB"))).all()


def test_transparent_pictures_are_converted_before_they_are_put_on_white(tmp_path):
    picture = patches([(184, 50, 41), (0, 0, 0)]).convert("RGBA")
    picture.paste((0, 0, 0, 0), (16, 0, 32, 16))
    for name, stored in (("a", picture), ("b", picture.quantize(8))):
        stored.save(tmp_path / f"{name}.png", icc_profile=tiny.rgb(tiny.P3))
        assert close(seen(tmp_path / f"{name}.png"), ((200, 30, 30), (255, 255, 255)), 3)


def test_orientation_and_profile(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = patches([(184, 50, 41), (76, 158, 66)])
    picture.save(tmp_path / "a.png", icc_profile=tiny.rgb(tiny.P3), exif=exif)
    found = read(tmp_path / "a.png")
    assert found.shape == (32, 16, 3) and close(found[[8, 24], 8], COLOURS[:2])


def test_photos_given_to_the_pipeline(tmp_path):
    for mode in ("RGB", "RGBA"):
        picture = patches([(184, 50, 41), (76, 158, 66), (216, 126, 51)]).convert(mode)
        picture.info["icc_profile"] = tiny.rgb(tiny.P3)
        (found,) = _each(picture, "image")
        assert close(found[:, 8, 8::16].T.numpy() * 255, COLOURS)


@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "HSV", "CMYK"])
def test_other_modes_given_to_the_pipeline(mode):
    picture = patches(PLAIN)
    if mode == "LAB":
        ends = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, *ends, outputMode="LAB")
    (found,) = _each(picture if mode == "LAB" else picture.convert(mode), "image")
    assert close(found[:, 8, 8::16].T.numpy() * 255, PLAIN, 4)


# ---- profiles that are none ----------------------------------------------------------------------


def bad_profile(name: str) -> tuple[bytes, str]:
    """A profile, and the mode of the picture that holds it."""
    p3 = tiny.rgb(tiny.P3)
    dark = p3.replace(tiny._curve(None)[12:], bytes(2048))
    return {
        "text": (b"no profile" * 20, "RGB"),
        "truncated": (p3[:300], "RGB"),
        "header": (p3[:128], "RGB"),
        "tag table": (p3[:132] + b"\xff" * 40 + p3[172:], "RGB"),
        "all black": (dark, "RGB"),
        "CMYK in RGB": (tiny.cmyk(), "RGB"),
        "grey in RGB": (tiny.grey(1.8), "RGB"),
        "RGB in CMYK": (p3, "CMYK"),
        "CMYK in grey": (tiny.cmyk(), "L"),
        "Lab": (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "RGB"),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "text",
        "truncated",
        "header",
        "tag table",
        "all black",
        "CMYK in RGB",
        "grey in RGB",
        "RGB in CMYK",
        "CMYK in grey",
        "Lab",
    ],
)
def test_a_bad_profile_is_told_once_and_the_picture_is_srgb(tmp_path, name, caplog):
    profile, mode = bad_profile(name)
    picture = Image.fromarray(NOISE).convert(mode)
    for path, options in ((tmp_path / "a.jpg", {"icc_profile": profile}), (tmp_path / "b.jpg", {})):
        picture.save(path, quality=95, **options)
    with caplog.at_level(logging.WARNING):
        first, second = read(tmp_path / "a.jpg"), read(tmp_path / "a.jpg")
    assert (first == read(tmp_path / "b.jpg")).all() and (second == first).all()
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 1 and str(tmp_path / "a.jpg") in told[0] and "taken as sRGB" in told[0]


def damaged_png(name: str, folder: Path) -> Path:
    packed = zlib.compress(tiny.rgb(tiny.P3))
    good = chunk(b"iCCP", b"p3\0\0" + packed)
    added = {
        "bad sum": good[:-1] + bytes([good[-1] ^ 1]),
        "flipped": good[:60] + bytes([good[60] ^ 8]) + good[61:],
        "no zlib": chunk(b"iCCP", b"p3\0\0" + b"nothing" * 9),
        "cut": chunk(b"iCCP", b"p3\0\0" + packed[:50]),
        "unknown packing": chunk(b"iCCP", b"p3\0\7" + packed),
        "no name": chunk(b"iCCP", b"abcdef"),
        "too large": chunk(b"iCCP", b"p3\0\0" + zlib.compress(bytes(3_000_000))),
        "no primaries": chunk(b"cHRM", bytes(32)),
        "short chromaticities": chunk(b"cHRM", bytes(12)),
        "no gamma": chunk(b"gAMA", bytes(4)),
    }[name]
    return with_chunks(folder / "a.png", Image.fromarray(NOISE), added)


@pytest.mark.parametrize(
    "name",
    [
        "bad sum",
        "flipped",
        "no zlib",
        "cut",
        "unknown packing",
        "no name",
        "too large",
        "no primaries",
        "short chromaticities",
    ],
)
def test_damaged_chunks_of_colour_do_not_lose_the_picture(tmp_path, name, caplog):
    path = damaged_png(name, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert (read(path) == NOISE).all() and (read(path) == NOISE).all()
    assert [str(path) in one.getMessage() for one in caplog.records] == [True]


def test_jpeg_with_a_segment_of_the_profile_missing(tmp_path, caplog):
    large = tiny.rgb(tiny.P3) + bytes(150_000)
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", icc_profile=large)
    data = buffer.getvalue()
    at = data.index(b"ICC_PROFILE\0\2") - 4
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    (tmp_path / "a.jpg").write_bytes(data[:at] + data[at + 2 + length :])
    Image.fromarray(NOISE).save(tmp_path / "b.jpg")
    with caplog.at_level(logging.WARNING):
        assert (read(tmp_path / "a.jpg") == read(tmp_path / "b.jpg")).all()
    assert "damaged" in caplog.text and len(caplog.records) == 1


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    which=st.sampled_from([tiny.rgb(tiny.P3), tiny.cmyk(), tiny.grey(2.2)]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    length=st.floats(0.02, 1),
)
def test_no_profile_loses_a_picture(tmp_path, which, edits, length):
    data = bytearray(which)
    for place, value in edits:
        data[int(place * (len(data) - 1))] = value
    mode = {b"RGB ": "RGB", b"CMYK": "CMYK", b"GRAY": "L"}[which[16:20]]
    Image.fromarray(NOISE).convert(mode).save(
        tmp_path / "a.jpg", icc_profile=bytes(data[: max(int(length * len(data)), 20)])
    )
    assert read(tmp_path / "a.jpg").shape == NOISE.shape


def test_many_bad_profiles_do_not_flood_the_log(tmp_path, caplog):
    Image.fromarray(NOISE).save(tmp_path / "a.png", icc_profile=b"none")
    data = (tmp_path / "a.png").read_bytes()
    with caplog.at_level(logging.WARNING):
        for number in range(images.MOST_TOLD + 20):
            path = tmp_path / f"{number}.png"
            path.write_bytes(data)
            read(path)
    assert len(caplog.records) == images.MOST_TOLD + 1


# ---- what says of its colours without a profile --------------------------------------------------


def test_png_gamma_and_primaries(tmp_path):
    """Of a linear picture, of one in Display P3, and of those that only say sRGB in other words."""
    linear = patches(np.rint(tiny.values_in(PLAIN, tiny.SRGB, 1.0)))
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert close(seen(with_chunks(tmp_path / "linear.png", linear, gamma)), PLAIN)
    p3 = patches([(184, 50, 41), (76, 158, 66), (216, 126, 51)])
    corners = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
    primaries = chunk(b"cHRM", struct.pack(">8I", *(round(x * 100_000) for x in corners)))
    usual = chunk(b"gAMA", struct.pack(">I", 45_455))
    assert close(seen(with_chunks(tmp_path / "p3.png", p3, usual, primaries)), COLOURS)
    own = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
    srgb = chunk(b"cHRM", struct.pack(">8I", *(round(x * 100_000) for x in own)))
    for added in ((usual,), (usual, srgb), (chunk(b"sRGB", b"\0"), gamma, primaries)):
        path = with_chunks(tmp_path / "srgb.png", Image.fromarray(NOISE), *added)
        assert (read(path) == NOISE).all()


def test_png_codes_come_before_its_profile(tmp_path):
    p3 = patches([(184, 50, 41), (76, 158, 66), (216, 126, 51)])
    grey = chunk(b"iCCP", b"x\0\0" + zlib.compress(tiny.rgb(tiny.PROPHOTO, 1.8)))
    coded = chunk(b"cICP", bytes([12, 13, 0, 1]))
    assert close(seen(with_chunks(tmp_path / "a.png", p3, coded, grey)), COLOURS)
    plain = chunk(b"cICP", bytes([1, 13, 0, 1]))
    assert (read(with_chunks(tmp_path / "b.png", Image.fromarray(NOISE), plain)) == NOISE).all()


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: values, 0 to 255, of light in units of 203 nits."""
    y = (light * 203 / 10_000) ** (2610 / 16384)
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** (2523 / 32) * 255


def test_hdr_is_brought_down_by_its_range(tmp_path):
    greys = np.array([20, 60, 128, 200, 255])[:, None].repeat(3, 1)
    light = tiny.linear_of_srgb(greys / 255)
    coded = chunk(b"cICP", bytes([9, 16, 0, 1]))
    path = with_chunks(tmp_path / "dim.png", patches(pq(light)), coded)
    assert close(seen(path), greys, 5)  # nothing brighter than white: as it is
    bright = np.array([0.05, 0.2, 0.5, 1, 4, 20, 49])[:, None].repeat(3, 1)
    for transfer, values in ((16, pq(bright)), (18, np.linspace(30, 255, 7)[:, None].repeat(3, 1))):
        coded = chunk(b"cICP", bytes([9, transfer, 0, 1]))
        found = np.array(seen(with_chunks(tmp_path / "a.png", patches(values), coded)))
        assert (np.diff(found[:, 0]) > 3).all() and found[-1, 0] >= 252  # no two are white
        assert (found == found[:, :1]).all()


def test_avif_with_codes_and_no_profile(tmp_path):
    """As Android writes it: the codes say Display P3."""
    p3 = patches([(184, 50, 41), (76, 158, 66), (216, 126, 51)])
    p3.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    data = (tmp_path / "a.avif").read_bytes()
    at = data.index(b"colrnclx") + 8
    (tmp_path / "b.avif").write_bytes(data[:at] + b"\0\x0c\0\x0d" + data[at + 4 :])
    assert close(seen(tmp_path / "a.avif"), [(184, 50, 41), (76, 158, 66), (216, 126, 51)], 3)
    assert close(seen(tmp_path / "b.avif"), COLOURS, 8)


def test_adobe_rgb_that_only_exif_tells(tmp_path):
    """Cameras set to Adobe RGB: DCF asks for the mark R03, and no profile."""
    stored = patches(tiny.values_in(COLOURS, tiny.ADOBE, 563 / 256))
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 65535
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03", 2: b"0100"}
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert close(seen(tmp_path / "a.jpg"), COLOURS, 4)
    other = Image.Exif()
    other.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R98", 2: b"0100"}
    stored.save(tmp_path / "b.jpg", exif=other, quality=100, subsampling=0)
    assert not close(seen(tmp_path / "b.jpg"), COLOURS, 9)
