# SPDX-License-Identifier: Apache-2.0
"""Colour profiles: reads the colour space that an image declares, and converts the image to sRGB.

Sources of the colour space, in the order of browsers: the cICP chunk of a PNG, the embedded ICC
profile, the chunks sRGB, then gAMA and cHRM of a PNG, the nclx box of an AVIF or HEIC, and the EXIF
mark of Adobe RGB (R03) that cameras write. All are turned into an ICC profile, which LittleCMS
applies with relative colorimetric intent and black point compensation: white maps to white, black
to black, and other colours of a matrix profile are unchanged.

A profile that equals sRGB up to rounding changes nothing: no transform is run.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, ImageCms

SAME = 2  # grey levels, of 255: a profile that moves no colour further counts as sRGB
WHITE = 192  # a profile that makes white darker than this in a channel is damaged
NITS = 203  # luminance of diffuse white in HDR images (ITU-R BT.2408)
SRGB_POWER = 2.2  # the power that files state when they mean the curve of sRGB
GAMMA_SLACK = 0.05  # relative difference of powers that libpng ignores
PNG = b"\x89PNG\r\n\x1a\n"
COLOUR_CHUNKS = (b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM")
SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # image mode: colour space of its profile

# CIE x and y of red, green, blue and white. Keys: the codes of ITU-T H.273.
D65 = (0.3127, 0.3290)
BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), D65)
PRIMARIES = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3, cinema
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
POWERS = {4: 2.2, 5: 2.8, 8: 1.0}  # transfer codes that are a power; others count as sRGB
PQ, HLG = 16, 18  # transfer codes of HDR

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


class ProfileError(ValueError):
    """A colour profile that cannot be used; the message says why."""


def declared(image: Image.Image, data: bytes) -> bytes | None:
    """The ICC profile of an image: its own, or one built from other metadata; None = sRGB.

    Args:
        image: Image that Pillow opened and loaded.
        data: Content of its file; b"" if there is none: then only `image.info` is used.

    Raises:
        ProfileError: if the metadata are invalid.
    """
    info, kind = image.info, image.format
    if kind == "PNG" and (code := dict(chunks(data)).get(b"cICP")):
        return _coded(image, *code[:2])
    if "icc_profile" in info:
        if not info["icc_profile"]:
            raise ProfileError("it is damaged")
        return info["icc_profile"]
    if kind == "PNG" and "srgb" not in info and ("gamma" in info or "chromaticity" in info):
        xy = info.get("chromaticity", (*D65, *BT709[0], *BT709[1], *BT709[2]))
        primaries = (xy[2:4], xy[4:6], xy[6:8], xy[:2])
        power = 1 / (info.get("gamma") or 1 / SRGB_POWER)
        near = abs(power / SRGB_POWER - 1) <= GAMMA_SLACK
        return matrix_profile(primaries, SRGB_CURVE if near else _power(power))
    if kind in ("AVIF", "HEIF") and (box := re.search(b"colrnclx(....)", data, re.DOTALL)):
        return _coded(image, *struct.unpack(">HH", box[1]))
    if kind in ("JPEG", "MPO") and "exif" in info and _is_adobe_rgb(image):
        return matrix_profile(ADOBE, _power(563 / 256))
    return None


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the chunks of a PNG before its pixels, including damaged ones."""
    at = len(PNG)
    while data.startswith(PNG) and at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            return
        yield name, data[at + 8 : at + 8 + length]
        at += length + 12


def without_colour(data: bytes) -> bytes:
    """A PNG without its colour chunks, which may be damaged."""
    kept, at = PNG, len(PNG)
    for name, content in chunks(data):
        if name not in COLOUR_CHUNKS:
            kept += data[at : at + len(content) + 12]
        at += len(content) + 12
    return kept + data[at:]


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image to sRGB; an image whose profile is sRGB already is returned unchanged.

    Args:
        image: Image of mode RGB, L or CMYK.
        profile: ICC profile of the same colour space; an RGB profile also applies to grey.

    Raises:
        ProfileError: if the profile is damaged, or of another colour space.
    """
    space = _space(profile)
    if image.mode == "L" and space == "RGB":
        image = image.convert("RGB")
    if SPACES[image.mode] != space:
        raise ProfileError(f"it is for {space}, but the image is {SPACES[image.mode]}")
    transform = _transform(profile, image.mode)
    return image if transform is None else transform.apply(image)


def from_lab(image: Image.Image) -> Image.Image:
    """Convert an image of mode LAB (D50) to sRGB."""
    ends = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, *ends, outputMode="RGB")


def _space(profile: bytes) -> str:
    if profile[36:40] != b"acsp":
        raise ProfileError("it is not an ICC profile")
    return profile[16:20].decode("latin-1").strip()


@functools.lru_cache(64)  # the images of a data set share a few profiles
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None = the profile is sRGB."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ProfileError(f"LittleCMS cannot use it: {error}") from error
    colours, expected = _samples(mode)
    found = np.asarray(transform.apply(colours)).astype(int)
    black, white = found[0, 0], found[-1, -1]
    if white.min() < WHITE or black.mean() > white.mean() - 64:
        raise ProfileError(f"it maps white to {white.tolist()} and black to {black.tolist()}")
    same = mode != "CMYK" and abs(found - expected).max() <= SAME
    return None if same else transform


def _samples(mode: str) -> tuple[Image.Image, np.ndarray]:
    """Test colours of a mode, black first and white last, and their sRGB values by default."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(18, -1, 3)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    expected = colours if mode == "RGB" else greys
    image = Image.fromarray(expected)
    if mode == "L":
        image = image.getchannel(0)
    elif mode == "CMYK":  # all four inks, from full to none
        image = Image.merge("CMYK", [Image.fromarray(255 - greys[..., 0])] * 4)
    return image, expected.astype(int)


