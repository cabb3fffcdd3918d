# SPDX-License-Identifier: Apache-2.0
"""Body models: shape and pose in, a posed mesh in our world frame out.

A body model is one file of this folder with a function `build(device, **options) -> Body`; `load`
finds it by its module name. All other code uses `Body` only.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # torch takes a second to import, which `names` alone does not need
    import torch
    from torch import Tensor

    from viewsynth.runtime.licences import Passport

# The COCO body points, then toes and heels; "left" is the person's left.
KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    *("left_big_toe", "left_heel", "right_big_toe", "right_heel"),
)

# Part of the body that a vertex belongs to; the index is stored in `Body.parts`.
PARTS = (
    *("head", "neck", "torso"),
    *("left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm"),
    *("left_hand", "right_hand"),
    *("left_thigh", "right_thigh", "left_shank", "right_shank"),
    *("left_foot", "right_foot"),
)

# Anatomical angles in degrees, zero = standing upright, arms hanging, palms inward. Each body
# model converts them to its own pose, so a pose that is written in them fits every body.
ANGLES = (
    *("hip_flexion", "hip_abduction", "knee_flexion", "ankle_flexion"),
    *("shoulder_flexion", "shoulder_abduction", "elbow_flexion"),
)


class Body(Protocol):
    """Interface of all body models. B = batch, V = vertices, P = posed bones, S = shape values.

    Attributes:
        name: Module name in `viewsynth.bodies`.
        passport: Rights in the model and its data.
        faces: Vertex indices, counter-clockwise seen from outside.  int64 [F, 3]
        uvs: Texture coordinates in [0, 1], v up; None = the file has no atlas.  float32 [U, 2]
        face_uvs: Indices into `uvs`, or None.  int64 [F, 3]
        parts: Index into `PARTS` of every vertex.  int64 [V]
        mirror: Index of the vertex on the other side of the body.  int64 [V]
        bones: Names of the posed bones, in the order of a pose.  [P]
        pose_mean, pose_std: Prior of a standing or walking person, radians.  float32 [P, 3]
        pose_low, pose_high: Limits of the joints, radians.  float32 [P, 3]
        shapes: Names of the shape values.  [S]
        shape_mean, shape_std: Prior of an adult.  float32 [S]
        shape_low, shape_high: Range of the shape values.  float32 [S]
        keypoint_vertices, keypoint_weights: `KEYPOINTS` as weighted sums of vertices. [K, N] each
    """

    name: str
    passport: Passport
    faces: Tensor
    uvs: Tensor | None
    face_uvs: Tensor | None
    parts: Tensor
    mirror: Tensor
    bones: tuple[str, ...]
    pose_mean: Tensor
    pose_std: Tensor
    pose_low: Tensor
    pose_high: Tensor
    shapes: tuple[str, ...]
    shape_mean: Tensor
    shape_std: Tensor
    shape_low: Tensor
    shape_high: Tensor
    keypoint_vertices: Tensor
    keypoint_weights: Tensor

    def vertices(self, shape: Tensor, pose: Tensor, subset: Tensor | None = None) -> Tensor:
        """Posed vertices, facing +z, y up, where the model places them (see `stand`).

        Args:
            shape: Shape values.  [B, S]
            pose: Rotation vectors, radians.  [B, P, 3]
            subset: Indices of the wanted vertices, None = all.  int64 [N]

        Returns:
            Metres, differentiable in shape and pose.  [B, V or N, 3]
        """

    def from_angles(self, angles: dict[str, Tensor]) -> Tensor:
        """A pose from anatomical angles.

        Args:
            angles: Keys `left_` and `right_` + a name of `ANGLES`, and `trunk_flexion`; degrees,
                missing keys are zero.  [B] each

        Returns:
            Rotation vectors, radians.  [B, P, 3]
        """


def names() -> list[str]:
    """The available body models."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if module.name != "poses"
    )


def load(name: str, device: torch.device | str = "cpu", **options) -> Body:
    """Load a body model.

    Args:
        name: One of `names()`.
        device: Device of its tensors.
        **options: Passed to the `build` function of the model.

    Returns:
        The body model.

    Raises:
        ValueError: if there is no such model.
    """
    import torch

    if name not in names():
        raise ValueError(f"body must be one of {', '.join(names())}; got {name!r}")
    return importlib.import_module(f"viewsynth.bodies.{name}").build(
        torch.device(device), **options
    )


def keypoints(body: Body, vertices: Tensor) -> Tensor:
    """Keypoints of posed bodies.

    Args:
        body: The body model.
        vertices: All its vertices.  [B, V, 3]

    Returns:
        Positions of `KEYPOINTS`.  [B, K, 3]
    """
    return (vertices[:, body.keypoint_vertices] * body.keypoint_weights[..., None]).sum(2)


def stand(vertices: Tensor) -> Tensor:
    """Move bodies to stand on the ground, y = 0, with their middle on the y axis.

    The middle is that of the horizontal bounding box, so a camera that aims at the y axis has the
    person in the middle of the image.

    Args:
        vertices: Posed vertices, y up, metres.  [B, V, 3]

    Returns:
        The moved vertices.  [B, V, 3]
    """
    import torch

    low, high = vertices.amin(1), vertices.amax(1)
    middle = (low + high) / 2
    return vertices - torch.stack([middle[:, 0], low[:, 1], middle[:, 2]], 1)[:, None]
