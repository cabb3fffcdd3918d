# SPDX-License-Identifier: Apache-2.0
"""Reads untrusted image files: upright uint8 sRGB, or an `ImageError`.

The sizes of the file and of the image are checked before anything is decoded, the format is
recognised by content, and no part of a broken image is used.

HEIC needs the extra `heif` (pillow-heif), AVIF a Pillow built with it. Of an MPO or HEIC with
several images, the first (primary) one is read: the others are previews, depth maps or the rest of
a burst. Colour profiles are applied, see `viewsynth.data.profiles`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

from viewsynth.data import formats, profiles

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".heic", ".heif", ".avif")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
MAX_PIXELS = 64_000_000
MAX_BYTES = 64_000_000
HEAD = 256 * 1024  # first bytes of a JPEG, which usually hold its size
JPEG = b"\xff\xd8\xff"  # signature
MIN_SIDE = 16
RANGES = (255, 1023, 4095, 65535)  # largest values of 8, 10, 12 and 16 bits
MAX_WARNINGS = 100  # images with a bad profile that one process reports

# EXIF orientation -> the operation that makes the image upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

logger = logging.getLogger(__name__)
_warned: set[str] = set()  # images that were reported already


class ImageError(ValueError):
    """An image that cannot be used; the message says what to do."""


class NotInstalledError(ImageError):
    """An image, perhaps a good one, of a format whose reader is not installed."""


def read(
    path: str | Path, box: tuple[int, int, int, int] | None = None, least: int = MIN_SIDE
) -> np.ndarray:
    """Read an image, upright and in sRGB, or a part of it.

    Transparent images are put on white, 16-bit ones scaled to 8 bits by their range, see `rgb`. A
    colour profile that cannot be used is reported once, and the image read as sRGB.

    Args:
        path: JPEG, PNG, WebP, BMP, HEIC or AVIF with any extension; not a symbolic link.
        box: left, top, right, bottom in pixels of the upright image; None = all of it.
        least: Smallest allowed side, pixels, > 0. The reconstruction needs `MIN_SIDE`; an
            evaluation must not drop smaller images.

    Returns:
        RGB, contiguous.  uint8 [H, W, 3]

    Raises:
        ImageError: if the file cannot be read, is too large, is broken or is not an image.
        NotInstalledError: if the reader of its format is not installed.
    """
    data = _read_bytes(Path(path))
    try:
        image = _decode(data, least, str(path))
    except ImageError:
        raise
    # Decoders raise any kind of exception for broken data.
    except Exception as error:
        raise ImageError(f"the image is truncated or damaged ({error}); copy it again") from error
    return crop(image, box, least)


def crop(
    image: np.ndarray, box: tuple[int, int, int, int] | None, least: int = MIN_SIDE
) -> np.ndarray:
    """Crop an upright image to a box.

    Args:
        image: uint8 [H, W, 3]
        box: left, top, right, bottom in pixels; None = the whole image.
        least: Smallest allowed side of the crop, pixels.

    Raises:
        ImageError: if the crop is smaller.
    """
    if box is None:
        return image
    height, width = image.shape[:2]
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], width), min(box[3], height)
    if min(right - left, bottom - top) < least:
        raise ImageError(
            f"the box {list(box)} covers less than {least} pixels a side of the {width}x{height} "
            "image"
        )
    return np.ascontiguousarray(image[top:bottom, left:right])


def _read_bytes(path: Path, count: int = MAX_BYTES) -> bytes:
    """The first bytes of a file, checked as in `open_file`."""
    with open_file(path, MAX_BYTES) as file:
        try:
            return file.read(count)
        except OSError as error:
            raise ImageError(f"the file cannot be read: {error.strerror}") from error


def open_file(path: Path, max_bytes: int) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: The file; not a symbolic link.
        max_bytes: Largest allowed size.

    Raises:
        ImageError: if it is not a regular file, is empty or too large, or cannot be opened.
    """
    # O_NONBLOCK: do not wait for a named pipe. O_NOFOLLOW: a link may lead anywhere.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(os.open(path, flags), "rb"))  # noqa: PTH123
            status = os.fstat(file.fileno())
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ImageError("symbolic links are refused; put the file itself there") from error
            raise ImageError(f"the file cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size == 0:
            raise ImageError("the file is empty (0 bytes)")
        if status.st_size > max_bytes:
            raise ImageError(
                f"the file has {status.st_size:,} bytes, the limit is {max_bytes:,}; crop or "
                "compress it"
            )
        stack.pop_all()
        return file


def _decode(data: bytes, least: int, name: str) -> np.ndarray:
    with _open_image(data) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(_too_large(f"{width}x{height} pixels"))
        if min(width, height) < least:
            raise ImageError(
                f"the image has {width}x{height} pixels, at least {least} a side are needed"
            )
        still = image.format == "MPO" or (
            image.format == "HEIF" and formats.brands(data)[0] not in formats.SEQUENCES
        )
        if getattr(image, "n_frames", 1) > 1 and not still:
            raise ImageError(f"an animated {image.format} is refused; save one frame as an image")
        image.load()
        return rgb(image, name, data)


def _open_image(data: bytes) -> Image.Image:
    """Read the header of an image."""
    kind = formats.media(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata does not matter
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if kind == "HEIF":
                return _heif_reader()(io.BytesIO(data))
            if kind == "AVIF":
                return Image.open(io.BytesIO(data), formats=_avif_formats())
            try:
                return Image.open(io.BytesIO(data), formats=FORMATS)
            except (UnidentifiedImageError, ValueError):
                if not data.startswith(profiles.PNG):
                    raise
                # The damage may be in the colour chunks only; `rgb` reports it.
                image = Image.open(io.BytesIO(profiles.without_colour(data)), formats=FORMATS)
                image.info["icc_profile"] = None
                return image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(_too_large("more pixels")) from error
    except UnidentifiedImageError as error:
        if kind:
            raise ImageError(f"the {kind} image is truncated or damaged; copy it again") from error
        name, advice = formats.describe(data)
        name = name or "not an image of a known format, or its header is damaged"
        advice = advice or "check it in an image viewer, and save it again as PNG"
        raise ImageError(f"the file is {name}; expected {formats.READ}; {advice}") from error


def _heif_reader() -> type:
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise NotInstalledError(
            "the file is a HEIC (HEIF) image, whatever its extension, and pillow-heif, which "
            "reads it, is not installed: pip install 'viewsynth[heif]', or save it as JPEG"
        ) from error
    return HeifImageFile


def _avif_formats() -> tuple[str, ...]:
    if not features.check("avif"):
        raise NotInstalledError(
            "the file is an AVIF image, whatever its extension, and this Pillow was built "
            "without AVIF: pip install --force-reinstall 'pillow>=12,<13', or save it as JPEG"
        )
    return ("AVIF",)


def _too_large(what: str) -> str:
    return f"the image has {what}; the limit is {MAX_PIXELS // 10**6} megapixels, scale it down"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 (upright) if it is missing or invalid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata must not lose a good image
        return 1


def rgb(image: Image.Image, name: str, data: bytes = b"") -> np.ndarray:
    """Pixels of an opened image: upright, in sRGB, on white.

    Values of 16 bits are divided by the end of their range: 65535, or 4095, 1023 or 255 if no value
    is larger, because cameras store 12 and 10 bits in 16-bit files, which would be black otherwise.
    14 bits cannot be told from a dark image of 16.

    Args:
        image: Image that Pillow opened.
        name: Name for the warning if the colour profile cannot be used.
        data: Content of its file, if there is one.

    Returns:
        uint8 [H, W, 3]
    """
    turn = UPRIGHT.get(_orientation(image))
    image = profiles.from_lab(image) if image.mode == "LAB" else _eight_bits(image, data)
    grey, alpha = image.mode in ("1", "L", "LA", "La"), None
    try:
        profile = profiles.declared(image, data)
    except profiles.ProfileError as error:
        profile = None
        _warn(name, error)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if profile:
        image = image.convert("L" if grey else "CMYK" if image.mode == "CMYK" else "RGB")
        try:
            image = profiles.to_srgb(image, profile)
        except profiles.ProfileError as error:
            _warn(name, error)
    image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("RGB")
    return np.array(image if turn is None else image.transpose(turn))


def _eight_bits(image: Image.Image, data: bytes) -> Image.Image:
    """Scale an image of floats or more than 8 bits by its range; others stay unchanged."""
    if image.mode[0] in "IF":
        values = np.asarray(image).astype(np.float32)
        most = values[np.isfinite(values)].max(initial=0)
        values = np.nan_to_num(values, nan=0, posinf=most, neginf=0)
        floats = (1,) if image.mode == "F" else ()
        scaled = Image.fromarray(_by_range(values, (*floats, *RANGES)))
    elif data.startswith(profiles.PNG) and data[24] == 16:
        # Pillow keeps the upper byte of each value, which suffices unless these are nearly empty.
        if max(high for _, high in image.getextrema()[:3]) > RANGES[2] >> 8:
            return image
        values = _both_bytes(data, image)
        colours = 1 if data[25] == 4 else 3
        parts = np.split(values, [colours], axis=2)  # alpha may have another range
        scaled = Image.fromarray(np.concatenate([_by_range(v, RANGES) for v in parts if v.size], 2))
    else:
        return image
    scaled.format = image.format
    scaled.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return scaled


def _by_range(values: np.ndarray, ranges: tuple[int, ...]) -> np.ndarray:
    """Non-negative values as bytes, divided by the smallest range that holds them."""
    most = float(values.max())
    full = next((one for one in ranges if most <= one), most)
    return np.rint(values.clip(0) * (255 / full)).astype(np.uint8)


def _both_bytes(data: bytes, image: Image.Image) -> np.ndarray:
    """The values of a 16-bit PNG with colours or alpha, of which Pillow reads the upper bytes."""
    grey = data[25] == 4  # grey and alpha: two values of two bytes are read as four of one byte
    with _open_image(data) as again:
        raw = "RGBA" if grey else f"{image.mode};16L"  # little-endian, so the lower byte is read
        again.tile = [tile._replace(args=raw) for tile in again.tile]
        again.load()
        lower = np.asarray(again)
    if grey:
        return lower[..., ::2] * np.float32(256) + lower[..., 1::2]
    return np.asarray(image) * np.float32(256) + lower


def _warn(name: str, error: Exception) -> None:
    """Warn of a colour profile, once for each image."""
    if name in _warned or len(_warned) > MAX_WARNINGS:
        return
    _warned.add(name)
    if len(_warned) <= MAX_WARNINGS:
        logger.warning(
            "%s: the colour profile is not used: %s; the image is read as sRGB: save it again with "
            "a valid profile if its colours are wrong",
            name,
            error,
        )
    else:
        logger.warning(
            "more than %d images have bad colour profiles: further ones are not reported",
            MAX_WARNINGS,
        )


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright image, in pixels; of a JPEG only the head is read.

    Raises:
        ImageError: if it cannot be read.
    """
    head = _read_bytes(path, HEAD)
    # A JPEG stores its orientation before the pixels; other formats may store it at the end.
    if head.startswith(JPEG):
        with contextlib.suppress(ImageError):
            return _size(head)
    return _size(_read_bytes(path) if len(head) == HEAD else head)


def _size(data: bytes) -> tuple[int, int]:
    try:
        with _open_image(data) as image:
            turned = _orientation(image) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except ImageError:
        raise
    # Broken headers raise any kind of exception, too.
    except Exception as error:
        raise ImageError(f"the image's size cannot be read ({error}); copy it again") from error
