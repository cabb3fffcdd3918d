# SPDX-License-Identifier: Apache-2.0
"""Cameras, and the geometric conventions of the project.

World: metres, y up, origin on the ground between the feet; the person faces +z, so +x is the
person's left. Camera: OpenCV axes (x right, y down, z forward), `world_to_camera` [4, 4].
Angles and distance are about the *target*, the middle of the standing height on the y axis.

- elevation: degrees above the horizon; 0 = level, 90 = straight above.
- azimuth: degrees from +z towards +x; 0 = the camera sees the person's front, 90 = the left side.
- Camera up is world y; at elevation 90 the image's up is the limit of elevation -> 90 at that
  azimuth.
- Pixel coordinates: (0, 0) is the outer corner of the top left pixel, whose centre is (0.5, 0.5).
- Intrinsics [3, 3] in pixels; `vfov` is the vertical field of view in degrees.

Degrees in everything public; radians only in locals that end in `_rad`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """N cameras with image planes ("canvases") of one size.

    Args:
        world_to_camera: OpenCV poses.  float32 [N, 4, 4]
        intrinsics: In pixels of the canvas.  float32 [N, 3, 3]
        size: Canvas (height, width), pixels.
        k1: Radial distortion in normalised coordinates, x_d = x (1 + k1 r^2); below 0 = barrel;
            None = pinhole cameras.  float32 [N]
    """

    world_to_camera: Tensor
    intrinsics: Tensor
    size: tuple[int, int]
    k1: Tensor | None = None

    def __len__(self) -> int:
        return len(self.world_to_camera)

    def take(self, rows: Tensor | slice, device: torch.device | None = None) -> Cameras:
        """Some of the cameras.

        Args:
            rows: Their indices.
            device: Device of the result; None = as these.
        """
        some = (self.world_to_camera, self.intrinsics, self.k1)
        pose, matrix, k1 = (t if t is None else t[rows].to(device=device) for t in some)
        return Cameras(pose, matrix, self.size, k1)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project world points to canvas pixels and depth.

        Args:
            points: World coordinates, metres.  [N, P, 3]

        Returns:
            Pixels [N, P, 2] and depth along the optical axis, metres [N, P].
        """
        local = points @ self.world_to_camera[:, :3, :3].mT + self.world_to_camera[:, None, :3, 3]
        if self.k1 is not None:
            flat = local[..., :2] / local[..., 2:].clamp_min(1e-6)
            flat = distort(flat, self.k1[:, None])
            bent = flat @ self.intrinsics[:, :2, :2].mT + self.intrinsics[:, None, :2, 2]
            return bent, local[..., 2]
        homogeneous = local @ self.intrinsics.mT
        return homogeneous[..., :2] / homogeneous[..., 2:].clamp_min(1e-6), local[..., 2]

    def window(self, boxes: Tensor, size: tuple[int, int]) -> Cameras:
        """The same cameras with a part of their image on a canvas of another size.

        Args:
            boxes: left, top, right, bottom in the present canvas, pixels.  [N, 4]
            size: New canvas (height, width), pixels; each box is stretched to fill it.

        Returns:
            The new cameras.
        """
        # Tensor / tensor: torch multiplies number / tensor by the reciprocal, and 2w * (1 / w) is
        # not always 2.
        scale = torch.tensor([size[1], size[0]]).to(boxes) / (boxes[:, 2:] - boxes[:, :2])
        intrinsics = self.intrinsics.clone()
        intrinsics[:, :2, 2] -= boxes[:, :2]
        intrinsics[:, :2] *= scale[:, :, None]
        return Cameras(self.world_to_camera, intrinsics, size, self.k1)


def join(some: Sequence[Cameras]) -> Cameras:
    """Concatenate cameras on canvases of one size.

    Args:
        some: At least one.

    Returns:
        All cameras, in order.

    Raises:
        ValueError: if there are none, or their canvases differ.
    """
    if len(sizes := {tuple(one.size) for one in some}) != 1:
        raise ValueError(f"cameras must have one canvas size to be joined, got {sorted(sizes)}")
    lens = None
    if any(one.k1 is not None for one in some):
        lens = torch.cat([torch.zeros(len(c)) if c.k1 is None else c.k1.cpu() for c in some])
        lens = lens.to(some[0].world_to_camera.device)
    return Cameras(
        torch.cat([one.world_to_camera for one in some]),
        torch.cat([one.intrinsics for one in some]),
        sizes.pop(),
        lens,
    )


