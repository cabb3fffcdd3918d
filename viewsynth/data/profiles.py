# SPDX-License-Identifier: Apache-2.0
"""What a picture says of its colours, and the same picture in sRGB.

Read in the order that browsers take: the cICP chunk of a PNG, the embedded ICC profile, the chunks
sRGB, then gAMA and cHRM of a PNG, the nclx box of an AVIF or HEIC, and the mark of Adobe RGB that
cameras leave in EXIF (R03). Whatever is no ICC profile is made one, so that LittleCMS does all the
work: relative colorimetric intent with black point compensation, which moves whites to white and
blacks to black and leaves other colours of a matrix profile as they are.

A profile that is sRGB but for rounding changes nothing: no transform is run.
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

SAME = 2  # grey levels, of 255: a profile that moves no colour further is taken for sRGB
WHITE = 192  # a profile whose white comes out darker than this in a channel is damaged
NITS = 203  # luminance of diffuse white in HDR pictures (ITU-R BT.2408)
SRGB_POWER = 2.2  # the power that is written where the curve of sRGB is meant
GAMMA_SLACK = 0.05  # relative: what libpng calls no difference
PNG = b"\x89PNG\r\n\x1a\n"
COLOUR_CHUNKS = (b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM")
SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # mode of a picture: space of its profile

# Red, green, blue and white, CIE x and y. Numbers: the codes of ITU-T H.273.
D65 = (0.3127, 0.3290)
BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65)
ADOBE = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), D65)
PRIMARIES = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # P3 of cinemas
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
POWERS = {4: 2.2, 5: 2.8, 8: 1.0}  # transfer codes that are a power; all others: as sRGB
PQ, HLG = 16, 18  # transfer codes of HDR

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


class ProfileError(ValueError):
    """A colour profile that cannot be used; the text says why."""


def declared(image: Image.Image, data: bytes) -> bytes | None:
    """The ICC profile of a picture, its own or made from what else it says; None = sRGB.

    Args:
        image: As Pillow opened it, loaded.
        data: The file; b"" where there is none: then only `image.info` speaks.
    Raises: ProfileError: if it says something that makes no sense.
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
        return matrix(primaries, SRGB_CURVE if near else _power(power))
    if kind in ("AVIF", "HEIF") and (box := re.search(b"colrnclx(....)", data, re.DOTALL)):
        return _coded(image, *struct.unpack(">HH", box[1]))
    if kind in ("JPEG", "MPO") and "exif" in info and _says_adobe(image):
        return matrix(ADOBE, _power(563 / 256))
    return None


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the chunks of a PNG before its pixels; damaged ones as they are."""
    at = len(PNG)
    while data.startswith(PNG) and at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            return
        yield name, data[at + 8 : at + 8 + length]
        at += length + 12


def without(data: bytes) -> bytes:
    """A PNG without its chunks about colour, for when they are what is damaged."""
    kept, at = PNG, len(PNG)
    for name, content in chunks(data):
        if name not in COLOUR_CHUNKS:
            kept += data[at : at + len(content) + 12]
        at += len(content) + 12
    return kept + data[at:]


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """A picture in sRGB; the picture itself where the profile is sRGB already.

    Args:
        image: Mode RGB, L or CMYK.
        profile: An ICC profile of the same colour space; one of RGB also goes with grey.
    Raises: ProfileError: if the profile is damaged, or of another colour space.
    """
    space = _space(profile)
    if image.mode == "L" and space == "RGB":
        image = image.convert("RGB")
    if SPACES[image.mode] != space:
        raise ProfileError(f"it is one of {space} in a picture of {SPACES[image.mode]}")
    transform = _transform(profile, image.mode)
    return image if transform is None else transform.apply(image)


def from_lab(image: Image.Image) -> Image.Image:
    """A picture of mode LAB (D50) in sRGB."""
    ends = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, *ends, outputMode="RGB")


def _space(profile: bytes) -> str:
    if profile[36:40] != b"acsp":
        raise ProfileError("it is no ICC profile")
    return profile[16:20].decode("latin-1").strip()


@functools.lru_cache(64)  # a data set has one profile in a hundred thousand pictures
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None = it is sRGB."""
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
    asked, plain = _samples(mode)
    answer = np.asarray(transform.apply(asked)).astype(int)
    black, white = answer[0, 0], answer[-1, -1]
    if white.min() < WHITE or black.mean() > white.mean() - 64:
        raise ProfileError(f"it makes white {white.tolist()} and black {black.tolist()}")
    same = mode != "CMYK" and abs(answer - plain).max() <= SAME
    return None if same else transform


