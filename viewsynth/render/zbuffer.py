# SPDX-License-Identifier: Apache-2.0
"""Z-buffer in plain torch: triangle id, depth and barycentric coordinates of each pixel.

The default rasterizer backend of `viewsynth.render`; the same code runs on a CPU and on a GPU.

Rules:
- Vertices are snapped to 1/1024 pixel. A triangle covers a pixel if the pixel's centre is inside
  it or on one of its top or left edges. Triangles that share an edge therefore never cover the
  same pixel and leave no gap. The arithmetic is on integers (in float64, where it is exact).
- Both sides of a triangle are drawn, because skirts and hair are open surfaces.
- The smallest float32 depth wins; at equal depth, the smaller face index.
- A triangle is skipped if one of its vertices is nearer than `NEAR`, not finite, or further than
  `GUARD` pixels from the canvas origin.
The result of one canvas is independent of the rest of the batch, of chunking and of threads, so
canvases of meshes of any topology are drawn together.

Speed: a body has far more triangles than its image has pixels, so most triangles contain no pixel
centre. Those are dropped first, by integer bounding boxes with the views innermost in memory. The
rest are grouped by the size of their bounding box, and one scatter-min of the integer key
(depth bits << 32 | face index) resolves all candidates of a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SUBPIXEL = 1024  # steps per pixel of the snapping grid
GUARD = 16384  # pixels; keeps every product below 2**53
NEAR = 0.01  # metres
NOTHING = torch.iinfo(torch.int64).max
# Sides of the bounding boxes that triangles are grouped by; above SIDES[SQUARE] they are square.
SIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
SQUARE = 2
# Triangles x views whose bounding boxes are computed at once, and candidate pixels tested at once:
# small enough for a CPU's cache, large for a GPU.
CHUNK = {"cpu": 1 << 19, "cuda": 1 << 24}
TILE = {"cpu": 1 << 18, "cuda": 1 << 24}


@dataclass(frozen=True)
class Fragments:
    """The visible triangle of each pixel of N canvases.

    Args:
        face: Index of the triangle, -1 = none.  int32 [N, H, W]
        bary: Perspective-correct barycentric coordinates, 0 = none.  float32 [N, H, W, 3]
        depth: Depth along the optical axis, metres, inf = none.  float32 [N, H, W]
    """

    face: Tensor
    bary: Tensor
    depth: Tensor


def rasterize(
    pixels: Tensor | Sequence[Tensor],
    depth: Tensor | Sequence[Tensor],
    faces: Tensor | Sequence[Tensor],
    size: tuple[int, int],
) -> Fragments:
    """Rasterize N sets of vertices of one or several meshes, each onto its own canvas.

    Source: ours; edge functions after Pineda, SIGGRAPH 1988, with the usual top-left rule.

    Args:
        pixels: Vertices on the canvas, pixels; (0, 0) is the outer corner of the top left pixel.
            [N, V, 2]; of several meshes, one such tensor each, with N and V of that mesh.
        depth: Depth of the vertices along the optical axis, metres.  [N, V], or one each.
        faces: Vertex indices, counter-clockwise seen from outside.  int64 [F, 3], or one each.
        size: Canvas (height, width), pixels.

    Returns:
        All canvases, mesh after mesh; `face` counts the triangles of the canvas's own mesh.

    Raises:
        ValueError: If the canvas is empty or too large, shapes do not match, or a face index is
            out of range.
    """
    meshes = check(pixels, depth, faces, size)
    shape, device = (sum(len(mesh[1]) for mesh in meshes), *size), meshes[0][0].device
    face = torch.empty(shape, dtype=torch.int32, device=device)
    bary = torch.zeros((*shape, 3), device=device)
    nearest = torch.empty(shape, device=device)
    stop = 0
    for chunk in _chunks(meshes, CHUNK[device.type]):
        part = slice(stop, stop := stop + sum(len(mesh[1]) for mesh in chunk))
        keys = torch.full(face[part].shape, NOTHING, dtype=torch.int64, device=device)
        hits, first = _draw(chunk, size, keys.view(-1))
        face[part] = torch.where(keys == NOTHING, -1, (keys & 0xFFFFFFFF) - first[:, None, None])
        bits = (keys >> 32).clamp_max(0x7F800000)  # the bits of float32 inf
        nearest[part] = bits.int().view(torch.float32)
        flat, keys = bary[part].view(-1, 3), keys.view(-1)
        for position, key, weights in hits:
            visible = (keys.index_select(0, position) == key).nonzero()[:, 0]
            flat[position[visible]] = weights[visible]
    return Fragments(face, bary, nearest)


def farthest(pixels: Tensor, depth: Tensor, faces: Tensor, size: tuple[int, int]) -> Fragments:
    """As `rasterize`, but the largest depth wins: what is seen from behind.

    Source: ours. The reciprocal of the depth is linear on the canvas, so reflecting it reverses the
    order and keeps the triangles flat.

    Args:
        pixels: Vertices of one mesh on N canvases, pixels.  [N, V, 2]
        depth: Their depth, metres.  [N, V]
        faces: int64 [F, 3]
        size: Canvas (height, width), pixels.

    Returns:
        Face, barycentric coordinates and depth of the farthest surface.

    Raises:
        ValueError: See `rasterize`.
    """
    good = (depth > NEAR) & depth.isfinite()
    low = depth.where(good, torch.inf).amin(1, keepdim=True)
    total = 1 / low + 1 / depth.where(good, low).amax(1, keepdim=True)
    turned = torch.where(good, 1 / (total - 1 / depth), depth)
    found = rasterize(pixels, turned, faces, size)
    corners = faces[found.face.clamp_min(0).long()].flatten(1)
    near = turned.gather(1, corners).view_as(found.bary)
    true = depth.gather(1, corners).view_as(found.bary)
    back = 1 / (total[..., None] - 1 / found.depth)
    bary = found.bary * (near / found.depth[..., None]) * (back[..., None] / true)
    hit = found.face >= 0
    bary = torch.where(hit[..., None], bary, torch.zeros_like(bary))
    return Fragments(found.face, bary, torch.where(hit, back, torch.inf))


def check(pixels, depth, faces, size: tuple[int, int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Check the arguments of a backend's `rasterize`.

    Args:
        pixels: See `rasterize`.
        depth: See `rasterize`.
        faces: See `rasterize`.
        size: See `rasterize`.

    Returns:
        Pixels, depth and faces of each mesh; at least one.

    Raises:
        ValueError: See `rasterize`.
    """
    if not (0 < size[0] <= 8192 and 0 < size[1] <= 8192):
        raise ValueError(f"canvas (height, width) must be in 1..8192 pixels, got {tuple(size)}")
    if isinstance(pixels, Tensor):
        pixels, depth, faces = [pixels], [depth], [faces]
    if not 0 < len(pixels) == len(depth) == len(faces):
        raise ValueError(
            "pixels, depth and faces must have one entry per mesh, at least one; got "
            f"{len(pixels)}, {len(depth)} and {len(faces)}"
        )
    meshes = list(zip(pixels, depth, faces, strict=True))
    for points, z, triangles in meshes:
        if points.shape != (*z.shape, 2):
            raise ValueError(
                f"pixels must be [N, V, 2] and depth [N, V], got {list(points.shape)} and "
                f"{list(z.shape)}"
            )
        if len(triangles) and not 0 <= int(triangles.min()) <= int(triangles.max()) < z.shape[1]:
            raise ValueError(
                f"faces must index the {z.shape[1]} vertices, got {int(triangles.min())}.."
                f"{int(triangles.max())}"
            )
    return meshes


