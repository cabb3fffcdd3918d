# SPDX-License-Identifier: Apache-2.0
"""Positions of the feet over a walking or running cycle, and the leg joints that follow from them.

turns -> this module -> gait. The foot on the ground does not slide: it lands on the heel, lies
flat, rolls off over the toes and swings to its next position, while the pelvis moves at constant
speed. The height of the pelvis follows from the flexion of the bearing knee (Winter); thigh and
shank follow from hip and ankle. Lengths are in leg lengths (hip joint to ankle) of the mean body,
so that people of other sizes take longer or shorter steps at the same angles.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.world.turns import between, cos, inverse, product, rotate, sin, turn

SIDES = (("L", 1.0, 0.0), ("R", -1.0, 180.0))  # name, sign of x outward, shift of the phase
STEPS = 36  # phases at which the height of the pelvis is computed


@dataclass(frozen=True)
class Legs:
    """Joints of the left leg of the mean body, standing, metres; the right leg is mirrored.

    Args:
        hip, knee, ankle: Joints relative to the head of the root bone.  float64 [3]
        heel, toe: Points of the sole about which the foot rolls, relative to the ankle.  [3]
        soles: Vertices of both soles.  int64 [N]
    """

    hip: np.ndarray
    knee: np.ndarray
    ankle: np.ndarray
    heel: np.ndarray
    toe: np.ndarray
    soles: Tensor

    @property
    def thigh(self) -> float:
        """Length of the thigh, metres."""
        return float(np.linalg.norm(self.knee - self.hip))

    @property
    def shank(self) -> float:
        """Length of the shank, metres."""
        return float(np.linalg.norm(self.ankle - self.knee))

    @property
    def length(self) -> float:
        """Length from hip joint to ankle, metres."""
        return self.thigh + self.shank


@functools.lru_cache(maxsize=4)
def legs_of(body) -> Legs:
    """Legs of the body "anny"."""
    shape, zero = body.shape_mean[None], torch.zeros_like(body.pose_mean)[None]
    joints = joints_of(body, shape, zero)[0].cpu().double().numpy()
    root, hip, knee, ankle = (
        joints[body.bones.index(bone)]
        for bone in ("root", "upperleg01.L", "lowerleg01.L", "foot.L")
    )
    rest = body.vertices(shape, zero)[0].cpu().double()
    feet = torch.tensor([bodies.PARTS.index(f"{side}_foot") for side in ("left", "right")])
    used = torch.zeros(len(rest), dtype=torch.bool)
    used[body.faces.unique().cpu()] = True
    foot = used & torch.isin(body.parts.cpu(), feet)
    soles = (foot & (rest[:, 1] < rest[foot, 1].min() + 0.02)).nonzero()[:, 0]
    points = rest[soles].numpy()
    points = points[points[:, 0] > 0] - ankle
    touch = [points[rotate(turn(-tilt), points)[:, 1].argmin()] for tilt in (14.0, -35.0)]
    for point in touch:
        point[1] = points[:, 1].min()  # both touch the ground when the foot is flat
    return Legs(hip - root, knee - root, ankle - root, *touch, soles.to(body.faces.device))


def joints_of(body, shape: Tensor, pose: Tensor) -> Tensor:
    """Heads of the posed bones, world axes, metres, [B, S], [B, P, 3] -> [B, P, 3]."""
    _, heads = body.template(shape, torch.zeros(1, dtype=torch.long, device=shape.device))
    rotations, shifts = body.motion(pose, heads)
    return (rotations @ heads[..., None])[..., 0] + shifts


@dataclass(frozen=True, kw_only=True)
class Stride:
    """Parameters of a stride; times are shares of a cycle, lengths are in leg lengths.

    Args:
        length: Distance covered in a cycle (two steps).
        stance: Time for which a foot is on the ground.
        ahead: Distance of the ankle in front of the pelvis at heel strike, share of `length`.
        strike: Pitch of the foot at heel strike, degrees, toes up positive.
        push: Pitch at toe-off, likewise.
        flat: Time at which the foot is flat.
        rise: Time at which the heel rises.
        swing: Pairs of (share of the swing, pitch in degrees).
        clearance: Greatest height of the lowest point of the swinging foot.
        early: Below 1 this height is reached before the middle of the swing.
        late: Lag of the foot in the first half of the swing, share of the swing.
        knee: Flexion of the bearing knee at each quarter of the stance, degrees.
    """

    length: float
    stance: float
    ahead: float
    strike: float
    push: float
    flat: float
    rise: float
    swing: tuple[tuple[float, float], ...]
    clearance: float
    early: float
    late: float
    knee: tuple[float, ...]


def walking(speed: float, leg: float, longer: float, lifted: float) -> Stride:
    """Stride of a walk.

    Source: Winter (Biomechanics and Motor Control of Human Movement, 4th ed., ch. 4) for the
    angles; step length over cadence is nearly constant for adults (walk ratio, Sekiya 1998).

    Args:
        speed: Walking speed, m/s.
        leg: Length of the leg, metres.
        longer: Length of the steps relative to the usual length.
        lifted: Height of the feet relative to the usual height.

    Returns:
        The stride.
    """
    step = longer * float(np.sqrt(60 * 0.0065 * speed))
    size = step / 0.72
    return Stride(
        length=2 * step / leg,
        stance=float(np.clip(0.67 - 0.04 * speed, 0.57, 0.66)),
        ahead=0.235,
        strike=19 * size,
        push=-28 - 12 * size,
        flat=0.085,
        rise=0.39,
        swing=((0.1, -36 - 12 * size), (0.42, -22), (0.68, 3), (0.88, 15 * size)),
        clearance=0.028 * lifted**3,
        early=0.9,
        late=0.0,
        knee=(5, 6 + 11 * size, 6 + 5 * size, 7, 38),
    )


def running(speed: float, leg: float, longer: float, lifted: float) -> Stride:
    """Stride of a run, see `walking`. Source: Novacheck, The biomechanics of running, 1998."""
    cycle_s = 0.76 - 0.02 * speed
    length = longer * cycle_s * speed / leg
    stance = float(np.clip(0.47 - 0.04 * speed, 0.28, 0.4))
    return Stride(
        length=length,
        stance=stance,
        ahead=0.33 * stance,
        strike=9,
        push=-52,
        flat=0.03,
        rise=0.5 * stance,
        swing=((0.15, -74), (0.32, -80), (0.52, -55), (0.75, -12), (0.92, 8)),
        clearance=(0.05 + 0.035 * speed) * lifted**2,
        early=0.85,
        late=0.16,
        knee=(22, 36, 42, 34, 24),
    )


def clearance(stride: Stride, phase: np.ndarray, shift: float) -> np.ndarray:
    """Height of the lowest point of one foot above the ground, in leg lengths, [T]."""
    swung = _swung(stride, (phase + shift) % 360 / 360)
    return stride.clearance * np.sin(np.pi * swung**stride.early) ** 2


def _swung(stride: Stride, share: np.ndarray) -> np.ndarray:
    """Share of the swing that is completed, 0 on the ground, [T]."""
    return np.clip((share - stride.stance) / (1 - stride.stance), 0, 1)


def pitch(stride: Stride, phase: np.ndarray, shift: float) -> np.ndarray:
    """Pitch of one foot, degrees, toes up positive, [T]."""
    return _smooth(*_rocking(stride), (phase + shift) % 360 / 360)


@functools.lru_cache(maxsize=16)
def _rocking(stride: Stride) -> tuple[np.ndarray, np.ndarray]:
    """Knots of `pitch`, with some of the neighbouring cycles: shares of a cycle and degrees."""
    rises = np.linspace(stride.rise, stride.stance, 5)
    air = [(stride.stance + (1 - stride.stance) * u, degrees) for u, degrees in stride.swing]
    at = np.concatenate([[0, stride.flat], rises, [share for share, _ in air]])
    roll = stride.push * np.array([0.0, 0.08, 0.28, 0.6, 1.0])  # while the heel rises
    value = np.concatenate([[stride.strike, 0], roll, [degrees for _, degrees in air]])
    return (
        np.concatenate([at[-2:] - 1, at, at[:3] + 1]),
        np.concatenate([value[-2:], value, value[:3]]),
    )


def _smooth(at: np.ndarray, value: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Monotone cubic interpolation; equal neighbouring knots give a constant.

    Source: Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5 (1984).
    """
    width = np.diff(at)
    rise = np.diff(value) / width
    same = rise[1:] * rise[:-1] > 0
    mean = 2 * rise[1:] * rise[:-1] / np.where(same, rise[1:] + rise[:-1], 1)
    slope = np.concatenate([[0], np.where(same, mean, 0), [0]])
    k = np.clip(np.searchsorted(at, x, side="right") - 1, 0, len(width) - 1)
    u = (x - at[k]) / width[k]
    return _hermite(u, value[k], slope[k] * width[k], value[k + 1], slope[k + 1] * width[k])


