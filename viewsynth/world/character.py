# SPDX-License-Identifier: Apache-2.0
"""A dressed person that can be posed and shaded.

people (identity) -> mannequin, garments, hair, carried -> this module -> shots, capture. Geometry
is built once per identity in the template pose. A pose moves it by the body's skinning, drapes the
tubes and adds what the hands hold. Colours and folds are functions of rest coordinates, evaluated
per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from viewsynth import bodies
from viewsynth.world import carried, drape, fabrics, faces, garments, hair
from viewsynth.world.fabrics import Fabric
from viewsynth.world.garments import COVERED, Piece, Tube
from viewsynth.world.mannequin import Mannequin, mannequin
from viewsynth.world.people import Identity
from viewsynth.world.shells import Shell, cut, normals

UNDER = 0.03  # depth under a garment from which the garments below it are left out, metres
BODY = Piece(0, None, "body")
LEVELS = ("ankle", "knee", "hip", "shoulder")
PHONE = Piece(carried.CARRIED, Fabric(colours=((0.06, 0.06, 0.07),)), "phone")


@dataclass(frozen=True)
class Dressed:
    """A dressed person as one mesh, standing in the world frame (see `viewsynth.cameras`).

    Args:
        vertices: Metres.  float32 [V, 3]
        normals: Unit, outward.  float32 [V, 3]
        faces: Counter-clockwise seen from outside; cloth is two-sided.  int64 [F, 3]
        piece: Index into `pieces` of each triangle.  uint8 [F]
        rest: Rest coordinates, see `mannequin`; colours are functions of them.  float32 [V, 3]
        bare: Vertices of the body without clothes, metres; its triangles are those of the body
            "anny".  float32 [B, 3]
        keypoints: `bodies.KEYPOINTS`, metres.  float32 [K, 3]
        pieces: Description of each part.
        identity: The person.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    piece: np.ndarray
    rest: np.ndarray
    bare: np.ndarray
    keypoints: np.ndarray
    pieces: tuple[Piece, ...]
    identity: Identity

    def shade(self, face: np.ndarray, bary: np.ndarray) -> tuple[np.ndarray, ...]:
        """Appearance of surface points.

        Args:
            face: Triangle of each point.  int64 [N]
            bary: Barycentric coordinates.  float32 [N, 3]

        Returns:
            Albedo, sRGB float32 [N, 3]; unit normal with folds, on the outer side of the surface,
            float32 [N, 3]; index into `LABELS`, uint8 [N].
        """
        m, corner = mannequin(), self.faces[face]
        weight = bary.astype(np.float32)
        rest, normal = (
            sum(table[corner[:, k]] * weight[:, k : k + 1] for k in range(3))
            for table in (self.rest, self.normals)
        )
        colour, label = np.empty((len(face), 3), np.float32), np.empty(len(face), np.uint8)
        belongs = self.piece[face]
        for number, piece in enumerate(self.pieces):
            here = np.flatnonzero(belongs == number)
            if not len(here):
                continue
            if piece.fabric is not None:
                colour[here] = fabrics.paint(piece.fabric, rest[here], m.at)
                change = fabrics.folds(piece.fabric, rest[here])
                normal[here] += change
                if piece.fabric.crease:
                    colour[here] *= fabrics.creased(piece.fabric, change)
                label[here] = piece.label
            elif piece is BODY:
                colour[here], label[here] = faces.skin(rest[here], self.identity, m)
            else:
                colour[here] = faces.strands(rest[here], self.identity)
                normal[here] += faces.strand_folds(rest[here])
                label[here] = piece.label
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        return colour.clip(0.012, 0.97), normal, label


