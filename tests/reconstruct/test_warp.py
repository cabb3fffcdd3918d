# SPDX-License-Identifier: Apache-2.0
"""Points around the canonical body follow it."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from viewsynth.reconstruct.warp import move


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_rigid_motion_of_the_body_is_that_of_the_points(tools, seed):
    nodes, rest = tools.poser.canonical.nodes, tools.poser.canonical.vertices
    rng = np.random.default_rng(seed)
    turn = Rotation.random(rng=rng).as_matrix().astype(np.float32)
    shift = rng.normal(size=3).astype(np.float32)
    points = rng.uniform([-1, 0, -0.5], [1, 1.9, 0.5], (50, 3)).astype(np.float32)
    [motion] = nodes.motions((rest @ torch.from_numpy(turn).T + torch.from_numpy(shift))[None])
    moved = move(points, nodes.bind(points), motion).numpy()
    assert np.abs(moved - (points @ turn.T + shift)).max() < 1e-3


def test_weights_sum_to_one_and_are_continuous(tools):
    nodes = tools.poser.canonical.nodes
    line = np.linspace([-0.3, 0.5, 0.05], [0.3, 0.5, 0.05], 4000)  # from leg to leg
    weights = nodes.bind(line).toarray()
    assert np.abs(weights.sum(1) - 1).max() < 1e-5 and weights.min() >= 0
    assert np.abs(np.diff(weights, axis=0)).sum(1).max() < 0.1, "no jump between the legs"


def test_the_surface_of_the_body_follows_the_body(tools):
    canonical, poser = tools.poser.canonical, tools.poser
    body, count = tools.body, 4
    shape = body.shape_mean[None].repeat(count, 1)
    bare = body.vertices(shape, poser.bank[:count])
    clothes = poser.clothier.cloth[None].repeat(count, 1)
    posed = poser.clothier.dress(bare, clothes, bare.new_ones(count))
    points = canonical.vertices.numpy()
    binding = canonical.nodes.bind(points)
    used = body.faces.unique()
    for vertices, motion in zip(posed, canonical.nodes.motions(posed), strict=True):
        off = (move(points, binding, motion) - vertices)[used].norm(dim=1)
        assert float(off.mean()) < 0.005 and float(off.quantile(0.99)) < 0.025, "metres"


def test_a_body_in_a_batch_moves_as_alone(tools):
    rest = tools.poser.canonical.vertices
    pair = torch.stack([rest, 0.9 * rest + 0.1])
    nodes = tools.poser.canonical.nodes
    alone = torch.cat([nodes.motions(one[None]) for one in pair])
    assert torch.equal(nodes.motions(pair), alone)


def test_distances_of_the_volume_are_those_of_the_body(tools):
    volume, vertices = tools.volume, tools.poser.canonical.vertices
    vertices = vertices[tools.body.faces.unique()]
    rng = np.random.default_rng(0)
    some = rng.choice(len(volume.points), 300, replace=False)
    exact = torch.cdist(torch.from_numpy(volume.points[some]), vertices).amin(1).numpy()
    off = np.abs(volume.distance[some]) - exact
    assert np.abs(off).max() < 0.02 and (volume.distance < 0).mean() > 0.03
