# SPDX-License-Identifier: Apache-2.0
"""Frames of a tracklet (several images or a video), and the selection of the best ones.

A video needs the extra `video` (PyAV, which brings FFmpeg). It is decoded once, from start to end;
evenly spaced frames are kept, as many as fit in memory, at most `LOOK`.

Selection: first the frame with the highest quality, which is height times sharpness (the mean step
between rows, as `viewsynth.reconstruct` ranks crops); then repeatedly the frame with the highest
product of quality and difference, which is the distance of its thumbnail, without its mean
brightness, to the nearest thumbnail selected so far. Blurred frames and near duplicates therefore
come last. Source: ours, after farthest-point sampling (Gonzalez, 1985).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from viewsynth.data import images, profiles
from viewsynth.data.images import MIN_SIDE, VIDEOS, ImageError, NotInstalledError
from viewsynth.records import Sample

MOST = 8  # frames selected from a tracklet
LOOK = 128  # frames to select from
MEMORY = 512 * 2**20  # bytes of decoded frames held at a time
MAX_BYTES = 4 * 2**30  # of a video
MAX_SECONDS = 3600  # of a video
MAX_FRAMES = 60 * MAX_SECONDS
COMPLETE = 0.9  # share of the declared number of frames with which a video counts as complete
THUMBNAIL = (8, 16)  # width and height, pixels
# Only containers: a playlist would make FFmpeg open the files that it names.
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf"

Bad = Callable[[Path, ImageError], None]


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a tracklet.

    Args:
        path: Its file.
        number: Index in a video, from 0; None = the file is an image.
        image: Upright sRGB, cropped to the sample's box.  uint8 [H, W, 3]
    """

    path: Path
    number: int | None
    image: np.ndarray


def is_video(path: Path) -> bool:
    """Whether a file has the extension of a video."""
    return path.suffix.lower() in VIDEOS


def has_frames(sample: Sample) -> bool:
    """Whether a sample has several frames: more than one file, or a video."""
    return len(sample.paths) > 1 or is_video(sample.paths[0])


def iterate(sample: Sample, least: int = MIN_SIDE, bad: Bad | None = None) -> Iterator[Frame]:
    """Iterate over the frames of a sample in order of time: all images, or those kept of a video.

    Args:
        sample: The tracklet.
        least: Smallest allowed side, pixels, > 0.
        bad: Called with each file that cannot be used, wholly or from some frame on, and the error;
            the iteration continues with the other files.

    Raises:
        ImageError: for the first such file, if `bad` is None.
    """
    for path in sample.paths:
        try:
            if is_video(path):
                yield from _kept(path, sample.box, least)
            else:
                yield Frame(path, None, images.read(path, sample.box, least))
        except ImageError as error:
            if bad is None:
                raise
            bad(path, error)


