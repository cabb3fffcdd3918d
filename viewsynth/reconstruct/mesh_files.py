# SPDX-License-Identifier: Apache-2.0
"""Read the file of a mesh: one surface with one texture, whatever the file holds.

file -> trimesh -> this module -> own_mesh. The geometries of a scene are merged and their images
are put side by side. Vertex and face colours become a texture as well: 2 x 2 texels a triangle,
between which the renderer's bilinear look-up interpolates as the triangle does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from viewsynth.render import zbuffer

SUFFIXES = (".glb", ".gltf", ".obj", ".ply")
MOST_TRIANGLES = 2_000_000
MOST_BYTES = 1 << 30  # of a file
DETAIL = 640  # texels along the height of a person; finer textures are averaged down to this
WIDEST = 4096  # texels a side of an image before that
EXPORT = "export it again with a texture or with vertex colours"


class MeshError(ValueError):
    """A file that holds no usable mesh; the message is one sentence that says why."""


@dataclass(frozen=True)
class Colours:
    """A texture and where the triangles lie in it.

    Args:
        image: uint8 [H, W, 3].
        places: Of each corner of the triangles, pixels from the top left.  float64 [F, 3, 2]
        owner: Triangle that each texel belongs to, -1 = none.  int64 [H, W]
    """

    image: np.ndarray
    places: np.ndarray
    owner: np.ndarray


@dataclass(frozen=True)
class Raw:
    """The content of a file.

    Args:
        vertices: In the units and axes of the file, without duplicates.  float64 [V, 3]
        faces: int64 [F, 3].
        colours: See `Colours`.
        kind: Where the colours come from: "texture", "material", "vertex" or "face", or several.
        transparent: Whether a material is transparent, which is ignored.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colours: Colours
    kind: str
    transparent: bool


def files(path: Path) -> tuple[Path, ...]:
    """The file and those that it names: materials, images and buffers that exist next to it.

    Args:
        path: A .glb, .gltf, .obj or .ply file.
    """
    found, todo = [path], [path]
    while todo:
        for name in _named(one := todo.pop()):
            other = one.parent / name
            if other.is_file() and other not in found:
                found.append(other)
                todo += [other] * (other.suffix.lower() == ".mtl")
    return (path, *sorted(found[1:]))


def _named(path: Path) -> list[str]:
    """Names of other files in an .obj, .mtl or .gltf file."""
    kind = path.suffix.lower()
    try:
        if kind == ".gltf":
            tree = json.loads(path.read_bytes())
            entries = [*tree.get("buffers", []), *tree.get("images", [])]
            uris = [entry.get("uri", "") for entry in entries]
            return [uri for uri in uris if uri and not uri.startswith("data:")]
        if kind in (".obj", ".mtl"):
            key = rb"mtllib" if kind == ".obj" else rb"map_\w+"
            lines = re.findall(rb"^[ \t]*" + key + rb"[ \t]+(.+?)\s*$", path.read_bytes(), re.M)
            return [line.decode("utf-8", "replace") for line in lines]
    except (OSError, ValueError, AttributeError):
        pass  # `read` gives the reason
    return []


def read(path: Path) -> Raw:
    """Read a file.

    Args:
        path: A .glb, .gltf, .obj or .ply file.

    Returns:
        Its geometries as one surface.

    Raises:
        MeshError: If it cannot be read, is empty, damaged, too large or has no colours.
    """
    import trimesh

    size = path.stat().st_size
    if size == 0:
        raise MeshError("the file is empty")
    if size > MOST_BYTES:
        raise MeshError(f"the file has {size >> 20} MB, at most {MOST_BYTES >> 20} MB are read")
    try:
        scene = trimesh.load(path, process=False)
        if not isinstance(scene, trimesh.Scene):
            scene = trimesh.Scene(scene)
        pieces = list(_pieces(scene, trimesh))
    except MeshError:
        raise
    except Exception as error:  # trimesh raises anything on damaged files
        text = str(error) or type(error).__name__
        raise MeshError(f"the file cannot be read as {path.suffix[1:].upper()}: {text}") from error
    if not pieces:
        clouds = any(isinstance(one, trimesh.PointCloud) for one in scene.geometry.values())
        what = "a point cloud, without triangles" if clouds else "no triangles"
        raise MeshError(f"the file holds {what}: export a surface")
    if (count := sum(len(faces) for _, faces, _ in pieces)) > MOST_TRIANGLES:
        raise MeshError(
            f"the mesh has {count:,} triangles, at most {MOST_TRIANGLES:,} are read: decimate it"
        )
    return _merged(pieces)


