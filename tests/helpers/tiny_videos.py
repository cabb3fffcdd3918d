# SPDX-License-Identifier: Apache-2.0
"""Tracklets and videos of a few synthetic frames; videos are written by PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from viewsynth.records import Sample


def video(
    path: Path, frames: list[np.ndarray], codec: str = "mpeg4", pixels: str = "yuv420p", **settings
) -> Path:
    """Write a video; skips the test if PyAV is not installed.

    Args:
        path: File to write.
        frames: uint8 [H, W, 3], with even sides.
        codec: Name of the codec.
        pixels: Name of the pixel format.
        settings: Attributes of PyAV's codec context.
    """
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = pixels, 20_000_000
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def turned(path: Path, degrees: int) -> Path:
    """Mark an MP4 or MOV to be shown rotated clockwise, as phones do in the track's matrix."""
    one = 65536
    cos, sin = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    matrix = np.array([cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    return path


def view(number: int, height: int = 128) -> np.ndarray:
    """A synthetic frame: coarse blocks that differ between views, on fine texture."""
    rng = np.random.default_rng(number)
    blocks = Image.fromarray(rng.integers(40, 215, (8, 4, 3), dtype=np.uint8))
    coarse = np.asarray(blocks.resize((height // 2, height), Image.Resampling.NEAREST)).astype(int)
    fine = np.random.default_rng(99).integers(-30, 31, coarse.shape)
    return (coarse + fine).clip(0, 255).astype(np.uint8)


def blurred(image: np.ndarray, radius: float = 4) -> np.ndarray:
    """A blurred frame; `radius` is in pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def tracklet(folder: Path, images: list[np.ndarray], **fields) -> Sample:
    """Write a folder of frames, as a sample."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{k:04d}.png" for k in range(len(images)))
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return Sample(paths=paths, pid="p", name=f"p/{folder.name}", outfit=folder.name, **fields)


def clip(path: Path, **fields) -> Sample:
    """A video file as a sample."""
    return Sample(paths=(path,), pid="p", name=f"p/{path.name}", outfit=path.stem, **fields)
