# SPDX-License-Identifier: Apache-2.0
"""Scene around the person: paved ground in perspective and background; `lighting` has the light.

All parameters are sampled from one seed per view. The ground is the plane y = 0; its pattern is a
function of the world point that a pixel's ray meets, so that it foreshortens with the camera.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth.cameras import Cameras
from viewsynth.records import seed_of
from viewsynth.render import grounds, lighting
from viewsynth.render.meshes import Mesh
from viewsynth.render.options import Scene, span
from viewsynth.render.shade import Buffers

KINDS = ("stone", "pavers", "asphalt", "concrete")
# Mean colours of real pavements in open shade and in sun, sRGB.
TONES = {
    "stone": ((0.60, 0.60, 0.64), (0.66, 0.64, 0.66), (0.68, 0.61, 0.50), (0.52, 0.52, 0.53)),
    "pavers": ((0.63, 0.62, 0.60), (0.56, 0.45, 0.40), (0.66, 0.62, 0.55), (0.50, 0.51, 0.53)),
    "asphalt": ((0.36, 0.36, 0.38), (0.44, 0.44, 0.45), (0.52, 0.51, 0.50), (0.60, 0.56, 0.49)),
    "concrete": ((0.70, 0.69, 0.67), (0.62, 0.62, 0.62), (0.66, 0.63, 0.58), (0.57, 0.58, 0.60)),
}
TABLE = 64  # side of the periodic noise table


@dataclass(frozen=True)
class Place:
    """Parameters of ground and light.

    Args:
        kind: Kind of paving, one of `KINDS`.
        tone: Mean colour of the ground, sRGB.
        border: Colour beyond the edge of the pavement, sRGB.
        edge: Direction (radians) and distance from the person (metres) of that edge; a distance
            beyond the view means no edge.
        turn: Direction of the pattern, radians.
        unit: Length and width of a slab, metres.
        contrast: Strength of stains and of differences between slabs.
        sun: Unit vector towards the sun.
        strength: Strength of the sun relative to the sky, 0 = overcast.
        softness: Standard deviation of the shadow's edge, metres.
        wall: Distance behind the person, metres, at which a low camera sees the ground end.
        grain: Noise table, [0, 1].  float32 [TABLE, TABLE]
        textures: Take the place of the paving on both sides of the edge; None = none.
    """

    kind: str
    tone: tuple[float, float, float]
    border: tuple[float, float, float]
    edge: tuple[float, float]
    turn: float
    unit: tuple[float, float]
    contrast: float
    sun: tuple[float, float, float]
    strength: float
    softness: float
    wall: float
    grain: np.ndarray
    textures: tuple[grounds.Texture, grounds.Texture] | None = None


def place(seed: int, kind: str | None = None, scene: Scene = Scene()) -> Place:  # noqa: B008
    """Sample a place.

    Args:
        seed: Seed of all parameters.
        kind: Kind of paving; None = sampled.
        scene: Grounds, and the spread of light and shadow.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    rng = np.random.default_rng(seed)
    sampled = str(rng.choice(KINDS))
    kind = kind or sampled

    def tone(name: str) -> tuple[float, float, float]:
        base = np.array(TONES[name][rng.integers(len(TONES[name]))])
        return tuple((base * rng.uniform(0.88, 1.1) * rng.uniform(0.98, 1.02, 3)).tolist())

    other = str(rng.choice(KINDS))
    height_rad, heading_rad = np.deg2rad(rng.uniform(28, 68)), rng.uniform(0, 2 * math.pi)
    sun = (
        math.cos(height_rad) * math.sin(heading_rad),
        math.sin(height_rad),
        math.cos(height_rad) * math.cos(heading_rad),
    )
    overcast = rng.random() < scene.overcast
    sun_strength = [(share - lighting.AMBIENT) / lighting.DIRECT for share in span(scene.shadow)]
    size = rng.uniform(0.45, 0.9) if kind == "stone" else rng.uniform(0.2, 0.5)
    if kind == "concrete":
        size = rng.uniform(1.5, 3.0)
    return Place(
        kind=kind,
        tone=tone(kind),
        border=tone(other),
        edge=(rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.2) if rng.random() < 0.25 else 1e3),
        turn=rng.uniform(0, math.pi),
        unit=(size * rng.uniform(1.0, 1.8), size),
        contrast=rng.uniform(0.7, 1.2),
        sun=sun,
        strength=rng.uniform(0.0, 0.25) if overcast else rng.uniform(*sun_strength),
        softness=rng.uniform(0.12, 0.2) if overcast else rng.uniform(*span(scene.softness)),
        wall=rng.uniform(8, 30),
        grain=rng.random((TABLE, TABLE), dtype=np.float32),
        textures=tuple(_texture(scene, seed, n) for n in range(2)) if scene.grounds else None,
    )


