# SPDX-License-Identifier: Apache-2.0
"""Canonical body: the mean body with arms and legs apart, and a volume of points around it.

Clothed surfaces are computed in this volume, where no part touches another, and follow a person's
body into every pose (`warp`). Prepared once per process.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from torch import Tensor

from viewsynth.bodies import PARTS, Body
from viewsynth.reconstruct.volume import Clothier
from viewsynth.reconstruct.warp import Nodes
from viewsynth.records import Surface
from viewsynth.render.shade import vertex_normals

APART = {"shoulder_abduction": 38.0, "hip_abduction": 7.0}  # degrees
VOXEL = 0.015  # metres
BRICK = 4  # voxels along the side of a block of points that is skipped as a whole
REACH = 0.30  # metres from the body within which clothes, hair and bags are looked for
BELOW = 0.03  # metres below the soles
CORE = 0.05  # metres below the body's surface, where nothing needs to be computed
EXACT = 0.06  # metres from the surface, within which distances are finer than a voxel
ROOM = ((0.28, 0.06, 0.32), (0.28, 0.26, 0.32))  # metres of the volume before and beyond the body


class Canonical:
    """The clothed mean body in the canonical pose, and how points around it follow a body.

    Args:
        body: The body.
        clothier: Its clothing.

    Attributes:
        vertices: Clothed vertices, metres.  float32 [V, 3]
        nodes: See `warp.Nodes`.
        tree: Finds the nearest vertices.
        bindings: Of surfaces in use, see `binding`.
    """

    def __init__(self, body: Body, clothier: Clothier):
        one = body.shape_mean.new_ones(1)
        sides = [
            (f"{side}_{name}", value) for side in ("left", "right") for name, value in APART.items()
        ]
        pose = body.from_angles({name: value * one for name, value in sides})
        bare = body.vertices(body.shape_mean[None], pose)
        self.vertices = clothier.dress(bare, clothier.cloth[None], one)[0]
        self.nodes = Nodes(self.vertices)
        self.tree = cKDTree(self.vertices.cpu().numpy())
        self.bindings: WeakKeyDictionary[Surface, csr_array] = WeakKeyDictionary()

    def binding(self, surface: Surface) -> csr_array:
        """`Nodes.bind` of the vertices of a surface, computed once in its life."""
        if surface not in self.bindings:
            self.bindings[surface] = self.nodes.bind(surface.vertices)
        return self.bindings[surface]


class Volume:
    """Grid points around the canonical body.

    Args:
        canonical: The body.
        faces: Its triangles.  int64 [F, 3]
        parts: Part of each vertex, see `Body.parts`.  int64 [V]

    Attributes:
        shape: Of the grid.
        origin: Of the grid, metres.  float64 [3]
        active: Flat indices of the M points near the surface, brick by brick.  [M]
        core: Flat indices of the points deep inside the body.
        points: The active points, metres.  float32 [M, 3]
        distance: Their signed distance from the body, metres, inside negative.  float32 [M]
        binding: Their `Nodes.bind`.
        arm: Whether they belong to an arm.  bool [M]
        brick: Brick of each of these points, ascending.  [M]
        centre: Of the B bricks, an active point near the middle.  [B]
        radius: Per vertex of the body, the radius of the largest ball inside that touches it,
            metres.  float32 [V]
        medial: Centre of that ball.  float32 [V, 3]
        medial_binding: Its `Nodes.bind`.
    """

    def __init__(self, canonical: Canonical, faces: Tensor, parts: Tensor):
        vertices = canonical.vertices.cpu().numpy()
        low, high = vertices.min(0) - ROOM[0], vertices.max(0) + ROOM[1]
        self.origin = low
        self.shape = tuple((np.ceil((high - low) / VOXEL).astype(int) + 1).tolist())
        normals = vertex_normals(canonical.vertices[None], faces)[0].cpu().numpy()
        field = _signed_distance(vertices, normals, faces.cpu().numpy(), low, self.shape)
        height = low[1] + VOXEL * np.arange(self.shape[1])
        above = height > vertices[:, 1].min() - BELOW
        near = (field > -CORE) & (field < REACH) & above[None, :, None]
        for axis in range(3):  # the surface closes before the border of the grid
            near[(slice(None),) * axis + ([0, -1],)] = False
        self.core = np.flatnonzero(field <= -CORE)
        index = np.stack(np.nonzero(near), 1)
        bricks = [-(-side // BRICK) for side in self.shape]
        number = np.ravel_multi_index((index // BRICK).T, bricks)
        number, self.brick = np.unique(number, return_inverse=True)
        corner = np.stack(np.unravel_index(number, bricks), 1)
        order = np.argsort(self.brick, kind="stable")
        index, self.brick = index[order], self.brick[order]
        off = np.abs(index - (corner[self.brick] + 0.5) * BRICK + 0.5).sum(1)
        self.centre = np.lexsort((off, self.brick))[np.searchsorted(self.brick, range(len(corner)))]
        self.active = np.ravel_multi_index(index.T, self.shape)
        places = index * VOXEL + low
        self.points = places.astype(np.float32)
        self.distance = field.ravel()[self.active].astype(np.float32)
        self.binding = canonical.nodes.bind(places)
        arms = [k for k, name in enumerate(PARTS) if name.endswith(("arm", "hand"))]
        node = canonical.tree.query(canonical.nodes.centre.cpu().numpy())[1]
        nearest = self.binding.indices[self.binding.indptr[:-1]]  # `bind` lists the nearest first
        self.arm = np.isin(parts.cpu().numpy()[node], arms)[nearest]
        radius = _inner_radius(field, vertices, normals, low)
        medial = vertices - normals * radius[:, None]
        self.radius, self.medial = radius, medial.astype(np.float32)
        self.medial_binding = canonical.nodes.bind(medial)


def _signed_distance(vertices, normals, faces, origin, shape) -> np.ndarray:
    """Signed distance of all grid points from a mesh, metres, float32 [X, Y, Z].

    Close to the surface by implicit moving least squares (Kolluri, 2005) over the nearest vertices,
    beyond it by a distance transform of the voxels that the surface crosses. Cavities count as
    inside.
    """
    shares = np.array([(i, j, 6 - i - j) for i in range(7) for j in range(7 - i)]) / 6
    samples = np.concatenate([np.tensordot(share, vertices[faces.T], 1) for share in shares])
    crossed = np.zeros(shape, bool)
    crossed[tuple(((samples - origin) / VOXEL).round().astype(int).T)] = True
    label, _ = ndimage.label(~crossed)
    outside = label == label[0, 0, 0]
    field = (ndimage.distance_transform_edt(~crossed) * VOXEL).astype(np.float32)
    field[~outside] *= -1
    close = np.flatnonzero(np.abs(field) < EXACT)
    places = np.stack(np.unravel_index(close, shape), 1) * VOXEL + origin
    used = np.unique(faces)
    distance, near = cKDTree(vertices[used]).query(places, 8)
    near = used[near]
    weight = np.exp(-(((distance - distance[:, :1]) / (0.008 + 0.3 * distance[:, :1])) ** 2))
    plane = np.einsum("mki,mki->mk", normals[near], places[:, None] - vertices[near])
    exact = (weight * plane).sum(1) / weight.sum(1)
    cavity = ~outside & ~crossed
    exact = np.where(cavity.ravel()[close], np.minimum(exact, -0.005), exact)
    field.ravel()[close] = exact
    return field


def _inner_radius(field, vertices, normals, origin) -> np.ndarray:
    """Radius of the largest inner ball that touches each vertex, metres, float32 [V]."""
    radius, growing = np.full(len(vertices), 0.01), np.ones(len(vertices), bool)
    for length in np.arange(0.015, 0.16, 0.005):
        at = ((vertices - normals * length - origin) / VOXEL).T
        depth = -ndimage.map_coordinates(field, at, order=1, mode="nearest")
        growing &= depth > 0.8 * length
        radius[growing] = length
    return radius.astype(np.float32)
