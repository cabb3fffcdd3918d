# SPDX-License-Identifier: Apache-2.0
"""Views: standing people and wished-for cameras in, finished pictures out.

posed vertices + textures -> orbit camera -> projected box -> render at 2x -> ground, sun, shadow ->
box filter -> sensor -> `View`. The last stage of `viewsynth.render`; people x views go in batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth import cameras
from viewsynth.records import View, seed_of
from viewsynth.render import scene, shade
from viewsynth.render.options import Sensor
from viewsynth.render.sensor import expose

SUPERSAMPLE = 2
BATCH = {"cpu": 1 << 20, "cuda": 1 << 24}  # supersampled pixels in one batch
MAX_SIDE = 2000  # pixels of a crop


@dataclass(frozen=True)
class Shot:
    """A picture to take.

    Args:
        person: Which of the people.
        elevation: Degrees above the horizon, [0, 90].
        azimuth: Degrees from the person's front towards the person's left.
        name: Unique for the person; the draws of ground, light and noise hang on it.
    """

    person: int
    elevation: float
    azimuth: float
    name: str


@dataclass(frozen=True)
class Frame:
    """Where the camera of a shot stands and which part of its picture is kept.

    Args:
        pose: World to camera.  float32 [4, 4]
        elevation, azimuth, distance, target_height, vfov, box: As of a `View`.
    """

    pose: Tensor
    elevation: float
    azimuth: float
    distance: float
    target_height: float
    vfov: float
    box: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self.box[3] - self.box[1], self.box[2] - self.box[0]


def take(
    vertices: Tensor,
    body,
    textures: list[np.ndarray],
    seens: list[np.ndarray],
    pids: list[str],
    shots: list[Shot],
    sensor: Sensor,
    seed: int,
) -> list[View]:
    """Photograph people from the air.

    Args:
        vertices: People standing on y = 0, metres.  [P, V, 3]
        body: Their `viewsynth.bodies.Body`: faces, uvs, face_uvs.
        textures: Colour atlas of each person, one size for all.  uint8 [T, T, 3]
        seens: Seen map of each atlas.  uint8 [T, T]
        pids: Identity of each person.
        shots: What to take.
        sensor: The camera.
        seed: The run's seed.
    Returns: one View per shot, in the order of the shots; none depends on the other shots.
    Raises: ValueError: if a shot names no person, or its camera or crop is impossible.
    """
    for shot in shots:
        if not 0 <= shot.person < len(vertices):
            raise ValueError(f"shot {shot.name!r} names person {shot.person} of {len(vertices)}")
        if not 0 <= shot.elevation <= 90:
            raise ValueError(f"elevation must be in [0, 90] degrees, got {shot.elevation}")
    device = vertices.device
    colour = torch.from_numpy(np.stack(textures)).to(device)
    known = torch.from_numpy(np.stack(seens)).to(device)
    vertices = vertices.detach().float()
    seeds = [seed_of(seed, pids[shot.person], shot.name) for shot in shots]
    solid = vertices[:, torch.unique(body.faces)]
    frames = []
    for shot, one in zip(shots, seeds, strict=True):
        # A detector's box is never quite the same: each side has its own room.
        room = sensor.margin * np.random.default_rng(seed_of(one, "box")).uniform(0.5, 1.5, 4)
        frames.append(frame(solid[shot.person], shot, sensor, room))
    views: list[View | None] = [None] * len(shots)
    for members in _batches([frame.size for frame in frames], BATCH[device.type]):
        chosen = [shots[i] for i in members]
        people = sorted({shot.person for shot in chosen})
        mesh = torch.tensor([people.index(shot.person) for shot in chosen], device=device)
        window = _window([frames[i] for i in members], sensor, device)
        buffers = shade.render(
            vertices[people],
            body.faces,
            window,
            mesh,
            body.uvs,
            body.face_uvs,
            colour[people],
            known[people],
        )
        places = [scene.place(seeds[i]) for i in members]
        standing = vertices[people][mesh]
        picture = scene.compose(buffers, window, standing, body.faces, places, SUPERSAMPLE)
        share = scene.shrink((buffers.face >= 0).float()[:, None], SUPERSAMPLE)
        seen = scene.shrink(buffers.seen[:, None], SUPERSAMPLE) / share.clamp_min(1e-6)
        layers = torch.cat([picture, seen, share], dim=1).cpu()
        for k, i in enumerate(members):
            views[i] = _finish(
                layers[k], frames[i], shots[i], pids[shots[i].person], sensor, seeds[i]
            )
    return views


def frame(points: Tensor, shot: Shot, sensor: Sensor, room: np.ndarray) -> Frame:
    """Aim at the middle of the standing height and cut out the projected box with some room.

    Args:
        points: Vertices of the person.  [V, 3]
        room: Left, top, right and bottom of the box, as shares of its longer side.  [4]
    Raises: ValueError: if the crop would be too large.
    """
    height = float(points[:, 1].max())
    distance = sensor.distance_to(height)
    angles = [
        torch.tensor([value]) for value in (shot.elevation, shot.azimuth, distance, height / 2)
    ]
    pose = cameras.orbit(*angles)
    pixels, _ = whole(pose, [sensor.vfov], sensor.picture_height).project(points[None].cpu())
    low, high = pixels[0].amin(0), pixels[0].amax(0)
    room = room * float((high - low).max())
    left, top = (int(np.floor(float(low[k]) - room[k])) for k in (0, 1))
    right, bottom = (int(np.ceil(float(high[k]) + room[2 + k])) for k in (0, 1))
    if max(right - left, bottom - top) > MAX_SIDE:
        raise ValueError(
            f"the crop of {shot.name!r} would be {right - left}x{bottom - top} pixels, more than "
            f"{MAX_SIDE} along a side; lower sensor.pixels or sensor.margin, or raise "
            "sensor.distance"
        )
    return Frame(
        pose[0],
        shot.elevation,
        shot.azimuth,
        distance,
        height / 2,
        sensor.vfov,
        (left, top, right, bottom),
    )


def whole(poses: Tensor, vfovs: list[float], picture_height: int) -> cameras.Cameras:
    """The cameras of whole pictures, whose parts the crops are.

    Args:
        poses: World to camera.  [N, 4, 4]
        vfovs: Vertical fields of view, degrees.
        picture_height: Pixels.
    """
    focal = [cameras.focal_length(vfov, picture_height) for vfov in vfovs]
    size = Sensor(picture_height=picture_height).size
    return cameras.Cameras(poses, cameras.pinhole(torch.tensor(focal), size), size)


def _batches(sizes: list[tuple[int, int]], limit: int) -> list[list[int]]:
    """Groups of shots that share a canvas, like sizes together, each within `limit` pixels."""
    groups: list[list[int]] = []
    tall = wide = 0
    for i in sorted(range(len(sizes)), key=lambda i: (sizes[i], i)):
        tall, wide = max(tall, sizes[i][0]), max(wide, sizes[i][1])
        fits = groups and (len(groups[-1]) + 1) * tall * wide * SUPERSAMPLE**2 <= limit
        if fits:
            groups[-1].append(i)
        else:
            groups.append([i])
            tall, wide = sizes[i]
    return groups


def _window(frames: list[Frame], sensor: Sensor, device: torch.device) -> cameras.Cameras:
    """The boxes of some shots at the top left of one supersampled canvas."""
    tall = max(frame.size[0] for frame in frames)
    wide = max(frame.size[1] for frame in frames)
    poses = torch.stack([frame.pose for frame in frames])
    pictures = whole(poses, [frame.vfov for frame in frames], sensor.picture_height)
    corner = torch.tensor([frame.box[:2] for frame in frames], dtype=torch.float32)
    boxes = torch.cat([corner, corner + torch.tensor([wide, tall])], dim=1)
    window = pictures.window(boxes, (tall * SUPERSAMPLE, wide * SUPERSAMPLE))
    return cameras.Cameras(
        window.world_to_camera.to(device), window.intrinsics.to(device), window.size
    )


def _finish(layers, frame: Frame, shot: Shot, pid: str, sensor: Sensor, seed: int) -> View:
    """Cut a canvas of RGB, seen and coverage [5, H, W] to its box and expose it."""
    height, width = frame.size
    layers = layers[:, :height, :width]
    mask = layers[4] >= 0.5
    seen = layers[3].clamp(0, 1) * 255 * mask
    generator = torch.Generator().manual_seed(seed_of(seed, "noise"))
    return View(
        pid=pid,
        image=expose(layers[:3], sensor, generator),
        seen=seen.round().to(torch.uint8).numpy(),
        mask=mask.numpy().copy(),
        elevation=float(frame.elevation),
        azimuth=float(frame.azimuth),
        distance=frame.distance,
        target_height=frame.target_height,
        vfov=frame.vfov,
        box=tuple(float(value) for value in frame.box),
    )
