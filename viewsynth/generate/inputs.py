# SPDX-License-Identifier: Apache-2.0
"""Images given as paths, PIL images or arrays -> the crops of one person each.

What `viewsynth.generate.gather` does for the input list of a run, for `Synthesizer.reconstruct`.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from viewsynth.data import images as files
from viewsynth.generate import gather
from viewsynth.records import Sample
from viewsynth.runtime.files import sha256

if TYPE_CHECKING:
    from viewsynth import reconstruct

ImageLike = str | os.PathLike | Image.Image | np.ndarray
IMAGES = "a path, a PIL image or a uint8 array [H, W, 3]"


@dataclass
class Request:
    """One person to reconstruct.

    Args:
        pid: Identity.
        images: At least one.
        elevations: Of the camera of each image, degrees; None = estimated.
        group: The usable crops, see `prepare`.
        problems: Why the other images are not used.
    """

    pid: str
    images: list[ImageLike]
    elevations: list[float | None]
    group: gather.PersonCrops = field(default_factory=gather.PersonCrops)
    problems: list[str] = field(default_factory=list)


def requests(
    images: ImageLike | Sequence,
    elevation: float | Sequence | None,
    pid: str | Sequence[str] | None,
) -> tuple[list[Request], bool]:
    """Check the arguments of `Synthesizer.reconstruct` and group them by person; reads no image.

    Args:
        images: See there.
        elevation: See there.
        pid: See there.

    Returns:
        One request per person, and whether several people were asked for.

    Raises:
        TypeError, ValueError: If the arguments are not as `Synthesizer.reconstruct` says.
        FileNotFoundError: If a path does not exist.
    """
    groups = [images] if _is_image(images) else _listed(images)
    several = not all(map(_is_image, groups))
    groups = groups if several else [groups]
    pids = _each(pid, len(groups), "pid") if several else [pid]
    elevations = _each(elevation, len(groups), "elevation") if several else [elevation]
    default = "person-{}" if several else "person"
    asked = []
    for number, (group, name, values) in enumerate(zip(groups, pids, elevations, strict=True)):
        if not (group := _listed(group)):
            raise ValueError(
                "images: expected at least one image of each person, got an empty list"
            )
        asked.append(
            Request(
                default.format(number) if name is None else str(name),
                [_checked(image) for image in group],
                [_degrees(value) for value in _each(values, len(group), "elevation")],
            )
        )
    return asked, several


def prepare(request: Request, tools: reconstruct.Tools, mode: str) -> None:
    """Read the images of a request and cut them to the person, into its `group`.

    Args:
        request: Changed in place.
        tools: For their pose model and detector.
        mode: See `gather.cut`.
    """
    names: list[str] = []
    for image, elevation in zip(request.images, request.elevations, strict=True):
        path = isinstance(image, Path)
        name = image.as_posix() if path else f"image {len(names)}"
        names.append(f"{name} ({len(names)})" if name in names else name)
        sample = Sample(paths=(Path(name),), pid=request.pid, name=names[-1], elevation=elevation)
        try:
            pixels = files.read(image) if path else _pixels(image, name)
            digest = sha256(image) if path else hashlib.sha256(pixels.tobytes()).hexdigest()
            ((part, crop),) = gather.cut(sample, pixels, tools, mode, option='crops="yes"')
        except (files.ImageError, gather.UnusableError) as error:
            request.problems.append(f"{names[-1]}: {error}")
            continue
        request.group.add(part, crop, digest)


def _is_image(value) -> bool:
    return isinstance(value, str | os.PathLike | Image.Image | np.ndarray)


def _listed(value) -> list:
    """The images of one person, or the people, as a list."""
    if _is_image(value) or not isinstance(value, Iterable):
        raise _no_image(value)
    return list(value)


def _no_image(value) -> TypeError:
    return TypeError(
        f"images must be one image, a list of images (one person) or a list of lists (a list per "
        f"person), where an image is {IMAGES}; got {type(value).__name__} in its place"
    )


def _each(value, count: int, name: str) -> list:
    """One value per person or image: the given value for all, or a sequence of as many."""
    text = isinstance(value, str)  # of a pid, which must differ from person to person
    if not isinstance(value, Iterable) or (text and count == 1):
        return [value] * count
    if text or len(value) != count:
        raise ValueError(f"{name} must be a list of {count} here, got {value!r}")
    return list(value)


def _degrees(value: float | None) -> float | None:
    if value is None:
        return None
    if not (math.isfinite(value := float(value)) and -90 <= value <= 90):
        raise ValueError(f"elevation must be in [-90, 90] degrees above the horizon, got {value}")
    return value


def _checked(image: ImageLike) -> Path | Image.Image | np.ndarray:
    """The image, if it is one that can be read."""
    if not _is_image(image):
        raise _no_image(image)
    if isinstance(image, str | os.PathLike):
        path = Path(image).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"images: there is no file {image}; give the path of an image")
        return path
    if isinstance(image, np.ndarray) and (
        image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3
    ):
        raise ValueError(f"images: expected {IMAGES}; got {image.dtype} {list(image.shape)}")
    return image


def _pixels(image: Image.Image | np.ndarray, name: str) -> np.ndarray:
    """An image in memory as upright sRGB, uint8 [H, W, 3]."""
    try:
        pixels = files.rgb(image, name) if isinstance(image, Image.Image) else image
    except (OSError, ValueError, SyntaxError) as error:  # Pillow decodes it only now
        raise files.ImageError(f"the image is truncated or damaged ({error})") from error
    if min(pixels.shape[:2]) < files.MIN_SIDE:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise files.ImageError(
            f"the image has {size} pixels, at least {files.MIN_SIDE} a side are needed"
        )
    return np.ascontiguousarray(pixels)