def _texture(scene: Scene, seed: int, number: int) -> grounds.Texture:
    """One of the textures, turned and shifted at random."""
    rng, found = np.random.default_rng(seed_of(seed, "ground", number)), grounds.load(scene)
    chosen = found[rng.integers(len(found))]
    shift = tuple(rng.uniform(0, len(chosen.levels[0]) / chosen.density, 2).tolist())
    return dataclasses.replace(chosen, turn=rng.uniform(0, 2 * math.pi), shift=shift)


def compose(
    buffers: Buffers,
    cameras: Cameras,
    meshes: Sequence[Mesh],
    mesh: Tensor,
    places: list[Place],
    supersample: int,
) -> Tensor:
    """Light the people, put them on their ground and downsample to the sensor's resolution.

    Args:
        buffers: Buffers of the people in N supersampled cameras.
        cameras: Those cameras.
        meshes: The people, standing on y = 0.
        mesh: Index of the person of each camera.  int64 [N]
        places: Ground and light of each camera.
        supersample: Canvas pixels per sensor pixel, along each axis.

    Returns:
        RGB in [0, 1].  float32 [N, 3, H / supersample, W / supersample]
    """
    shadows = lighting.shadows(meshes, mesh, places)
    share = shrink((buffers.face >= 0).float()[:, None], supersample)
    height, width = share.shape[2:]
    whole = torch.tensor([[0.0, 0.0, cameras.size[1], cameras.size[0]]], device=share.device)
    coarse = cameras.window(whole.repeat(len(places), 1), (height, width))
    images = []
    for n, site in enumerate(places):
        # `paving` is already filtered to the pixel size, so the ground needs no supersampling.
        ground = _ground(coarse, n, site, shadows.ground[n]).permute(2, 0, 1)
        shading = lighting.on_person(buffers, cameras, n, site, shadows.tops[n])
        person = buffers.colour[n] * shading[..., None]
        person = shrink(person.clamp(0, 1).permute(2, 0, 1)[None], supersample)[0]
        images.append(person + ground * (1 - share[n]))
    return torch.stack(images)


def shrink(image: Tensor, factor: int) -> Tensor:
    """Downsample by averaging blocks of pixels.

    Args:
        image: [N, C, H, W].
        factor: Side of a block, pixels.

    Returns:
        [N, C, H / factor, W / factor].
    """
    parts = [image[..., i::factor, j::factor] for i in range(factor) for j in range(factor)]
    return sum(parts) / factor**2