def read(
    path: Path, number: int | None = None, box: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Read one frame again.

    Args:
        path: The file, see `Frame`.
        number: Index in a video; None = the file is an image.
        box: left, top, right, bottom in pixels of the upright frame; None = all of it.

    Returns:
        Upright sRGB.  uint8 [H, W, 3]

    Raises:
        ImageError: if it can no longer be read.
    """
    if number is None:
        return images.read(path, box)
    for index, decode in _decoded(path, MIN_SIDE):
        if index == number:
            return images.crop(decode(), box)
    raise ImageError(f"the video has no frame {number}")


def best_frames(
    sample: Sample,
    use: Callable[[Sample, np.ndarray | None], list[tuple[Sample, np.ndarray]]],
    bad: Bad,
    most: int = MOST,
) -> list[tuple[Sample, np.ndarray]]:
    """Select the best frames of a tracklet, each as a sample of its own, in order of time.

    Up to twice as many frames are tried, so that frames without a person are replaced; the final
    selection compares the crops of the person.

    Args:
        sample: The tracklet.
        use: Gets the sample and the image of a frame (None: not kept in memory, read it), and
            returns the crops to use, one (sample, crop) or none.
        bad: See `iterate`.
        most: Number of frames to select, > 0.

    Returns:
        (sample, crop) of each selected frame.
    """
    files = sample.paths
    if len(files) > LOOK:
        files = [files[k] for k in np.linspace(0, len(files) - 1, LOOK).round().astype(int)]
    frames, rated = [], []
    for frame in iterate(replace(sample, paths=tuple(files)), bad=bad):
        rated.append(_rate(frame.image))
        # Images can be read again; many large ones would not fit in memory.
        frames.append(frame if frame.number is not None else replace(frame, image=None))
    found = []
    for index in select(rated, 2 * most):
        used = use(_sample(sample, frames[index]), frames[index].image)
        found += [(index, part, image) for part, image in used]
        if len(found) == most and all(part.box == sample.box for _, part, _ in found):
            break  # no frame was cropped further, so the order stands: the rest ranks lower
    kept = select([_rate(image) for *_, image in found], most)
    return [found[k][1:] for k in sorted(kept, key=lambda k: found[k][0])]


def select(rated: Sequence[tuple[float, np.ndarray]], most: int = MOST) -> list[int]:
    """Select frames by the rule in the docstring of this module.

    Args:
        rated: Quality, > 0, and thumbnail of each frame, see `_rate`.
        most: Number of frames to select.

    Returns:
        Indices, the best first; all of them if there are no more than `most`.
    """
    quality = np.array([value for value, _ in rated])
    difference = np.full(len(rated), 1.0)
    order: list[int] = []
    while len(order) < min(most, len(rated)):
        value = quality * difference
        value[order] = -1
        order.append(int(value.argmax()))
        distance = [np.abs(thumbnail - rated[order[-1]][1]).mean() for _, thumbnail in rated]
        # Above zero, so that quality still ranks identical frames.
        distance = np.maximum(distance, 1e-3)
        difference = distance if len(order) == 1 else np.minimum(difference, distance)
    return order


def _rate(image: np.ndarray) -> tuple[float, np.ndarray]:
    """Quality of a frame, and its thumbnail without its mean brightness."""
    grey = image.mean(2, dtype=np.float32)
    quality = image.shape[0] * float(np.abs(np.diff(grey, axis=0)).mean() + 1)
    thumbnail = Image.fromarray(image).resize(THUMBNAIL, Image.Resampling.BOX)
    thumbnail = np.asarray(thumbnail).astype(np.float32)
    return quality, thumbnail - thumbnail.mean()


def _sample(sample: Sample, frame: Frame) -> Sample:
    """A frame as a sample of its own."""
    name = f"{sample.name}#f{frame.number}"
    if frame.number is None:
        repeated = [path.name for path in sample.paths].count(frame.path.name) > 1
        index = f"{sample.paths.index(frame.path)}/" if repeated else ""
        last = f"{index}{frame.path.name}"
        name = f"{sample.name}/{last}"
    return replace(sample, paths=(frame.path,), name=name, frame=frame.number)


# ---- videos --------------------------------------------------------------------------------------


def _kept(path: Path, box, least: int) -> Iterator[Frame]:
    """Evenly spaced frames of a video: every second one is dropped when there are too many."""
    kept: list[tuple[int, np.ndarray]] = []
    step, problem = 1, None
    try:
        for index, decode in _decoded(path, least):
            if index % step:
                continue
            kept.append((index, images.crop(decode(), box, least)))
            room = max(MEMORY // kept[0][1].nbytes, 2 * MOST)
            if len(kept) > min(LOOK, room):
                kept, step = kept[::2], 2 * step
    except ImageError as error:
        if not kept:
            raise
        problem = error
    yield from (Frame(path, index, image) for index, image in kept)
    if problem:
        raise ImageError(f"{problem}; the frames before are used")


def _decoded(path: Path, least: int) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
    """Index of every frame and a function that returns its image.

    Args:
        path: The video.
        least: Smallest allowed side, pixels.

    Raises:
        ImageError: if the file is not a video, or damaged.
        NotInstalledError: if PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise NotInstalledError(
            "the file is a video, and PyAV, which reads it, is not installed: pip install "
            "'viewsynth[video]', or save its frames as images in a folder"
        ) from error
    with images.open_file(path, MAX_BYTES) as file:
        try:
            with av.open(file, options={"format_whitelist": CONTAINERS}) as container:
                stream = _stream(container, least)
                index = -1
                for index, frame in enumerate(container.decode(stream)):
                    if index >= MAX_FRAMES:
                        raise ImageError(f"the video has more than {MAX_FRAMES:,} frames; cut it")
                    aspect = stream.sample_aspect_ratio
                    yield index, lambda frame=frame, aspect=aspect: _upright(frame, aspect)
                if index < 0 or index + 1 < COMPLETE * stream.frames:
                    raise ImageError(
                        f"the video ends after {index + 1} of {stream.frames} frames; copy it again"
                    )
        except (av.FFmpegError, EOFError) as error:
            raise ImageError(_why_not_decoded(path, error)) from error


def _why_not_decoded(path: Path, error: OSError | ValueError) -> str:
    """Error message for a file that should be a video and cannot be decoded."""
    try:
        images.size(path)
    except ImageError:
        why = getattr(error, "strerror", None) or error
        return (
            f"the video is damaged, or of a format that FFmpeg does not know ({why}); copy it "
            "again, or save its frames as images"
        )
    return "the file is an image with the extension of a video; give it the extension of an image"


def _stream(container, least: int):
    """The video stream of a container; raises ImageError if its size is not allowed."""
    if not container.streams.video:
        raise ImageError("the file holds no video, perhaps only sound; give a video or images")
    if (seconds := (container.duration or 0) / 1e6) > MAX_SECONDS:
        raise ImageError(
            f"the video lasts {seconds / 60:.0f} minutes, the limit is {MAX_SECONDS // 60}: cut it "
            "to the part that shows the person"
        )
    stream = container.streams.video[0]
    if stream.width * stream.height > images.MAX_PIXELS:
        raise ImageError(f"frames of {stream.width}x{stream.height} pixels are too large")
    if min(stream.width, stream.height) < least:
        raise ImageError(
            f"frames of {stream.width}x{stream.height} pixels, at least {least} a side are needed"
        )
    return stream


def _upright(frame, aspect) -> np.ndarray:
    """A decoded frame as upright sRGB with square pixels."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
    if primaries in profiles.PRIMARIES or transfer in (profiles.PQ, profiles.HLG):
        peak = max(high for _, high in image.getextrema())
        image = profiles.to_srgb(image, profiles.profile_of_codes(primaries, transfer, peak))
    if aspect and aspect != 1 and 1 / 4 <= aspect <= 4:
        image = image.resize((round(image.width * float(aspect)), image.height))
    return np.ascontiguousarray(np.rot90(np.asarray(image), round(frame.rotation / 90)))