class Character:
    """A dressed person in the template pose.

    Args:
        identity: The person.

    Attributes:
        points: Template points of all parts but the tubes, metres.  [N, 3]
        skin: Skinning weights of these.  [N, C]
        rest: Rest coordinates of all parts, the tubes last.  [V, 3]
        faces: Triangles of all parts.  [F, 3]
        piece: Index into `pieces` of each triangle.  [F]
        pieces: Description of each part.
        tubes: Garments that hang free.
        lengths: Length of each tube on this person, metres.
        legs: The surface inside each tube.
        in_hand: The carried thing that a hand holds, None = none.
    """

    def __init__(self, identity: Identity):
        m = mannequin()
        self.identity, self.m = identity, m
        template, self.heads = m.template(identity)
        on = garments.dress(m, identity.outfit, template)
        extra: list[tuple[Shell, Piece]] = []
        self.in_hand = None
        for garment in identity.outfit.carried:
            if garment.kind in carried.IN_HAND:
                self.in_hand = garment
            else:
                extra += carried.put_on(on, garment)
        extra += hair.dress_head(identity, m, template, on)
        parts = [(_bare(m, template, on.cover + on.hidden), BODY), *_outermost(on), *extra]
        self.tubes = on.tubes
        parts = [
            (_levelled(m, template, shell) if piece.fabric else shell, piece)
            for shell, piece in parts
        ]
        self.pieces = tuple(
            dict.fromkeys([piece for _, piece in parts] + [tube.piece for tube in on.tubes])
        )
        self._join(parts)
        # The surface inside the tubes: hips and legs of the suit.
        low = (m.rest[m.suit, 1] < m.line("hip")[1] + 0.2) & (np.abs(m.rest[m.suit, 0]) < 0.3)
        self.legs = [
            Shell(tube.inner[low], on.suit.rest[low], on.suit.skin[low], on.suit.faces[:0])
            for tube in on.tubes
        ]
        tall = np.ptp(template[m.suit][:, 1]) / np.ptp(m.rest[m.suit][:, 1])
        self.lengths = [float((tube.top - tube.end) * tall) for tube in on.tubes]
        base = m.body.base_index.numpy()
        self._points = torch.from_numpy(template[base])
        self._skin = m.body.skin[m.body.base_index]
        self._soles = int(template[base][:, 1].argmin())

    @property
    def hand(self) -> str:
        """The hand that holds a carried thing: "left", "right" or ""."""
        if self.in_hand is None:
            return ""
        return "left" if carried.side_of(self.in_hand) > 0 else "right"

    def _join(self, parts: list[tuple[Shell, Piece]]) -> None:
        first = np.cumsum([0] + [len(shell.points) for shell, _ in parts])
        self.points = torch.from_numpy(np.concatenate([shell.points for shell, _ in parts]))
        self.skin = torch.from_numpy(np.concatenate([shell.skin for shell, _ in parts]))
        rest = [shell.rest for shell, _ in parts]
        faces = [shell.faces + at for (shell, _), at in zip(parts, first, strict=False)]
        piece = [np.full(len(shell.faces), self.pieces.index(what)) for shell, what in parts]
        at = first[-1]
        for tube in self.tubes:
            rest.append(drape.rest(tube))
            faces.append(drape.faces(tube) + at)
            piece.append(np.full(len(faces[-1]), self.pieces.index(tube.piece)))
            at += len(rest[-1])
        self.rest = np.concatenate(rest).astype(np.float32)
        self.faces, self.piece = np.concatenate(faces), np.concatenate(piece).astype(np.uint8)

    def posed(self, pose: torch.Tensor, lift: float = 0.0, phone: str = "") -> Dressed:
        """The person in a pose, standing on y = 0, with the middle of the body on the y axis.

        Args:
            pose: Rotation vectors, see `Body.vertices`.  [P, 3]
            lift: Height of the lowest point above the ground, metres.
            phone: The hand that holds a phone: "left", "right" or "".

        Returns:
            The person; only what the hands hold changes the triangles.
        """
        m = self.m
        rotations, shift = (t[0] for t in m.body.motion(pose[None], self.heads))
        moves = torch.cat([rotations.flatten(1), shift], 1)
        body = _skinned(moves, self._points, self._skin)
        vertices = [_skinned(moves, self.points, self.skin)]
        ground = min(float(body[:, 1].min()), float(vertices[0][:, 1].min()))
        pelvis = rotations[m.body.bones.index("root")].numpy()
        for tube, length, inner in zip(self.tubes, self.lengths, self.legs, strict=True):
            legs = _skinned(moves, torch.from_numpy(inner.points), torch.from_numpy(inner.skin))
            vertices.append(_hang(tube, length, inner.rest[:, 1], legs, pelvis))
        points = bodies.keypoints(m.body, torch.from_numpy(body)[None])[0].numpy()
        faces, rest, piece, pieces = [self.faces], [self.rest], [self.piece], self.pieces
        for palm, held, mesh in self._held(points, phone, ground):
            faces.append(mesh[1] + sum(len(v) for v in vertices))
            vertices.append(mesh[0])
            rest.append(mesh[0] - palm.astype(np.float32))
            piece.append(np.full(len(mesh[1]), len(pieces), np.uint8))
            pieces = (*pieces, held)
        low, high = body.min(0), body.max(0)
        middle = np.float32([(low[0] + high[0]) / 2, ground - lift, (low[2] + high[2]) / 2])
        placed, triangles = (
            np.concatenate(vertices).astype(np.float32) - middle,
            np.concatenate(faces),
        )
        return Dressed(
            vertices=placed,
            normals=normals(placed, triangles),
            faces=triangles,
            piece=np.concatenate(piece),
            rest=np.concatenate(rest).astype(np.float32),
            bare=body - middle,
            keypoints=points - middle,
            pieces=pieces,
            identity=self.identity,
        )

    def _held(self, points: np.ndarray, phone: str, ground: float) -> list:
        """What the hands hold: [(palm [3], Piece, Mesh)]; `points`: keypoints before centring."""
        held = []
        if self.in_hand is not None:
            palm, garment = _palm(points, self.hand), self.in_hand
            piece = Piece(carried.CARRIED, garment.fabric, garment.kind)
            held.append((palm, piece, carried.held(garment, palm, ground)))
        if phone:
            palm = _palm(points, phone)
            held.append((palm, PHONE, carried.held(None, palm, ground)))
        return held


