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
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from viewsynth.reconstruct import own_mesh
from viewsynth.reconstruct.charts import SURE
from viewsynth.reconstruct.drawing import draw
from viewsynth.reconstruct.exposure import GRAZING, HIDDEN
from viewsynth.reconstruct.fit import view_rotation
from viewsynth.reconstruct.own_mesh import OwnMesh
from viewsynth.records import Person
from viewsynth.render import zbuffer
from viewsynth.render.shade import vertex_normals

if TYPE_CHECKING:  # `people` imports this module
    from viewsynth.reconstruct.fitting import Fitted

CELL = 0.012  # metres, side of the cubes whose vertices are one in the search
TALL = 64  # rows of the crops in the search
STEP = 15.0  # degrees between the turns that are tried
STRAIGHT = 0.03  # what a turn by other than 90, 180 or 270 degrees must explain better ...
FORWARD = 0.02  # ... and any turn at all
COLOUR = 2.0  # weight of the mean difference of colours, [0, 1], against that of the outlines
SHIFTS, SCALES = range(-3, 4), (0.96, 0.98, 1.0, 1.02, 1.04)  # columns and sizes that are tried
SWINGS = (-20.0, -10.0, 0.0, 10.0, 20.0)  # degrees by which the azimuth of a fit may be off
# Of the fitted body, which is not drawn.
BODY_FLAGS = ("error", "silhouette", "outline", "riding", "sitting")


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


def look(found: Fitted, row: int, trust: float) -> Look:
    """A crop of the fit as a `Look`.

    Args:
        found: The fitted crops of the chunk.
        row: Index of the crop.
        trust: (0, 1].
    """
    crop, fit, body = found.crops[row], found.fit, found.vertices[row]
    inside = np.flatnonzero((crop.parse.mask > 0.5).any(1))
    if "cut" in crop.flags or not len(inside):
        pixels, _ = fit.project(body[None], torch.tensor([row]))
        ends = pixels[0, :, 1].min(), pixels[0, :, 1].max()
    else:
        ends = inside[0], inside[-1] + 1
    height = body[:, 1].max() - body[:, 1].min()
    values = (fit.elevation[row], fit.azimuth[row], fit.aspect[row], *ends, height)
    return Look(crop.image, crop.parse.mask, *map(float, values), trust)


def observe(
    mesh: OwnMesh, reconstructed: Person, found: Fitted, rows: Sequence[int]
) -> tuple[Person, dict[int, np.ndarray]]:
    """Replace the reconstruction of a person by a mesh.

    Args:
        mesh: The mesh.
        reconstructed: The person by its photos.
        found: The fitted crops of the chunk.
        rows: Those of the person, in the order of its sources.

    Returns:
        The person, and where the mesh lies in each crop that was used, bool [H, W].
    """
    sources = zip(rows, reconstructed.sources, strict=True)
    used = {row: source["quality"]["trust"] for row, source in sources if source["used"]}
    person, fronts = observed(mesh, reconstructed, [look(found, *one) for one in used.items()])
    return person, dict(zip(used, fronts, strict=True))


def observed(
    mesh: OwnMesh, reconstructed: Person, taken: Sequence[Look]
) -> tuple[Person, list[np.ndarray]]:
    """The same for crops as `Look`s, at least one; returns a list of where the mesh lies."""
    height = reconstructed.scale * float(np.median([look.height for look in taken]))
    mesh = own_mesh.turned(mesh, _turn(_coarse(mesh), taken), height)
    coarse = _coarse(mesh)
    cameras = [_place(coarse, look) for look in taken]
    seen = np.zeros(mesh.owner.shape, np.float32)
    fronts, overlaps = [], []
    for look, camera in zip(taken, cameras, strict=True):
        weight, front = _visible(mesh, look, camera)
        seen = np.maximum(seen, np.clip(look.trust * weight / SURE, 0, 1))
        both = front & (look.mask > 0.5)
        overlaps.append(both.sum() / max((front | (look.mask > 0.5)).sum(), 1))
        fronts.append(front)
    known = mesh.owner >= 0
    if known.any():
        near = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        seen = seen[tuple(near)]
    share = _share(mesh, seen)
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


@dataclass(frozen=True)
class Coarse:
    """A mesh with few triangles, for the search.

    Args:
        vertices: float64 [V, 3].
        faces: int64 [F, 3].
        colours: Of the vertices.  float64 [V, 3]
    """

    vertices: np.ndarray
    faces: Tensor
    colours: np.ndarray


