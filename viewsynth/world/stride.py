# SPDX-License-Identifier: Apache-2.0
"""Stride: where the feet are over a cycle, and the legs that lead there.

gait (what a person does) -> this, by `turns`. The foot on the ground stays where it is: it lands on
the heel, lies flat, rolls off over the toes and swings to its next place, while the pelvis goes on
at constant speed. Heights of the pelvis follow from how far the knee of the bearing leg is bent
(Winter); thigh and shank follow from hip and ankle. Lengths are in legs (hip joint to ankle) of the
mean body, so that a person of other size takes other steps at the same angles.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.world.turns import between, cos, inverse, product, rotate, sin, turn

SIDES = (("L", 1.0, 0.0), ("R", -1.0, 180.0))  # name, the way outward (x), shift of the phase
STEPS = 36  # phases at which the height of the pelvis is worked out


@dataclass(frozen=True)
class Legs:
    """Joints of the mean body, standing; metres, left leg, the right one mirrored.

    Args:
        hip, knee, ankle: Joints relative to the head of the root bone.  float64 [3]
        heel, toe: Where the sole touches the ground when it rolls, relative to the ankle. [3]
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
        """Metres."""
        return float(np.linalg.norm(self.knee - self.hip))

    @property
    def shank(self) -> float:
        """Metres."""
        return float(np.linalg.norm(self.ankle - self.knee))

    @property
    def length(self) -> float:
        """Metres, hip joint to ankle."""
        return self.thigh + self.shank


@functools.lru_cache(maxsize=4)
def legs_of(body) -> Legs:
    """The legs of the body "anny"."""
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
        point[1] = points[:, 1].min()  # both lie on the ground when the foot is flat
    return Legs(hip - root, knee - root, ankle - root, *touch, soles.to(body.faces.device))


def joints_of(body, shape: Tensor, pose: Tensor) -> Tensor:
    """Heads of the posed bones, world axes, metres.  [B, S], [B, P, 3] -> [B, P, 3]"""
    _, heads = body.template(shape, torch.zeros(1, dtype=torch.long, device=shape.device))
    rotations, shifts = body.motion(pose, heads)
    return (rotations @ heads[..., None])[..., 0] + shifts


@dataclass(frozen=True, kw_only=True)
class Stride:
    """How one person strides at one speed. Shares are of a cycle, lengths of a leg.

    Args:
        length: Way of a whole cycle (two steps).
        stance: Share of the cycle that a foot is on the ground.
        ahead: Where the ankle is at the strike, before the pelvis, share of `length`.
        strike, push: Toes up at the strike, and heel up at toe-off, degrees.
        flat, rise: Shares at which the foot is flat, and at which the heel rises.
        swing: Pairs of (share of the swing, degrees that the toes are up).
        clearance: Greatest height of the lowest point of the swinging foot.
        early: Below 1 that is reached before the middle of the swing.
        late: How much the foot hangs behind in the first half of its swing, share of the swing.
        knee: Flexion of the bearing knee at a quarter each of the stance, degrees.
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
    """The stride of a walk.

    Source: Winter (Biomechanics and Motor Control of Human Movement, 4th ed., ch. 4) for the
    angles; step length over cadence is nearly constant for adults (walk ratio, Sekiya 1998).

    Args:
        speed: m/s.
        leg: Metres.
        longer, lifted: Length of the steps and height of the feet relative to what is usual.
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
    """The stride of a run; see `walking`. Source: Novacheck, The biomechanics of running, 1998."""
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
    """Height of the lowest point of one foot above the ground, in legs.  [T]"""
    swung = _swung(stride, (phase + shift) % 360 / 360)
    return stride.clearance * np.sin(np.pi * swung**stride.early) ** 2


def _swung(stride: Stride, share: np.ndarray) -> np.ndarray:
    """Share of the swing that is over, 0 on the ground."""
    return np.clip((share - stride.stance) / (1 - stride.stance), 0, 1)


def pitch(stride: Stride, phase: np.ndarray, shift: float) -> np.ndarray:
    """Toes up, degrees.  [T]"""
    return _smooth(*_rocking(stride), (phase + shift) % 360 / 360)


