# SPDX-License-Identifier: Apache-2.0
"""Geometry of hair and headwear.

people, skull, garments -> this module -> character. Hair and hats are the grid of the skull, offset
and cut along lines of rest coordinates, plus curtains (long hair, headscarf), tails, buns, brims.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from viewsynth.world import LABELS
from viewsynth.world.forms import Mesh, block, grid, sweep
from viewsynth.world.garments import Dressing, Piece
from viewsynth.world.mannequin import Mannequin
from viewsynth.world.people import Hair, Identity
from viewsynth.world.shells import Shell
from viewsynth.world.skull import DIRECTIONS, Skull, hairline

HAIR, HEADWEAR = LABELS.index("hair"), LABELS.index("headwear")
# kind: thickness on the skull at volume 0 and 1, metres
THICK = {
    "crop": (0.004, 0.008),
    "short": (0.012, 0.024),
    "curly": (0.026, 0.045),
    "afro": (0.055, 0.095),
    "bob": (0.016, 0.028),
    "long": (0.014, 0.026),
    "ponytail": (0.009, 0.014),
    "bun": (0.009, 0.015),
    "fringe": (0.014, 0.026),
}


def dress_head(identity: Identity, m: Mannequin, template: np.ndarray, on: Dressing) -> list:
    """Geometry of a person's hair and headwear.

    Args:
        identity: The person.
        m: The mannequin.
        template: The person's base mesh, see `Mannequin.template`.  [V, 3]
        on: What is worn already; curtains fall over it.

    Returns:
        [(Shell, Piece)]
    """
    skull = Skull(m, template)
    wear, hair = identity.outfit.headwear, identity.hair
    parts = []
    if wear is not None:
        parts = _headwear(skull, wear.kind, Piece(HEADWEAR, wear.fabric, wear.kind), on)
    hooded = identity.outfit.outer is not None and identity.outfit.outer.kind == "hoodie"
    if hooded and (wear is None or wear.kind not in ("hood", "hijab")):
        collar = Piece(LABELS.index("top"), identity.outfit.outer.fabric, "hood_down")
        parts.append((_hood_down(m, on), collar))
    if hair.kind == "bald" or (wear is not None and wear.kind == "hijab"):
        return parts
    pressed = wear is not None
    piece = Piece(HAIR, None, hair.kind)
    shells = _hair(skull, hair, on, pressed)
    if wear is not None and wear.kind == "hood":
        shells = shells[:1]
    return parts + [(shell, piece) for shell in shells]


def _hair(skull: Skull, hair: Hair, on: Dressing, pressed: bool) -> list[Shell]:
    """Hair of the head; `pressed`: under headwear."""
    low, high = THICK[hair.kind]
    thick = low + hair.volume * (high - low)
    rest, seed = skull.rest, int(1e6 * hair.length)
    if pressed:
        thick = min(thick, 0.007)
    lower = 0.035 if hair.kind == "fringe" else 0.0
    over = hair.kind in ("bob", "fringe", "long")
    line = hairline(rest, skull.m, lower, over)
    if not pressed:
        on.hidden.append(lambda s: _on_top(s.rest, skull.m, hairline(s.rest, skull.m, lower, over)))
    grow = np.clip(line / 0.035, 0, 1)
    volume = thick * (0.25 + 0.75 * grow * (2 - grow))
    if hair.kind in ("short", "bob", "long", "fringe"):  # more on top than at the temples
        volume *= 0.8 + 0.35 * np.clip(DIRECTIONS[:, 1], 0, 1)
    rough = {"curly": 0.3, "afro": 0.1, "short": 0.16}.get(hair.kind, 0.07)
    volume *= 1 + rough * _lumps(DIRECTIONS * (9 if hair.kind in ("curly", "afro") else 6), seed)
    shells = [skull.cap(volume.astype(np.float32), line)]
    if hair.kind == "bob":
        shells.append(_curtain(skull, on, 0.06 + 0.07 * hair.length, 80, thick + 0.004, 0.14))
    elif hair.kind == "fringe":
        shells.append(_curtain(skull, on, 0.10 + 0.18 * hair.length, 82, thick + 0.004, 0.1))
    elif hair.kind == "long":
        shells.append(_curtain(skull, on, 0.19 + 0.24 * hair.length, 86, thick + 0.003, 0.05))
    elif hair.kind == "ponytail":
        shells.append(_tail(skull, 0.14 + 0.22 * hair.length, 0.02 + 0.014 * hair.volume))
    elif hair.kind == "bun" and not pressed:
        shells.append(_bun(skull, hair.length > 0.5, 0.03 + 0.018 * hair.volume))
    return shells


def _on_top(rest: np.ndarray, m: Mannequin, depth: np.ndarray) -> np.ndarray:
    """A depth under something on the head, limited to points of the head, [N]."""
    return np.where(rest[:, 1] > m.at["nose"][1] - 0.13, depth, -1.0)


def _headwear(skull: Skull, kind: str, piece: Piece, on: Dressing) -> list:
    m, rest = skull.m, skull.rest
    ear, nose = m.line("ear"), m.at["nose"]
    forward = np.clip((rest[:, 2] - ear[2]) / (nose[2] - ear[2]), -1, 1)
    up = np.clip(DIRECTIONS[:, 1], 0, 1)
    match kind:
        case "cap":
            line = rest[:, 1] - ear[1] - 0.03 - 0.02 * forward
            shells = [skull.cap(0.014 + 0.012 * up, line), _brim(skull, 0.03, 0.075, 62, 0.35)]
        case "beanie":
            line = rest[:, 1] - ear[1] - 0.012 - 0.03 * forward
            shells = [skull.cap(0.016 + 0.014 * up**2, line)]
        case "hat":
            line = rest[:, 1] - ear[1] - 0.035
            shells = [skull.cap(0.016 + 0.016 * up, line), _brim(skull, 0.03, 0.07, 180, 0.18)]
        case "hijab":
            shells = [skull.cap(0.013 + 0.01 * up, _window(rest, m, 0.06, 0.08))]
            on.hidden.append(lambda s: _on_top(s.rest, m, _window(s.rest, m, 0.06, 0.08)))
            shells.append(_scarf(skull, on, 0.25, 0.02))
        case _:  # the hood of a hoodie or a coat, pulled up
            shells = [skull.cap(0.024 + 0.012 * up, _window(rest, m, 0.075, 0.1))]
            shells.append(_scarf(skull, on, 0.17, 0.022))
    return [(shell, piece) for shell in shells]


def _window(rest: np.ndarray, m: Mannequin, wide: float, tall: float) -> np.ndarray:
    """Distance from the opening for the face, metres, [N]."""
    nose, ear = m.at["nose"], m.line("ear")
    round_ = np.hypot(rest[:, 0] / wide, (rest[:, 1] - nose[1] - 0.005) / tall) - 1
    return np.maximum(round_ * 0.06, ear[2] + 0.02 - rest[:, 2])


def _brim(skull: Skull, above: float, width: float, half: float, droop: float) -> Shell:
    """A brim that extends `half` degrees to each side of the front."""
    m = skull.m
    level = m.line("ear")[1] + above + 0.012
    turn = np.deg2rad(np.linspace(-half, half, 33))
    out = np.stack([np.sin(turn), 0 * turn, np.cos(turn)], 1)
    ring = np.abs(skull.rest[:, 1] - level) < 0.02
    flat = DIRECTIONS[ring] * [1, 0, 1]
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    reach = skull.radius[ring] * np.linalg.norm(DIRECTIONS[ring] * [1, 0, 1], axis=1)
    inner = reach[(out @ flat.T).argmax(1)] + 0.013
    height = skull.centre[1] + level - skull.middle[1]
    # A visor is longest in the middle; a brim has the same width all around.
    visor = np.sqrt(np.clip(1 - (turn / turn[-1]) ** 2, 0, 1))
    long = width * (visor if half < 90 else 1 + 0 * turn)
    rows = []
    for step in (0.0, 0.5, 1.0):
        radius = inner + step * long
        fall = droop * step * long * (1 - 0.4 * np.abs(np.sin(turn)) * (half < 90))
        rows.append(
            skull.centre * [1, 0, 1] + out * radius[:, None] + np.outer(height - fall, [0, 1, 0])
        )
    points = np.concatenate(rows).astype(np.float32)
    return _on_head(skull, (points, grid(3, len(turn), closed=False)))


def _curtain(
    skull: Skull, on: Dressing, length: float, half: float, thick: float, bulge: float
) -> Shell:
    """Hair that falls from the sides and the back of the head.

    Args:
        skull: The head.
        on: What is worn already.
        length: Length below the middle of the head, metres.
        half: Half of the angle in front that stays free, degrees.
        thick: Distance from the head, metres.
        bulge: Extra width at half length, as a share of the radius.

    Returns:
        The shell.
    """
    columns, rows = 34, 5 + round(length / 0.03)
    turn = np.deg2rad(np.linspace(half, 360 - half, columns))
    share = np.linspace(0, 1, rows)[:, None]
    wide = _belt(skull, turn) + thick
    start = 0.035
    narrow = 1 + bulge * np.sin(np.pi * np.minimum(share * 1.2, 1)) - 0.25 * share * (length > 0.15)
    radius = wide * narrow
    height = skull.centre[1] + start - share * (length + start) + 0.02 * np.cos(turn) * share
    return _fall(skull, on, turn, radius, height, 0.012, closed=False)


def _scarf(skull: Skull, on: Dressing, length: float, room: float) -> Shell:
    """Cloth all around the neck, from the chin and the back of the head to the shoulders."""
    m, columns, rows = skull.m, 40, 4 + round(length / 0.03)
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    share = np.linspace(0, 1, rows)[:, None]
    belt = _belt(skull, turn, -0.09)
    wide = (belt + room) * (1 - 0.12 * np.sin(np.pi * np.minimum(share * 1.6, 1)))
    wide = wide + np.maximum(share - 0.4, 0) * 0.14
    chin = skull.centre[1] + m.at["nose"][1] - 0.06 - skull.middle[1]
    height = chin + 0.012 - 0.035 * np.cos(turn) - share * length
    return _fall(skull, on, turn, wide, height, room * 0.7, closed=True)


def _belt(skull: Skull, turn: np.ndarray, above: float = 0.0) -> np.ndarray:
    """Horizontal radius of the head at a height above its middle, by direction, metres."""
    points = DIRECTIONS * skull.radius[:, None]
    ring = np.flatnonzero(np.abs(points[:, 1] - above) < 0.025)
    flat = points[ring][:, [0, 2]]
    reach = np.linalg.norm(flat, axis=1)
    aim = np.stack([np.sin(turn), np.cos(turn)])
    close = np.exp(((flat / reach[:, None]) @ aim - 1) / 0.01)
    return (reach[:, None] * close).sum(0) / close.sum(0)


def _fall(skull: Skull, on: Dressing, turn, radius, height, room: float, closed: bool) -> Shell:
    """A sheet around the head's axis, laid over what is worn.

    Its upper part moves with the head, its lower part with the chest.
    """
    m = skull.m
    radius, height = np.broadcast_arrays(radius, height)
    points = np.stack(
        [skull.centre[0] + radius * np.sin(turn), height, skull.centre[2] + radius * np.cos(turn)],
        -1,
    ).reshape(-1, 3)
    worn = on.suit.points
    tree = cKDTree(worn)
    for _ in range(3):
        near = tree.query(points)[1]
        depth = room - ((points - worn[near]) * on.normal[near]).sum(1)
        points = points + on.normal[near] * np.clip(depth, 0, 0.05)[:, None]
    rest = points - skull.centre + skull.middle
    shell = m.bound((points, grid(len(radius), len(turn), closed)), rest, "head")
    free = np.clip((rest[:, 1] - (m.at["nose"][1] - 0.2)) / 0.1, 0, 1)[:, None]
    skin = shell.skin * free
    skin[:, m.body.bones.index("spine02")] += 1 - free[:, 0]
    return Shell(shell.points, shell.rest, skin.astype(np.float32), shell.faces)


def _tail(skull: Skull, length: float, thick: float) -> Shell:
    """A ponytail."""
    aim = np.float32([0, 0.45, -0.9])
    far = skull.radius[(DIRECTIONS @ aim).argmax()]
    start = skull.centre + aim / np.linalg.norm(aim) * far
    share = np.linspace(0, 1, 10)
    back = 0.05 * np.sin(np.pi * np.minimum(share * 1.6, 1)) + 0.015
    path = start + np.stack([0 * share, 0.02 * (share < 0.15) - share * length, -back], 1)
    radii = thick * np.array([0.5, 0.9, 1.1, 1.15, 1.1, 1.0, 0.9, 0.75, 0.5, 0.1])
    return _on_head(skull, sweep(path, radii))


def _bun(skull: Skull, high: bool, size: float) -> Shell:
    """A bun at the crown or at the back of the head."""
    aim = np.float32([0, 0.85, -0.55] if high else [0, 0.1, -1.0])
    aim /= np.linalg.norm(aim)
    far = skull.radius[(DIRECTIONS @ aim).argmax()] + 0.022
    mesh = block(skull.centre + aim * far, [size, 0.85 * size, size], 1.0, 9, 14)
    return _on_head(skull, mesh)


def _hood_down(m: Mannequin, on: Dressing) -> Shell:
    """A hood that is not worn: a thick roll around the nape."""
    turn = np.deg2rad(np.linspace(100, 260, 13))
    neck = on.suit.points[np.abs(on.suit.rest[:, 1] - m.line("shoulder")[1] - 0.07) < 0.03]
    middle = neck.mean(0)
    wide, deep = np.ptp(neck[:, 0]) / 2 + 0.035, np.ptp(neck[:, 2]) / 2 + 0.035
    path = middle + np.stack(
        [wide * np.sin(turn), -0.03 + 0.02 * np.cos(turn), deep * np.cos(turn)], 1
    )
    fat = 0.012 + 0.03 * np.sin(np.linspace(0, np.pi, 13))
    mesh = sweep(path, np.stack([fat, 1.1 * fat], 1))
    rest = mesh[0] - middle + [0, m.line("shoulder")[1] + 0.07, 0.02]
    return m.bound(mesh, rest, "spine02")


def _on_head(skull: Skull, mesh: Mesh) -> Shell:
    rest = mesh[0] - skull.centre + skull.middle
    return skull.m.bound(mesh, rest, "head")


def _lumps(directions: np.ndarray, seed: int) -> np.ndarray:
    """A smooth random function of direction, about [-1, 1], [N, 3] -> [N]."""
    rng = np.random.default_rng(seed)
    waves, phase = rng.normal(0, 1, (6, 3)), rng.uniform(0, 2 * np.pi, 6)
    return np.sin(directions @ waves.T + phase).sum(1) / 2.5
