# SPDX-License-Identifier: Apache-2.0
"""Images of more than 8 bits are scaled by their range, not clipped."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tiny_profiles as tiny
from PIL import Image
from tiny_profiles import png_chunk as chunk

from viewsynth.data.images import read
from viewsynth.diffusion.photo import _each


def deep_png(path: Path, values: np.ndarray) -> Path:
    """Write a PNG of 16 bits.  uint16 [H, W, 1 to 4]"""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("most", [255, 1023, 4095, 65535])
def test_deep_images_are_scaled_by_their_range(tmp_path, channels, most):
    colour = np.random.default_rng(1).integers(0, most + 1, (20, 20, channels))
    colour[..., 0] = colour[..., 0] // 20  # one channel is dark
    colour[0, 0] = most
    if channels in (2, 4):
        colour[..., -1] = most  # opaque
    found = read(deep_png(tmp_path / "a.png", colour))
    seen = colour[..., :1].repeat(3, 2) if channels < 3 else colour[..., :3]
    assert abs(found - seen * (255 / most)).max() <= (1 if most == 65535 else 0.5)


def test_a_dark_deep_image_stays_dark(tmp_path):
    """A 16-bit image at night, up to a tenth of white, must not count as one of 12 bits."""
    values = np.linspace(0, 6553, 400).reshape(20, 20, 1).astype(int)
    assert abs(read(deep_png(tmp_path / "a.png", values))[..., :1] - values / 257).max() <= 0.5


def test_a_deep_image_with_a_profile(tmp_path):
    values = np.full((16, 16, 1), 100 * 257)
    path = deep_png(tmp_path / "a.png", values)
    data = path.read_bytes()
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(tiny.grey(1.8)))
    path.write_bytes(data[:33] + profile + data[33:])
    expected = tiny.srgb_of_linear(np.array((100 / 255) ** 1.8)) * 255
    assert abs(read(path) - expected).max() <= 2


@pytest.mark.parametrize("most", [1, 255, 3000])
def test_float_and_integer_images_given_to_the_pipeline(most):
    ramp = np.linspace(0, most, 400, dtype=np.float32).reshape(20, 20)
    (found,) = _each(Image.fromarray(ramp), "image")
    full = {3000: 4095}.get(most, most)
    assert abs(found[0].numpy() * 255 - ramp * (255 / full)).max() <= 0.51
