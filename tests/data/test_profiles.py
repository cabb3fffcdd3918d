# SPDX-License-Identifier: Apache-2.0
"""Colour profiles: images of any declared colour space are converted to sRGB."""

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
from tiny_profiles import png_chunk as chunk

from viewsynth.data import images
from viewsynth.data.images import read
from viewsynth.diffusion.photo import _each

COLOURS = ((200, 30, 30), (30, 160, 50), (230, 120, 20))
IN_P3 = ((184, 50, 41), (76, 158, 66), (216, 126, 51))  # the same in Display P3
NEUTRAL = ((128, 128, 128), (250, 250, 250), (90, 60, 40))  # inside every colour space
NOISE = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
P3 = tiny.rgb(tiny.P3)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def no_earlier_warnings(monkeypatch):
    monkeypatch.setattr(images, "_warned", set())


def patches(values) -> Image.Image:
    """Flat squares of 16 pixels side by side."""
    values = np.rint(np.asarray(values)).astype(np.uint8)
    return Image.fromarray(values[None].repeat(16, 0).repeat(16, 1))


def read_patches(path: Path) -> list[list[int]]:
    """The colour in the middle of every patch."""
    return read(path)[8, 8::16].tolist()


def close(found, expected, by: float = 2) -> bool:
    return abs(np.array(found, float) - np.array(expected, float)).max() <= by


