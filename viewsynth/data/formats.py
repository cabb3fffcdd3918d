# SPDX-License-Identifier: Apache-2.0
"""Formats told by their first bytes, and what to do about those that are not read as pictures."""

from __future__ import annotations

READ = "JPEG, PNG, WebP, BMP, HEIC or AVIF"

PNG_IT = "save it as PNG"
DEVELOP = "develop it to PNG or JPEG, in sRGB"
TONE = "tone-map it to 8 bits and save it as PNG"
UNPACK = "unpack it"
EXPORT = "export its picture as PNG"
FRAMES = (
    "give a video with its own extension (.mp4, .mov, .mkv), in the folder of its person, or save "
    "its frames as pictures"
)
FETCH = "fetch the picture again: a server or a login page answered instead"

# Where the bytes stand, the bytes, what the file is, what to do. The first that fits is taken.
OTHERS = (
    (0, b"GIF8", "a GIF, possibly animated", "save one frame as PNG"),
    (0, b"II*\0\x10\0\0\0CR", "a camera's raw file (CR2)", DEVELOP),
    (0, b"IIU\0", "a camera's raw file (RW2)", DEVELOP),
    (0, b"IIRO", "a camera's raw file (ORF)", DEVELOP),
    (0, b"IIRS", "a camera's raw file (ORF)", DEVELOP),
    (0, b"MMOR", "a camera's raw file (ORF)", DEVELOP),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)", DEVELOP),
    (0, b"FOVb", "a camera's raw file (X3F)", DEVELOP),
    (0, b"II*\0", "a TIFF", PNG_IT),
    (0, b"MM\0*", "a TIFF", PNG_IT),
    (0, b"II+\0", "a BigTIFF", PNG_IT),
    (0, b"MM\0+", "a BigTIFF", PNG_IT),
    (0, b"\xff\x0a", "a JPEG XL", PNG_IT),
    (4, b"JXL \r\n\x87\n", "a JPEG XL", PNG_IT),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000", PNG_IT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000", PNG_IT),
    (0, b"\xff\xd8\xff\xf7", "a JPEG-LS", PNG_IT),
    (0, b"II\xbc", "a JPEG XR", PNG_IT),
    (0, b"#?RADIANCE", "a Radiance HDR", TONE),
    (0, b"#?RGBE", "a Radiance HDR", TONE),
    (0, b"v/1\x01", "an OpenEXR", TONE),
    (0, b"PF\n", "a float map (PFM)", TONE),
    (0, b"Pf\n", "a float map (PFM)", TONE),
    (0, b"8BPS", "a Photoshop file (PSD)", EXPORT),
    (0, b"gimp xcf", "a GIMP file (XCF)", EXPORT),
    (0, b"P5\n", "a portable map (PGM)", PNG_IT),
    (0, b"P6\n", "a portable map (PPM)", PNG_IT),
    (0, b"qoif", "a QOI", PNG_IT),
    (0, b"DDS ", "a DDS texture", PNG_IT),
    (0, b"\0\0\1\0", "an icon (ICO)", PNG_IT),
    (0, b"SIMPLE  =", "a FITS picture", PNG_IT),
    (128, b"DICM", "a DICOM picture", PNG_IT),
    (0, b"%PDF", "a PDF", EXPORT),
    (0, b"%!PS", "PostScript", EXPORT),
    (0, b"<svg", "an SVG", EXPORT),
    (0, b"<!DOCTYPE", "a web page", FETCH),
    (0, b"<html", "a web page", FETCH),
    (0, b"<?xml", "XML", FETCH),
    (0, b"PK\3\4", "a ZIP archive", UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"BZh", "a bzip2 archive", UNPACK),
    (0, b"\xfd7zXZ", "an xz archive", UNPACK),
    (0, b"(\xb5/\xfd", "a Zstandard archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", FRAMES),
    (8, b"AVI ", "a video (AVI)", FRAMES),
    (0, b"FLV\1", "a video (FLV)", FRAMES),
    (0, b"\0\0\1\xba", "a video (MPEG)", FRAMES),
    (0, b"0&\xb2u", "a video (WMV)", FRAMES),
    (4, b"moov", "a video (QuickTime)", FRAMES),
    (4, b"mdat", "a video (QuickTime)", FRAMES),
    (0, b"\x93NUMPY", "a NumPy array", PNG_IT),
    (0, b"\x89HDF\r\n", "an HDF5 file", EXPORT),
    (0, b"MATLAB 5.0", "a MATLAB file", EXPORT),
    (
        0,
        b"\0\5\x16\7",
        "a Mac's AppleDouble file, no picture",
        "give the file of the same name without ._",
    ),
    (0, b"version https://git-lfs", "a Git LFS pointer", "run git lfs pull"),
)

HEIF = (
    "heic",
    "heix",
    "heim",
    "heis",
    "hevc",
    "hevx",
    "hevm",
    "hevs",
    "mif1",
    "mif2",
    "msf1",
    "miaf",
    "avci",
    "avcs",
    "vvic",
    "j2ki",
    "jpeg",
)
SEQUENCES = ("hevc", "hevx", "hevm", "hevs", "msf1", "avcs", "avis")  # of pictures: animated
DNG_VERSION = 50706  # tag of TIFF


def brands(data: bytes) -> tuple[str, ...]:
    """What an ISO media file says it is: its major brand, then the compatible ones; () = none."""
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
    return "HEIF" if major in HEIF else ""


def named(data: bytes) -> tuple[str, str]:
    """What a file is that is not read, and what to do; ("", "") where nobody knows.

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
    for at, magic, what, do in OTHERS:
        written = magic[:1] in (b"<", b"%", b"v")  # by people: blanks before it, any case
        if data.startswith(magic, at) or (written and text.startswith(magic.lower())):
            return what, do
    return "", ""


def _is_dng(data: bytes) -> bool:
    """Whether the first directory of a TIFF has the tag of DNG."""
    order = "little" if data.startswith(b"I") else "big"
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    tags = (data[start + 2 + 12 * k :][:2] for k in range(min(count, 512)))
    return any(int.from_bytes(tag, order) == DNG_VERSION for tag in tags)