@functools.lru_cache(maxsize=16)
def _rocking(stride: Stride) -> tuple[np.ndarray, np.ndarray]:
    """Knots of `pitch` over more than a cycle: shares and degrees."""
    rises = np.linspace(stride.rise, stride.stance, 5)
    air = [(stride.stance + (1 - stride.stance) * u, degrees) for u, degrees in stride.swing]
    at = np.concatenate([[0, stride.flat], rises, [share for share, _ in air]])
    roll = stride.push * np.array([0.0, 0.08, 0.28, 0.6, 1.0])  # how the heel rises
    value = np.concatenate([[stride.strike, 0], roll, [degrees for _, degrees in air]])
    return (
        np.concatenate([at[-2:] - 1, at, at[:3] + 1]),
        np.concatenate([value[-2:], value, value[:3]]),
    )


def _smooth(at: np.ndarray, value: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The cubic through knots that never leaves the range of its neighbours.

    Source: Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5 (1984). Flat stays exactly flat.
    """
    width = np.diff(at)
    rise = np.diff(value) / width
    same = rise[1:] * rise[:-1] > 0
    mean = 2 * rise[1:] * rise[:-1] / np.where(same, rise[1:] + rise[:-1], 1)
    slope = np.concatenate([[0], np.where(same, mean, 0), [0]])
    k = np.clip(np.searchsorted(at, where, side="right") - 1, 0, len(width) - 1)
    u = (where - at[k]) / width[k]
    return _hermite(u, value[k], slope[k] * width[k], value[k + 1], slope[k + 1] * width[k])


def feet(
    stride: Stride, legs: Legs, phase: np.ndarray, side: tuple, toe_out: float, wide: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ankle and direction of one foot.

    Args:
        side: One of `SIDES`.
        toe_out: Heading of the foot, degrees outward.
        wide: Distance of the ankle from the middle, metres.
    Returns: the ankle's place before the pelvis and above the ground, metres [T, 3], and the
        foot's rotation [T, 4].
    """
    _, out, shift = side
    share = (phase + shift) % 360 / 360
    way = stride.length * legs.length
    tilt = pitch(stride, phase, shift)
    heading = turn(0, out * toe_out)

    def rolled(degrees):
        """How the ankle has moved since the foot was flat, while heel or toes stay in place."""
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
    """The cubic from a to b with given slopes at its ends."""
    p = u * u * (3 - 2 * u)
    return (1 - p) * a + p * b + u * (1 - u) ** 2 * slope_a - u * u * (1 - u) * slope_b


def pelvis(stride: Stride, legs: Legs, root, toe_out: float, wide: float) -> np.ndarray:
    """Height of the root above the ground over a cycle: middle, and waves at twice its frequency.

    Args:
        root: Function of the phase [T]: rotation of the pelvis [T, 4].
    Returns: metres: constant, cos(2 phase), sin(2 phase).  [3]
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
    """Height of the root above the ground when both soles are flat: the longer leg is straight.

    Args:
        hips: Relative to the root, metres.  2 x [T, 3]
        ankles: Before the root and above the ground, metres.  2 x [T, 3]
    Returns: metres.  [T]
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
    """Rotations of thigh and shank that lead from hip to ankle, the knee bent forward.

    Args:
        way: Hip to ankle, metres.  [T, 3]
        out: 1 = left, -1 = right.
        heading: Of the knee, degrees towards the left.
    Returns: [T, 4] each, in the world.
    """
    a, b = legs.thigh, legs.shank
    far = np.clip(np.sqrt((way * way).sum(1)), abs(a - b) + 1e-3, 0.9997 * (a + b))
    bend = 180 - np.rad2deg(np.arccos((a * a + b * b - far * far) / (2 * a * b)))
    raised = np.rad2deg(np.arccos((a * a + far * far - b * b) / (2 * a * far)))
    facing = turn(0, heading)
    x, y, z = rotate(inverse(facing), way).T
    # A hanging leg is tilted forward onto the way, then outward.
    forward = turn(-np.rad2deg(np.arctan2(z, np.hypot(x, y))))
    aim = product(turn(0, 0, np.rad2deg(np.arctan2(x, -y))), product(forward, turn(-raised)))
    thigh = product(facing, aim)
    shank = product(thigh, turn(bend))
    mirror, down = np.array([out, 1, 1]), np.array([0.0, -1.0, 0.0])
    return (
        product(thigh, between((legs.knee - legs.hip) * mirror, down)),
        product(shank, between((legs.ankle - legs.knee) * mirror, down)),
    )