def _ground(cameras: Cameras, n: int, site: Place, shadow: Tensor) -> Tensor:
    """Ground and background of camera `n`, without the person: float32 [H, W, 3]."""
    pose, matrix = cameras.world_to_camera[n], cameras.intrinsics[n]
    (height, width), device = cameras.size, pose.device
    across = (torch.arange(width, device=device) + 0.5 - matrix[0, 2]) / matrix[0, 0]
    down = (torch.arange(height, device=device) + 0.5 - matrix[1, 2]) / matrix[1, 1]
    across, down = across[None, :], down[:, None]
    axes = pose[:3, :3]
    ray = [axes[0, k] * across + axes[1, k] * down + axes[2, k] for k in range(3)]
    eye = [
        -(axes[0, k] * pose[0, 3] + axes[1, k] * pose[1, 3] + axes[2, k] * pose[2, 3])
        for k in range(3)
    ]
    # A low camera sees the ground end at a wall behind the person, perpendicular to its heading.
    level = torch.sqrt(eye[0] ** 2 + eye[2] ** 2).clamp_min(1e-6)
    ahead = (-eye[0] / level, -eye[2] / level)
    towards = (ray[0] * ahead[0] + ray[2] * ahead[1]).clamp_min(1e-6)
    to_wall = (site.wall + level) / towards
    to_ground = torch.where(ray[1] < -1e-6, -eye[1] / ray[1], torch.inf)
    reach = torch.minimum(to_wall, to_ground)
    x, y, z = (eye[k] + ray[k] * reach for k in range(3))
    # Metres of ground that one pixel spans: finer detail fades.
    grazing = -ray[1] / torch.sqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    metres = reach / matrix[0, 0] / grazing.clamp_min(0.02).sqrt()
    grain = torch.from_numpy(site.grain).to(device)
    if site.textures is None:
        floor = paving(x, z, metres, site, grain)
    else:
        floor = grounds.colour(x, z, metres, site.textures[0])
        if float((beyond := _beyond(x, z, metres, site)).max()) > 0:
            other = grounds.colour(x, z, metres, site.textures[1])
            floor = torch.lerp(floor, other, beyond)
    floor = floor * lighting.lookup(shadow, x, z, site)[..., None]
    side = x * ahead[1] - z * ahead[0]
    far = _far(side, y, site, grain)
    edge = ((to_ground - to_wall) / (0.004 * to_wall) + 0.5).clamp(0, 1)[..., None]
    return torch.lerp(floor, far, edge.nan_to_num(1.0)).clamp(0, 1)


def paving(x: Tensor, z: Tensor, span: Tensor, site: Place, grain: Tensor) -> Tensor:
    """Colour of the ground at world points.

    Args:
        x: World x, metres.  [H, W]
        z: World z, metres.  [H, W]
        span: Metres that a pixel covers there.  [H, W]
        site: Parameters of the ground.
        grain: `Place.grain` as a tensor.

    Returns:
        sRGB [H, W, 3].
    """
    cos, sin = math.cos(site.turn), math.sin(site.turn)
    u, v = x * cos + z * sin, z * cos - x * sin
    stain = _noise(grain, u * 0.9, v * 0.9, 0.9 * span) + 0.6 * _noise(
        grain, v * 2.7, u * 2.7, 2.7 * span
    )
    tint = _noise(grain, u * 0.5 + 11, v * 0.5, 0.5 * span)
    speck = _noise(grain, u * 23, v * 23, 23 * span) + 0.8 * _noise(
        grain, v * 61, u * 61, 61 * span
    )
    c = site.contrast
    if site.kind in ("stone", "pavers"):
        tone, joint = _slabs(u, v, span, site, grain)
        value = 1 + c * (0.12 * stain + 0.15 * tone + 0.07 * speck) - joint
    elif site.kind == "asphalt":
        value = 1 + c * (0.12 * stain + 0.26 * speck)
        tone = tint
    else:
        tone, joint = _slabs(u, v, span, site, grain)
        value = 1 + c * (0.13 * stain + 0.05 * tone + 0.07 * speck) - 0.6 * joint
    beyond = _beyond(x, z, span, site)
    inner = torch.tensor(site.tone, device=x.device)
    outer = torch.tensor(site.border, device=x.device)
    # Stones differ in hue as well, between warm and cold.
    hue = 0.03 * c * (0.5 * tint if site.kind in ("concrete", "asphalt") else (tint + 0.7 * tone))
    warm = torch.tensor([1.0, 0.1, -1.0], device=x.device) * hue[..., None]
    plain = 1 + c * (0.16 * stain + 0.12 * speck)
    return torch.lerp((inner + warm) * value[..., None], outer * plain[..., None], beyond)


