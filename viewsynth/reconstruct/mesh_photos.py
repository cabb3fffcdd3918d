# SPDX-License-Identifier: Apache-2.0
"""The photos of a person whose surface is an own mesh: where it faces, and what they see of it.

own_mesh -> this module -> `records.Person`. The fit of the body gives the camera of every crop. The
mesh is placed in it by the outline of the mask, and turned about the vertical axis until outlines
and colours agree best. A texel is observed if a crop sees it: in front, not at a grazing angle, and
inside the mask. The photos change nothing else: shape and colours stay those of the mesh.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from viewsynth.reconstruct import own_mesh
from viewsynth.reconstruct.charts import GRAZING, HIDDEN, OVERSAMPLE, SURE
from viewsynth.reconstruct.fit import Fit, view_rotation
from viewsynth.reconstruct.own_mesh import OwnMesh
from viewsynth.records import Person
from viewsynth.render import zbuffer
from viewsynth.render.shade import vertex_normals

POINTS = 10_000  # on the surface, for the search
TALL = 64  # rows of the crops in the search
STEP = 15.0  # degrees between the turns that are tried
STRAIGHT = 0.03  # what a turn by other than 90, 180 or 270 degrees must explain better ...
FORWARD = 0.02  # ... and any turn at all
COLOUR = 2.0  # weight of the mean difference of colours, [0, 1], against that of the outlines
SHIFTS, SCALES = range(-3, 4), (0.96, 1.0, 1.04)  # columns and sizes that are tried
SWINGS = (-20.0, -10.0, 0.0, 10.0, 20.0)  # degrees by which the azimuth of a fit may be off
BODY_FLAGS = ("error", "silhouette", "riding", "sitting")  # of the fitted body, which is not drawn


@dataclass(frozen=True)
class Look:
    """One crop of the person.

    Args:
        image: uint8 [H, W, 3].
        mask: Person probability.  float32 [H, W]
        elevation: Of the camera, degrees.
        azimuth: Likewise, by the fitted body.
        aspect: Horizontal stretch of the crop.
        top: Row of the person's highest point; may lie outside a crop that cuts the person.
        bottom: Row of the lowest point, likewise.
        height: Of the fitted, clothed body, in the units of the body model.
        trust: (0, 1].
    """

    image: np.ndarray
    mask: np.ndarray
    elevation: float
    azimuth: float
    aspect: float
    top: float
    bottom: float
    height: float
    trust: float


@dataclass(frozen=True)
class Camera:
    """Where a mesh lies in a crop: pixel = (x * scale * aspect, y * scale) + shift.

    Args:
        rotation: Rows right, down, forward.  float64 [3, 3]
        stretch: Pixels per metre to the right and down.  float64 [2]
        shift: Pixel of the world's origin.  float64 [2]
    """

    rotation: np.ndarray
    stretch: np.ndarray
    shift: np.ndarray

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [N, 2] and depth, metres, [N] of points [N, 3]."""
        local = points @ self.rotation.T
        return local[:, :2] * self.stretch + self.shift, local[:, 2]


def looks(crops: Sequence, found: Fit, vertices: Tensor, rows: Sequence[int], sources: list):
    """The crops of a person that its reconstruction used.

    Args:
        crops: Of the person, with `image`, `parse` and `flags`.
        found: The fit of the chunk.
        vertices: Clothed bodies of all crops of the chunk.  [N, V, 3]
        rows: Index of each crop in the fit.
        sources: Of the reconstructed person, one per crop.

    Returns:
        A `Look` per crop that was used, and the positions of these crops.
    """
    taken, places = [], []
    for place, (crop, row, source) in enumerate(zip(crops, rows, sources, strict=True)):
        if not source["used"]:
            continue
        inside = np.flatnonzero((crop.parse.mask > 0.5).any(1))
        if "cut" in crop.flags or not len(inside):
            pixels, _ = found.project(vertices[row : row + 1], torch.tensor([row]))
            ends = pixels[0, :, 1].min(), pixels[0, :, 1].max()
        else:
            ends = inside[0], inside[-1] + 1
        height = vertices[row, :, 1].max() - vertices[row, :, 1].min()
        values = (found.elevation[row], found.azimuth[row], found.aspect[row], *ends, height)
        trust = source["quality"]["trust"]
        taken.append(Look(crop.image, crop.parse.mask, *map(float, values), trust))
        places.append(place)
    return taken, places


