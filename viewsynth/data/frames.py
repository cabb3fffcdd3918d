# SPDX-License-Identifier: Apache-2.0
"""Frames of a tracklet, be it several pictures or a video, and the best of them.

A video needs the extra `video` (PyAV, which brings FFmpeg). It is decoded once, from the start to
the end; frames evenly apart are kept, as many as the memory allows, `LOOK` at most.

Which frames are best: that of the greatest worth first, where worth is height times sharpness (the
mean step between rows, as `viewsynth.reconstruct` ranks crops); then always the one of which worth
times difference is greatest, where difference is the distance of its thumbnail, brightness taken
off, to the nearest thumbnail chosen. So neither a blurred frame nor a second one of the same view
is taken while there are others. Source: ours, after farthest-point sampling (Gonzalez, 1985).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from viewsynth.data import images, profiles
from viewsynth.data.images import MIN_SIDE, VIDEOS, ImageError, NotInstalled
from viewsynth.records import Sample

MOST = 8  # frames that a tracklet gives
LOOK = 128  # frames that are looked at
MEMORY = 512 * 2**20  # bytes of the frames of a video that are held
MAX_BYTES = 4 * 2**30  # of a video
MAX_SECONDS = 3600  # of a video
MAX_FRAMES = 60 * MAX_SECONDS
WHOLE = 0.9  # part of the frames that a video says it has, from which on none is missed
THUMBNAIL = (8, 16)  # width and height, pixels
# Only containers: a playlist would make FFmpeg open whatever it names.
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,asf"

Bad = Callable[[Path, ImageError], None]


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a tracklet.

    Args:
        path: Its file.
        number: Place in a video, from 0; None = the file is a picture.
        image: Upright sRGB, cut to the sample's box.  uint8 [H, W, 3]
    """

    path: Path
    number: int | None
    image: np.ndarray


def is_video(path: Path) -> bool:
    """Whether a file is called like a video."""
    return path.suffix.lower() in VIDEOS


def several(sample: Sample) -> bool:
    """Whether a sample has frames to choose from: more than one file, or a video."""
    return len(sample.paths) > 1 or is_video(sample.paths[0])


