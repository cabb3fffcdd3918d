# SPDX-License-Identifier: Apache-2.0
"""Simple people made of an ellipsoid, for tests of the renderer."""

import dataclasses

import numpy as np
import torch

from viewsynth.render import Mesh


def ball(count=24, size=(32, 32), seed=0):
    """A unit sphere around the origin with a longitude-latitude atlas of random colours."""
    a = torch.arange(count + 1) / count * 2 * torch.pi
    b = torch.arange(count + 1) / count * torch.pi
    a, b = torch.meshgrid(a, b, indexing="ij")
    points = torch.stack([b.sin() * a.sin(), b.cos(), b.sin() * a.cos()], -1).view(-1, 3)
    uvs = torch.stack([a / (2 * torch.pi), 1 - b / torch.pi], -1).view(-1, 2)
    i, j = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    one = (i * (count + 1) + j).reshape(-1)
    two, three, four = one + 1, one + count + 2, one + count + 1
    faces = torch.cat([torch.stack([one, two, three], 1), torch.stack([one, three, four], 1)])
    texels = np.random.default_rng(seed).integers(0, 256, (*size, 4), np.uint8)
    texture, seen = torch.from_numpy(texels).split([3, 1], dim=-1)
    return Mesh(points, faces, uvs, faces, texture, seen[..., 0])


def figure(count=20):
    """An ellipsoid with a nose, 1.7 m high, 0.5 m wide and 0.3 m deep."""
    mesh = ball(count, (64, 64))
    x, y, z = (mesh.vertices * torch.tensor([0.25, 0.85, 0.15])).unbind(1)
    y = y + 0.85
    z = z + 0.15 * torch.exp(-(((y - 1.5) / 0.1) ** 2) - (x / 0.05) ** 2) * (z > 0)
    return dataclasses.replace(mesh, vertices=torch.stack([x, y, z], 1))


def people(count):
    """Meshes and pids of people of different size, of whom everything is seen."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(40, 220, (count, 8, 8, 3))
    textures = [np.kron(c, np.ones((8, 8, 1))).astype(np.uint8) for c in coarse]
    mesh, scales = figure(), torch.linspace(1.0, 0.8, count)
    meshes = [
        dataclasses.replace(
            mesh,
            vertices=mesh.vertices * scale,
            texture=torch.from_numpy(texture),
            seen=torch.full((64, 64), 255, dtype=torch.uint8),
        )
        for scale, texture in zip(scales, textures, strict=True)
    ]
    return meshes, [f"p{k}" for k in range(count)]