def _pieces(scene, trimesh) -> Iterator[tuple[np.ndarray, np.ndarray, object]]:
    """Vertices in the world, faces and visual of every geometry of a scene."""
    for node in sorted(scene.graph.nodes_geometry):
        matrix, name = scene.graph[node]
        one = scene.geometry[name]
        if not isinstance(one, trimesh.Trimesh) or not len(one.faces):
            continue
        vertices = np.asarray(one.vertices, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
        faces = np.asarray(one.faces, np.int64)
        if not 0 <= faces.min() <= faces.max() < len(vertices):
            raise MeshError("triangles refer to vertices that the file does not have")
        if not np.isfinite(vertices[faces]).all():
            raise MeshError("some vertices are not finite numbers: export it again")
        yield vertices, faces, one.visual


def _merged(pieces: list) -> Raw:
    """One surface from the geometries of a file."""
    every = np.concatenate([vertices[np.unique(faces)] for vertices, faces, _ in pieces])
    height = float(np.ptp(every, axis=0).max())
    if not height > 0:
        raise MeshError("all vertices lie in one point")
    points, triangles, paints, kinds, transparent = [], [], [], set(), False
    for vertices, faces, visual in pieces:
        corner = vertices[faces]
        area = np.linalg.norm(
            np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1
        )
        if not area.sum() > 1e-9 * height**2:
            continue
        kind, paint = _paint(faces, visual, float(area.sum()) / 2, height)
        kinds.add(kind)
        mode = getattr(getattr(visual, "material", None), "alphaMode", None)
        transparent |= mode not in (None, "OPAQUE")
        triangles.append(faces + sum(map(len, points)))
        points.append(vertices)
        paints.append(paint)
    if not paints:
        raise MeshError("all triangles are without area")
    every = np.concatenate(points).astype(np.float32) + 0.0  # no -0.0, which is another one
    vertices, index = np.unique(every, axis=0, return_inverse=True)
    faces = index.ravel()[np.concatenate(triangles)]
    used, faces = np.unique(faces, return_inverse=True)  # a vertex of no triangle has no place
    colours = _side_by_side(paints)
    if (np.ptp(colours.image[colours.owner >= 0], axis=0) == 0).all():
        raise MeshError(f"the whole mesh has one colour (is its texture there?): {EXPORT}")
    return Raw(
        vertices[used].astype(np.float64),
        faces.reshape(-1, 3),
        colours,
        " and ".join(sorted(kinds)),
        transparent,
    )


def _side_by_side(paints: list[Colours]) -> Colours:
    """Several textures as one."""
    height = max(len(paint.image) for paint in paints)
    images, owners, places, left, first = [], [], [], 0, 0
    for paint in paints:
        below = ((0, height - len(paint.image)), (0, 0))
        images.append(np.pad(paint.image, (*below, (0, 0)), mode="edge"))
        owner = np.where(paint.owner < 0, -1, paint.owner + first)
        owners.append(np.pad(owner, below, constant_values=-1))
        places.append(paint.places + [left, 0])
        left += paint.image.shape[1]
        first += len(paint.places)
    return Colours(np.hstack(images), np.concatenate(places), np.hstack(owners))


def _paint(faces: np.ndarray, visual, area: float, height: float) -> tuple[str, Colours]:
    """The colours of the triangles of one geometry, and where they come from."""
    if visual.kind == "texture":
        image, factor = _material(visual.material)
        uv = visual.uv
        if image is not None and uv is not None and len(uv):
            if not np.isfinite(uv[faces]).all():
                raise MeshError("some texture coordinates are not finite numbers")
            places = _unwrapped(np.asarray(uv, np.float64)[faces])
            return "texture", _textured(_times(image, factor), places, area, height)
        if factor is not None:
            return "material", _blocks(np.broadcast_to(factor * 255, (len(faces), 3, 3)))
        if "color" in getattr(visual, "vertex_attributes", {}):
            colours = np.asarray(visual.vertex_attributes["color"])[..., :3]
            if colours.dtype.kind == "f":
                colours = colours * 255
            return "vertex", _blocks(colours[faces])
    elif visual.kind == "vertex":
        return "vertex", _blocks(np.asarray(visual.vertex_colors)[faces, :3])
    elif visual.kind == "face":
        colours = np.asarray(visual.face_colors)[:, None, :3]
        return "face", _blocks(np.repeat(colours, 3, axis=1))
    raise MeshError(
        "the mesh has no colours (no texture that can be read, no vertex colours), and a person "
        f"without colours cannot be recognised: {EXPORT}"
    )


def _material(material) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Image, uint8 [H, W, 3], and colour in [0, 1], sRGB, [3] of a material; None = it has none."""
    from trimesh.visual.material import MultiMaterial, PBRMaterial

    if isinstance(material, MultiMaterial):
        material = material.materials[0]
    if isinstance(material, PBRMaterial):
        image, factor = material.baseColorTexture, material.baseColorFactor
        if factor is not None:  # glTF's factors are linear; trimesh stores them as bytes
            linear = np.asarray(factor, np.float64)[:3] / 255
            factor = np.where(
                linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
            )
    else:  # the colour of an OBJ material is a default of the exporter if there is an image
        image = material.image
        factor = None if image is not None or material.diffuse is None else material.diffuse
        factor = None if factor is None else np.asarray(factor, np.float64)[:3] / 255
    if image is not None:
        image = image.convert("RGB")
        if max(image.size) > WIDEST:
            image.thumbnail((WIDEST, WIDEST), Image.Resampling.BOX)
        image = np.asarray(image)
    return image, factor


def _times(image: np.ndarray, factor: np.ndarray | None) -> np.ndarray:
    """The image times a colour. In sRGB the product of two colours nearly is that of the codes."""
    if factor is None or (factor > 0.999).all():
        return image
    return (image * factor).round().clip(0, 255).astype(np.uint8)


def _unwrapped(uv: np.ndarray) -> np.ndarray:
    """Texture coordinates of repeated images, moved into [0, 1] triangle by triangle."""
    low, high = uv.min(1), uv.max(1)
    shift = np.where((low < -1e-4) | (high > 1 + 1e-4), np.floor(low), 0)
    return (uv - shift[:, None]).clip(0, 1)


def _textured(image: np.ndarray, uv: np.ndarray, area: float, height: float) -> Colours:
    """An image; a finer one than `DETAIL` is averaged down, by the texels that are used."""
    tall, wide = image.shape[:2]
    places = np.stack([uv[..., 0], 1 - uv[..., 1]], -1) * [wide, tall]
    flat = places[:, 1:] - places[:, :1]
    used = np.abs(flat[:, 0, 0] * flat[:, 1, 1] - flat[:, 0, 1] * flat[:, 1, 0]).sum() / 2
    factor = max(int(math.sqrt(used / area) * height / DETAIL), 1)
    owner = _owners(places, (tall, wide))
    if factor > 1:
        image = _reduced(image, owner >= 0, factor)
        places = places / factor
        owner = _owners(places, image.shape[:2])
    return Colours(image, places, owner)


def _owners(places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The triangle at the centre of every texel, -1 = none."""
    pixels = torch.from_numpy(places.reshape(1, -1, 2)).float()
    faces = torch.arange(pixels.shape[1]).view(-1, 3)
    found = zbuffer.rasterize(pixels, torch.ones(pixels.shape[:2]), faces, size)
    return found.face[0].long().numpy()


def _reduced(image: np.ndarray, used: np.ndarray, factor: int) -> np.ndarray:
    """The mean of the used texels of every block; that of the nearest one where none is used."""
    weight = np.where(used, 1.0, 0.0).astype(np.float32)
    tall, wide = (-(-side // factor) for side in image.shape[:2])
    room = [(0, tall * factor - image.shape[0]), (0, wide * factor - image.shape[1])]

    def blocks(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, room)
        return padded.reshape(tall, factor, wide, factor).sum((1, 3))

    total = blocks(weight)
    sums = np.stack([blocks(weight * image[..., c]) for c in range(3)], -1)
    mean = (sums / np.maximum(total, 1e-6)[..., None]).round().astype(np.uint8)
    if not (total > 0).any():
        return mean
    near = ndimage.distance_transform_edt(total == 0, return_distances=False, return_indices=True)
    return mean[tuple(near)]


def _blocks(colours: np.ndarray) -> Colours:
    """A texture of 2 x 2 texels a triangle from the colours of its corners, [F, 3, 3].

    The corners lie at the centres of three of the texels; the fourth continues the plane through
    them, so that bilinear interpolation is linear. The corner opposite to it is the one for which
    it needs least clipping.
    """
    colours = np.asarray(colours, np.float64)
    count = len(colours)
    beyond = colours.sum(1, keepdims=True) - 2 * colours  # of each corner as the opposite one
    excess = np.abs(beyond - beyond.clip(0, 255)).sum(2)
    first = excess.argmin(1)
    order = (first[:, None] + np.arange(3)) % 3
    a, b, c = (colours[np.arange(count), order[:, k]] for k in range(3))
    across = math.ceil(math.sqrt(count))
    down = -(-count // across)
    row, column = np.divmod(np.arange(count), across)
    image = np.zeros((2 * down, 2 * across, 3), np.uint8)
    owner = np.full(image.shape[:2], -1, np.int64)
    places = np.empty((count, 3, 2))
    corners = ((a, 0, 0), (b, 0, 1), (c, 1, 0), (beyond[np.arange(count), first], 1, 1))
    for k, (colour, dy, dx) in enumerate(corners):
        y, x = 2 * row + dy, 2 * column + dx
        image[y, x] = colour.clip(0, 255).round()
        owner[y, x] = np.arange(count)
        if k < 3:
            places[np.arange(count), order[:, k]] = np.stack([x, y], 1) + 0.5
    return Colours(image, places, owner)