def each(sample: Sample, least: int = MIN_SIDE, bad: Bad | None = None) -> Iterator[Frame]:
    """The frames of a sample in the order of time: all its pictures, or those kept of a video.

    Args:
        least: Pixels of the shorter side, > 0.
        bad: Called with a file that cannot be used, wholly or from some frame on; the others go on.
    Raises: ImageError: for the first such file, if there is no `bad`.
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
    """One frame again.

    Args:
        path, number: Of `Frame`.
        box: left, top, right, bottom in pixels of the upright frame; None = all of it.
    Returns: upright sRGB.  uint8 [H, W, 3]
    Raises: ImageError: if it can no longer be read.
    """
    if number is None:
        return images.read(path, box)
    for place, picture in _decoded(path, MIN_SIDE):
        if place == number:
            return images.part(picture(), box)
    raise ImageError(f"the video has no frame {number}")


def chosen(
    sample: Sample,
    use: Callable[[Sample, np.ndarray | None], list[tuple[Sample, np.ndarray]]],
    bad: Bad,
    most: int = MOST,
) -> list[tuple[Sample, np.ndarray]]:
    """The best frames of a tracklet, each a sample of its own, in the order of time.

    Twice as many as are wanted are tried, so that frames that show nobody are replaced, and those
    in which a person was found are compared by that person.

    Args:
        use: Gets a frame's sample and picture (None: it has not been kept, read it) and returns
            what is used of it, one (sample, crop) or nothing.
        bad: As in `each`.
        most: Frames that are wanted, > 0.
    """
    files = sample.paths
    if len(files) > LOOK:
        files = [files[k] for k in np.linspace(0, len(files) - 1, LOOK).round().astype(int)]
    frames, looks = [], []
    for frame in each(replace(sample, paths=tuple(files)), bad=bad):
        looks.append(_look(frame.image))
        # Pictures can be read again; many large ones would not fit into memory.
        frames.append(frame if frame.number is not None else replace(frame, image=None))
    found = []
    for place in best(looks, 2 * most):
        used = use(_sample(sample, frames[place]), frames[place].image)
        found += [(place, part, image) for part, image in used]
        if len(found) == most and all(part.box == sample.box for _, part, _ in found):
            break  # crops as they came: those that follow are worth less
    kept = best([_look(image) for *_, image in found], most)
    return [found[k][1:] for k in sorted(kept, key=lambda k: found[k][0])]


def best(looks: Sequence[tuple[float, np.ndarray]], most: int = MOST) -> list[int]:
    """The best frames by the rule at the head of this module.

    Args:
        looks: Worth, > 0, and thumbnail of each frame, see `_look`.
    Returns: Their places, the best first; all of them if there are no more than `most`.
    """
    worth = np.array([value for value, _ in looks])
    apart = np.full(len(looks), 1.0)
    order: list[int] = []
    while len(order) < min(most, len(looks)):
        value = worth * apart
        value[order] = -1
        order.append(int(value.argmax()))
        distance = [np.abs(small - looks[order[-1]][1]).mean() for _, small in looks]
        # Frames that are all the same are still told apart by their worth.
        distance = np.maximum(distance, 1e-3)
        apart = distance if len(order) == 1 else np.minimum(apart, distance)
    return order


def _look(image: np.ndarray) -> tuple[float, np.ndarray]:
    """How much a frame can tell, and its thumbnail without its brightness."""
    grey = image.mean(2, dtype=np.float32)
    worth = image.shape[0] * float(np.abs(np.diff(grey, axis=0)).mean() + 1)
    small = Image.fromarray(image).resize(THUMBNAIL, Image.Resampling.BOX)
    small = np.asarray(small).astype(np.float32)
    return worth, small - small.mean()


def _sample(sample: Sample, frame: Frame) -> Sample:
    """A frame as a sample of its own."""
    name = f"{sample.name}#f{frame.number}"
    if frame.number is None:
        alike = [path.name for path in sample.paths].count(frame.path.name) > 1
        last = f"{sample.paths.index(frame.path)}/{frame.path.name}" if alike else frame.path.name
        name = f"{sample.name}/{last}"
    return replace(sample, paths=(frame.path,), name=name, frame=frame.number)


# ---- videos --------------------------------------------------------------------------------------


def _kept(path: Path, box, least: int) -> Iterator[Frame]:
    """Frames of a video, evenly apart: every second one is dropped whenever there are too many."""
    kept: list[tuple[int, np.ndarray]] = []
    step, problem = 1, None
    try:
        for place, picture in _decoded(path, least):
            if place % step:
                continue
            kept.append((place, images.part(picture(), box, least)))
            room = max(MEMORY // kept[0][1].nbytes, 2 * MOST)
            if len(kept) > min(LOOK, room):
                kept, step = kept[::2], 2 * step
    except ImageError as error:
        if not kept:
            raise
        problem = error
    yield from (Frame(path, place, image) for place, image in kept)
    if problem:
        raise ImageError(f"{problem}; of what came before, frames are used")


def _decoded(path: Path, least: int) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
    """Number of every frame and what makes its picture.

    Raises: ImageError: if the file is no video, or damaged; NotInstalled: without PyAV.
    """
    try:
        import av
    except ImportError as error:
        raise NotInstalled(
            "the file is a video, and PyAV, which reads it, is not installed: pip install "
            "'viewsynth[video]', or save its frames as pictures in a folder"
        ) from error
    with images.opened(path, MAX_BYTES) as file:
        try:
            with av.open(file, options={"format_whitelist": CONTAINERS}) as container:
                stream = _stream(container, least)
                place = -1
                for place, frame in enumerate(container.decode(stream)):
                    if place >= MAX_FRAMES:
                        raise ImageError(f"the video has more than {MAX_FRAMES:,} frames; cut it")
                    aspect = stream.sample_aspect_ratio
                    yield place, lambda frame=frame, aspect=aspect: _upright(frame, aspect)
                if place < 0 or place + 1 < WHOLE * stream.frames:
                    raise ImageError(
                        f"the video ends after {place + 1} of {stream.frames} frames; copy it again"
                    )
        except (av.FFmpegError, EOFError) as error:
            raise ImageError(_no_video(path, error)) from error


def _no_video(path: Path, error: OSError | ValueError) -> str:
    """Why a file that should be a video cannot be decoded."""
    try:
        images.size(path)
    except ImageError:
        why = getattr(error, "strerror", None) or error
        return (
            f"the video is damaged, or none that FFmpeg knows ({why}); copy it again, or save its "
            "frames as pictures"
        )
    return "the file is a picture, though it is called as a video; give it an extension of pictures"


def _stream(container, least: int):
    """The video in a container, if its size is one that we take."""
    if not container.streams.video:
        raise ImageError("the file holds no video, sound perhaps; give a video or pictures")
    if (seconds := (container.duration or 0) / 1e6) > MAX_SECONDS:
        raise ImageError(
            f"the video lasts {seconds / 60:.0f} minutes, the limit is {MAX_SECONDS // 60}: cut it "
            "to what shows the person"
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
        image = profiles.to_srgb(image, profiles.coded(primaries, transfer, peak))
    if aspect and aspect != 1 and 1 / 4 <= aspect <= 4:
        image = image.resize((round(image.width * float(aspect)), image.height))
    return np.ascontiguousarray(np.rot90(np.asarray(image), round(frame.rotation / 90)))