def _beyond(x: Tensor, z: Tensor, span: Tensor, site: Place) -> Tensor:
    """Share of each pixel that lies beyond the edge of the pavement: [H, W, 1]."""
    heading, metres = site.edge
    beyond = (x * math.cos(heading) + z * math.sin(heading) - metres) / (0.5 * span + 0.01)
    return (beyond + 0.5).clamp(0, 1)[..., None]


def _slabs(u: Tensor, v: Tensor, span: Tensor, site: Place, grain: Tensor):
    """Tone of the slab, [-0.5, 0.5], and darkness of the joint at each point: [H, W] each."""
    long, short = site.unit
    if site.kind == "stone":  # laid by hand: crooked joints, shifted rows
        bend = 0.5 * short
        u = u + bend * _noise(grain, u * 0.8 / short, v * 0.8 / short, 0 * span)
        v = v + 0.6 * bend * _noise(grain, v * 0.7 / short + 9, u * 0.7 / short, 0 * span)
    row = (v / short).floor()
    shift = _hash(row, 0 * row, grain) if site.kind == "stone" else (row % 2) * 0.5
    along = u / long + shift
    column = along.floor()
    gap = torch.minimum(
        (along - column).sub(0.5).abs().neg().add(0.5) * long,
        ((v / short) - row).sub(0.5).abs().neg().add(0.5) * short,
    )
    tone = _hash(column, row, grain) - 0.5
    half = 0.012 if site.kind == "stone" else 0.005
    blur = 0.7 * span + 0.004
    # Share of the pixel that the joint covers: distant narrow joints fade instead of aliasing.
    share = ((half + blur - gap) / (2 * blur)).clamp(0, 1) * (2 * half / blur).clamp(max=1)
    depth = 0.16 + 0.2 * _hash(row, column, grain)
    worn = (0.6 + 1.4 * _noise(grain, u * 1.7, v * 1.7, 0 * span)).clamp(0.15, 1)
    return tone / (1 + (span / short) ** 2), site.contrast * depth * worn * share


def _far(side: Tensor, height: Tensor, site: Place, grain: Tensor) -> Tensor:
    """Colour of the background behind the person, a blurred grey wall or hedge: [H, W, 3]."""
    soft = _noise(grain, side * 0.35, height * 0.5, 0 * side)
    soft = soft + 0.5 * _noise(grain, side * 1.1, height * 0.7, 0 * side)
    value = 0.52 + 0.22 * site.contrast * soft + 0.04 * (height / 3).clamp(0, 1)
    hue = torch.tensor([0.99, 1.0, 0.98], device=side.device)
    return value[..., None] * hue


def _hash(column: Tensor, row: Tensor, grain: Tensor) -> Tensor:
    """Pseudo-random number in [0, 1] of each cell."""
    i = (column.nan_to_num(0, 0, 0) * 7 + row.nan_to_num(0, 0, 0) * 29).long() % TABLE
    j = (column.nan_to_num(0, 0, 0) * 13 + row.nan_to_num(0, 0, 0) * 5).long() % TABLE
    return grain.view(-1).index_select(0, (i * TABLE + j).view(-1)).view(column.shape)


def _noise(grain: Tensor, u: Tensor, v: Tensor, cells: Tensor) -> Tensor:
    """Smooth noise in [-0.5, 0.5], faded where a pixel spans more than one noise cell."""
    u, v = (t.nan_to_num(0, 0, 0).clamp(-1e6, 1e6) for t in (u, v))
    i, j = u.floor(), v.floor()
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    i, j = i.long() % TABLE, j.long() % TABLE
    right, under = (i + 1) % TABLE, (j + 1) % TABLE
    flat = grain.view(-1)

    def at(p: Tensor, q: Tensor) -> Tensor:
        return flat.index_select(0, (q * TABLE + p).view(-1)).view(p.shape)

    top = torch.lerp(at(i, j), at(right, j), a)
    bottom = torch.lerp(at(i, under), at(right, under), a)
    return (torch.lerp(top, bottom, b) - 0.5) / (1 + (2 * cells) ** 2)