def _chunks(meshes: list, limit: int) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """Split the canvases, in their order, into chunks of at most `limit` triangles x views."""
    chunks, used = [], limit
    for pixels, depth, faces in meshes:
        step = max(1, limit // max(1, len(faces)))
        for points, z in zip(pixels.split(step), depth.split(step), strict=True):
            size = len(z) * len(faces)
            if not chunks or used + size > limit:
                chunks.append([])
                used = 0
            chunks[-1].append((points, z, faces))
            used += size
    return chunks


def snap(pixels: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices in steps of the subpixel grid, and depth with -1 at vertices that are skipped."""
    good = (depth > NEAR) & depth.isfinite() & (pixels.abs() <= GUARD).all(-1)
    steps = (pixels * SUBPIXEL).round()
    if bool(good.all()):
        return steps, depth
    return steps.masked_fill(~good[..., None], 0.0), depth.masked_fill(~good, -1.0)


def _draw(meshes: list, size, keys) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
    """Rasterize a chunk of canvases: `keys` gets the smallest key of each pixel.

    Returns:
        The (canvas position, key, weights) of all candidates that cover a pixel centre, and the
        number from which each canvas's triangles are counted in the keys.
    """
    # The views of a mesh are innermost in memory. `corners` + the number of the canvas is the place
    # of a triangle's vertex in `table`, and triangles are numbered through the chunk, so that what
    # follows the bounding boxes does not know meshes.
    table, corners, boxes, first = [], [], [], []
    canvases = vertices = triangles = 0
    for pixels, depth, faces in meshes:
        steps, depth = snap(pixels.detach().float(), depth.detach().float())
        flat = [t.T.contiguous() for t in (steps[..., 0], steps[..., 1], depth)]  # [V, n] each
        columns, views = faces.T.contiguous(), len(depth)
        face, view, *box = _bounding_boxes(flat[0], flat[1], columns, size)
        table.append([t.view(-1) for t in flat])
        corners.append(columns * views + (vertices - canvases))
        boxes.append((face + triangles, view + canvases, *box))
        first += [triangles] * views
        canvases, triangles = canvases + views, triangles + len(faces)
        vertices += depth.numel()
    table = [torch.cat(parts) for parts in zip(*table, strict=True)]
    corners = torch.cat(corners, dim=1)
    face, view, left, top, wide, tall = (torch.cat(t) for t in zip(*boxes, strict=True))
    grades = torch.bucketize(
        torch.arange(max(size) + 1, device=keys.device), torch.tensor(SIDES, device=keys.device)
    )
    wide, tall = grades.index_select(0, wide), grades.index_select(0, tall)
    longer = torch.maximum(wide, tall)
    squared = longer > SQUARE  # large triangles are few, so squares suffice
    bucket = torch.where(squared, longer * (len(SIDES) + 1), wide * len(SIDES) + tall)
    hits = []
    for number, members in enumerate(bucket.bincount().tolist()):
        if not members:
            continue
        side = (SIDES[number // len(SIDES)], SIDES[number % len(SIDES)])
        chosen = (bucket == number).nonzero()[:, 0]
        for rows in chosen.split(max(1, TILE[keys.device.type] // (side[0] * side[1]))):
            box = [t.index_select(0, rows) for t in (face, view, left, top)]
            covered = _cover(table, corners, box, side, size)
            keys.scatter_reduce_(0, covered[0], covered[1], "amin")
            hits.append(covered)
    return hits, torch.tensor(first, device=keys.device)


def _bounding_boxes(x: Tensor, y: Tensor, columns: Tensor, size: tuple[int, int]):
    """The (face, view) pairs whose bounding box contains a pixel centre, and that box.

    Returns:
        Face, view, and left, top, width and height of the box in pixels.  int64 [M] each
    """
    half = SUBPIXEL // 2
    low = [((t - half) / SUBPIXEL).ceil().clamp(0, 32000) for t in (x, y)]
    high = [
        ((t - half) / SUBPIXEL).floor().clamp(-1, n - 1) for t, n in ((x, size[1]), (y, size[0]))
    ]
    # With left, top, -right, -bottom in one table, one minimum over the vertices gives all sides.
    table = torch.cat([low[0], low[1], -high[0], -high[1]], dim=1).short()
    box = table.index_select(0, columns[0])
    for k in (1, 2):
        torch.minimum(box, table.index_select(0, columns[k]), out=box)
    left, top, right, bottom = box.view(len(box), 4, x.shape[1]).unbind(1)
    wide, tall = left + right, top + bottom  # minus (side - 1)
    pairs = torch.maximum(wide, tall).le(0).view(-1).nonzero()[:, 0]
    views = x.shape[1]
    face = torch.div(pairs, views, rounding_mode="floor")
    view = pairs - face * views
    at = face * (4 * views) + view
    corner = [box.view(-1).index_select(0, at + k * views).long() for k in range(4)]
    sides = (1 - corner[0] - corner[2], 1 - corner[1] - corner[3])
    return face, view, corner[0], corner[1], *sides


def _cover(table, corners, box, side, size):
    """Test `side` (width, height) candidate pixels of each of M triangles.

    Args:
        table: x, y (steps of the subpixel grid) and depth of the vertices of all canvases.
        corners: Place in `table` of the triangles' vertices, less their canvas.  int64 [3, F]
        box: Face, canvas, left and top of the M bounding boxes.  int64 [M] each
        side: Width and height that cover each of the boxes, pixels.
        size: Canvas (height, width), pixels.

    Returns:
        Canvas position and key of the covered pixels, int64 [K] each, and barycentric coordinates,
        float32 [K, 3].
    """
    face, view, left, top = box
    at = [corner.index_select(0, face) + view for corner in corners]
    x, y, z = ([t.index_select(0, i).double() for i in at] for t in table)
    spots = torch.arange(side[0] * side[1], device=face.device)
    ox, oy = spots % side[0], torch.div(spots, side[0], rounding_mode="floor")
    distance, outer, area = _edge_functions((x, y, z), left, top, (ox, oy))
    inside = torch.minimum(torch.minimum(distance[0], distance[1]), distance[2]) >= 0
    if len(spots) > 1 and bool((left + side[0] > size[1]).any() | (top + side[1] > size[0]).any()):
        inside &= (left[:, None] + ox < size[1]) & (top[:, None] + oy < size[0])
    hit = inside.view(-1).nonzero()[:, 0]
    row = torch.div(hit, len(spots), rounding_mode="floor")
    spot = hit - row * len(spots)
    share = [
        (distance[k].view(-1).index_select(0, hit) + outer[k].index_select(0, row))
        / z[k].index_select(0, row)
        for k in range(3)
    ]
    total = share[0] + share[1] + share[2]
    bits = (area.abs().index_select(0, row) / total).float().view(torch.int32).long()
    base = (view * size[0] + top) * size[1] + left
    position = (
        base.index_select(0, row) + oy.index_select(0, spot) * size[1] + ox.index_select(0, spot)
    )
    key = (bits << 32) | face.index_select(0, row)
    return position, key, torch.stack([(s / total).float() for s in share], dim=1)


def _edge_functions(vertices, left, top, offsets):
    """Edge functions of M triangles at S candidate pixels; a pixel is covered if none is negative.

    Args:
        vertices: x, y and depth of the three vertices.  float64 [M] each
        left: First column of the candidates.  int64 [M]
        top: First row of the candidates.  int64 [M]
        offsets: Columns and rows of the candidates relative to the first.  int64 [S] each

    Returns:
        Values of the three edges [M, S] each; what was subtracted from them for the top-left rule
        [M] each; twice the signed area [M]. All float64.
    """
    x, y, z = vertices
    # Edge k is opposite vertex k. Edges are flipped with the triangle, so that inside is positive.
    dx = [x[(k + 2) % 3] - x[(k + 1) % 3] for k in range(3)]
    dy = [y[(k + 2) % 3] - y[(k + 1) % 3] for k in range(3)]
    area = dx[0] * dy[1] - dy[0] * dx[1]
    drawn = (area != 0) & (torch.minimum(torch.minimum(*z[:2]), z[2]) > 0)
    sign = area.sign()
    across = left * SUBPIXEL + SUBPIXEL // 2
    down = top * SUBPIXEL + SUBPIXEL // 2
    ox, oy = offsets
    steps = torch.stack([oy, -ox]).double() * SUBPIXEL
    distance, outer = [], []
    for k in range(3):
        dx[k], dy[k] = dx[k] * sign, dy[k] * sign
        value = dx[k] * (down - y[(k + 1) % 3]) - dy[k] * (across - x[(k + 1) % 3])
        # A centre on the edge counts for top and left edges only. Values are integers, so
        # subtracting 1 puts the others outside, and sums of products are exact in any order.
        outer.append(((dy[k] > 0) | ((dy[k] == 0) & (dx[k] < 0))).double())
        value = torch.where(drawn, value - outer[k], -torch.inf)[:, None]
        if len(ox) > 1:
            value = torch.addmm(value, torch.stack([dx[k], dy[k]], 1), steps)
        distance.append(value)
    return distance, outer, area
