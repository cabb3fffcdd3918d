# SPDX-License-Identifier: Apache-2.0
"""Own meshes: a surface that another program made, as a person.

mesh_files -> this module -> mesh_photos (where there are photos) -> `records.Person`. The mesh is
put upright, scaled, set on the ground and its triangles are turned outwards; its shape and its
colours stay as they are. What was done is in `OwnMesh.facts`, which the person's source keeps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from viewsynth.reconstruct import mesh_files
from viewsynth.reconstruct.mesh_files import MeshError
from viewsynth.records import MESH, Person, Surface

STATURE = 1.68  # metres, if neither the file nor photos say the height
LIKELY = (1.4, 1.98)  # heights that are believed; a mesh of height 2 was scaled to [-1, 1]
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
LOWEST = 0.75  # height over the largest width, below which a mesh does not stand (arms may spread)
REVISION = 1  # part of the fingerprint; raise it when the same file would give another person


@dataclass(frozen=True)
class OwnMesh:
    """A mesh that stands on the ground, with nothing observed yet.

    Args:
        name: Name of its sample.
        sha256: Hash of its file, in hex.
        surface: World, metres, standing on y = 0.
        owner: Triangle that each texel belongs to, -1 = none.  int64 [H, W]
        facts: What was found and done, see `load`.
    """

    name: str
    sha256: str
    surface: Surface
    owner: np.ndarray
    facts: dict


def load(path: Path, name: str, sha256: str) -> OwnMesh:
    """Read a mesh and put it upright on the ground.

    Args:
        path: A .glb, .gltf, .obj or .ply file of a standing person, y or z up.
        name: Name of its sample.
        sha256: Hash of the file.

    Returns:
        The mesh. Its `facts` are: "up", the axis that was up; "height", in the file's "unit" (m, cm
        or mm, if that gives a height between 1.4 and 1.98 m; else it is scaled); "colours", where
        they come from; "triangles"; and, unless zero, the numbers of triangles that were "turned"
        outwards and of the "open_edges" of holes; "transparent" if transparency was ignored.

    Raises:
        MeshError: If it cannot be used, with the reason.
    """
    raw = mesh_files.read(path)
    vertices, up = _upright(raw.vertices)
    height = float(np.ptp(vertices[:, 1]))
    units = [unit for unit, size in UNITS.items() if LIKELY[0] <= height * size <= LIKELY[1]]
    metres = height * UNITS[units[0]] if units else STATURE
    vertices = _standing(vertices * (metres / height))
    faces, places, turned = outward(vertices, raw.faces, raw.colours.places)
    tall, wide = raw.colours.image.shape[:2]
    pairs = np.ascontiguousarray(places.reshape(-1, 2).astype(np.float32))
    codes, face_uvs = np.unique(pairs.view(np.uint64), return_inverse=True)
    uvs = codes.view(np.float32).reshape(-1, 2) / np.array([wide, tall], np.float32)
    surface = Surface(
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        uvs=np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1).astype(np.float32),
        face_uvs=face_uvs.reshape(-1, 3).astype(np.int32),
        texture=np.ascontiguousarray(raw.colours.image),
        seen=np.zeros((tall, wide), np.uint8),
    )
    facts = {
        "up": up,
        "height": round(height, 4),
        "unit": units[0] if units else f"none: scaled to {metres:.2f} m",
        "colours": raw.kind,
        "triangles": len(faces),
        "turned": turned,
        "open_edges": _open_edges(faces),
        "transparent": raw.transparent,
    }
    facts = {key: value for key, value in facts.items() if value}
    return OwnMesh(name, sha256, surface, raw.colours.owner, facts)


def _upright(vertices: np.ndarray) -> tuple[np.ndarray, str]:
    """The vertices with y up, and the axis that was up."""
    x, y, z = np.ptp(vertices, axis=0)
    up = "z" if z > y else "y"
    height, depth = max(y, z), min(y, z)
    if height < LOWEST * max(x, depth):
        raise MeshError(
            f"the mesh does not stand: it measures {x:.3g} x {y:.3g} x {z:.3g} along x, y and z; "
            "export it with y or z up"
        )
    if up == "z":
        vertices = vertices[:, [0, 2, 1]] * [1, 1, -1]
    return vertices, up


def _standing(vertices: np.ndarray) -> np.ndarray:
    """The vertices on the ground, with the middle of their box on the y axis."""
    low, high = vertices.min(0), vertices.max(0)
    return vertices - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]


def outward(
    vertices: np.ndarray, faces: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Turn triangles so that they are counter-clockwise seen from outside.

    Neighbours are made to agree first: in the graph of all triangles as they are and turned, where
    those that agree are joined, a piece that can be oriented falls into two components, each the
    reverse of the other. The one that encloses a positive volume is taken; of a piece that
    encloses hardly any, the one that turns fewer triangles.

    Args:
        vertices: [V, 3].
        faces: int64 [F, 3].
        places: Texture coordinates of the corners, which are turned as well.  [F, 3, 2]

    Returns:
        Faces, places, and how many were turned.
    """
    count = len(faces)
    starts, ends = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    owner, rises = np.repeat(np.arange(count), 3), starts < ends
    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    order = np.lexsort((high, low))
    edge = low[order] * np.int64(len(vertices)) + high[order]
    first = np.r_[True, edge[1:] != edge[:-1]]
    number = np.cumsum(first) - 1
    pair = np.flatnonzero(first)[np.bincount(number) == 2]  # manifold edges only
    a, b = order[pair], order[pair + 1]
    left, right = owner[a], owner[b]
    against = (rises[a] == rises[b]) * count  # both run the same way: one must be turned
    rows, columns = np.r_[left, left + count], np.r_[right + against, right + count - against]
    graph = sparse.coo_matrix((np.ones(len(rows), bool), (rows, columns)), (2 * count,) * 2)
    _, label = connected_components(graph, directed=False)
    as_is, reverse = label[:count], label[count:]
    piece = np.minimum(as_is, reverse)
    flip = (as_is != piece) & (as_is != reverse)
    sign = np.where(flip, -1, 1)
    corner = vertices[faces]
    middle = _means(corner.mean(1), piece)
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    towards = ((corner.mean(1) - middle[piece]) * normal).sum(1) * sign
    size = np.linalg.norm(corner.mean(1) - middle[piece], axis=1) * np.linalg.norm(normal, axis=1)
    volume, most = np.bincount(piece, towards), np.bincount(piece, size)
    flat = np.abs(volume) < 0.1 * most
    inverted = np.where(flat, np.bincount(piece, sign) < 0, volume < 0)
    flip = flip ^ (inverted[piece] & (as_is != reverse))
    faces, places = faces.copy(), places.copy()
    faces[flip], places[flip] = faces[flip, ::-1], places[flip, ::-1]
    return faces, places, int(flip.sum())


