# SPDX-License-Identifier: Apache-2.0
"""Clothing: the clothed surface of a person, from its crops and the bodies fitted to them.

relief (each crop) -> surface -> charts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from viewsynth.reconstruct import charts, exposure, matting, relief, surface
from viewsynth.reconstruct.guess import Guess
from viewsynth.records import Surface

if TYPE_CHECKING:
    from viewsynth.reconstruct.fitting import Fitted
    from viewsynth.reconstruct.people import Tools
    from viewsynth.reconstruct.texture import Projection


@dataclass(frozen=True)
class Maps:
    """What is known of the person's colours.

    Args:
        texture: Atlas of the body, completed.  uint8 [T, T, 3]
        seen: Its seen map.  uint8 [T, T]
        tones: Of `tone.tones`, for each crop that is used.
    """

    texture: np.ndarray
    seen: np.ndarray
    tones: Sequence[Callable]


def clothe(
    tools: Tools,
    found: Fitted,
    shown: Sequence[Projection],
    rows: Sequence[int],
    trust: Sequence[float],
    maps: Maps,
    guesses: Sequence[Guess | None],
) -> tuple[Surface | None, list[float]]:
    """Reconstruct the clothed surface of one person.

    Args:
        tools: See `people.load`.
        found: The fitted crops.
        shown: Of `texture.project`, for all crops.
        rows: Those of the person that are used.
        trust: Weight of each of them, (0, 1].
        maps: Colours of the body, and the tones of the crops.
        guesses: Of completion for each of `rows`, or None.

    Returns:
        The surface, None if the crops leave no whole person; and for each crop the IoU of the
        surface and the mask.
    """
    canonical, masks = tools.poser.canonical, [found.crops[row].parse.mask for row in rows]
    motions = canonical.nodes.motions(found.vertices[list(rows)])
    reliefs = [
        relief.relief(
            tools.body, canonical, tools.volume, found.fit, row, shown[row].front, motion, mask
        )
        for row, motion, mask in zip(rows, motions, masks, strict=True)
    ]
    shell = surface.fuse(tools.volume, found.fit, rows, reliefs, motions, trust, guesses)
    if shell is None:
        return None, [one.overlap for one in reliefs]
    binding = canonical.nodes.bind(shell.vertices)
    exposures = [
        exposure.expose(shell, binding, found.fit, row, motion, mask, weight)
        for row, motion, mask, weight in zip(rows, motions, masks, trust, strict=True)
    ]
    behind = [
        guess
        and (exposure.from_behind(shell, binding, found.fit, row, motion, guess, weight), guess)
        for row, motion, guess, weight in zip(rows, motions, guesses, trust, strict=True)
    ]
    images = [
        matting.foreground_colours(shown[row].image, mask)
        for row, mask in zip(rows, masks, strict=True)
    ]
    atlas = (tools.atlas, maps.texture, maps.seen)
    made = charts.paint(shell, canonical, atlas, exposures, images, maps.tones, behind)
    canonical.bindings[made] = binding
    return made, [one.overlap(mask) for one, mask in zip(exposures, masks, strict=True)]
