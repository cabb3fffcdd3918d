# SPDX-License-Identifier: Apache-2.0
"""Gait: how a person of the world stands, walks, runs, carries, telephones or cycles.

this -> shots (poses a `character`). A `Motion` is drawn once for a moment (`motion`), and becomes
the pose of one picture (`pose`) or of a tracklet (`cycle`).

Directions of trunk, thighs, shanks and feet are written in the world frame and turned into the
body's chain at the end: so a stooping trunk does not move the legs and the soles stay flat. Arms
are written relative to the chest. All of it is elementwise over time: a pose does not depend on
the others that are computed with it. Reconstruction has its own, simpler poses and never sees
these (see `viewsynth.world`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from viewsynth import bodies
from viewsynth.world import stride
from viewsynth.world.turns import cos, half, inverse, product, rotate, sin, turn, vector

KINDS = ("walk", "stand", "phone", "carry", "run", "cycle")
# What an arm does, for the left: shoulder flexion, abduction, inward rotation, elbow flexion,
# pronation, wrist flexion, raised collar bone (degrees), share of the swing that is left.
ARMS = {
    "hang": (-1, 4, 0, 6, 0, 0, 0, 1.0),
    "pocket": (-18, 10, 22, 46, 10, 5, 2, 0.12),
    "behind": (-33, 4, 65, 37, 20, 0, 0, 0.0),
    "hip": (-22, 37, 40, 92, 15, -15, 4, 0.0),
    "crossed": (20, 4, 66, 88, 10, 0, 0, 0.0),
    "text": (3, 2, 32, 93, -35, 0, 0, 0.06),
    "text2": (8, 3, 31, 84, -25, 0, 0, 0.06),
    "ear": (52, 15, 27, 138, 10, 0, 5, 0.1),
    "bag": (0, 8, 0, 5, 0, 0, -2, 0.35),
    "box": (10, 3, 18, 56, -20, 0, 0, 0.06),
    "strap": (4, 18, 36, 130, 0, 0, 0, 0.1),
    "bar": (62, 6, 8, 24, 20, -10, 3, 0.0),
}
# name: (mean, std, low, high). Degrees, or factors of what is usual where the mean is 1.
STYLE = {
    "arm_swing": (1.0, 0.3, 0.25, 1.8),
    "arms_out": (3.0, 2.5, 0.0, 10.0),
    "elbow": (6.0, 6.0, 0.0, 28.0),
    "stride": (1.0, 0.07, 0.8, 1.2),
    "knee_lift": (1.0, 0.1, 0.8, 1.3),
    "toe_out": (6.0, 5.0, -6.0, 20.0),
    "width": (1.0, 1.2, -1.5, 4.5),
    "stoop": (3.0, 4.0, -4.0, 18.0),
    "sway": (2.0, 1.2, 0.0, 6.0),
    "twist": (1.0, 0.3, 0.3, 1.8),
    "head_turn": (0.0, 14.0, -45.0, 45.0),
    "head_nod": (4.0, 7.0, -12.0, 28.0),
    "head_tilt": (0.0, 3.0, -9.0, 9.0),
    "shoulders": (0.0, 3.0, -6.0, 7.0),
    "uneven": (0.0, 0.35, -1.0, 1.0),
    "weight": (0.0, 0.7, -1.0, 1.0),
    "turn_out": (0.0, 6.0, -14.0, 14.0),
}
SWAY, TURNS = 60.0, 420.0  # degrees a second of who stands, and of pedals
CRANK, PEDAL = 0.2, 0.12  # length of the crank, height of the lowest sole; in legs


@dataclass(frozen=True, kw_only=True)
class Motion:
    """What a person does at one moment; plain data.

    Args:
        kind: One of `KINDS`; "phone" and "carry" stand still at speed 0, else walk.
        phase: Degrees, [0, 360); 0 = the left heel strikes (walk, run), the left pedal is in front
            (cycle); the slow sway of who stands.
        speed: Metres a second, >= 0.
        style: Keys of `STYLE`; a missing one has its mean.
        hand: "", "left" or "right": the side that holds the telephone or the bag.
        arms: Keys of `ARMS`, left and right.
    """

    kind: str
    phase: float
    speed: float
    style: dict[str, float] = field(default_factory=dict)
    hand: str = ""
    arms: tuple[str, str] = ("hang", "hang")

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"Motion.kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if self.hand not in ("", "left", "right"):
            raise ValueError(f"Motion.hand must be '', 'left' or 'right'; got {self.hand!r}")
        if self.speed < 0 or (self.speed == 0 and self.kind in ("walk", "run", "cycle")):
            raise ValueError(f"Motion.speed of {self.kind!r} must be > 0; got {self.speed}")
        if unknown := (set(self.style) - set(STYLE)) | (set(self.arms) - set(ARMS)):
            raise ValueError(
                f"Motion has unknown styles or arms {sorted(unknown)}; "
                f"expected some of {sorted(STYLE)} and of {sorted(ARMS)}"
            )

    def __getitem__(self, name: str) -> float:
        """One value of the style."""
        return self.style.get(name, STYLE[name][0])


def motion(rng: np.random.Generator, carried_side: str = "") -> Motion:
    """Draw a plausible motion; walking most often.

    Source: ours; speeds of pedestrians about 1.34 +- 0.26 m/s (Weidmann 1993).

    Args:
        rng: Used up by this call alone.
        carried_side: "left" or "right" if that hand holds a bag or an umbrella; "" = hands free.
    """
    odds = (0.0, 0.0, 0.12, 0.88, 0.0, 0.0) if carried_side else (0.6, 0.18, 0.12, 0.02, 0.05, 0.03)
    kind = str(rng.choice(KINDS, p=odds))
    still = rng.random() < {"stand": 1.0, "phone": 0.45, "carry": 0.2}.get(kind, 0.0)
    mean, std, low, high = {
        "run": (3.0, 0.5, 2.2, 4.2),
        "cycle": (4.5, 1.0, 2.5, 7.0),
        "phone": (1.1, 0.2, 0.6, 1.6),
    }.get(kind, (1.32, 0.24, 0.6, 2.0))
    speed = 0.0 if still else round(float(np.clip(rng.normal(mean, std), low, high)), 3)
    style = {
        name: round(float(np.clip(rng.normal(mean, std), low, high)), 3)
        for name, (mean, std, low, high) in STYLE.items()
    }
    free = str(rng.choice(["left", "right"], p=[0.25, 0.75]))
    if carried_side:
        free = "right" if carried_side == "left" else "left"
    hand = carried_side or (free if kind in ("phone", "carry") else "")
    arms = _draw_arms(rng, kind, still, free, bool(carried_side))
    phase = round(float(rng.uniform(0, 360)), 2) % 360
    return Motion(kind=kind, phase=phase, speed=speed, style=style, hand=hand, arms=arms)


def _draw_arms(rng, kind: str, still: bool, free: str, laden: bool) -> tuple[str, str]:
    """Postures of the two arms; `free` is the side that does the thing, the other may be laden."""
    rest = str(rng.choice(["hang", "pocket"], p=[0.75, 0.25]))
    call = str(rng.choice(["text", "ear", "text2"], p=[0.4, 0.3, 0.3]))
    if laden:
        mine = call.removesuffix("2") if kind == "phone" else rest
        return _sides(free, mine, "bag")
    if kind == "phone":
        return ("text2", "text2") if call == "text2" else _sides(free, call, rest)
    if kind == "carry":
        return ("box", "box") if rng.random() < 0.3 else _sides(free, "bag", rest)
    if kind in ("cycle", "run"):
        return ("bar", "bar") if kind == "cycle" else ("hang", "hang")
    pairs = (
        ("hang", "hang"),
        ("pocket", "pocket"),
        ("hang", "pocket"),
        ("behind", "behind"),
        ("crossed", "crossed"),
        ("hip", "hip"),
        ("hang", "hip"),
        ("hang", "strap"),
    )
    odds = (0.42, 0.14, 0.12, 0.08, 0.1, 0.03, 0.06, 0.05)
    odds = odds if still else (0.84, 0.05, 0.06, 0.01, 0.01, 0.0, 0.0, 0.03)
    pair = pairs[int(rng.choice(len(pairs), p=odds))]
    return pair if rng.random() < 0.5 else pair[::-1]


def _sides(side: str, this: str, other: str) -> tuple[str, str]:
    return (this, other) if side == "left" else (other, this)


def pose(motion: Motion, body: bodies.Body) -> Tensor:
    """The pose of that moment.

    Args:
        body: The body "anny".
    Returns: Rotation vectors, radians, see `Body.vertices`.  float32 [P, 3]
    """
    return _poses(motion, body, np.array([motion.phase]))[0]


def seated(motion: Motion, body: bodies.Body) -> Tensor:
    """The pose of somebody who stands, on a chair: hips and knees bent by about a right angle.

    Args:
        body: The body "anny".
    Returns: as `pose`.
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


