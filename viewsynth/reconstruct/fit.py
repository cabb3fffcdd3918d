# SPDX-License-Identifier: Apache-2.0
"""Fit body, clothing and camera to the parsed crops of a chunk.

Source: ours, after SMPLify (Bogo et al., ECCV 2016), with an orthographic camera. The following is
needed for bodies that look right from above, though it makes no difference in the source view:
- an upright prior in world axes (without it the reprojection is best with bodies that lean or lie);
- the elevation of the camera is a parameter (10 +- 10 degrees unless the data gives it);
- depth hints are damped limb by limb, and not used for feet;
- many crops are stretched sideways: an aspect parameter absorbs that;
- clothing is an offset along the normals, small where the normal points at the camera, so that a
  wider silhouette does not become a belly.
The crops of a person share shape and offsets. The silhouette term uses a distance transform, not a
soft rasterizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth.bodies import KEYPOINTS, PARTS, Body
from viewsynth.reconstruct.targets import AXES, INDEX, LIMBS, Targets
from viewsynth.render.shade import vertex_normals

ITERATIONS = (60, 60)  # skeleton; skeleton, silhouette and offsets
RATES = {  # learning rates of Adam, in the order of the parameters
    "pose": 0.04,
    "shape": 0.2,
    "handles": 0.015,
    "azimuth": 0.04,
    "elevation": 0.12,
    "aspect": 0.015,
    "camera": 0.01,
}
SUBSET, HANDLES = 1100, 90  # vertices for the silhouette; control points of the offsets
THICKEST = 0.06  # metres, of clothing
ELEVATIONS = (-10.0, 60.0)  # range of the camera's elevation, degrees


@dataclass(frozen=True)
class Fit:
    """The result for N crops of P people.

    Args:
        shape: Shape of each person.  [P, S]
        offsets: Of each person along the vertex normals, metres.  [P, V]
        pose: Of each crop, rotation vectors, radians.  [N, B, 3]
        elevation: Of the camera of each crop, degrees.  [N]
        azimuth: Likewise.  [N]
        scale: Crop pixels per metre, vertically.  [N]
        aspect: Horizontal stretch of the crop.  [N]
        shift: Crop pixel of the world origin.  [N, 2]
        error: Mean keypoint error, person heights.  [N]
        silhouette: Silhouette loss, dimensionless.  [N]
    """

    shape: Tensor
    offsets: Tensor
    pose: Tensor
    elevation: Tensor
    azimuth: Tensor
    scale: Tensor
    aspect: Tensor
    shift: Tensor
    error: Tensor
    silhouette: Tensor

    def project(self, vertices: Tensor, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Project world points into crops.

        Args:
            vertices: World, metres.  [n, V, 3]
            crops: Which crop each row belongs to.  [n]

        Returns:
            Crop pixels [n, V, 2] and depth, metres [n, V].
        """
        local = vertices @ view_rotation(self.elevation[crops], self.azimuth[crops]).mT
        stretch = torch.stack([self.scale * self.aspect, self.scale], 1)[crops]
        return local[..., :2] * stretch[:, None] + self.shift[crops][:, None], local[..., 2]


def view_rotation(elevation: Tensor, azimuth: Tensor) -> Tensor:
    """Rotation of cameras on the orbit, differentiable: rows right, down, forward.

    Args:
        elevation: Degrees.  [N]
        azimuth: Degrees.  [N]

    Returns:
        [N, 3, 3].
    """
    e_rad, a_rad = torch.deg2rad(elevation), torch.deg2rad(azimuth)
    zero = torch.zeros_like(e_rad)
    right = torch.stack([a_rad.cos(), zero, -a_rad.sin()], -1)
    down = torch.stack([e_rad.sin() * a_rad.sin(), -e_rad.cos(), e_rad.sin() * a_rad.cos()], -1)
    forward = torch.stack(
        [-e_rad.cos() * a_rad.sin(), -e_rad.sin(), -e_rad.cos() * a_rad.cos()], -1
    )
    return torch.stack([right, down, forward], 1)