def feet(
    stride: Stride, legs: Legs, phase: np.ndarray, side: tuple, toe_out: float, wide: float
) -> tuple[np.ndarray, np.ndarray]:
    """Position of the ankle and rotation of one foot.

    Args:
        stride: The stride.
        legs: The legs.
        phase: Degrees.  [T]
        side: One of `SIDES`.
        toe_out: Heading of the foot, degrees outward.
        wide: Distance of the ankle from the middle, metres.

    Returns:
        Ankle in front of the pelvis and above the ground, metres [T, 3]; rotation of the foot
        [T, 4].
    """
    _, out, shift = side
    share = (phase + shift) % 360 / 360
    way = stride.length * legs.length
    tilt = pitch(stride, phase, shift)
    heading = turn(0, out * toe_out)

    def rolled(degrees):
        """Shift of the ankle since the foot was flat; heel or toes stay in place."""
        pivot = np.where(degrees[:, None] > 0, legs.heel, legs.toe) * [out, 1, 1]
        return rotate(heading, pivot - rotate(turn(-degrees), pivot))

    ends = 360 * np.array([stride.stance - 1e-4, stride.stance, 0, 1e-4]) - shift
    a, b, c, d = rolled(pitch(stride, ends, shift))
    u = _swung(stride, share)[:, None]
    hung = u - stride.late * (4 * u * (1 - u)) ** 2
    length = 1 - stride.stance
    swing = _hermite(hung, b, (b - a) / 1e-4 * length, c + [0, 0, way], (d - c) / 1e-4 * length)
    now = rolled(tilt)
    place = np.where(u > 0, swing, now)
    place[:, 1] = now[:, 1] + legs.length * clearance(stride, phase, shift) - legs.heel[1]
    place[:, 0] += out * wide
    place[:, 2] += way * (stride.ahead - share)
    return place, product(heading, turn(-tilt))


