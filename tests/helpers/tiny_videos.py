# SPDX-License-Identifier: Apache-2.0
"""Videos of a few frames, written by PyAV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def video(
    path: Path, frames: list[np.ndarray], codec: str = "mpeg4", pixels: str = "yuv420p", **settings
) -> Path:
    """A video; skips the test where PyAV is not installed.

    Args:
        frames: uint8 [H, W, 3], even sides.
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
    """Mark an MP4 or MOV to be shown turned clockwise, as phones do: by the matrix of its track."""
    one = 65536
    cos, sin = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    matrix = np.array([cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data[:at] + matrix + data[at + 36 :])
    return path
