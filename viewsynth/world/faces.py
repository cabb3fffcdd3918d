# SPDX-License-Identifier: Apache-2.0
"""Colours of skin, face and hair as functions of rest coordinates.

people (identity) -> this module -> character. A face has only the details that a distant camera
sees.
"""

from __future__ import annotations

import numpy as np

from viewsynth.world import LABELS
from viewsynth.world.mannequin import Mannequin
from viewsynth.world.people import Identity
from viewsynth.world.skull import hairline

FACE, HAIR, ARMS, LEGS = (LABELS.index(name) for name in ("face", "hair", "arms", "legs"))


def skin(rest: np.ndarray, identity: Identity, m: Mannequin) -> tuple[np.ndarray, np.ndarray]:
    """Colour and label of the bare body.

    Args:
        rest: Rest coordinates, metres.  [N, 3]
        identity: The person.
        m: The mannequin.

    Returns:
        sRGB, float32 [N, 3]; index into `LABELS`, uint8 [N].
    """
    colour = np.tile(np.float32(identity.skin), (len(rest), 1))
    shoulder, hip = m.line("shoulder"), m.line("hip")
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    label = np.where(x > shoulder[0] + 0.02, ARMS, np.where(y < hip[1], LEGS, FACE))
    _face(colour, rest, identity, m)
    if identity.hair.kind != "bald":
        scalp = hairline(rest, m) > 0
        colour[scalp] = strands(rest[scalp], identity)
        label[scalp] = HAIR
    else:
        shaved = hairline(rest, m) > 0.004
        colour[shaved] = 0.94 * colour[shaved] + 0.04 * np.float32(identity.hair.colour)
    socks = (y < m.line("ankle")[1] + 0.07) & (label == LEGS)
    colour[socks] = identity.outfit.socks
    label[socks] = LABELS.index("shoes")
    return colour, label.astype(np.uint8)


def _face(colour: np.ndarray, rest: np.ndarray, identity: Identity, m: Mannequin) -> None:
    """Cheeks, brows, eyes, lips, beard and glasses; `colour` changes in place."""
    eye, nose = m.line("eye"), m.at["nose"]
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    front = rest[:, 2] > eye[2] - 0.035

    def spot(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return front & (np.hypot((x - cx) / rx, (y - cy) / ry) < 1)

    colour[spot(0.026, nose[1] - 0.004, 0.024, 0.018)] *= np.float32([1.03, 0.95, 0.94])
    colour[spot(eye[0], eye[1] + 0.023, 0.018, 0.005)] *= np.float32([0.62, 0.56, 0.54])
    colour[spot(eye[0], eye[1], 0.012, 0.006)] = np.float32(identity.skin) * 0.5 + 0.32
    colour[spot(eye[0], eye[1], 0.006, 0.006)] = identity.eyes
    colour[spot(0, nose[1] - 0.038, 0.023, 0.0075)] = identity.lips
    if identity.hair.beard > 0:
        jaw = nose[1] - 0.028 - 0.02 * np.clip((rest[:, 2] - 0.12) / 0.04, 0, 1)
        low = (y < jaw + 0.035 * np.clip((x - 0.045) / 0.02, 0, 1)) & (y > nose[1] - 0.115)
        lips = spot(0, nose[1] - 0.038, 0.023, 0.008)
        grown = low & (rest[:, 2] > m.line("ear")[2] - 0.005) & ~lips
        share = 0.35 + 0.6 * identity.hair.beard
        colour[grown] = (1 - share) * colour[grown] + share * np.float32(identity.hair.colour)
    if identity.outfit.glasses:
        frame = spot(eye[0], eye[1] - 0.002, 0.029, 0.019)
        glass = spot(eye[0], eye[1] - 0.002, 0.025, 0.015)
        bridge = front & (x < 0.01) & (np.abs(y - eye[1]) < 0.003)
        colour[(frame & ~glass) | bridge] = (0.07, 0.07, 0.07)
        if identity.outfit.glasses == "dark":
            colour[glass] = (0.05, 0.05, 0.06)


def strands(rest: np.ndarray, identity: Identity) -> np.ndarray:
    """Colour of hair, in uneven strands that run down the head, [N, 3] -> [N, 3]."""
    x, y, z = rest.T
    turn = np.arctan2(x, z - 0.03) * 11 + 1.5 * np.sin(y * 23)
    streaks = 1 + 0.09 * np.sin(turn * 3.1) + 0.06 * np.sin(turn * 7.7 + 2 * np.sin(y * 61))
    return np.float32(identity.hair.colour) * streaks[:, None].astype(np.float32)


def strand_folds(rest: np.ndarray) -> np.ndarray:
    """Change of the normal by locks of hair, [N, 3] -> [N, 3]."""
    x, y, z = rest.T
    turn = np.arctan2(x, z - 0.03)
    side = 0.22 * np.sin(turn * 21 + 3 * np.sin(y * 31))
    return np.stack(
        [side * np.cos(turn), 0.12 * np.sin(y * 47 + turn * 9), -side * np.sin(turn)], 1
    )
