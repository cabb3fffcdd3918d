# SPDX-License-Identifier: Apache-2.0
"""A small figure as a textured or coloured mesh: red in front, blue behind, one arm stretched out.

It is 1.7 m tall, stands on y = 0 and faces +z; not symmetric, so that every turn looks different.
"""

from __future__ import annotations

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

HEIGHT = 1.7
Z_UP = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])  # faces -y


def parts(rings: int = 16) -> list[trimesh.Trimesh]:
    """Head, trunk, legs and arm, each closed.

    Args:
        rings: Segments around a limb; the number of triangles grows with its square.
    """

    def limb(radius: float, low: float, high: float, x: float, z: float = 0.0):
        made = trimesh.creation.capsule(high - low - 2 * radius, radius, count=[rings, rings])
        turn = trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0])
        made.apply_transform(turn)
        made.apply_translation([x, low - made.bounds[0, 1], z])
        return made

    arm = limb(0.06, 0, 0.5, 0)
    arm.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [0, 0, 1]))
    arm.apply_translation([0.1, 1.25, 0])
    return [
        limb(0.12, 1.35, HEIGHT, 0, 0.03),
        limb(0.19, 0.7, 1.45, 0),
        limb(0.09, 0, 0.95, 0.1),
        limb(0.09, 0, 0.95, -0.1, 0.08),
        arm,
    ]


def figure(rings: int = 16) -> trimesh.Trimesh:
    """The parts as one mesh, without colours."""
    made = trimesh.util.concatenate(parts(rings))
    return trimesh.Trimesh(made.vertices, made.faces, process=False)


def colours(points: np.ndarray) -> np.ndarray:
    """Colours of points, uint8 [N, 3]: red in front, blue behind, brighter upwards."""
    front = 1 / (1 + np.exp(-np.clip(points[:, 2] / 0.02, -30, 30)))
    bright = 60 + 130 * points[:, 1] / HEIGHT
    rgb = np.stack([bright * front, 40 + 0 * front, bright * (1 - front)], 1)
    return rgb.clip(0, 255).astype(np.uint8)


def coloured(rings: int = 16) -> trimesh.Trimesh:
    """The figure with vertex colours."""
    made = figure(rings)
    return trimesh.Trimesh(
        made.vertices, made.faces, vertex_colors=colours(made.vertices), process=False
    )


def textured(rings: int = 16, side: int = 256) -> trimesh.Trimesh:
    """The figure with a texture: its front in the left half of the image, its back in the right.

    Args:
        rings: See `parts`.
        side: Side of the image, pixels.
    """
    bare = figure(rings)
    behind = bare.face_normals[:, 2] < 0
    points = bare.triangles.reshape(-1, 3)
    u = 0.25 + 0.3 * points[:, 0] + 0.5 * np.repeat(behind, 3)
    uv = np.stack([u, 0.02 + 0.96 * points[:, 1] / HEIGHT], 1)
    row, column = np.mgrid[0:side, 0:side] / side
    image = np.stack([200 * (1 - row) * (column < 0.5), 90 * column, 200 * row + 40], -1)
    material = PBRMaterial(baseColorTexture=Image.fromarray(image.astype(np.uint8)))
    return trimesh.Trimesh(
        points,
        np.arange(len(points)).reshape(-1, 3),
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )
