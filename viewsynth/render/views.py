# SPDX-License-Identifier: Apache-2.0
"""Views: render standing people from cameras around them, with ground, shadow and sensor model.

meshes -> orbit camera -> projected box -> supersampled rendering -> ground, sun,
shadow -> box filter -> sensor -> `View`. Views of several people are rendered in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth.cameras import Cameras, focal_length, orbit, pinhole
from viewsynth.records import View, seed_of
from viewsynth.render import scene, shade
from viewsynth.render.meshes import Mesh
from viewsynth.render.options import Scene, Sensor, span
from viewsynth.render.sensor import expose

SUPERSAMPLE = 2
BATCH = {"cpu": 1 << 20, "cuda": 1 << 24}  # supersampled pixels per batch
MAX_SIDE = 2000  # longest side of a crop, pixels


@dataclass(frozen=True)
class Shot:
    """A view to render.

    Args:
        person: Index of the person.
        elevation: Degrees above the horizon, [0, 90].
        azimuth: Degrees from the person's front towards the person's left.
        name: Unique for the person; seeds ground, light, crop and noise.
    """

    person: int
    elevation: float
    azimuth: float
    name: str


@dataclass(frozen=True)
class Frame:
    """Camera of a shot and the crop of its picture.

    Args:
        pose: World to camera.  float32 [4, 4]
        elevation: See `View`.
        azimuth: See `View`.
        distance: See `View`.
        target_height: See `View`.
        vfov: See `View`.
        box: See `View`.
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
        """Height and width of the crop, pixels."""
        return self.box[3] - self.box[1], self.box[2] - self.box[0]


@torch.no_grad()
def render_views(
    meshes: Sequence[Mesh],
    pids: list[str],
    shots: list[Shot],
    sensor: Sensor,
    seed: int,
    around: Scene = Scene(),  # noqa: B008
) -> list[View]:
    """Render views of standing people.

    Args:
        meshes: The people, standing on y = 0; all on one device.
        pids: Identity of each person.
        shots: Views to render.
        sensor: Options of the virtual camera.
        seed: Seed of the run.
        around: Options of ground and light.

    Returns:
        One view per shot, in the order of the shots, each independent of the other shots.

    Raises:
        ValueError: If a person, an elevation or the size of a crop is out of range.
    """
    if not shots:
        return []
    for shot in shots:
        if not 0 <= shot.person < len(meshes):
            raise ValueError(f"shot {shot.name!r} names person {shot.person} of {len(meshes)}")
        if not 0 <= shot.elevation <= 90:
            raise ValueError(f"elevation must be in [0, 90] degrees, got {shot.elevation}")
    seeds = [seed_of(seed, pids[shot.person], shot.name) for shot in shots]
    frames = _frames(meshes, shots, seeds, sensor)
    views: list[View | None] = [None] * len(shots)
    device = meshes[0].vertices.device
    for members in _batches([frame.size for frame in frames], BATCH[device.type]):
        members.sort(key=lambda i: shots[i].person)  # `shade` draws mesh after mesh
        cameras = _batch_cameras([frames[i] for i in members], sensor, device)
        person = torch.tensor([shots[i].person for i in members], device=device)
        places = [scene.place(seeds[i], scene=around) for i in members]
        layers = _layers(meshes, person, cameras, places)
        for k, i in enumerate(members):
            pid = pids[shots[i].person]
            views[i] = _finish(layers[k], frames[i], pid, sensor, seeds[i])
    return views


def _frames(
    meshes: Sequence[Mesh], shots: list[Shot], seeds: list[int], sensor: Sensor
) -> list[Frame]:
    """The frame of each shot, with a margin that varies as the boxes of a detector do."""
    frames = []
    for shot, seed in zip(shots, seeds, strict=True):
        room = np.random.default_rng(seed_of(seed, "box")).uniform(*span(sensor.margin), 4)
        frames.append(frame(meshes[shot.person].points, shot, sensor.draw(seed), room))
    return frames