def _skinned(moves: torch.Tensor, points: torch.Tensor, skin: torch.Tensor) -> np.ndarray:
    """Linear blend skinning by the rotation and shift of each bone [C, 12], [N, 3] -> [N, 3]."""
    blend = skin @ moves
    turned = (blend[:, :9].unflatten(1, (3, 3)) * points[:, None]).sum(-1)
    return (turned + blend[:, 9:]).numpy()


def _hang(tube: Tube, length: float, height: np.ndarray, legs: np.ndarray, pelvis) -> np.ndarray:
    """Vertices of a tube around posed legs [N, 3], whose rest heights are `height` [N]."""
    ring, below = np.abs(height - tube.top) < 0.03, height < tube.top + 0.03
    return drape.hang(
        tube, length, legs[below], pelvis, float(legs[ring, 1].mean()), tube.piece.fabric.seed
    )


def _bare(m: Mannequin, template: np.ndarray, cover: list) -> Shell:
    """The body without the parts that garments cover."""
    used, faces = np.unique(m.skin_faces, return_inverse=True)
    body = Shell(template[used], m.rest[used], m.skin[used], faces.reshape(-1, 3))
    depth = np.max([field(body) for field in cover], axis=0)
    return cut(body, (COVERED - depth).astype(np.float32))


def _levelled(m: Mannequin, template: np.ndarray, shell: Shell) -> Shell:
    """A shell with rest heights that are level on this person's trunk and legs.

    Stripes follow rest heights; without this, a heavier chest would bend them.
    """
    points = torch.from_numpy(template[m.body.base_index.numpy()])[None]
    own = bodies.keypoints(m.body, points)[0].numpy()
    rows = [bodies.KEYPOINTS.index(f"left_{name}") for name in LEVELS]
    y, low, high = shell.points[:, 1], own[rows[0], 1], own[rows[-1], 1]
    height = np.interp(y, own[rows, 1], [m.line(name)[1] for name in LEVELS])
    beyond = np.where(y > high, y - high, 0)
    beyond += np.where(y < low, y - low, 0)
    arm = np.clip((np.abs(shell.rest[:, 0]) - 0.16) / 0.08, 0, 1)
    rest = shell.rest.copy()
    rest[:, 1] = arm * rest[:, 1] + (1 - arm) * (height + beyond)
    return replace(shell, rest=rest)


def _outermost(on: garments.Dressing) -> list[tuple[Shell, Piece]]:
    """The layers, each without the parts that later layers of clothes cover."""
    kept = []
    for number, (shell, piece) in enumerate(on.layers):
        keep = np.ones(len(shell.faces), bool)
        for other, field in zip(on.layers[number + 1 :], on.cover[number + 1 :], strict=True):
            if other[1].label != carried.CARRIED:
                keep &= (field(shell)[shell.faces] < UNDER).any(1)
        kept.append((shell.part(keep), piece))
    return kept


def _palm(points: np.ndarray, side: str) -> np.ndarray:
    """Middle of the palm of a posed person, [3]."""
    elbow, wrist = (points[bodies.KEYPOINTS.index(f"{side}_{name}")] for name in ("elbow", "wrist"))
    return wrist + 0.3 * (wrist - elbow)
