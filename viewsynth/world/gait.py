# SPDX-License-Identifier: Apache-2.0
"""Gait: poses of a motion, for one image (`pose`) or over time (`tracklet`).

motions -> this module -> shots, character. Directions of trunk, thighs, shanks and feet are defined
in the world frame and converted to the body's chain of bones at the end, so that a stooping trunk
does not move the legs and the soles stay flat. Arms are defined relative to the chest. All
computation is elementwise over time: a pose does not depend on the others of its tracklet.
Reconstruction has its own, simpler poses and does not use these.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.world import stride
from viewsynth.world.motions import ARMS, Motion
from viewsynth.world.turns import cos, half, inverse, product, rotate, sin, turn, vector

SWAY, PEDALLING = 60.0, 420.0  # speed of the phase when standing and cycling, degrees per second
CRANK, PEDAL = 0.2, 0.12  # length of the crank and height of the lowest sole, in leg lengths


def pose(motion: Motion, body: bodies.Body) -> Tensor:
    """Pose of a motion at its phase.

    Args:
        motion: The motion.
        body: The body "anny".

    Returns:
        Rotation vectors, radians, see `Body.vertices`.  float32 [P, 3]
    """
    return _poses(motion, body, np.array([motion.phase]))[0]


def seated(motion: Motion, body: bodies.Body) -> Tensor:
    """Pose of a standing person, seated: hips and knees bent by about a right angle.

    Args:
        motion: A motion of speed 0.
        body: The body "anny".

    Returns:
        As `pose`.
    """
    sitting, still, style = pose(motion, body).clone(), np.zeros(1), motion["stoop"]
    for side, out in (("L", 1), ("R", -1)):
        hip, knee = 82 + style + 4 * out, 85 + 2 * style - 6 * out
        turns = {
            "upperleg01": turn(still - hip, still, still + out * (4 + motion["width"])),
            "lowerleg01": turn(still + knee, still, still),
            "foot": turn(still, still, still),
        }
        for bone, turned in turns.items():
            row = torch.from_numpy(vector(turned)[0].astype(np.float32))
            sitting[body.bones.index(f"{bone}.{side}")] = row
    return sitting


def tracklet(
    motion: Motion, body: bodies.Body, times: Tensor, shape: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Poses over time, and the distance covered.

    The distance is that of the pelvis: added to z of the vertices of `Body.vertices` (lowered to
    the ground, but not centred on the person's box as in `bodies.stand`), the foot on the ground
    does not slide.

    Args:
        motion: The motion.
        body: The body "anny".
        times: Seconds since the motion's phase.  [T]
        shape: Shape of the body, which decides the length of its steps; None = the mean.  [S]

    Returns:
        Poses, float32 [T, P, 3], and metres, float32 [T], 0 at time 0.
    """
    seconds = times.detach().cpu().double().numpy()
    poses = _poses(motion, body, motion.phase + rate(motion, body, shape) * seconds)
    return poses, torch.from_numpy(motion.speed * seconds).float()


def rate(motion: Motion, body: bodies.Body, shape: Tensor | None = None) -> float:
    """Speed of the phase: at the same walking speed, longer legs step less often.

    Args:
        motion: The motion.
        body: The body "anny".
        shape: See `tracklet`.

    Returns:
        Degrees per second.
    """
    if _rests(motion):
        return PEDALLING if motion.kind == "cycle" else SWAY
    mean = stride.legs_of(body).length
    leg = mean if shape is None else leg_length(body, shape)
    return 360 * motion.speed / (_stride(motion, mean).length * leg)


def leg_length(body: bodies.Body, shape: Tensor) -> float:
    """Distance from hip joint to ankle along the leg.

    Args:
        body: The body "anny".
        shape: Shape of the body.  [S]

    Returns:
        Metres.
    """
    joints = stride.joints_of(body, shape[None], torch.zeros_like(body.pose_mean)[None])[0]
    hip, knee, ankle = (
        joints[body.bones.index(f"{bone}.L")] for bone in ("upperleg01", "lowerleg01", "foot")
    )
    return float((knee - hip).norm() + (ankle - knee).norm())


def lift(motion: Motion, leg_length: float) -> float:
    """Height of the person's lowest point: > 0 in the flight of a run and on a bicycle, else 0.

    Args:
        motion: The motion.
        leg_length: See `leg_length`; metres, > 0.

    Returns:
        Metres above the ground.
    """
    phase = np.array([motion.phase])
    if motion.kind == "cycle":
        return float(leg_length * (PEDAL + CRANK * (1 - abs(sin(phase)[0]))))
    if motion.kind == "run":
        steps = _stride(motion, leg_length)
        both = [stride.clearance(steps, phase, shift)[0] for _, _, shift in stride.SIDES]
        return float(leg_length * min(both))
    return 0.0


