# SPDX-License-Identifier: Apache-2.0
"""Geometry of carried things: backpack, shoulder bag, tote bag, closed umbrella, phone.

garments -> this module -> character. Bags worn on the body move with a bone and have straps cut
from the suit; what a hand holds hangs straight down from it in every pose.
"""

from __future__ import annotations

import numpy as np

from viewsynth.world import LABELS
from viewsynth.world.forms import Mesh, block, merge, sweep
from viewsynth.world.garments import Dressing, Piece
from viewsynth.world.outfits import Garment
from viewsynth.world.shells import Shell

CARRIED = LABELS.index("carried")
IN_HAND = ("tote", "umbrella")


def side_of(garment: Garment) -> int:
    """Side on which a bag is worn or held: 1 = left, -1 = right."""
    return 1 if garment.fabric.seed % 2 else -1


def put_on(on: Dressing, garment: Garment) -> list:
    """Add a bag that is worn on the body; its straps become a layer of `on`.

    Args:
        on: What is worn already.
        garment: A backpack or shoulder bag.

    Returns:
        The bag: [(Shell, Piece)].
    """
    piece = Piece(CARRIED, garment.fabric, garment.kind)
    make = {"backpack": _backpack, "shoulder_bag": _shoulder_bag}[garment.kind]
    return [(make(on, piece, garment), piece)]


def _backpack(on: Dressing, piece: Piece, garment: Garment) -> Shell:
    shoulder = on.mannequin.line("shoulder")
    worn = on.suit.points
    rest, size = on.suit.rest, 0.85 + 0.3 * garment.length
    back = (np.abs(rest[:, 0]) < 0.1) & (np.abs(rest[:, 1] - shoulder[1] + 0.2) < 0.16)
    half = np.array([0.145, 0.21, 0.075]) * size
    face = worn[back, 2].min()
    middle = [0, worn[back, 1].mean() - 0.015, face - 0.75 * half[2]]
    pocket = [0, middle[1] - 0.32 * half[1], middle[2] - half[2]]
    mesh = merge(
        block(middle, half, 0.45, 11, 24), block(pocket, half * [0.8, 0.5, 0.45], 0.45, 9, 20)
    )
    fields = [
        lambda s: 0.141 - np.abs(s.points[:, 0]),
        lambda s: np.abs(s.points[:, 0]) - 0.089,
        lambda s: s.rest[:, 1] - shoulder[1] + 0.27,
    ]
    on.wear(piece, fields, np.full(len(rest), 0.004), 0.5)
    shift = np.float32([0, shoulder[1] - 0.2, -0.2]) - np.float32(middle)
    return on.mannequin.bound(mesh, mesh[0] + shift, "spine02")


def _shoulder_bag(on: Dressing, piece: Piece, garment: Garment) -> Shell:
    m, side = on.mannequin, side_of(garment)
    hip, shoulder, rest = m.line("hip"), m.line("shoulder"), on.suit.rest
    worn = on.suit.points
    beside = (rest[:, 0] * side > 0.05) & (np.abs(rest[:, 1] - hip[1] - 0.03) < 0.05)
    half = np.array([0.055, 0.115, 0.15]) * (0.8 + 0.4 * garment.length)
    edge = (worn[beside, 0] * side).max()
    middle = [side * (edge + 0.6 * half[0]), worn[beside, 1].mean(), worn[beside, 2].mean()]
    # The strap runs from the other shoulder to the hip.
    upper = np.array([-0.09 * side, shoulder[1] + 0.05])
    lower = np.array([0.17 * side, hip[1] + 0.08])
    along = (lower - upper) / np.linalg.norm(lower - upper)
    fields = [
        lambda s: 0.02 - (s.rest[:, :2] - upper) @ [-along[1], along[0]],
        lambda s: 0.02 + (s.rest[:, :2] - upper) @ [-along[1], along[0]],
        lambda s: s.rest[:, 1] - hip[1],
        lambda s: 0.2 - np.abs(s.rest[:, 0]),
    ]
    on.wear(piece, fields, np.full(len(rest), 0.004), 0.5)
    mesh = block(middle, half, 0.4, 11, 24)
    shift = np.float32([0.25 * side, hip[1], 0.02]) - np.float32(middle)
    return m.bound(mesh, mesh[0] + shift, "root")


def held(garment: Garment | None, hand: np.ndarray, ground: float) -> Mesh:
    """Mesh of a thing that a hand holds.

    Args:
        garment: The thing; None = a phone.
        hand: Middle of the palm in the world frame, metres.  [3]
        ground: Height of the ground, metres.

    Returns:
        The mesh in the world frame.
    """
    if garment is None:
        return block(hand + [0, 0.03, 0.03], [0.036, 0.07, 0.006], 0.3, 7, 12)
    if garment.kind == "umbrella":
        long = min(0.75, hand[1] - ground - 0.02)
        share = np.array([0.0, 0.08, 0.12, 0.5, 0.92, 1.0])
        path = hand + np.outer(share * long, [0, -1, 0.08]) + [0, 0.05, 0]
        return sweep(path, np.array([0.008, 0.01, 0.022, 0.03, 0.016, 0.002]))
    half = np.array([0.045, 0.17, 0.16]) * (0.8 + 0.4 * garment.length)
    drop = min(0.2, max(0.04, hand[1] - ground - 2 * half[1] - 0.03))
    bag = block(hand - [0, drop + half[1], 0], half, 0.35, 9, 20)
    share = np.linspace(-1, 1, 7)
    handles = []
    for x in (-0.02, 0.02):
        below = drop * np.abs(share) ** 1.5
        path = [hand[0] + x + 0 * share, hand[1] - below, hand[2] + 0.6 * half[2] * share]
        path = np.stack(path, 1)
        handles.append(sweep(path, np.full(7, 0.008), 6))
    return merge(bag, *handles)
