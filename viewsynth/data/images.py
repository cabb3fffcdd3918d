# SPDX-License-Identifier: Apache-2.0
"""Read a picture that nobody vouches for: file in, upright uint8 RGB out, or `BadImage`.

`find` and `parse` get their pixels here. The size of the file and of the picture are checked before
anything is decoded, the format is told by content, and nothing of a broken picture is used.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
MAX_PIXELS = 64_000_000
MAX_BYTES = 64_000_000
MIN_SIDE = 16

# First bytes of what people hand in by mistake, to name it.
OTHERS = (
    (b"GIF8", "a GIF, possibly animated"), (b"II*\0", "a TIFF"), (b"MM\0*", "a TIFF"),
    (b"%PDF", "a PDF"), (b"<svg", "an SVG"), (b"<?xml", "XML"), (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"), (b"PK\3\4", "a ZIP archive"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)  # fmt: skip

# EXIF orientation -> what makes the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


class BadImage(ValueError):
    """A picture that cannot be used; the text is a sentence that a user can act on."""


def read(
    path: str | Path, box: tuple[int, int, int, int] | None = None, least: int = MIN_SIDE
) -> np.ndarray:
    """The upright picture, or a part of it.

    Transparent pictures are put on white, 16-bit ones scaled to 8 bits.

    Args:
        path: JPEG, PNG, WebP or BMP, whatever the extension; no symbolic link.
        box: left, top, right, bottom in pixels of the upright picture; None = all of it.
        least: Pixels of the shorter side, > 0. Nobody can be reconstructed from less than
            `MIN_SIDE`; an evaluation must not drop such pictures.
    Returns: RGB, uint8 [H, W, 3], contiguous.
    Raises: BadImage: if the file cannot be read, is too large, is broken or is no picture.
    """
    data = _bytes(Path(path))
    try:
        image = _decode(data, least)
    except BadImage:
        raise
    # Decoders meet broken bytes with any exception there is.
    except Exception as error:
        raise BadImage(f"the picture is truncated or damaged ({error})") from error
    if box is None:
        return image
    height, width = image.shape[:2]
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], width), min(box[3], height)
    if min(right - left, bottom - top) < least:
        raise BadImage(
            f"the box {list(box)} holds less than {least} pixels of the {width}x{height} picture"
        )
    return np.ascontiguousarray(image[top:bottom, left:right])


def _bytes(path: Path) -> bytes:
    """The file's content, if it is a regular file of a sane size."""
    # O_NONBLOCK: a named pipe must not make us wait. O_NOFOLLOW: a link may lead anywhere.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise BadImage("not a regular file")
            if about.st_size == 0:
                raise BadImage("the file is empty (0 bytes)")
            if about.st_size > MAX_BYTES:
                raise BadImage(
                    f"the file has {about.st_size:,} bytes, the limit is {MAX_BYTES:,}; "
                    "crop or compress it"
                )
            return file.read(MAX_BYTES)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadImage("symbolic links are refused; put the file itself there") from error
        raise BadImage(f"the file cannot be read: {error.strerror}") from error


def _decode(data: bytes, least: int) -> np.ndarray:
    with _open(data) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise BadImage(_too_large(f"{width}x{height} pixels"))
        if min(width, height) < least:
            raise BadImage(
                f"the picture has {width}x{height} pixels, at least {least} a side are needed"
            )
        # An MPO is a JPEG followed by previews or a depth map: its first picture is the photo.
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise BadImage(f"an animated {image.format} is refused; save one frame as a picture")
        image.load()
        turn = UPRIGHT.get(_orientation(image))
        if turn is None:
            return _rgb(image)
        return _rgb(image.transpose(turn))


def _open(data: bytes) -> Image.Image:
    """Read the header only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata: not of our concern
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(_too_large("more pixels")) from error
    except Image.UnidentifiedImageError as error:
        start = data[:200].lstrip().lower()
        what = next((name for magic, name in OTHERS if start.startswith(magic.lower())), None)
        raise BadImage(
            f"the file is {what or 'no picture that we can read, or its header is damaged'}; "
            f"expected {', '.join(FORMATS)}"
        ) from error


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


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey, in one of several byte orders
        grey = np.asarray(image).astype(np.float64).clip(0, 65535)
        return np.repeat(np.rint(grey / 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.new("RGBA", above.size, "white")
        image.alpha_composite(above)
    return np.array(image.convert("RGB"))


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, in pixels, by its header alone.

    Raises: BadImage: if it has none that can be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
                return image.size[::-1] if turned else image.size
    # Headers, too, are broken in any way there is.
    except Exception as error:
        raise BadImage("the size of the picture cannot be read: no picture, or damaged") from error