def _poses(motion: Motion, body, phase: np.ndarray) -> Tensor:
    """Poses of a motion at any phases, degrees, [T] -> float32 [T, P, 3]."""
    root, chest, head = _trunk(motion, phase)
    bend, nod = half(product(inverse(root), chest)), half(product(inverse(chest), head))
    turns = {"root": root, "spine04": bend, "spine02": bend, "neck01": nod, "head": nod}
    legs = _legs(motion, body, phase, root)
    for side, out in (("L", 1.0), ("R", -1.0)):
        thigh, shank, foot = legs[side]
        turns[f"upperleg01.{side}"] = product(inverse(root), thigh)
        turns[f"lowerleg01.{side}"] = product(inverse(thigh), shank)
        turns[f"foot.{side}"] = product(inverse(shank), foot)
        turns |= _arm(motion, phase, side, out)
    table = np.stack([vector(turns[bone]) for bone in body.bones], axis=1)
    return torch.from_numpy(table.astype(np.float32)).to(body.pose_mean.device)


def _rests(motion: Motion) -> bool:
    """Whether the feet do not stride: standing, or on pedals."""
    return motion.speed == 0 or motion.kind == "cycle"


def _amplitude(motion: Motion) -> float:
    """Size of the movements relative to a walk at 1.3 m/s or a run at 3 m/s."""
    if motion.kind == "run":
        return motion["stride"] * (0.7 + 0.1 * motion.speed)
    return motion["stride"] * float(np.sqrt(motion.speed / 1.3))