def with_chunks(path: Path, image: Image.Image, *added: bytes) -> Path:
    """Write a PNG with further chunks after its header."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = buffer.getvalue()
    path.write_bytes(data[:33] + b"".join(added) + data[33:])
    return path


# ---- ICC profiles --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "webp", "jpg", "avif", "heic"])
def test_display_p3(tmp_path, kind):
    """The stored values are those that phones write for three sRGB colours."""
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(kind, {})
    if kind == "avif":
        options = {"quality": 100, "subsampling": "4:4:4"}
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
        options = {"quality": 100, "chroma": 444}
    path = tmp_path / f"a.{kind}"
    patches(IN_P3).save(path, icc_profile=P3, **options)
    # One level of rounding in YCbCr is up to six in the red of a saturated green.
    assert close(read_patches(path), COLOURS, 2 if kind in ("png", "webp") else 8)


@pytest.mark.parametrize(
    ("colorants", "power"), [(tiny.ADOBE, 563 / 256), (tiny.PROPHOTO, 1.8), (tiny.SRGB, 1.0)]
)
def test_other_rgb_spaces(tmp_path, colorants, power):
    stored = tiny.values_in(NEUTRAL, colorants, power)
    patches(stored).save(tmp_path / "a.png", icc_profile=tiny.rgb(colorants, power))
    assert not close(stored, NEUTRAL, 4) and close(read_patches(tmp_path / "a.png"), NEUTRAL)


def test_a_profile_in_several_segments_of_a_jpeg(tmp_path):
    """LUT profiles are large, and a segment of a JPEG holds 64 kB."""
    large = P3 + bytes(150_000)
    large = struct.pack(">I", len(large)) + large[4:]
    patches(IN_P3).save(tmp_path / "a.jpg", icc_profile=large, quality=100, subsampling=0)
    assert (tmp_path / "a.jpg").read_bytes().count(b"ICC_PROFILE\0") == 3
    assert close(read_patches(tmp_path / "a.jpg"), COLOURS, 8)


@pytest.mark.parametrize("power", [1.8, 1.0, 2.6])
@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profiles(tmp_path, power, mode):
    grey = Image.fromarray(np.array([[40, 100, 200]], np.uint8).repeat(16, 0).repeat(16, 1))
    grey.convert(mode).save(tmp_path / "a.png", icc_profile=tiny.grey(power))
    expected = tiny.srgb_of_linear((np.array([[40], [100], [200]]) / 255) ** power) * 255
    assert close(read_patches(tmp_path / "a.png"), expected.repeat(3, 1))


def test_grey_image_with_an_rgb_profile(tmp_path):
    """Photoshop writes such files; only the curve counts."""
    patches([(100,) * 3]).convert("L").save(
        tmp_path / "a.jpg", icc_profile=tiny.rgb(tiny.ADOBE, 1.8), quality=100
    )
    expected = tiny.srgb_of_linear(np.array((100 / 255) ** 1.8)) * 255
    assert close(read_patches(tmp_path / "a.jpg"), [[expected] * 3])


def test_cmyk_with_a_profile_and_without(tmp_path):
    ink = Image.new("CMYK", (32, 16), (0, 0, 0, 0))
    ink.paste((255, 0, 0, 0), (0, 0, 16, 16))
    ink.save(tmp_path / "a.jpg", icc_profile=tiny.cmyk(), quality=100)
    ink.save(tmp_path / "b.jpg", quality=100)
    cyan, paper = read_patches(tmp_path / "a.jpg")
    naive, white = read_patches(tmp_path / "b.jpg")
    assert close(paper, (255,) * 3) and close(white, (255,) * 3) and close(naive, (0, 255, 255))
    fy = (60 + 16) / 116  # L*, a*, b* of cyan in the profile: 60, -40, -45
    xyz = np.array([0.9642, 1, 0.8249]) * np.array([fy - 40 / 500, fy, fy + 45 / 200]) ** 3
    expected = tiny.srgb_of_linear(xyz @ np.linalg.inv(np.array(tiny.SRGB))) * 255
    assert close(cyan, expected, 5) and not close(cyan, naive, 60)


@pytest.mark.parametrize("profile", [SRGB, tiny.rgb(tiny.SRGB)], ids=["LittleCMS", "tiny"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_srgb_changes_no_byte(tmp_path, profile, mode):
    image = Image.fromarray(NOISE).convert(mode)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", icc_profile=profile)
    assert (read(tmp_path / "a.png") == read(tmp_path / "b.png")).all()
    jpeg = io.BytesIO()
    Image.fromarray(NOISE).save(jpeg, "JPEG", icc_profile=profile)
    (tmp_path / "a.jpg").write_bytes(jpeg.getvalue())
    assert (read(tmp_path / "a.jpg") == np.asarray(Image.open(jpeg).convert("RGB"))).all()


def test_transparent_images_are_converted_before_they_are_put_on_white(tmp_path):
    image = patches([IN_P3[0], (0, 0, 0)]).convert("RGBA")
    image.paste((0, 0, 0, 0), (16, 0, 32, 16))
    for name, stored in (("a", image), ("b", image.quantize(8))):
        stored.save(tmp_path / f"{name}.png", icc_profile=P3)
        assert close(read_patches(tmp_path / f"{name}.png"), ((200, 30, 30), (255, 255, 255)), 3)


def test_orientation_and_profile(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = patches(IN_P3[:2])
    image.save(tmp_path / "a.png", icc_profile=P3, exif=exif)
    found = read(tmp_path / "a.png")
    assert found.shape == (32, 16, 3) and close(found[[8, 24], 8], COLOURS[:2])


def test_images_given_to_the_pipeline(tmp_path):
    for mode in ("RGB", "RGBA"):
        image = patches(IN_P3).convert(mode)
        image.info["icc_profile"] = P3
        (found,) = _each(image, "image")
        assert close(found[:, 8, 8::16].T.numpy() * 255, COLOURS)


@pytest.mark.parametrize("mode", ["LAB", "YCbCr", "HSV", "CMYK"])
def test_other_modes_given_to_the_pipeline(mode):
    image = patches(NEUTRAL)
    if mode == "LAB":
        ends = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *ends, outputMode="LAB")
    (found,) = _each(image if mode == "LAB" else image.convert(mode), "image")
    assert close(found[:, 8, 8::16].T.numpy() * 255, NEUTRAL, 4)


# ---- invalid profiles ----------------------------------------------------------------------------


BAD_PROFILES = {  # a profile, and the mode of the image that holds it
    "text": (b"no profile" * 20, "RGB"),
    "truncated": (P3[:300], "RGB"),
    "header": (P3[:128], "RGB"),
    "tag table": (P3[:132] + b"\xff" * 40 + P3[172:], "RGB"),
    "all black": (P3.replace(tiny.curve(None)[12:], bytes(2048)), "RGB"),
    "CMYK in RGB": (tiny.cmyk(), "RGB"),
    "grey in RGB": (tiny.grey(1.8), "RGB"),
    "RGB in CMYK": (P3, "CMYK"),
    "CMYK in grey": (tiny.cmyk(), "L"),
    "Lab": (ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(), "RGB"),
}


@pytest.mark.parametrize("name", BAD_PROFILES)
def test_a_bad_profile_is_one_warning_and_the_image_is_srgb(tmp_path, name, caplog):
    profile, mode = BAD_PROFILES[name]
    image = Image.fromarray(NOISE).convert(mode)
    for path, options in ((tmp_path / "a.jpg", {"icc_profile": profile}), (tmp_path / "b.jpg", {})):
        image.save(path, quality=95, **options)
    with caplog.at_level(logging.WARNING):
        first, second = read(tmp_path / "a.jpg"), read(tmp_path / "a.jpg")
    assert (first == read(tmp_path / "b.jpg")).all() and (second == first).all()
    (message,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "a.jpg") in message and "read as sRGB" in message


PACKED = zlib.compress(P3)
GOOD = chunk(b"iCCP", b"p3\0\0" + PACKED)
DAMAGED_CHUNKS = {
    "bad sum": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "flipped": GOOD[:60] + bytes([GOOD[60] ^ 8]) + GOOD[61:],
    "no zlib": chunk(b"iCCP", b"p3\0\0" + b"nothing" * 9),
    "cut": chunk(b"iCCP", b"p3\0\0" + PACKED[:50]),
    "unknown packing": chunk(b"iCCP", b"p3\0\7" + PACKED),
    "no name": chunk(b"iCCP", b"abcdef"),
    "too large": chunk(b"iCCP", b"p3\0\0" + zlib.compress(bytes(3_000_000))),
    "no primaries": chunk(b"cHRM", bytes(32)),
    "short chromaticities": chunk(b"cHRM", bytes(12)),
}


@pytest.mark.parametrize("name", DAMAGED_CHUNKS)
def test_damaged_colour_chunks_do_not_lose_the_image(tmp_path, name, caplog):
    path = with_chunks(tmp_path / "a.png", Image.fromarray(NOISE), DAMAGED_CHUNKS[name])
    with caplog.at_level(logging.WARNING):
        assert (read(path) == NOISE).all() and (read(path) == NOISE).all()
    assert [str(path) in one.getMessage() for one in caplog.records] == [True]


def test_jpeg_with_a_segment_of_the_profile_missing(tmp_path, caplog):
    large = P3 + bytes(150_000)
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
    which=st.sampled_from([P3, tiny.cmyk(), tiny.grey(2.2)]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    length=st.floats(0.02, 1),
)
def test_damaged_profiles_do_not_lose_the_image(tmp_path, which, edits, length):
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
        for number in range(images.MAX_WARNINGS + 20):
            path = tmp_path / f"{number}.png"
            path.write_bytes(data)
            read(path)
    assert len(caplog.records) == images.MAX_WARNINGS + 1


# ---- colour spaces without a profile -------------------------------------------------------------


def test_png_gamma_and_primaries(tmp_path):
    """A linear image, one in Display P3, and three that declare sRGB in other ways."""
    linear = patches(np.rint(tiny.values_in(NEUTRAL, tiny.SRGB, 1.0)))
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert close(read_patches(with_chunks(tmp_path / "linear.png", linear, gamma)), NEUTRAL)
    p3 = patches(IN_P3)
    corners = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
    primaries = chunk(b"cHRM", struct.pack(">8I", *(round(x * 100_000) for x in corners)))
    usual = chunk(b"gAMA", struct.pack(">I", 45_455))
    assert close(read_patches(with_chunks(tmp_path / "p3.png", p3, usual, primaries)), COLOURS)
    own = (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
    srgb = chunk(b"cHRM", struct.pack(">8I", *(round(x * 100_000) for x in own)))
    for added in ((usual,), (usual, srgb), (chunk(b"sRGB", b"\0"), gamma, primaries)):
        path = with_chunks(tmp_path / "srgb.png", Image.fromarray(NOISE), *added)
        assert (read(path) == NOISE).all()


def test_png_codes_take_precedence_over_the_profile(tmp_path):
    p3 = patches(IN_P3)
    grey = chunk(b"iCCP", b"x\0\0" + zlib.compress(tiny.rgb(tiny.PROPHOTO, 1.8)))
    coded = chunk(b"cICP", bytes([12, 13, 0, 1]))
    assert close(read_patches(with_chunks(tmp_path / "a.png", p3, coded, grey)), COLOURS)
    plain = chunk(b"cICP", bytes([1, 13, 0, 1]))
    assert (read(with_chunks(tmp_path / "b.png", Image.fromarray(NOISE), plain)) == NOISE).all()


def pq(light: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084: values, 0 to 255, of light in units of 203 nits."""
    y = (light * 203 / 10_000) ** (2610 / 16384)
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** (2523 / 32) * 255