def cycle(
    motion: Motion, body: bodies.Body, times: Tensor, shape: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A tracklet: poses and the way gone.

    The way is that of the pelvis: add it to z of the vertices as `Body.vertices` gives them
    (lowered to the ground, but not centred on the box around the person as `bodies.stand` does),
    and the foot on the ground stays where it is.

    Args:
        times: Seconds since the motion's phase.  [T]
        shape: Of the body, for the length of its steps; None = the mean.  [S]
    Returns: poses float32 [T, P, 3] and metres float32 [T], 0 at time 0.
    """
    seconds = times.detach().cpu().double().numpy()
    poses = _poses(motion, body, motion.phase + rate(motion, body, shape) * seconds)
    return poses, torch.from_numpy(motion.speed * seconds).float()


def rate(motion: Motion, body: bodies.Body, shape: Tensor | None = None) -> float:
    """How fast the phase goes, degrees a second: longer legs at one speed take slower steps.

    Args:
        shape: See `cycle`.
    """
    if _rests(motion):
        return TURNS if motion.kind == "cycle" else SWAY
    mean = stride.legs_of(body).length
    leg = mean if shape is None else leg_length(body, shape)
    return 360 * motion.speed / (_stride(motion, mean).length * leg)


def leg_length(body: bodies.Body, shape: Tensor) -> float:
    """Hip joint to ankle of a body, metres.

    Args:
        shape: [S].
    """
    joints = stride.joints_of(body, shape[None], torch.zeros_like(body.pose_mean)[None])[0]
    hip, knee, ankle = (
        joints[body.bones.index(f"{bone}.L")] for bone in ("upperleg01", "lowerleg01", "foot")
    )
    return float((knee - hip).norm() + (ankle - knee).norm())


def lift(motion: Motion, leg_length: float) -> float:
    """Height of the lowest point above the ground: a run's flight, a bicycle's pedal; else 0.

    Args:
        leg_length: Hip joint to ankle, see `leg_length`; metres, > 0.
    Returns: metres.
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
    """Poses of a motion at other phases (degrees, any).  [T] -> float32 [T, P, 3]"""
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
    """Whether the feet are placed (standing, pedals) instead of striding."""
    return motion.speed == 0 or motion.kind == "cycle"


def _amplitude(motion: Motion) -> float:
    """How large the movements are, relative to a walk at 1.3 m/s or a run at 3 m/s."""
    if motion.kind == "run":
        return motion["stride"] * (0.7 + 0.1 * motion.speed)
    return motion["stride"] * float(np.sqrt(motion.speed / 1.3))


def _trunk(m: Motion, phase: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of pelvis, chest and head in the world."""
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
    """Thigh, shank and foot of both sides, rotations in the world."""
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
    """Ankles and feet of who walks or runs, and the height of the pelvis."""
    steps, toe_out = _stride(m, legs.length), m["toe_out"] + 6  # the body's feet point inward
    wide = (0.035 if m.kind == "run" else 0.055) + 0.01 * m["width"]
    waves = stride.pelvis(steps, legs, lambda at: _trunk(m, at)[0], toe_out, wide)
    height = waves[0] + waves[1] * cos(2 * phase) + waves[2] * sin(2 * phase)
    both = [stride.feet(steps, legs, phase, side, toe_out, wide) for side in stride.SIDES]
    return [ankle for ankle, _ in both], [foot for _, foot in both], height


def _stride(m: Motion, leg: float) -> stride.Stride:
    make = stride.running if m.kind == "run" else stride.walking
    return make(m.speed, leg, m["stride"], m["knee_lift"])


def _stand(m: Motion, legs: stride.Legs, phase: np.ndarray) -> tuple[list, list]:
    """Ankles and feet of who stands, more on one leg than on the other."""
    ankles, feet, lean = [], [], m["weight"]
    for _, out, _ in stride.SIDES:
        free = max(-out * lean, 0.0)  # of the leg that does not bear the weight
        aside = out * (0.1 + 0.012 * m["width"] + 0.06 * free) - 0.045 * lean - 0.004 * cos(phase)
        ahead = 0.11 * free - 0.02
        ankles.append(np.stack([aside, 0 * phase - legs.heel[1], 0 * phase + ahead], 1))
        feet.append(turn(0 * phase, out * (m["toe_out"] + 8 + 10 * free)))
    return ankles, feet


def _pedals(m: Motion, legs: stride.Legs, phase: np.ndarray) -> tuple[list, list]:
    """Ankles and feet of who cycles, about the pelvis on its saddle."""
    ankles, feet, leg = [], [], legs.length
    for _, out, shift in stride.SIDES:
        up, ahead = -sin(phase + shift), cos(phase + shift)
        place = [out * 0.1 + 0 * up, leg * (CRANK * up - 0.74), leg * (0.2 + CRANK * ahead)]
        ankles.append(np.stack(place, 1))
        feet.append(turn(8 + 7 * up, out * (0.3 * m["toe_out"] + 6)))
    return ankles, feet


def _arm(m: Motion, phase: np.ndarray, side: str, out: float) -> dict[str, np.ndarray]:
    """Collar bone, upper arm, forearm and hand of one side."""
    flexion, aside, inward, elbow, twist, wrist, raised, share = ARMS[m.arms[int(out < 0)]]
    running, still = m.kind == "run", 0 * phase
    swing = 0.0 if _rests(m) else 15 * share * _amplitude(m) * m["arm_swing"]
    if running:
        swing = 30 * _amplitude(m) * (0.6 + 0.4 * m["arm_swing"])
        flexion, aside, inward, elbow = flexion - 10, aside + 5, inward + 14, elbow + 78
    swing = swing * (1 + 0.3 * out * m["uneven"])
    ahead = -cos(phase + (0 if out > 0 else 180) - 12)  # the arm goes with the other leg
    breath = (1 - share) * 0.6 * cos(phase - 90) if _rests(m) else still
    hip = max(out * m["weight"], 0.0) if m.speed == 0 else 0.0  # it stands out where it bears
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
