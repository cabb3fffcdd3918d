# SPDX-License-Identifier: Apache-2.0
"""Images of simple people from above, before a sensor and as filmed by one."""

from functools import cache

import numpy as np
import torch
from figures import people

from viewsynth.match import crops, estimate, measures
from viewsynth.render.options import CHIP, LENS, Scene, Sensor
from viewsynth.render.sensor import expose
from viewsynth.render.views import Shot, render_views

KIT = Sensor(pixels=90.0, margin=(0.15, 0.3), **LENS, **CHIP)


@cache
def clean(first: int, last: int, views: int) -> tuple[estimate.Clean, ...]:
    """Views of the people of these numbers, below 16, before the sensor."""
    meshes, pids = people(16)
    shots = [
        Shot(k, 30.0 + 7 * n, 100.0 * n + 40 * k, f"{n}")
        for k in range(first, last)
        for n in range(views)
    ]
    made = []
    for view in render_views(meshes, pids, shots, KIT, 5, Scene()):
        image = torch.from_numpy(view.image.copy()).permute(2, 0, 1).float() / 255
        made.append(estimate.Clean(image, view.mask.astype(float), view.pid))
    return tuple(made)


def filmed(sensor: Sensor, some: tuple[estimate.Clean, ...]) -> list[crops.Crop]:
    """The same people through a sensor, with their true masks."""
    made = []
    for number, one in enumerate(some):
        image = expose(one.image, sensor, 900 + number)
        figures = measures.measure(image, one.mask)
        framing = measures.framing(one.mask)
        made.append(crops.Crop(f"{number:03d}", image, one.mask, framing, figures, None, 45.0))
    return made


def board(colour: tuple[int, int, int], spread: int = 12, seed: int = 0) -> np.ndarray:
    """A grainy ground of one colour.  uint8 [150, 100, 3]"""
    grain = np.random.default_rng(seed).normal(0, spread, (150, 100, 1))
    return np.clip(np.array(colour) + grain, 0, 255).astype(np.uint8)