def _coarse(mesh: OwnMesh) -> Coarse:
    """The mesh with the vertices of every cube of side `CELL` as one, and their mean colours."""
    surface = mesh.surface
    cube = np.floor(surface.vertices / CELL).astype(np.int64) + (1 << 20)
    _, index = np.unique(cube @ (1 << 42, 1 << 21, 1), return_inverse=True)
    tall, wide = surface.texture.shape[:2]
    row = ((1 - surface.uvs[:, 1]) * tall).astype(int).clip(0, tall - 1)
    column = (surface.uvs[:, 0] * wide).astype(int).clip(0, wide - 1)
    colours = surface.texture[row, column].astype(np.float64)[surface.face_uvs.ravel()]
    corner = index[surface.faces.ravel()]

    def means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
        count = np.maximum(np.bincount(group, minlength=index.max() + 1), 1)
        sums = [np.bincount(group, column, minlength=len(count)) for column in values.T]
        return np.stack(sums, 1) / count[:, None]

    faces = corner.reshape(-1, 3)
    solid = (faces != np.roll(faces, 1, axis=1)).all(1)
    faces = np.unique(faces[solid], axis=0) if solid.any() else faces[:1]
    return Coarse(
        means(surface.vertices.astype(np.float64), index),
        torch.from_numpy(faces),
        means(colours, corner),
    )


@dataclass(frozen=True)
class Target:
    """A crop with the person `TALL` rows high.

    Args:
        mask: bool [h, w].
        image: float64 [h, w, 3].
        factor: Columns and rows of it per pixel of the crop.  float64 [2]
        centre: Column of the middle of the mask, in it.
    """

    mask: np.ndarray
    image: np.ndarray
    factor: np.ndarray
    centre: float


def _target(look: Look) -> Target:
    factor = TALL / max(look.bottom - look.top, 1.0)
    tall, wide = look.mask.shape
    size = max(round(wide * factor), 1), max(round(tall * factor), 1)
    mask = np.asarray(Image.fromarray(look.mask).resize(size, Image.Resampling.BOX))
    image = np.asarray(Image.fromarray(look.image).resize(size, Image.Resampling.BOX))
    columns = np.flatnonzero((look.mask > 0.5).any(0))
    middle = columns[[0, -1]].mean() + 0.5 if len(columns) else wide / 2
    factors = np.array(size) / (wide, tall)
    return Target(mask > 0.5, image.astype(np.float64), factors, middle * factors[0])


def _best(
    coarse: Coarse, look: Look, target: Target, azimuths: Sequence[float], scale: float = 1.0
) -> list[tuple[float, Camera]]:
    """Score and camera of the best place of the mesh in a crop, for each azimuth.

    Args:
        coarse: The mesh.
        look: The crop.
        target: The same crop, see `_target`.
        azimuths: From which the crop may see the mesh, degrees.  [N]
        scale: Height of the mesh in the crop, relative to that of the mask.
    """
    angles = torch.full((len(azimuths),), look.elevation), torch.tensor(azimuths).float()
    rotations = view_rotation(*angles).double().numpy()
    local = coarse.vertices @ rotations.transpose(0, 2, 1)
    low, high = local.min(1), local.max(1)
    pixels = scale * (look.bottom - look.top) / (high[:, 1] - low[:, 1])  # per metre, in the crop
    stretch = pixels[:, None] * target.factor * (look.aspect, 1)
    bottom = look.bottom * target.factor[1] - high[:, 1] * stretch[:, 1]
    left = target.centre - (low[:, 0] + high[:, 0]) / 2 * stretch[:, 0]
    shift = np.stack([left, bottom], 1)
    (tall, wide), most = target.mask.shape, max(SHIFTS)
    places = local[..., :2] * stretch[:, None] + shift[:, None] + (most, 0)
    drawn = zbuffer.rasterize(
        torch.from_numpy(places).float(),
        torch.from_numpy(local[..., 2] + 10).float(),
        coarse.faces,
        (tall, wide + 2 * most),
    )
    corners = coarse.colours[coarse.faces.numpy()]
    found = []
    for n, (face, bary) in enumerate(zip(drawn.face.numpy(), drawn.bary.numpy(), strict=True)):
        image = (corners[face] * bary[..., None]).sum(2)
        scores = []
        for move in SHIFTS:
            window = slice(most - move, most - move + wide)
            scores.append(_score(face[:, window] >= 0, image[:, window], target))
        chosen = int(np.argmax(scores))
        place = (shift[n] + (SHIFTS[chosen], 0)) / target.factor
        found.append((scores[chosen], Camera(rotations[n], stretch[n] / target.factor, place)))
    return found


