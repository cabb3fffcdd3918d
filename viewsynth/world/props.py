# SPDX-License-Identifier: Apache-2.0
"""Props: poles, trunks, bollards, planters and signs in front of a person or close behind.

this module -> capture. A prop has the same `shade` as a dressed person, so that `solids` handles
both alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viewsynth.world import shells
from viewsynth.world.forms import merge
from viewsynth.world.noise import noise

KINDS = ("pole", "trunk", "bollard", "planter", "sign")
FRONT, BEHIND = (0.5, 2.4), (-4.0, -0.6)  # distance from the person towards the camera, metres
# sRGB tones of each kind.
TONES = {
    "pole": ((0.45, 0.46, 0.48), (0.25, 0.26, 0.27), (0.75, 0.75, 0.73)),
    "trunk": ((0.34, 0.28, 0.22), (0.44, 0.40, 0.35)),
    "bollard": ((0.20, 0.20, 0.21), (0.70, 0.70, 0.68), (0.80, 0.62, 0.12)),
    "planter": ((0.24, 0.33, 0.14), (0.32, 0.36, 0.18)),
    "sign": ((0.82, 0.82, 0.80), (0.15, 0.30, 0.60), (0.75, 0.12, 0.12)),
}


@dataclass(frozen=True, kw_only=True)
class Prop:
    """A thing that stands on the ground.

    Args:
        vertices: Positions in the person's frame, metres.  float32 [V, 3]
        faces: Triangles.  int64 [F, 3]
        normals: Unit normals.  float32 [V, 3]
        tones: sRGB of each face.  float32 [F, 3]
        rough: Strength of the variation of the colour.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    tones: np.ndarray
    rough: float

    def shade(self, face: np.ndarray, bary: np.ndarray):
        """Albedo (sRGB) [N, 3], unit normal [N, 3] and label 0 [N], see `Dressed.shade`."""
        corner = self.faces[face]
        normal = sum(self.normals[corner[:, k]] * bary[:, k : k + 1] for k in range(3))
        normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None] + np.float32(1e-9)
        x, y, z = sum(self.vertices[corner[:, k]] * bary[:, k : k + 1] for k in range(3)).T
        spots = noise("rough", x + 0.7 * z, y + 0.4 * z, 0.006, 1.6)
        leaf = noise("grain", x - z, y - 0.6 * x, 0.008, 2.4)
        value = np.exp(np.float32(self.rough) * (spots + 0.8 * leaf))[:, None]
        colour = (self.tones[face] * value).clip(0.01, 0.95)
        return colour.astype(np.float32), normal, np.zeros(len(face), np.uint8)


def sample_props(
    rng: np.random.Generator,
    azimuth: float,
    elevation: float,
    shares: tuple[float, float] = (0.10, 0.16),
) -> tuple[Prop, ...]:
    """Sample the props in front of and behind a person, seen from a camera.

    Args:
        rng: Generator of all random choices.
        azimuth: Azimuth of the camera, degrees.
        elevation: Elevation of the camera, degrees; the higher, the fewer props.
        shares: Shares of images with a prop in front and behind at elevation 0.

    Returns:
        At most one prop in front and one behind.
    """
    level = max(0.0, np.cos(np.deg2rad(elevation)))
    found = []
    draws, rad = rng.random(2), np.deg2rad(azimuth)
    towards, aside = np.array([np.sin(rad), np.cos(rad)]), np.array([np.cos(rad), -np.sin(rad)])
    for front, chance in ((True, shares[0] * level**2), (False, shares[1] * level)):
        kind = str(rng.choice(KINDS[:4] if front else KINDS))
        out = rng.uniform(*(FRONT if front else BEHIND))
        side = rng.normal(0, 0.3) if front else rng.choice([-1, 1]) * rng.uniform(0.35, 1.1)
        seed = int(rng.integers(1 << 30))
        if draws[0 if front else 1] < chance:
            at = out * towards + side * aside
            found.append(sample_prop(np.random.default_rng(seed), kind, (at[0], at[1]), azimuth))
    return tuple(found)


