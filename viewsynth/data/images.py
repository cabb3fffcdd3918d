# SPDX-License-Identifier: Apache-2.0
"""Read a picture that nobody vouches for: file in, upright uint8 sRGB out, or `ImageError`.

`find` and `parse` get their pixels here. The size of the file and of the picture are checked before
anything is decoded, the format is told by content, and nothing of a broken picture is used.

HEIC needs the extra `heif` (pillow-heif), AVIF a Pillow that was built with it. Of an MPO or HEIC
with several pictures the first is read, the primary one: the others are previews, depth maps or
the rest of a burst. Profiles of colour are followed, see `viewsynth.data.profiles`.
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
HEAD = 256 * 1024  # bytes in which a JPEG mostly says its size
JPEG = b"\xff\xd8\xff"  # begins one
MIN_SIDE = 16
RANGES = (255, 1023, 4095, 65535)  # largest values of 8, 10, 12 and 16 bits
MOST_TOLD = 100  # pictures with a bad profile that are named in one process

# EXIF orientation -> what makes the picture upright.
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
_told: set[str] = set()  # what was said already


class ImageError(ValueError):
    """A picture that cannot be used; the text is a sentence that a user can act on."""


class NotInstalled(ImageError):
    """A good picture, perhaps, of a format whose reader is not installed."""


def read(
    path: str | Path, box: tuple[int, int, int, int] | None = None, least: int = MIN_SIDE
) -> np.ndarray:
    """The upright picture in sRGB, or a part of it.

    Transparent pictures are put on white, 16-bit ones brought to 8 bits by their range, see `rgb`.
    A colour profile that cannot be used is told once, and the picture taken as sRGB.

    Args:
        path: JPEG, PNG, WebP, BMP, HEIC or AVIF, whatever the extension; no symbolic link.
        box: left, top, right, bottom in pixels of the upright picture; None = all of it.
        least: Pixels of the shorter side, > 0. Nobody can be reconstructed from less than
            `MIN_SIDE`; an evaluation must not drop such pictures.
    Returns: RGB, uint8 [H, W, 3], contiguous.

    Raises:
        ImageError: if the file cannot be read, is too large, is broken or is no picture.
        NotInstalled: if what reads its format is not installed.
    """
    data = _bytes(Path(path))
    try:
        image = _decode(data, least, str(path))
    except ImageError:
        raise
    # Decoders meet broken bytes with any exception there is.
    except Exception as error:
        raise ImageError(f"the picture is truncated or damaged ({error}); copy it again") from error
    return part(image, box, least)


def part(
    image: np.ndarray, box: tuple[int, int, int, int] | None, least: int = MIN_SIDE
) -> np.ndarray:
    """What a box, see `read`, holds of an upright picture.

    Raises: ImageError: if that is too little.
    """
    if box is None:
        return image
    height, width = image.shape[:2]
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], width), min(box[3], height)
    if min(right - left, bottom - top) < least:
        raise ImageError(
            f"the box {list(box)} holds less than {least} pixels of the {width}x{height} picture"
        )
    return np.ascontiguousarray(image[top:bottom, left:right])


def _bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """The file's content, or so many bytes of it, if it is a regular file of a sane size."""
    with opened(path, MAX_BYTES) as file:
        try:
            return file.read(most)
        except OSError as error:
            raise ImageError(f"the file cannot be read: {error.strerror}") from error


