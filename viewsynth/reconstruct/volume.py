# SPDX-License-Identifier: Apache-2.0
"""Volume: from the vertices of a bare body to a clothed silhouette.

Garments show no navel, buttocks or toes: the mesh is smoothed where clothes and shoes go (Taubin's
lambda-mu filter, SIGGRAPH 1995, which does not shrink it), then moved along its normals by the
fitted offsets and, where hair grows, by the thickness of the hair.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from viewsynth.bodies import KEYPOINTS, PARTS, Body, keypoints
from viewsynth.render.shade import vertex_normals

PASSES, SHRINK, GROW = 10, 0.55, -0.57
# How strongly each part is smoothed, [0, 1]; hands and face are not.
SMOOTH = {
    "torso": 1.0,
    "upper_arm": 0.9,
    "forearm": 0.5,
    "thigh": 1.0,
    "shank": 0.8,
    "foot": 1.0,
    "neck": 0.5,
}
HAIR = 0.012  # metres
# Distance of cloth from the skin beyond the fitted offsets: a silhouette does not distinguish it
# from a stretched crop, and the fit explains a part of it by the aspect.
CLOTH = 0.008  # metres
CLOTHED = {"torso": 1.0, "upper_arm": 1.0, "forearm": 1.0, "thigh": 1.0, "shank": 1.0, "foot": 0.4}


class Clothier:
    """Clothes a body; smoothing weights, least clothing and scalp are prepared once.

    Args:
        body: The body.

    Attributes:
        cloth: Distance of clothes from the skin beyond the fitted offsets, metres.  [V]
    """

    def __init__(self, body: Body):
        self.body = body
        faces, count = body.faces, len(body.parts)
        self.average = _averaging(faces, count)
        names = [name.removeprefix("left_").removeprefix("right_") for name in PARTS]
        by_part = torch.tensor([SMOOTH.get(name, 0.0) for name in names], device=faces.device)
        strength = by_part[body.parts][:, None]
        for _ in range(4):  # avoids creases where parts meet
            strength = 0.5 * strength + 0.5 * (self.average @ strength)
        self.strength = strength
        worn = torch.tensor([CLOTHED.get(name, 0.0) for name in names], device=faces.device)
        self.cloth = CLOTH * worn[body.parts]
        self.scalp = _scalp(body, self.average)

    def dress(self, vertices: Tensor, offsets: Tensor, hair: Tensor) -> Tensor:
        """Clothed vertices of posed bodies.

        Args:
            vertices: Bare, in any pose.  [N, V, 3]
            offsets: Clothing along the normals, metres.  [N, V]
            hair: Hair thickness relative to `HAIR`, [0, 1].  [N]

        Returns:
            [N, V, 3].
        """
        # One by one: the rounding of a sparse product depends on the number of columns.
        smooth = torch.stack([self._smoothed(one) for one in vertices])
        thick = offsets + HAIR * hair[:, None] * self.scalp
        return smooth + vertex_normals(smooth, self.body.faces) * thick[..., None]

    def _smoothed(self, vertices: Tensor) -> Tensor:
        """One body without the details of its skin where clothes are, [V, 3]."""
        for _ in range(PASSES):
            for factor in (SHRINK, GROW):
                away = self.average @ vertices - vertices
                vertices = vertices + factor * self.strength * away
        return vertices


def _averaging(faces: Tensor, count: int) -> Tensor:
    """Sparse matrix that replaces every vertex by the mean of its neighbours, [V, V]."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = torch.cat([edges, edges.flip(1)]).unique(dim=0)
    degree = torch.bincount(edges[:, 0], minlength=count).clamp_min(1)
    with warnings.catch_warnings():  # torch calls its CSR format beta at every first use
        warnings.simplefilter("ignore", UserWarning)
        return (
            torch.sparse_coo_tensor(
                edges.T, 1.0 / degree[edges[:, 0]], (count, count), check_invariants=False
            )
            .coalesce()
            .to_sparse_csr()
        )


def _scalp(body: Body, average: Tensor) -> Tensor:
    """Where hair grows: 1 on the scalp, fading at its border, [V]."""
    rest = body.vertices(body.shape_mean[None], 0 * body.pose_mean[None])
    key = dict(zip(KEYPOINTS, keypoints(body, rest)[0], strict=True))
    eye, ear, x = key["left_eye"], key["left_ear"], rest[0]
    above = x[:, 1] > eye[1] + 0.5 * (x[:, 1].max() - eye[1])
    behind = (x[:, 2] < ear[2] + 0.01) & (x[:, 1] > ear[1] - 0.045)
    head = (body.parts == PARTS.index("head")) | (body.parts == PARTS.index("neck"))
    scalp = ((above | behind) & head).float()[:, None]
    for _ in range(3):
        scalp = average @ scalp
    return scalp[:, 0]