def sample_prop(
    rng: np.random.Generator, kind: str, at: tuple[float, float], heading: float
) -> Prop:
    """Sample a prop.

    Args:
        rng: Generator of all random choices.
        kind: One of `KINDS`.
        at: Position (x, z), metres.
        heading: Direction that it faces, degrees.

    Returns:
        The prop.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"prop must be one of {', '.join(KINDS)}; got {kind!r}")
    tones = TONES[kind]
    tone = np.float32(tones[rng.integers(len(tones))]) * np.float32(rng.uniform(0.85, 1.1))
    match kind:
        case "pole":
            shape = _tube(rng.uniform(0.04, 0.10), rng.uniform(3, 5), 12, 0.0, rng)
        case "trunk":
            shape = _tube(rng.uniform(0.08, 0.15), rng.uniform(3.5, 5), 16, 0.06, rng)
        case "bollard":
            shape = _tube(rng.uniform(0.05, 0.10), rng.uniform(0.75, 1.05), 12, 0.0, rng)
        case "planter":
            size = rng.uniform(1.2, 2.6), rng.uniform(0.55, 0.95), rng.uniform(0.35, 0.5)
            shape = _bush(size, rng)
        case _:
            post = _tube(0.035, 2.4, 10, 0.0, rng)
            plate = _plate(rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.8), rng.uniform(1.5, 2.0))
            shape = merge(post, plate)
    vertices, faces = shape
    rad = np.deg2rad(heading + rng.normal(0, 12))
    cos, sin = np.cos(rad), np.sin(rad)
    vertices = vertices @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    vertices = (vertices + [at[0], 0, at[1]]).astype(np.float32)
    colours = np.tile(tone, (len(faces), 1))
    if kind == "sign":
        colours[:-4] = 0.45
    return Prop(
        vertices=vertices,
        faces=faces,
        normals=shells.normals(vertices, faces),
        tones=colours,
        rough={"planter": 0.45, "trunk": 0.16}.get(kind, 0.03),
    )


def _tube(radius: float, height: float, sides: int, rough: float, rng):
    """Vertices and faces of an upright tube with a lid."""
    rings = max(3, round(height / 0.25))
    turn = np.arange(sides) * 2 * np.pi / sides
    wide = radius * (1 + rough * rng.standard_normal((rings, sides)))
    y = np.linspace(0, height, rings)[:, None] * np.ones(sides)
    vertices = np.stack([wide * np.sin(turn), y, wide * np.cos(turn)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij")
    a, b = (i * sides + j).ravel(), (i * sides + (j + 1) % sides).ravel()
    side = np.concatenate([np.stack([a, b, b + sides], 1), np.stack([a, b + sides, a + sides], 1)])
    top = len(vertices) - sides + np.arange(sides)
    lid = np.stack([top, np.roll(top, -1), np.full(sides, len(vertices))], 1)
    return np.concatenate([vertices, [[0, height, 0]]]), np.concatenate([side, lid])


def _bush(size: tuple[float, float, float], rng):
    """Vertices and faces of a clipped hedge: a rough box, open at the bottom."""
    wide, tall, deep = size
    n, m = 36, 14
    theta = np.linspace(0, np.pi / 2, m)[:, None] * np.ones(n)
    phi = np.linspace(0, 2 * np.pi, n, endpoint=False)[None] * np.ones((m, 1))
    ball = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1)
    box = np.sign(ball) * np.abs(ball) ** 0.3  # nearly a box
    box *= 1 + 0.05 * rng.standard_normal((m, n, 1))
    vertices = (box * [wide / 2, tall, deep / 2]).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(m - 1), np.arange(n), indexing="ij")
    a, b = (i * n + j).ravel(), (i * n + (j + 1) % n).ravel()
    return vertices, np.concatenate([np.stack([a, a + n, b + n], 1), np.stack([a, b + n, b], 1)])


def _plate(wide: float, tall: float, low: float):
    x, z = wide / 2, 0.04
    vertices = [[-x, low, z], [x, low, z], [x, low + tall, z], [-x, low + tall, z]]
    vertices += [[p[0], p[1], z - 0.01] for p in vertices]
    faces = [[0, 1, 2], [0, 2, 3], [5, 4, 7], [5, 7, 6]]
    return np.float64(vertices), np.int64(faces)