def _layers(
    meshes: Sequence[Mesh], person: Tensor, cameras: Cameras, places: list[scene.Place]
) -> Tensor:
    """RGB, seen value and coverage of the people before the sensor.

    Args:
        meshes: See `render_views`.
        person: Index of the person of each camera.  int64 [N]
        cameras: N supersampled cameras.
        places: Ground and light of each camera.

    Returns:
        float32 [N, 5, H, W] at the sensor's resolution, on the CPU.
    """
    buffers = shade.render(meshes, cameras, person)
    image = scene.compose(buffers, cameras, meshes, person, places, SUPERSAMPLE)
    coverage = scene.shrink((buffers.face >= 0).float()[:, None], SUPERSAMPLE)
    seen = scene.shrink(buffers.seen[:, None], SUPERSAMPLE) / coverage.clamp_min(1e-6)
    return torch.cat([image, seen, coverage], dim=1).cpu()


def frame(points: Tensor, shot: Shot, sensor: Sensor, room: np.ndarray) -> Frame:
    """Aim at the middle of the standing height and crop the projected box with a margin.

    Args:
        points: Vertices of the person.  [V, 3]
        shot: Elevation and azimuth of the camera.
        sensor: The virtual camera of this shot, see `Sensor.draw`.
        room: Margin on the left, top, right and bottom, as shares of the longer side of the
            projected box.  [4]

    Raises:
        ValueError: If the crop would be too large.
    """
    height = float(points[:, 1].max())
    distance = sensor.distance_to(height)
    angles = [
        torch.tensor([value]) for value in (shot.elevation, shot.azimuth, distance, height / 2)
    ]
    pose = orbit(*angles)
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


def whole(poses: Tensor, vfovs: list[float], picture_height: int) -> Cameras:
    """Cameras of the whole, uncropped pictures.

    Args:
        poses: World to camera.  [N, 4, 4]
        vfovs: Vertical fields of view, degrees.
        picture_height: Height of the pictures, pixels.
    """
    focal = [focal_length(vfov, picture_height) for vfov in vfovs]
    size = Sensor(picture_height=picture_height).size
    return Cameras(poses, pinhole(torch.tensor(focal), size), size)


def _batches(sizes: list[tuple[int, int]], limit: int) -> list[list[int]]:
    """Group shots of similar crop size, so that the canvases of a group hold <= `limit` pixels."""
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


def _batch_cameras(frames: list[Frame], sensor: Sensor, device: torch.device) -> Cameras:
    """Cameras with one supersampled canvas size, with each crop at the top left of its canvas."""
    tall = max(frame.size[0] for frame in frames)
    wide = max(frame.size[1] for frame in frames)
    poses = torch.stack([frame.pose for frame in frames])
    pictures = whole(poses, [frame.vfov for frame in frames], sensor.picture_height)
    corner = torch.tensor([frame.box[:2] for frame in frames], dtype=torch.float32)
    boxes = torch.cat([corner, corner + torch.tensor([wide, tall])], dim=1)
    crops = pictures.window(boxes, (tall * SUPERSAMPLE, wide * SUPERSAMPLE))
    return Cameras(crops.world_to_camera.to(device), crops.intrinsics.to(device), crops.size)


def _finish(layers: Tensor, frame: Frame, pid: str, sensor: Sensor, seed: int) -> View:
    """Crop the canvas [5, H, W] of `_layers` to the frame and apply the sensor model."""
    height, width = frame.size
    layers = layers[:, :height, :width]
    mask = layers[4] >= 0.5
    seen = layers[3].clamp(0, 1) * 255 * mask
    return View(
        pid=pid,
        image=expose(layers[:3], sensor, seed),
        seen=seen.round().to(torch.uint8).numpy(),
        mask=mask.numpy().copy(),
        elevation=float(frame.elevation),
        azimuth=float(frame.azimuth),
        distance=frame.distance,
        target_height=frame.target_height,
        vfov=frame.vfov,
        box=tuple(float(value) for value in frame.box),
    )