def test_hdr_is_tone_mapped_by_its_range(tmp_path):
    greys = np.array([20, 60, 128, 200, 255])[:, None].repeat(3, 1)
    light = tiny.linear_of_srgb(greys / 255)
    coded = chunk(b"cICP", bytes([9, 16, 0, 1]))
    path = with_chunks(tmp_path / "dim.png", patches(pq(light)), coded)
    assert close(read_patches(path), greys, 5)  # nothing is brighter than white: unchanged
    bright = np.array([0.05, 0.2, 0.5, 1, 4, 20, 49])[:, None].repeat(3, 1)
    for transfer, values in ((16, pq(bright)), (18, np.linspace(30, 255, 7)[:, None].repeat(3, 1))):
        coded = chunk(b"cICP", bytes([9, transfer, 0, 1]))
        found = np.array(read_patches(with_chunks(tmp_path / "a.png", patches(values), coded)))
        assert (np.diff(found[:, 0]) > 3).all() and found[-1, 0] >= 252  # only one is white
        assert (found == found[:, :1]).all()


def test_avif_with_codes_and_no_profile(tmp_path):
    """Android writes such files: the codes declare Display P3."""
    p3 = patches(IN_P3)
    p3.save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    data = (tmp_path / "a.avif").read_bytes()
    at = data.index(b"colrnclx") + 8
    (tmp_path / "b.avif").write_bytes(data[:at] + b"\0\x0c\0\x0d" + data[at + 4 :])
    assert close(read_patches(tmp_path / "a.avif"), IN_P3, 3)
    assert close(read_patches(tmp_path / "b.avif"), COLOURS, 8)


def test_adobe_rgb_declared_by_exif(tmp_path):
    """Cameras set to Adobe RGB write the mark R03 of DCF, and no profile."""
    stored = patches(tiny.values_in(COLOURS, tiny.ADOBE, 563 / 256))
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 65535
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R03", 2: b"0100"}
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert close(read_patches(tmp_path / "a.jpg"), COLOURS, 4)
    other = Image.Exif()
    other.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R98", 2: b"0100"}
    stored.save(tmp_path / "b.jpg", exif=other, quality=100, subsampling=0)
    assert not close(read_patches(tmp_path / "b.jpg"), COLOURS, 9)
