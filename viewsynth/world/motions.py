# SPDX-License-Identifier: Apache-2.0
"""Motions: what a person of the world does: walk, stand, telephone, carry, run or cycle.

this module -> gait (poses) -> shots. A `Motion` is plain data, sampled once per moment.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

KINDS = ("walk", "stand", "phone", "carry", "run", "cycle")
# Poses of the left arm: shoulder flexion, abduction, inward rotation, elbow flexion, pronation,
# wrist flexion, raised collar bone (degrees), share of the arm swing.
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
# name: (mean, std, low, high). Degrees; where the mean is 1, relative to the usual value; "width"
# (extra distance of the feet) in centimetres; "uneven" and "weight" in [-1, 1], left positive.
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


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Motion of a person at one moment.

    Args:
        kind: One of `KINDS`; "phone" and "carry" stand at speed 0, else walk.
        phase: Degrees, [0, 360); 0 = the left heel strikes (walk, run), the left pedal is in front
            (cycle); when standing, the phase of the slow sway.
        speed: Metres per second, >= 0.
        style: Values by key of `STYLE`; missing ones have their mean.
        hand: "", "left" or "right": the side that holds the telephone or the bag.
        arms: Keys of `ARMS`, left and right.

    Raises:
        ValueError: If a value is not one of these.
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
        """Value of a key of `STYLE`."""
        return self.style.get(name, STYLE[name][0])


def sample_motion(rng: np.random.Generator, carried_side: str = "") -> Motion:
    """Sample a plausible motion, most often walking.

    Source: ours; speeds of pedestrians about 1.34 +- 0.26 m/s (Weidmann 1993).

    Args:
        rng: Generator of the motion.
        carried_side: "left" or "right" if that hand holds a bag or an umbrella; "" = free hands.

    Returns:
        The motion.
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
    arms = _sample_arms(rng, kind, still, free, bool(carried_side))
    phase = round(float(rng.uniform(0, 360)), 2) % 360
    return Motion(kind=kind, phase=phase, speed=speed, style=style, hand=hand, arms=arms)


def _sample_arms(rng, kind: str, still: bool, free: str, laden: bool) -> tuple[str, str]:
    """Keys of `ARMS`, left and right; `free` is the side that acts, the other may hold a bag."""
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