def _trunk(m: Motion, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations of pelvis, chest and head in the world frame, [T, 4] each."""
    still = np.zeros_like(phase)
    texting = any("text" in arm for arm in m.arms)
    gaze, nod = m["head_turn"] * (0.3 if texting else 1.0), m["head_nod"] + 20 * texting
    if m.kind == "cycle":
        rock = 2 * cos(phase - 90)
        root = turn(still + 17, -rock, rock)
        chest = turn(still + 32 + m["stoop"], still, still)
        return root, chest, turn(still + 8 + 0.3 * nod, still + 0.5 * gaze, still)
    if m.speed == 0:
        lean, slow = m["weight"], cos(phase)
        root = turn(still, still + 0.4 * m["turn_out"], 4 * lean + 0.4 * slow)
        chest = turn(
            m["stoop"] + 0.5 * slow, m["turn_out"] + 0.15 * gaze + slow, -2.5 * lean - 0.5 * slow
        )
        return root, chest, turn(still + nod, gaze + 2 * cos(phase - 50), still + m["head_tilt"])
    size, twist = _amplitude(m), m["twist"]
    running = m.kind == "run"
    yaw = size * twist * cos(phase)
    root = turn(
        still + (7 if running else 1 + 0.25 * max(m["stoop"], 0)),
        -(6 if running else 4.5) * yaw,
        (4 if running else 3.2) * size * cos(phase - 60),
    )
    chest = turn(
        m["stoop"] + (9 if running else 1) + 1.2 * size * cos(2 * phase - 40),
        (9 if running else 4) * yaw + 0.15 * gaze,
        -m["sway"] * cos(phase - 75),
    )
    head = turn(nod + cos(2 * phase), gaze + 0.8 * yaw, m["head_tilt"] - 0.3 * cos(phase - 75))
    return root, chest, head


def _legs(m: Motion, body, phase: np.ndarray, root: np.ndarray) -> dict[str, tuple]:
    """Rotations of thigh, shank and foot of both sides in the world frame, [T, 4] each."""
    legs = stride.legs_of(body)
    hips = [rotate(root, legs.hip * [out, 1, 1]) for _, out, _ in stride.SIDES]
    if m.kind == "cycle":
        ankles, feet, height = *_pedals(m, legs, phase), 0.0
    elif m.speed == 0:
        ankles, feet = _stand(m, legs, phase)
        height = stride.standing(legs, hips, ankles)
    else:
        ankles, feet, height = _strides(m, legs, phase)
    found = {}
    for k, (side, out, _) in enumerate(stride.SIDES):
        way = ankles[k] - hips[k] - np.stack([0 * phase, height + 0 * phase, 0 * phase], 1)
        heading = out * (0.5 * m["toe_out"] + 4)
        found[side] = (*stride.two_bones(legs, way, out, heading), feet[k])
    return found


def _strides(m: Motion, legs: stride.Legs, phase: np.ndarray) -> tuple[list, list, np.ndarray]:
    """Ankles, feet and height of the pelvis when walking or running."""
    steps, toe_out = _stride(m, legs.length), m["toe_out"] + 6  # the feet of Anny point inward
    wide = (0.035 if m.kind == "run" else 0.055) + 0.01 * m["width"]
    waves = stride.pelvis(steps, legs, lambda at: _trunk(m, at)[0], toe_out, wide)
    height = waves[0] + waves[1] * cos(2 * phase) + waves[2] * sin(2 * phase)
    both = [stride.feet(steps, legs, phase, side, toe_out, wide) for side in stride.SIDES]
    return [ankle for ankle, _ in both], [foot for _, foot in both], height


def _stride(m: Motion, leg: float) -> stride.Stride:
    make = stride.running if m.kind == "run" else stride.walking
    return make(m.speed, leg, m["stride"], m["knee_lift"])


def _stand(m: Motion, legs: stride.Legs, phase: np.ndarray) -> tuple[list, list]:
    """Ankles and feet when standing, with more weight on one leg."""
    ankles, feet, lean = [], [], m["weight"]
    for _, out, _ in stride.SIDES:
        free = max(-out * lean, 0.0)  # > 0 for the leg that does not bear the weight
        aside = out * (0.1 + 0.012 * m["width"] + 0.06 * free) - 0.045 * lean - 0.004 * cos(phase)
        ahead = 0.11 * free - 0.02
        ankles.append(np.stack([aside, 0 * phase - legs.heel[1], 0 * phase + ahead], 1))
        feet.append(turn(0 * phase, out * (m["toe_out"] + 8 + 10 * free)))
    return ankles, feet


def _pedals(m: Motion, legs: stride.Legs, phase: np.ndarray) -> tuple[list, list]:
    """Ankles and feet when cycling, relative to the pelvis on the saddle."""
    ankles, feet, leg = [], [], legs.length
    for _, out, shift in stride.SIDES:
        up, ahead = -sin(phase + shift), cos(phase + shift)
        place = [out * 0.1 + 0 * up, leg * (CRANK * up - 0.74), leg * (0.2 + CRANK * ahead)]
        ankles.append(np.stack(place, 1))
        feet.append(turn(8 + 7 * up, out * (0.3 * m["toe_out"] + 6)))
    return ankles, feet


def _arm(m: Motion, phase: np.ndarray, side: str, out: float) -> dict[str, np.ndarray]:
    """Rotations of collar bone, upper arm, forearm and hand of one side, [T, 4] each."""
    flexion, aside, inward, elbow, twist, wrist, raised, share = ARMS[m.arms[int(out < 0)]]
    running, still = m.kind == "run", 0 * phase
    swing = 0.0 if _rests(m) else 15 * share * _amplitude(m) * m["arm_swing"]
    if running:
        swing = 30 * _amplitude(m) * (0.6 + 0.4 * m["arm_swing"])
        flexion, aside, inward, elbow = flexion - 10, aside + 5, inward + 14, elbow + 78
    swing = swing * (1 + 0.3 * out * m["uneven"])
    ahead = -cos(phase + (0 if out > 0 else 180) - 12)  # the arm swings with the opposite leg
    breath = (1 - share) * 0.6 * cos(phase - 90) if _rests(m) else still
    # On the weight-bearing side the hip pushes the arm outward.
    hip = max(out * m["weight"], 0.0) if m.speed == 0 else 0.0
    aside = aside + share * (m["arms_out"] + 4 * hip)
    elbow = elbow + share * m["elbow"] + (0.3 if running else 0.5) * swing * (1 + ahead) + breath
    inward = inward + 0.25 * swing * ahead
    upper = product(
        turn(-(flexion + swing * ahead), still, out * (aside + still)),
        turn(still, -out * inward, still),
    )
    half_twist = turn(still, still - out * twist / 2, still)
    return {
        f"clavicle.{side}": turn(
            still, still, out * (raised + m["shoulders"]) + 1.5 * m["uneven"] + still
        ),
        f"upperarm01.{side}": upper,
        f"lowerarm01.{side}": product(turn(-elbow, still, still), half_twist),
        f"wrist.{side}": product(half_twist, turn(still, still, still - out * wrist)),
    }
