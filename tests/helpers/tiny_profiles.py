# SPDX-License-Identifier: Apache-2.0
"""ICC profiles of a few hundred bytes, written from the published primaries of each space.

Colorants are X, Y, Z of red, green and blue relative to D50, as published in the profiles of Apple
(Display P3), Adobe (Adobe RGB 1998) and Kodak (ProPhoto, ISO 22028-2).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def linear_of_srgb(value: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb_of_linear(light: np.ndarray) -> np.ndarray:
    """The inverse of `linear_of_srgb`."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def values_in(colours, colorants, power: float | None = None) -> np.ndarray:
    """Values that show given sRGB colours in a file of another space: float [N, 3], 0 to 255."""
    light = linear_of_srgb(np.asarray(colours, float) / 255) @ np.array(SRGB)
    light = light @ np.linalg.inv(np.array(colorants))
    if power is None:
        return srgb_of_linear(light) * 255
    return np.clip(light, 0, 1) ** (1 / power) * 255


def rgb(colorants, power: float | None = None) -> bytes:
    """An RGB matrix profile; without a power it has the curve of sRGB."""
    tags = []
    for letter, xyz in zip(b"rgb", colorants, strict=True):
        tags += [(b"%cXYZ" % letter, _xyz(*xyz)), (b"%cTRC" % letter, curve(power))]
    return _profile(b"RGB ", b"XYZ ", tags)


def grey(power: float) -> bytes:
    """A grey profile."""
    return _profile(b"GRAY", b"XYZ ", [(b"kTRC", curve(power))])


def cmyk() -> bytes:
    """A CMYK profile in which each ink lowers L*: a table with two entries a side (lut8)."""
    table = b""
    for corner in range(16):  # C slowest, K fastest
        c, m, y, k = (corner >> bit & 1 for bit in (3, 2, 1, 0))
        lightness = 100 * (1 - k) * (1 - 0.4 * c) * (1 - 0.5 * m) * (1 - 0.1 * y)
        a, b = (1 - k) * (70 * m - 40 * c), (1 - k) * (90 * y - 45 * c)
        table += bytes([round(lightness * 2.55), round(a) + 128, round(min(b, 120)) + 128])
    unit = struct.pack(">9i", *(65536 * (k % 4 == 0) for k in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + unit + ramp * 4 + table + ramp * 3
    return _profile(b"CMYK", b"Lab ", [(b"A2B0", lut)], b"prtr")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def curve(power: float | None) -> bytes:
    """The curve of a power, or of sRGB."""
    if power is not None:
        return b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(power * 256))
    values = np.rint(linear_of_srgb(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + values.tobytes()


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(space: bytes, connection: bytes, tags, kind: bytes = b"mntr") -> bytes:
    tags = [*tags, (b"wtpt", _xyz(0.9642, 1, 0.8249))]
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags:
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">II4s4s4s", start + len(body), 0, b"\2\x40\0\0", kind, space)
    head += connection + bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body
