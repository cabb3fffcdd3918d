# SPDX-License-Identifier: Apache-2.0
"""File formats recognised by their first bytes, with advice for those that are not supported."""

from __future__ import annotations

READ = "JPEG, PNG, WebP, BMP, HEIC or AVIF"

PNG = "save it as PNG"
DEVELOP = "develop it to PNG or JPEG, in sRGB"
TONE = "tone-map it to 8 bits and save it as PNG"
UNPACK = "unpack it"
EXPORT = "export its image as PNG"
FRAMES = (
    "give a video with its own extension (.mp4, .mov, .mkv), in the folder of its person, or save "
    "its frames as images"
)
FETCH = "download the image again: a server or a login page answered instead"
COMPANION = "give the file of the same name without ._"

# Name of the format, advice, signatures (offset, bytes). The first match counts: camera raw files
# come before TIFF, whose signature they share.
UNSUPPORTED = (
    ("a GIF, possibly animated", "save one frame as PNG", ((0, b"GIF8"),)),
    ("a camera's raw file (CR2)", DEVELOP, ((0, b"II*\0\x10\0\0\0CR"),)),
    ("a camera's raw file (RW2)", DEVELOP, ((0, b"IIU\0"),)),
    ("a camera's raw file (ORF)", DEVELOP, ((0, b"IIRO"), (0, b"IIRS"), (0, b"MMOR"))),
    ("a camera's raw file (RAF)", DEVELOP, ((0, b"FUJIFILMCCD-RAW"),)),
    ("a camera's raw file (X3F)", DEVELOP, ((0, b"FOVb"),)),
    ("a TIFF", PNG, ((0, b"II*\0"), (0, b"MM\0*"))),
    ("a BigTIFF", PNG, ((0, b"II+\0"), (0, b"MM\0+"))),
    ("a JPEG XL", PNG, ((0, b"\xff\x0a"), (4, b"JXL \r\n\x87\n"))),
    ("a JPEG 2000", PNG, ((4, b"jP  \r\n\x87\n"), (0, b"\xff\x4f\xff\x51"))),
    ("a JPEG-LS", PNG, ((0, b"\xff\xd8\xff\xf7"),)),
    ("a JPEG XR", PNG, ((0, b"II\xbc"),)),
    ("a Radiance HDR", TONE, ((0, b"#?RADIANCE"), (0, b"#?RGBE"))),
    ("an OpenEXR", TONE, ((0, b"v/1\x01"),)),
    ("a float map (PFM)", TONE, ((0, b"PF\n"), (0, b"Pf\n"))),
    ("a Photoshop file (PSD)", EXPORT, ((0, b"8BPS"),)),
    ("a GIMP file (XCF)", EXPORT, ((0, b"gimp xcf"),)),
    ("a portable map (PGM)", PNG, ((0, b"P5\n"),)),
    ("a portable map (PPM)", PNG, ((0, b"P6\n"),)),
    ("a QOI", PNG, ((0, b"qoif"),)),
    ("a DDS texture", PNG, ((0, b"DDS "),)),
    ("an icon (ICO)", PNG, ((0, b"\0\0\1\0"),)),
    ("a FITS image", PNG, ((0, b"SIMPLE  ="),)),
    ("a DICOM image", PNG, ((128, b"DICM"),)),
    ("a PDF", EXPORT, ((0, b"%PDF"),)),
    ("PostScript", EXPORT, ((0, b"%!PS"),)),
    ("an SVG", EXPORT, ((0, b"<svg"),)),
    ("a web page", FETCH, ((0, b"<!DOCTYPE"), (0, b"<html"))),
    ("XML", FETCH, ((0, b"<?xml"),)),
    ("a ZIP archive", UNPACK, ((0, b"PK\3\4"),)),
    ("a gzip archive", UNPACK, ((0, b"\x1f\x8b"),)),
    ("a 7z archive", UNPACK, ((0, b"7z\xbc\xaf\x27\x1c"),)),
    ("a RAR archive", UNPACK, ((0, b"Rar!"),)),
    ("a bzip2 archive", UNPACK, ((0, b"BZh"),)),
    ("an xz archive", UNPACK, ((0, b"\xfd7zXZ"),)),
    ("a Zstandard archive", UNPACK, ((0, b"(\xb5/\xfd"),)),
    ("a tar archive", UNPACK, ((257, b"ustar"),)),
    ("a video (Matroska or WebM)", FRAMES, ((0, b"\x1aE\xdf\xa3"),)),
    ("a video (AVI)", FRAMES, ((8, b"AVI "),)),
    ("a video (FLV)", FRAMES, ((0, b"FLV\1"),)),
    ("a video (MPEG)", FRAMES, ((0, b"\0\0\1\xba"),)),
    ("a video (WMV)", FRAMES, ((0, b"0&\xb2u"),)),
    ("a video (QuickTime)", FRAMES, ((4, b"moov"), (4, b"mdat"))),
    ("a NumPy array", PNG, ((0, b"\x93NUMPY"),)),
    ("an HDF5 file", EXPORT, ((0, b"\x89HDF\r\n"),)),
    ("a MATLAB file", EXPORT, ((0, b"MATLAB 5.0"),)),
    ("a Mac's AppleDouble file, not an image", COMPANION, ((0, b"\0\5\x16\7"),)),
    ("a Git LFS pointer", "run git lfs pull", ((0, b"version https://git-lfs"),)),
)