def observe(mesh: OwnMesh, reconstructed: Person, taken: Sequence[Look]) -> tuple[Person, list]:
    """Replace the reconstruction of a person by a mesh.

    Args:
        mesh: The mesh.
        reconstructed: The person by its photos.
        taken: The crops, see `looks`; at least one.

    Returns:
        The person, and of each crop where the mesh lies, bool [H, W].
    """
    points, colours = _points(mesh)
    height = reconstructed.scale * float(np.median([look.height for look in taken]))
    mesh = own_mesh.turned(mesh, _turn(points, colours, taken), height)
    points, colours = _points(mesh)
    cameras = [_place(points, colours, look) for look in taken]
    seen = np.zeros(mesh.owner.shape, np.float32)
    fronts, overlaps = [], []
    for look, camera in zip(taken, cameras, strict=True):
        weight, front = _visible(mesh, look, camera)
        seen = np.maximum(seen, np.clip(look.trust * weight / SURE, 0, 1))
        both = front & (look.mask > 0.5)
        overlaps.append(both.sum() / max((front | (look.mask > 0.5)).sum(), 1))
        fronts.append(front)
    share = _share(mesh, seen)
    known = mesh.owner >= 0
    if known.any():
        near = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        seen = seen[tuple(near)]
    surface = dataclasses.replace(mesh.surface, seen=(255 * seen).round().astype(np.uint8))
    mesh = dataclasses.replace(mesh, surface=surface)
    measured = quality(reconstructed.quality, float(np.mean(overlaps)), share)
    return own_mesh.person(mesh, reconstructed.pid, measured, reconstructed.sources), fronts


def quality(fitted: dict, overlap: float, share: float) -> dict:
    """FitQuality of a mesh: that of the photos, and how well the mesh matches them.

    Args:
        fitted: Of the reconstructed person.
        overlap: Mean IoU of the mesh and the masks.
        share: Share of the surface that was observed.
    """
    kept = ("spread", "vote", "presence", "doubt", "aspect", "pixels", "crops", "found")
    flags = [flag for flag in fitted["flags"] if flag not in BODY_FLAGS]
    own = {"overlap": round(overlap, 4), "seen_texels": round(share, 4), "flags": flags}
    return {key: fitted[key] for key in kept if key in fitted} | own


# ---- where it faces --------------------------------------------------------------------------


def _points(mesh: OwnMesh) -> tuple[np.ndarray, np.ndarray]:
    """Points on the surface, evenly by area and always the same ones, and their colours."""
    surface, rng = mesh.surface, np.random.default_rng(0)
    corner = surface.vertices.astype(np.float64)[surface.faces]
    area = np.linalg.norm(
        np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1
    )
    steps = (np.arange(POINTS) + rng.random(POINTS)) / POINTS
    face = np.searchsorted(np.cumsum(area) / area.sum(), steps).clip(max=len(area) - 1)
    bary = rng.dirichlet((1, 1, 1), POINTS)
    points = (corner[face] * bary[..., None]).sum(1)
    uv = (surface.uvs[surface.face_uvs[face]] * bary[..., None]).sum(1)
    tall, wide = surface.texture.shape[:2]
    row = ((1 - uv[:, 1]) * tall).astype(int).clip(0, tall - 1)
    column = (uv[:, 0] * wide).astype(int).clip(0, wide - 1)
    return points, surface.texture[row, column].astype(np.float64)