def distort(flat: Tensor, k1: Tensor) -> Tensor:
    """Apply radial distortion to normalised pinhole coordinates: x (1 + k1 r^2).

    Barrel distortion (k1 < 0) is not monotonic beyond r^2 = -1 / (3 k1); from there on the scale is
    constant, so that no point far outside the image is projected into it.

    Args:
        flat: x / z and y / z.  [..., 2]
        k1: Distortion coefficient, broadcasts to [...].

    Returns:
        Distorted normalised coordinates.  [..., 2]
    """
    radius = (flat**2).sum(-1)
    turn = torch.where(k1 < 0, -1 / (3 * k1.clamp_max(-1e-9)), torch.inf)
    return flat * (1 + k1 * torch.minimum(radius, turn))[..., None]


def undistort(bent: Tensor, k1: Tensor) -> Tensor:
    """Invert `distort` where it is monotonic, by Newton's method on the radius.

    Args:
        bent: Distorted normalised coordinates.  [..., 2]
        k1: Distortion coefficient, broadcasts to [...].

    Returns:
        Normalised pinhole coordinates.  [..., 2]
    """
    goal = (bent**2).sum(-1).sqrt()
    turn = torch.where(k1 < 0, (-1 / (3 * k1.clamp_max(-1e-9))).sqrt(), torch.inf)
    radius = torch.minimum(goal, turn)
    for _ in range(6):
        slope = (1 + 3 * k1 * radius**2).clamp_min(0.05)
        radius = torch.minimum(radius - (radius * (1 + k1 * radius**2) - goal) / slope, turn)
    return bent * (radius / goal.clamp_min(1e-9)).where(goal > 1e-9, 1.0)[..., None]


def orbit(elevation: Tensor, azimuth: Tensor, distance: Tensor, target_height: Tensor) -> Tensor:
    """World-to-camera poses of cameras on a sphere around the target that look at it.

    Args:
        elevation: Degrees above the horizon, [-90, 90].  [N]
        azimuth: Degrees from the person's front towards the person's left, any value.  [N]
        distance: Metres from the target, > 0.  [N]
        target_height: Height of the target above the ground, metres.  [N]

    Returns:
        OpenCV world_to_camera, metres.  [N, 4, 4]

    Raises:
        ValueError: if an elevation is out of range or a distance is not positive.
    """
    if bool(((elevation < -90) | (elevation > 90)).any()):
        raise ValueError(f"elevation must be in [-90, 90] degrees, got {elevation.tolist()}")
    if bool((distance <= 0).any()):
        raise ValueError(f"distance must be > 0 metres, got {distance.tolist()}")
    e_rad, a_rad = torch.deg2rad(elevation.double()), torch.deg2rad(azimuth.double())
    zero = torch.zeros_like(e_rad)
    outward = torch.stack([e_rad.cos() * a_rad.sin(), e_rad.sin(), e_rad.cos() * a_rad.cos()], -1)
    # d(outward)/d(elevation): points up in the image at every elevation, also at the zenith.
    up = torch.stack([-e_rad.sin() * a_rad.sin(), e_rad.cos(), -e_rad.sin() * a_rad.cos()], -1)
    right = torch.stack([a_rad.cos(), zero, -a_rad.sin()], -1)
    rotation = torch.stack([right, -up, -outward], dim=1)
    centre = outward * distance.double()[:, None]
    centre[:, 1] += target_height.double()
    pose = torch.eye(4, dtype=torch.float64, device=elevation.device).repeat(len(e_rad), 1, 1)
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = -(rotation @ centre[..., None])[..., 0]
    return pose.float()