class Fitter:
    """Everything about a body that a fit needs, prepared once.

    Args:
        body: The body.
    """

    def __init__(self, body: Body):
        self.body = body
        rest = body.vertices(body.shape_mean[None], 0 * body.pose_mean[None])[0]
        self.normals = vertex_normals(rest[None], body.faces)[0]
        self.subset = spread_out(rest, SUBSET)
        self.handles = spread_out(rest, HANDLES)
        self.key_index, inverse = body.keypoint_vertices.unique(return_inverse=True)
        regressor = torch.zeros(len(KEYPOINTS), len(self.key_index), device=rest.device)
        self.regressor = regressor.scatter_add_(1, inverse, body.keypoint_weights)
        self.both = torch.cat([self.key_index, self.subset])
        distance = torch.cdist(rest, rest[self.handles])
        gauss = torch.exp(-0.5 * (distance / 0.09).square())
        self.spread = gauss / gauss.sum(1, keepdim=True).clamp_min(1e-3)  # [V, H]
        part = body.parts[self.handles]
        stiff = torch.ones(len(self.handles), device=rest.device)
        for name, factor in (("head", 15.0), ("neck", 6.0), ("hand", 40.0), ("foot", 15.0)):
            stiff[[name in PARTS[int(number)] for number in part]] = factor
        self.stiffness = stiff
        # Handles reach 9 cm: without this hands, feet and head would swell with a sleeve nearby.
        thin = torch.ones(len(PARTS), device=rest.device)
        for name, factor in (
            ("arm", 0.6),
            ("hand", 0.05),
            ("head", 0.3),
            ("neck", 0.5),
            ("foot", 0.5),
        ):
            thin[[row for row, part_name in enumerate(PARTS) if name in part_name]] = factor
        self.spread *= thin[body.parts][:, None]
        near = torch.cdist(rest[self.handles], rest[self.handles])
        self.neighbours = near.topk(5, largest=False).indices[:, 1:]
        self.free_shape = body.shape_std > 0

    def offsets(self, handles: Tensor) -> Tensor:
        """Offsets of all vertices from the values of the handles.

        Args:
            handles: Unbounded.  [P, H]

        Returns:
            Metres, at most `THICKEST` outwards and 0.01 inwards.  [P, V]
        """
        return limited(handles) @ self.spread.T


def limited(handles: Tensor) -> Tensor:
    """Limit values smoothly to [-0.01, `THICKEST`] metres."""
    outward = THICKEST * torch.tanh(handles.clamp_min(0) / THICKEST)
    inward = 0.01 * torch.tanh(handles.clamp_max(0) / 0.01)
    return outward + inward


def spread_out(points: Tensor, count: int) -> Tensor:
    """Indices of `count` points by farthest point sampling from the first one; sorted."""
    chosen = [0]
    distance = (points - points[0]).norm(dim=1)
    for _ in range(count - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (points - points[chosen[-1]]).norm(dim=1))
    return torch.tensor(sorted(set(chosen)), device=points.device)


def fit(fitter: Fitter, goal: Targets) -> Fit:
    """Fit all crops of a chunk in one batch.

    Args:
        fitter: The prepared body.
        goal: See `targets`.

    Returns:
        `Fit`; the crops of a person share its shape and offsets.
    """
    body, count = fitter.body, len(goal.points)
    people = int(goal.person.max()) + 1
    device = goal.points.device
    state = {
        "pose": torch.zeros(count, len(body.bones), 3, device=device),
        "shape": torch.zeros(people, len(body.shapes), device=device),
        "handles": torch.zeros(people, len(fitter.handles), device=device),
        "azimuth": _first_azimuth(goal),
        "elevation": torch.zeros(count, device=device),
        "aspect": torch.zeros(count, device=device),
        "camera": torch.zeros(count, 3, device=device),
    }
    _first_camera(fitter, goal, state)
    for value in state.values():
        value.requires_grad_(True)
    normals = None
    for stage, iterations in enumerate(ITERATIONS):
        if stage == 1:
            normals = _posed_normals(fitter, goal, state)
        _optimise(fitter, goal, state, normals, iterations)
    with torch.no_grad():
        _, error, silhouette = _loss(fitter, goal, state, normals)
        return _result(fitter, goal, state, error, silhouette)


def _optimise(
    fitter: Fitter, goal: Targets, state: dict, normals: Tensor | None, iterations: int
) -> None:
    """One stage of the fit, in place; the offsets are free only if there are normals."""
    optimiser = torch.optim.Adam(
        [
            {"params": [state[key]], "lr": rate, "base": rate}
            for key, rate in RATES.items()
            if normals is not None or key != "handles"
        ],
        betas=(0.9, 0.98),
    )
    for step in range(iterations):
        decay = 0.5 * (1 + np.cos(np.pi * step / iterations)) * 0.9 + 0.1
        for group in optimiser.param_groups:
            group["lr"] = group["base"] * decay
        optimiser.zero_grad()
        loss = _loss(fitter, goal, state, normals)[0].sum()
        loss.backward()
        optimiser.step()


