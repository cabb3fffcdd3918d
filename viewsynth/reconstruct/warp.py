# SPDX-License-Identifier: Apache-2.0
"""Warp: how points on and around a body follow it from one pose and shape to another.

Source: embedded deformation, Sumner et al., SIGGRAPH 2007. Nodes spread over the body carry a
rotation and a shift, and a point moves with a weighted mean of those of its nearest nodes. The
rotation of a node is not optimised as there, but follows from the body: it is the best rigid motion
(Kabsch, 1976) of the vertices around the node. Skirts and coats between the legs follow both legs.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor

from viewsynth.reconstruct.fit import spread_out

NODES = 700
AROUND = 40  # vertices that give a node its motion
NEAR = 8  # nodes that a point follows


class Nodes:
    """Nodes on a body in its canonical pose.

    Args:
        rest: Vertices of the body in the canonical pose, metres.  float32 [V, 3]
    """

    def __init__(self, rest: Tensor):
        chosen = rest[spread_out(rest, NODES)].cpu().numpy()
        distance, near = cKDTree(rest.cpu().numpy()).query(chosen, AROUND)
        weight = np.exp(-0.5 * (1.5 * distance / distance[:, -1:]) ** 2)
        weight = torch.from_numpy((weight / weight.sum(1, keepdims=True)).astype(np.float32))
        self.near = torch.from_numpy(near).to(rest.device)
        self.weight = weight.to(rest.device)[..., None]
        around = rest[self.near]
        self.centre = (around * self.weight).sum(1)
        self.local = (around - self.centre[:, None]) * self.weight
        self._tree = cKDTree(self.centre.cpu().numpy())

    def motions(self, vertices: Tensor) -> Tensor:
        """Rigid motion of every node from the canonical to other poses.

        Args:
            vertices: The same body in other poses and shapes.  float32 [N, V, 3]

        Returns:
            Rotation and shift, x' = R x + t.  float32 [N, G, 3, 4]
        """
        # One by one: the rounding of batched matrix products depends on the batch's size.
        return torch.stack([self._motion(one) for one in vertices])

    def _motion(self, vertices: Tensor) -> Tensor:
        """`motions` of one pose, [G, 3, 4]."""
        around = vertices[self.near]
        centre = (around * self.weight).sum(1)
        covariance = (around - centre[:, None]).mT @ self.local
        u, _, v = torch.linalg.svd(covariance)
        flip = torch.linalg.det(u @ v)[..., None, None]
        rotation = torch.cat([u[..., :2], u[..., 2:] * flip], -1) @ v
        shift = centre - (rotation @ self.centre[..., None])[..., 0]
        return torch.cat([rotation, shift[..., None]], -1)

    def bind(self, points: np.ndarray) -> sparse.csr_array:
        """Weights of the nodes that points follow.

        Near the body only the closest nodes count; further away more and more do, so that the
        motion is smooth between the legs and around bags.

        Args:
            points: In the canonical pose, metres.  [M, 3]

        Returns:
            Sparse weights with row sums of 1.  float32 [M, G]
        """
        distance, index = self._tree.query(points, NEAR + 1)
        beyond = distance - distance[:, :1]
        weight = np.exp(-0.5 * (beyond / (0.02 + 0.4 * distance[:, :1])) ** 2)
        weight *= np.clip(1 - beyond / np.maximum(beyond[:, -1:], 1e-6), 0, 1)  # continuous
        rows = np.arange(0, weight.size + 1, NEAR + 1)
        weight = (weight / weight.sum(1, keepdims=True)).astype(np.float32)
        return sparse.csr_array(
            (weight.ravel(), index.ravel(), rows), (len(points), len(self.centre))
        )


def move(points: np.ndarray, binding: sparse.csr_array, motions: Tensor) -> Tensor:
    """Points in another pose.

    Args:
        points: In the canonical pose.  float32 [M, 3]
        binding: Of `Nodes.bind`.  [M, G]
        motions: Of `Nodes.motions`, of one pose.  float32 [G, 3, 4]

    Returns:
        float32 [M, 3], on the device of the motions.
    """
    mean = (binding @ motions.reshape(len(motions), 12).cpu().numpy()).reshape(-1, 3, 4)
    moved = np.einsum("mij,mj->mi", mean[..., :3], points) + mean[..., 3]
    return torch.from_numpy(moved).to(motions.device)