def _turn(points: np.ndarray, colours: np.ndarray, taken: Sequence[Look]) -> float:
    """Degrees by which the mesh must be turned so that it faces +z."""
    targets = [_target(look) for look in taken]
    best, degrees = -np.inf, 0.0
    for turn in np.arange(0, 360, STEP):
        scores = [
            look.trust * _best(points, colours, look, target, look.azimuth - turn)[0]
            for look, target in zip(taken, targets, strict=True)
        ]
        score = sum(scores) / sum(look.trust for look in taken)
        score -= FORWARD * bool(turn) + STRAIGHT * bool(turn % 90)
        if score > best + 1e-9:
            best, degrees = score, float(turn)
    return degrees


def _target(look: Look) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Mask and colours of a crop with the person `TALL` rows high, its left edge, and the scale."""
    factor = TALL / max(look.bottom - look.top, 1.0)
    size = [max(round(side * factor), 1) for side in look.mask.shape[::-1]]
    mask = np.asarray(Image.fromarray(look.mask).resize(size, Image.Resampling.BOX))
    image = np.asarray(Image.fromarray(look.image).resize(size, Image.Resampling.BOX))
    return mask > 0.5, image.astype(np.float64), size[0] / look.mask.shape[1], factor


def _best(
    points: np.ndarray,
    colours: np.ndarray,
    look: Look,
    target: tuple,
    azimuth: float,
    scales: Sequence[float] = (1.0,),
) -> tuple[float, Camera]:
    """Score and camera of the best place of the mesh in a crop, seen from an azimuth."""
    mask, image, across, factor = target
    angles = torch.tensor([look.elevation]), torch.tensor([azimuth])
    rotation = view_rotation(*angles)[0].double().numpy()
    local = points @ rotation.T
    low, high = local.min(0), local.max(0)
    columns = np.flatnonzero(mask.any(0))
    centre = (columns[0] + columns[-1] + 1) / 2 if len(columns) else mask.shape[1] / 2
    best, found = -np.inf, None
    for scale in scales:
        pixels = scale * (look.bottom - look.top) / (high[1] - low[1])  # a metre, in the crop
        stretch = pixels * np.array([look.aspect * across, factor])
        bottom = look.bottom * factor - high[1] * stretch[1]
        for move in SHIFTS:
            shift = np.array([centre + move - (low[0] + high[0]) / 2 * stretch[0], bottom])
            value = _score(local[:, :2] * stretch + shift, local[:, 2], colours, mask, image)
            if value > best:
                unit = np.array([across, factor])
                best, found = value, Camera(rotation, stretch / unit, shift / unit)
    return best, found


def _score(
    pixels: np.ndarray, depth: np.ndarray, colours: np.ndarray, mask: np.ndarray, image: np.ndarray
) -> float:
    """How well points explain a crop: IoU of the outlines less the difference of the colours."""
    tall, wide = mask.shape
    at = np.floor(pixels).astype(int)
    inside = ((at >= 0) & (at < (wide, tall))).all(1)
    cell = at[inside, 1] * wide + at[inside, 0]
    order = np.argsort(-depth[inside], kind="stable")
    nearest = np.full(tall * wide, -1)
    nearest[cell[order]] = np.flatnonzero(inside)[order]  # the last one written is the nearest
    shown = (nearest >= 0).reshape(tall, wide)
    both = shown & mask
    if both.sum() < 8:
        return -COLOUR
    overlap = both.sum() / (shown | mask).sum()  # what lies beyond the crop does not count
    drawn, real = colours[nearest.reshape(tall, wide)[both]], image[both]
    gain = (real.mean(0) + 8) / (drawn.mean(0) + 8)  # light and white balance differ
    return float(overlap - COLOUR * np.abs(drawn * gain - real).mean() / 255)


def _place(points: np.ndarray, colours: np.ndarray, look: Look) -> Camera:
    """The camera of a crop for a mesh that faces +z, near that of the fit."""
    target = _target(look)
    found = [_best(points, colours, look, target, look.azimuth + swing, SCALES) for swing in SWINGS]
    values = [value - 0.0005 * abs(swing) for (value, _), swing in zip(found, SWINGS, strict=True)]
    return found[int(np.argmax(values))][1]


# ---- what the photos see ---------------------------------------------------------------------


def _visible(mesh: OwnMesh, look: Look, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """How well a crop sees every texel, [0, 1], [H, W]; and where the mesh lies, [h, w]."""
    surface, size = mesh.surface, look.mask.shape
    vertices = surface.vertices.astype(np.float64)
    pixels, depth = camera.project(vertices)
    drawn = torch.from_numpy(np.concatenate([pixels, depth[:, None] + 10], 1)[None]).float()
    faces = torch.from_numpy(surface.faces.astype(np.int64))
    fine_size = tuple(OVERSAMPLE * side for side in size)
    fine = zbuffer.rasterize(drawn[..., :2] * OVERSAMPLE, drawn[..., 2], faces, fine_size)
    coarse = zbuffer.rasterize(drawn[..., :2], drawn[..., 2], faces, size)
    normals = vertex_normals(torch.from_numpy(surface.vertices)[None], faces)[0].double().numpy()
    texel, face, bary = _texels(mesh)
    at, far, cosine = (
        (values[surface.faces[face]] * bary.reshape(-1, 3, *[1] * (values.ndim - 1))).sum(1)
        for values in (pixels, depth + 10, -normals @ camera.rotation[2])
    )
    front = fine.depth[0].numpy()
    cell = np.floor(at * OVERSAMPLE).astype(int)
    inside = ((cell >= 0) & (cell < front.shape[::-1])).all(1)
    cell = cell.clip(0, np.array(front.shape[::-1]) - 1)
    front = ndimage.maximum_filter(np.where(np.isfinite(front), front, -np.inf), 3)
    visible = inside & (far < front[cell[:, 1], cell[:, 0]] + HIDDEN) & (cosine > GRAZING)
    person = ndimage.map_coordinates(look.mask, (at[:, ::-1] - 0.5).T, order=1, mode="constant")
    weight = np.zeros(mesh.owner.size, np.float32)
    weight[texel] = np.where(visible & (person > 0.3), cosine, 0)
    return weight.reshape(mesh.owner.shape), (coarse.face[0] >= 0).numpy()


def _texels(mesh: OwnMesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index, triangle and barycentric coordinates of all texels that belong to a triangle."""
    texel = np.flatnonzero(mesh.owner >= 0)
    face = mesh.owner.ravel()[texel]
    tall, wide = mesh.owner.shape
    row, column = np.divmod(texel, wide)
    place = np.stack([(column + 0.5) / wide, 1 - (row + 0.5) / tall], 1)
    a, b, c = np.moveaxis(mesh.surface.uvs.astype(np.float64)[mesh.surface.face_uvs[face]], 1, 0)

    def cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]

    whole = cross(b - a, c - a)
    whole = np.where(np.abs(whole) < 1e-15, np.inf, whole)
    second, third = cross(place - a, c - a) / whole, cross(b - a, place - a) / whole
    bary = np.stack([1 - second - third, second, third], 1).clip(0, 1)
    return texel, face, bary / bary.sum(1, keepdims=True)


def _share(mesh: OwnMesh, seen: np.ndarray) -> float:
    """Share of the surface that was observed, by area."""
    corner = mesh.surface.vertices.astype(np.float64)[mesh.surface.faces]
    area = np.linalg.norm(
        np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1
    )
    known = mesh.owner >= 0
    count = np.bincount(mesh.owner[known], minlength=len(area))
    total = np.bincount(mesh.owner[known], seen[known], minlength=len(area))
    area = area * (count > 0)
    return float((area * total / np.maximum(count, 1)).sum() / max(area.sum(), 1e-12))