def _score(shown: np.ndarray, drawn: np.ndarray, target: Target) -> float:
    """How well a mesh explains a crop: IoU of the outlines less the difference of the colours.

    What lies beyond the crop does not count.
    """
    both = shown & target.mask
    if both.sum() < 8:
        return -COLOUR
    overlap = both.sum() / (shown | target.mask).sum()
    own, real = drawn[both], target.image[both]
    gain = (real.mean(0) + 8) / (own.mean(0) + 8)  # light and white balance differ
    return float(overlap - COLOUR * np.abs(own * gain - real).mean() / 255)


def _turn(coarse: Coarse, taken: Sequence[Look]) -> float:
    """Degrees by which the mesh must be turned so that it faces +z."""
    turns, total = np.arange(0, 360, STEP), 0.0
    for look in taken:
        found = _best(coarse, look, _target(look), (look.azimuth - turns).tolist())
        total = total + look.trust * np.array([score for score, _ in found])
    score = total / sum(look.trust for look in taken)
    score = score - FORWARD * (turns != 0) - STRAIGHT * (turns % 90 != 0)
    return float(turns[np.argmax(score)])


def _place(coarse: Coarse, look: Look) -> Camera:
    """The camera of a crop for a mesh that faces +z, near that of the fit."""
    target, best, camera = _target(look), -np.inf, None
    azimuths = [look.azimuth + swing for swing in SWINGS]
    for scale in SCALES:
        for swing, (score, found) in zip(
            SWINGS, _best(coarse, look, target, azimuths, scale), strict=True
        ):
            score -= 0.0005 * abs(swing)
            if score > best:
                best, camera = score, found
    return camera


# ---- what the photos see ---------------------------------------------------------------------


def _visible(mesh: OwnMesh, look: Look, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """How well a crop sees every texel, [0, 1], [H, W]; and where the mesh lies, [h, w]."""
    surface, size = mesh.surface, look.mask.shape
    vertices = surface.vertices.astype(np.float64)
    pixels, depth = camera.project(vertices)
    faces = torch.from_numpy(surface.faces.astype(np.int64))
    place, away = (torch.from_numpy(one)[None].float() for one in (pixels, depth))
    drawn = draw(place, away, faces, size)
    normals = vertex_normals(torch.from_numpy(surface.vertices)[None], faces)[0].double().numpy()
    texel, face, bary = _texels(mesh)
    at, far, cosine = (
        (values[surface.faces[face]] * bary.reshape(-1, 3, *[1] * (values.ndim - 1))).sum(1)
        for values in (pixels, depth + 10, -normals @ camera.rotation[2])
    )
    front = drawn.fragments.depth[0].numpy()
    cell = np.floor(at * drawn.factor).astype(int)
    inside = ((cell >= 0) & (cell < front.shape[::-1])).all(1)
    cell = cell.clip(0, np.array(front.shape[::-1]) - 1)
    front = ndimage.maximum_filter(np.where(np.isfinite(front), front, -np.inf), 3)
    visible = inside & (far < front[cell[:, 1], cell[:, 0]] + HIDDEN) & (cosine > GRAZING)
    person = ndimage.map_coordinates(look.mask, (at[:, ::-1] - 0.5).T, order=1, mode="constant")
    weight = np.zeros(mesh.owner.size, np.float32)
    weight[texel] = np.where(visible & (person > 0.3), cosine, 0)
    return weight.reshape(mesh.owner.shape), drawn.coverage >= 0.5


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
    mean = np.bincount(mesh.owner[known], seen[known], len(area)) / np.maximum(count, 1)
    # Triangles that are smaller than a texel own none.
    middle = mesh.surface.uvs[mesh.surface.face_uvs].mean(1)
    tall, wide = seen.shape
    row = ((1 - middle[:, 1]) * tall).astype(int).clip(0, tall - 1)
    column = (middle[:, 0] * wide).astype(int).clip(0, wide - 1)
    mean = np.where(count > 0, mean, seen[row, column])
    return float((area * mean).sum() / max(area.sum(), 1e-12))