# Brands of HEIF files: still images, and sequences (animations).
STILLS = ("heic", "heix", "heim", "heis", "mif1", "mif2", "miaf", "avci", "vvic", "j2ki", "jpeg")
SEQUENCES = ("hevc", "hevx", "hevm", "hevs", "msf1", "avcs", "avis")
DNG_VERSION = 50706  # tag of TIFF


def brands(data: bytes) -> tuple[str, ...]:
    """Brands of an ISO media file, the major one first; () if it is another format."""
    if data[4:8] != b"ftyp":
        return ()
    end = min(max(int.from_bytes(data[:4]), 16), 256, len(data))
    found = [data[8:12], *(data[k : k + 4] for k in range(16, end - 3, 4))]
    return tuple(brand.decode("latin-1") for brand in found)


def media(data: bytes) -> str:
    """Whether a file is "AVIF" or "HEIF"; "" = neither."""
    major, *others = brands(data) or ("",)
    general = major in ("mif1", "msf1")
    if major in ("avif", "avis") or (general and {"avif", "avis"} & set(others)):
        return "AVIF"
    return "HEIF" if major in (*STILLS, *SEQUENCES) else ""


def describe(data: bytes) -> tuple[str, str]:
    """Name of an unsupported format, and advice; ("", "") if it is unknown.

    Args:
        data: The file, or its first 512 bytes.
    """
    if major := "".join(brands(data)[:1]):
        if major == "crx ":
            return "a camera's raw file (CR3)", DEVELOP
        return f"a video or sound (MPEG-4, brand {ascii(major.strip())[1:-1]})", FRAMES
    if data[:4] in (b"II*\0", b"MM\0*") and _is_dng(data):
        return "a camera's raw file (DNG)", DEVELOP
    text = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for name, advice, signatures in UNSUPPORTED:
        if any(_starts_with(data, text, *signature) for signature in signatures):
            return name, advice
    return "", ""


def _starts_with(data: bytes, text: bytes, offset: int, signature: bytes) -> bool:
    """Whether a file has a signature; that of a text format may follow spaces, in any case."""
    is_text = signature[:1] in (b"<", b"%", b"v")
    return data.startswith(signature, offset) or (is_text and text.startswith(signature.lower()))


def _is_dng(data: bytes) -> bool:
    """Whether the first directory of a TIFF has the tag of a DNG."""
    order = "little" if data.startswith(b"I") else "big"
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    tags = (data[start + 2 + 12 * k :][:2] for k in range(min(count, 512)))
    return any(int.from_bytes(tag, order) == DNG_VERSION for tag in tags)