def _hermite(u, a, slope_a, b, slope_b):
    """Cubic from a to b over u in [0, 1], with given slopes at its ends."""
    p = u * u * (3 - 2 * u)
    return (1 - p) * a + p * b + u * (1 - u) ** 2 * slope_a - u * u * (1 - u) * slope_b


def pelvis(stride: Stride, legs: Legs, root, toe_out: float, wide: float) -> np.ndarray:
    """Height of the root above the ground over a cycle, as a constant and a second harmonic.

    Args:
        stride: The stride.
        legs: The legs.
        root: Function of the phase [T] -> rotation of the pelvis [T, 4].
        toe_out: See `feet`.
        wide: See `feet`.

    Returns:
        Coefficients of 1, cos(2 phase) and sin(2 phase), metres.  [3]
    """
    phase = np.arange(STEPS) * 360 / STEPS
    share = phase / 360
    ankle, _ = feet(stride, legs, phase, SIDES[0], toe_out, wide)
    hip = rotate(root(phase), legs.hip)
    flat = np.square((ankle - hip)[:, ::2]).sum(1)
    knots = np.linspace(0, stride.stance, len(stride.knee))
    bend = _smooth(knots, np.float64(stride.knee), np.minimum(share, stride.stance))
    reach = legs.thigh**2 + legs.shank**2 + 2 * legs.thigh * legs.shank * cos(bend)
    wanted = ankle[:, 1] - hip[:, 1] + np.sqrt(np.maximum(reach - flat, 0.05))
    trust = np.where(share < 0.7 * stride.stance, 1.0, 0.0)
    basis = np.stack([np.ones(STEPS), cos(2 * phase), sin(2 * phase)], 1)
    waves = np.linalg.solve((basis.T * trust) @ basis, basis.T @ (trust * wanted))
    taut = ankle[:, 1] - hip[:, 1] + np.sqrt(np.maximum((0.9995 * legs.length) ** 2 - flat, 0.05))
    waves[0] -= max(0.0, float((basis @ waves - taut)[share < stride.stance].max()))
    return waves


def standing(legs: Legs, hips: list, ankles: list) -> np.ndarray:
    """Height of the root above the ground when standing with both soles flat and one leg straight.

    Args:
        legs: The legs.
        hips: Hip joints relative to the root, metres.  2 x [T, 3]
        ankles: Ankles in front of the root and above the ground, metres.  2 x [T, 3]

    Returns:
        Metres.  [T]
    """
    reach = (0.997 * legs.length) ** 2
    heights = [
        a[:, 1] - h[:, 1] + np.sqrt(reach - np.square((a - h)[:, ::2]).sum(1))
        for h, a in zip(hips, ankles, strict=True)
    ]
    return np.minimum(*heights)


def two_bones(
    legs: Legs, way: np.ndarray, out: float, heading: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rotations of thigh and shank that reach from hip to ankle, with the knee bent forward.

    Args:
        legs: The legs.
        way: Vector from hip to ankle, metres.  [T, 3]
        out: 1 = left, -1 = right.
        heading: Heading of the knee, degrees towards the left.

    Returns:
        Rotations in the world frame.  [T, 4] each
    """
    a, b = legs.thigh, legs.shank
    far = np.clip(np.sqrt((way * way).sum(1)), abs(a - b) + 1e-3, 0.9997 * (a + b))
    bend = 180 - np.rad2deg(np.arccos((a * a + b * b - far * far) / (2 * a * b)))
    raised = np.rad2deg(np.arccos((a * a + far * far - b * b) / (2 * a * far)))
    facing = turn(0, heading)
    x, y, z = rotate(inverse(facing), way).T
    # A hanging leg is tilted forward, then outward, until it points along `way`.
    forward = turn(-np.rad2deg(np.arctan2(z, np.hypot(x, y))))
    aim = product(turn(0, 0, np.rad2deg(np.arctan2(x, -y))), product(forward, turn(-raised)))
    thigh = product(facing, aim)
    shank = product(thigh, turn(bend))
    mirror, down = np.array([out, 1, 1]), np.array([0.0, -1.0, 0.0])
    return (
        product(thigh, between((legs.knee - legs.hip) * mirror, down)),
        product(shank, between((legs.ankle - legs.knee) * mirror, down)),
    )