# ---- profiles built from other metadata ----------------------------------------------------------


@functools.lru_cache(256)
def matrix_profile(primaries: tuple, curve: bytes) -> bytes:
    """Build a minimal ICC profile of three primaries and one curve (ICC.1:2001-04).

    Args:
        primaries: CIE x and y of red, green, blue and white.
        curve: The curve as `_curve` encodes it.

    Raises:
        ProfileError: if the primaries are invalid.
    """
    try:
        xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
        colours = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
        cones = BRADFORD @ np.stack([D50, xyz[:, 3]], 1)
        columns = np.linalg.inv(BRADFORD) @ np.diag(cones[:, 0] / cones[:, 1]) @ BRADFORD @ colours
        fixed = np.rint(np.column_stack([columns, D50]) * 65536).astype(">i4")
    except (ZeroDivisionError, ValueError, np.linalg.LinAlgError) as error:
        raise ProfileError(f"its primaries {primaries} are invalid") from error
    tags = [
        (name, b"XYZ \0\0\0\0" + fixed[:, k].tobytes())
        for k, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"))
    ]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags:
        start = 132 + 12 * len(tags) + len(body)
        table += name + struct.pack(">II", start, len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12x4s28x12s48x",
        128 + len(table) + len(body),
        b"",
        0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"acsp",
        np.rint(D50 * 65536).astype(">i4").tobytes(),
    )
    return head + table + body


def _curve(light: np.ndarray) -> bytes:
    """Encode an ICC curve: the light, 0 to 1, of each of the 256 values of a byte."""
    values = np.rint(np.clip(light, 0, 1) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + values.tobytes()


def _power(power: float) -> bytes:
    return _curve(VALUES**power)


VALUES = np.arange(256) / 255
SRGB_CURVE = _curve(np.where(VALUES <= 0.04045, VALUES / 12.92, ((VALUES + 0.055) / 1.055) ** 2.4))


def _coded(image: Image.Image, primaries: int, transfer: int) -> bytes | None:
    """The profile of the codes of an image, see `profile_of_codes`."""
    peak = 255
    if transfer == PQ:  # tone-mapped by its own range
        peak = max(high for _, high in image.convert("RGB").getextrema())
    return profile_of_codes(primaries, transfer, peak)


@functools.lru_cache(512)
def profile_of_codes(primaries: int, transfer: int, peak: int = 255) -> bytes | None:
    """The profile of colour codes of ITU-T H.273 (CICP); None = sRGB, BT.709 or unknown codes.

    HDR is tone-mapped by its range with Reinhard's curve (SIGGRAPH 2002, eq. 4): the brightest
    value becomes white, and light up to diffuse white hardly changes if nothing is much brighter.

    Args:
        primaries: Code of the primaries.
        transfer: Code of the curve; BT.601 and BT.709 count as sRGB, as screens treat them.
        peak: Largest value of an image in PQ, 0 to 255.
    """
    value = VALUES
    if transfer == PQ:
        light = _pq(value)
        light = _reinhard(light, max(light[peak], 1.0))
    elif transfer == HLG:  # on a screen of 1,000 nits (ITU-R BT.2100), each channel separately
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
        light = _reinhard(scene**1.2 * 1000 / NITS, 1000 / NITS)
    elif transfer in POWERS:
        light = value ** POWERS[transfer]
    elif primaries in PRIMARIES:
        return matrix_profile(PRIMARIES[primaries], SRGB_CURVE)
    else:
        return None
    return matrix_profile(PRIMARIES.get(primaries, BT709), _curve(light))


def _pq(value: np.ndarray) -> np.ndarray:
    """Light of PQ values (SMPTE ST 2084), diffuse white = 1."""
    root = value ** (32 / 2523)
    light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return 10_000 / NITS * light ** (16384 / 2610)


def _reinhard(light: np.ndarray, most: float) -> np.ndarray:
    """Tone-map light from [0, most] to [0, 1]."""
    return light * (1 + light / most**2) / (1 + light)


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF marks the image as Adobe RGB, which DCF allows instead of a profile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = image.getexif()
            space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
            mark = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
        return space == 2 or str(mark or "").startswith("R03")
    except Exception:  # damaged metadata count as none
        return False
