# SPDX-License-Identifier: Apache-2.0
"""Rotations as unit quaternions (w, x, y, z), [T, 4], for `gait` and `stride`.

Elementwise over T, so that one moment does not depend on those computed with it. Angles in degrees.
"""

from __future__ import annotations

import numpy as np


def cos(degrees: np.ndarray) -> np.ndarray:
    """Cosine of an angle in degrees."""
    return np.cos(np.deg2rad(degrees))


def sin(degrees: np.ndarray) -> np.ndarray:
    """Sine of an angle in degrees."""
    return np.sin(np.deg2rad(degrees))


def turn(x=0.0, y=0.0, z=0.0) -> np.ndarray:
    """Rotation first about z, then x, then y (vertical); degrees [T] or a number -> [T, 4]."""
    (cx, sx), (cy, sy), (cz, sz) = ((cos(a / 2), sin(a / 2)) for a in (x, y, z))
    w, u, v, t = cx * cz, sx * cz, -sx * sz, cx * sz  # about z, then about x
    return _columns(cy * w - sy * v, cy * u + sy * t, cy * v + sy * w, cy * t - sy * u)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The rotation b, then a, [T or 1, 4] each."""
    w, x, y, z = a.T
    s, u, v, t = b.T
    return _columns(
        w * s - x * u - y * v - z * t,
        w * u + x * s + y * t - z * v,
        w * v - x * t + y * s + z * u,
        w * t + x * v - y * u + z * s,
    )


def _columns(*columns: np.ndarray) -> np.ndarray:
    """Stack columns: [T] each -> [T, len(columns)]."""
    whole = np.empty((np.size(columns[0]), len(columns)))
    for k, column in enumerate(columns):
        whole[:, k] = column
    return whole


def inverse(a: np.ndarray) -> np.ndarray:
    """The inverse rotation."""
    return a * np.array([1.0, -1.0, -1.0, -1.0])


def half(a: np.ndarray) -> np.ndarray:
    """Rotation about the same axis by half the angle; for angles below 180 degrees."""
    a = a + np.sign(a[:, :1]) * np.array([1.0, 0.0, 0.0, 0.0])
    return a / np.sqrt((a * a).sum(1, keepdims=True))


def rotate(a: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Rotated vectors, [T or 1, 4], [T or 1, 3] -> [T, 3]."""
    vector = np.atleast_2d(vector)
    w, axis = a[:, :1], a[:, 1:]
    twice = 2 * _cross(axis, vector)
    return vector + w * twice + _cross(axis, twice)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, y, z = a.T
    u, v, w = b.T
    return _columns(y * w - z * v, z * u - x * w, x * v - y * u)


def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The shortest rotation from direction a to b (not opposite), [3], [3] -> [1, 4]."""
    a, b = a / np.sqrt(a @ a), b / np.sqrt(b @ b)
    whole = np.concatenate([[1 + a @ b], np.cross(a, b)])
    return (whole / np.sqrt(whole @ whole))[None]


def vector(a: np.ndarray) -> np.ndarray:
    """Rotation vectors, radians, of length at most pi, [T, 4] -> [T, 3]."""
    a = a * np.where(a[:, :1] < 0, -1.0, 1.0)
    size = np.sqrt((a[:, 1:] ** 2).sum(1, keepdims=True))
    angle = 2 * np.arctan2(size, a[:, :1])
    return a[:, 1:] * np.where(size > 1e-9, angle / np.maximum(size, 1e-9), 2.0)