def angles_of(world_to_camera: Tensor, target_height: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Angles and distance of camera poses: the inverse of `orbit`.

    At elevation 90 the azimuth is that of the image's up direction.

    Args:
        world_to_camera: OpenCV poses that look at the target.  [N, 4, 4]
        target_height: Height of the target above the ground, metres.  [N]

    Returns:
        Elevation and azimuth in degrees, azimuth in [0, 360), and distance in metres.  [N] each
    """
    pose = world_to_camera.double()
    rotation = pose[:, :3, :3]
    centre = -(rotation.mT @ pose[:, :3, 3:])[..., 0]
    offset = centre - torch.stack([0 * centre[:, 0], target_height.double(), 0 * centre[:, 0]], -1)
    distance = offset.norm(dim=1)
    elevation = torch.rad2deg(torch.asin((offset[:, 1] / distance).clamp(-1, 1)))
    right = rotation[:, 0]
    azimuth = torch.rad2deg(torch.atan2(-right[:, 2], right[:, 0])) % 360
    return elevation.float(), azimuth.float(), distance.float()


def focal_length(vfov: float, height: int) -> float:
    """Focal length of a pinhole camera.

    Args:
        vfov: Vertical field of view, degrees, in (0, 180).
        height: Image height, pixels.

    Returns:
        The focal length, pixels.

    Raises:
        ValueError: if `vfov` is out of range.
    """
    if not 0 < vfov < 180:
        raise ValueError(f"vfov must be in (0, 180) degrees, got {vfov}")
    return height / 2 / math.tan(math.radians(vfov) / 2)


def pinhole(focal: Tensor, size: tuple[int, int]) -> Tensor:
    """Intrinsics of pinhole cameras whose principal point is the image centre.

    Args:
        focal: Focal lengths, pixels.  [N]
        size: Image (height, width), pixels.

    Returns:
        The intrinsics.  [N, 3, 3]
    """
    matrix = torch.eye(3, device=focal.device).repeat(len(focal), 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = focal
    matrix[:, 0, 2], matrix[:, 1, 2] = size[1] / 2, size[0] / 2
    return matrix


# ---- conventions of other libraries ------------------------------------------------------------


def to_opengl(world_to_camera: Tensor) -> Tensor:
    """OpenCV poses to OpenGL / Blender / nerfstudio axes (x right, y up, z backward), and back.

    Args:
        world_to_camera: Poses of either convention.  [N, 4, 4]

    Returns:
        Poses of the other convention.  [N, 4, 4]
    """
    flip = torch.tensor([1.0, -1, -1, 1], device=world_to_camera.device)
    return torch.diag(flip) @ world_to_camera


def to_pytorch3d(world_to_camera: Tensor) -> tuple[Tensor, Tensor]:
    """OpenCV poses to pytorch3d's R and T: x left, y up, row vectors, X @ R + T.

    Args:
        world_to_camera: OpenCV poses.  [N, 4, 4]

    Returns:
        R [N, 3, 3] and T [N, 3].
    """
    flip = torch.tensor([-1.0, -1, 1], device=world_to_camera.device)
    return (world_to_camera[:, :3, :3] * flip[:, None]).mT, world_to_camera[:, :3, 3] * flip


def from_pytorch3d(rotation: Tensor, translation: Tensor) -> Tensor:
    """OpenCV poses from pytorch3d's R and T; the inverse of `to_pytorch3d`.

    Args:
        rotation: R.  [N, 3, 3]
        translation: T.  [N, 3]

    Returns:
        OpenCV poses.  [N, 4, 4]
    """
    flip = torch.tensor([-1.0, -1, 1], device=rotation.device)
    pose = torch.eye(4, device=rotation.device).repeat(len(rotation), 1, 1)
    pose[:, :3, :3] = rotation.mT * flip[:, None]
    pose[:, :3, 3] = translation * flip
    return pose


def to_zero123(
    source: tuple[float, float, float], target: tuple[float, float, float]
) -> tuple[float, float, float, float]:
    """The relative camera pose that zero123 (Liu et al., ICCV 2023) is conditioned on.

    Args:
        source: (elevation, azimuth, distance) of the source camera, degrees and metres.
        target: The same of the target camera.

    Returns:
        Polar change in radians (polar = 90 - elevation), sine and cosine of the azimuth change, and
        the change of distance in metres. The azimuth of zero123 runs in the opposite direction, so
        its sign is flipped.
    """
    d_azimuth_rad = -math.radians(target[1] - source[1])
    return (
        math.radians(source[0] - target[0]),
        math.sin(d_azimuth_rad),
        math.cos(d_azimuth_rad),
        target[2] - source[2],
    )