def _means(points: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mean of the points of each group, [G, 3]."""
    total = np.maximum(np.bincount(group), 1)
    return np.stack([np.bincount(group, points[:, k]) / total for k in range(3)], 1)


def _open_edges(faces: np.ndarray) -> int:
    """Number of edges of a single triangle, which are the rims of holes."""
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2), axis=1)
    edges = edges[edges[:, 0] < edges[:, 1]]  # others are sides of triangles without area
    code = edges[:, 0].astype(np.int64) << 32 | edges[:, 1]
    return int((np.unique(code, return_counts=True)[1] == 1).sum())


def turned(mesh: OwnMesh, degrees: float, height: float) -> OwnMesh:
    """The mesh turned about the vertical axis and, if its file does not say its height, scaled.

    Args:
        mesh: The mesh.
        degrees: From +z towards +x.
        height: Metres.
    """
    facts, size = dict(mesh.facts), 1.0
    if degrees:
        facts["turn"] = degrees
    if facts["unit"] not in UNITS:
        size = height / float(mesh.surface.vertices[:, 1].max())
        facts["unit"] = f"none: scaled to {height:.2f} m"
    if not degrees and size == 1:
        return mesh
    turn_rad = np.deg2rad(degrees)
    cos, sin = np.cos(turn_rad), np.sin(turn_rad)
    x, y, z = size * mesh.surface.vertices.astype(np.float64).T
    vertices = _standing(np.stack([x * cos + z * sin, y, z * cos - x * sin], 1))
    surface = dataclasses.replace(mesh.surface, vertices=vertices.astype(np.float32))
    return dataclasses.replace(mesh, surface=surface, facts=facts)


def person(
    mesh: OwnMesh,
    pid: str,
    quality: dict | None = None,
    sources: list[dict] | None = None,
) -> Person:
    """A person that is drawn as this mesh.

    Args:
        mesh: The mesh.
        pid: Identity.
        quality: Of the photos, see `mesh_photos.quality`; None = there are none.
        sources: Of the photos, as of a reconstructed person.

    Returns:
        The person; without photos with the flag "unobserved".
    """
    own = {"file": mesh.name, "sha256": mesh.sha256, "used": True, "mesh": mesh.facts}
    sources = [own, *(sources or [])]
    settings = json.dumps([REVISION, MESH, sources], sort_keys=True)
    nothing = np.zeros((0, 3), np.float32)
    return Person(
        pid=pid,
        body=MESH,
        shape=nothing[:, 0],
        pose=nothing,
        offsets=nothing[:, 0],
        scale=1.0,
        texture=np.zeros((1, 1, 3), np.uint8),
        seen=np.zeros((1, 1), np.uint8),
        surface=mesh.surface,
        quality=quality or {"seen_texels": 0.0, "flags": ["unobserved"]},
        sources=sources,
        fingerprint=hashlib.sha256(settings.encode()).hexdigest(),
    )