def _first_azimuth(goal: Targets) -> Tensor:
    """Azimuth from the shoulder and hip axes (left minus right), radians., [N]."""
    total = torch.zeros(len(goal.points), 2, device=goal.points.device)
    for row, (left, right) in enumerate(AXES):
        across = goal.points[:, INDEX[left], 0] - goal.points[:, INDEX[right], 0]
        slope = goal.axis[:, row].clamp(-0.98, 0.98)
        total += (
            torch.stack([-slope, across.sign() * (1 - slope.square()).sqrt()], 1) * (1.0, 0.5)[row]
        )
    return torch.atan2(total[:, 0], total[:, 1])


def _first_camera(fitter: Fitter, goal: Targets, state: dict) -> None:
    """Set the scale and shift that align the standing body with the skeleton, in place."""
    with torch.no_grad():
        points, _, _ = _project(fitter, goal, state, None)
        index = [KEYPOINTS.index(name) for name in ("nose", "left_ankle", "right_ankle")]
        trunk = [k for k, name in enumerate(KEYPOINTS) if "shoulder" in name or "hip" in name]
        have = goal.points[:, trunk].mean(1)[:, 1], goal.points[:, index].amax(1)[:, 1]
        model = points[:, trunk].mean(1)[:, 1], points[:, index].amax(1)[:, 1]
        scale = ((have[1] - have[0]) / (model[1] - model[0]).clamp_min(0.1)).clamp(0.3, 1.5)
        state["camera"][:, 0] = scale.log()
        points, _, _ = _project(fitter, goal, state, None)
        state["camera"][:, 1:] += goal.points[:, trunk].mean(1) - points[:, trunk].mean(1)


def _angles(goal: Targets, state: dict) -> tuple[Tensor, Tensor]:
    """Elevation and azimuth of the cameras, degrees, [N] each."""
    elevation = goal.elevation[:, 0] + goal.elevation[:, 1] * state["elevation"]
    return elevation.clamp(*ELEVATIONS), torch.rad2deg(state["azimuth"])


def _values(fitter: Fitter, state: dict) -> tuple[Tensor, Tensor]:
    """Shape and pose in the body's own units; the shape within its limits."""
    body = fitter.body
    shape = body.shape_mean + body.shape_std * state["shape"]
    pose = body.pose_mean + state["pose"] * 1.0
    return shape.clamp(min=body.shape_low, max=body.shape_high), pose


def _project(fitter: Fitter, goal: Targets, state: dict, normals: Tensor | None):
    """Keypoints and silhouette samples in person heights, and the 3D keypoints."""
    shape, pose = _values(fitter, state)
    outlined = normals is not None
    wanted = fitter.both if outlined else fitter.key_index
    vertices = fitter.body.vertices(shape[goal.person], pose, wanted)
    keys, samples = vertices[:, : len(fitter.key_index)], vertices[:, len(fitter.key_index) :]
    joints = fitter.regressor @ keys
    rotation = view_rotation(*_angles(goal, state))
    if outlined:
        thick = fitter.offsets(state["handles"])[:, fitter.subset][goal.person]
        toward = (normals @ rotation[:, 2, :, None])[..., 0].abs()
        samples = samples + normals * (thick * (1 - 0.75 * toward))[..., None]
    scale, shift = state["camera"][:, 0].exp(), state["camera"][:, 1:]
    stretch = torch.stack([scale * state["aspect"].exp(), scale], 1)
    flat = [
        points @ rotation[:, :2].mT * stretch[:, None] + shift[:, None]
        for points in (joints, samples)
    ]
    return flat[0], flat[1], joints


def _posed_normals(fitter: Fitter, goal: Targets, state: dict) -> Tensor:
    """Vertex normals of the subset in the current pose, [N, SUBSET, 3]; held fixed from here."""
    with torch.no_grad():
        shape, pose = _values(fitter, state)
        vertices = fitter.body.vertices(shape[goal.person], pose)
        return vertex_normals(vertices, fitter.body.faces)[:, fitter.subset]