def _samples(mode: str) -> tuple[Image.Image, np.ndarray]:
    """Colours of a mode from black to white, and what they are in sRGB where a mode has no say."""
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(18, -1, 3)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    plain = colours if mode == "RGB" else greys
    asked = Image.fromarray(plain)
    if mode == "L":
        asked = asked.getchannel(0)
    elif mode == "CMYK":  # all four inks, from full to none
        asked = Image.merge("CMYK", [Image.fromarray(255 - greys[..., 0])] * 4)
    return asked, plain.astype(int)


# ---- profiles made from what is no profile -------------------------------------------------------


@functools.lru_cache(256)
def matrix(primaries: tuple, curve: bytes) -> bytes:
    """An ICC profile of three primaries and one curve (ICC.1:2001-04, the least that it asks for).

    Args:
        primaries: x and y of red, green, blue and white.
        curve: What `_curve` returns.
    Raises: ProfileError: if these are no primaries.
    """
    try:
        xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
        colours = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
        cones = BRADFORD @ np.stack([D50, xyz[:, 3]], 1)
        columns = np.linalg.inv(BRADFORD) @ np.diag(cones[:, 0] / cones[:, 1]) @ BRADFORD @ colours
        fixed = np.rint(np.column_stack([columns, D50]) * 65536).astype(">i4")
    except (ZeroDivisionError, ValueError, np.linalg.LinAlgError) as error:
        raise ProfileError(f"its primaries {primaries} are none") from error
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
    """An ICC curve of the light, 0 to 1, of the 256 values of a byte."""
    values = np.rint(np.clip(light, 0, 1) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + values.tobytes()


def _power(power: float) -> bytes:
    return _curve(VALUES**power)


VALUES = np.arange(256) / 255
SRGB_CURVE = _curve(np.where(VALUES <= 0.04045, VALUES / 12.92, ((VALUES + 0.055) / 1.055) ** 2.4))


def _coded(image: Image.Image, primaries: int, transfer: int) -> bytes | None:
    """The profile of codes of ITU-T H.273 (CICP); None where they say sRGB, BT.709 or nothing."""
    peak = 255
    if transfer == PQ:  # brought down by its own range
        peak = max(high for _, high in image.convert("RGB").getextrema())
    return coded(primaries, transfer, peak)


@functools.lru_cache(512)
def coded(primaries: int, transfer: int, peak: int = 255) -> bytes | None:
    """The profile of the codes of ITU-T H.273 (CICP) for colours; None = sRGB, or unknown codes.

    HDR is brought down by its range: light up to diffuse white stays nearly as it is where nothing
    is much brighter, and the brightest is white, by Reinhard's curve (SIGGRAPH 2002, eq. 4).

    Args:
        primaries, transfer: The codes; BT.601 and BT.709 are taken as sRGB, as screens do.
        peak: Largest value of the picture in PQ, 0 to 255.
    """
    value = VALUES
    if transfer == PQ:
        light = _pq(value)
        light = _reinhard(light, max(light[peak], 1.0))
    elif transfer == HLG:  # a screen of 1,000 nits (ITU-R BT.2100), each channel by itself
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
        light = _reinhard(scene**1.2 * 1000 / NITS, 1000 / NITS)
    elif transfer in POWERS:
        light = value ** POWERS[transfer]
    elif primaries in PRIMARIES:
        return matrix(PRIMARIES[primaries], SRGB_CURVE)
    else:
        return None
    return matrix(PRIMARIES.get(primaries, BT709), _curve(light))


def _pq(value: np.ndarray) -> np.ndarray:
    """Light of values of SMPTE ST 2084, diffuse white = 1."""
    root = value ** (32 / 2523)
    light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return 10_000 / NITS * light ** (16384 / 2610)


def _reinhard(light: np.ndarray, most: float) -> np.ndarray:
    """Light from 0 to `most` brought to 0 to 1."""
    return light * (1 + light / most**2) / (1 + light)


def _says_adobe(image: Image.Image) -> bool:
    """Whether a camera says Adobe RGB as DCF lets it: by a mark in EXIF instead of a profile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = image.getexif()
            space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
            mark = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
        return space == 2 or str(mark or "").startswith("R03")
    except Exception:  # damaged metadata says nothing
        return False
