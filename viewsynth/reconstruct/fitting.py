# SPDX-License-Identifier: Apache-2.0
"""Fitting: the usable crops of people of a chunk, with the bodies that fit them.

crops, facing, targets, fit -> this module -> people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from viewsynth.reconstruct import facing, fit, targets
from viewsynth.reconstruct.crops import Crop, Outcome, elevation, usable
from viewsynth.records import Sample

if TYPE_CHECKING:
    from viewsynth.reconstruct.people import Tools


@dataclass(frozen=True)
class Fitted:
    """N crops of P people with the bodies that were fitted to them.

    Args:
        crops: The crops that can be used.
        owners: Index of each person that has one; the order of the people of `fit`.
        fit: Bodies and cameras.
        vertices: Posed and clothed body of each crop, metres.  float32 [N, V, 3]
    """

    crops: list[Crop]
    owners: list[int]
    fit: fit.Fit
    vertices: Tensor

    def rows(self, owner: int) -> list[int]:
        """The crops of one person."""
        return [row for row, crop in enumerate(self.crops) if crop.owner == owner]


@torch.no_grad()
def fitted(
    people: list[list[Sample]],
    images: list[list[np.ndarray]],
    tools: Tools,
    outcomes: list[Outcome],
    alike: Callable[[list[np.ndarray], list[int]], np.ndarray] | None = None,
) -> Fitted | None:
    """Parse the crops of the people of a chunk and fit bodies to them.

    Args:
        people: See `reconstruct`.
        images: See `reconstruct`.
        tools: See `load`.
        outcomes: One per person; get the rejects.
        alike: See `reconstruct`.

    Returns:
        None if no crop can be used.
    """
    crops = usable(people, images, tools.pose_model, outcomes, alike)
    if not crops:
        return None
    if tools.completer is not None:
        facing.vote(crops, tools.completer)
    facing.resolve(crops)
    owners = sorted({crop.owner for crop in crops})
    goal = targets.targets(
        [crop.parse for crop in crops],
        [owners.index(crop.owner) for crop in crops],
        [elevation(crop.sample) for crop in crops],
        tools.body.faces.device,
    )
    with torch.enable_grad():
        found = fit.fit(tools.fitter, goal)
    bare = tools.body.vertices(found.shape[goal.person], found.pose)
    no_hair = bare.new_zeros(len(crops))
    dressed = tools.poser.clothier.dress(bare, found.offsets[goal.person], no_hair)
    return Fitted(crops, owners, found, dressed)