def _loss(fitter: Fitter, goal: Targets, state: dict, normals: Tensor | None):
    """Loss, mean keypoint error and silhouette loss of every crop; weights set by experiment."""
    body = fitter.body
    points, samples, joints = _project(fitter, goal, state, normals)
    squared = (points - goal.points).square().sum(-1)
    weight = goal.weight / goal.weight.mean(1, keepdim=True)
    error = (squared.sqrt() * weight).mean(1)
    if normals is not None:
        squared = squared / (1 + squared / 0.05**2)
    loss = 90 * (squared * weight).sum(1)
    loss = loss + 0.06 * _depth_loss(goal, state, joints)
    _, pose = _values(fitter, state)
    loss = loss + 0.004 * ((pose - body.pose_mean) / body.pose_std).square().sum((1, 2))
    over = (pose - body.pose_high).clamp_min(0) + (body.pose_low - pose).clamp_min(0)
    loss = loss + 5.0 * over.square().sum((1, 2)) + 0.01 * _upright(joints)
    loss = loss + 0.02 * state["elevation"].square() + 0.006 * (state["aspect"] / 0.06).square()
    shape = state["shape"][:, fitter.free_shape].square().sum(1)[goal.person]
    loss = loss + 0.02 * shape
    silhouette = torch.zeros_like(error)
    if normals is not None:
        silhouette = _silhouette_loss(goal, samples)
        handles = state["handles"] / 0.03
        rough = (handles[:, :, None] - handles[:, fitter.neighbours]).square().mean((1, 2))
        stiff = (handles.square() * fitter.stiffness).mean(1)
        loss = loss + silhouette + (0.04 * rough + 0.06 * stiff)[goal.person]
    return loss, error, silhouette


def _depth_loss(goal: Targets, state: dict, joints: Tensor) -> Tensor:
    """Misfit of limbs and trunk axes to the depth hints (depth change over length), [N]."""
    forward = view_rotation(*_angles(goal, state))[:, 2]
    limbs = [(f"{s}_{a}", f"{s}_{b}") for s in ("left", "right") for a, b, _ in LIMBS]
    pairs = torch.tensor([(INDEX[a], INDEX[b]) for a, b in (*limbs, *AXES)], device=joints.device)
    change = joints[:, pairs[:, 0]] - joints[:, pairs[:, 1]]
    slope = (change @ forward[..., None])[..., 0] / change.norm(dim=-1).clamp_min(0.05)
    miss = (slope - torch.cat([goal.depth, goal.axis], 1)).square()
    return miss[:, :-2].sum(1) + 4 * miss[:, -2:].sum(1)


def _upright(joints: Tensor) -> Tensor:
    """Squared deviations from standing upright in world axes, relative to typical ones, [N]."""

    def middle(name: str) -> Tensor:
        return (joints[:, INDEX[f"left_{name}"]] + joints[:, INDEX[f"right_{name}"]]) / 2

    shoulders, hips, ankles, ears = (
        middle("shoulder"),
        middle("hip"),
        middle("ankle"),
        middle("ear"),
    )
    flat = [0, 2]
    step = joints[:, INDEX["left_ankle"], 1] - joints[:, INDEX["right_ankle"], 1]
    return (
        ((shoulders - hips)[:, flat] / 0.05).square().sum(1)
        + ((ankles - hips)[:, flat] / 0.07).square().sum(1)
        + ((ears - shoulders)[:, flat] / 0.08).square().sum(1)
        + (step / 0.07).square()
    )


def _silhouette_loss(goal: Targets, samples: Tensor) -> Tensor:
    """Robust distances of samples outside the mask and of edge points without a sample, [N]."""
    corner, side = goal.window[:, None, :2], goal.window[:, 2, None, None]
    grid = (samples - corner) / side * 2 - 1
    distance = torch.nn.functional.grid_sample(
        goal.distance[:, None], grid[:, :, None], align_corners=False, padding_mode="border"
    )[:, 0, :, 0]
    outside = distance.clamp_min(0).square()
    with torch.no_grad():  # which sample is nearest has no gradient; its distance has
        nearest = torch.cdist(goal.boundary, samples).argmin(2)
    nearest = samples.gather(1, nearest[..., None].expand(-1, -1, 2))
    gap = (goal.boundary - nearest).square().sum(-1)
    robust = [value / (1 + value / 0.04**2) for value in (outside, gap)]
    return 1500 * (robust[0].mean(1) + 0.9 * robust[1].mean(1))


def _result(fitter: Fitter, goal: Targets, state: dict, error: Tensor, silhouette: Tensor) -> Fit:
    """The final state in the units of `Fit`."""
    shape, pose = _values(fitter, state)
    elevation, azimuth = _angles(goal, state)
    return Fit(
        shape=shape.detach(),
        pose=pose.detach(),
        offsets=fitter.offsets(state["handles"]).detach(),
        elevation=elevation.detach(),
        azimuth=azimuth.detach() % 360,
        scale=(state["camera"][:, 0].exp() * goal.height).detach(),
        aspect=state["aspect"].exp().detach(),
        shift=(state["camera"][:, 1:] * goal.height[:, None]).detach(),
        error=error.detach(),
        silhouette=silhouette.detach(),
    )
