# SPDX-License-Identifier: Apache-2.0
"""Targets of the fit: the parses of all crops as tensors.

All lengths are in units of the person's height in the crop, so that weights have one meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from viewsynth.bodies import KEYPOINTS
from viewsynth.reconstruct.parse import INDEX, Parse

# (upper end, lower end, damping of the depth hint, because the pose model overestimates depth)
LIMBS = (
    ("shoulder", "elbow", 0.69),
    ("elbow", "wrist", 0.62),
    ("hip", "knee", 0.43),
    ("knee", "ankle", 0.72),
)
AXES = (("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"))
POINT_WEIGHTS = {"eye": 0.5, "ear": 0.7, "toe": 0.5, "heel": 0.5, "hip": 0.8}
BOUNDARY = 160  # points on the silhouette
SOURCE_ELEVATION = (10.0, 10.0)  # mean and standard deviation of a ground camera, degrees
KNOWN_ELEVATION = 1.0  # standard deviation where the data gives the elevation, degrees


@dataclass
class Targets:
    """Targets of N crops, lengths in person heights; shapes and units see the comments."""

    points: Tensor  # [N, K, 2]
    weight: Tensor  # [N, K]
    depth: Tensor  # [N, L] damped depth change over length of every limb
    axis: Tensor  # [N, 2] the same for the shoulder and the hip axis
    height: Tensor  # [N] pixels
    distance: Tensor  # [N, R, R] signed distance to the mask's edge, outside positive
    window: Tensor  # [N, 3] corner and side of that map, person heights
    boundary: Tensor  # [N, BOUNDARY, 2] points on the mask's edge
    person: Tensor  # [N] person of the crop
    elevation: Tensor  # [N, 2] prior mean and std, degrees


def targets(
    parses: list[Parse], person: list[int], elevations: list[float | None], device
) -> Targets:
    """Compute the targets of all crops.

    Args:
        parses: Of N crops.
        person: Index of the person of each crop.
        elevations: Of the camera of each crop, degrees; None = unknown.
        device: Of the tensors.
    """
    base = np.ones(len(KEYPOINTS), np.float32)
    for name, row in INDEX.items():
        for key, value in POINT_WEIGHTS.items():
            if key in name:
                base[row] = value
    rows: dict[str, list] = {
        key: [] for key in ("points", "weight", "depth", "axis", "map", "window", "edge")
    }
    for one in parses:
        spread = one.spread / 0.04
        rows["points"].append(one.points / one.height)
        rows["weight"].append(base / (1 + spread**2))
        rows["depth"].append(
            _slopes(
                one, [(f"{s}_{a}", f"{s}_{b}", d) for s in ("left", "right") for a, b, d in LIMBS]
            )
        )
        rows["axis"].append(_slopes(one, [(a, b, 1.0) for a, b in AXES]))
        for key, value in zip(("map", "window", "edge"), _silhouette(one), strict=True):
            rows[key].append(value)
    prior = [SOURCE_ELEVATION if e is None else (float(e), KNOWN_ELEVATION) for e in elevations]
    stack = {
        key: torch.from_numpy(np.stack(value).astype(np.float32)).to(device)
        for key, value in rows.items()
    }
    return Targets(
        points=stack["points"],
        weight=stack["weight"],
        depth=stack["depth"],
        axis=stack["axis"],
        height=torch.tensor([one.height for one in parses], device=device),
        distance=stack["map"],
        window=stack["window"],
        boundary=stack["edge"],
        person=torch.tensor(person, device=device),
        elevation=torch.tensor(prior, device=device),
    )


def _slopes(one: Parse, pairs) -> np.ndarray:
    """Damped depth change over length of each pair of points."""
    change = np.stack([one.length[INDEX[a]] - one.length[INDEX[b]] for a, b, _ in pairs])
    slope = change[:, 2] / np.maximum(np.linalg.norm(change, axis=1), 0.05)
    return slope * np.array([damping for *_, damping in pairs])


def _silhouette(one: Parse, size: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distance map on a square around the person, its window, and edge points; heights."""
    pad = int(np.ceil(0.25 * max(one.mask.shape)))
    mask = np.pad(one.mask > 0.5, pad)
    if not mask.any():
        mask[pad + one.mask.shape[0] // 2, pad + one.mask.shape[1] // 2] = True
    signed = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    signed = (signed + 0.7) / one.height  # masks are slightly too wide
    side = max(mask.shape)
    square = np.pad(signed, ((0, side - mask.shape[0]), (0, side - mask.shape[1])), mode="edge")
    zoom = ndimage.map_coordinates(
        square, np.mgrid[:size, :size] * (side - 1) / (size - 1), order=1, mode="nearest"
    )
    edge = mask & ~ndimage.binary_erosion(mask)
    inside = np.zeros_like(mask)
    inside[pad + 1 : pad + one.mask.shape[0] - 1, pad + 1 : pad + one.mask.shape[1] - 1] = True
    rows, columns = np.nonzero(edge & inside)  # where the crop cuts the person there is no edge
    if len(rows) == 0:
        rows, columns = np.nonzero(edge)
    pick = np.linspace(0, len(rows) - 1, BOUNDARY).round().astype(int)
    points = np.stack([columns[pick] - pad + 0.5, rows[pick] - pad + 0.5], 1) / one.height
    return zoom, np.array([-pad, -pad, side]) / one.height, points