def opened(path: Path, most: int) -> BinaryIO:
    """A file opened to be read, if it is a regular one and no link.

    Args:
        most: Bytes that it may have.
    Raises: ImageError: if it is none, empty or too large, or may not be read.
    """
    # O_NONBLOCK: a named pipe must not make us wait. O_NOFOLLOW: a link may lead anywhere.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(os.open(path, flags), "rb"))  # noqa: PTH123
            about = os.fstat(file.fileno())
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ImageError("symbolic links are refused; put the file itself there") from error
            raise ImageError(f"the file cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(about.st_mode):
            raise ImageError("not a regular file")
        if about.st_size == 0:
            raise ImageError("the file is empty (0 bytes)")
        if about.st_size > most:
            raise ImageError(
                f"the file has {about.st_size:,} bytes, the limit is {most:,}; crop or compress it"
            )
        stack.pop_all()
        return file


def _decode(data: bytes, least: int, name: str) -> np.ndarray:
    with _open(data) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(_too_large(f"{width}x{height} pixels"))
        if min(width, height) < least:
            raise ImageError(
                f"the picture has {width}x{height} pixels, at least {least} a side are needed"
            )
        still = image.format == "MPO" or (
            image.format == "HEIF" and formats.brands(data)[0] not in formats.SEQUENCES
        )
        if getattr(image, "n_frames", 1) > 1 and not still:
            raise ImageError(f"an animated {image.format} is refused; save one frame as a picture")
        image.load()
        return rgb(image, name, data)


def _open(data: bytes) -> Image.Image:
    """Read the header only."""
    kind = formats.media(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata: not of our concern
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if kind == "HEIF":
                return _heif()(io.BytesIO(data))
            if kind == "AVIF":
                return Image.open(io.BytesIO(data), formats=_avif())
            try:
                return Image.open(io.BytesIO(data), formats=FORMATS)
            except (UnidentifiedImageError, ValueError):
                if not data.startswith(profiles.PNG):
                    raise
                # What is damaged may be what it says of its colours: `rgb` will tell.
                image = Image.open(io.BytesIO(profiles.without(data)), formats=FORMATS)
                image.info["icc_profile"] = None
                return image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(_too_large("more pixels")) from error
    except UnidentifiedImageError as error:
        if kind:
            raise ImageError(
                f"the {kind} picture is truncated or damaged; copy it again"
            ) from error
        what, do = formats.named(data)
        what = what or "no picture that we can read, or its header is damaged"
        do = do or "look at it in a viewer, and save it anew as PNG"
        raise ImageError(f"the file is {what}; expected {formats.READ}; {do}") from error


def _heif() -> type:
    """What opens a HEIC."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise NotInstalled(
            "the file is a HEIC (HEIF) picture, whatever its name says, and pillow-heif, which "
            "reads it, is not installed: pip install 'viewsynth[heif]', or save it as JPEG"
        ) from error
    return HeifImageFile


def _avif() -> tuple[str, ...]:
    if not features.check("avif"):
        raise NotInstalled(
            "the file is an AVIF picture, whatever its name says, and this Pillow was built "
            "without AVIF: pip install --force-reinstall 'pillow>=12,<13', or save it as JPEG"
        )
    return ("AVIF",)


def _too_large(what: str) -> str:
    return f"the picture has {what}; the limit is {MAX_PIXELS // 10**6} megapixels, scale it down"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation; 1 (upright) where there is none or it makes no sense."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata is no reason to lose a good picture
        return 1


def rgb(image: Image.Image, name: str, data: bytes = b"") -> np.ndarray:
    """The pixels of a picture: upright, in sRGB, on white.

    Values of 16 bits are divided by what their range ends at: 65535, or 4095, 1023 or 255 where no
    colour is larger, as cameras leave 12 and 10 bits in files of 16; as 16 bits such a picture
    would be black. 14 bits are not told from a dark picture of 16.

    Args:
        image: As Pillow opened it.
        name: For the warning if its colour profile cannot be used.
        data: Its file, if there is one.
    Returns: uint8 [H, W, 3]
    """
    turn = UPRIGHT.get(_orientation(image))
    image = profiles.from_lab(image) if image.mode == "LAB" else _eight_bits(image, data)
    grey, alpha = image.mode in ("1", "L", "LA", "La"), None
    try:
        profile = profiles.declared(image, data)
    except profiles.ProfileError as error:
        profile = _tell(name, error)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if profile:
        image = image.convert("L" if grey else "CMYK" if image.mode == "CMYK" else "RGB")
        try:
            image = profiles.to_srgb(image, profile)
        except profiles.ProfileError as error:
            _tell(name, error)
    image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("RGB")
    return np.array(image if turn is None else image.transpose(turn))


def _eight_bits(image: Image.Image, data: bytes) -> Image.Image:
    """A picture of more than 8 bits, or of floats, by its range; others as they are."""
    if image.mode[0] in "IF":
        values = np.asarray(image).astype(np.float32)
        most = values[np.isfinite(values)].max(initial=0)
        values = np.nan_to_num(values, nan=0, posinf=most, neginf=0)
        floats = (1,) if image.mode == "F" else ()
        made = Image.fromarray(_by_range(values, (*floats, *RANGES)))
    elif data.startswith(profiles.PNG) and data[24] == 16:
        # Pillow keeps the upper byte of each value. That is all, unless the upper ones are empty.
        if max(high for _, high in image.getextrema()[:3]) > RANGES[2] >> 8:
            return image
        values = _both_bytes(data, image)
        colours = 1 if data[25] == 4 else 3
        parts = np.split(values, [colours], axis=2)  # alpha may be of another range
        made = Image.fromarray(np.concatenate([_by_range(v, RANGES) for v in parts if v.size], 2))
    else:
        return image
    made.format = image.format
    made.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return made


def _by_range(values: np.ndarray, ranges: tuple[int, ...]) -> np.ndarray:
    """Values from 0 on as bytes, divided by the least range that holds them.  uint8"""
    most = float(values.max())
    full = next((one for one in ranges if most <= one), most)
    return np.rint(values.clip(0) * (255 / full)).astype(np.uint8)


def _both_bytes(data: bytes, image: Image.Image) -> np.ndarray:
    """The values of a 16-bit PNG with colours or alpha, of which Pillow read the upper bytes."""
    grey = data[25] == 4  # with alpha: two values of two bytes are read as four of one
    with _open(data) as again:
        raw = "RGBA" if grey else f"{image.mode};16L"  # as if the lower byte came first
        again.tile = [tile._replace(args=raw) for tile in again.tile]
        again.load()
        lower = np.asarray(again)
    if grey:
        return lower[..., ::2] * np.float32(256) + lower[..., 1::2]
    return np.asarray(image) * np.float32(256) + lower


def _tell(name: str, error: Exception) -> None:
    """Warn of a colour profile, once for each picture."""
    if name in _told or len(_told) > MOST_TOLD:
        return
    _told.add(name)
    if len(_told) <= MOST_TOLD:
        logger.warning(
            "%s: its colour profile is not used: %s; the picture is taken as sRGB: save it anew "
            "with a sound profile if its colours are wrong",
            name,
            error,
        )
    else:
        logger.warning("more pictures than %d have such profiles: no more are named", MOST_TOLD)


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, in pixels; of a JPEG only the head is read.

    Raises: ImageError: if it has none that can be read.
    """
    head = _bytes(path, HEAD)
    # Before the pixels, a JPEG says how it is turned; other formats may say so at the end.
    if head.startswith(JPEG):
        with contextlib.suppress(ImageError):
            return _size(head)
    return _size(_bytes(path) if len(head) == HEAD else head)


def _size(data: bytes) -> tuple[int, int]:
    try:
        with _open(data) as image:
            turned = _orientation(image) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except ImageError:
        raise
    # Headers, too, are broken in any way there is.
    except Exception as error:
        raise ImageError(f"the picture's size cannot be read ({error}); copy it again") from error
