# SPDX-License-Identifier: Apache-2.0
"""Simple people made of an ellipsoid, for tests of the renderer."""

from types import SimpleNamespace

import numpy as np
import torch


def figure(count=20):
    """Vertices and body of an ellipsoid with a nose, 1.7 m high, 0.5 m wide and 0.3 m deep."""
    a = torch.arange(count + 1) / count * 2 * torch.pi
    b = torch.arange(count + 1) / count * torch.pi
    a, b = torch.meshgrid(a, b, indexing="ij")
    x, y, z = 0.25 * b.sin() * a.sin(), 0.85 + 0.85 * b.cos(), 0.15 * b.sin() * a.cos()
    z = z + 0.15 * torch.exp(-(((y - 1.5) / 0.1) ** 2) - (x / 0.05) ** 2) * (z > 0)
    uvs = torch.stack([a / (2 * torch.pi), 1 - b / torch.pi], -1).view(-1, 2)
    i, j = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    one = (i * (count + 1) + j).reshape(-1)
    two, three, four = one + 1, one + count + 2, one + count + 1
    faces = torch.cat([torch.stack([one, two, three], 1), torch.stack([one, three, four], 1)])
    body = SimpleNamespace(faces=faces, uvs=uvs, face_uvs=faces)
    return torch.stack([x, y, z], -1).view(1, -1, 3), body


def people(count):
    """Vertices, body, textures, seen maps and pids of people of different size."""
    vertices, body = figure()
    scale = torch.linspace(1.0, 0.8, count)[:, None, None]
    rng = np.random.default_rng(5)
    coarse = rng.integers(40, 220, (count, 8, 8, 3))
    textures = [np.kron(c, np.ones((8, 8, 1))).astype(np.uint8) for c in coarse]
    seen_maps = [np.full((64, 64), 255, np.uint8) for _ in range(count)]
    return vertices * scale, body, textures, seen_maps, [f"p{k}" for k in range(count)]
